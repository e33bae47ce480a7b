//! The net rim: the overlay between agents, QUIC with mutual TLS by pinned ed25519 keys.
//!
//! ```text
//!   send(to, message) -> [queue per peer] -> dial.rs: one connection per peer, one stream per message
//!                                                        |
//!   Input::Message{from} <- [engine's queue] <- accept.rs: proven key -> NodeName, bounded reads
//!                                                  unknown key -> closed, Stranger
//! ```
//!
//! Tunnels for migrations have connections of their own: `tunnel/`.
//!
//! A connection carries messages one way only: from the agent that dialled it. Each message has a stream
//! of its own, so that a slow long one does not hold up short ones. What a peer can make us hold is
//! bounded: streams at a time, unread bytes, bytes being read, connections, messages waiting to be sent.
//! A full engine queue stops the reading, and QUIC's flow control stops the peer.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a network lives by clocks"
)]

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use quinn::{
    ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig, IdleTimeout, TransportConfig,
    VarInt,
};
use ring::hmac;
use tokio::runtime::Handle;

use crate::agent::ports::{InputSender, PeerIdentity, Peers, StrangerSender};
use crate::engine::id::NodeName;
use crate::engine::wire::{MAX_MESSAGE, Message};

mod accept;
pub mod codec;
pub mod counters;
mod dial;
pub mod identity;
mod peer;
mod queue;
pub mod tls;
mod tunnel;

use counters::Counters;
use identity::Identity;
use peer::Peer;

/// Streams that one connection may have open at a time, and messages of one peer being read at a time.
/// 64 messages per round trip is 320 in a second over 200 ms.
const STREAMS: u32 = 64;
/// Unread bytes that one stream may bring: as many as its connection, because QUIC has one setting for messages and
/// tunnels, and a tunnel's stream moves this much in a round trip.
const STREAM_WINDOW: u32 = CONNECTION_WINDOW;
/// Unread bytes that one connection may bring.
const CONNECTION_WINDOW: u32 = MAX_MESSAGE as u32;
/// A silent connection is dead after this. Longer than a stalled virtual machine, shorter than people wait.
const IDLE: Duration = Duration::from_secs(10);
/// The dialling side speaks up this often: three may be lost.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// First guess of a round trip: within one site. Only the first packets' repetition depends on it.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(50);
/// Length of a connection's id, bytes.
const CONNECTION_ID: usize = 8;
/// How long [`Overlay::close`] waits for peers to hear of it.
const FAREWELL: Duration = Duration::from_secs(1);

/// Close codes, for people who read packet logs: the agent stops.
const CODE_STOPPING: VarInt = VarInt::from_u32(0);
/// Your key is not pinned here.
const CODE_STRANGER: VarInt = VarInt::from_u32(1);
/// You were revoked, or your key was replaced.
const CODE_REVOKED: VarInt = VarInt::from_u32(2);
/// A newer connection of yours takes this one's place, or the address is yours no more.
const CODE_REPLACED: VarInt = VarInt::from_u32(3);
/// Nothing was said for long.
const CODE_UNUSED: VarInt = VarInt::from_u32(4);

/// What the overlay is to be.
pub struct OverlayConfig {
    /// This node's name; it is never pinned.
    pub node: NodeName,
    /// Where to listen (UDP); port 0 takes a free one.
    pub listen: SocketAddr,
    /// The key.
    pub identity: Identity,
}

/// Why the overlay cannot start.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The address cannot be listened on.
    #[error("cannot listen on UDP {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's word.
        source: io::Error,
    },
    /// TLS.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// The overlay: see the head of this file. Dropping it closes every connection.
pub struct Overlay {
    shared: Arc<Shared>,
}

/// What the overlay's tasks share.
struct Shared {
    node: NodeName,
    identity: Identity,
    endpoint: Endpoint,
    transport: Arc<TransportConfig>,
    tunnel_transport: Arc<TransportConfig>,
    admitted: tunnel::Admitted,
    peers: RwLock<Registry>,
    inputs: InputSender,
    strangers: StrangerSender,
    counters: Arc<Counters>,
    runtime: Handle,
}

/// The pinned peers.
#[derive(Default)]
struct Registry {
    by_name: BTreeMap<NodeName, Arc<Peer>>,
    by_key: BTreeMap<[u8; 32], NodeName>,
}

impl Overlay {
    /// Listens, with nobody pinned. Must be called on a tokio runtime.
    ///
    /// # Errors
    /// When the address is taken, or TLS cannot be set up.
    pub fn start(
        config: OverlayConfig,
        inputs: InputSender,
        strangers: StrangerSender,
    ) -> Result<Self, OverlayError> {
        let OverlayConfig { node, listen, identity } = config;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(tls::server(&identity)?));
        server.transport_config(transport(None));
        server.migration(true);
        server.max_incoming(accept::MAX_INCOMING);
        server.incoming_buffer_size(accept::INCOMING_BYTES);
        server.incoming_buffer_size_total(accept::INCOMING_BYTES_TOTAL);
        let failed = |source| OverlayError::Listen { address: listen, source };
        let socket = std::net::UdpSocket::bind(listen).map_err(failed)?;
        let endpoint =
            Endpoint::new(endpoint(&identity), Some(server), socket, Arc::new(quinn::TokioRuntime))
                .map_err(failed)?;
        let shared = Arc::new(Shared {
            node,
            identity,
            endpoint,
            transport: transport(Some(KEEP_ALIVE)),
            tunnel_transport: transport(Some(KEEP_ALIVE)),
            admitted: tunnel::Admitted::default(),
            peers: RwLock::default(),
            inputs,
            strangers,
            counters: Arc::default(),
            runtime: Handle::current(),
        });
        shared.runtime.spawn(accept::run(shared.clone()));
        Ok(Self { shared })
    }

    /// Where it listens.
    ///
    /// # Errors
    /// The system's word.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.shared.endpoint.local_addr()
    }

    /// The public key to publish.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.shared.identity.public()
    }

    /// What it counts.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Tells the peers that this agent stops, and waits a moment until they know.
    pub async fn close(&self) {
        self.shared.end();
        // A peer that is away cannot hear it: its connection ends by idling.
        let _ = tokio::time::timeout(FAREWELL, self.shared.endpoint.wait_idle()).await;
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        self.shared.end();
    }
}

impl Peers for Overlay {
    fn send(&self, to: &NodeName, message: Message) {
        let counters = &self.shared.counters;
        let Some(peer) = self.shared.peer(to) else {
            Counters::add(&counters.dropped_unknown_peer, 1);
            return;
        };
        match codec::encode(&message) {
            Ok(frame) => Counters::add(&counters.dropped_queue_full, peer.queue.push(frame)),
            Err(error) => {
                Counters::add(&counters.dropped_too_long, 1);
                tracing::error!(peer = %to, %error, "message not sent");
            }
        }
    }

    fn pin(&self, peer: PeerIdentity) {
        self.shared.pin(peer);
    }

    fn revoke(&self, node: &NodeName) {
        let removed = self.shared.registry_mut().remove(node);
        if let Some(peer) = removed {
            tracing::info!(peer = %node, "peer revoked");
            peer.end(CODE_REVOKED, b"revoked");
        }
    }
}

impl Shared {
    fn peer(&self, name: &NodeName) -> Option<Arc<Peer>> {
        self.registry().by_name.get(name).cloned()
    }

    fn peer_by_key(&self, key: &[u8; 32]) -> Option<Arc<Peer>> {
        let registry = self.registry();
        registry.by_name.get(registry.by_key.get(key)?).cloned()
    }

    /// A key is one node's only: the first one's that it was pinned for. Otherwise a node could publish
    /// another's key as its own, and take over what that one says.
    fn pin(self: &Arc<Self>, identity: PeerIdentity) {
        let mut registry = self.registry_mut();
        if identity.node == self.node {
            return;
        }
        let holder = registry.by_key.get(&identity.key);
        if identity.key == self.identity.public()
            || holder.is_some_and(|holder| *holder != identity.node)
        {
            Counters::add(&self.counters.pins_refused, 1);
            tracing::warn!(peer = %identity.node, "peer not pinned: its key is another node's");
            return;
        }
        let known = registry.by_name.get(&identity.node);
        if let Some(peer) = known.filter(|peer| peer.key == identity.key) {
            peer.move_to(identity.addresses);
            return;
        }
        let crypto = match tls::client(&self.identity, identity.key) {
            Ok(crypto) => crypto,
            Err(error) => {
                Counters::add(&self.counters.pins_refused, 1);
                tracing::error!(peer = %identity.node, %error, "peer not pinned");
                return;
            }
        };
        let replaced = registry.remove(&identity.node);
        let mut client = quinn::ClientConfig::new(Arc::new(crypto));
        client.transport_config(self.transport.clone());
        tracing::info!(peer = %identity.node, addresses = ?identity.addresses, "peer pinned");
        let peer = Arc::new(Peer::new(identity));
        registry.by_key.insert(peer.key, peer.node.clone());
        registry.by_name.insert(peer.node.clone(), peer.clone());
        drop(registry);
        if let Some(old) = replaced {
            old.end(CODE_REVOKED, b"key replaced");
        }
        let task = self.runtime.spawn(dial::run(self.clone(), peer.clone(), client));
        peer.adopt(task.abort_handle());
    }

    /// Closes everything. Safe to repeat.
    fn end(&self) {
        let peers = std::mem::take(&mut *self.registry_mut());
        for peer in peers.by_name.values() {
            peer.end(CODE_STOPPING, b"stopping");
        }
        self.endpoint.close(CODE_STOPPING, b"stopping");
    }

    fn registry(&self) -> std::sync::RwLockReadGuard<'_, Registry> {
        self.peers.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn registry_mut(&self) -> std::sync::RwLockWriteGuard<'_, Registry> {
        self.peers.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    fn remove(&mut self, node: &NodeName) -> Option<Arc<Peer>> {
        let peer = self.by_name.remove(node)?;
        self.by_key.remove(&peer.key);
        Some(peer)
    }
}

/// An agent that was killed leaves its peers with connections that lead nowhere. Its successor tells them so when they next say
/// something: by a stateless reset (RFC 9000, section 10.3), the key of which must be the same at each start. Else they would talk
/// to nobody until [`IDLE`] is over, and its node's lease would be over before that.
fn endpoint(identity: &Identity) -> EndpointConfig {
    let reset = hmac::Key::new(hmac::HMAC_SHA256, &identity.derive("stateless reset"));
    let mut config = EndpointConfig::new(Arc::new(reset));
    config.cid_generator(|| Box::new(ConnectionIds));
    config
}

/// Connection ids by chance. QUIC's own bear a mark of their process, and those of a former one are not answered.
struct ConnectionIds;

impl ConnectionIdGenerator for ConnectionIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; CONNECTION_ID]>())
    }

    fn cid_len(&self) -> usize {
        CONNECTION_ID
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// QUIC's settings; only the dialling side keeps a connection alive.
fn transport(keep_alive: Option<Duration>) -> Arc<TransportConfig> {
    let mut transport = TransportConfig::default();
    let idle = IdleTimeout::try_from(IDLE).expect("10 s fit into QUIC's 62 bits of milliseconds");
    transport
        .max_concurrent_uni_streams(STREAMS.into())
        .max_concurrent_bidi_streams(0_u32.into())
        .datagram_receive_buffer_size(None)
        .stream_receive_window(STREAM_WINDOW.into())
        .receive_window(CONNECTION_WINDOW.into())
        .send_window(u64::from(CONNECTION_WINDOW))
        .max_idle_timeout(Some(idle))
        .initial_rtt(FIRST_ROUND_TRIP)
        .keep_alive_interval(keep_alive);
    Arc::new(transport)
}
