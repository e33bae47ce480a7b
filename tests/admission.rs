//! What the chart's admission policies refuse: each agent writes as its own node and no other, agents
//! change no spec, and nobody else writes a status. Every request is a dry run: nothing changes.
//!
//! Needs `DISCOVERY_TEST_KUBECONFIG` (an administrator's) at a cluster of at least two nodes with the chart
//! installed in the namespace `DISCOVERY_TEST_RELEASE_NAMESPACE` (default `discovery-system`) as `discovery`.
#![cfg(feature = "api")]

mod cluster;

use std::io::Write as _;

use serde_json::{Value, json};
use tempfile::NamedTempFile;

use cluster::{Cluster, text};

/// An agent: what it may do with a token that the API server bound to a node (or to none).
struct Agent<'a> {
    cluster: &'a Cluster,
    kubeconfig: NamedTempFile,
}

impl<'a> Agent<'a> {
    fn new(cluster: &'a Cluster, node: Option<&str>) -> Self {
        let namespace = std::env::var("DISCOVERY_TEST_RELEASE_NAMESPACE")
            .unwrap_or_else(|_| "discovery-system".to_owned());
        let mut arguments = vec!["create", "token", "discovery-agent", "-n", &namespace];
        if let Some(node) = node {
            arguments.extend(["--bound-object-kind", "Node", "--bound-object-name", node]);
        }
        let token = cluster.must(&arguments, "").trim().to_owned();
        // The administrator's kubeconfig with the token for its user: a client certificate would win over it.
        let view = ["config", "view", "--raw", "--minify", "--flatten", "-o", "json"];
        let mut config: Value =
            serde_json::from_str(&cluster.must(&view, "")).expect("a kubeconfig is JSON");
        config["users"][0]["user"] = json!({ "token": token });
        let mut kubeconfig = NamedTempFile::new().expect("a temporary file is made");
        kubeconfig.write_all(config.to_string().as_bytes()).expect("it is written");
        Self { cluster, kubeconfig }
    }

    /// What the API server said against it, or nothing.
    fn refusal(&self, arguments: &[&str], input: &str) -> Option<String> {
        let output = self.cluster.kubectl_as(self.kubeconfig.path(), arguments, input);
        (!output.status.success()).then(|| text(&output.stderr))
    }

    /// Reports as an agent does: server-side apply of a status.
    fn report(&self, kind: &str, name: &str, status: &str) -> Option<String> {
        let yaml = resource(kind, name, &format!("status: {status}"));
        let arguments = ["apply", "--server-side", "--force-conflicts", "--subresource=status"];
        self.refusal(&[&arguments[..], &["--dry-run=server", "-f", "-"]].concat(), &yaml)
    }
}

fn resource(kind: &str, name: &str, rest: &str) -> String {
    format!(
        "apiVersion: discovery.beyondtheclouds.io/v1alpha1\nkind: {kind}\nmetadata: {{name: {name}}}\n{rest}\n"
    )
}

/// Two nodes whose agents have made their `PhysicalNode`.
fn two_nodes(cluster: &Cluster) -> [String; 2] {
    let names = cluster.must(&["get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"], "");
    let names: Vec<&str> = names.split_whitespace().collect();
    let [first, second, ..] = names[..] else { panic!("two nodes are needed, found {names:?}") };
    for name in [first, second] {
        let known = cluster.must(&["get", "pn", "-o", "name"], "");
        assert!(
            known.lines().any(|line| line.ends_with(&format!("/{name}"))),
            "node {name} has no PhysicalNode"
        );
    }
    [first.to_owned(), second.to_owned()]
}

#[test]
fn an_agent_reports_its_own_node_and_no_other() {
    let cluster = Cluster::new("admission-node");
    let [own, other] = two_nodes(&cluster);
    let agent = Agent::new(&cluster, Some(&own));
    assert_eq!(agent.report("PhysicalNode", &own, "{vms: 7}"), None);
    let refusal =
        agent.report("PhysicalNode", &other, "{vms: 7}").expect("another node's is refused");
    assert!(
        refusal.contains(&format!("this token is bound to {own}, not to {other}")),
        "{refusal}"
    );
}

#[test]
fn of_another_node_an_agent_says_only_that_it_is_silent() {
    let cluster = Cluster::new("admission-silent");
    let [own, other] = two_nodes(&cluster);
    let agent = Agent::new(&cluster, Some(&own));
    let says = |reason: &str, more: &str| {
        let ready = format!(
            "{{type: Ready, status: Unknown, reason: {reason}, message: m, lastTransitionTime: '2026-01-01T00:00:00Z'}}"
        );
        agent.report("PhysicalNode", &other, &format!("{{conditions: [{ready}]{more}}}"))
    };
    assert_eq!(says("Silent", ", lease: {state: Unknown}"), None);
    let key = format!(", overlay: {{publicKey: '{}'}}", "00".repeat(32));
    for refused in [says("Fine", ""), says("Silent", &key)] {
        assert!(refused.expect("it is refused").contains("this token is bound to"));
    }
}

#[test]
fn a_token_without_a_node_writes_no_physical_node() {
    let cluster = Cluster::new("admission-unbound");
    let [own, _] = two_nodes(&cluster);
    let agent = Agent::new(&cluster, None);
    let refusal = agent.report("PhysicalNode", &own, "{vms: 7}").expect("it is refused");
    assert!(refusal.contains("this token is bound to no node"), "{refusal}");
}

#[test]
fn an_agent_makes_no_other_nodes_resource_and_deletes_none() {
    let cluster = Cluster::new("admission-make");
    let [own, other] = two_nodes(&cluster);
    let agent = Agent::new(&cluster, Some(&own));
    let create = ["create", "--dry-run=server", "-f", "-"];
    let stranger = resource("PhysicalNode", "no-such-node", "spec: {}");
    let refusal = agent.refusal(&create, &stranger).expect("a stranger is refused");
    assert!(refusal.contains("not to no-such-node"), "{refusal}");
    for name in [&own, &other] {
        let refusal = agent.refusal(&["delete", "pn", name, "--dry-run=server"], "");
        assert!(refusal.expect("deletion is refused").contains("cannot delete"));
    }
}

#[test]
fn an_agent_sets_a_finalizer_and_changes_no_spec() {
    let cluster = Cluster::new("admission-spec");
    let [own, _] = two_nodes(&cluster);
    let spec = "spec: {state: Terminated, members: [{name: web, replicas: 0, cpus: 1, memory: 16Mi, \
                boot: {kernel: {url: 'file:///vmlinuz'}}}]}";
    cluster.must(&["create", "-f", "-"], &resource("VirtualEnvironment", "quiet", spec));
    let agent = Agent::new(&cluster, Some(&own));
    let patch = |patch: &str| {
        agent
            .refusal(&["patch", "ve", "quiet", "--type=merge", "--dry-run=server", "-p", patch], "")
    };
    let finalizer =
        r#"{"metadata":{"finalizers":["discovery.beyondtheclouds.io/vms","a.test/b"]}}"#;
    assert_eq!(patch(finalizer), None);
    let refusal = patch(r#"{"spec":{"state":"Running"}}"#).expect("a spec is people's");
    assert!(refusal.contains("do not change their spec"), "{refusal}");
    assert_eq!(agent.report("VirtualEnvironment", "quiet", "{ready: 0/0}"), None);
}

#[test]
fn nobody_but_agents_writes_a_status() {
    let cluster = Cluster::new("admission-status");
    let [own, _] = two_nodes(&cluster);
    let patch = r#"{"status":{"overlay":{"publicKey":"KEY"}}}"#.replace("KEY", &"0".repeat(64));
    let arguments = [
        "patch",
        "pn",
        &own,
        "--subresource=status",
        "--type=merge",
        "--dry-run=server",
        "-p",
        &patch,
    ];
    let output = cluster.kubectl(&arguments, "");
    assert!(!output.status.success(), "an administrator lent a node another key");
    let said = text(&output.stderr);
    assert!(said.contains("only agents write a status"), "{said}");
}

#[test]
fn a_new_environment_has_the_finalizer_from_the_start() {
    let cluster = Cluster::new("admission-finalizer");
    let versions = cluster.must(&["api-resources", "--api-group=admissionregistration.k8s.io"], "");
    let known = versions.lines().any(|line| {
        line.contains("admissionregistration.k8s.io/v1 ")
            && line.contains("MutatingAdmissionPolicy")
    });
    assert!(
        known,
        "this API server has no MutatingAdmissionPolicy v1: the test needs Kubernetes 1.36"
    );
    let spec = "spec: {state: Terminated, members: [{name: web, replicas: 0, cpus: 1, memory: 16Mi, \
                boot: {kernel: {url: 'file:///vmlinuz'}}}]}";
    let yaml = resource("VirtualEnvironment", "quiet", spec);
    let path = "jsonpath={.metadata.finalizers}";
    let made = cluster.must(&["create", "--dry-run=server", "-o", path, "-f", "-"], &yaml);
    assert!(made.contains("discovery.beyondtheclouds.io/vms"), "{made}");
}
