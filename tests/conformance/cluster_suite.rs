//! What every implementation of the port [`Cluster`] must do, whatever holds the resources. Each function
//! is one property; a [`World`] plays the people and looks at what they would see.
#![allow(dead_code, reason = "each test file is a crate of its own, and uses some of this")]

use std::net::SocketAddr;
use std::time::Duration;

use discovery::agent::ports::{Cluster, PeerIdentity, PeerNews, Stranger};
use discovery::engine::effect::ClusterAction;
use discovery::engine::id::{NodeName, VeName, VeUid, VmId};
use discovery::engine::input::{ClusterInput, Input, NodeDeclared, VeDeclared};
use discovery::engine::lease::tenant::Protection;
use discovery::engine::replica::{DiskId, Replica};
use discovery::engine::report::{
    About, Condition, Happening, LeaseReport, LeaseState, NodeReport, Phase, VeReport, VmPhase,
    VmReport,
};
use discovery::engine::spec::Resources;
use tokio::sync::mpsc::Receiver;
use tokio::time::{Instant, timeout};

/// How long anything may take. A real API server with its etcd starts in a few seconds; on a busy machine
/// that is ten times more.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often the world is looked at while something is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// People, and what they see.
pub trait World {
    /// The implementation.
    type Port: Cluster;

    /// An agent on a node (whose Kubernetes `Node` is made, if there is none).
    async fn agent(&self, identity: &PeerIdentity) -> Agent<Self::Port>;
    /// Creates an environment of one member `web`, or changes its number of VMs.
    async fn apply(&self, ve: &VeName, replicas: u32);
    /// Asks for its end.
    async fn delete(&self, ve: &VeName);
    /// An environment.
    async fn ve(&self, ve: &VeName) -> Option<VeSeen>;
    /// What happened to an environment, as people read it: reasons and sentences.
    async fn happenings(&self, ve: &VeName) -> Vec<(String, String)>;
    /// Cordons a node or takes the cordon away.
    async fn cordon(&self, node: &NodeName, cordoned: bool);
    /// Declares a node schedulable or not.
    async fn schedulable(&self, node: &NodeName, schedulable: bool);
    /// The key that a node's `PhysicalNode` publishes, and the number of VMs it reports.
    async fn node(&self, node: &NodeName) -> Option<(Option<[u8; 32]>, Option<u32>)>;
    /// Whether a node's page says that it is ready; nothing if it says that nobody knows.
    async fn node_ready(&self, node: &NodeName) -> Option<bool>;
    /// Deletes a `PhysicalNode`.
    async fn delete_node(&self, node: &NodeName);
    /// The API server goes.
    async fn go_away(&self);
    /// The API server comes back, with all that it held.
    async fn come_back(&self);
}

/// An environment as people see it.
#[derive(Clone, Debug)]
pub struct VeSeen {
    pub uid: VeUid,
    pub generation: i64,
    pub deleting: bool,
    pub finalizer: bool,
    pub replica_set: Vec<Replica>,
    pub ready: Option<bool>,
    pub vms: usize,
}

/// An agent's port with what it reports.
pub struct Agent<P> {
    pub identity: PeerIdentity,
    pub port: P,
    pub inputs: Receiver<Input>,
    pub news: Receiver<PeerNews>,
}

impl<P: Cluster> Agent<P> {
    /// The first cluster input that is wanted, in time.
    pub async fn input<T>(
        &mut self,
        what: &str,
        mut wanted: impl FnMut(ClusterInput) -> Option<T>,
    ) -> T {
        let search = async {
            while let Some(input) = self.inputs.recv().await {
                if let Input::Cluster(input) = input
                    && let Some(found) = wanted(input)
                {
                    return found;
                }
            }
            panic!("the port ended before {what}");
        };
        let node = &self.identity.node;
        timeout(DEADLINE, search)
            .await
            .unwrap_or_else(|_| panic!("{node}: no {what} within {} s", DEADLINE.as_secs()))
    }

    /// An environment, once it is seen as wanted.
    pub async fn sees(&mut self, ve: &VeName, wanted: impl Fn(&VeDeclared) -> bool) -> VeDeclared {
        self.input(&format!("sight of {ve}"), |input| match input {
            ClusterInput::Ve(seen) if seen.name == *ve && wanted(&seen) => Some(*seen),
            _ => None,
        })
        .await
    }

    /// This node's declaration, once it is as wanted.
    pub async fn is_declared(&mut self, wanted: impl Fn(&NodeDeclared) -> bool) {
        self.input("declaration of this node", |input| match input {
            ClusterInput::ThisNode(declared) if wanted(&declared) => Some(()),
            _ => None,
        })
        .await;
    }

    /// News of a peer, in time.
    pub async fn hears(&mut self, what: &str, wanted: impl Fn(&PeerNews) -> bool) {
        let search = async {
            while let Some(news) = self.news.recv().await {
                if wanted(&news) {
                    return;
                }
            }
            panic!("the port ended before {what}");
        };
        timeout(DEADLINE, search)
            .await
            .unwrap_or_else(|_| panic!("no {what} within {} s", DEADLINE.as_secs()));
    }

    /// Whether the API server is reached, once it is as wanted.
    pub async fn reaches(&mut self, wanted: bool) {
        self.input("reachability", |input| match input {
            ClusterInput::Reachable(reaches) if reaches == wanted => Some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until all of a list was shown, with this environment in it.
    pub async fn sees_the_list_end(&mut self, uid: &VeUid) {
        self.input("end of the list", |input| match input {
            ClusterInput::VesListed { live } => live.contains(uid).then_some(()),
            _ => None,
        })
        .await;
    }

    pub fn claim(&self, ve: &VeDeclared, replicas: &[&PeerIdentity]) {
        self.port.submit(ClusterAction::ClaimReplicaSet {
            uid: ve.uid.clone(),
            name: ve.name.clone(),
            resource_version: ve.resource_version.clone(),
            replicas: replicas.iter().map(|peer| keeper(peer)).collect(),
        });
    }

    pub fn watch(&self, on: bool) {
        self.port.submit(ClusterAction::WatchVes(on));
    }

    pub fn report(&self, report: VeReport) {
        self.port.submit(ClusterAction::ReportVe(Box::new(report)));
    }

    pub fn release(&self, ve: &VeDeclared) {
        let (uid, name) = (ve.uid.clone(), ve.name.clone());
        self.port.submit(ClusterAction::ReleaseVe { uid, name });
    }

    pub fn happened(&self, ve: &VeDeclared, warning: bool, reason: &'static str, message: &str) {
        let about = About::Ve { uid: ve.uid.clone(), name: ve.name.clone() };
        let message = message.to_owned();
        let happening = Happening { about, warning, reason, message, failover: None };
        self.port.submit(ClusterAction::Happened(happening));
    }
}

/// Waits until the world is as wanted.
pub async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + DEADLINE;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        looks.tick().await;
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < until, "not within {} s: {what}", DEADLINE.as_secs());
    }
}

/// A peer whose key is this byte, over and over.
pub fn peer(node: &str, key: u8) -> PeerIdentity {
    let address = SocketAddr::from(([127, 0, 0, 1], 7000 + u16::from(key)));
    PeerIdentity { node: node.into(), key: [key; 32], addresses: vec![address] }
}

/// A report that all of so many VMs run on the handler (the first of the set), or that none does yet.
pub fn report(ve: &VeDeclared, running: bool, vms: u32, set: &[&PeerIdentity]) -> VeReport {
    let vm = |index| VmReport {
        id: VmId { ve: ve.uid.clone(), member: "web".into(), index },
        node: Some(set[0].node.clone()),
        phase: if running { VmPhase::Running } else { VmPhase::Starting },
        uuid: None,
        epoch: 1,
        reason: None,
        restarts: 0,
    };
    VeReport {
        uid: ve.uid.clone(),
        name: ve.name.clone(),
        observed_generation: ve.generation,
        phase: Phase::Running,
        ready: if running {
            Condition::yes("Running", "every VM runs")
        } else {
            Condition::no("Starting", "VMs are started")
        },
        placed: Condition::yes("Placed", "every VM has a node"),
        progressing: Condition { holds: !running, ..Condition::no("Starting", "VMs are started") },
        vms: (0..vms).map(vm).collect(),
        round: 1,
        replica_set: set.iter().map(|peer| keeper(peer)).collect(),
        settled: running,
        again: false,
    }
}

/// A peer as a replica.
pub fn keeper(peer: &PeerIdentity) -> Replica {
    Replica { node: peer.node.clone(), disk: DiskId(7) }
}

/// A node's report with so many VMs.
pub fn node_report(vms: u32) -> NodeReport {
    NodeReport {
        host: None,
        hypervisor_available: true,
        allocatable: Resources { cpu_milli: 8000, memory: 8 << 30 },
        allocated: Resources { cpu_milli: 1000, memory: 1 << 30 },
        vms,
        running: vms,
        schedulable: true,
        leaving: None,
        lease: LeaseReport { state: LeaseState::Unguarded, epoch: 1, guardians: Vec::new() },
        protection: Protection::None("failover is off".into()),
        peers: 0,
        gateway: false,
        coordinate: [0.0; 4],
        coordinate_error: 1.0,
    }
}

/// Its `PhysicalNode` is made, and says who it is and how it is.
pub async fn an_agent_publishes_its_identity_and_its_status<W: World>(world: &W) {
    let me = peer("publisher", 1);
    let mut agent = world.agent(&me).await;
    agent.reaches(true).await;
    eventually("the identity is published", async || {
        world.node(&me.node).await.filter(|(key, _)| *key == Some(me.key))
    })
    .await;
    agent.port.submit(ClusterAction::ReportNode(Box::new(node_report(3))));
    eventually("the status is published", async || {
        world.node(&me.node).await.filter(|(key, vms)| *key == Some(me.key) && *vms == Some(3))
    })
    .await;
}

/// Who is dead cannot say so: a peer does, and who is back speaks for itself.
pub async fn a_silent_nodes_page_says_so_until_its_agent_is_back<W: World>(world: &W) {
    let (dead, other) = (peer("fallen-silent", 15), peer("who-says-so", 16));
    let agent = world.agent(&dead).await;
    agent.port.submit(ClusterAction::ReportNode(Box::new(node_report(3))));
    eventually("a ready node", async || world.node_ready(&dead.node).await.filter(|ready| *ready))
        .await;
    drop(agent);
    let mut teller = world.agent(&other).await;
    teller.reaches(true).await;
    teller.port.submit(ClusterAction::ReportSilent(vec![dead.node.clone()]));
    eventually("a page that says that nobody knows", async || {
        world.node_ready(&dead.node).await.is_none().then_some(())
    })
    .await;
    let page = world.node(&dead.node).await;
    assert_eq!(page, Some((Some(dead.key), Some(3))), "what it said itself stays");
    let agent = world.agent(&dead).await;
    agent.port.submit(ClusterAction::ReportNode(Box::new(node_report(3))));
    eventually("a ready node again", async || {
        world.node_ready(&dead.node).await.filter(|ready| *ready)
    })
    .await;
}

/// Cordons and declarations arrive.
pub async fn what_is_declared_of_a_node_is_seen<W: World>(world: &W) {
    let me = peer("declared", 2);
    let mut agent = world.agent(&me).await;
    agent.is_declared(|declared| declared.schedulable).await;
    world.cordon(&me.node, true).await;
    agent.is_declared(|declared| !declared.schedulable).await;
    world.cordon(&me.node, false).await;
    agent.is_declared(|declared| declared.schedulable).await;
    world.schedulable(&me.node, false).await;
    agent.is_declared(|declared| !declared.schedulable).await;
}

/// Only who watches sees; and sees all, first those that exist.
pub async fn a_watcher_sees_every_environment_and_nobody_else_does<W: World>(
    world: &W,
    space: &str,
) {
    let (one, two) = (VeName::new(space, "watched-one"), VeName::new(space, "watched-two"));
    world.apply(&one, 2).await;
    let mut watcher = world.agent(&peer("watcher", 3)).await;
    let mut other = world.agent(&peer("not-a-watcher", 4)).await;
    watcher.watch(true);
    let seen = watcher.sees(&one, |_| true).await;
    assert_eq!(seen.spec.members[0].replicas, 2);
    assert_eq!((seen.deleting, seen.gone, seen.replica_set.len()), (false, false, 0));
    watcher.sees_the_list_end(&seen.uid).await;
    world.apply(&two, 1).await;
    watcher.sees(&two, |_| true).await;
    world.apply(&one, 3).await;
    let changed = watcher.sees(&one, |ve| ve.spec.members[0].replicas == 3).await;
    assert!(changed.generation > seen.generation, "a change of the spec moves the generation");
    other.reaches(true).await;
    while let Ok(input) = other.inputs.try_recv() {
        assert!(
            !matches!(&input, Input::Cluster(ClusterInput::Ve(_) | ClusterInput::VesListed { .. })),
            "an agent that does not watch was told: {input:?}"
        );
    }
    // It stops and starts again: what happened meanwhile is in the list.
    watcher.watch(false);
    let three = VeName::new(space, "watched-three");
    world.apply(&three, 1).await;
    watcher.watch(true);
    let third = watcher.sees(&three, |_| true).await;
    watcher.sees_the_list_end(&third.uid).await;
    // However soon.
    watcher.watch(false);
    watcher.watch(true);
    watcher.sees(&three, |_| true).await;
    watcher.sees_the_list_end(&third.uid).await;
}

/// Creation is unique.
pub async fn of_two_claims_one_wins<W: World>(world: &W, space: &str) {
    let (a, b) = (peer("claimant-a", 5), peer("claimant-b", 6));
    let (mut first, mut second) = (world.agent(&a).await, world.agent(&b).await);
    first.watch(true);
    second.watch(true);
    for round in 0..5 {
        let ve = VeName::new(space, &format!("claimed-{round}"));
        world.apply(&ve, 1).await;
        let seen_by_first = first.sees(&ve, |_| true).await;
        let seen_by_second = second.sees(&ve, |_| true).await;
        first.claim(&seen_by_first, &[&a, &b]);
        second.claim(&seen_by_second, &[&b, &a]);
        let won = first.sees(&ve, |ve| !ve.replica_set.is_empty()).await.replica_set;
        let also = second.sees(&ve, |ve| !ve.replica_set.is_empty()).await.replica_set;
        assert_eq!(won, also, "both see the same winner");
        let (ab, ba) = ([keeper(&a), keeper(&b)], [keeper(&b), keeper(&a)]);
        assert!(won == ab || won == ba, "{won:?}");
        // A late claim against the old version changes nothing: the report behind it is seen first.
        second.claim(&seen_by_second, &[&b]);
        second.report(report(&seen_by_second, true, 1, &[&a, &b]));
        eventually("the report", async || world.ve(&ve).await?.ready.filter(|ready| *ready)).await;
        let seen = world.ve(&ve).await.expect("it exists");
        assert_eq!(seen.replica_set, ab);
        assert!(seen.finalizer, "a claimed environment is kept until it is released");
    }
}

/// The newest report is what people see.
pub async fn a_report_is_read_by_people<W: World>(world: &W, space: &str) {
    let me = peer("reporter", 7);
    let ve = VeName::new(space, "reported");
    let mut agent = world.agent(&me).await;
    agent.watch(true);
    world.apply(&ve, 2).await;
    let seen = agent.sees(&ve, |_| true).await;
    agent.claim(&seen, &[&me]);
    agent.report(report(&seen, false, 2, &[&me]));
    agent.report(report(&seen, true, 2, &[&me]));
    let told = eventually("a ready environment", async || {
        world.ve(&ve).await.filter(|told| told.ready == Some(true))
    })
    .await;
    assert_eq!((told.vms, told.replica_set), (2, vec![keeper(&me)]));
    agent.report(report(&seen, true, 1, &[&me]));
    eventually("one VM less", async || world.ve(&ve).await.filter(|told| told.vms == 1)).await;
    // A report about another identity of the same name changes nothing.
    let mut namesake = seen.clone();
    namesake.uid = "00000000-0000-0000-0000-000000000000".into();
    agent.report(report(&namesake, false, 9, &[&me]));
    agent.report(report(&seen, true, 2, &[&me]));
    eventually("two VMs again", async || world.ve(&ve).await.filter(|told| told.vms == 2)).await;
    assert_eq!(world.ve(&ve).await.expect("it exists").ready, Some(true));
}

/// A handler that was cut off does not write over the status of the one that has taken over, and that one may write once more.
pub async fn a_former_handlers_report_is_not_written<W: World>(world: &W, space: &str) {
    let (a, b) = (peer("former", 13), peer("present", 14));
    let (mut former, present) = (world.agent(&a).await, world.agent(&b).await);
    let ve = VeName::new(space, "taken-over");
    former.watch(true);
    world.apply(&ve, 2).await;
    let seen = former.sees(&ve, |_| true).await;
    former.claim(&seen, &[&a, &b]);
    former.report(report(&seen, true, 2, &[&a, &b]));
    eventually("the former one's", async || world.ve(&ve).await.filter(|told| told.vms == 2)).await;
    let second = |vms| VeReport { round: 2, ..report(&seen, true, vms, &[&b, &a]) };
    present.report(second(3));
    eventually("the present one's", async || world.ve(&ve).await.filter(|told| told.vms == 3))
        .await;
    // It remembers what it wrote, and does not know that another has written since.
    former.report(report(&seen, true, 9, &[&a, &b]));
    former.happened(&seen, true, "Late", "behind its report");
    eventually("what it says besides", async || {
        world.happenings(&ve).await.iter().any(|(reason, _)| reason == "Late").then_some(())
    })
    .await;
    present.report(VeReport { again: true, ..second(4) });
    eventually("a newer one", async || world.ve(&ve).await.filter(|told| told.vms != 3)).await;
    let told = world.ve(&ve).await.expect("it exists");
    assert_eq!((told.vms, told.replica_set), (4, vec![keeper(&b), keeper(&a)]));
}

/// Another agent says that nobody answers for an environment; its handler, which is asked by whoever sees that, has the last word.
pub async fn that_no_majority_answers_is_said_until_the_handler_reports<W: World>(
    world: &W,
    space: &str,
) {
    let (a, b) = (peer("has-none", 17), peer("finds-none", 18));
    let (mut handler, other) = (world.agent(&a).await, world.agent(&b).await);
    let ve = VeName::new(space, "unled");
    handler.watch(true);
    world.apply(&ve, 2).await;
    let seen = handler.sees(&ve, |_| true).await;
    handler.claim(&seen, &[&a, &b]);
    let its = VeReport { round: 34, ..report(&seen, true, 2, &[&a, &b]) };
    handler.report(its.clone());
    handler.sees(&ve, |ve| ve.reported == 34).await;
    let (uid, name) = (seen.uid.clone(), ve.clone());
    let message = "n1, n2 do not answer".to_owned();
    other.port.submit(ClusterAction::ReportNoMajority { uid, name, message });
    handler.sees(&ve, |ve| (1..34).contains(&ve.reported)).await;
    let told = world.ve(&ve).await.expect("it exists");
    assert_eq!((told.ready, told.vms), (Some(false), 2), "all else stays");
    handler.report(VeReport { again: true, ..its });
    handler.sees(&ve, |ve| ve.reported == 34).await;
    let told = world.ve(&ve).await.expect("it exists");
    assert_eq!((told.ready, told.vms), (Some(true), 2));
    // A former handler's is refused all the same.
    other.report(VeReport { round: 17, ..report(&seen, true, 9, &[&b, &a]) });
    other.happened(&seen, true, "Late", "behind its report");
    eventually("what it says besides", async || {
        world.happenings(&ve).await.iter().any(|(reason, _)| reason == "Late").then_some(())
    })
    .await;
    assert_eq!(world.ve(&ve).await.expect("it exists").vms, 2);
}

/// Nothing vanishes before its VMs are confirmed gone.
pub async fn a_deleted_environment_is_kept_until_it_is_released<W: World>(world: &W, space: &str) {
    let me = peer("releaser", 8);
    let ve = VeName::new(space, "released");
    let mut agent = world.agent(&me).await;
    agent.watch(true);
    world.apply(&ve, 1).await;
    let seen = agent.sees(&ve, |_| true).await;
    agent.claim(&seen, &[&me]);
    eventually("the claim", async || {
        world.ve(&ve).await.filter(|told| told.finalizer && !told.replica_set.is_empty())
    })
    .await;
    world.delete(&ve).await;
    let deleting = agent.sees(&ve, |ve| ve.deleting).await;
    assert!(world.ve(&ve).await.is_some_and(|told| told.deleting && told.finalizer));
    agent.release(&deleting);
    agent
        .input("end of it", |input| match input {
            ClusterInput::VeGone { uid, name } => (uid == seen.uid && name == ve).then_some(()),
            _ => None,
        })
        .await;
    assert!(world.ve(&ve).await.is_none());
    // Releasing again and reporting late do no harm, and a namesake is a new one.
    agent.release(&deleting);
    agent.report(report(&seen, true, 1, &[&me]));
    world.apply(&ve, 1).await;
    let reborn = agent.sees(&ve, |_| true).await;
    assert_ne!(reborn.uid, seen.uid);
    agent.release(&seen);
    agent.claim(&reborn, &[&me]);
    let claimed = agent.sees(&ve, |ve| !ve.replica_set.is_empty()).await;
    assert_eq!(claimed.uid, reborn.uid);
}

/// What happened is told.
pub async fn what_happened_is_told<W: World>(world: &W, space: &str) {
    let me = peer("teller", 9);
    let ve = VeName::new(space, "told");
    let mut agent = world.agent(&me).await;
    agent.watch(true);
    world.apply(&ve, 1).await;
    let seen = agent.sees(&ve, |_| true).await;
    agent.happened(&seen, false, "Placed", "placed on teller");
    agent.happened(&seen, true, "Crashed", "web-0 crashed");
    eventually("both are told", async || {
        let told = world.happenings(&ve).await;
        let has = |reason: &str, text: &str| {
            told.iter().any(|(r, t)| r.as_str() == reason && t.contains(text))
        };
        (has("Placed", "placed on teller") && has("Crashed", "web-0 crashed")).then_some(())
    })
    .await;
}

/// Strangers become peers, and peers strangers.
pub async fn peers_are_found_and_revoked<W: World>(world: &W) {
    let (a, b) = (peer("finder", 10), peer("found", 11));
    let mut finder = world.agent(&a).await;
    finder.reaches(true).await;
    eventually("the first is published", async || {
        world.node(&a.node).await.filter(|(key, _)| *key == Some(a.key))
    })
    .await;
    let mut found = world.agent(&b).await;
    eventually("the other is published", async || {
        world.node(&b.node).await.filter(|(key, _)| *key == Some(b.key))
    })
    .await;
    finder.port.find_peer(Stranger { key: b.key, from: b.addresses[0] });
    finder.hears("name of the stranger", |news| *news == PeerNews::Known(b.clone())).await;
    found.hears("name of the elder", |news| *news == PeerNews::Known(a.clone())).await;

    found.is_declared(|declared| declared.schedulable).await;
    world.delete_node(&b.node).await;
    finder.hears("revocation", |news| *news == PeerNews::Revoked(b.node.clone())).await;
    found.is_declared(|declared| !declared.schedulable).await;
    assert!(
        world.node(&b.node).await.is_none_or(|(key, _)| key.is_none()),
        "an agent does not undo its own revocation"
    );
}

/// Hours away: everything resumes.
pub async fn after_an_absence_everything_resumes<W: World>(world: &W, space: &str) {
    let me = peer("survivor", 12);
    let (kept, doomed) = (VeName::new(space, "kept"), VeName::new(space, "doomed"));
    let mut agent = world.agent(&me).await;
    agent.watch(true);
    agent.reaches(true).await;
    world.apply(&kept, 1).await;
    let kept_seen = agent.sees(&kept, |_| true).await;
    world.apply(&doomed, 1).await;
    let doomed_seen = agent.sees(&doomed, |_| true).await;
    agent.claim(&doomed_seen, &[&me]);
    agent.sees(&doomed, |ve| !ve.replica_set.is_empty()).await;
    eventually("the finalizer", async || world.ve(&doomed).await.filter(|ve| ve.finalizer)).await;
    world.delete(&doomed).await;
    agent.sees(&doomed, |ve| ve.deleting).await;

    world.go_away().await;
    agent.reaches(false).await;
    for vms in 1..100 {
        agent.report(report(&kept_seen, true, vms, &[&me]));
    }
    agent.release(&doomed_seen);
    world.come_back().await;

    agent
        .input("new list", |input| match input {
            ClusterInput::VesListed { live } => live.contains(&kept_seen.uid).then_some(()),
            _ => None,
        })
        .await;
    eventually("the newest report", async || {
        world.ve(&kept).await.filter(|told| told.vms == 99 && told.ready == Some(true))
    })
    .await;
    eventually("the release", async || world.ve(&doomed).await.is_none().then_some(())).await;
}

/// An agent that starts while the API server is away comes in when it is there.
pub async fn an_agent_starts_without_the_api_server<W: World>(world: &W, space: &str) {
    let me = peer("early", 13);
    let ve = VeName::new(space, "early");
    world.apply(&ve, 1).await;
    world.go_away().await;
    let mut agent = world.agent(&me).await;
    agent.watch(true);
    agent.reaches(false).await;
    world.come_back().await;
    agent.reaches(true).await;
    agent.sees(&ve, |_| true).await;
    eventually("the identity is published", async || {
        world.node(&me.node).await.filter(|(key, _)| *key == Some(me.key))
    })
    .await;
}
