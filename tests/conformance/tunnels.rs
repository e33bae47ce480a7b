//! One suite for the `Tunnels` port, run on the fake and on QUIC.

// Waiting with a deadline is what these tests are made of; the ban is for the engine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use discovery::agent::fake_tunnels::{FakeTunnels, FakeWires};
use discovery::agent::ports::{Channel, Pass, PeerIdentity, Peers, Stranger, TunnelGuard, Tunnels};
use discovery::agent::snapshot::CounterSource;
use discovery::engine::id::{NodeName, VmId};
use discovery::engine::input::Input;
use discovery::net::identity::Identity;
use discovery::net::{Overlay, OverlayConfig};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

/// Anything takes less than this, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(30);

/// One agent's end.
enum End {
    Fake(Box<FakeTunnels>, FakeWires),
    Quic(Box<Overlay>, PeerIdentity, #[expect(dead_code, reason = "only held")] Mailboxes),
}

/// Held, so that the overlay has somewhere to report to.
struct Mailboxes {
    _inputs: mpsc::Receiver<Input>,
    _strangers: mpsc::Receiver<Stranger>,
}

/// Agents, and a place for sockets.
struct World {
    runtime: Runtime,
    wires: Option<FakeWires>,
    dir: tempfile::TempDir,
}

impl World {
    fn new(fake: bool) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let wires = fake.then(FakeWires::default);
        Self { runtime, wires, dir: tempfile::tempdir().expect("a directory") }
    }

    fn join(&self, name: &str) -> End {
        let node = NodeName::from(name);
        if let Some(wires) = &self.wires {
            return End::Fake(Box::new(FakeTunnels::join(wires, node)), wires.clone());
        }
        let _inside = self.runtime.enter();
        let (input_sender, inputs) = mpsc::channel(8);
        let (stranger_sender, strangers) = mpsc::channel(8);
        let config = OverlayConfig {
            node: node.clone(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: Identity::ephemeral().expect("a key"),
        };
        let overlay = Overlay::start(config, input_sender, stranger_sender).expect("it starts");
        let addresses = vec![overlay.local_addr().expect("an address")];
        let identity = PeerIdentity { node, key: overlay.public_key(), addresses };
        let mailboxes = Mailboxes { _inputs: inputs, _strangers: strangers };
        End::Quic(Box::new(overlay), identity, mailboxes)
    }

    /// Two that know each other.
    fn pair(&self) -> (End, End) {
        let (a, b) = (self.join("a"), self.join("b"));
        a.pin(&b);
        b.pin(&a);
        (a, b)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn listen(&self, name: &str) -> UnixListener {
        UnixListener::bind(self.path(name)).expect("listens")
    }

    /// `b` lets `a` reach a listener for all channels; `a` forwards its memory channel to it.
    fn tunnel(&self, a: &End, b: &End) -> (TunnelGuard, TunnelGuard, UnixListener) {
        let listener = self.listen("far");
        let leave = self.admit(a, b, "far");
        let near = self.forward(a, b);
        (near, leave, listener)
    }

    fn admit(&self, from: &End, at: &End, socket: &str) -> TunnelGuard {
        let sockets = BTreeMap::from([(Channel::Memory, self.path(socket))]);
        at.tunnels().admit(&from.node(), &pass(1), sockets)
    }

    fn forward(&self, a: &End, b: &End) -> TunnelGuard {
        let near = self.path("near");
        a.tunnels().forward(&b.node(), &pass(1), Channel::Memory, &near).expect("listens")
    }

    fn connect(&self) -> UnixStream {
        connect(&self.path("near"))
    }
}

impl End {
    fn tunnels(&self) -> &dyn Tunnels {
        match self {
            Self::Fake(fake, _) => &**fake,
            Self::Quic(overlay, ..) => &**overlay,
        }
    }

    fn node(&self) -> NodeName {
        match self {
            Self::Fake(fake, _) => fake.node().clone(),
            Self::Quic(_, identity, ..) => identity.node.clone(),
        }
    }

    fn pin(&self, other: &Self) {
        match (self, other) {
            (Self::Fake(fake, _), _) => fake.pin(&other.node()),
            (Self::Quic(overlay, ..), Self::Quic(_, identity, ..)) => overlay.pin(identity.clone()),
            _ => unreachable!("one world has one kind"),
        }
    }

    fn revoke(&self, other: &Self) {
        match self {
            Self::Fake(fake, _) => fake.revoke(&other.node()),
            Self::Quic(overlay, ..) => overlay.revoke(&other.node()),
        }
    }

    /// Tunnels that this end has refused.
    fn refused(&self) -> u64 {
        match self {
            Self::Fake(_, wires) => wires.refused(),
            Self::Quic(overlay, ..) => overlay.counters().counters()["net_tunnel_refusals"],
        }
    }
}

fn pass(epoch: u64) -> Pass {
    Pass { vm: VmId { ve: "uid".into(), member: "web".into(), index: 0 }, epoch }
}

fn connect(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("somebody listens");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    stream.set_write_timeout(Some(DEADLINE)).expect("a limit");
    stream
}

fn accept(listener: &UnixListener) -> UnixStream {
    listener.set_nonblocking(true).expect("can be asked");
    let stream = within("a connection", || listener.accept().ok()).0;
    stream.set_nonblocking(false).expect("blocks again");
    stream.set_read_timeout(Some(DEADLINE)).expect("a limit");
    stream
}

/// Waits for something.
fn within<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether the other end closed it, without a byte.
fn is_closed(stream: &mut UnixStream) -> bool {
    match stream.read(&mut [0; 8]) {
        Ok(read) => read == 0,
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::WouldBlock, "still open");
            true
        }
    }
}

fn says(stream: &mut UnixStream, text: &str) {
    stream.write_all(text.as_bytes()).expect("said");
}

fn hears(stream: &mut UnixStream, text: &str) {
    let mut heard = vec![0; text.len()];
    stream.read_exact(&mut heard).expect("heard");
    assert_eq!(String::from_utf8_lossy(&heard), text);
}

/// Runs a case on both.
macro_rules! on_both {
    ($($name:ident,)*) => {
        mod fake { $(#[test] fn $name() { super::$name(&super::World::new(true)); })* }
        mod quic { $(#[test] fn $name() { super::$name(&super::World::new(false)); })* }
    };
}

on_both! {
    bytes_pass_both_ways_and_so_do_ends,
    several_connections_go_on_at_once,
    who_is_not_admitted_is_refused,
    a_socket_that_comes_late_is_waited_for,
    a_dropped_tunnel_ends_its_connections_and_takes_its_socket,
    a_leave_taken_back_ends_its_connections,
    a_revoked_peer_loses_its_tunnels,
    a_failure_of_one_end_reaches_the_other,
    much_passes_unchanged,
}

fn bytes_pass_both_ways_and_so_do_ends(world: &World) {
    let (a, b) = world.pair();
    let (_near, _leave, listener) = world.tunnel(&a, &b);
    let mode = std::fs::metadata(world.path("near")).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "nobody else on this host may use it");
    let mut near = world.connect();
    says(&mut near, "ping");
    let mut far = accept(&listener);
    hears(&mut far, "ping");
    says(&mut far, "pong");
    hears(&mut near, "pong");
    near.shutdown(Shutdown::Write).expect("half closed");
    assert!(is_closed(&mut far), "the end passes through");
    says(&mut far, "and the other direction goes on");
    hears(&mut near, "and the other direction goes on");
    drop(far);
    assert!(is_closed(&mut near));
}

fn several_connections_go_on_at_once(world: &World) {
    let (a, b) = world.pair();
    let (_near, _leave, listener) = world.tunnel(&a, &b);
    let mut pairs: Vec<_> = (0..10)
        .map(|number| {
            let mut near = world.connect();
            says(&mut near, &format!("number {number}"));
            let mut far = accept(&listener);
            hears(&mut far, &format!("number {number}"));
            (near, far)
        })
        .collect();
    for (number, (near, far)) in pairs.iter_mut().enumerate().rev() {
        says(far, &format!("back {number}"));
        hears(near, &format!("back {number}"));
    }
}

fn who_is_not_admitted_is_refused(world: &World) {
    let (a, b) = world.pair();
    let c = world.join("c");
    c.pin(&b);
    let stranger = a.tunnels().forward(&c.node(), &pass(1), Channel::Memory, &world.path("none"));
    assert!(stranger.is_err(), "nobody forwards to a stranger");
    let (near, _leave, listener) = world.tunnel(&a, &b);
    let mut fine = world.connect();
    says(&mut fine, "x");
    accept(&listener);
    drop((fine, near));
    let refused = |what: &str, from: &End, pass: &Pass, channel: Channel, counted: bool| {
        let before = b.refused();
        let socket = world.path("other");
        let _near = from.tunnels().forward(&b.node(), pass, channel, &socket).expect("listens");
        assert!(is_closed(&mut connect(&socket)), "{what}");
        if counted {
            within("the refusal's count", || (b.refused() > before).then_some(()));
        }
        assert!(listener.accept().is_err(), "{what}: nothing came through");
    };
    refused("another epoch", &a, &pass(2), Channel::Memory, true);
    refused("another channel", &a, &pass(1), Channel::Control, true);
    refused("a stranger", &c, &pass(1), Channel::Memory, false);
    b.pin(&c);
    refused("another peer", &c, &pass(1), Channel::Memory, true);
}

fn a_socket_that_comes_late_is_waited_for(world: &World) {
    let (a, b) = world.pair();
    let _leave = world.admit(&a, &b, "late");
    let _near = world.forward(&a, &b);
    let mut near = world.connect();
    says(&mut near, "early");
    std::thread::sleep(Duration::from_millis(700));
    let listener = world.listen("late");
    hears(&mut accept(&listener), "early");
}

fn a_dropped_tunnel_ends_its_connections_and_takes_its_socket(world: &World) {
    let (a, b) = world.pair();
    let (tunnel, _leave, listener) = world.tunnel(&a, &b);
    let mut near = world.connect();
    says(&mut near, "x");
    let mut far = accept(&listener);
    hears(&mut far, "x");
    drop(tunnel);
    assert!(is_closed(&mut near) && is_closed(&mut far));
    assert!(!world.path("near").exists());
    let _again = world.forward(&a, &b);
    let mut near = world.connect();
    says(&mut near, "again");
    hears(&mut accept(&listener), "again");
}

fn a_leave_taken_back_ends_its_connections(world: &World) {
    let (a, b) = world.pair();
    let (_near, leave, listener) = world.tunnel(&a, &b);
    let mut near = world.connect();
    says(&mut near, "x");
    let mut far = accept(&listener);
    hears(&mut far, "x");
    let renewed = world.admit(&a, &b, "far");
    drop(leave);
    assert!(is_closed(&mut near) && is_closed(&mut far));
    let mut near = world.connect();
    says(&mut near, "the newer leave holds");
    hears(&mut accept(&listener), "the newer leave holds");
    drop(renewed);
    assert!(is_closed(&mut world.connect()), "and then none");
}

fn a_revoked_peer_loses_its_tunnels(world: &World) {
    for far_revokes in [true, false] {
        let (a, b) = world.pair();
        let leave = world.admit(&a, &b, "far");
        let _ = std::fs::remove_file(world.path("far"));
        let listener = world.listen("far");
        let _near = world.forward(&a, &b);
        let mut near = world.connect();
        says(&mut near, "x");
        let mut far = accept(&listener);
        hears(&mut far, "x");
        if far_revokes {
            b.revoke(&a);
        } else {
            a.revoke(&b);
        }
        assert!(is_closed(&mut near) && is_closed(&mut far));
        assert!(is_closed(&mut world.connect()), "and gets no new ones");
        drop(leave);
    }
}

fn a_failure_of_one_end_reaches_the_other(world: &World) {
    let (a, b) = world.pair();
    let (_near, _leave, listener) = world.tunnel(&a, &b);
    let mut near = world.connect();
    says(&mut near, "x");
    let mut far = accept(&listener);
    hears(&mut far, "x");
    drop(far);
    // The writer learns it as one on the same host would: by an error, soon.
    let chunk = [0; 4096];
    within("an error", || near.write_all(&chunk).err());
}

fn much_passes_unchanged(world: &World) {
    const CHUNKS: u64 = 1024;
    let (a, b) = world.pair();
    let (_near, _leave, listener) = world.tunnel(&a, &b);
    let mut near = world.connect();
    let started = Instant::now();
    let writer = std::thread::spawn(move || {
        let mut hash = DefaultHasher::new();
        for number in 0..CHUNKS {
            let chunk: Vec<u8> = (0..8192_u64)
                .flat_map(|at| {
                    (number << 32 ^ at).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes()
                })
                .collect();
            hash.write(&chunk);
            near.write_all(&chunk).expect("taken");
        }
        near.shutdown(Shutdown::Write).expect("ended");
        hash.finish()
    });
    let mut far = accept(&listener);
    let (mut hash, mut total, mut chunk) = (DefaultHasher::new(), 0, vec![0; 65536]);
    loop {
        let mut filled = 0;
        while filled < chunk.len() {
            match far.read(&mut chunk[filled..]).expect("read") {
                0 => break,
                read => filled += read,
            }
        }
        if filled == 0 {
            break;
        }
        total += filled as u64;
        hash.write(&chunk[..filled]);
    }
    assert_eq!(total, CHUNKS * 65536);
    assert_eq!(writer.join().expect("written"), hash.finish());
    println!("64 MiB in {:?}", started.elapsed());
}

#[test]
fn an_agent_that_ends_ends_its_tunnels() {
    let world = World::new(false);
    let (a, b) = world.pair();
    let (_near, _leave, listener) = world.tunnel(&a, &b);
    let mut near = world.connect();
    says(&mut near, "x");
    let mut far = accept(&listener);
    hears(&mut far, "x");
    drop(b);
    assert!(is_closed(&mut near) && is_closed(&mut far));
    let End::Quic(overlay, ..) = &a else { unreachable!("it is QUIC") };
    let counters = overlay.counters();
    let count = |name: &str| counters.counters()[name];
    within("the count", || (count("net_tunnels_closed") == 1).then_some(()));
    assert_eq!((count("net_tunnels_opened"), count("net_tunnel_bytes_sent")), (1, 1));
}
