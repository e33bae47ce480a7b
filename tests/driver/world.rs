//! Whole agents on one runtime: real drivers and engines, with an API server, a network, disks and
//! hypervisors in memory. Disks and hypervisors outlive the agents, as on nodes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use discovery::agent::driver::{Driver, DriverConfig, Mailboxes, Ports};
use discovery::agent::fake_cluster::FakeApiServer;
use discovery::agent::fake_guard::FakeGuard;
use discovery::agent::fake_hypervisor::FakeHypervisor;
use discovery::agent::fake_peers::{self, FakeNetwork};
use discovery::agent::journal::{Codec, Journal, JournalError, Loaded};
use discovery::agent::memory_store::MemoryStore;
use discovery::agent::ports::{INPUT_QUEUE, InputSender, PeerIdentity, Store, StoreError};
use discovery::agent::snapshot::Board;
use discovery::engine::host::{Acceleration, HostInfo};
use discovery::engine::id::{MemberName, NodeName, VeName, VmId};
use discovery::engine::input::Input;
use discovery::engine::lease::Times;
use discovery::engine::lrt::solver::Goal;
use discovery::engine::lrt::transit::MigrationLimits;
use discovery::engine::spec::{
    Boot, Constraint, DiskSpec, Domain, MemberSpec, Recovery, Resources, RunStrategy, VeSpec,
    VeState,
};
use discovery::net::codec as wire;
use discovery::store::codec::{self, Stored};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

/// Until when something must have happened, on a machine that does much else.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(10);

const GIB: u64 = 1 << 30;

/// Waits until `holds`, or fails naming `what`.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + DEADLINE;
    while !holds() {
        assert!(tokio::time::Instant::now() < end, "not within {DEADLINE:?}: {what}");
        tokio::time::sleep(LOOK).await;
    }
}

/// What the agents share.
pub struct World {
    pub api: FakeApiServer,
    network: FakeNetwork,
}

/// A node's hardware: its guests outlive its agents.
pub struct Hardware {
    pub fake: Arc<FakeHypervisor>,
    /// The agent that runs there now.
    agent: Arc<Mutex<Option<InputSender>>>,
}

/// A running agent. Dropping it kills it.
pub struct Agent {
    pub board: Board,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Result<(), JournalError>>,
}

impl World {
    pub fn new() -> Self {
        let codec = fake_peers::Codec {
            encode: |message| wire::encode(message).map_err(|error| error.to_string()),
            decode: |bytes| wire::decode(bytes).map_err(|error| error.to_string()),
        };
        Self { api: FakeApiServer::new(), network: FakeNetwork::new(codec) }
    }

    /// Node `number`'s identity.
    pub fn identity(number: u8) -> PeerIdentity {
        PeerIdentity {
            node: node(number),
            key: [number; 32],
            addresses: vec![SocketAddr::from(([127, 0, 0, number], 7400))],
        }
    }

    /// Starts node `number`'s agent.
    pub fn start(&self, number: u8, hardware: &Hardware, store: impl Store) -> Agent {
        let opened = Journal::open(store, journal_codec()).expect("the journal is whole");
        let identity = Self::identity(number);
        let (inputs, inputs_end) = mpsc::channel(INPUT_QUEUE);
        let (news, peer_news_end) = mpsc::channel(64);
        let (strangers, strangers_end) = mpsc::channel(64);
        let peers = self.network.join(&identity, inputs.clone(), strangers);
        let cluster = self.api.agent(identity, inputs.clone(), news);
        hardware.attach(inputs.clone());
        let guard = FakeGuard::start(None).attach(inputs);
        let config = DriverConfig {
            node: node(number),
            seed: number.into(),
            threshold_s: Some(9.0),
            version: "test".to_owned(),
            goal: Goal::default(),
            failover: true,
            times: Times::default(),
            absence: Duration::from_secs(60),
            limits: MigrationLimits::default(),
            replicas: 3,
        };
        let ports = Ports {
            hypervisor: hardware.fake.clone(),
            peers: Arc::new(peers),
            cluster: Arc::new(cluster),
            guard,
            power: None,
        };
        let mailboxes =
            Mailboxes { inputs: inputs_end, peer_news: peer_news_end, strangers: strangers_end };
        let board = Board::new();
        let driver = Driver::new(config, opened, ports, mailboxes, board.clone());
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(driver.run(async {
            // Dropped: the agent is killed anyway.
            let _ = stopped.await;
        }));
        Agent { board, stop: Some(stop), task }
    }

    /// Waits until the environment is ready.
    pub async fn until_ready(&self, name: &VeName) {
        until(&format!("{name} is ready"), || {
            let report = self.api.ve(name).and_then(|ve| ve.report);
            report.is_some_and(|report| report.ready.holds)
        })
        .await;
    }
}

impl Hardware {
    /// A machine with eight processors and 16 GiB. Needs a tokio runtime.
    pub fn new() -> Self {
        let (reports, mut reported) = mpsc::channel::<Input>(INPUT_QUEUE);
        let agent = Arc::new(Mutex::new(None::<InputSender>));
        let current = agent.clone();
        tokio::spawn(async move {
            while let Some(report) = reported.recv().await {
                let to = lock(&current).clone();
                if let Some(to) = to {
                    // The agent was killed: what it did not hear, the next one is told.
                    let _ = to.send(report).await;
                }
            }
        });
        let host = HostInfo {
            capacity: Resources { cpu_milli: 8000, memory: 16 * GIB },
            storage: 100 * GIB,
            acceleration: Acceleration::Emulation,
            hypervisor: "fake".to_owned(),
            boot_id: "first".to_owned(),
        };
        Self { fake: Arc::new(FakeHypervisor::start(host, reports)), agent }
    }

    /// A new agent connects: it is told everything from the beginning.
    fn attach(&self, inputs: InputSender) {
        self.fake.set_available(false);
        *lock(&self.agent) = Some(inputs);
        self.fake.set_available(true);
    }
}

impl Agent {
    /// kill -9.
    pub async fn kill(mut self) {
        self.task.abort();
        // What it says is that it was aborted.
        let _ = (&mut self.task).await;
    }

    /// SIGTERM.
    pub async fn end(mut self) -> Result<(), JournalError> {
        if let Some(stop) = self.stop.take() {
            stop.send(()).expect("it runs");
        }
        let ended = tokio::time::timeout(DEADLINE, &mut self.task).await.expect("it ends in time");
        ended.expect("it does not panic")
    }

    /// It ends by itself.
    pub async fn ends(mut self) -> Result<(), JournalError> {
        let ended = tokio::time::timeout(DEADLINE, &mut self.task).await.expect("it ends in time");
        ended.expect("it does not panic")
    }

    /// Whether a part is ready, and what it says.
    pub fn part(&self, name: &str) -> Option<(bool, String)> {
        let snapshot = self.board.snapshot();
        snapshot.parts.get(name).map(|part| (part.ready, part.message.clone()))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the gate of a [`GatedStore`] does with writes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Gate {
    /// Lets them through.
    Open,
    /// Holds them before anything is on disk.
    Closed,
    /// Holds them when all is on disk.
    ClosedBehind,
}

/// A disk whose writes can be held up. Clones share gate and disk.
#[derive(Clone)]
pub struct GatedStore {
    disk: MemoryStore,
    gate: Arc<(Mutex<GateState>, Condvar)>,
}

struct GateState {
    gate: Gate,
    /// The gate becomes `then` when as many writes have gone through.
    later: Option<(u64, Gate)>,
    through: u64,
    held: u64,
    /// Held writes are given up: their agent is dead.
    given_up: bool,
}

impl GatedStore {
    pub fn new(disk: MemoryStore, gate: Gate) -> Self {
        let state = GateState { gate, later: None, through: 0, held: 0, given_up: false };
        Self { disk, gate: Arc::new((Mutex::new(state), Condvar::new())) }
    }

    /// Opens or closes it.
    pub fn set(&self, gate: Gate) {
        lock(&self.gate.0).gate = gate;
        self.gate.1.notify_all();
    }

    /// Closes it so before the write that comes after `through` others.
    pub fn close_after(&self, through: u64, gate: Gate) {
        lock(&self.gate.0).later = Some((through, gate));
    }

    /// Writes that are held.
    pub fn held(&self) -> u64 {
        lock(&self.gate.0).held
    }

    /// Returns when a write is held, perhaps never.
    pub async fn until_held(&self) {
        while self.held() == 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Ends held writes with a failure; the disk stays as it is.
    pub fn give_up(&self) {
        lock(&self.gate.0).given_up = true;
        self.gate.1.notify_all();
    }

    /// Holds the caller while the gate is `closed` in this way; false: the write is given up.
    fn pass(&self, closed: Gate) -> bool {
        let mut state = lock(&self.gate.0);
        if let Some((through, gate)) = state.later
            && state.through >= through
        {
            state.gate = gate;
            state.later = None;
        }
        while state.gate == closed && !state.given_up {
            state.held += 1;
            let waited = self.gate.1.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
            state.held -= 1;
        }
        !state.given_up
    }
}

impl Store for GatedStore {
    fn load(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.disk.load()
    }

    fn write(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let dead = || StoreError::Busy { path: "a dead agent's".to_owned() };
        if !self.pass(Gate::Closed) {
            return Err(dead());
        }
        self.disk.write(changes)?;
        lock(&self.gate.0).through += 1;
        if self.pass(Gate::ClosedBehind) { Ok(()) } else { Err(dead()) }
    }
}

/// The real journal's layout.
pub fn journal_codec() -> Codec {
    Codec {
        record: codec::encode,
        peer: codec::encode_peer,
        forget_peer: codec::forget_peer,
        read: |key, value| match codec::decode_any(key, value) {
            Ok(Stored::Engine(kept)) => Ok(Loaded::Engine(kept)),
            Ok(Stored::Peer(peer)) => Ok(Loaded::Peer(peer)),
            Err(error) => Err(error.to_string()),
        },
    }
}

pub fn node(number: u8) -> NodeName {
    NodeName::from(format!("n{number}"))
}

/// `web` members, and one `db`; no two `web` on one node if they are `spread`.
pub fn shop(web: u32, spread: bool) -> VeSpec {
    let member = |name: &str, replicas, cpus| MemberSpec {
        name: MemberName::from(name),
        replicas,
        cpus,
        memory: GIB,
        boot: Boot::Disk,
        disks: vec![DiskSpec { name: "root".to_owned(), size: GIB, image: None }],
        run_strategy: RunStrategy::Always,
        depends_on: Vec::new(),
    };
    let members = vec![MemberName::from("web")];
    let apart = Constraint::Spread { members, over: Domain::Node, continuous: true };
    VeSpec {
        state: VeState::Running,
        members: vec![member("web", web, 1), member("db", 1, 2)],
        placement: if spread { vec![apart] } else { Vec::new() },
        recovery: Recovery::default(),
    }
}

/// Where each VM of an environment has a domain, and how often that was started.
pub fn domains<'a>(
    world: &World,
    name: &VeName,
    hardware: impl IntoIterator<Item = &'a Hardware>,
) -> BTreeMap<VmId, Vec<u64>> {
    let ve = world.api.ve(name).expect("it exists").declared;
    let mut found: BTreeMap<VmId, Vec<u64>> =
        ve.spec.vms(&ve.uid).map(|(id, _)| (id, Vec::new())).collect();
    for hardware in hardware {
        for (id, starts) in &mut found {
            starts.extend(hardware.fake.starts(id));
        }
    }
    found
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
