//! One pinned peer: its key and addresses, what waits for it, its connections, and what it may make us hold.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use quinn::{Connection, VarInt};
use tokio::sync::{Notify, Semaphore};
use tokio::task::AbortHandle;

use super::dial::STEADY;
use super::queue::SendQueue;
use super::{CODE_REPLACED, STREAMS};
use crate::agent::ports::PeerIdentity;
use crate::engine::id::NodeName;
use crate::engine::wire::MAX_MESSAGE;

/// Connections that a peer may have to us: the newest, and one that its restart left behind.
const MAX_INBOUND: usize = 2;
/// Connections with tunnels, of either direction: three for each migration, and a few of those go on at a time.
const MAX_TUNNELS: usize = 48;
/// Bytes of messages that are being read from one peer or wait for the engine: two of the longest.
const MAX_READING: usize = 2 * MAX_MESSAGE;

/// See the head of this file.
pub(super) struct Peer {
    pub(super) node: NodeName,
    pub(super) key: [u8; 32],
    /// What waits to be sent.
    pub(super) queue: SendQueue,
    /// Messages that may be read at a time, over all its connections.
    pub(super) streams: Arc<Semaphore>,
    /// Bytes that may be read at a time, over all its connections.
    pub(super) reading: Arc<Semaphore>,
    /// Rung when dialling again is worth a try before its time: new addresses, or the peer is there.
    pub(super) news: Notify,
    changing: Mutex<Changing>,
}

struct Changing {
    addresses: Vec<SocketAddr>,
    /// Opened by the peer, oldest first.
    inbound: VecDeque<Connection>,
    /// Opened by us, and when.
    outbound: Option<(Connection, Instant)>,
    /// Those that carry tunnels, of either direction.
    tunnels: Vec<Connection>,
    /// The task that dials and sends.
    sender: Option<AbortHandle>,
    /// Revoked, replaced, or the agent stops: nothing is accepted any more.
    ended: bool,
}

impl Peer {
    pub(super) fn new(identity: PeerIdentity) -> Self {
        Self {
            node: identity.node,
            key: identity.key,
            queue: SendQueue::default(),
            streams: Arc::new(Semaphore::new(STREAMS as usize)),
            reading: Arc::new(Semaphore::new(MAX_READING)),
            news: Notify::new(),
            changing: Mutex::new(Changing {
                addresses: identity.addresses,
                inbound: VecDeque::new(),
                outbound: None,
                tunnels: Vec::new(),
                sender: None,
                ended: false,
            }),
        }
    }

    /// Where it listens, best first.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.changing().addresses.clone()
    }

    /// It listens elsewhere now. A connection to where it no longer is ends.
    pub(super) fn move_to(&self, addresses: Vec<SocketAddr>) {
        let mut changing = self.changing();
        if changing.addresses == addresses {
            return;
        }
        if let Some((connection, _)) = &changing.outbound
            && !addresses.contains(&connection.remote_address())
        {
            connection.close(CODE_REPLACED, b"moved");
        }
        changing.addresses = addresses;
        drop(changing);
        self.news.notify_one();
    }

    /// Keeps a connection that the peer opened, and drops the oldest beyond the limit. A peer that opens one beside another has
    /// been killed and started again: ours leads nowhere, and is opened anew. False if the peer has been revoked meanwhile.
    pub(super) fn admit(&self, connection: &Connection) -> bool {
        let mut changing = self.changing();
        if changing.ended {
            return false;
        }
        changing.inbound.retain(|other| other.close_reason().is_none());
        if let Some((outbound, opened)) = &changing.outbound
            && !changing.inbound.is_empty()
            && opened.elapsed() >= STEADY
        {
            outbound.close(CODE_REPLACED, b"restarted");
        }
        while changing.inbound.len() >= MAX_INBOUND {
            if let Some(oldest) = changing.inbound.pop_front() {
                oldest.close(CODE_REPLACED, b"replaced");
            }
        }
        changing.inbound.push_back(connection.clone());
        drop(changing);
        self.news.notify_one();
        true
    }

    /// Keeps the connection that we opened. False if the peer has been revoked meanwhile.
    pub(super) fn opened(&self, connection: &Connection) -> bool {
        let mut changing = self.changing();
        if !changing.ended {
            changing.outbound = Some((connection.clone(), Instant::now()));
        }
        !changing.ended
    }

    /// Keeps a connection that carries tunnels. False if the peer has been revoked meanwhile, or has too many.
    pub(super) fn keep_tunnel(&self, connection: &Connection) -> bool {
        let mut changing = self.changing();
        changing.tunnels.retain(|other| other.close_reason().is_none());
        let keep = !changing.ended && changing.tunnels.len() < MAX_TUNNELS;
        if keep {
            changing.tunnels.push(connection.clone());
        }
        keep
    }

    /// Keeps the task that dials, to end it with the peer.
    pub(super) fn adopt(&self, sender: AbortHandle) {
        let mut changing = self.changing();
        if changing.ended {
            sender.abort();
        } else {
            changing.sender = Some(sender);
        }
    }

    /// Closes its connections and accepts no more.
    pub(super) fn end(&self, code: VarInt, reason: &[u8]) {
        let mut changing = self.changing();
        changing.ended = true;
        for connection in changing.inbound.drain(..) {
            connection.close(code, reason);
        }
        let tunnels = std::mem::take(&mut changing.tunnels);
        let outbound = changing.outbound.take().map(|(connection, _)| connection);
        for connection in outbound.into_iter().chain(tunnels) {
            connection.close(code, reason);
        }
        if let Some(sender) = changing.sender.take() {
            sender.abort();
        }
    }

    /// Whether it has been revoked or replaced.
    pub(super) fn has_ended(&self) -> bool {
        self.changing().ended
    }

    fn changing(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
