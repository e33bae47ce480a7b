//! The Kubernetes rim passes the suite of the port `Cluster` on a real kube-apiserver, with the rights that
//! the chart gives agents; and what only a real one can show: what is written, by whom, and how often.
//!
//! Needs the programs of `hack/build-tools` (kube-apiserver, etcd, kubectl), openssl and setpriv.

mod api_server;
mod cluster_suite;

use std::sync::Arc;
use std::time::Duration;

use api_server::ApiServer;
use cluster_suite::{Agent, VeSeen, World, eventually, keeper, node_report, peer, report};
use discovery::agent::ports::{Cluster as _, INPUT_QUEUE, PeerIdentity};
use discovery::api::{FINALIZER, PhysicalNode, VirtualEnvironment};
use discovery::engine::effect::ClusterAction;
use discovery::engine::id::{NodeName, VeName};
use discovery::k8s::{Kubernetes, KubernetesConfig, Listing, doctor};
use k8s_openapi::api::core::v1::{Namespace, Node};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

/// Lists are made often, so that a revocation is heard of soon.
const LISTING: Listing =
    Listing { as_gateway: Duration::from_secs(1), otherwise: Duration::from_secs(1) };

struct Real {
    server: Mutex<ApiServer>,
    admin: Client,
}

impl Real {
    async fn start() -> Self {
        let server = ApiServer::start().await;
        let admin = server.admin().await;
        Self { server: Mutex::new(server), admin }
    }

    async fn space(&self, name: &str) {
        let namespace = json!({"metadata": {"name": name}});
        let namespace: Namespace = serde_json::from_value(namespace).expect("a namespace");
        let api: Api<Namespace> = Api::all(self.admin.clone());
        api.create(&PostParams::default(), &namespace).await.expect("a namespace is made");
    }

    fn environments(&self, ve: &VeName) -> Api<VirtualEnvironment> {
        Api::namespaced(self.admin.clone(), &ve.namespace)
    }

    async fn merge<K>(&self, api: &Api<K>, name: &str, patch: serde_json::Value)
    where
        K: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
    {
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
        patched.expect("a change of the test's own is accepted");
    }

    /// A number from the API server's own metrics: the sum over all series with these labels.
    async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let request = kube::core::Request::new("")
            .get("metrics", &kube::api::GetParams::default())
            .expect("a request is made");
        let text = self.admin.request_text(request).await.expect("metrics are served");
        let series = text.lines().filter(|line| {
            line.starts_with(&format!("{name}{{"))
                && labels.iter().all(|label| line.contains(label))
        });
        series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }

    /// How many requests have changed environments or their Events, as the API server counts them.
    async fn writes(&self) -> f64 {
        let mut sum = 0.0;
        for (verb, resource) in [
            ("PATCH", "virtualenvironments"),
            ("APPLY", "virtualenvironments"),
            ("PUT", "virtualenvironments"),
            ("POST", "events"),
            ("PATCH", "events"),
            ("APPLY", "events"),
        ] {
            let (verb, resource) = (format!("verb=\"{verb}\""), format!("resource=\"{resource}\""));
            sum += self.metric("apiserver_request_total", &[&verb, &resource]).await;
        }
        sum
    }

    async fn events(&self, ve: &VeName) -> Vec<Event> {
        let api: Api<Event> = Api::namespaced(self.admin.clone(), &ve.namespace);
        let events = api.list(&ListParams::default()).await.expect("events are listed");
        let about = |event: &Event| event.regarding.as_ref()?.name.clone();
        events.items.into_iter().filter(|event| about(event).as_deref() == Some(&ve.name)).collect()
    }
}

impl World for Real {
    type Port = Kubernetes;

    async fn agent(&self, identity: &PeerIdentity) -> Agent<Kubernetes> {
        let (inputs, received) = mpsc::channel(INPUT_QUEUE);
        let (peers, news) = mpsc::channel(INPUT_QUEUE);
        let node = json!({"metadata": {"name": identity.node.as_str()}});
        let node: Node = serde_json::from_value(node).expect("a node");
        let nodes: Api<Node> = Api::all(self.admin.clone());
        // It may exist, and the API server may be away.
        let _ = nodes.create(&PostParams::default(), &node).await;
        let config = KubernetesConfig {
            node: identity.node.clone(),
            key: identity.key,
            addresses: identity.addresses.clone(),
            agent_version: "0.0.0-test".to_owned(),
            protocol: 1,
            pinned: Vec::new(),
            listing: LISTING,
        };
        let client = self.server.lock().await.agent().await;
        let port = Kubernetes::start(config, client, inputs, peers);
        Agent { identity: identity.clone(), port, inputs: received, news }
    }

    async fn apply(&self, ve: &VeName, replicas: u32) {
        let object = json!({
            "apiVersion": "discovery.beyondtheclouds.io/v1alpha1",
            "kind": "VirtualEnvironment",
            "metadata": {"name": ve.name, "namespace": ve.namespace},
            "spec": {"members": [{
                "name": "web", "replicas": replicas, "cpus": 1, "memory": "64Mi",
                "boot": {"kernel": {"url": "file:///vmlinuz"}},
            }]},
        });
        let params = PatchParams::apply("people").force();
        let applied = self.environments(ve).patch(&ve.name, &params, &Patch::Apply(&object)).await;
        applied.expect("an environment of the test's own is accepted");
    }

    async fn delete(&self, ve: &VeName) {
        let deleted = self.environments(ve).delete(&ve.name, &DeleteParams::default()).await;
        deleted.expect("it can be deleted");
    }

    async fn ve(&self, ve: &VeName) -> Option<VeSeen> {
        let ve = self.environments(ve).get_opt(&ve.name).await.ok()??;
        let status = ve.status.clone().unwrap_or_default();
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready");
        Some(VeSeen {
            uid: ve.uid().unwrap_or_default().into(),
            generation: ve.metadata.generation.unwrap_or_default(),
            deleting: ve.metadata.deletion_timestamp.is_some(),
            finalizer: ve.finalizers().iter().any(|name| name == FINALIZER),
            replica_set: status
                .replica_set
                .iter()
                .filter_map(|replica| replica.parse().ok())
                .collect(),
            ready: ready.map(|condition| condition.status == "True"),
            vms: status.vms.len(),
        })
    }

    async fn happenings(&self, ve: &VeName) -> Vec<(String, String)> {
        let told = self.events(ve).await.into_iter();
        told.map(|event| (event.reason.unwrap_or_default(), event.note.unwrap_or_default()))
            .collect()
    }

    async fn cordon(&self, node: &NodeName, cordoned: bool) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let patch = json!({"spec": {"unschedulable": cordoned}});
        self.merge(&nodes, node.as_str(), patch).await;
    }

    async fn schedulable(&self, node: &NodeName, schedulable: bool) {
        let nodes: Api<PhysicalNode> = Api::all(self.admin.clone());
        let patch = json!({"spec": {"schedulable": schedulable}});
        self.merge(&nodes, node.as_str(), patch).await;
    }

    async fn node(&self, node: &NodeName) -> Option<(Option<[u8; 32]>, Option<u32>)> {
        let nodes: Api<PhysicalNode> = Api::all(self.admin.clone());
        let status = nodes.get_opt(node.as_str()).await.ok()??.status.unwrap_or_default();
        let key = status.overlay.and_then(|overlay| {
            let byte = |at: usize| u8::from_str_radix(overlay.public_key.get(at..at + 2)?, 16).ok();
            let bytes: Option<Vec<u8>> = (0..32).map(|index| byte(index * 2)).collect();
            bytes?.try_into().ok()
        });
        Some((key, status.vms))
    }

    async fn node_ready(&self, node: &NodeName) -> Option<bool> {
        let nodes: Api<PhysicalNode> = Api::all(self.admin.clone());
        let status = nodes.get_opt(node.as_str()).await.ok()??.status?;
        let ready = status.conditions.into_iter().find(|one| one.type_ == "Ready")?;
        (ready.status != "Unknown").then_some(ready.status == "True")
    }

    async fn delete_node(&self, node: &NodeName) {
        let nodes: Api<PhysicalNode> = Api::all(self.admin.clone());
        let deleted = nodes.delete(node.as_str(), &DeleteParams::default()).await;
        deleted.expect("it can be deleted");
    }

    async fn go_away(&self) {
        self.server.lock().await.go_away();
    }

    async fn come_back(&self) {
        self.server.lock().await.go_on().await;
    }
}

/// One API server for all, one after the other: each would otherwise cost some 400 MB of memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rim_passes_on_a_real_api_server() {
    let world = Real::start().await;
    let space = "suite";
    world.space(space).await;
    cluster_suite::an_agent_publishes_its_identity_and_its_status(&world).await;
    println!("identity and status");
    cluster_suite::a_silent_nodes_page_says_so_until_its_agent_is_back(&world).await;
    an_agent_that_is_there_puts_right_that_it_is_silent(&world).await;
    println!("silence");
    cluster_suite::what_is_declared_of_a_node_is_seen(&world).await;
    println!("declarations");
    cluster_suite::a_watcher_sees_every_environment_and_nobody_else_does(&world, space).await;
    println!("watch");
    cluster_suite::of_two_claims_one_wins(&world, space).await;
    println!("claims");
    cluster_suite::a_report_is_read_by_people(&world, space).await;
    println!("reports");
    cluster_suite::a_former_handlers_report_is_not_written(&world, space).await;
    println!("late reports");
    cluster_suite::that_no_majority_answers_is_said_until_the_handler_reports(&world, space).await;
    println!("no majority");
    cluster_suite::a_deleted_environment_is_kept_until_it_is_released(&world, space).await;
    println!("finalizer");
    cluster_suite::what_happened_is_told(&world, space).await;
    println!("events");
    cluster_suite::peers_are_found_and_revoked(&world).await;
    println!("peers");
    creating_an_environment_takes_at_most_three_writes(&world).await;
    a_new_handler_leaves_nothing_of_the_old_one(&world).await;
    println!("takeover");
    what_repeats_is_counted_in_one_event(&world).await;
    println!("series");
    only_gateways_watch_environments(&world).await;
    println!("watches");
    a_nodes_page_goes_with_its_node(&world).await;
    the_doctor_lists_the_nodes(&world).await;
    println!("doctor");
    a_hanging_api_server_is_found_out(&world).await;
    println!("hanging API server");
    cluster_suite::after_an_absence_everything_resumes(&world, space).await;
    println!("absence");
    cluster_suite::an_agent_starts_without_the_api_server(&world, space).await;
    println!("late API server");
}

/// A peer that does not hear it may still reach the API server: the last word is the node's own.
async fn an_agent_that_is_there_puts_right_that_it_is_silent(world: &Real) {
    let me = peer("not-silent", 30);
    let agent = world.agent(&me).await;
    agent.port.submit(ClusterAction::ReportNode(Box::new(node_report(1))));
    eventually("a ready node", async || world.node_ready(&me.node).await.filter(|ready| *ready))
        .await;
    let nodes: Api<PhysicalNode> = Api::all(world.admin.clone());
    let silent = json!({
        "apiVersion": "discovery.beyondtheclouds.io/v1alpha1",
        "kind": "PhysicalNode",
        "status": {"conditions": [{
            "type": "Ready", "status": "Unknown", "reason": "Silent", "message": "not heard",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }]},
    });
    let params = PatchParams::apply("somebody").force();
    let patched = nodes.patch_status(me.node.as_str(), &params, &Patch::Apply(&silent)).await;
    let status = patched.expect("a change of the test's own is accepted").status.expect("a status");
    assert!(status.conditions.iter().any(|one| one.reason == "Silent"), "the fault fired");
    eventually("a ready node again", async || {
        world.node_ready(&me.node).await.filter(|ready| *ready)
    })
    .await;
}

/// A server that hangs is found out, and nothing waits for it for ever.
async fn a_hanging_api_server_is_found_out(world: &Real) {
    world.space("hangs").await;
    let ve = VeName::new("hangs", "ve");
    let mut agent = world.agent(&peer("patient-one", 29)).await;
    agent.watch(true);
    agent.reaches(true).await;
    world.apply(&ve, 1).await;
    let seen = agent.sees(&ve, |_| true).await;
    world.server.lock().await.hang(true);
    agent.claim(&seen, &[&agent.identity]);
    agent.reaches(false).await;
    world.server.lock().await.hang(false);
    agent.reaches(true).await;
    agent.sees(&ve, |ve| !ve.replica_set.is_empty()).await;
}

/// An environment as the chart's admission policy makes it: with the finalizer from the start.
async fn apply_with_finalizer(world: &Real, ve: &VeName, replicas: u32) {
    let object = json!({
        "apiVersion": "discovery.beyondtheclouds.io/v1alpha1",
        "kind": "VirtualEnvironment",
        "metadata": {"name": ve.name, "namespace": ve.namespace, "finalizers": [FINALIZER]},
        "spec": {"members": [{
            "name": "web", "replicas": replicas, "cpus": 1, "memory": "64Mi",
            "boot": {"kernel": {"url": "file:///vmlinuz"}},
        }]},
    });
    let object: VirtualEnvironment = serde_json::from_value(object).expect("an environment");
    let made = world.environments(ve).create(&PostParams::default(), &object).await;
    made.expect("an environment of the test's own is accepted");
}

async fn creating_an_environment_takes_at_most_three_writes(world: &Real) {
    world.space("writes").await;
    let (a, b) = (peer("writer-gateway", 21), peer("writer-handler", 22));
    let (mut gateway, handler) = (world.agent(&a).await, world.agent(&b).await);
    gateway.watch(true);
    gateway.reaches(true).await;
    let rounds = 4;
    let before = world.writes().await;
    for round in 0..rounds {
        let ve = VeName::new("writes", &format!("ve-{round}"));
        apply_with_finalizer(world, &ve, 50).await;
        let seen = gateway.sees(&ve, |_| true).await;
        gateway.claim(&seen, &[&b, &a]);
        gateway.sees(&ve, |ve| !ve.replica_set.is_empty()).await;
        handler.happened(&seen, false, "Placed", "placed on two nodes");
        for running in [false, false, true] {
            handler.report(report(&seen, running, 50, &[&b, &a]));
        }
        handler.happened(&seen, false, "Started", "50 VMs run");
        eventually("a ready environment", async || world.ve(&ve).await?.ready.filter(|r| *r)).await;
        let events = eventually("its event", async || {
            Some(world.events(&ve).await).filter(|events| !events.is_empty())
        })
        .await;
        assert_eq!(events.len(), 1, "{events:?}");
        let note = events[0].note.clone().unwrap_or_default();
        assert!(note.contains("placed on two nodes") && note.contains("50 VMs run"), "{note}");
        assert_eq!(events[0].reason.as_deref(), Some("Started"));
    }
    handler.port.flush(cluster_suite::DEADLINE).await;
    let writes = world.writes().await - before;
    // Creation itself is people's and a POST of an environment, which is not among those counted.
    assert!(writes >= f64::from(2 * rounds), "the metrics count: {writes}");
    assert!(writes <= f64::from(3 * rounds), "{writes} writes for {rounds} environments");
    println!("{rounds} environments of 50 VMs: {writes} writes");
}

async fn a_new_handler_leaves_nothing_of_the_old_one(world: &Real) {
    world.space("takeover").await;
    let (a, b) = (peer("old-handler", 23), peer("new-handler", 24));
    let ve = VeName::new("takeover", "ve");
    let (mut old, new) = (world.agent(&a).await, world.agent(&b).await);
    old.watch(true);
    world.apply(&ve, 3).await;
    let seen = old.sees(&ve, |_| true).await;
    old.claim(&seen, &[&a, &b]);
    old.report(report(&seen, false, 3, &[&a, &b]));
    eventually("the old one's report", async || world.ve(&ve).await.filter(|ve| ve.vms == 3)).await;
    let ready_since = |ve: &VirtualEnvironment| {
        let status = ve.status.as_ref().expect("a status");
        let ready = status.conditions.iter().find(|c| c.type_ == "Placed").expect("a condition");
        ready.last_transition_time.clone()
    };
    let before = world.environments(&ve).get(&ve.name).await.expect("it exists");
    new.report(report(&seen, true, 2, &[&b, &a]));
    let after = eventually("the new one's report alone", async || {
        let ve = world.environments(&ve).get(&ve.name).await.ok()?;
        let status = ve.status.as_ref()?;
        let alone = status.vms.len() == 2 && status.handler.as_deref() == Some("new-handler");
        alone.then_some(ve)
    })
    .await;
    let conditions = &after.status.as_ref().expect("a status").conditions;
    assert!(
        !conditions.iter().any(|condition| condition.type_ == "Reconciling"),
        "what the old handler said last and nobody says any more is gone: {conditions:?}"
    );
    assert_eq!(ready_since(&before), ready_since(&after), "what has not changed keeps its time");
    assert_eq!(
        after.status.expect("a status").replica_set,
        [b, a].map(|peer| keeper(&peer).to_string())
    );
}

async fn what_repeats_is_counted_in_one_event(world: &Real) {
    world.space("series").await;
    let ve = VeName::new("series", "ve");
    let mut agent = world.agent(&peer("repeater", 25)).await;
    agent.watch(true);
    world.apply(&ve, 1).await;
    let seen = agent.sees(&ve, |_| true).await;
    agent.happened(&seen, true, "Crashed", "web-0 crashed");
    eventually("the event", async || (world.events(&ve).await.len() == 1).then_some(())).await;
    agent.happened(&seen, true, "Crashed", "web-0 crashed");
    let counted = eventually("the count", async || {
        let events = world.events(&ve).await;
        assert_eq!(events.len(), 1, "{events:?}");
        events[0].series.as_ref().map(|series| series.count)
    })
    .await;
    assert_eq!(counted, 2);
    // About the node itself, too.
    agent.port.submit(ClusterAction::Happened(discovery::engine::report::Happening {
        about: discovery::engine::report::About::ThisNode,
        warning: true,
        reason: "HypervisorDown",
        message: "libvirt does not answer".to_owned(),
        failover: None,
    }));
    let node = VeName::new("default", "repeater");
    eventually("the node's event", async || (world.events(&node).await.len() == 1).then_some(()))
        .await;
}

async fn only_gateways_watch_environments(world: &Real) {
    let (gateway, other) =
        (world.agent(&peer("gateway", 26)).await, world.agent(&peer("ordinary", 27)).await);
    let watches = async |resource: &str| {
        let resource = format!("resource=\"{resource}\"");
        world.metric("apiserver_longrunning_requests", &["verb=\"WATCH\"", &resource]).await
    };
    gateway.watch(true);
    let enough = |number: f64, wanted: f64| (number == wanted).then_some(());
    // The API server's controllers watch these resources too, once each at most; count on top of them.
    eventually("two watches of each node's own resources", async || {
        enough(other.port.counters().watches.get() as f64, 2.0)
    })
    .await;
    eventually("one more by the gateway", async || {
        enough(gateway.port.counters().watches.get() as f64, 3.0)
    })
    .await;
    let with_gateway = eventually("a watch at the API server", async || {
        Some(watches("virtualenvironments").await).filter(|watches| *watches >= 1.0)
    })
    .await;
    gateway.watch(false);
    eventually("one watch less", async || {
        enough(watches("virtualenvironments").await, with_gateway - 1.0)
    })
    .await;
    assert_eq!(gateway.port.counters().watches.get(), 2);
}

/// Kubernetes removes it with its node.
async fn a_nodes_page_goes_with_its_node(world: &Real) {
    let _agent = world.agent(&peer("owned", 31)).await;
    let (nodes, pages): (Api<Node>, Api<PhysicalNode>) =
        (Api::all(world.admin.clone()), Api::all(world.admin.clone()));
    let node = nodes.get("owned").await.expect("there is such a node");
    let page = eventually("a page", async || pages.get_opt("owned").await.ok()?).await;
    let owners: Vec<_> = page.owner_references().iter().map(|owner| &owner.uid).collect();
    assert_eq!(owners, [&node.uid().expect("it has one")]);
}

async fn the_doctor_lists_the_nodes(world: &Real) {
    let me = peer("patient", 28);
    let agent = Arc::new(world.agent(&me).await);
    agent.port.submit(ClusterAction::ReportNode(Box::new(node_report(0))));
    eventually("a healthy node", async || {
        let nodes = doctor(world.admin.clone()).await.expect("the API server answers");
        let patient = nodes.into_iter().find(|node| node.name == "patient")?;
        (patient.ready == Some(true) && patient.agent_version == "0.0.0-test").then_some(())
    })
    .await;
}
