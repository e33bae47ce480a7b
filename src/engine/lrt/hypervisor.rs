//! What the hypervisor tells, handed to the VMs that it concerns.

use std::collections::BTreeSet;

use super::relief::Input;
use super::vmh::{Outcome, Vmh};
use super::{Lrt, solver};
use crate::engine::context::Context;
use crate::engine::host::{DomainSeen, Failure, MigrationFigures};
use crate::engine::id::{NodeName, VmId};
use crate::engine::input::HypervisorInput;
use crate::engine::record::{Transit, VmGoal};
use crate::engine::report::MoveProgress;

impl Lrt {
    /// The hypervisor tells.
    pub fn hypervisor(&mut self, input: HypervisorInput, ctx: &mut Context) {
        match input {
            HypervisorInput::Host(host) => self.host = Some(host),
            HypervisorInput::Available(available) => self.set_available(available, ctx),
            HypervisorInput::Domain(seen) => self.seen(seen, ctx),
            HypervisorInput::DomainGone(id) => {
                self.strays.remove(&id);
                if let Some(vmh) = self.vms.get_mut(&id) {
                    self.dirty.insert(id.ve.clone());
                    vmh.observe(None, ctx);
                }
            }
            HypervisorInput::Domains(all) => self.full_pass(all, ctx),
            HypervisorInput::Progress { id, message } => {
                if let Some(vmh) = self.vms.get_mut(&id) {
                    vmh.progress(message, ctx.now);
                    self.dirty.insert(id.ve);
                }
            }
            HypervisorInput::Loads(samples) => self.loads(samples, ctx),
            HypervisorInput::Migrated { id, figures } => self.migrated(&id, figures, ctx),
            HypervisorInput::Done { request, id, result } => self.done(request, &id, result, ctx),
        }
    }

    /// A VM has left: for people.
    fn migrated(&self, id: &VmId, figures: MigrationFigures, ctx: &mut Context) {
        let Some(vmh) = self.vms.get(id) else { return };
        let Transit::Leaving { to, why, .. } = &vmh.record.transit else { return };
        let name = &vmh.record.definition.ve;
        let message = format!(
            "{} moved from {} to {to} ({}): took {:.1} s, stood still for {} ms, {} sent",
            name.vm(id),
            ctx.node,
            why.word(),
            figures.took_ms as f64 / 1000.0,
            figures.downtime_ms,
            solver::bytes(figures.sent)
        );
        ctx.happened((&id.ve, name), false, "Moved", message);
    }

    /// The handler of a VM that is to leave says why it cannot.
    pub fn stays(&mut self, from: &NodeName, id: &VmId, why: String, ctx: &mut Context) {
        let leaving = self.is_leaving();
        let Some(vmh) = self.vms.get_mut(id).filter(|vmh| vmh.record.handler == *from) else {
            return;
        };
        if leaving && vmh.record.goal == VmGoal::Run && !vmh.in_transit() {
            vmh.cannot_leave = Some(why);
            self.dirty.insert(id.ve.clone());
        }
        self.relieve(Input::NotMoved(id.clone()), ctx);
    }

    fn set_available(&mut self, available: bool, ctx: &mut Context) {
        if self.available != available {
            let reason = if available { "HypervisorReady" } else { "HypervisorAway" };
            let text = if available {
                "the hypervisor answers again"
            } else {
                "the hypervisor does not answer; VMs that run go on, none can be started"
            };
            ctx.node_happened(!available, reason, text.into());
        }
        self.available = available;
        if available {
            self.vms.values_mut().for_each(Vmh::hurry);
        } else {
            self.synced = false;
        }
    }

    fn seen(&mut self, seen: DomainSeen, ctx: &mut Context) {
        self.dirty.insert(seen.id.ve.clone());
        match self.vms.get_mut(&seen.id) {
            Some(vmh) => vmh.observe(Some(seen), ctx),
            None => {
                if self.strays.insert(seen.id.clone(), seen.clone()).is_none() {
                    let text =
                        format!("domain {} ({}) belongs to nothing known here", seen.uuid, seen.id);
                    ctx.node_happened(true, "StrayDomain", text);
                }
            }
        }
    }

    fn full_pass(&mut self, all: Vec<DomainSeen>, ctx: &mut Context) {
        (self.synced, self.shown) = (true, true);
        let shown: BTreeSet<VmId> = all.iter().map(|seen| seen.id.clone()).collect();
        self.strays.retain(|id, _| shown.contains(id));
        for seen in all {
            self.seen(seen, ctx);
        }
        for (id, vmh) in self.vms.iter_mut().filter(|(id, _)| !shown.contains(id)) {
            if vmh.domain.is_some() {
                self.dirty.insert(id.ve.clone());
            }
            vmh.observe(None, ctx);
        }
    }

    fn done(
        &mut self,
        request: u64,
        id: &VmId,
        result: Result<Option<DomainSeen>, Failure>,
        ctx: &mut Context,
    ) {
        let Some(vmh) = self.vms.get_mut(id) else {
            if matches!(result, Ok(None)) {
                self.strays.remove(id);
            }
            return;
        };
        self.dirty.insert(id.ve.clone());
        let outcome = vmh.done(request, result, ctx);
        if vmh.moved == MoveProgress::Left && outcome != Outcome::Gone {
            return self.unwatch(id, ctx);
        }
        if outcome == Outcome::Gone {
            let Some(vmh) = self.vms.get_mut(id) else { return };
            let (handler, order) = (vmh.record.handler.clone(), vmh.record.order);
            if vmh.record.promise.is_some() || vmh.record.goal != VmGoal::Remove {
                // It was removed, and is promised or ordered to come back as another placement.
                if vmh.record.goal == VmGoal::Remove {
                    vmh.record.goal = VmGoal::Absent;
                }
                vmh.record.running = None;
                vmh.domain = None;
                vmh.keep(ctx);
                return;
            }
            self.drop_vm(id, ctx);
            self.tell_nothing_left(&id.ve, (&handler, order), ctx);
        }
    }
}
