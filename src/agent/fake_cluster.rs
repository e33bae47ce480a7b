//! An API server in memory behind the [`Cluster`] port, for tests of the driver and of whole agents.
//!
//! It keeps what matters of the real one: resource versions and compare-and-swap, finalizers, generations,
//! watches that begin with a list, an absence during which people and agents cannot see each other's work,
//! and reports that wait, newest per thing, until it is over. It passes the same conformance suite as the
//! real rim. It writes at once where the real one waits a little for more, and it has no Events, only a
//! list of happenings.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::mpsc;

use super::ports::{Cluster, InputSender, PeerIdentity, PeerNews, PeerNewsSender, Stranger};
use crate::engine::effect::ClusterAction;
use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::input::{ClusterInput, Input, NOT_ITS_HANDLERS, NodeDeclared, VeDeclared};
use crate::engine::report::{Condition, Happening, NodeReport, VeReport};
use crate::engine::spec::{Resources, VeSpec};

/// A virtual environment as the fake holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredVe {
    /// What was declared, and its replica set.
    pub declared: VeDeclared,
    /// It is kept until an agent releases it.
    pub finalizer: bool,
    /// The newest report, if there is one.
    pub report: Option<VeReport>,
    /// How often agents have written to it.
    pub writes: u32,
}

/// A physical node as the fake holds it.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredNode {
    /// Its agent's published identity; `None` after the `PhysicalNode` was deleted.
    pub identity: Option<PeerIdentity>,
    /// What is declared of it.
    pub declared: NodeDeclared,
    /// Its `Node` is cordoned.
    pub cordoned: bool,
    /// The newest report, if there is one.
    pub report: Option<NodeReport>,
    /// Its page says that its agent is not heard.
    pub silent: bool,
}

/// The API server. Clones are the same server.
#[derive(Clone, Default)]
pub struct FakeApiServer(Arc<Mutex<Server>>);

#[derive(Default)]
struct Server {
    /// Nobody reaches it.
    away: bool,
    version: u64,
    ves: BTreeMap<VeName, StoredVe>,
    nodes: BTreeMap<NodeName, StoredNode>,
    agents: BTreeMap<NodeName, Agent>,
    happenings: Vec<(NodeName, Happening)>,
}

struct Agent {
    news: mpsc::UnboundedSender<News>,
    inputs: InputSender,
    reaches: bool,
    watches: bool,
    told_of_itself: Option<NodeDeclared>,
    peers: BTreeMap<NodeName, PeerIdentity>,
    waiting: Vec<ClusterAction>,
}

enum News {
    Input(ClusterInput),
    Peer(PeerNews),
}

impl Agent {
    /// It runs, and reaches the API server.
    fn is_there(&self) -> bool {
        self.reaches && !self.inputs.is_closed()
    }

    /// Its receiver is gone only when the agent ends.
    fn tell(&self, input: ClusterInput) {
        let _ = self.news.send(News::Input(input));
    }

    fn tell_of_peer(&self, news: PeerNews) {
        let _ = self.news.send(News::Peer(news));
    }
}

/// What people do, and what tests look at.
impl FakeApiServer {
    /// An empty one that everybody reaches.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn server(&self) -> MutexGuard<'_, Server> {
        // A panic while it was held is a failed test already.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// An agent's port. Its `PhysicalNode` and its `Node` are made if they are missing. Needs a tokio
    /// runtime. An agent of the same name that comes later replaces it, as after a restart.
    #[must_use]
    pub fn agent(
        &self,
        identity: PeerIdentity,
        inputs: InputSender,
        peers: PeerNewsSender,
    ) -> FakeCluster {
        let (news, mut received) = mpsc::unbounded_channel();
        let its_inputs = inputs.clone();
        tokio::spawn(async move {
            while let Some(news) = received.recv().await {
                let delivered = match news {
                    News::Input(input) => inputs.send(Input::Cluster(input)).await.is_ok(),
                    News::Peer(news) => peers.send(news).await.is_ok(),
                };
                if !delivered {
                    return;
                }
            }
        });
        let node = identity.node.clone();
        let mut server = self.server();
        let stored = server.nodes.entry(node.clone()).or_insert_with(StoredNode::new);
        stored.identity = Some(identity);
        let agent = Agent {
            news,
            inputs: its_inputs,
            reaches: false,
            watches: false,
            told_of_itself: None,
            peers: BTreeMap::new(),
            waiting: Vec::new(),
        };
        if server.away {
            agent.tell(ClusterInput::Reachable(false));
        }
        let reaches = !server.away;
        server.agents.insert(node.clone(), agent);
        server.reach(&node, reaches);
        server.tell_everybody_of_peers();
        FakeCluster { server: self.clone(), node }
    }

    /// Creates an environment, or changes its spec. It carries the finalizer from the start, as with the
    /// chart's admission policy.
    pub fn apply(&self, name: &VeName, spec: VeSpec) -> VeUid {
        let mut server = self.server();
        let version = server.next_version();
        let stored = server.ves.entry(name.clone()).or_insert_with(|| StoredVe {
            declared: VeDeclared {
                uid: format!("uid-{version}").into(),
                name: name.clone(),
                generation: 0,
                resource_version: String::new(),
                deleting: false,
                gone: false,
                reported: 0,
                replica_set: Vec::new(),
                spec: spec.clone(),
            },
            finalizer: true,
            report: None,
            writes: 0,
        });
        let declared = &mut stored.declared;
        if declared.generation == 0 || declared.spec != spec {
            declared.generation += 1;
            declared.spec = spec;
            declared.resource_version = version.to_string();
        }
        let uid = declared.uid.clone();
        server.tell_watchers_of(name);
        uid
    }

    /// Asks for an environment's end. It stays until it is released.
    pub fn delete(&self, name: &VeName) {
        let mut server = self.server();
        let version = server.next_version().to_string();
        let Some(stored) = server.ves.get_mut(name) else { return };
        if stored.finalizer {
            stored.declared.deleting = true;
            // Kubernetes counts the deletion as a change of what is declared.
            stored.declared.generation += 1;
            stored.declared.resource_version = version;
            server.tell_watchers_of(name);
        } else {
            server.remove(name);
        }
    }

    /// Removes an environment with its finalizer, by force.
    pub fn remove(&self, name: &VeName) {
        self.server().remove(name);
    }

    /// An environment, if it exists.
    #[must_use]
    pub fn ve(&self, name: &VeName) -> Option<StoredVe> {
        self.server().ves.get(name).cloned()
    }

    /// A node, if its agent has ever been here.
    #[must_use]
    pub fn node(&self, node: &NodeName) -> Option<StoredNode> {
        self.server().nodes.get(node).cloned()
    }

    /// Changes what is declared of a node: labels, reservations, `spec.schedulable`.
    pub fn declare_node(&self, node: &NodeName, change: impl FnOnce(&mut NodeDeclared)) {
        let mut server = self.server();
        change(&mut server.nodes.entry(node.clone()).or_insert_with(StoredNode::new).declared);
        server.tell_of_itself(node);
    }

    /// Cordons a node, or takes the cordon away.
    pub fn cordon(&self, node: &NodeName, cordoned: bool) {
        let mut server = self.server();
        server.nodes.entry(node.clone()).or_insert_with(StoredNode::new).cordoned = cordoned;
        server.tell_of_itself(node);
    }

    /// Deletes a `PhysicalNode`: its agent is revoked.
    pub fn delete_physical_node(&self, node: &NodeName) {
        let mut server = self.server();
        if let Some(stored) = server.nodes.get_mut(node) {
            stored.identity = None;
        }
        server.tell_of_itself(node);
        server.tell_everybody_of_peers();
    }

    /// Makes the server reachable or unreachable for all agents.
    pub fn set_reachable(&self, reachable: bool) {
        let mut server = self.server();
        server.away = !reachable;
        let nodes: Vec<NodeName> = server.agents.keys().cloned().collect();
        for node in nodes {
            server.reach(&node, reachable);
        }
    }

    /// Makes the server reachable or unreachable for one agent.
    pub fn set_reachable_for(&self, node: &NodeName, reachable: bool) {
        self.server().reach(node, reachable);
    }

    /// How many agents watch all environments.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.server().agents.values().filter(|agent| agent.watches && agent.reaches).count()
    }

    /// Everything that agents said has happened, oldest first.
    #[must_use]
    pub fn happenings(&self) -> Vec<(NodeName, Happening)> {
        self.server().happenings.clone()
    }
}

impl StoredNode {
    fn new() -> Self {
        Self {
            identity: None,
            declared: NodeDeclared {
                labels: BTreeMap::new(),
                maintenance: false,
                schedulable: true,
                reserved: Resources::default(),
                cpu_overcommit_percent: 100,
            },
            cordoned: false,
            report: None,
            silent: false,
        }
    }
}

impl Server {
    fn next_version(&mut self) -> u64 {
        self.version += 1;
        self.version
    }

    /// An agent begins or ceases to reach the server. What waited is done when it is back.
    fn reach(&mut self, node: &NodeName, reaches: bool) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        if std::mem::replace(&mut agent.reaches, reaches) == reaches {
            return;
        }
        agent.tell(ClusterInput::Reachable(reaches));
        if !reaches {
            return;
        }
        let waiting = std::mem::take(&mut agent.waiting);
        self.tell_of_itself(node);
        self.tell_of_peers(node);
        self.list_for(node);
        for action in waiting {
            self.carry_out(node, action);
        }
    }

    fn list_for(&self, node: &NodeName) {
        let Some(agent) = self.agents.get(node).filter(|agent| agent.watches) else { return };
        for stored in self.ves.values() {
            agent.tell(ClusterInput::Ve(Box::new(stored.declared.clone())));
        }
        let live = self.ves.values().map(|stored| stored.declared.uid.clone()).collect();
        agent.tell(ClusterInput::VesListed { live });
    }

    fn watchers(&self) -> impl Iterator<Item = &Agent> {
        self.agents.values().filter(|agent| agent.watches && agent.reaches)
    }

    fn tell_watchers_of(&self, name: &VeName) {
        let Some(stored) = self.ves.get(name) else { return };
        for agent in self.watchers() {
            agent.tell(ClusterInput::Ve(Box::new(stored.declared.clone())));
        }
    }

    fn remove(&mut self, name: &VeName) {
        let Some(stored) = self.ves.remove(name) else { return };
        for agent in self.watchers() {
            let (uid, name) = (stored.declared.uid.clone(), name.clone());
            agent.tell(ClusterInput::VeGone { uid, name });
        }
    }

    fn tell_of_itself(&mut self, node: &NodeName) {
        let (Some(agent), Some(stored)) = (self.agents.get_mut(node), self.nodes.get(node)) else {
            return;
        };
        let mut declared = stored.declared.clone();
        declared.schedulable &= !stored.cordoned && stored.identity.is_some();
        if agent.reaches && agent.told_of_itself.as_ref() != Some(&declared) {
            agent.told_of_itself = Some(declared.clone());
            agent.tell(ClusterInput::ThisNode(declared));
        }
    }

    fn tell_everybody_of_peers(&mut self) {
        let nodes: Vec<NodeName> = self.agents.keys().cloned().collect();
        for node in nodes {
            self.tell_of_peers(&node);
        }
    }

    /// What a listing would tell an agent now. One that is not listed itself judges nobody.
    fn tell_of_peers(&mut self, node: &NodeName) {
        let listed = |stored: &StoredNode| stored.identity.clone();
        let itself = self.nodes.get(node).and_then(listed);
        let peers: BTreeMap<NodeName, PeerIdentity> = self
            .nodes
            .iter()
            .filter(|(peer, _)| *peer != node)
            .filter_map(|(peer, stored)| Some((peer.clone(), listed(stored)?)))
            .collect();
        let Some(agent) = self.agents.get_mut(node).filter(|agent| agent.reaches) else { return };
        for (peer, identity) in &peers {
            if agent.peers.get(peer) != Some(identity) {
                agent.tell_of_peer(PeerNews::Known(identity.clone()));
            }
        }
        if itself.is_some() {
            for peer in agent.peers.keys().filter(|peer| !peers.contains_key(*peer)) {
                agent.tell_of_peer(PeerNews::Revoked(peer.clone()));
            }
            agent.peers = peers;
        } else {
            agent.peers.extend(peers);
        }
    }

    fn submit(&mut self, node: &NodeName, action: ClusterAction) {
        let Some(agent) = self.agents.get_mut(node) else { return };
        match action {
            ClusterAction::WatchVes(on) => {
                let before = std::mem::replace(&mut agent.watches, on);
                if on && !before && agent.reaches {
                    self.list_for(node);
                }
            }
            action if agent.reaches => self.carry_out(node, action),
            action => {
                agent.waiting.retain(|waiting| !replaces(&action, waiting));
                agent.waiting.push(action);
            }
        }
    }

    fn carry_out(&mut self, node: &NodeName, action: ClusterAction) {
        match action {
            ClusterAction::WatchVes(_) => {}
            ClusterAction::ClaimReplicaSet { uid, name, resource_version, replicas } => {
                let version = self.next_version().to_string();
                let Some(stored) = self.of(&uid, &name) else { return };
                if stored.declared.resource_version != resource_version {
                    return;
                }
                stored.declared.replica_set = replicas;
                stored.declared.resource_version = version;
                stored.finalizer |= !stored.declared.deleting;
                stored.writes += 1;
                self.tell_watchers_of(&name);
            }
            ClusterAction::ReportVe(report) => {
                let version = self.next_version().to_string();
                let name = report.name.clone();
                let Some(stored) = self.of(&report.uid, &name) else { return };
                let same = stored.report.as_ref().is_some_and(|before| {
                    *before == VeReport { again: before.again, ..(*report).clone() }
                });
                let newest = stored.report.as_ref().map_or(0, |report| report.round);
                if same || newest > report.round {
                    return;
                }
                let moved = stored.declared.replica_set != report.replica_set
                    || stored.declared.reported != report.round;
                stored.declared.reported = report.round;
                stored.declared.replica_set.clone_from(&report.replica_set);
                stored.declared.resource_version = version;
                stored.report = Some(*report);
                stored.writes += 1;
                if moved {
                    self.tell_watchers_of(&name);
                }
            }
            ClusterAction::ReportNoMajority { uid, name, message } => {
                let version = self.next_version().to_string();
                let Some(stored) = self.of(&uid, &name) else { return };
                let Some(report) = &mut stored.report else { return };
                report.ready = Condition::no("NoMajority", message);
                stored.declared.reported = NOT_ITS_HANDLERS;
                stored.declared.resource_version = version;
                stored.writes += 1;
                self.tell_watchers_of(&name);
            }
            ClusterAction::ReleaseVe { uid, name } => {
                let Some(stored) = self.of(&uid, &name) else { return };
                if stored.declared.deleting {
                    self.remove(&name);
                }
            }
            ClusterAction::ReportNode(report) => {
                if let Some(stored) =
                    self.nodes.get_mut(node).filter(|stored| stored.identity.is_some())
                {
                    stored.report = Some(*report);
                    stored.silent = false;
                }
            }
            ClusterAction::ReportSilent(silent) => {
                for node in silent {
                    // One that is there has the last word.
                    let is_there = self.agents.get(&node).is_some_and(Agent::is_there);
                    if let Some(stored) = self.nodes.get_mut(&node).filter(|_| !is_there) {
                        stored.silent = true;
                    }
                }
            }
            ClusterAction::Happened(happening) => self.happenings.push((node.clone(), happening)),
        }
    }

    fn of(&mut self, uid: &VeUid, name: &VeName) -> Option<&mut StoredVe> {
        self.ves.get_mut(name).filter(|stored| stored.declared.uid == *uid)
    }
}

/// Whether a newer action makes an older one, not carried out yet, pointless.
fn replaces(newer: &ClusterAction, older: &ClusterAction) -> bool {
    use ClusterAction::{
        ClaimReplicaSet, ReleaseVe, ReportNoMajority, ReportNode, ReportSilent, ReportVe,
    };
    match (newer, older) {
        (ReportVe(newer), ReportVe(older)) => newer.uid == older.uid,
        (ReportVe(newer), ReportNoMajority { uid, .. }) => newer.uid == *uid,
        (ReportNoMajority { uid, .. }, ReportNoMajority { uid: older, .. }) => uid == older,
        (ReportNode(_), ReportNode(_)) | (ReportSilent(_), ReportSilent(_)) => true,
        (ReleaseVe { uid, .. }, ReportVe(older)) => *uid == older.uid,
        (ClaimReplicaSet { uid, .. }, ClaimReplicaSet { uid: older, .. })
        | (ReleaseVe { uid, .. }, ReleaseVe { uid: older, .. }) => uid == older,
        _ => false,
    }
}

/// One agent's side of the fake.
pub struct FakeCluster {
    server: FakeApiServer,
    node: NodeName,
}

impl Cluster for FakeCluster {
    fn submit(&self, action: ClusterAction) {
        self.server.server().submit(&self.node, action);
    }

    fn find_peer(&self, stranger: Stranger) {
        let server = self.server.server();
        let Some(agent) = server.agents.get(&self.node).filter(|agent| agent.reaches) else {
            return;
        };
        let identities = server.nodes.values().filter_map(|stored| stored.identity.as_ref());
        for identity in identities.filter(|identity| identity.key == stranger.key) {
            agent.tell_of_peer(PeerNews::Known(identity.clone()));
        }
    }
}
