//! What becomes of an engine's effects: records to disk, messages to the network, commands to the host, calls to the API server.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::world::{Event, World};
use crate::engine::effect::{Action, ClusterAction, Effects, HypervisorCommand};
use crate::engine::host::{DomainSeen, Failure, FailureKind};
use crate::engine::id::{NodeName, VmId};
use crate::engine::input::{ClusterInput, HypervisorInput, Input};
use crate::engine::record::{Kept, Record};
use crate::engine::replica::Replica;
use crate::engine::wire::Message;

/// Somebody switches a machine on again that was switched off, this long after.
const SWITCHED_ON_AFTER: Duration = Duration::from_secs(30);

impl World {
    /// What is on disk may be said and done.
    pub(super) fn carry_out(&mut self, name: &NodeName, effects: Effects) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        let mut registers = Vec::new();
        for record in effects.persist {
            match record {
                Record::Put(kept) => {
                    if let Kept::Register(acceptor) = &*kept {
                        registers.push(acceptor.ve.clone());
                    }
                    node.disk.insert(kept.key(), *kept);
                }
                Record::Forget(key) => {
                    node.disk.remove(&key);
                }
            }
        }
        let (life, boot) = (node.life, node.boot);
        registers.iter().for_each(|ve| self.check_remembered(ve));
        for action in effects.actions {
            match action {
                Action::Send { to, message } => {
                    if let Message::Declared { uid, generation, deleting, .. } = &*message {
                        self.acknowledge(uid, (*generation, *deleting));
                    }
                    for delay in self.network.carry(name, &to, &mut self.rng) {
                        let (from, to, message) = (name.clone(), to.clone(), message.clone());
                        self.push(delay, Event::Deliver { from, to, message });
                    }
                }
                Action::Hypervisor { request, command } => {
                    let delay = Duration::from_millis(self.rng.random_range(20..400));
                    let delay = self.after_those_before((name, life), command.vm(), delay);
                    let (node, command) = (name.clone(), Box::new(command));
                    self.push(delay, Event::Command { node, boot, request, command, life });
                }
                Action::Guard(allowance) => self.tell_guard(name, boot, allowance),
                Action::SwitchOff { holder, epoch } => {
                    let takes = self.power_switch.and_then(Result::ok).unwrap_or_default();
                    let (by, holder) = (name.clone(), Box::new(holder));
                    self.push(takes, Event::SwitchOff { by, life, holder, epoch });
                }
                Action::Cluster(ClusterAction::Happened(happening)) => {
                    if !self.keeps_little {
                        self.happened.push((self.now, name.clone(), happening));
                    }
                }
                Action::Cluster(ClusterAction::ReportSilent(silent)) => {
                    self.silent.insert(name.clone(), silent);
                }
                // Its own calls reach the API server in order.
                Action::Cluster(action @ ClusterAction::WatchVes(_)) => {
                    let (from, action) = (name.clone(), Box::new(action));
                    self.push(Duration::ZERO, Event::Api { from, action });
                }
                Action::Cluster(ClusterAction::ReportVe(report)) => {
                    // The rim writes the newest report of an environment, however old the attempt.
                    self.acknowledge(&report.uid, (report.observed_generation, false));
                    let (uid, name) = (report.uid.clone(), name.clone());
                    self.reports.insert((name.clone(), uid), (*report).clone());
                    let action = Box::new(ClusterAction::ReportVe(report));
                    let delay = Duration::from_micros(self.rng.random_range(500..5_000));
                    self.push(delay, Event::Api { from: name, action });
                }
                Action::Cluster(action) => {
                    if let ClusterAction::ReleaseVe { uid, .. } = &action {
                        self.check_released(name, uid);
                    }
                    let delay = Duration::from_micros(self.rng.random_range(500..5_000));
                    let (from, action) = (name.clone(), Box::new(action));
                    self.push(delay, Event::Api { from, action });
                }
            }
        }
    }

    /// What one life of an agent wants done with one VM is done in its order, as in `libvirt`.
    fn after_those_before(
        &mut self,
        (node, life): (&NodeName, u64),
        vm: &VmId,
        delay: Duration,
    ) -> Duration {
        let at = self.now + delay;
        let last = self.commanded.entry((node.clone(), vm.clone())).or_insert((life, at));
        let at = if last.0 == life { at.max(last.1) } else { at };
        *last = (life, at);
        at.since(self.now)
    }

    /// A machine is switched off, if it was not off already, and on again by somebody a while later.
    pub(super) fn switch_off(&mut self, (by, life): (&NodeName, u64), holder: Replica, epoch: u64) {
        let result = match self.power_switch {
            Some(Err(why)) => Err(why.to_owned()),
            _ => Ok(()),
        };
        let is_on = self.nodes.get(&holder.node).is_some_and(|node| {
            node.engine.is_some() || node.frozen || node.host.running().next().is_some()
        });
        if result.is_ok() && is_on {
            self.switched_off += 1;
            self.power_off(&holder.node);
            self.start_after(&holder.node, SWITCHED_ON_AFTER);
        }
        if self.nodes.get(by).is_some_and(|node| node.life == life) {
            self.handle(by, Input::Switched { holder, epoch, result });
        }
    }

    pub(super) fn api_call(&mut self, from: &NodeName, action: ClusterAction) {
        if !self.api.answers(from) {
            // The rim retries for as long as it takes.
            if !matches!(action, ClusterAction::WatchVes(_) | ClusterAction::ClaimReplicaSet { .. })
            {
                let (from, action) = (from.clone(), Box::new(action));
                self.push(Duration::from_secs(1), Event::Api { from, action });
            }
            return;
        }
        match action {
            ClusterAction::WatchVes(true) => {
                self.api.watchers.insert(from.clone());
                let all = self.api.list();
                let live = all.iter().map(|declared| declared.uid.clone()).collect();
                for declared in all {
                    self.watched(from, ClusterInput::Ve(Box::new(declared)));
                }
                self.watched(from, ClusterInput::VesListed { live });
            }
            ClusterAction::WatchVes(false) => {
                self.api.watchers.remove(from);
            }
            ClusterAction::ClaimReplicaSet { uid, resource_version, replicas, .. } => {
                if let Some(seen) = self.api.claim(&uid, &resource_version, replicas) {
                    self.show(seen);
                }
            }
            ClusterAction::ReportVe(report) => {
                let newest = self.reports.remove(&(from.clone(), report.uid.clone()));
                if let Some(seen) = newest.and_then(|report| self.api.report(report)) {
                    self.show(seen);
                }
            }
            ClusterAction::ReportNoMajority { uid, message, .. } => {
                if let Some(seen) = self.api.report_no_majority(&uid, message) {
                    self.show(seen);
                }
            }
            ClusterAction::ReleaseVe { uid, .. } => {
                if self.api.release(&uid) && !self.api.keeps_from_watches(&uid) {
                    self.show_gone(&uid);
                }
            }
            ClusterAction::ReportNode(_)
            | ClusterAction::ReportSilent(_)
            | ClusterAction::Happened(_) => {}
        }
    }

    /// A hypervisor comes to a command.
    pub(super) fn command(
        &mut self,
        (node, life, request): (NodeName, u64, u64),
        command: &HypervisorCommand,
    ) {
        if matches!(command, HypervisorCommand::Expect { .. })
            && self.nodes.get(&node).is_some_and(|state| state.life != life)
        {
            // It is the agent itself that admits migrations.
            return;
        }
        let id = command.vm().clone();
        let (refuses, denies) = self.command_faults;
        let fails = |rng: &mut ChaCha8Rng, chance: f64| chance > 0.0 && rng.random_bool(chance);
        let failure = |kind, message: &str| Err(Failure { kind, message: message.to_owned() });
        if fails(&mut self.rng, refuses) {
            self.commands_failed += 1;
            let refused = failure(FailureKind::Refused, "the hypervisor refuses");
            return self.command_done(&node, (life, request), id, refused);
        }
        let Some(state) = self.nodes.get_mut(&node) else { return };
        let result = state.host.carry_out(command, &mut self.starts);
        self.machines_changed = true;
        if state.guard.lapsed && !state.guard.is_away() {
            self.end_all(&node);
        }
        if let Ok(shown) = &result
            && fails(&mut self.rng, denies)
        {
            self.commands_failed += 1;
            let shown = match shown.clone() {
                Some(seen) => HypervisorInput::Domain(seen),
                None => HypervisorInput::DomainGone(id.clone()),
            };
            let late = failure(FailureKind::TimedOut, "the hypervisor does not answer in time");
            self.command_done(&node, (life, request), id, late);
            return self.handle(&node, Input::Hypervisor(shown));
        }
        self.command_done(&node, (life, request), id, result);
    }

    /// A command has ended.
    pub(super) fn command_done(
        &mut self,
        node: &NodeName,
        (life, request): (u64, u64),
        id: VmId,
        result: Result<Option<DomainSeen>, Failure>,
    ) {
        let input = match result {
            _ if self.nodes.get(node).is_some_and(|state| state.life == life) => {
                HypervisorInput::Done { request, id, result }
            }
            // An earlier life asked for it: the present one sees only what came of it.
            Ok(Some(seen)) => HypervisorInput::Domain(seen),
            Ok(None) => HypervisorInput::DomainGone(id),
            Err(_) => return,
        };
        self.handle(node, Input::Hypervisor(input));
    }
}
