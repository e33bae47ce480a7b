//! Orders: what the handler of an environment says is to be on this node, made the goals of its VMs.

use std::collections::BTreeSet;

use super::vmh::Vmh;
use super::{Lrt, solver};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::effect::{Action, HypervisorCommand};
use crate::engine::id::{NodeName, VeUid, VmId};
use crate::engine::record::{Promise, Start, Transit, VmGoal, VmRecord};
use crate::engine::spec::{Resources, VmDefinition};
use crate::engine::wire::{Message, Order, OrderedVm};

impl Lrt {
    /// The handler of an environment says what is to be here.
    pub fn order(&mut self, order: Order, ctx: &mut Context) {
        let newest = self.orders.get(&order.ve).copied().unwrap_or(0);
        if order.order < newest && !has(Bug::OldOrderObeyed) {
            self.dirty.insert(order.ve);
            return;
        }
        let here = self.vms.keys().filter(|id| id.ve == order.ve).cloned();
        let here: BTreeSet<VmId> = here.collect();
        let listed: BTreeSet<&VmId> = order.vms.iter().map(|vm| &vm.definition.id).collect();
        for id in here.iter().filter(|id| !listed.contains(id)) {
            self.unlisted(id, &order, ctx);
        }
        for vm in &order.vms {
            self.listed(vm, &order, ctx);
        }
        let strays: Vec<_> = self.strays.keys().filter(|id| id.ve == order.ve).cloned().collect();
        for id in strays {
            self.take_in(&id, &order, ctx);
        }
        if self.vms.keys().any(|id| id.ve == order.ve) {
            self.orders.insert(order.ve.clone(), order.order);
            self.dirty.insert(order.ve);
        } else {
            self.tell_nothing_left(&order.ve, (&order.handler, order.order), ctx);
        }
    }

    /// The last word to a handler: nothing of its environment is here, nor a domain that nobody knows.
    pub(super) fn tell_nothing_left(
        &mut self,
        ve: &VeUid,
        (handler, order): (&NodeName, u64),
        ctx: &mut Context,
    ) {
        let mut left = self.vms.keys().chain(self.strays.keys());
        if !self.shown || left.any(|id| id.ve == *ve) {
            return;
        }
        self.orders.remove(ve);
        self.dirty.remove(ve);
        let (ve, leaving) = (ve.clone(), self.is_leaving());
        let (lease, vms) = (self.permit.newest.clone(), Vec::new());
        ctx.send(handler, Message::Observed { ve, order, leaving, lease, vms });
    }

    fn unlisted(&mut self, id: &VmId, order: &Order, ctx: &mut Context) {
        let Some(vmh) = self.vms.get_mut(id) else { return };
        vmh.record.handler = order.handler.clone();
        if let Some(promise) = &vmh.record.promise {
            if !promise.is_decided_by(order.order, order.open) {
                return;
            }
            vmh.record.promise = None;
        }
        if vmh.record.goal == VmGoal::Absent {
            self.drop_vm(id, ctx);
        } else {
            vmh.record.order = order.order;
            let definition = vmh.record.definition.clone();
            vmh.obey(definition, VmGoal::Remove, ctx);
            vmh.take_part(Transit::None, ctx);
        }
    }

    fn listed(&mut self, vm: &OrderedVm, order: &Order, ctx: &mut Context) {
        let free = self.free();
        let Some(vmh) = self.vms.get_mut(&vm.definition.id) else { return };
        vmh.record.handler = order.handler.clone();
        vmh.record.order = order.order;
        vmh.record.lease = order.lease;
        vmh.may_restart = vm.may_restart;
        let redeems = vmh.record.promise.as_ref().is_some_and(|promise| {
            promise.definition.epoch == vm.definition.epoch
                && promise.is_decided_by(order.order, order.open)
        });
        if redeems && let Some(promise) = vmh.record.promise.take() {
            // Its room becomes the VM's own; what the order asks beyond it is judged below.
            vmh.obey(promise.definition, goal(vm), ctx);
        }
        let decided = |promise: &Promise| promise.is_decided_by(order.order, order.open);
        if vmh.record.promise.as_ref().is_some_and(decided) {
            vmh.record.promise = None;
        }
        if vmh.record.goal == VmGoal::Absent || vmh.record.definition.epoch != vm.definition.epoch {
            // Not the VM that is here: only a promise brings a VM to a node.
            return;
        }
        if matches!(vmh.record.goal, VmGoal::Stop | VmGoal::Remove) && vm.run {
            // What does not run holds no room: it comes back through a promise too.
            return;
        }
        vmh.let_start(vm.start);
        let size = |vm: &VmDefinition| Resources::of(vm.cpus, vm.memory);
        let more = size(&vm.definition).minus(&vmh.record.held());
        if vm.run && more != Resources::default() && !free.holds(&more) {
            vmh.refused = Some(format!(
                "keeps its old size: {} more memory and {} more cpus are needed on {}, {} is free",
                solver::bytes(more.memory),
                more.cpu_milli / 1000,
                ctx.node,
                solver::bytes(free.memory)
            ));
            // All else of the order holds: it may have arrived, or have to leave.
            let as_it_is = vmh.record.definition.clone();
            vmh.obey(as_it_is, goal(vm), ctx);
            vmh.take_part(vm.transit.clone(), ctx);
            return;
        }
        vmh.refused = None;
        vmh.obey(vm.definition.clone(), goal(vm), ctx);
        vmh.take_part(vm.transit.clone(), ctx);
    }

    /// A domain without a record (the journal was lost): it is the VM that the order lists, or it goes.
    fn take_in(&mut self, id: &VmId, order: &Order, ctx: &mut Context) {
        if self.vms.contains_key(id) {
            return;
        }
        let Some(stray) = self.strays.remove(id) else { return };
        let listed = order.vms.iter().find(|vm| vm.definition.id == *id);
        let Some(definition) = listed.or(order.vms.first()).map(|vm| vm.definition.clone()) else {
            // Nothing of this environment is to be here.
            if self.commands_allowed() {
                self.next_request += 1;
                let (request, command) = (self.next_request, HypervisorCommand::Remove(id.clone()));
                ctx.out.actions.push(Action::Hypervisor { request, command });
            }
            self.strays.insert(id.clone(), stray);
            return;
        };
        let running = stray.may_run().then_some(stray.size);
        let takes = Resources::of(definition.cpus, definition.memory);
        let fits = self.free().holds(&running.map_or(takes, |running| takes.largest(&running)));
        let is_it = listed.is_some_and(|vm| vm.definition.epoch == stray.epoch && vm.run) && fits;
        let mut vmh = Vmh::new(VmRecord {
            definition: VmDefinition { id: id.clone(), ..definition },
            goal: if is_it { VmGoal::Run } else { VmGoal::Remove },
            promise: None,
            handler: order.handler.clone(),
            lease: order.lease,
            order: order.order,
            running,
            completed: false,
            crashed: false,
            start: Start::Free,
            restarts: 0,
            transit: Transit::None,
        });
        vmh.observe(Some(stray), ctx);
        vmh.keep(ctx);
        self.vms.insert(id.clone(), vmh);
    }
}

fn goal(vm: &OrderedVm) -> VmGoal {
    match &vm.transit {
        Transit::Arriving { .. } => VmGoal::Arrive,
        _ if vm.run => VmGoal::Run,
        _ => VmGoal::Stop,
    }
}
