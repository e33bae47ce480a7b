//! What the hypervisor tells, handed to the VMs that it concerns.

use std::collections::BTreeSet;

use super::Lrt;
use super::vmh::{Outcome, Vmh};
use crate::engine::context::Context;
use crate::engine::host::{DomainSeen, Failure};
use crate::engine::id::VmId;
use crate::engine::input::HypervisorInput;
use crate::engine::record::VmGoal;
use crate::engine::wire::Message;

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
                    vmh.progress(message);
                    self.dirty.insert(id.ve);
                }
            }
            HypervisorInput::Loads(_) | HypervisorInput::Migrated { .. } => {}
            HypervisorInput::Done { request, id, result } => self.done(request, &id, result, ctx),
        }
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
        self.synced = true;
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
        let Some(vmh) = self.vms.get_mut(id) else { return };
        self.dirty.insert(id.ve.clone());
        if vmh.done(request, result, ctx) == Outcome::Gone {
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
            if !self.vms.keys().any(|other| other.ve == id.ve) {
                self.orders.remove(&id.ve);
                self.dirty.remove(&id.ve);
                let ve = id.ve.clone();
                ctx.send(&handler, Message::Observed { ve, order, vms: Vec::new() });
            }
        }
    }
}
