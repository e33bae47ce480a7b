//! The driver, with everything around it in memory: what is on disk before what is sent, what an end at
//! any point leaves behind, and whole agents that place an environment.

#[path = "driver/world.rs"]
mod world;

use std::time::Duration;

use discovery::agent::journal::{Journal, JournalError};
use discovery::agent::memory_store::MemoryStore;
use discovery::agent::ports::{Store, StoreError};
use discovery::engine::host::StopCause;
use discovery::engine::id::VeName;
use world::{Gate, GatedStore, Hardware, World, domains, journal_codec, node, shop, until};

/// A loop that has not gone round for so long is stuck, in these tests: twice its slowest beat.
const STUCK: Duration = Duration::from_secs(2);

/// An environment on one node lives its whole life in fewer writes than this.
const MOST_WRITES: u64 = 40;

fn shop_name() -> VeName {
    VeName::new("default", "shop")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_agents_place_run_and_remove_an_environment() {
    let world = World::new();
    let hardware = [Hardware::new(), Hardware::new(), Hardware::new()];
    let agents: Vec<_> =
        (1..).zip(&hardware).map(|(n, hw)| world.start(n, hw, MemoryStore::new())).collect();
    until("all know each other", || {
        agents.iter().all(|agent| {
            let snapshot = agent.board.snapshot();
            snapshot.peers.iter().filter(|peer| peer.state == "alive").count() == 2
        })
    })
    .await;
    let name = shop_name();
    world.api.apply(&name, shop(3, true));
    world.until_ready(&name).await;
    let placed = domains(&world, &name, &hardware);
    assert_eq!(placed.len(), 4);
    assert!(placed.values().all(|starts| *starts == [1]), "each once: {placed:?}");
    for hardware in &hardware {
        let here = domains(&world, &name, [hardware]);
        let web = here.iter().filter(|(id, on)| id.member.as_str() == "web" && !on.is_empty());
        assert_eq!(web.count(), 1, "spread: {here:?}");
    }

    let ids: Vec<_> = placed.into_keys().collect();
    world.api.delete(&name);
    until("it is gone", || world.api.ve(&name).is_none()).await;
    for id in &ids {
        assert!(hardware.iter().all(|hardware| hardware.fake.starts(id).is_none()), "{id} is left");
    }
    for agent in agents {
        agent.end().await.expect("in good order");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_sent_or_started_before_it_is_on_disk() {
    let world = World::new();
    let hardware = Hardware::new();
    let store = GatedStore::new(MemoryStore::new(), Gate::Open);
    let _agent = world.start(1, &hardware, store.clone());
    until("it has reported its machine", || {
        let report = world.api.node(&node(1)).and_then(|node| node.report);
        report.is_some_and(|report| report.host.is_some() && report.gateway && report.schedulable)
    })
    .await;
    store.set(Gate::Closed);
    let name = shop_name();
    world.api.apply(&name, shop(2, false));
    // The replica set is claimed first; that promises nothing. Then a write comes, and does not return.
    until("a write is held", || store.held() == 1).await;
    assert_eq!(hardware.fake.commands(), [], "started before it was on disk");
    assert!(world.api.ve(&name).expect("applied").report.is_none_or(|report| !report.placed.holds));
    store.set(Gate::Open);
    world.until_ready(&name).await;
    assert!(domains(&world, &name, [&hardware]).values().all(|starts| *starts == [1]));
}

/// An environment's life on one node: it is placed, its `db` crashes, it grows, it is deleted. Asserts that
/// each guest was started as often as that needs, and no more.
async fn live(world: &World, hardware: &Hardware) {
    let name = shop_name();
    world.api.apply(&name, shop(2, false));
    world.until_ready(&name).await;
    let placed = domains(world, &name, [hardware]);
    assert!(placed.values().all(|starts| *starts == [1]), "placed: {placed:?}");

    let db = placed.keys().find(|id| id.member.as_str() == "db").expect("there is one");
    hardware.fake.stop(db, StopCause::Crashed);
    until("the db is started again", || hardware.fake.starts(db) == Some(2)).await;

    world.api.apply(&name, shop(3, false));
    until("it has grown", || {
        let report = world.api.ve(&name).and_then(|ve| ve.report);
        report.is_some_and(|report| report.ready.holds && report.observed_generation == 2)
    })
    .await;
    let grown = domains(world, &name, [hardware]);
    assert_eq!(grown.len(), 4);
    for (id, starts) in &grown {
        assert_eq!(*starts, [if id == db { 2 } else { 1 }], "grown: {id}");
    }

    world.api.delete(&name);
    until("it is gone", || world.api.ve(&name).is_none()).await;
    assert!(grown.keys().all(|id| hardware.fake.starts(id).is_none()), "domains are left");
}

/// Kills the agent at its `write`th write, and starts it again; false: it never wrote so often.
async fn killed_at(write: u64, gate: Gate) -> bool {
    let world = World::new();
    let hardware = Hardware::new();
    let disk = MemoryStore::new();
    let store = GatedStore::new(disk.clone(), Gate::Open);
    store.close_after(write, gate);
    let agent = world.start(1, &hardware, store.clone());
    let life = live(&world, &hardware);
    tokio::pin!(life);
    tokio::select! {
        () = &mut life => return false,
        () = store.until_held() => {}
    }
    agent.kill().await;
    store.give_up();
    let _next = world.start(1, &hardware, disk.clone());
    life.await;
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_killed_before_or_after_any_write_goes_on_where_it_was() {
    for gate in [Gate::Closed, Gate::ClosedBehind] {
        let mut kills = 0;
        while killed_at(kills, gate).await {
            kills += 1;
            assert!(kills < MOST_WRITES, "such a life takes that many writes");
        }
        // Its incarnation; placed; running; restarted; grown; removed.
        assert!(kills >= 6, "only {kills} writes were tried");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_pauses_the_agent_which_says_so_and_goes_on_when_there_is_room() {
    let world = World::new();
    let hardware = Hardware::new();
    let disk = MemoryStore::new();
    let agent = world.start(1, &hardware, disk.clone());
    until("it is ready", || agent.part("store").is_some_and(|(ready, _)| ready)).await;
    disk.set_full(true);
    let name = shop_name();
    world.api.apply(&name, shop(1, false));
    until("it says that the disk is full", || {
        agent.part("store").is_some_and(|(ready, words)| !ready && words.contains("no room left"))
    })
    .await;
    assert_eq!(hardware.fake.commands(), [], "nothing is promised meanwhile");
    let failures = || agent.board.snapshot().counters.get("journal_write_failures").copied();
    let before = failures();
    until("it tries again", || failures() > before).await;
    let age = agent.board.heartbeat_age().expect("it has begun");
    assert!(age < STUCK, "no restart would help, so it must look alive: {age:?}");
    disk.set_full(false);
    world.until_ready(&name).await;
    until("the store is ready again", || agent.part("store").is_some_and(|(ready, _)| ready)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_a_full_disk_ends_when_it_is_told_to() {
    let world = World::new();
    let hardware = Hardware::new();
    let disk = MemoryStore::new();
    disk.set_full(true);
    let agent = world.start(1, &hardware, disk);
    until("it waits", || agent.part("store").is_some_and(|(ready, _)| !ready)).await;
    agent.end().await.expect("in good order");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_heartbeat_tells_a_loop_that_is_stuck() {
    let world = World::new();
    let hardware = Hardware::new();
    let store = GatedStore::new(MemoryStore::new(), Gate::Open);
    let agent = world.start(1, &hardware, store.clone());
    let age = || agent.board.heartbeat_age().expect("it has begun");
    until("it is ready", || agent.part("hypervisor").is_some_and(|(ready, _)| ready)).await;
    store.set(Gate::Closed);
    world.api.apply(&shop_name(), shop(1, false));
    until("a write hangs", || store.held() == 1).await;
    until("the heart has stopped", || age() > STUCK).await;
    store.set(Gate::Open);
    until("it beats again", || age() < STUCK).await;
    world.until_ready(&shop_name()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pinned_peer_is_known_after_a_restart_without_the_api_server() {
    let world = World::new();
    let hardware = [Hardware::new(), Hardware::new()];
    let disks = [MemoryStore::new(), MemoryStore::new()];
    let start = |at: usize, number| world.start(number, &hardware[at], disks[at].clone());
    let agents = [start(0, 1), start(1, 2)];
    let alive = |agent: &world::Agent| {
        agent.board.snapshot().peers.iter().filter(|peer| peer.state == "alive").count()
    };
    until("they know each other", || agents.iter().all(|agent| alive(agent) == 1)).await;
    for agent in agents {
        agent.kill().await;
    }
    world.api.set_reachable(false);
    let agents = [start(0, 1), start(1, 2)];
    until("they know each other again", || agents.iter().all(|agent| alive(agent) == 1)).await;
    let unready = agents[0].part("kubernetes").expect("a part");
    assert!(!unready.0, "the API server was away all the time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revoked_peer_is_forgotten_on_disk_too() {
    let world = World::new();
    let hardware = [Hardware::new(), Hardware::new()];
    let mut disk = MemoryStore::new();
    let agent = world.start(1, &hardware[0], disk.clone());
    let _other = world.start(2, &hardware[1], MemoryStore::new());
    let known = || agent.board.snapshot().peers.len();
    until("it is known", || known() == 1).await;
    let pin = discovery::store::codec::encode_peer(&World::identity(2)).0;
    let mut pinned = || disk.load().expect("memory").iter().any(|(key, _)| *key == pin);
    assert!(pinned());
    world.api.delete_physical_node(&node(2));
    until("it is forgotten", || known() == 0 && !pinned()).await;
}

/// A disk that fails for good, as told.
struct Failing(fn() -> StoreError);

impl Store for Failing {
    fn load(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        Ok(Vec::new())
    }

    fn write(&mut self, _: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        Err((self.0)())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_journal_ends_the_agent_with_words_that_help() {
    let world = World::new();
    let hardware = Hardware::new();
    let damaged = || StoreError::Damaged { path: "j.redb".to_owned(), reason: "torn".to_owned() };
    let error = world.start(1, &hardware, Failing(damaged)).ends().await.expect_err("it ends");
    assert!(matches!(error, JournalError::Damaged { .. }), "{error}");
    assert!(error.to_string().contains("restore"), "{error}");
    let busy = || StoreError::Busy { path: "j.redb".to_owned() };
    let error = world.start(2, &hardware, Failing(busy)).ends().await.expect_err("it ends");
    assert!(error.to_string().contains("end the other agent"), "{error}");
}

#[test]
fn an_agent_does_not_begin_with_a_record_that_it_cannot_read() {
    let mut disk = MemoryStore::new();
    disk.write(&[(b"v-nonsense".to_vec(), Some(b"nonsense".to_vec()))]).expect("memory");
    let error = Journal::open(disk, journal_codec()).err().expect("refused");
    assert!(matches!(error, JournalError::Record { .. }), "{error}");
}
