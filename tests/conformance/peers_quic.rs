//! What only the real overlay can be tried with: bytes that no agent sends, keys that nobody holds, and
//! how much memory a peer can make us hold.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery::agent::ports::{PeerIdentity, Peers, Stranger};
use discovery::agent::snapshot::CounterSource;
use discovery::engine::id::{NodeName, ProcedureId};
use discovery::engine::input::Input;
use discovery::engine::wire::{MAX_MESSAGE, Message, VERSION};
use discovery::net::identity::Identity;
use discovery::net::{Overlay, OverlayConfig, codec, tls};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, Endpoint};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, SignatureScheme};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(20);
const AGAIN: Duration = Duration::from_millis(50);

/// An agent with the real overlay.
struct Agent {
    overlay: Overlay,
    key: [u8; 32],
    address: SocketAddr,
    inputs: mpsc::Receiver<Input>,
    strangers: mpsc::Receiver<Stranger>,
}

fn agent(name: &str) -> Agent {
    let (input_sender, inputs) = mpsc::channel(8);
    let (stranger_sender, strangers) = mpsc::channel(64);
    let config = OverlayConfig {
        node: NodeName::from(name),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        identity: Identity::ephemeral().expect("a key"),
    };
    let overlay = Overlay::start(config, input_sender, stranger_sender).expect("it starts");
    let (key, address) = (overlay.public_key(), overlay.local_addr().expect("an address"));
    Agent { overlay, key, address, inputs, strangers }
}

impl Agent {
    /// Pins a key that a test holds itself.
    fn pin(&self, name: &str, key: [u8; 32], address: SocketAddr) {
        let node = NodeName::from(name);
        self.overlay.pin(PeerIdentity { node, key, addresses: vec![address] });
    }

    fn count(&self, name: &str) -> u64 {
        self.counters()[name]
    }

    fn counters(&self) -> BTreeMap<String, u64> {
        self.overlay.counters().counters()
    }

    /// Waits until a counter has reached a value.
    async fn reaches(&self, name: &str, value: u64) {
        let deadline = Instant::now() + DEADLINE;
        while self.count(name) < value {
            assert!(Instant::now() < deadline, "{name} is not {value}: {:?}", self.counters());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn receive(&mut self) -> (NodeName, Message) {
        match timeout(DEADLINE, self.inputs.recv()).await {
            Ok(Some(Input::Message { from, message })) => (from, *message),
            other => panic!("no message: {other:?}"),
        }
    }
}

/// A client that speaks QUIC and TLS as an agent does.
fn client(identity: &Identity, server: [u8; 32]) -> ClientConfig {
    ClientConfig::new(Arc::new(tls::client(identity, server).expect("TLS")))
}

/// An endpoint of the test's own.
fn endpoint() -> Endpoint {
    Endpoint::client(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port")
}

async fn connect(endpoint: &Endpoint, config: ClientConfig, to: SocketAddr) -> Connection {
    let connecting = endpoint.connect_with(config, to, "discovery-agent").expect("an address");
    timeout(DEADLINE, connecting).await.expect("in time").expect("connected")
}

/// Sends bytes on a stream of their own.
async fn say(connection: &Connection, bytes: &[u8]) {
    let mut stream = connection.open_uni().await.expect("a stream");
    // The other end may stop a stream that it has seen enough of.
    let _ = stream.write_all(bytes).await;
    let _ = stream.finish();
}

fn note(text: &str) -> Message {
    Message::Swim(text.as_bytes().to_vec())
}

/// A message of this many bytes. Text is copied whole, which a debug build does faster than bytes.
fn text(length: usize) -> Message {
    let procedure = ProcedureId { initiator: NodeName::from("a"), incarnation: 1, number: 1 };
    Message::Prepared { procedure, result: Err("x".repeat(length)) }
}

fn frame(message: &Message) -> Vec<u8> {
    codec::encode(message).expect("a frame")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_of_a_pinned_peer_is_counted_and_its_connection_lives_on() {
    let mut agent = agent("a");
    let mine = Identity::ephemeral().expect("a key");
    let endpoint = endpoint();
    agent.pin("g", mine.public(), endpoint.local_addr().expect("an address"));
    let connection = connect(&endpoint, client(&mine, agent.key), agent.address).await;

    let good = frame(&note("good"));
    let with_length = |length: u32| [&length.to_be_bytes()[..], &good[4..]].concat();
    let mut other_version = good.clone();
    other_version[4] = VERSION + 1;
    let mut version_zero = good.clone();
    version_zero[4] = 0;
    let garbage: Vec<Vec<u8>> = vec![
        Vec::new(),
        good[..3].to_vec(),
        good[..good.len() - 1].to_vec(),
        [&good[..], b"!"].concat(),
        with_length(0),
        with_length(u32::MAX),
        with_length(u32::try_from(MAX_MESSAGE).expect("fits") + 2),
        with_length(1000),
        other_version,
        version_zero,
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 5000],
        // A list that claims 2^64 - 1 elements.
        [&[0, 0, 0, 12, VERSION, 0][..], &[0xff; 9], &[1]].concat(),
    ];
    for bytes in &garbage {
        say(&connection, bytes).await;
    }
    agent.reaches("net_decode_errors", garbage.len() as u64).await;
    assert_eq!(agent.count("net_decode_errors"), garbage.len() as u64);

    say(&connection, &good).await;
    assert_eq!(agent.receive().await, (NodeName::from("g"), note("good")));
    assert_eq!(connection.close_reason(), None, "the connection lives on");
    assert_eq!(agent.count("net_messages_received"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_message_does_not_hold_up_others() {
    let mut agent = agent("a");
    let mine = Identity::ephemeral().expect("a key");
    let endpoint = endpoint();
    agent.pin("g", mine.public(), endpoint.local_addr().expect("an address"));
    let connection = connect(&endpoint, client(&mine, agent.key), agent.address).await;
    let long = frame(&text(100_000));
    let mut slow = Vec::new();
    for _ in 0..10 {
        let mut stream = connection.open_uni().await.expect("a stream");
        stream.write_all(&long[..50_000]).await.expect("taken");
        slow.push(stream);
    }
    say(&connection, &frame(&note("quick"))).await;
    assert_eq!(agent.receive().await.1, note("quick"));
    // And it is still taken when its rest comes within its time.
    let mut stream = slow.pop().expect("ten of them");
    stream.write_all(&long[50_000..]).await.expect("taken");
    stream.finish().expect("open");
    assert_eq!(agent.receive().await.1, text(100_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_never_ends_is_given_up_and_counted() {
    let agent = agent("a");
    let mine = Identity::ephemeral().expect("a key");
    let endpoint = endpoint();
    agent.pin("g", mine.public(), endpoint.local_addr().expect("an address"));
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(2)));
    let mut config = client(&mine, agent.key);
    config.transport_config(Arc::new(transport));
    let connection = connect(&endpoint, config, agent.address).await;
    let mut stream = connection.open_uni().await.expect("a stream");
    stream.write_all(&frame(&note("never ends"))[..7]).await.expect("taken");
    agent.reaches("net_dropped_read_failed", 1).await;
    assert_eq!(connection.close_reason(), None, "the connection lives on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_is_told_once_in_a_while_and_its_connection_is_refused() {
    let mut agent = agent("a");
    let mine = Identity::ephemeral().expect("a key");
    let endpoint = endpoint();
    for _ in 0..5 {
        let connection = connect(&endpoint, client(&mine, agent.key), agent.address).await;
        // It may be closed before there is a stream to speak on.
        if let Ok(mut stream) = connection.open_uni().await {
            let _ = stream.write_all(&frame(&note("let me in"))).await;
            let _ = stream.finish();
        }
        let reason = timeout(DEADLINE, connection.closed()).await.expect("closed");
        assert!(reason.to_string().contains("key not pinned"), "{reason}");
    }
    agent.reaches("net_strangers", 5).await;
    let told = agent.strangers.recv().await.expect("told");
    assert_eq!(told.key, mine.public());
    assert_eq!(told.from, endpoint.local_addr().expect("an address"));
    assert!(agent.strangers.try_recv().is_err(), "told once");
    assert!(agent.inputs.try_recv().is_err(), "not heard");
}

/// Shows one identity's certificate and signs with another's key.
#[derive(Debug)]
struct Forger(Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Forger {
    fn resolve(
        &self,
        _hints: &[&[u8]],
        _schemes: &[SignatureScheme],
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl rustls::server::ResolvesServerCert for Forger {
    fn resolve(
        &self,
        _hello: rustls::server::ClientHello<'_>,
    ) -> Option<Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }
}

/// Trusts anybody: what an attacker does.
#[derive(Debug)]
struct Trusting;

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

/// `victim`'s certificate with a key that is not its own.
fn forged(victim: CertificateDer<'static>) -> Arc<Forger> {
    let own = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).expect("a key");
    let der = rustls::pki_types::PrivatePkcs8KeyDer::from(own.serialize_der());
    let key = rustls::crypto::ring::sign::any_eddsa_type(&der).expect("an ed25519 key");
    Arc::new(Forger(Arc::new(rustls::sign::CertifiedKey::new(vec![victim], key))))
}

fn tls_client() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert> {
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting))
}

/// Dials with this TLS and asserts that it ends in the handshake, unheard and untold.
async fn is_refused(agent: &mut Agent, mut config: rustls::ClientConfig) {
    config.alpn_protocols = vec![b"discovery/1".to_vec()];
    let config = QuicClientConfig::try_from(config).expect("QUIC");
    let before = agent.count("net_handshake_failures");
    let endpoint = endpoint();
    let connecting = endpoint
        .connect_with(ClientConfig::new(Arc::new(config)), agent.address, "discovery-agent")
        .expect("an address");
    // A TLS 1.3 client is done before the server has judged it: it may learn of it a moment later.
    if let Ok(connection) = timeout(DEADLINE, connecting).await.expect("in time") {
        let _ = timeout(DEADLINE, connection.closed()).await.expect("closed");
    }
    agent.reaches("net_handshake_failures", before + 1).await;
    assert!(
        agent.strangers.try_recv().is_err(),
        "its key is not proven: it is not even a stranger"
    );
    assert!(agent.inputs.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_must_prove_an_ed25519_key() {
    let mut agent = agent("a");
    let victim = Identity::ephemeral().expect("a key");
    agent.pin("v", victim.public(), SocketAddr::from(([127, 0, 0, 1], 9)));

    is_refused(&mut agent, tls_client().with_no_client_auth()).await;
    let copied = tls_client().with_client_cert_resolver(forged(victim.certificate()));
    is_refused(&mut agent, copied).await;

    let ecdsa = rcgen::KeyPair::generate().expect("a P-256 key");
    let name = vec!["discovery-agent".to_owned()];
    let certificate = rcgen::CertificateParams::new(name).expect("a name").self_signed(&ecdsa);
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(ecdsa.serialize_der());
    let other_kind = tls_client()
        .with_client_auth_cert(vec![certificate.expect("signed").der().clone()], key.into())
        .expect("a key of another kind");
    // The server asks for ed25519 only, so a client of another kind has nothing to show.
    is_refused(&mut agent, other_kind).await;
    assert_eq!(agent.count("net_connections_accepted"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_must_prove_the_pinned_key() {
    let agent = agent("a");
    let victim = Identity::ephemeral().expect("a key");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(forged(victim.certificate()));
    config.alpn_protocols = vec![b"discovery/1".to_vec()];
    let config = quinn::crypto::rustls::QuicServerConfig::try_from(config).expect("QUIC");
    let config = quinn::ServerConfig::with_crypto(Arc::new(config));
    let forger = Endpoint::server(config, SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let accepting = tokio::spawn({
        let forger = forger.clone();
        async move { forger.accept().await.expect("somebody dials").await.map(|_| ()) }
    });
    agent.pin("v", victim.public(), forger.local_addr().expect("an address"));
    agent.overlay.send(&NodeName::from("v"), note("for the victim only"));
    agent.reaches("net_dial_failures", 1).await;
    assert_eq!(agent.count("net_connections_dialled"), 0);
    assert_eq!(agent.count("net_messages_sent"), 0);
    assert!(accepting.await.expect("no panic").is_err(), "the handshake fails on both sides");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_does_not_know_us_is_dialled_ever_more_rarely() {
    let (a, b) = (agent("a"), agent("b"));
    a.pin("b", b.key, b.address);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_secs(2) {
        a.overlay.send(&NodeName::from("b"), note("let me in"));
        tokio::time::sleep(AGAIN).await;
    }
    let knocks = b.count("net_strangers");
    // Pauses of 0.1, 0.2, 0.4, 0.8 … seconds, each cut by half at most.
    assert!((2..=8).contains(&knocks), "{knocks} knocks in two seconds");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_restarted_after_a_silence_is_reached_within_a_second_of_its_own_call() {
    let a = agent("a");
    let identity = Identity::ephemeral().expect("a key");
    let key = identity.public();
    let reserved = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");
    let address = reserved.local_addr().expect("an address");
    a.pin("b", key, address);
    // Long enough away that the pauses have grown.
    let begin = Instant::now();
    while a.count("net_dial_failures") < 3 {
        assert!(begin.elapsed() < DEADLINE, "{:?}", a.counters());
        a.overlay.send(&NodeName::from("b"), note("anybody?"));
        tokio::time::sleep(AGAIN).await;
    }
    drop(reserved);
    let (input_sender, mut inputs) = mpsc::channel(8);
    let (stranger_sender, _strangers) = mpsc::channel(8);
    let config = OverlayConfig { node: NodeName::from("b"), listen: address, identity };
    let b = Overlay::start(config, input_sender, stranger_sender).expect("it starts");
    b.pin(PeerIdentity { node: NodeName::from("a"), key: a.key, addresses: vec![a.address] });
    let back = Instant::now();
    b.send(&NodeName::from("a"), note("I am back"));
    loop {
        a.overlay.send(&NodeName::from("b"), note("welcome"));
        if let Ok(Some(_)) = timeout(AGAIN, inputs.recv()).await {
            break;
        }
        assert!(back.elapsed() < DEADLINE, "{:?}", a.counters());
    }
    // A dial to the silent port may be under way (2 s) when the peer comes back.
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
}

/// An agent with a runtime of its own, so that it can be killed: it says nothing any more, to nobody.
struct Mortal {
    runtime: tokio::runtime::Runtime,
    overlay: Overlay,
    inputs: mpsc::Receiver<Input>,
    _strangers: mpsc::Receiver<Stranger>,
    address: SocketAddr,
}

impl Mortal {
    /// Listens at this address as soon as nobody else does.
    async fn start(folder: &std::path::Path, address: SocketAddr, peer: &Agent) -> Self {
        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let deadline = Instant::now() + DEADLINE;
        loop {
            let (input_sender, inputs) = mpsc::channel(64);
            let (stranger_sender, _strangers) = mpsc::channel(8);
            let identity = Identity::open(folder).expect("a key");
            let config = OverlayConfig { node: NodeName::from("b"), listen: address, identity };
            let started = {
                let _entered = runtime.enter();
                Overlay::start(config, input_sender, stranger_sender)
            };
            if let Ok(overlay) = started {
                let (node, addresses) = (NodeName::from("a"), vec![peer.address]);
                overlay.pin(PeerIdentity { node, key: peer.key, addresses });
                let address = overlay.local_addr().expect("an address");
                peer.pin("b", overlay.public_key(), address);
                return Self { runtime, overlay, inputs, _strangers, address };
            }
            assert!(Instant::now() < deadline, "{address} is not free");
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn kill(self) {
        let Self { runtime, overlay, .. } = self;
        let ended = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(DEADLINE)).await;
        ended.expect("its tasks are gone");
        // Nobody is left who would send its farewell.
        drop(overlay);
    }

    /// Sends to it until it hears something.
    async fn hears(&mut self, peer: &Agent) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            peer.overlay.send(&NodeName::from("b"), note("hello"));
            if let Ok(Some(_)) = timeout(AGAIN, self.inputs.recv()).await {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}", peer.counters());
        }
    }
}

/// A node's lease lasts for five seconds, and connections that lead nowhere for ten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_killed_and_is_back_hears_who_has_a_connection_to_the_former_one() {
    let a = agent("a");
    let folder = tempfile::tempdir().expect("a folder");
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut b = Mortal::start(folder.path(), free, &a).await;
    b.hears(&a).await;
    let address = b.address;
    b.kill().await;
    let mut b = Mortal::start(folder.path(), address, &a).await;
    let back = Instant::now();
    b.hears(&a).await;
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    b.kill().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_was_killed_and_calls_again_gets_the_first_answer() {
    let mut a = agent("a");
    let folder = tempfile::tempdir().expect("a folder");
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut b = Mortal::start(folder.path(), free, &a).await;
    b.overlay.send(&NodeName::from("a"), note("here I am"));
    a.receive().await;
    b.hears(&a).await;
    // A connection as young as this would not be given up.
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        b.hears(&a).await;
        tokio::time::sleep(AGAIN).await;
    }
    let address = b.address;
    b.kill().await;
    let mut b = Mortal::start(folder.path(), address, &a).await;
    b.overlay.send(&NodeName::from("a"), note("I am back"));
    assert_eq!(a.receive().await.1, note("I am back"));
    a.overlay.send(&NodeName::from("b"), note("welcome"));
    let heard = timeout(DEADLINE, b.inputs.recv()).await;
    assert!(matches!(heard, Ok(Some(Input::Message { .. }))), "{heard:?}: {:?}", a.counters());
    b.kill().await;
}

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
    line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).expect("kB") * 1024
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_reads_nothing_does_not_make_either_side_grow() {
    let (a, mut b) = (agent("a"), agent("b"));
    a.pin("b", b.key, b.address);
    b.pin("a", a.key, a.address);
    let b_name = NodeName::from("b");
    a.overlay.send(&b_name, note("hello"));
    b.receive().await;
    let before = resident();
    let long = text(100_000);
    // 150 MB, while the queue of b's engine holds 8 messages.
    let mut highest = before;
    for sent in 0..1_500 {
        a.overlay.send(&b_name, long.clone());
        if sent % 50 == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
            highest = highest.max(resident());
        }
    }
    let dropped = a.count("net_dropped_queue_full") + a.count("net_dropped_stale");
    assert!(dropped > 1_000, "the fault fired: {:?}", a.counters());
    // 8 MiB wait at the sender, 4 are under way, 8 are being read; other tests of this file run beside.
    let grown = highest - before;
    assert!(grown < 64 << 20, "{} MiB more", grown >> 20);
    // The newest came to wait in the place of the oldest: the last word gets through.
    a.overlay.send(&b_name, note("last word"));
    loop {
        if b.receive().await.1 == note("last word") {
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_agent_ends_its_connections_at_once() {
    let (a, mut b) = (agent("a"), agent("b"));
    a.pin("b", b.key, b.address);
    b.pin("a", a.key, a.address);
    a.overlay.send(&NodeName::from("b"), note("hello"));
    b.receive().await;
    let begin = Instant::now();
    b.overlay.close().await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
    // The sender noticed, and dials again for the next message.
    let deadline = Instant::now() + DEADLINE;
    while a.count("net_dial_failures") == 0 {
        assert!(Instant::now() < deadline, "{:?}", a.counters());
        a.overlay.send(&NodeName::from("b"), note("anybody?"));
        tokio::time::sleep(AGAIN).await;
    }
}
