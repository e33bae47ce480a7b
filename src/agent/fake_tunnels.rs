//! The fake of the [`Tunnels`] port: between agents of one process, over real sockets, with threads that copy.
//!
//! It passes the same conformance suite as the overlay's (`tests/conformance/tunnels.rs`).

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "sockets are waited for")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::ports::{Channel, Pass, TunnelGuard, Tunnels};
use crate::engine::id::NodeName;

/// How long a connection waits for a socket that is not there yet.
const APPEARS: Duration = Duration::from_secs(10);
/// How often sockets are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Bytes copied at a time.
const CHUNK: usize = 64 << 10;

/// Who has leave at which node, from whom, for what.
type Leaves = BTreeMap<(NodeName, NodeName, Pass), (BTreeMap<Channel, PathBuf>, Standing)>;

/// All agents that can reach each other. Clones are the same one.
#[derive(Clone, Default)]
pub struct FakeWires(Arc<Mutex<Wires>>);

#[derive(Default)]
struct Wires {
    leaves: Leaves,
    /// Who knows whom, and what goes on between them.
    pins: BTreeMap<(NodeName, NodeName), Standing>,
    refused: u64,
}

impl FakeWires {
    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that were refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.wires().refused
    }
}

/// Something that stands until it is dropped, and the connections that end with it.
#[derive(Clone, Default)]
struct Standing(Arc<Held>);

#[derive(Default)]
struct Held {
    over: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
}

impl Standing {
    /// Ends the connection with this. False when this is over already.
    fn hold(&self, stream: &UnixStream) -> bool {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        match stream.try_clone() {
            Ok(stream) if !self.is_over() => {
                open.push(stream);
                true
            }
            _ => false,
        }
    }

    fn is_over(&self) -> bool {
        self.0.over.load(Ordering::SeqCst)
    }

    fn end(&self) {
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.over.store(true, Ordering::SeqCst);
        for stream in open.drain(..) {
            // It has ended already.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// What a guard holds.
struct Guard(Standing, Option<PathBuf>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.end();
        if let Some(socket) = &self.1 {
            let _ = std::fs::remove_file(socket);
        }
    }
}

/// One agent's end.
pub struct FakeTunnels {
    node: NodeName,
    wires: FakeWires,
}

impl FakeTunnels {
    /// Joins. Nobody is known yet.
    #[must_use]
    pub fn join(wires: &FakeWires, node: NodeName) -> Self {
        Self { node, wires: wires.clone() }
    }

    /// Whose end it is.
    #[must_use]
    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Knows a peer from here on.
    pub fn pin(&self, peer: &NodeName) {
        self.wires.wires().pins.entry((self.node.clone(), peer.clone())).or_default();
    }

    /// Knows it no more; what goes on with it ends.
    pub fn revoke(&self, peer: &NodeName) {
        let pin = self.wires.wires().pins.remove(&(self.node.clone(), peer.clone()));
        if let Some(standing) = pin {
            standing.end();
        }
    }
}

impl Tunnels for FakeTunnels {
    fn forward(
        &self,
        to: &NodeName,
        pass: &Pass,
        channel: Channel,
        socket: &Path,
    ) -> io::Result<TunnelGuard> {
        if !self.wires.wires().pins.contains_key(&(self.node.clone(), to.clone())) {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("{to} is unknown")));
        }
        let _ = std::fs::remove_file(socket);
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
        listener.set_nonblocking(true)?;
        let standing = Standing::default();
        let line = Line {
            wires: self.wires.clone(),
            from: self.node.clone(),
            to: to.clone(),
            pass: pass.clone(),
            channel,
            standing: standing.clone(),
        };
        std::thread::spawn(move || line.listen(&listener));
        Ok(Box::new(Guard(standing, Some(socket.to_owned()))))
    }

    fn admit(
        &self,
        from: &NodeName,
        pass: &Pass,
        sockets: BTreeMap<Channel, PathBuf>,
    ) -> TunnelGuard {
        let standing = Standing::default();
        let key = (self.node.clone(), from.clone(), pass.clone());
        self.wires.wires().leaves.insert(key, (sockets, standing.clone()));
        Box::new(Guard(standing, None))
    }
}

struct Line {
    wires: FakeWires,
    from: NodeName,
    to: NodeName,
    pass: Pass,
    channel: Channel,
    standing: Standing,
}

impl Line {
    fn listen(self, listener: &UnixListener) {
        let line = Arc::new(self);
        while !line.standing.is_over() {
            match listener.accept() {
                Ok((near, _)) => {
                    let line = line.clone();
                    std::thread::spawn(move || line.through(&near));
                }
                Err(_) => std::thread::sleep(LOOK_EVERY),
            }
        }
    }

    fn through(&self, near: &UnixStream) {
        // An accepted socket blocks, whatever its listener does.
        let Some((far, holders)) = self.reach() else {
            self.wires.wires().refused += 1;
            return;
        };
        let held = holders.iter().all(|standing| standing.hold(near) && standing.hold(&far));
        if held && near.set_nonblocking(false).is_ok() {
            both_ways(near, &far);
        }
        let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
    }

    /// The peer's socket, and all that must stand for the connection to go on.
    fn reach(&self) -> Option<(UnixStream, Vec<Standing>)> {
        let (path, holders) = {
            let wires = self.wires.wires();
            let ways = [(&self.from, &self.to), (&self.to, &self.from)];
            let pins = ways.map(|(a, b)| wires.pins.get(&(a.clone(), b.clone())).cloned());
            let key = (self.to.clone(), self.from.clone(), self.pass.clone());
            let (sockets, leave) = wires.leaves.get(&key)?;
            let mut holders = pins.into_iter().collect::<Option<Vec<_>>>()?;
            holders.extend([leave.clone(), self.standing.clone()]);
            (sockets.get(&self.channel)?.clone(), holders)
        };
        let deadline = Instant::now() + APPEARS;
        loop {
            if holders.iter().any(Standing::is_over) {
                return None;
            }
            match UnixStream::connect(&path) {
                Ok(far) => return Some((far, holders)),
                Err(_) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
                Err(_) => return None,
            }
        }
    }
}

/// Copies until both directions have ended; a failure of one ends both.
fn both_ways(near: &UnixStream, far: &UnixStream) {
    std::thread::scope(|scope| {
        for (from, to) in [(near, far), (far, near)] {
            scope.spawn(move || {
                if copy(from, to).is_err() {
                    let _ = (near.shutdown(Shutdown::Both), far.shutdown(Shutdown::Both));
                }
            });
        }
    });
}

fn copy(mut from: &UnixStream, mut to: &UnixStream) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk)? {
            0 => return to.shutdown(Shutdown::Write),
            read => to.write_all(&chunk[..read])?,
        }
    }
}
