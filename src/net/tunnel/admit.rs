//! The far end: lets a peer reach sockets of this node for one migration.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::carry::{self, Ends};
use super::hello::{self, Hello, Refusal};
use super::{STREAMS, widen};
use crate::agent::ports::{Channel, Pass};
use crate::engine::id::NodeName;
use crate::net::counters::Counters;
use crate::net::peer::Peer;
use crate::net::{CODE_REPLACED, Shared};

/// How long a connection waits for a socket that is not there yet: QEMU makes it when it has started.
const APPEARS: Duration = Duration::from_secs(10);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Who may reach what.
#[derive(Default)]
pub(in crate::net) struct Admitted(Mutex<BTreeMap<(NodeName, Pass), Entry>>);

/// One leave: its sockets, and a channel whose sending end lives as long as the leave.
#[derive(Clone)]
struct Entry {
    sockets: BTreeMap<Channel, PathBuf>,
    ended: watch::Receiver<()>,
}

impl Admitted {
    fn all(&self) -> MutexGuard<'_, BTreeMap<(NodeName, Pass), Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A given leave; dropping it takes it back and ends every connection that it allowed.
pub(super) struct Leave {
    shared: Arc<Shared>,
    key: (NodeName, Pass),
    alive: watch::Sender<()>,
}

impl Leave {
    /// Replaces an earlier one for the same peer and pass, whose connections go on until it is dropped.
    pub(super) fn give(
        shared: &Arc<Shared>,
        from: &NodeName,
        pass: &Pass,
        sockets: BTreeMap<Channel, PathBuf>,
    ) -> Self {
        let key = (from.clone(), pass.clone());
        let (alive, ended) = watch::channel(());
        shared.admitted.all().insert(key.clone(), Entry { sockets, ended });
        Self { shared: shared.clone(), key, alive }
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let mut all = self.shared.admitted.all();
        if all.get(&self.key).is_some_and(|entry| entry.ended.same_channel(&self.alive.subscribe()))
        {
            all.remove(&self.key);
        }
    }
}

/// Serves a peer's tunnel connection until it ends.
pub(in crate::net) async fn serve(shared: &Arc<Shared>, peer: &Arc<Peer>, connection: &Connection) {
    if !peer.keep_tunnel(connection) {
        connection.close(CODE_REPLACED, b"revoked, or too many tunnels");
        return;
    }
    widen(connection);
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            stream = connection.accept_bi(), if carried.len() < STREAMS as usize => match stream {
                Ok((send, receive)) => {
                    carried.spawn(welcome(shared.clone(), peer.node.clone(), send, receive));
                }
                // Dropping the set ends what is still carried.
                Err(_) => return,
            },
            Some(_) = carried.join_next(), if !carried.is_empty() => {}
        }
    }
}

/// One stream, to its end.
async fn welcome(shared: Arc<Shared>, from: NodeName, send: SendStream, receive: RecvStream) {
    let counters = &shared.counters;
    let mut ends = Ends { send, receive };
    let Some(hello) = hello::hear(&mut ends.receive).await else { return };
    match join(&shared, &from, hello).await {
        Ok((socket, mut ended)) => {
            if hello::answer(&mut ends.send, Ok(())).await.is_none() {
                return;
            }
            Counters::add(&counters.tunnels_opened, 1);
            tokio::select! {
                () = carry::carry(ends, socket, counters) => {}
                // Nothing is ever sent on it: it ends with its leave.
                _ = ended.changed() => {}
            }
            Counters::add(&counters.tunnels_closed, 1);
        }
        Err(refusal) => {
            Counters::add(&counters.tunnel_refusals, 1);
            tracing::warn!(peer = %from, "a tunnel is refused: {refusal}");
            if hello::answer(&mut ends.send, Err(refusal)).await.is_some() {
                // The answer is to arrive: finish before the drop that resets.
                let _ = ends.send.finish();
                let _ = timeout(APPEARS, ends.send.stopped()).await;
            }
        }
    }
}

/// The socket that a stream asks for, connected, if its peer may have it.
async fn join(
    shared: &Shared,
    from: &NodeName,
    hello: Result<Hello, Refusal>,
) -> Result<(UnixStream, watch::Receiver<()>), Refusal> {
    let Hello { pass, channel } = hello?;
    let key = (from.clone(), pass);
    let entry = shared.admitted.all().get(&key).cloned().ok_or(Refusal::NotAdmitted)?;
    let path = entry.sockets.get(&channel).ok_or(Refusal::NoSuchChannel)?;
    let mut ended = entry.ended.clone();
    tokio::select! {
        connected = timeout(APPEARS, appear(path)) => match connected {
            Ok(Ok(socket)) => Ok((socket, entry.ended.clone())),
            Ok(Err(error)) => {
                tracing::warn!(path = %path.display(), %error, "a tunnel's socket cannot be reached");
                Err(Refusal::NobodyListens)
            }
            Err(_) => Err(Refusal::NobodyListens),
        },
        _ = ended.changed() => Err(Refusal::NotAdmitted),
    }
}

/// Connects as soon as somebody listens.
async fn appear(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                sleep(LOOK_EVERY).await;
            }
            other => return other,
        }
    }
}
