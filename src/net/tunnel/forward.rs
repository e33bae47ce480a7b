//! The near end: listens on a unix socket and carries what connects to it to the peer.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::Connection;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;
use tokio::task::{AbortHandle, JoinSet};

use super::carry::{self, Ends};
use super::hello::{self, Hello};
use super::{STREAMS, widen};
use crate::engine::id::NodeName;
use crate::net::counters::Counters;
use crate::net::{CODE_UNUSED, Shared, dial, tls};

/// How long the peer may wait for its own socket, and a little more.
const PATIENCE: Duration = Duration::from_secs(15);
/// After an error of the listening socket (out of descriptors, say).
const PAUSE: Duration = Duration::from_millis(100);

/// A tunnel's near end; dropping it takes the socket away and ends every connection through it.
pub(super) struct Near {
    task: AbortHandle,
    socket: PathBuf,
}

impl Drop for Near {
    fn drop(&mut self) {
        self.task.abort();
        // Not there any more: somebody cleaned up.
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// Listens.
pub(super) fn start(
    shared: &Arc<Shared>,
    to: &NodeName,
    hello: Hello,
    socket: &Path,
) -> io::Result<Near> {
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    let line = Line { shared: shared.clone(), to: to.clone(), hello, connection: Mutex::default() };
    let task = shared.runtime.spawn(async move {
        match UnixListener::from_std(listener) {
            Ok(listener) => listen(listener, line).await,
            Err(error) => tracing::error!(%error, "a tunnel's socket cannot be listened on"),
        }
    });
    Ok(Near { task: task.abort_handle(), socket: socket.to_owned() })
}

/// Takes connections until its task is aborted, which ends them all.
async fn listen(listener: UnixListener, line: Line) {
    let line = Arc::new(line);
    let mut carried = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept(), if carried.len() < STREAMS as usize => match accepted {
                Ok((socket, _)) => {
                    carried.spawn(through(line.clone(), socket));
                }
                Err(error) => {
                    tracing::warn!(%error, "a tunnel's socket takes no connection");
                    tokio::time::sleep(PAUSE).await;
                }
            },
            Some(_) = carried.join_next(), if !carried.is_empty() => {}
        }
    }
}

/// The way to the peer: one QUIC connection, dialled at need.
struct Line {
    shared: Arc<Shared>,
    to: NodeName,
    hello: Hello,
    connection: Mutex<Option<Connection>>,
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.get_mut().take() {
            connection.close(CODE_UNUSED, b"tunnel closed");
        }
    }
}

/// One connection, to its end.
async fn through(line: Arc<Line>, socket: UnixStream) {
    let (shared, hello) = (&line.shared, &line.hello);
    let counters = &shared.counters;
    let Some(mut ends) = line.open().await else {
        Counters::add(&counters.tunnel_failures, 1);
        tracing::warn!(peer = %line.to, ?hello, "the peer is not reached; a tunnel's connection is dropped");
        return;
    };
    let Ends { send, receive } = &mut ends;
    match hello::ask(hello, send, receive, PATIENCE).await {
        Some(Ok(())) => {
            Counters::add(&counters.tunnels_opened, 1);
            carry::carry(ends, socket, counters).await;
            Counters::add(&counters.tunnels_closed, 1);
        }
        Some(Err(refusal)) => {
            Counters::add(&counters.tunnel_failures, 1);
            tracing::warn!(peer = %line.to, ?hello, "the peer refuses a tunnel: {refusal}");
        }
        None => {
            Counters::add(&counters.tunnel_failures, 1);
            tracing::warn!(peer = %line.to, ?hello, "the peer does not answer a tunnel");
        }
    }
}

impl Line {
    /// A new stream. Only the first of many that come at once dials.
    async fn open(&self) -> Option<Ends> {
        let mut held = self.connection.lock().await;
        let connection = match held.take().filter(|old| old.close_reason().is_none()) {
            Some(connection) => connection,
            None => self.dial().await?,
        };
        *held = Some(connection.clone());
        drop(held);
        let (send, receive) = connection.open_bi().await.ok()?;
        Some(Ends { send, receive })
    }

    /// The peer may have got another key or address since the tunnel was asked for.
    async fn dial(&self) -> Option<Connection> {
        let peer = self.shared.peer(&self.to)?;
        let crypto = tls::tunnel_client(&self.shared.identity, peer.key).ok()?;
        let mut config = quinn::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.shared.tunnel_transport.clone());
        let connection = dial::dial(&self.shared, &peer, &config).await?;
        widen(&connection);
        peer.keep_tunnel(&connection).then_some(connection)
    }
}
