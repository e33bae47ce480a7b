//! What a handler tells each node: all that is to be there of its environment, again and again until the node repeats it back.

use std::collections::BTreeMap;
use std::time::Duration;

use super::ledger::{definition, revision};
use super::moves;
use super::veh::{Rooms, Veh};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, VmId};
use crate::engine::record::{Placement, Start, VeRecord};
use crate::engine::report::VmPhase;
use crate::engine::time::Instant;
use crate::engine::wire::{Message, Order, OrderedVm};

/// An order that is not confirmed by then is repeated.
pub(super) const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Longest pause between repetitions.
pub(super) const REPEAT_MAX: Duration = Duration::from_secs(10);
/// A node that holds VMs says so each ten seconds. One that was not heard for so long may take another node for their handler.
const UNHEARD_AFTER: Duration = Duration::from_secs(30);

/// An order as last sent to a node.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) order: u64,
    pub(super) lease: u64,
    open: u64,
    pub(super) vms: Vec<OrderedVm>,
    /// The node has said what there is under this order, or a newer one.
    pub(super) confirmed: bool,
    /// When the node is told again, if nothing new was heard of it.
    pub(super) repeat_at: Instant,
    pub(super) tries: u32,
}

impl Sent {
    /// The node has said what there is under this order. `all`: as it is to be.
    pub(super) fn answered(&mut self, all: bool, now: Instant) {
        self.confirmed = all;
        if all {
            self.repeat_at = now + UNHEARD_AFTER;
        }
    }
}

impl Veh {
    /// Sends each node what is to be there, when that has changed.
    pub(super) fn give_orders(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let turn = self.turn(record, rooms);
        let open = if rooms.lrt.is_placing(&self.ve) { record.epoch } else { 0 };
        let mut wanted: BTreeMap<NodeName, Vec<OrderedVm>> =
            record.owing.iter().map(|node| (node.clone(), Vec::new())).collect();
        for (id, placement) in &record.placements {
            if let Some(definition) = definition(record, id, placement.epoch) {
                let may_restart = turn.as_ref() == Some(id);
                let (run, transit) = (placement.active, moves::part_of_source(placement));
                let start = self.start_of(record, (id, placement), rooms);
                let vm = OrderedVm { definition, run, may_restart, start, transit };
                wanted.entry(placement.node.clone()).or_default().push(vm);
            }
            if let Some((node, vm)) = moves::part_of_target(record, id, placement) {
                wanted.entry(node).or_default().push(vm);
            }
        }
        for (node, vms) in wanted {
            let leases = rooms.registers.read(&self.ve).map(|record| &record.leases);
            let lease = leases.and_then(|leases| leases.get(&node)).map_or(0, |lease| lease.epoch);
            if self.sent.get(&node).is_none_or(|sent| sent.vms != vms || sent.lease != lease) {
                rooms.registers.change(&self.ve, |record| record.order += 1);
                let order = rooms.registers.read(&self.ve).map_or(0, |record| record.order);
                let (confirmed, repeat_at) = (false, ctx.now);
                let sent = Sent { order, lease, open, vms, confirmed, repeat_at, tries: 0 };
                self.sent.insert(node, sent);
            }
        }
        let handler = ctx.node.clone();
        for (node, sent) in &mut self.sent {
            if sent.repeat_at <= ctx.now {
                let pause = REPEAT_AFTER * 2_u32.saturating_pow(sent.tries.min(8));
                sent.repeat_at = ctx.now + pause.min(REPEAT_MAX);
                sent.tries += 1;
                let order = Order {
                    ve: self.ve.clone(),
                    handler: handler.clone(),
                    order: sent.order,
                    lease: sent.lease,
                    open: sent.open,
                    vms: sent.vms.clone(),
                };
                ctx.send(node, Message::Order(Box::new(order)));
            }
        }
    }

    /// The one VM that may be restarted now to follow a changed definition: the first that lags, when
    /// every other is up. Stays with a VM until it is through.
    fn turn(&self, record: &VeRecord, rooms: &Rooms<'_>) -> Option<VmId> {
        let mut first = None;
        if record.placements.values().any(|placement| placement.moving.is_some()) {
            return None;
        }
        let target = |id: &VmId| revision(record, id);
        let mut active = record.placements.iter().filter(|(_, placement)| placement.active);
        let begun = active.clone().find(|(id, placement)| {
            let seen = self.observed(&placement.node, id);
            self.may_restart(&placement.node, id, target(id))
                && seen.is_some_and(|seen| seen.revision != target(id))
        });
        if let Some((id, _)) = begun {
            return Some(id.clone());
        }
        if !active.clone().all(|(_, p)| self.is_up_to_date(&p.node) || !rooms.is_live(&p.node)) {
            // What its node was told before may let a VM restart still.
            return None;
        }
        active.try_for_each(|(id, placement)| {
            let seen = self.observed(&placement.node, id)?;
            let lags = seen.revision != target(id) && seen.accepted == target(id);
            if lags && first.is_none() {
                first = Some(id.clone());
                return Some(());
            }
            matches!(seen.phase, VmPhase::Running | VmPhase::Completed).then_some(())
        })?;
        first
    }

    /// Whether a node was told that it may restart a VM to follow this revision.
    fn may_restart(&self, node: &NodeName, id: &VmId, revision: i64) -> bool {
        let vms = self.sent.get(node).map(|sent| sent.vms.as_slice()).unwrap_or_default();
        vms.iter().any(|vm| {
            vm.may_restart && vm.definition.id == *id && vm.definition.revision == revision
        })
    }

    /// Whether the newest order lets a VM start.
    pub(super) fn was_let(&self, id: &VmId, placement: &Placement) -> bool {
        let sent = self.sent.get(&placement.node);
        let vms = sent.map(|sent| sent.vms.as_slice()).unwrap_or_default();
        vms.iter().any(|vm| {
            let is_it = vm.definition.id == *id && vm.definition.epoch == placement.epoch;
            is_it && vm.start == Start::Free
        })
    }

    /// Whether what a node last said was said under the newest order.
    pub(super) fn is_up_to_date(&self, node: &NodeName) -> bool {
        let heard = self.observed.get(node).map_or(0, |(order, _)| *order);
        self.sent.get(node).is_none_or(|sent| heard >= sent.order)
    }
}
