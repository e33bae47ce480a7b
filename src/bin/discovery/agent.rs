//! `discovery agent`: makes the rims, hands them to the driver, and ends in good order.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use discovery::admin::Admin;
use discovery::agent::driver::{Driver, DriverConfig, Mailboxes, Ports};
use discovery::agent::journal::{Codec, Journal, Loaded, Recovered};
use discovery::agent::ports::{INPUT_QUEUE, PowerSwitch};
use discovery::agent::power_command::PowerCommand;
use discovery::agent::snapshot::{Board, CounterSource};
use discovery::engine::id::NodeName;
use discovery::engine::lrt::transit::MigrationLimits;
use discovery::guard::client::GuardClient;
use discovery::k8s::{Kubernetes, KubernetesConfig, Listing, connect};
use discovery::libvirt::{Libvirt, LibvirtConfig};
use discovery::net::identity::Identity;
use discovery::net::{Overlay, OverlayConfig};
use discovery::store::codec::{self, Stored};
use discovery::{engine, store};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::cli::{Agent, VERSION};
use crate::counters;

/// Worker threads. The engine is one task, TLS and HTTP take little; each thread costs memory.
const WORKERS: usize = 2;
/// Threads for short blocking calls (name look-ups); what blocks for long has threads of its own.
const BLOCKING_THREADS: usize = 4;
/// The journal's file, under the state directory.
const JOURNAL: &str = "journal.redb";
/// News of peers, and strangers, that may wait: they come in bursts of a cluster's size.
const PEER_QUEUE: usize = 256;
/// How long it may take to switch a machine off. Management controllers take seconds.
const POWER_OFF: Duration = Duration::from_secs(60);
/// How long the last status may take to reach the API server when the agent ends. The pod has ten seconds.
const FLUSH: Duration = Duration::from_secs(3);

/// Runs until told to end.
pub fn run(flags: Agent) -> Result<ExitCode, Box<dyn Error>> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("agent")
        .enable_all()
        .build()?;
    let result = runtime.block_on(serve(flags));
    // Threads that wait for a hung hypervisor hold nothing that must be saved.
    runtime.shutdown_background();
    result.map(|()| ExitCode::SUCCESS)
}

async fn serve(flags: Agent) -> Result<(), Box<dyn Error>> {
    let node = NodeName::from(flags.node_name.as_str());
    tracing::info!(%node, version = VERSION, "the agent begins");
    let mut stopping = stopping()?;
    let (journal, recovered) = open_journal(&flags)?;
    let identity = Identity::open(&flags.state_dir)?;
    let client = connect(flags.kubeconfig.as_deref()).await?;
    let admin_listener = TcpListener::bind(flags.admin_address)
        .await
        .map_err(|error| format!("cannot listen on TCP {}: {error}", flags.admin_address))?;

    let (inputs, inputs_end) = mpsc::channel(INPUT_QUEUE);
    let (peer_news, peer_news_end) = mpsc::channel(PEER_QUEUE);
    let (strangers, strangers_end) = mpsc::channel(PEER_QUEUE);
    let overlay = OverlayConfig { node: node.clone(), listen: listen_address(&flags), identity };
    let overlay = Arc::new(Overlay::start(overlay, inputs.clone(), strangers)?);
    let kubernetes = KubernetesConfig {
        node: node.clone(),
        key: overlay.public_key(),
        addresses: vec![SocketAddr::new(flags.node_ip, flags.overlay_port)],
        agent_version: VERSION.to_owned(),
        protocol: engine::wire::VERSION.into(),
        pinned: recovered.peers.iter().map(|peer| peer.node.clone()).collect(),
        listing: Listing::default(),
    };
    let kubernetes = Arc::new(Kubernetes::start(kubernetes, client, inputs.clone(), peer_news));
    let guard = Arc::new(GuardClient::start(flags.guard_socket.clone(), inputs.clone())?);
    let power = flags.power_off.clone().map(|program| {
        Arc::new(PowerCommand::new(program, POWER_OFF, inputs.clone())) as Arc<dyn PowerSwitch>
    });
    let libvirt = Arc::new(Libvirt::start(libvirt_config(&flags), inputs, Some(overlay.clone()))?);

    let board = Board::new();
    let counters: Vec<Arc<dyn CounterSource>> = vec![
        overlay.counters(),
        Arc::new(counters::Kubernetes(kubernetes.counters())),
        Arc::new(counters::Hypervisor(libvirt.clone())),
        Arc::new(counters::Guard(guard.clone())),
    ];
    let mut ended = stopping.clone();
    let admin = Admin::new(board.clone(), counters).serve(admin_listener, async move {
        // Both a word and the end of the one who would speak it mean the end.
        let _ = ended.wait_for(|stop| *stop).await;
    });
    let admin = tokio::spawn(admin);

    let config = DriverConfig {
        node: node.clone(),
        seed: rand::random(),
        threshold_s: (!flags.leave_overloads).then_some(flags.migration_must_save),
        version: VERSION.into(),
        goal: flags.goal.into(),
        failover: flags.failover,
        times: flags.lease.times()?,
        absence: flags.absence,
        limits: MigrationLimits {
            bandwidth: flags.migration_bandwidth,
            out: flags.migrations_out.into(),
            into: flags.migrations_in.into(),
        },
        replicas: flags.record_replicas.into(),
    };
    let (peers, cluster) = (overlay.clone(), kubernetes.clone());
    let ports = Ports { hypervisor: libvirt, peers, cluster, guard, power };
    let mailboxes =
        Mailboxes { inputs: inputs_end, peer_news: peer_news_end, strangers: strangers_end };
    let driver = Driver::new(config, (journal, recovered), ports, mailboxes, board);
    // A task of its own: the engine does not wait for what else this one does.
    let driver = tokio::spawn(driver.run(async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    }));
    driver.await??;
    tracing::info!(%node, "the agent ends; guests run on");
    kubernetes.flush(FLUSH).await;
    overlay.close().await;
    admin.await??;
    Ok(())
}

/// Becomes true at the first SIGTERM or SIGINT; the second one ends the process on the spot, which loses
/// nothing either.
fn stopping() -> Result<watch::Receiver<bool>, Box<dyn Error>> {
    let (stop, stopping) = watch::channel(false);
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        for _ in 0..2 {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stop.send_replace(true) {
                tracing::warn!("told twice to end: the agent ends on the spot; guests run on");
                std::process::exit(1);
            }
        }
    });
    Ok(stopping)
}

fn open_journal(flags: &Agent) -> Result<(Journal, Recovered), Box<dyn Error>> {
    let folder = &flags.state_dir;
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("state directory {}: {error}", folder.display()))?;
    let journal = match store::Journal::open(folder.join(JOURNAL)) {
        Ok(journal) => journal,
        Err(error) => return Err(discovery::agent::journal::cannot_begin(error).into()),
    };
    let codec = Codec {
        record: codec::encode,
        peer: codec::encode_peer,
        forget_peer: codec::forget_peer,
        read: |key, value| match codec::decode_any(key, value) {
            Ok(Stored::Engine(kept)) => Ok(Loaded::Engine(kept)),
            Ok(Stored::Peer(peer)) => Ok(Loaded::Peer(peer)),
            Err(error) => Err(error.to_string()),
        },
    };
    Ok(Journal::open(journal, codec)?)
}

/// All addresses of the family that the node's own address is of: it may not be up yet.
fn listen_address(flags: &Agent) -> SocketAddr {
    let all: IpAddr = match flags.node_ip {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    SocketAddr::new(all, flags.overlay_port)
}

fn libvirt_config(flags: &Agent) -> LibvirtConfig {
    let mut config = LibvirtConfig::new(&flags.libvirt_uri, &flags.state_dir);
    config.image_cache_limit_bytes = flags.image_cache_limit;
    config.file_roots.clone_from(&flags.image_dirs);
    config
}
