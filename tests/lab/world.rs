//! The lab and a namespace of the test's own, and what is asked of both.

use std::collections::BTreeMap;
use std::time::Duration;

use discovery_lab::{Lab, wait_for};
use serde_json::Value;

use crate::cluster::Cluster;

/// Nothing here takes longer on two busy cores.
pub const SOON: Duration = Duration::from_secs(120);
/// `web` VMs each on a node of its own.
pub const SPREAD: &str = "  placement:\n  - spread: {members: [web], over: node}\n";
/// Where the product is installed.
pub const SYSTEM: [&str; 2] = ["-n", "discovery-system"];

/// A lab and a namespace.
pub struct World {
    pub lab: Lab,
    pub cluster: Cluster,
}

/// A QEMU process.
#[derive(Debug)]
pub struct Process {
    pub domain: String,
    pub node: String,
    pub pid: String,
    pub state: String,
}

/// The Ready condition of the newest generation, if it has been written: status, reason, message.
pub fn ready_of(ve: &Value) -> Option<(String, String, String)> {
    if ve["status"]["observedGeneration"] != ve["metadata"]["generation"] {
        return None;
    }
    let conditions = ve["status"]["conditions"].as_array()?;
    let ready = conditions.iter().find(|condition| condition["type"] == "Ready")?;
    let text = |field: &str| ready[field].as_str().unwrap_or_default().to_owned();
    Some((text("status"), text("reason"), text("message")))
}

/// Where a domain runs: its node, and the pid of its QEMU in that node.
pub type Domains = BTreeMap<String, (String, String)>;

/// A member of like VMs that boot a small Linux.
pub struct Member<'a> {
    pub name: &'a str,
    pub replicas: u32,
    pub memory: &'a str,
    /// More for the kernel's command line: what the guest is to do.
    pub does: &'a str,
    pub run_strategy: &'a str,
    /// Members that are up before: `[db]`.
    pub depends_on: &'a str,
    /// One that is made empty keeps its VM on its node.
    pub disks: &'a str,
}

impl Default for Member<'_> {
    fn default() -> Self {
        let (does, run_strategy, depends_on) = ("", "Always", "[]");
        let (memory, disks) = ("96Mi", "[{name: data, size: 16Mi}]");
        Self { name: "web", replicas: 1, memory, does, run_strategy, depends_on, disks }
    }
}

impl Member<'_> {
    /// `no_timer_check`: an emulated guest that boots beside five others on two cores may be late for its own timer, and
    /// Linux then gives up ("8254 timer not connected to IO-APIC").
    fn yaml(&self) -> String {
        let Self { name, replicas, memory, does, run_strategy, depends_on, disks } = self;
        format!(
            "  - name: {name}\n    replicas: {replicas}\n    cpus: 1\n    memory: {memory}\n    \
             runStrategy: {run_strategy}\n    dependsOn: {depends_on}\n    boot:\n      \
             kernel: {{url: \"file:///var/lib/discovery-guests/vmlinuz\"}}\n      \
             initrd: {{url: \"file:///var/lib/discovery-guests/initrd.img\"}}\n      \
             cmdline: console=ttyS0 quiet no_timer_check name={name} {does}\n    disks: {disks}\n"
        )
    }
}

impl World {
    pub fn new(purpose: &str) -> Self {
        Self { lab: Lab::open(), cluster: Cluster::new(purpose) }
    }

    /// Applies an environment of these members, with more of its spec.
    pub fn apply_members(&self, name: &str, members: &[Member<'_>], more: &str) {
        let members: String = members.iter().map(Member::yaml).collect();
        let yaml = format!(
            "apiVersion: discovery.beyondtheclouds.io/v1alpha1\nkind: VirtualEnvironment\n\
             metadata: {{name: {name}}}\nspec:\n  members:\n{members}{more}"
        );
        // An API server that has just come back does not serve custom resources at once.
        self.until("the manifest to be accepted", || {
            self.cluster.kubectl(&["apply", "-f", "-"], &yaml).status.success()
        });
    }

    /// Applies an environment of `web` VMs.
    pub fn apply(&self, name: &str, replicas: u32, more: &str) {
        self.apply_members(name, &[Member { replicas, ..Member::default() }], more);
    }

    /// Changes the environment by a JSON patch's value at a path.
    pub fn replace(&self, name: &str, path: &str, value: &str) {
        let patch = format!(r#"[{{"op":"replace","path":"{path}","value":{value}}}]"#);
        self.cluster.must(&["patch", "ve", name, "--type=json", "-p", &patch], "");
    }

    pub fn ve(&self, name: &str) -> Option<Value> {
        let output = self.cluster.kubectl(&["get", "ve", name, "-o", "json"], "");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// What the environment's status says of one VM: null before it says anything.
    pub fn vm(&self, name: &str, vm: &str) -> Value {
        let ve = self.ve(name).unwrap_or_default();
        let vms = ve["status"]["vms"].as_array().cloned().unwrap_or_default();
        vms.into_iter().find(|one| one["name"] == vm).unwrap_or_default()
    }

    /// The Ready condition of the newest generation, if it has been written.
    pub fn ready(&self, name: &str) -> Option<(String, String, String)> {
        ready_of(&self.ve(name)?)
    }

    /// All of the namespace, as they are at one moment.
    pub fn ves(&self) -> Vec<Value> {
        let output = self.cluster.kubectl(&["get", "ve", "-o", "json"], "");
        let list: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn until_ready(&self, name: &str) {
        let ready = || self.ready(name).is_some_and(|(status, _, _)| status == "True");
        wait_for(&format!("{name} to be ready"), SOON, "", ready).unwrap_or_else(|error| {
            panic!("{error}; it is {:?}\n{}", self.ready(name), self.beliefs());
        });
    }

    /// Waits until it says that it cannot be placed, with these words.
    pub fn until_refused(&self, name: &str, words: &str) {
        let refused = || {
            self.ready(name).is_some_and(|(_, reason, message)| {
                reason == "CannotBePlaced" && message.contains(words)
            })
        };
        wait_for(&format!("{name} to be refused"), SOON, "", refused).unwrap_or_else(|error| {
            panic!("{error}; it is {:?}", self.ready(name));
        });
    }

    pub fn until(&self, what: &str, holds: impl FnMut() -> bool) {
        self.until_within(SOON, what, holds);
    }

    pub fn until_within(&self, limit: Duration, what: &str, holds: impl FnMut() -> bool) {
        let held = wait_for(what, limit, "", holds);
        held.unwrap_or_else(|error| panic!("{error}\n{}", self.beliefs()));
    }

    /// What the API server says of this namespace's environments, and what each agent believes of them, a line each: for a
    /// test that fails.
    fn beliefs(&self) -> String {
        let written = self.ves().into_iter().map(|ve| {
            let (name, status) = (&ve["metadata"]["name"], &ve["status"]);
            let (ready, vms) = (ready_of(&ve), &status["vms"]);
            format!("  API server: {name} handled by {}: {ready:?}, {vms}\n", status["handler"])
        });
        let of = |node: &String| {
            let ask = ["curl", "--silent", "--max-time", "2", "http://127.0.0.1:7401/debug/engine"];
            let told = self.lab.exec(node, &ask).map_err(|error| error.to_string())?;
            let told: Value = serde_json::from_str(&told).map_err(|error| error.to_string())?;
            let ours = |name: &Value| {
                let name = name.as_str().unwrap_or_default();
                name.split('/').next() == Some(self.cluster.namespace.as_str())
            };
            let ves = told["ves"].as_array().into_iter().flatten();
            let ves: Vec<&Value> =
                ves.filter(|ve| ours(&ve["name"]) && ve["tombstone"] != true).collect();
            let vms = told["vms"].as_array().into_iter().flatten();
            let vms = vms.filter(|vm| {
                vm["record"]["definition"]["ve"]["namespace"] == self.cluster.namespace.as_str()
            });
            let vms: Vec<String> = vms
                .map(|vm| {
                    let (id, phase, why) =
                        (&vm["record"]["definition"]["id"], &vm["phase"], &vm["reason"]);
                    format!("{id} {phase} {why} {}", vm["record"]["transit"])
                })
                .collect();
            let (strays, life) = (&told["strays"], &told["incarnation"]);
            Ok(format!("life {life}, handles {ves:?}, has {vms:?}, strays {strays}"))
        };
        let line = |node: String| {
            let told: Result<String, String> = of(&node);
            format!("  {node}: {}\n", told.unwrap_or_else(|error| error))
        };
        written.chain(self.lab.nodes().into_iter().map(line)).collect()
    }

    /// This namespace's domains that have a QEMU process, each with libvirt's word for its state. One that has two, as in a
    /// live migration, is told by both.
    pub fn all_domains(&self) -> Vec<Process> {
        let mut found = Vec::new();
        let script = "cd /run/libvirt/qemu && for f in *.pid; do \
                      p=$(cat \"$f\" 2>/dev/null) && [ -d \"/proc/$p\" ] && echo \"${f%.pid} $p \
                      $(sed -n \"s/^<domstatus state='\\([a-z]*\\)'.*/\\1/p\" \"${f%.pid}.xml\")\"; done; true";
        for node in self.lab.nodes() {
            let Ok(listed) = self.lab.exec(&node, &["sh", "-c", script]) else { continue };
            for line in listed.lines() {
                let mut words = line.split_whitespace().map(str::to_owned);
                let (Some(domain), Some(pid)) = (words.next(), words.next()) else { continue };
                if domain.starts_with(&format!("{}.", self.cluster.namespace)) {
                    let state = words.next().unwrap_or_default();
                    found.push(Process { domain, node: node.clone(), pid, state });
                }
            }
        }
        found
    }

    /// Where each is, and its process.
    pub fn domains(&self) -> Domains {
        let all = self.all_domains().into_iter();
        all.map(|process| (process.domain, (process.node, process.pid))).collect()
    }

    /// The domain of a VM.
    pub fn domain(&self, vm: &str) -> String {
        format!("{}.{vm}", self.cluster.namespace)
    }

    /// A VM's domain, node and pid.
    pub fn one(&self, vm: &str) -> (String, String, String) {
        let domain = self.domain(vm);
        let all = self.domains();
        let (node, pid) = all.get(&domain).unwrap_or_else(|| panic!("{domain} is not in {all:?}"));
        (domain, node.clone(), pid.clone())
    }

    /// Waits until a domain has a process other than this one.
    pub fn until_another(&self, domain: &str, pid: &str) {
        self.until("another QEMU", || {
            self.domains().get(domain).is_some_and(|(_, new)| new != pid)
        });
    }

    pub fn uid(&self, name: &str) -> String {
        let ve = self.ve(name).expect("it exists");
        ve["metadata"]["uid"].as_str().expect("every object has a uid").to_owned()
    }

    /// Disks of an environment on all nodes.
    pub fn disks(&self, uid: &str) -> usize {
        let directory = format!("/var/lib/discovery/disks/{uid}");
        let count = |node: &String| {
            let listed = self.lab.exec(node, &["find", &directory, "-name", "*.qcow2"]);
            listed.map_or(0, |text| text.lines().count())
        };
        self.lab.nodes().iter().map(count).sum()
    }

    pub fn delete(&self, name: &str) {
        let output = self.cluster.kubectl(&["delete", "ve", name, "--timeout=120s"], "");
        if !output.status.success() {
            let status = self.ve(name).unwrap_or_default()["status"]["conditions"].to_string();
            let said = String::from_utf8_lossy(&output.stderr);
            panic!("{name} is not deleted: {said}{status}\n{}", self.beliefs());
        }
    }

    /// Whether these words have been told of an environment by an Event.
    pub fn was_told(&self, name: &str, words: &str) -> bool {
        let about = format!("regarding.name={name}");
        let events = ["get", "events.events.k8s.io", "--field-selector", &about];
        let notes = ["-o", "jsonpath={.items[*].note}"];
        let output = self.cluster.kubectl(&[&events[..], &notes].concat(), "");
        String::from_utf8_lossy(&output.stdout).contains(words)
    }

    /// kubectl in the namespace of the product.
    pub fn system(&self, words: &[&str]) -> String {
        self.lab.kubectl(&[&SYSTEM[..], words].concat()).expect("kubectl does it")
    }

    /// The agents' pods.
    pub fn agents(&self) -> Vec<String> {
        let names = ["get", "pods", "-o", "name", "-l", "app.kubernetes.io/component=agent"];
        self.system(&names).lines().map(str::to_owned).collect()
    }

    /// Waits until every agent runs and is ready.
    pub fn until_agents_are_back(&self) {
        self.system(&["rollout", "status", "daemonset/discovery-agent", "--timeout=120s"]);
    }
}
