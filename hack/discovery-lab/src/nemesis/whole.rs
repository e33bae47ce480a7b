//! Whether everything is as it should be again: nodes, agents, environments, and exactly the guests that there are to be.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::Duration,
};

use serde_json::Value;

use super::{Ves, inside::everywhere, qemus};
use crate::{control_plane, error::Result, lab::Lab, node};

/// Where the product keeps the disks of VMs: `<uid of the environment>/<member>-<index>`.
const DISKS: &str = "/var/lib/discovery/disks";

/// The guests of the lab say every 5 s on their consoles that they live: one that has been silent for so long has not booted, or
/// hangs.
const SILENT: Duration = Duration::from_secs(60);

/// What is to be there.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    lab: &'a Lab,
    ves: &'a Ves,
    /// The environments' uids, from when they were applied: another one of the same name is another one.
    uids: BTreeMap<String, String>,
}

impl<'a> Wanted<'a> {
    /// As it is at this moment.
    pub fn now(lab: &'a Lab, ves: &'a Ves) -> Result<Self> {
        let found = lab.kubectl_json(&["get", "ve", "--namespace", ves.namespace])?;
        let uids = items(&found)
            .map(|ve| (text(ve, "/metadata/name"), text(ve, "/metadata/uid")))
            .collect();
        Ok(Self { lab, ves, uids })
    }

    /// What is missing, broken or too much; empty when all is whole.
    pub fn missing(&self) -> Vec<String> {
        let mut missing = Vec::new();
        // Cheap ones first: those that ask the API server cost a process each.
        for (node, inside) in everywhere(&self.lab.layout) {
            if !inside.iter().any(|process| process.is_discovery("agent")) {
                missing.push(format!("no agent runs on {node}"));
            }
        }
        self.guests(&mut missing);
        if missing.is_empty() {
            self.cluster(&mut missing);
        }
        if missing.is_empty() {
            self.strays(&mut missing);
            self.consoles(&mut missing);
        }
        missing
    }

    /// Which of the domains have no QEMU, except on these nodes.
    pub fn without_guest(&self, except_on: &[&str]) -> BTreeSet<String> {
        let running = qemus(&self.lab.layout);
        let elsewhere = running.iter().filter(|one| !except_on.contains(&one.node.as_str()));
        let elsewhere: BTreeSet<&String> = elsewhere.map(|one| &one.qemu.name).collect();
        let mut domains = self.ves.domains();
        domains.retain(|domain| !elsewhere.contains(domain));
        domains
    }

    fn guests(&self, missing: &mut Vec<String>) {
        let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for one in qemus(&self.lab.layout) {
            if one.stopped {
                missing.push(format!("{} is stopped by a signal (SIGCONT)", one.qemu.name));
            }
            let place =
                if one.qemu.incoming { format!("{} (by a migration)", one.node) } else { one.node };
            places.entry(one.qemu.name).or_default().push(place);
        }
        for domain in self.ves.domains() {
            match places.remove(&domain).as_deref() {
                None => missing.push(format!("{domain} does not run")),
                Some([_]) => {}
                Some(many) => missing.push(format!("{domain} is on {}", many.join(" and "))),
            }
        }
        missing.extend(places.iter().map(|(name, at)| format!("stray guest {name} on {at:?}")));
    }

    fn cluster(&self, missing: &mut Vec<String>) {
        if !control_plane::api_is_ready(&self.lab.layout) {
            missing.push("the API server does not answer".into());
            return;
        }
        let (boots, found) = match (
            self.lab.ready_boots(),
            self.lab.kubectl_json(&["get", "daemonsets.apps,ve", "--all-namespaces"]),
        ) {
            (Ok(boots), Ok(found)) => (boots, found),
            (Err(error), _) | (_, Err(error)) => return missing.push(error.to_string()),
        };
        for node in node::all(&self.lab.layout) {
            if node.boot_id().ok().as_ref() != boots.get(&node.name) {
                missing.push(format!("{} is not Ready", node.name));
            }
        }
        let agents = items(&found).find(|one| text(one, "/metadata/name") == "discovery-agent");
        match agents {
            None => missing.push("there are no agents".into()),
            Some(agents) => missing.extend(rollout(agents)),
        }
        for (name, uid) in &self.uids {
            let ve = items(&found).find(|one| text(one, "/metadata/uid") == *uid);
            match ve {
                None => missing.push(format!("environment {name} is LOST")),
                Some(ve) => missing.extend(not_ready(ve)),
            }
        }
    }

    // The node of each guest's process.
    fn homes(&self) -> BTreeMap<String, String> {
        qemus(&self.lab.layout).into_iter().map(|one| (one.qemu.name, one.node)).collect()
    }

    // What libvirt and the disks hold beside what is to be there.
    fn strays(&self, missing: &mut Vec<String>) {
        let wanted = self.ves.domains();
        let running = self.homes();
        for node in node::all(&self.lab.layout) {
            match node.virsh(&["list", "--all", "--name"]) {
                Err(error) => missing.push(format!("libvirtd of {}: {error}", node.name)),
                Ok(text) => {
                    for domain in text.lines().filter(|line| !line.is_empty()) {
                        let at_home = running.get(domain) == Some(&node.name);
                        if !wanted.contains(domain) || !at_home {
                            missing.push(format!("stray domain {domain} on {}", node.name));
                        }
                    }
                }
            }
            for (uid, vm) in disks(&node) {
                let ve = self.uids.iter().find(|(_, known)| **known == uid).map(|(ve, _)| ve);
                let domain = ve.map(|ve| format!("{}.{ve}-{vm}", self.ves.namespace));
                let at_home =
                    domain.as_ref().is_some_and(|domain| running.get(domain) == Some(&node.name));
                if !at_home {
                    let whose = domain.unwrap_or(uid);
                    missing.push(format!("stray disk of {whose} on {}", node.name));
                }
            }
        }
    }

    // That a guest's process runs does not say that the guest does.
    fn consoles(&self, missing: &mut Vec<String>) {
        let running = self.homes();
        let nodes = node::all(&self.lab.layout);
        for (ve, vm) in self.ves.all.iter().flat_map(|(ve, vms)| (0..*vms).map(move |vm| (ve, vm)))
        {
            let domain = format!("{}.{ve}-web-{vm}", self.ves.namespace);
            let (Some(name), Some(uid)) = (running.get(&domain), self.uids.get(ve)) else {
                continue;
            };
            let file = format!("{DISKS}/{uid}/web-{vm}/console.log");
            let file = nodes.iter().find(|node| node.name == *name).map(|node| node.path(&file));
            let Some(Ok(file)) = file else { continue };
            missing.extend(silence(&file).map(|said| format!("{domain} on {name} {said}")));
        }
    }

    /// After all environments were deleted: what is left of them.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = qemus(&self.lab.layout)
            .into_iter()
            .map(|one| format!("guest {} on {}", one.qemu.name, one.node))
            .collect();
        for node in node::all(&self.lab.layout) {
            let domains = node.virsh(&["list", "--all", "--name"]).unwrap_or_default();
            let domains = domains.lines().filter(|line| !line.is_empty());
            left.extend(domains.map(|name| format!("domain {name} on {}", node.name)));
            let of = |(uid, vm)| format!("disk of {uid}/{vm} on {}", node.name);
            left.extend(disks(&node).into_iter().map(of));
        }
        match self.lab.kubectl(&["get", "namespace", self.ves.namespace, "--ignore-not-found"]) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(_) => left.push(format!("namespace {}", self.ves.namespace)),
            Err(error) => left.push(error.to_string()),
        }
        left
    }
}

fn disks(node: &node::Node<'_>) -> Vec<(String, String)> {
    let Ok(root) = node.path(DISKS) else { return Vec::new() };
    let names = |path: &std::path::Path| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect::<Vec<_>>()
    };
    let of = |uid: String| {
        let vms = names(&root.join(&uid));
        vms.into_iter().map(move |vm| (uid.clone(), vm)).collect::<Vec<_>>()
    };
    names(&root).into_iter().flat_map(of).collect()
}

fn silence(console: &Path) -> Option<String> {
    let said = fs::metadata(console).ok().filter(|file| file.len() > 0);
    let said = said.and_then(|file| file.modified().ok());
    match said.map(|at| at.elapsed().unwrap_or_default()) {
        None => Some("has not said a word on its console".into()),
        Some(ago) if ago > SILENT => {
            Some(format!("has not said a word on its console for {} s", ago.as_secs()))
        }
        Some(_) => None,
    }
}

fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list["items"].as_array().into_iter().flatten()
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

// What a DaemonSet still lacks.
fn rollout(agents: &Value) -> Option<String> {
    let number = |field: &str| agents["status"][field].as_u64().unwrap_or(0);
    let wanted = number("desiredNumberScheduled");
    let seen = agents["status"]["observedGeneration"] == agents["metadata"]["generation"];
    let (ready, updated) = (number("numberReady"), number("updatedNumberScheduled"));
    (!seen || wanted == 0 || ready < wanted || updated < wanted)
        .then(|| format!("{ready} of {wanted} agents are ready, {updated} are new"))
}

fn not_ready(ve: &Value) -> Option<String> {
    let name = text(ve, "/metadata/name");
    let conditions = ve["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|one| one["type"] == "Ready");
    let seen = ve["status"]["observedGeneration"] == ve["metadata"]["generation"];
    match ready {
        Some(ready) if seen && ready["status"] == "True" => None,
        Some(ready) => Some(format!("{name} is not ready: {}", text(ready, "/message"))),
        None => Some(format!("{name} has no condition Ready")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_guest_whose_console_is_silent_has_not_booted() {
        let file = std::env::temp_dir().join(format!("discovery-console-{}", std::process::id()));
        let silent =
            |file: &Path| silence(file).is_some_and(|said| said.contains("not said a word"));
        assert!(silent(&file), "there is no console yet");
        fs::write(&file, "").expect("it is written");
        assert!(silent(&file), "nothing was said");
        fs::write(&file, "ticks at 5 s").expect("it is written");
        assert_eq!(silence(&file), None);
        let long_ago = std::time::SystemTime::now() - SILENT - Duration::from_secs(9);
        let open = fs::File::options().append(true).open(&file).expect("it opens");
        open.set_modified(long_ago).expect("its time is set");
        let said = silence(&file).expect("that is long ago");
        assert!(said.contains("not said a word on its console for"), "{said}");
        fs::remove_file(&file).expect("it goes");
    }

    #[test]
    fn agents_are_whole_when_all_are_new_and_ready() {
        let agents = |generation, ready, updated| {
            json!({"metadata": {"generation": generation}, "status": {"observedGeneration": 2,
                "desiredNumberScheduled": 5, "numberReady": ready, "updatedNumberScheduled": updated}})
        };
        assert_eq!(rollout(&agents(2, 5, 5)), None);
        assert!(rollout(&agents(3, 5, 5)).is_some(), "Kubernetes has not seen the upgrade");
        assert!(rollout(&agents(2, 4, 5)).is_some());
        assert!(rollout(&agents(2, 5, 4)).is_some());
    }

    #[test]
    fn an_environment_that_waits_says_why() {
        let ve = |status: &str| {
            json!({"metadata": {"name": "ve1", "generation": 1}, "status": {"observedGeneration": 1,
                "conditions": [{"type": "Ready", "status": status, "message": "1 of 2"}]}})
        };
        assert_eq!(not_ready(&ve("True")), None);
        assert_eq!(not_ready(&ve("False")).as_deref(), Some("ve1 is not ready: 1 of 2"));
    }
}
