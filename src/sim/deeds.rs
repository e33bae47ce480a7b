//! What people and fate do to a world: agents that start and end, machines without power, manifests, guests.

use std::time::Duration;

use super::faults::AGREE_WITHIN;
use super::guard::Guard;
use super::world::{Event, SAMPLE_EVERY, World};
use crate::engine::effect::HypervisorCommand;
use crate::engine::guard::GuardInput;
use crate::engine::host::{DomainState, PauseCause, StopCause, VmLoad};
use crate::engine::id::{NodeName, VeName, VeUid, VmId};
use crate::engine::input::{ClusterInput, HypervisorInput, Input, NodeDeclared};
use crate::engine::lrt::relief::THRESHOLD_S;
use crate::engine::lrt::transit::MigrationLimits;
use crate::engine::spec::{VeSpec, VmDefinition};
use crate::engine::{Config, Engine};

impl World {
    /// Starts a node's agent from what is on its disk.
    pub fn start_agent(&mut self, name: &NodeName) {
        let (now, seed, watchdog) = (self.now, self.seed, self.watchdog);
        let mut others = self.names();
        others.retain(|n| n != name && !self.shut_out.contains(&(name.clone(), n.clone())));
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.engine.is_some() || node.frozen {
            return;
        }
        node.life += 1;
        let salt = name.as_str().bytes().fold(node.life, |sum, byte| sum * 257 + u64::from(byte));
        let config = Config {
            node: name.clone(),
            seed: seed ^ salt,
            threshold_s: Some(THRESHOLD_S),
            goal: self.goal,
            failover: self.failover,
            times: self.times,
            limits: MigrationLimits::default(),
            replicas: self.replicas,
            can_switch_off: self.power_switch.is_some(),
        };
        let kept = node.disk.values().cloned().collect();
        let (engine, effects) = Engine::recover(config, kept, node.clock.local(now));
        node.engine = Some(engine);
        let (declared, stalled) = (node.declared.clone(), node.host.stalled);
        let guarded = !node.guard.is_away();
        node.guard.called = !guarded;
        self.commit(name, effects);
        if !stalled {
            self.show_hypervisor(name);
        }
        let reachable = self.api.answers(name);
        let cluster = [ClusterInput::Reachable(reachable), ClusterInput::ThisNode(declared)];
        let guard = guarded.then_some(Input::Guard(GuardInput::Connected { watchdog }));
        let inputs = cluster.map(Input::Cluster).into_iter().chain(guard);
        for input in inputs.chain(others.into_iter().map(Input::PeerKnown)) {
            self.handle(name, input);
        }
    }

    /// The hypervisor answers an agent that has begun.
    pub(super) fn show_hypervisor(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get(name) else { return };
        let inputs = [
            HypervisorInput::Host(node.host.info()),
            HypervisorInput::Available(true),
            HypervisorInput::Domains(node.host.list()),
        ];
        for input in inputs {
            self.handle(name, Input::Hypervisor(input));
        }
    }

    /// Ends a node's agent at once; its domains go on. What its hypervisor was told to start comes to run all the same. It is shown
    /// by now: agents define a VM before they start it (`libvirt/commands.rs`), and one that has ended does neither.
    pub fn kill_agent(&mut self, name: &NodeName) {
        let starting: Vec<VmDefinition> = self.starting(name).cloned().collect();
        if let Some(node) = self.nodes.get_mut(name) {
            starting.iter().for_each(|definition| node.host.define(definition));
            node.engine = None;
            node.wake_at = None;
            node.life += 1;
            node.driver.end();
            node.host.expect_nothing();
        }
        self.api.watchers.remove(name);
    }

    /// What a node's hypervisor has been told to run, and has not come to.
    pub(super) fn starting(&self, name: &NodeName) -> impl Iterator<Item = &VmDefinition> {
        let at = self.nodes.get(name).filter(|node| !node.host.stalled).map(|node| node.boot);
        self.queue.values().filter_map(move |event| match event {
            Event::Command { node, boot, command, .. } if node == name && Some(*boot) == at => {
                match &**command {
                    HypervisorCommand::Run(definition) => Some(&**definition),
                    _ => None,
                }
            }
            _ => None,
        })
    }

    /// A node's agent ends in order, when peers and guard agree to its absence or after a while; its domains go on. Tells whether
    /// they did.
    pub fn end_agent(&mut self, name: &NodeName, absence: Duration) -> bool {
        self.handle(name, Input::GoAway(absence));
        let may_go = |world: &Self| world.engine(name).is_none_or(Engine::may_go);
        let agreed = self.run_while_not(AGREE_WITHIN, may_go);
        self.kill_agent(name);
        agreed
    }

    /// A node loses its power: agent and guests end, its disk stays.
    pub fn power_off(&mut self, name: &NodeName) {
        self.kill_agent(name);
        let (now, boot_clocks) = (self.now, self.boot_clocks);
        self.machines_changed = true;
        if let Some(node) = self.nodes.get_mut(name) {
            node.boot += 1;
            node.host.power_off();
            node.guard = Guard::default();
            node.frozen = false;
            node.deferred.clear();
            node.commands.clear();
            if boot_clocks {
                node.clock.begin_anew(now);
            }
        }
    }

    /// A person applies an environment.
    pub fn apply(&mut self, uid: &VeUid, name: &VeName, spec: VeSpec) {
        let seen = self.api.apply(uid, name, spec);
        self.show(seen);
    }

    /// A person deletes an environment.
    pub fn delete(&mut self, uid: &VeUid) {
        if let Some(seen) = self.api.delete(uid) {
            self.show(seen);
        }
    }

    /// A person changes what is declared of a node.
    pub fn declare_node(&mut self, name: &NodeName, change: impl FnOnce(&mut NodeDeclared)) {
        if let Some(node) = self.nodes.get_mut(name) {
            change(&mut node.declared);
            let declared = node.declared.clone();
            self.handle(name, Input::Cluster(ClusterInput::ThisNode(declared)));
        }
    }

    /// A guest stops by itself. Tells whether there was one.
    pub fn stop_guest(&mut self, name: &NodeName, id: &VmId, cause: StopCause) -> bool {
        self.disturb(name, id, DomainState::Stopped(cause))
    }

    /// A guest's processors are paused, as by an error of its disk. Tells whether they ran.
    pub fn pause_guest(&mut self, name: &NodeName, id: &VmId) -> bool {
        self.disturb(name, id, DomainState::Paused(PauseCause::DiskError))
    }

    fn disturb(&mut self, name: &NodeName, id: &VmId, state: DomainState) -> bool {
        let seen = self.host_mut(name).and_then(|host| host.disturb(id, state));
        let fired = seen.is_some();
        if let Some(seen) = seen {
            self.handle(name, Input::Hypervisor(HypervisorInput::Domain(seen)));
        }
        fired
    }

    /// A guest uses so much of a processor, thousandths, from now on. The first call begins the sampling of loads.
    pub fn set_load(&mut self, id: &VmId, cpu_milli: u64) {
        if self.loads.is_empty() {
            self.push(SAMPLE_EVERY, Event::Sample);
        }
        self.loads.insert(id.clone(), cpu_milli);
    }

    /// Every hypervisor tells what its guests use.
    pub(super) fn sample(&mut self) {
        self.push(SAMPLE_EVERY, Event::Sample);
        for name in self.names() {
            let Some(host) = self.host(&name) else { continue };
            let loads = host.running().map(|(id, size)| VmLoad {
                id: id.clone(),
                cpu_milli: self.loads.get(id).copied().unwrap_or(0),
                memory: size.memory,
                dirty: None,
            });
            let loads: Vec<VmLoad> = loads.collect();
            if !loads.is_empty() {
                self.handle(&name, Input::Hypervisor(HypervisorInput::Loads(loads)));
            }
        }
    }

    /// Somebody undefines a domain. Tells whether there was one.
    pub fn undefine(&mut self, name: &NodeName, id: &VmId) -> bool {
        let fired = self.host_mut(name).is_some_and(|host| host.undefine(id));
        if fired {
            self.handle(name, Input::Hypervisor(HypervisorInput::DomainGone(id.clone())));
        }
        fired
    }

    /// The API server goes, or comes back: then watches begin anew.
    pub fn set_api_away(&mut self, away: bool) {
        self.api.away = away;
        self.api.watchers.clear();
        for name in self.names() {
            let reachable = self.api.answers(&name);
            self.handle(&name, Input::Cluster(ClusterInput::Reachable(reachable)));
        }
    }
}
