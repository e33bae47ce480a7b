//! What becomes of VMs on nodes that are gone. A silent node is no dead node: its VMs run elsewhere only once a majority of
//! its guardians has proven that its lease is over, so that none of them runs there any more (I1). Until then, and where
//! nobody can prove it, they are waited for.

use std::collections::BTreeMap;

use super::ledger::{has_ended, owe};
use super::moves::{self, Next};
use super::status;
use super::veh::{Rooms, Veh};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, VmId};
use crate::engine::lease::Lease;
use crate::engine::record::{MoveStep, VeRecord};
use crate::engine::report::{Failover, FailoverStep, MoveProgress};
use crate::engine::spec::{MemberSpec, OnNodeCrash};

impl Veh {
    /// A node says which lease its VMs are to be bound to: it holds it, and whatever they were bound to before it holds too,
    /// or has ended. It has said so under this order.
    pub(super) fn bind(
        &mut self,
        node: &NodeName,
        (lease, order): (Option<Lease>, u64),
        rooms: &mut Rooms<'_>,
    ) {
        // One that is over binds nothing: its node has not found out yet, and says that it has another when it has.
        let lease = lease.filter(|lease| !rooms.fences.knows_over(lease));
        let (Some(lease), Some(record)) = (lease, rooms.registers.read(&self.ve)) else { return };
        let disk = rooms.disk_of(node);
        // A node is told anew when it has another lease: what it said with its former disk, and comes late, answers an older order.
        let newest = self.sent.get(node).is_some_and(|sent| order >= sent.order);
        let news = match record.leases.get(node) {
            None => is_used(record, node),
            Some(old) if old.holder == lease.holder => lease.epoch > old.epoch,
            Some(_) if has(Bug::OtherDiskVouches) => disk == Some(lease.holder.disk),
            // Another disk knows nothing of what the former one let run: only where nobody could take it over is its word
            // enough.
            Some(old) => !old.is_guarded() && newest && disk == Some(lease.holder.disk),
        };
        if news {
            let node = node.clone();
            rooms.registers.change(&self.ve, |record| {
                record.leases.insert(node, lease);
            });
        }
    }

    /// Looks after nodes that are silent, or have come back without what they knew: asks for the proof that their leases are
    /// over, and takes over what was on them when it is there.
    pub(super) fn follow_the_silent(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        if record.leases.keys().any(|node| !is_used(record, node)) {
            rooms.registers.change(&self.ve, |record| {
                let used: Vec<NodeName> =
                    record.leases.keys().filter(|node| is_used(record, node)).cloned().collect();
                record.leases.retain(|node, _| used.contains(node));
            });
        }
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let gone = |node: &NodeName, lease: &Lease| {
            let other_disk = rooms.disk_of(node).is_some_and(|disk| disk != lease.holder.disk);
            !rooms.is_live(node) || other_disk
        };
        let gone: Vec<(NodeName, Lease)> = record
            .leases
            .iter()
            .filter(|(node, lease)| gone(node, lease))
            .map(|(node, lease)| (node.clone(), lease.clone()))
            .collect();
        let (over, silent): (Vec<_>, Vec<_>) =
            gone.into_iter().partition(|(_, lease)| rooms.fences.is_over(lease, ctx.now));
        for (node, _) in &over {
            self.take_over_from(node, rooms, ctx);
        }
        self.note_silent(&silent, rooms, ctx);
        self.free_those_that_wait(rooms, ctx);
    }

    /// VMs that waited for their node, as declared, and by now are not to: nothing of them runs there, as no lease binds them.
    fn free_those_that_wait(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let gone = |node: &NodeName| !record.leases.contains_key(node) && !rooms.is_live(node);
        let free = record.placements.iter().filter(|(id, placement)| {
            let rests = placement.active && placement.moving.is_none();
            rests && gone(&placement.node) && !stays_with_its_node(record, id)
        });
        let mut free_by_node: BTreeMap<NodeName, Vec<VmId>> = BTreeMap::new();
        for (id, placement) in free {
            free_by_node.entry(placement.node.clone()).or_default().push(id.clone());
        }
        for (node, ids) in free_by_node {
            self.tell_failed_over(&node, &ids, rooms, ctx);
            self.note_lost(&node, &ids, ctx.now);
            rooms.registers.change(&self.ve, |record| {
                record.placements.retain(|id, _| !ids.contains(id));
                record.lost.extend(ids);
                // What it has of them is removed when it is back.
                owe(record, &node);
            });
            self.placing_may_go_on(ctx.now);
        }
    }

    fn tell_failed_over(
        &self,
        node: &NodeName,
        ids: &[VmId],
        rooms: &Rooms<'_>,
        ctx: &mut Context,
    ) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let name = &record.declared.name;
        let names: Vec<String> = ids.iter().map(|id| name.vm(id)).collect();
        let message = format!(
            "{node} is gone, and what ran there has ended for certain: {} of it placed anew: {}",
            status::count(names.len()),
            status::some(&names)
        );
        let told = |vm: &String| (format!("{}/{vm}", name.namespace), node.clone());
        let step = FailoverStep::Proven;
        let failover = Failover { step, vms: names.iter().map(told).collect() };
        ctx.happened_in((&self.ve, name), true, "FailedOver", message, Some(failover));
    }

    fn take_over_from(&mut self, node: &NodeName, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let name = record.declared.name.clone();
        let here = record.placements.iter().filter(|(_, p)| p.node == *node && p.moving.is_none());
        let (stay, go): (Vec<VmId>, Vec<VmId>) =
            here.map(|(id, _)| id.clone()).partition(|id| stays_with_its_node(record, id));
        if !go.is_empty() {
            self.tell_failed_over(node, &go, rooms, ctx);
        }
        if !stay.is_empty() {
            let declared = record.declared.spec.recovery.on_node_crash == OnNodeCrash::Leave;
            let (reason, waits) = if declared {
                ("WaitsForNode", "waits for it to come back, as declared (recovery.onNodeCrash)")
            } else {
                ("WaitsForDisks", "and the only copy of its disks wait for it to come back")
            };
            let names: Vec<String> = stay.iter().map(|id| name.vm(id)).collect();
            let message = format!("{node} is gone; {} {waits}", status::some(&names));
            ctx.happened((&self.ve, &name), true, reason, message);
        }
        let whole = record.declared.spec.recovery.on_node_crash == OnNodeCrash::RestartVe;
        let whole = whole && !(go.is_empty() && stay.is_empty());
        self.note_lost(node, &go, ctx.now);
        rooms.registers.change(&self.ve, |record| {
            record.leases.remove(node);
            has_ended(record, node, |_| true);
            record.placements.retain(|id, _| !go.contains(id));
            record.lost.extend(go);
            if stay.is_empty() {
                record.owing.retain(|owing| owing != node);
            }
        });
        self.forget_node(node);
        self.placing_may_go_on(ctx.now);
        if whole {
            self.restart_whole(format!("{node} is gone"), rooms, ctx);
        }
    }

    /// A migration of which an end is gone for certain: its lease is over, and no longer in the record.
    pub(super) fn next_without_an_end(
        &self,
        record: &VeRecord,
        id: &VmId,
        step: MoveStep,
        (source, target): (&NodeName, &NodeName),
    ) -> Option<Next> {
        let seen_at_target = self.observed(target, id);
        let (source_gone, target_gone) =
            (!record.leases.contains_key(source), !record.leases.contains_key(target));
        match (step, source_gone, target_gone) {
            (MoveStep::Preparing | MoveStep::Clearing, true, _) => Some(Next::Lost),
            (MoveStep::Going | MoveStep::Halting, true, true) => Some(Next::Lost),
            (MoveStep::Going | MoveStep::Halting, true, false) => {
                if seen_at_target.is_some_and(moves::has_it) {
                    Some(Next::Arrived)
                } else {
                    // Only its own word, given since, tells that it has nothing.
                    self.has_confirmed(target).then_some(Next::Lost)
                }
            }
            (MoveStep::Preparing | MoveStep::Clearing, false, true) => {
                Some(Next::Over(format!("{target} is gone")))
            }
            (MoveStep::Going, false, true) => Some(Next::Step(MoveStep::Halting)),
            (MoveStep::Halting, false, true) => match self.observed(source, id).map(|s| &s.moved) {
                Some(MoveProgress::Left | MoveProgress::NotHere) => Some(Next::Lost),
                Some(MoveProgress::Stayed(_)) => Some(Next::Over(format!("{target} is gone"))),
                _ => None,
            },
            (_, false, false) => None,
        }
    }
}

/// Whether a node may hold something of an environment.
fn is_used(record: &VeRecord, node: &NodeName) -> bool {
    let placed = record.placements.values().any(|placement| {
        let to = placement.moving.as_ref().map(|moving| &moving.to);
        placement.node == *node || to == Some(node)
    });
    placed || record.owing.contains(node)
}

/// A VM that is not started elsewhere when its node is gone.
fn stays_with_its_node(record: &VeRecord, id: &VmId) -> bool {
    let declared = record.declared.spec.recovery.on_node_crash == OnNodeCrash::Leave;
    declared || stays_with_its_disks(record, id)
}

/// A VM with a disk that was made empty has what is on it nowhere else: it waits for its node, and is not started without.
pub(super) fn stays_with_its_disks(record: &VeRecord, id: &VmId) -> bool {
    let mut members = record.declared.spec.members.iter();
    let member: Option<&MemberSpec> = members.find(|member| member.name == id.member);
    member.is_some_and(|member| member.disks.iter().any(|disk| disk.image.is_none()))
}
