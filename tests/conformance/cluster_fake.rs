//! The API server in memory passes the suite of the port `Cluster`.

mod cluster_suite;

use std::collections::BTreeMap;

use cluster_suite::{Agent, VeSeen, World};
use discovery::agent::fake_cluster::{FakeApiServer, FakeCluster};
use discovery::agent::ports::{INPUT_QUEUE, PeerIdentity};
use discovery::engine::id::{NodeName, VeName};
use discovery::engine::report::About;
use discovery::engine::spec::{
    Boot, ImageSource, MemberSpec, Recovery, RunStrategy, VeSpec, VeState,
};
use tokio::sync::mpsc;

#[derive(Default)]
struct InMemory(FakeApiServer);

impl World for InMemory {
    type Port = FakeCluster;

    async fn agent(&self, identity: &PeerIdentity) -> Agent<FakeCluster> {
        let (inputs, received) = mpsc::channel(INPUT_QUEUE);
        let (peers, news) = mpsc::channel(INPUT_QUEUE);
        let port = self.0.agent(identity.clone(), inputs, peers);
        Agent { identity: identity.clone(), port, inputs: received, news }
    }

    async fn apply(&self, ve: &VeName, replicas: u32) {
        let kernel = ImageSource { url: "file:///vmlinuz".to_owned(), sha256: None };
        let member = MemberSpec {
            name: "web".into(),
            replicas,
            cpus: 1,
            memory: 64 << 20,
            boot: Boot::Kernel { kernel, initrd: None, cmdline: String::new() },
            disks: Vec::new(),
            run_strategy: RunStrategy::Always,
            depends_on: Vec::new(),
        };
        let members = vec![member];
        let (placement, recovery) = (Vec::new(), Recovery::default());
        self.0.apply(ve, VeSpec { state: VeState::Running, members, placement, recovery });
    }

    async fn delete(&self, ve: &VeName) {
        self.0.delete(ve);
    }

    async fn ve(&self, ve: &VeName) -> Option<VeSeen> {
        let stored = self.0.ve(ve)?;
        let report = stored.report.as_ref();
        Some(VeSeen {
            uid: stored.declared.uid.clone(),
            generation: stored.declared.generation,
            deleting: stored.declared.deleting,
            finalizer: stored.finalizer,
            replica_set: stored.declared.replica_set.clone(),
            ready: report.map(|report| report.ready.holds),
            vms: report.map_or(0, |report| report.vms.len()),
        })
    }

    async fn happenings(&self, ve: &VeName) -> Vec<(String, String)> {
        let about_it = |about: &About| matches!(about, About::Ve { name, .. } if name == ve);
        let told = self.0.happenings().into_iter().map(|(_, happening)| happening);
        told.filter(|happening| about_it(&happening.about))
            .map(|happening| (happening.reason.to_owned(), happening.message))
            .collect()
    }

    async fn cordon(&self, node: &NodeName, cordoned: bool) {
        self.0.cordon(node, cordoned);
    }

    async fn schedulable(&self, node: &NodeName, schedulable: bool) {
        self.0.declare_node(node, |declared| declared.schedulable = schedulable);
    }

    async fn node(&self, node: &NodeName) -> Option<(Option<[u8; 32]>, Option<u32>)> {
        let stored = self.0.node(node)?;
        let key = stored.identity.map(|identity| identity.key);
        Some((key, stored.report.map(|report| report.vms)))
    }

    async fn node_ready(&self, node: &NodeName) -> Option<bool> {
        let stored = self.0.node(node)?;
        stored.report.filter(|_| !stored.silent).map(|report| report.hypervisor_available)
    }

    async fn delete_node(&self, node: &NodeName) {
        self.0.delete_physical_node(node);
    }

    async fn go_away(&self) {
        self.0.set_reachable(false);
    }

    async fn come_back(&self) {
        self.0.set_reachable(true);
    }
}

/// The suite, each property in an empty world.
macro_rules! passes {
    ($($property:ident($($space:literal)?)),* $(,)?) => {
        $(
            #[tokio::test]
            async fn $property() {
                cluster_suite::$property(&InMemory::default() $(, $space)?).await;
            }
        )*
    };
}

passes!(
    an_agent_publishes_its_identity_and_its_status(),
    a_silent_nodes_page_says_so_until_its_agent_is_back(),
    what_is_declared_of_a_node_is_seen(),
    a_watcher_sees_every_environment_and_nobody_else_does("ns"),
    of_two_claims_one_wins("ns"),
    a_report_is_read_by_people("ns"),
    a_former_handlers_report_is_not_written("ns"),
    that_no_majority_answers_is_said_until_the_handler_reports("ns"),
    a_deleted_environment_is_kept_until_it_is_released("ns"),
    what_happened_is_told("ns"),
    peers_are_found_and_revoked(),
    after_an_absence_everything_resumes("ns"),
    an_agent_starts_without_the_api_server("ns"),
);

#[tokio::test]
async fn labels_reach_the_agent_of_the_node() {
    let world = InMemory::default();
    let me = cluster_suite::peer("labelled", 1);
    let mut agent = world.agent(&me).await;
    let labels = BTreeMap::from([("disk".to_owned(), "nvme".to_owned())]);
    world.0.declare_node(&me.node, |declared| declared.labels = labels.clone());
    agent.is_declared(|declared| declared.labels == labels).await;
}
