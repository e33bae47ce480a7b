//! Faults of daemons, guests, the API server, and an upgrade: little more than what the lab could do before.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    Fired,
    inside::{self, Inside},
};
use crate::{
    control_plane,
    error::{LabError, Result},
    lab::Lab,
    process::{signal, wait_for},
    product::NAMESPACE,
    record::boottime_ns,
};

/// A killed process is gone at once; the node starts its daemons again after a second.
const SOON: Duration = Duration::from_secs(30);
/// Until Kubernetes has replaced the first of the agents.
const REPLACED_WITHIN: Duration = Duration::from_secs(90);

impl Lab {
    pub(super) fn fire_libvirtd_stop(&self, name: &str) -> Result<Fired> {
        let node = self.node(name)?;
        let before = self.libvirtds(name)?;
        if before.is_empty() {
            return Ok(Fired::already(format!("no libvirtd runs on {name}")));
        }
        node.stop_service("libvirtd")?;
        if self.libvirtds(name)?.is_empty() {
            return Ok(Fired::new(format!("libvirtd {before:?} has ended")));
        }
        Err(not_fired(&format!("stop of libvirtd on {name}"), "it still runs"))
    }

    pub(super) fn undo_libvirtd_stop(&self, name: &str) -> Result<String> {
        self.node(name)?.start_service("libvirtd")?;
        Ok(format!("libvirtd runs on {name}"))
    }

    pub(super) fn fire_libvirtd_kill(&self, name: &str) -> Result<Fired> {
        let before = self.libvirtds(name)?;
        if before.is_empty() {
            return Err(not_fired(&format!("kill of libvirtd on {name}"), "none runs"));
        }
        before.iter().for_each(|pid| signal(*pid, Signal::KILL));
        let mut now = BTreeSet::new();
        wait_for(&format!("another libvirtd on {name}"), SOON, "see its log", || {
            now = self.libvirtds(name).unwrap_or_default();
            !now.is_empty() && now.is_disjoint(&before)
        })?;
        Ok(Fired::new(format!("killed {before:?}; the node has started {now:?}")))
    }

    pub(super) fn fire_agent_kill(&self, name: &str) -> Result<Fired> {
        // An upgrade that goes on at the same time leaves a node without one for some seconds.
        let mut before = self.agent_processes(name)?;
        let there =
            wait_for(&format!("an agent on {name}"), REPLACED_WITHIN, "see its pod", || {
                before = self.agent_processes(name).unwrap_or_default();
                !before.is_empty()
            });
        there.map_err(|_| LabError::NoAgent(name.into()))?;
        let at = Instant::now();
        before.iter().for_each(|pid| signal(*pid, Signal::KILL));
        let mut now = BTreeSet::new();
        wait_for(&format!("another agent on {name}"), REPLACED_WITHIN, "see its pod", || {
            now = self.agent_processes(name).unwrap_or_default();
            !now.is_empty() && now.is_disjoint(&before)
        })?;
        let took = at.elapsed().as_secs_f64();
        Ok(Fired::new(format!("killed {before:?}; {now:?} was there after {took:.1} s")))
    }

    fn agent_processes(&self, name: &str) -> Result<BTreeSet<i32>> {
        self.processes_of(name, |one| one.is_discovery("agent"))
    }

    fn libvirtds(&self, name: &str) -> Result<BTreeSet<i32>> {
        self.processes_of(name, |one| one.program() == "libvirtd")
    }

    fn processes_of(&self, name: &str, are: fn(&Inside) -> bool) -> Result<BTreeSet<i32>> {
        let node = self.node(name)?;
        if node.init().is_none() {
            return Err(LabError::NodeIsOff(name.into()));
        }
        let all = inside::processes(&node);
        let ours = all.iter().filter(|one| are(one) && !one.has_ended());
        Ok(ours.map(|process| process.pid).collect())
    }

    pub(super) fn fire_guest(&self, name: &str, vm: Option<&str>) -> Result<Fired> {
        let mut guests = super::qemus(&self.layout);
        guests.retain(|one| one.node == name && vm.is_none_or(|vm| one.qemu.name == vm));
        let Some(guest) = guests.first() else {
            return Err(not_fired(&format!("kill of a guest on {name}"), "there is none"));
        };
        signal(guest.pid, Signal::KILL);
        wait_for("the guest to be gone", SOON, "see ps", || {
            !super::qemus(&self.layout).iter().any(|one| one.pid == guest.pid)
        })?;
        Ok(Fired::new(format!("killed {}, process {}", guest.qemu.name, guest.pid)))
    }

    pub(super) fn fire_api_server(&self) -> Result<Fired> {
        let already = !control_plane::running(&self.layout).contains(&"kube-apiserver");
        self.api_stop()?;
        if control_plane::api_is_ready(&self.layout) {
            return Err(not_fired("stop of the API server", "it says that it is ready"));
        }
        let did = "it does not answer any more";
        Ok(if already { Fired::already(did) } else { Fired::new(did) })
    }

    pub(super) fn undo_api_server(&self) -> Result<String> {
        self.api_start()?;
        Ok("the API server answers again".into())
    }

    /// Another annotation of their pods is all that is new: the agents are replaced as an upgrade replaces them.
    pub(super) fn fire_upgrade(&self) -> Result<Fired> {
        let before = self.agent_pods()?;
        let chart = Self::source_tree().join("charts/discovery").display().to_string();
        let new = format!("podAnnotations.nemesis=at-{}", boottime_ns());
        let words = ["upgrade", "discovery", &chart, "--namespace", NAMESPACE, "--reuse-values"];
        self.helm(&[&words[..], &["--set-string", &new]].concat())?;
        let mut now = BTreeSet::new();
        let wait = wait_for("Helm's upgrade to replace an agent", REPLACED_WITHIN, "", || {
            now = self.agent_pods().unwrap_or_default();
            now.difference(&before).next().is_some()
        });
        wait.map_err(|error| not_fired("upgrade of the agents", &error.to_string()))?;
        let others = now.difference(&before).count();
        Ok(Fired::new(format!("{others} of {} agents is another so far", before.len())))
    }

    fn agent_pods(&self) -> Result<BTreeSet<String>> {
        let label = "app.kubernetes.io/component=agent";
        let path = "jsonpath={range .items[*]}{.metadata.uid} {end}";
        let words = ["get", "pods", "--namespace", NAMESPACE, "-l", label, "-o", path];
        Ok(self.kubectl(&words)?.split_whitespace().map(str::to_owned).collect())
    }
}

fn not_fired(fault: &str, detail: &str) -> LabError {
    LabError::NotFired { fault: fault.into(), detail: detail.into() }
}
