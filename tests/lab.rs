//! The life of environments on real guests: QEMU on three nodes of a real Kubernetes, under the product as
//! Helm has installed it. Each test first asserts that what it does to the system has happened.
//!
//! Needs a running lab with the product (`hack/test` makes one) and `DISCOVERY_TEST_KUBECONFIG`; one test
//! at a time.

mod cluster;

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::Cluster;
use discovery_lab::{Lab, wait_for};
use serde_json::Value;

/// Nothing here takes longer on two busy cores.
const SOON: Duration = Duration::from_secs(120);

struct World {
    lab: Lab,
    cluster: Cluster,
}

/// Where a domain runs: its node, and the pid of its QEMU in that node.
type Domains = BTreeMap<String, (String, String)>;

impl World {
    fn new(purpose: &str) -> Self {
        Self { lab: Lab::open(), cluster: Cluster::new(purpose) }
    }

    /// Applies an environment of `web` VMs that boot a small Linux.
    fn apply(&self, name: &str, replicas: u32, more: &str) {
        let yaml = format!(
            "apiVersion: discovery.beyondtheclouds.io/v1alpha1\nkind: VirtualEnvironment\n\
             metadata: {{name: {name}}}\nspec:\n  members:\n  - name: web\n    replicas: {replicas}\n    \
             cpus: 1\n    memory: 96Mi\n    boot:\n      kernel: {{url: \"file:///var/lib/discovery-guests/vmlinuz\"}}\n      \
             initrd: {{url: \"file:///var/lib/discovery-guests/initrd.img\"}}\n      \
             cmdline: console=ttyS0 quiet name={name}\n    disks: [{{name: data, size: 16Mi}}]\n{more}"
        );
        // An API server that has just come back does not serve custom resources at once.
        self.until("the manifest to be accepted", || {
            self.cluster.kubectl(&["apply", "-f", "-"], &yaml).status.success()
        });
    }

    fn ve(&self, name: &str) -> Option<Value> {
        let output = self.cluster.kubectl(&["get", "ve", name, "-o", "json"], "");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// The Ready condition of the newest generation, if it has been written.
    fn ready(&self, name: &str) -> Option<(String, String, String)> {
        let ve = self.ve(name)?;
        if ve["status"]["observedGeneration"] != ve["metadata"]["generation"] {
            return None;
        }
        let conditions = ve["status"]["conditions"].as_array()?.clone();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready")?;
        let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
        Some((text("status"), text("reason"), text("message")))
    }

    fn until_ready(&self, name: &str) {
        let last = || format!("{:?}", self.ready(name));
        let ready = || self.ready(name).is_some_and(|(status, _, _)| status == "True");
        wait_for(&format!("{name} to be ready"), SOON, &last(), ready).unwrap_or_else(|error| {
            panic!("{error}; it is {}", last());
        });
    }

    fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        wait_for(what, SOON, "", holds).unwrap_or_else(|error| panic!("{error}"));
    }

    /// This namespace's domains that have a QEMU process.
    fn domains(&self) -> Domains {
        let mut found = Domains::new();
        let script = "for f in /run/libvirt/qemu/*.pid; do \
                      p=$(cat \"$f\" 2>/dev/null) && [ -d \"/proc/$p\" ] && echo \"$f $p\"; done; true";
        for node in self.lab.nodes() {
            let Ok(listed) = self.lab.exec(&node, &["sh", "-c", script]) else { continue };
            for line in listed.lines() {
                let Some((file, pid)) = line.split_once(' ') else { continue };
                let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".pid");
                if name.starts_with(&format!("{}.", self.cluster.namespace)) {
                    found.insert(name.to_owned(), (node.clone(), pid.to_owned()));
                }
            }
        }
        found
    }

    fn one(&self, name: &str) -> (String, String, String) {
        let domain = format!("{}.{name}", self.cluster.namespace);
        let all = self.domains();
        let (node, pid) = all.get(&domain).unwrap_or_else(|| panic!("{domain} is not in {all:?}"));
        (domain, node.clone(), pid.clone())
    }

    fn uid(&self, name: &str) -> String {
        let ve = self.ve(name).expect("it exists");
        ve["metadata"]["uid"].as_str().expect("every object has a uid").to_owned()
    }

    /// Disks of an environment on all nodes.
    fn disks(&self, uid: &str) -> usize {
        let directory = format!("/var/lib/discovery/disks/{uid}");
        let count = |node: &String| {
            let listed = self.lab.exec(node, &["find", &directory, "-name", "*.qcow2"]);
            listed.map_or(0, |text| text.lines().count())
        };
        self.lab.nodes().iter().map(count).sum()
    }

    fn delete(&self, name: &str) {
        self.cluster.must(&["delete", "ve", name, "--timeout=120s"], "");
    }
}

const SPREAD: &str = "  placement:\n  - spread: {members: [web], over: node}\n";

#[test]
fn an_environment_runs_spread_over_nodes_and_leaves_nothing_when_deleted() {
    let world = World::new("life");
    world.apply("shop", 2, SPREAD);
    world.until_ready("shop");
    let uid = world.uid("shop");
    let domains = world.domains();
    let nodes: std::collections::BTreeSet<&String> =
        domains.values().map(|(node, _)| node).collect();
    assert_eq!((domains.len(), nodes.len(), world.disks(&uid)), (2, 2, 2), "{domains:?}");
    world.delete("shop");
    assert_eq!((world.domains().len(), world.disks(&uid)), (0, 0), "nothing is left");
}

#[test]
fn a_guest_that_is_killed_paused_destroyed_or_undefined_is_put_right() {
    let world = World::new("heal");
    world.apply("shop", 1, "");
    world.until_ready("shop");

    let (domain, node, pid) = world.one("shop-web-0");
    world.lab.exec(&node, &["kill", "-9", &pid]).expect("QEMU is killed");
    world
        .until("another QEMU", || world.domains().get(&domain).is_some_and(|(_, new)| *new != pid));
    world.until_ready("shop");

    let (_, node, pid) = world.one("shop-web-0");
    world.lab.virsh(&node, &["destroy", &domain]).expect("the domain is destroyed");
    world
        .until("another QEMU", || world.domains().get(&domain).is_some_and(|(_, new)| *new != pid));
    world.until_ready("shop");

    let state = || world.lab.virsh(&node, &["domstate", &domain]).unwrap_or_default();
    world.lab.virsh(&node, &["suspend", &domain]).expect("the domain is paused");
    world.until("a running domain", || state().contains("running"));

    let (_, _, pid) = world.one("shop-web-0");
    world.lab.virsh(&node, &["undefine", &domain]).expect("it is undefined");
    let persistent = || world.lab.virsh(&node, &["dominfo", &domain]).unwrap_or_default();
    world.until("its definition", || {
        persistent().lines().any(|l| l.starts_with("Persistent:") && l.ends_with("yes"))
    });
    assert_eq!(world.one("shop-web-0").2, pid, "the guest ran on");
    world.delete("shop");
}

#[test]
fn members_are_scaled_up_and_down() {
    let world = World::new("scale");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let (first, _, pid) = world.one("shop-web-0");
    world.cluster.must(&["scale", "ve/shop", "--replicas=3"], "");
    world.until("three domains", || world.domains().len() == 3);
    world.until_ready("shop");
    world.cluster.must(&["scale", "ve/shop", "--replicas=1"], "");
    world.until("one domain", || world.domains().len() == 1);
    assert_eq!(world.domains().get(&first).map(|(_, pid)| pid.clone()), Some(pid));
    world.delete("shop");
}

#[test]
fn a_terminated_environment_keeps_its_disks_and_comes_back() {
    let world = World::new("stop");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let uid = world.uid("shop");
    let (_, node, _) = world.one("shop-web-0");
    let patch = |state: &str| {
        let patch = format!("{{\"spec\":{{\"state\":\"{state}\"}}}}");
        world.cluster.must(&["patch", "ve", "shop", "--type=merge", "-p", &patch], "");
    };
    patch("Terminated");
    world.until("no domain", || world.domains().is_empty());
    world.until_ready("shop");
    assert_eq!(world.disks(&uid), 1, "its disk is kept");
    patch("Running");
    world.until("a domain", || world.domains().len() == 1);
    world.until_ready("shop");
    assert_eq!(world.one("shop-web-0").1, node, "it is where its disk is");
    world.delete("shop");
}

#[test]
fn daemons_and_agents_restart_without_touching_a_guest() {
    let world = World::new("restart");
    world.apply("shop", 2, SPREAD);
    world.until_ready("shop");
    let before = world.domains();
    assert_eq!(before.len(), 2);
    for node in world.lab.nodes() {
        world.lab.libvirtd_restart(&node).expect("libvirtd is restarted");
    }
    let system = ["-n", "discovery-system"];
    let agents = || {
        let names = ["get", "pods", "-o", "name", "-l", "app.kubernetes.io/component=agent"];
        world.lab.kubectl(&[&system[..], &names].concat()).expect("pods are listed")
    };
    let old = agents();
    assert!(old.lines().count() >= 3, "{old}");
    let delete = ["delete", "pods", "-l", "app.kubernetes.io/component=agent", "--timeout=60s"];
    world.lab.kubectl(&[&system[..], &delete].concat()).expect("the agents are deleted");
    assert!(agents().lines().all(|pod| !old.contains(pod)), "every agent is another");
    let rollout = ["rollout", "status", "daemonset/discovery-agent", "--timeout=120s"];
    world.lab.kubectl(&[&system[..], &rollout].concat()).expect("the agents are back");
    world.cluster.must(&["scale", "ve/shop", "--replicas=3"], "");
    world.until("a third domain", || world.domains().len() == 3);
    let after = world.domains();
    for (name, place) in &before {
        assert_eq!(after.get(name), Some(place), "its QEMU is the same");
    }
    world.delete("shop");
}

#[test]
fn a_guest_heals_while_the_api_server_is_stopped() {
    let world = World::new("away");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let (domain, node, pid) = world.one("shop-web-0");
    world.lab.api_stop().expect("the API server is stopped");
    let gone = world.lab.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_err();
    let killed = world.lab.exec(&node, &["kill", "-9", &pid]).is_ok();
    let healed = wait_for("another QEMU", SOON, "", || {
        world.domains().get(&domain).is_some_and(|(_, new)| *new != pid)
    });
    world.lab.api_start().expect("the API server is started");
    assert!(gone && killed, "the faults fired: API server gone {gone}, guest killed {killed}");
    healed.unwrap_or_else(|error| panic!("{error}"));
    world.until_ready("shop");
    world.delete("shop");
}

#[test]
fn equal_names_in_two_namespaces_are_two_environments() {
    let (one, two) = (World::new("left"), World::new("right"));
    one.apply("shop", 1, "");
    two.apply("shop", 1, "");
    one.until_ready("shop");
    two.until_ready("shop");
    assert_eq!((one.domains().len(), two.domains().len()), (1, 1));
    // A namespace that is deleted takes its environments along.
    one.cluster.must(&["delete", "namespace", &one.cluster.namespace, "--timeout=120s"], "");
    assert_eq!((one.domains().len(), two.domains().len()), (0, 1));
    two.delete("shop");
}

#[test]
fn what_does_not_fit_waits_and_says_what_is_short() {
    let world = World::new("full");
    world.apply("wide", 4, SPREAD);
    world.until("its refusal", || {
        world.ready("wide").is_some_and(|(_, reason, message)| {
            reason == "CannotBePlaced" && message.contains("spread needs 4")
        })
    });
    assert!(world.domains().is_empty(), "it waits whole");
    world.delete("wide");
}
