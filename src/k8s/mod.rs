//! Kubernetes: where people declare and read. Nothing that runs needs it.
//!
//! ```text
//!   watch.rs  this_node.rs  environments.rs     watches -> Input (no other client calls in them)
//!   peers.rs                                    PhysicalNodes listed, never watched -> PeerNews
//!   convert.rs  constraints.rs                  declared specs -> the engine's plain numbers
//!
//!   Action -> queue.rs -> writer.rs -> writes.rs    newest report per thing, one task, retried for ever
//!             happenings.rs                         what becomes one Event, and when
//!             patience.rs                           how long what passes is held back
//!             ve_status.rs  node_status.rs          reports -> status objects (pure)
//!
//!   reach.rs      whether the API server answers, debounced
//!   request.rs    one time limit and one vocabulary of failure for every request
//!   connect.rs    a client from a kubeconfig or from inside a pod
//!   doctor.rs     what `discovery doctor` lists
//! ```
//!
//! Writes per environment that is created: the claim of its replica set, one settled status, one Event.

mod connect;
mod constraints;
mod convert;
mod counters;
mod doctor;
mod environments;
mod happenings;
mod node_status;
mod patience;
mod peers;
mod queue;
mod reach;
mod request;
mod this_node;
mod ve_status;
mod watch;
mod writer;
mod writes;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use kube::Client;
use tokio::sync::{Notify, mpsc, watch as channel};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::agent::ports::{Cluster, InputSender, PeerNewsSender, Stranger};
use crate::engine::effect::ClusterAction;
use crate::engine::id::NodeName;

pub use connect::{ConnectError, connect};
pub use convert::{SpecError, ve_spec};
pub use counters::Counters;
pub use doctor::{DoctorError, NodeHealth, doctor};

/// How many strangers may wait for their look-up. More are dropped: they knock again.
const STRANGER_QUEUE: usize = 64;

/// What this rim must know of its agent.
#[derive(Clone, Debug)]
pub struct KubernetesConfig {
    /// The name of the Kubernetes `Node` this agent runs on, and of its `PhysicalNode`.
    pub node: NodeName,
    /// Public half of the agent's ed25519 identity.
    pub key: [u8; 32],
    /// Where the overlay can be reached (UDP).
    pub addresses: Vec<SocketAddr>,
    /// The agent's version, for people.
    pub agent_version: String,
    /// Version of the overlay's messages.
    pub protocol: u32,
    /// Peers that this agent has pinned on disk. Those whose `PhysicalNode` is gone are revoked after
    /// the first listing.
    pub pinned: Vec<NodeName>,
    /// How often all `PhysicalNode`s are listed.
    pub listing: Listing,
}

/// How often all `PhysicalNode`s are listed.
#[derive(Clone, Copy, Debug)]
pub struct Listing {
    /// By a gateway. A revoked node is shut out by gateways within this time.
    pub as_gateway: Duration,
    /// By any other agent.
    pub otherwise: Duration,
}

impl Default for Listing {
    /// Five hundred agents that each read half a megabyte every five minutes cost the API server less
    /// than one megabyte a second.
    fn default() -> Self {
        Self { as_gateway: Duration::from_secs(60), otherwise: Duration::from_secs(300) }
    }
}

/// Whether all environments are watched.
#[derive(Clone, Copy, Debug, Default)]
struct Watching {
    on: bool,
    /// How often that has begun. The engine forgets what it has seen when a watch ends: each begins with a list, however soon after the
    /// one before.
    begun: u64,
}

impl Watching {
    fn set(&mut self, on: bool) -> bool {
        let news = self.on != on;
        self.on = on;
        self.begun += u64::from(news && on);
        news
    }
}

/// What all tasks of the rim share.
struct Shared {
    config: KubernetesConfig,
    client: Client,
    inputs: InputSender,
    peer_news: PeerNewsSender,
    reach: reach::Reach,
    counters: Arc<Counters>,
    queue: Mutex<queue::Queue>,
    queue_changed: Notify,
    this_node: Mutex<this_node::Seen>,
    watch_ves: channel::Sender<Watching>,
    /// The uid of the `PhysicalNode` that carries this agent's identity, once it does.
    published: channel::Sender<Option<String>>,
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, queue::Queue> {
        // A poisoned lock means that a thread panicked inside a few lines of map handling: our own bug,
        // and the map is still whole.
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn this_node(&self) -> MutexGuard<'_, this_node::Seen> {
        self.this_node.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// This agent's identity can be read at the API server.
    fn published(&self, uid: &str) {
        self.published.send_if_modified(|old| {
            let new = old.as_deref() != Some(uid);
            if new {
                *old = Some(uid.to_owned());
            }
            new
        });
    }

    /// Every agent writes under its own name.
    fn field_manager(&self) -> String {
        let mut manager = format!("{}{}", writes::FIELD_MANAGER_PREFIX, self.config.node);
        // A name may have 253 bytes, all of them ASCII.
        manager.truncate(writes::LONGEST_MANAGER);
        manager
    }
}

/// The Kubernetes rim: implements [`Cluster`]. Its tasks end when it is dropped.
pub struct Kubernetes {
    shared: Arc<Shared>,
    strangers: mpsc::Sender<Stranger>,
    _tasks: JoinSet<()>,
}

impl Kubernetes {
    /// Starts the rim on the current tokio runtime and returns at once, whether or not the API server
    /// answers; it keeps trying for ever.
    #[must_use]
    pub fn start(
        config: KubernetesConfig,
        client: Client,
        inputs: InputSender,
        peer_news: PeerNewsSender,
    ) -> Self {
        let (watch_ves, _) = channel::channel(Watching::default());
        let (published, _) = channel::channel(None);
        let shared = Arc::new(Shared {
            config,
            client,
            inputs,
            peer_news,
            reach: reach::Reach::default(),
            counters: Arc::default(),
            queue: Mutex::default(),
            queue_changed: Notify::new(),
            this_node: Mutex::default(),
            watch_ves,
            published,
        });
        let (strangers, knocks) = mpsc::channel(STRANGER_QUEUE);
        let mut tasks = JoinSet::new();
        tasks.spawn(reach::probe(shared.clone()));
        tasks.spawn(this_node::follow_physical_node(shared.clone()));
        tasks.spawn(this_node::follow_node(shared.clone()));
        tasks.spawn(environments::follow_while_gateway(shared.clone()));
        tasks.spawn(peers::keep_listing(shared.clone(), knocks));
        tasks.spawn(writer::write(shared.clone()));
        Self { shared, strangers, _tasks: tasks }
    }

    /// What this rim has done so far.
    #[must_use]
    pub fn counters(&self) -> Arc<Counters> {
        self.shared.counters.clone()
    }

    /// Waits until everything submitted so far is written or dropped, at most for `limit`. For an orderly
    /// end; what is held back for a calmer state goes out now.
    pub async fn flush(&self, limit: Duration) {
        self.shared.queue().hurry();
        self.shared.queue_changed.notify_one();
        let mut poll = tokio::time::interval(FLUSH_POLL);
        let until = Instant::now() + limit;
        while !self.shared.queue().is_empty() && Instant::now() < until {
            poll.tick().await;
        }
    }
}

/// How often a flush looks whether it is done.
const FLUSH_POLL: Duration = Duration::from_millis(20);

impl Cluster for Kubernetes {
    fn submit(&self, action: ClusterAction) {
        match action {
            ClusterAction::WatchVes(on) => {
                self.shared.watch_ves.send_if_modified(|watching| watching.set(on));
            }
            other => {
                let dropped = self.shared.queue().put(other, Instant::now());
                self.shared.counters.events_dropped.add(dropped);
                self.shared.queue_changed.notify_one();
            }
        }
    }

    fn find_peer(&self, stranger: Stranger) {
        if self.strangers.try_send(stranger).is_err() {
            self.shared.counters.strangers_dropped.add(1);
        }
    }
}
