//! The admin pages over real HTTP.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use discovery::admin::Admin;
use discovery::agent::snapshot::{Board, CounterSource, Part, PeerBelief, Snapshot, VmBelief};
use discovery::engine::id::{MemberName, NodeName, VeUid, VmId};
use discovery::engine::record::VmGoal;
use discovery::engine::report::VmPhase;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout};

const DEADLINE: Duration = Duration::from_secs(10);

struct Counted;

impl CounterSource for Counted {
    fn counters(&self) -> BTreeMap<String, u64> {
        BTreeMap::from([
            ("net_messages_sent".to_owned(), 12),
            ("net_sent_bytes".to_owned(), 34_000),
        ])
    }
}

/// Serves a board; dropping the sender ends it.
async fn serve(board: &Board, limit: Duration) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (end, ended) = oneshot::channel::<()>();
    let admin = Admin::new(board.clone(), vec![Arc::new(Counted)]).with_loop_limit(limit);
    tokio::spawn(admin.serve(listener, async {
        let _ = ended.await;
    }));
    (address, end)
}

/// Status code and the rest of the answer, headers and body.
async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = String::new();
    timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("in time").expect("text");
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    (status.expect("a status"), answer)
}

fn snapshot() -> Snapshot {
    let part = |ready, message: &str| Part { ready, message: message.to_owned() };
    Snapshot {
        node: "node-1".to_owned(),
        version: "0.1.0+abc".to_owned(),
        parts: BTreeMap::from([
            ("hypervisor".to_owned(), part(false, "libvirt does not answer")),
            ("store".to_owned(), part(true, "")),
        ]),
        peers: vec![PeerBelief {
            node: NodeName::from("node-2"),
            state: "alive".to_owned(),
            round_trip_ms: Some(0.7),
            api_reachable: true,
            free: None,
        }],
        vms: vec![VmBelief {
            cpus: 1,
            memory: 64 << 20,
            load_percent: Some(12.5),
            id: VmId { ve: VeUid::from("uid"), member: MemberName::from("web"), index: 0 },
            domain_name: "default.shop-web-0".to_owned(),
            goal: VmGoal::Run,
            epoch: 1,
            phase: VmPhase::Running,
            restarts: 0,
            doing: None,
        }],
        counters: BTreeMap::from([("engine_inputs".to_owned(), 99)]),
        gauges: BTreeMap::from([("journal_size_bytes".to_owned(), 4096.0)]),
        ..Snapshot::default()
    }
}

#[tokio::test]
async fn an_agent_is_alive_while_its_loop_goes_round_and_says_since_when_it_does_not() {
    let board = Board::new();
    let limit = Duration::from_millis(200);
    let (address, _end) = serve(&board, limit).await;
    board.beat();
    assert_eq!(get(address, "/livez").await.0, 200);
    let deadline = Instant::now() + DEADLINE;
    let answer = loop {
        assert!(Instant::now() < deadline, "it never noticed");
        let (status, answer) = get(address, "/livez").await;
        if status == 500 {
            break answer;
        }
    };
    assert!(answer.contains("last went round") && answer.contains("limit 0.2 s"), "{answer}");
    board.beat();
    assert_eq!(get(address, "/livez").await.0, 200);
}

#[tokio::test]
async fn an_agent_that_is_not_ready_names_the_part() {
    let board = Board::new();
    let (address, _end) = serve(&board, DEADLINE).await;
    let (status, answer) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(answer.contains("no part has reported yet"), "{answer}");

    board.post(snapshot());
    let (status, answer) = get(address, "/readyz").await;
    assert_eq!(status, 503);
    assert!(answer.contains("hypervisor: not ready: libvirt does not answer"), "{answer}");
    assert!(answer.contains("store: ready"), "{answer}");

    let mut better = snapshot();
    better.parts.values_mut().for_each(|part| part.ready = true);
    board.post(better);
    assert_eq!(get(address, "/readyz").await.0, 200);
}

#[tokio::test]
async fn metrics_are_openmetrics_with_units_and_totals() {
    let board = Board::new();
    board.post(snapshot());
    let (address, _end) = serve(&board, DEADLINE).await;
    let (status, answer) = get(address, "/metrics").await;
    assert_eq!(status, 200);
    assert!(answer.contains("application/openmetrics-text"), "{answer}");
    for line in [
        "discovery_build_info{version=\"0.1.0+abc\",node=\"node-1\"} 1",
        "discovery_part_ready{part=\"hypervisor\"} 0",
        "discovery_part_ready{part=\"store\"} 1",
        "discovery_peers{state=\"alive\"} 1",
        "discovery_vms{goal=\"run\"} 1",
        "# TYPE discovery_net_messages_sent counter",
        "discovery_net_messages_sent_total 12",
        "discovery_net_sent_bytes_total 34000",
        "discovery_engine_inputs_total 99",
        "discovery_journal_size_bytes 4096.0",
        "# UNIT discovery_loop_heartbeat_age_seconds seconds",
        "# EOF",
    ] {
        assert!(answer.lines().any(|other| other == line), "no line {line:?} in\n{answer}");
    }
    for name in ["process_resident_memory_bytes", "process_cpu_seconds_total"] {
        let value = answer.lines().find_map(|line| line.strip_prefix(name));
        let value: f64 = value.and_then(|text| text.trim().parse().ok()).expect(name);
        assert!(value >= 0.0, "{name} {value}");
    }
}

#[tokio::test]
async fn the_debug_page_is_json_of_what_the_agent_believes() {
    let board = Board::new();
    board.post(snapshot());
    let (address, _end) = serve(&board, DEADLINE).await;
    let (status, answer) = get(address, "/debug/engine").await;
    assert_eq!(status, 200);
    let body = answer.split("\r\n\r\n").nth(1).expect("a body");
    let page: serde_json::Value = serde_json::from_str(body).expect("JSON");
    assert_eq!(page["node"], "node-1");
    assert_eq!(page["peers"][0]["node"], "node-2");
    assert_eq!(page["vms"][0]["domain_name"], "default.shop-web-0");
    assert_eq!(page["rims"]["net_messages_sent"], 12);
    assert!(page["loop_heartbeat_age_seconds"].is_number());
}

#[tokio::test]
async fn it_ends_when_it_is_told_to_also_with_a_caller_that_never_finishes() {
    let board = Board::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (end, ended) = oneshot::channel::<()>();
    let server = tokio::spawn(Admin::new(board, Vec::new()).serve(listener, async {
        let _ = ended.await;
    }));
    let mut half = TcpStream::connect(address).await.expect("it listens");
    half.write_all(b"GET /livez HTTP/1.1\r\nHo").await.expect("it reads");
    assert_eq!(get(address, "/").await.0, 200);
    end.send(()).expect("it is there");
    timeout(DEADLINE, server).await.expect("it ends").expect("no panic").expect("no error");
}
