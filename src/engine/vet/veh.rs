//! VEH: the handler of one virtual environment. It makes the record (what is declared, where each VM is)
//! true on the nodes, by orders that each node repeats back until both agree.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keepers::Keepers;
use super::ledger::{has_ended, leases_agree, leaves, missing, owe, problem, trim};
use super::losses::Losses;
use super::moves::{self, Moves};
use super::orders::{REPEAT_AFTER, REPEAT_MAX, Sent};
use super::recovery::Restarts;
use super::register::Registers;
use super::status;
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::dnt::Dnt;
use crate::engine::effect::ClusterAction;
use crate::engine::id::{NodeName, VeUid, VmId};
use crate::engine::lease::Lease;
use crate::engine::lease::fence::Fences;
use crate::engine::lrt::Lrt;
use crate::engine::lrt::procedure::{Aim, Ended, Leases, Request};
use crate::engine::record::{Placement, Start, VeRecord};
use crate::engine::replica::{DiskId, Replica};
use crate::engine::report::{FailoverStep, VeReport, VmObserved, VmPhase};
use crate::engine::time::Instant;
use crate::engine::wire::OrderedVm;

/// An environment that does not fit is tried again after this time even when nothing is heard of room.
const RETRY_FIT: Duration = Duration::from_secs(10);

/// Why it is not placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wait {
    /// It does not fit.
    CannotFit(String),
    /// Other procedures are in the way; passes by itself.
    Contended(String),
}

/// The handler of one environment; its record is in the register.
#[derive(Debug)]
pub struct Veh {
    pub(super) ve: VeUid,
    pub(super) sent: BTreeMap<NodeName, Sent>,
    pub(super) observed: BTreeMap<NodeName, (u64, Vec<VmObserved>)>,
    /// Why it waits, and when it is tried again.
    wait: Option<(Wait, Instant)>,
    contentions: u32,
    /// Nodes that empty themselves, and VMs that are to move.
    pub(super) moves: Moves,
    /// Who keeps the record.
    pub(super) keepers: Keepers,
    /// Silent nodes, and VMs of lost ones.
    pub(super) losses: Losses,
    /// Restarts of the whole environment.
    pub(super) restarts: Restarts,
    /// Nothing has been done since the agent started: a record from disk may ask for something.
    fresh: bool,
    reported: Option<VeReport>,
    again: bool,
    was_ready: Option<i64>,
}

/// What a node says of itself to a handler.
#[derive(Debug)]
pub struct Told {
    /// The newest order it has on disk.
    pub order: u64,
    /// It empties itself.
    pub leaving: bool,
    /// The lease that its VMs are to be bound to.
    pub lease: Option<Lease>,
    /// The VMs that it holds.
    pub vms: Vec<VmObserved>,
}

/// The other rooms, as far as a handler may use them.
pub struct Rooms<'a> {
    /// The records.
    pub registers: &'a mut Registers,
    /// Placement.
    pub lrt: &'a mut Lrt,
    /// Who is alive.
    pub dnt: &'a Dnt,
    /// Whose lease is over.
    pub fences: &'a mut Fences,
}

impl Rooms<'_> {
    /// The disk that a node has now, if it answers.
    pub(super) fn disk_of(&self, node: &NodeName) -> Option<DiskId> {
        let own = self.registers.own();
        if own.node == *node {
            return Some(own.disk);
        }
        self.dnt.state_of(node).map(|state| state.disk)
    }

    /// Whether a node is this one, or is believed alive.
    pub(super) fn is_live(&self, node: &NodeName) -> bool {
        self.registers.own().node == *node || self.dnt.is_live(node)
    }

    /// This replica answers, with the disk that is meant.
    pub(super) fn is_there(&self, replica: &Replica) -> bool {
        self.registers.own() == replica || self.dnt.is_there(replica)
    }

    /// The zone of a node that answers, or of this one, which is `own`; empty if it has none, or is silent.
    pub(super) fn zone_of(&self, node: &NodeName, own: &NodeName) -> String {
        if node == own {
            return self.lrt.zone();
        }
        self.dnt.state_of(node).map(|state| state.zone.clone()).unwrap_or_default()
    }
}

impl Veh {
    /// A handler that has sent and heard nothing yet.
    #[must_use]
    pub fn new(ve: VeUid) -> Self {
        Self {
            ve,
            sent: BTreeMap::new(),
            observed: BTreeMap::new(),
            wait: None,
            contentions: 0,
            moves: Moves::default(),
            keepers: Keepers::default(),
            losses: Losses::default(),
            restarts: Restarts::default(),
            fresh: true,
            reported: None,
            again: false,
            was_ready: None,
        }
    }

    /// Why it waits to be placed.
    #[must_use]
    pub fn wait(&self) -> Option<&Wait> {
        self.wait.as_ref().map(|(wait, _)| wait)
    }

    /// The status as last reported.
    #[must_use]
    pub fn reported(&self) -> Option<&VeReport> {
        self.reported.as_ref()
    }

    /// Another agent, which handled it before, has written its status since.
    pub fn report_again(&mut self) {
        self.again = true;
    }

    /// What its node last said of a VM.
    #[must_use]
    pub fn observed(&self, node: &NodeName, id: &VmId) -> Option<&VmObserved> {
        let (_, vms) = self.observed.get(node)?;
        vms.iter().find(|vm| vm.id == *id)
    }

    /// Whether this node has confirmed the newest order.
    #[must_use]
    pub fn has_confirmed(&self, node: &NodeName) -> bool {
        self.sent.get(node).is_some_and(|sent| sent.confirmed)
    }

    /// Whether this node has confirmed that it holds nothing of a VM.
    pub(super) fn has_forgotten(&self, node: &NodeName, id: &VmId, record: &VeRecord) -> bool {
        if self.observed(node, id).is_some() {
            return false;
        }
        match self.sent.get(node) {
            Some(sent) => sent.confirmed && sent.vms.iter().all(|vm| vm.definition.id != *id),
            None => !record.owing.contains(node),
        }
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        if self.fresh {
            return Some(Instant::ZERO);
        }
        let repeats = self.sent.values().map(|sent| sent.repeat_at);
        let moves = self.moves.next_wakeup();
        let others = moves.into_iter().chain(self.keepers.next_wakeup());
        let others = others.chain(self.losses.next_wakeup());
        let others = others.chain(self.restarts.next_wakeup());
        repeats.chain(self.wait.as_ref().map(|(_, at)| *at)).chain(others).min()
    }

    /// Room may have appeared: a wait for room ends at `at`, a moment from now.
    pub fn hurry(&mut self, soon: Instant) {
        if let Some((Wait::CannotFit(_), at)) = &mut self.wait {
            *at = soon.min(*at);
        }
        self.moves.hurry(soon);
    }

    /// What kept placing from going on is over.
    pub(super) fn placing_may_go_on(&mut self, now: Instant) {
        if let Some((_, at)) = &mut self.wait {
            *at = now;
        }
    }

    /// A node is gone: nothing that it said counts any more.
    pub(super) fn forget_node(&mut self, node: &NodeName) {
        self.sent.remove(node);
        self.observed.remove(node);
    }

    /// A node came back: it is told again, and so tells what it has.
    pub fn came_back(&mut self, node: &NodeName, now: Instant) {
        if let Some(sent) = self.sent.get_mut(node) {
            sent.confirmed = false;
            sent.repeat_at = now;
            sent.tries = 0;
        }
    }

    /// A node says what it does for this environment.
    pub fn hear(
        &mut self,
        from: &NodeName,
        Told { order, leaving, lease, vms }: Told,
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        self.moves.note_leaving(from, leaving);
        self.bind(from, (lease, order), rooms);
        if self.observed.get(from).is_some_and(|(newest, _)| *newest > order) {
            return;
        }
        let held: BTreeMap<VmId, u64> = vms
            .iter()
            .filter(|vm| vm.phase != VmPhase::Waiting)
            .map(|vm| (vm.id.clone(), vm.epoch))
            .collect();
        let in_doubt = vms.iter().any(|vm| vm.promised);
        let empty = vms.is_empty();
        self.observed.insert(from.clone(), (order, vms));
        self.note_recovered(from, rooms, ctx);
        if !empty {
            rooms.registers.change(&self.ve, |record| owe(record, from));
        }
        if in_doubt && !rooms.lrt.is_placing(&self.ve) {
            // A promise whose procedure is over: a newer order decides it.
            self.sent.remove(from);
        }
        let Some(sent) = self.sent.get_mut(from) else { return };
        if order < sent.order {
            return;
        }
        let due = sent.repeat_at;
        // A node that is to hold nothing has done so when it holds nothing: its last word may be lost, and
        // it has no reason to repeat it.
        sent.answered(!sent.vms.is_empty() || empty, ctx.now);
        self.confirmed(from, &held, empty, rooms, ctx);
        let behind = |vm: &OrderedVm| {
            let seen = self.observed(from, &vm.definition.id);
            seen.is_some_and(|seen| seen.accepted != vm.definition.revision)
        };
        let lags = self.sent.get(from).is_some_and(|sent| sent.vms.iter().any(behind));
        if lags && let Some(sent) = self.sent.get_mut(from) {
            // It had no room for a larger definition; ask again in a while, however often it speaks until then.
            sent.repeat_at = due.min(ctx.now + REPEAT_MAX);
        }
        let held = |vm: &OrderedVm| {
            let seen = self.observed(from, &vm.definition.id);
            vm.run && vm.start == Start::Free && seen.is_some_and(|seen| seen.held)
        };
        let held = self.sent.get(from).is_some_and(|sent| sent.vms.iter().any(held));
        if held && let Some(sent) = self.sent.get_mut(from) {
            // Its agent has restarted since.
            sent.repeat_at = due.min(ctx.now + REPEAT_AFTER);
        }
    }

    /// A node has carried out the newest order: what it does not hold now, it does not hold.
    fn confirmed(
        &mut self,
        from: &NodeName,
        held: &BTreeMap<VmId, u64>,
        empty: bool,
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let here = record.placements.iter().filter(|(_, placement)| placement.node == *from);
        let lost: Vec<VmId> = here
            .filter(|(id, placement)| held.get(*id).is_none_or(|epoch| *epoch != placement.epoch))
            .map(|(id, _)| id.clone())
            .collect();
        if !lost.is_empty() {
            let name = record.declared.name.clone();
            let names: Vec<_> = lost.iter().map(|id| name.vm(id)).collect();
            let message = format!("{from} no longer has {}: placed anew", names.join(", "));
            ctx.happened((&self.ve, &name), true, "Lost", message);
        }
        rooms.registers.change(&self.ve, |record| {
            record.placements.retain(|id, _| !lost.contains(id));
            // It has another one of that name, which it has to end first.
            lost.iter().filter(|id| held.contains_key(*id)).for_each(|id| leaves(record, id, from));
            record.lost.extend(lost);
            has_ended(record, from, |id| !held.contains_key(id));
            let placed = record.placements.values().any(|placement| placement.node == *from);
            if moves::is_target(record, from) {
                // Its word decides the move, also one that it has nothing.
                owe(record, from);
            } else if empty && !placed {
                record.owing.retain(|node| node != from);
            }
        });
        let owes = rooms.registers.read(&self.ve).is_some_and(|r| r.owing.contains(from));
        if !owes {
            self.sent.remove(from);
            self.observed.remove(from);
        }
    }

    /// A procedure for this environment has ended.
    pub fn placed(
        &mut self,
        request: &Request,
        ended: Ended,
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        if matches!(request.aim, Aim::Move { .. }) {
            return self.move_ended(request, ended, rooms, ctx);
        }
        match ended {
            Ended::Committed(assignment, leases) => {
                self.wait = None;
                self.contentions = 0;
                self.commit(request, (&assignment, leases), rooms, ctx);
            }
            Ended::CannotFit(why) => {
                self.contentions = 0;
                let known = matches!(self.wait(), Some(Wait::CannotFit(old)) if *old == why);
                if !known && let Some(record) = rooms.registers.read(&self.ve) {
                    let name = record.declared.name.clone();
                    ctx.happened((&self.ve, &name), true, "CannotBePlaced", why.clone());
                }
                self.wait = Some((Wait::CannotFit(why), ctx.now + RETRY_FIT));
            }
            Ended::Contended(why) => {
                self.contentions += 1;
                let most = 50 << self.contentions.min(5);
                let pause = ctx.jitter(10, most);
                // What did not fit before still shows as the reason, until it is known better.
                if !matches!(self.wait(), Some(Wait::CannotFit(_))) {
                    self.wait = Some((Wait::Contended(why), ctx.now + pause));
                } else if let Some((_, at)) = &mut self.wait {
                    *at = ctx.now + pause;
                }
            }
        }
    }

    fn commit(
        &mut self,
        request: &Request,
        (assignment, leases): (&BTreeMap<VmId, NodeName>, Leases),
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        if !leases_agree(rooms.registers.read(&self.ve), &leases) {
            // Its promises are decided by the next orders.
            let why = "a node came back with another disk".to_owned();
            self.wait = Some((Wait::Contended(why), ctx.now + RETRY_FIT));
            return;
        }
        let epochs: BTreeMap<&VmId, u64> =
            request.problem.vms.iter().map(|vm| (&vm.id, vm.epoch)).collect();
        let zone = |node: &NodeName| (node.clone(), rooms.zone_of(node, &ctx.node));
        let zones: BTreeMap<NodeName, String> = assignment.values().map(zone).collect();
        rooms.registers.change(&self.ve, |record| {
            record.leases.extend(leases);
            for (id, node) in assignment {
                let epoch = epochs.get(id).copied().unwrap_or(record.epoch);
                let zone = zones.get(node).cloned().unwrap_or_default();
                let node = node.clone();
                owe(record, &node);
                let placement = Placement { node, zone, epoch, active: true, moving: None };
                record.placements.insert(id.clone(), placement);
                record.lost.remove(id);
            }
            record.committed = request.generation;
        });
        if let Some(record) = rooms.registers.read(&self.ve) {
            let name = record.declared.name.clone();
            let places: Vec<_> =
                assignment.iter().map(|(id, node)| format!("{} on {node}", name.vm(id))).collect();
            let message =
                format!("placed {}: {}", status::count(places.len()), status::some(&places));
            let failover = self.losses.step(FailoverStep::Placed, &name, assignment.keys());
            ctx.happened_in((&self.ve, &name), false, "Placed", message, failover);
        }
    }

    /// Brings the record, the procedures and the orders in line with what is declared.
    pub fn reconcile(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let fresh = std::mem::take(&mut self.fresh);
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        if fresh && record.committed == record.declared.generation {
            // Another handler, or this one before a restart, has told.
            self.was_ready = Some(record.committed);
        }
        if record.tombstone {
            // Nothing is left to do but to have that chosen.
            let keepers = std::mem::take(&mut self.keepers);
            *self = Self { fresh: false, keepers, ..Self::new(self.ve.clone()) };
            return self.look_after_keepers(rooms, ctx);
        }
        let runs = record.declared.is_to_run();
        if !runs {
            rooms.lrt.withdraw(&self.ve, ctx);
            self.wait = None;
            self.moves.rest();
            self.restarts.rest();
        }
        self.follow_the_silent(rooms, ctx);
        self.follow_moves(rooms, ctx);
        rooms.registers.change(&self.ve, trim);
        if runs {
            self.follow_restart(rooms, ctx);
            self.place_missing(rooms, ctx);
            self.plan_move(rooms, ctx);
        }
        self.give_orders(rooms, ctx);
        self.look_after_keepers(rooms, ctx);
        self.bury(rooms, ctx);
        self.report(rooms, ctx);
    }

    fn place_missing(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let due = self.wait.as_ref().is_none_or(|(_, at)| *at <= ctx.now);
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let missing = missing(record);
        if missing.is_empty() {
            self.wait = None;
            return;
        }
        let may_run = missing.iter().any(|id| self.may_still_run(record, id));
        if may_run || rooms.lrt.is_placing(&self.ve) || moves::in_motion(record) {
            // The procedure's end, or the move's, or a node's word sets the next time; until then there is nothing to wake up for.
            if due && let Some((_, at)) = &mut self.wait {
                *at = ctx.now + RETRY_FIT;
            }
            return;
        }
        if !due {
            return;
        }
        // The number that will decide these promises is written before they are asked for, so that a
        // handler that comes back from a crash decides them with a newer one.
        rooms.registers.change(&self.ve, |record| {
            record.order += 1;
            record.epoch += 1;
        });
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let problem = problem(record, &missing, rooms);
        rooms.lrt.place(Request {
            ve: self.ve.clone(),
            generation: record.declared.generation,
            priority: self.contentions,
            order: record.order,
            replicas: record.set.members.iter().map(|member| member.node.clone()).collect(),
            problem,
            aim: Aim::Place,
        });
        if let Some((_, at)) = &mut self.wait {
            *at = ctx.now + RETRY_FIT;
        }
    }

    /// Whether a VM that is to be placed may run where it was before: its node is still ending it, or silent.
    fn may_still_run(&self, record: &VeRecord, id: &VmId) -> bool {
        let stops = |placement: &Placement| {
            let seen = self.observed(&placement.node, id);
            !self.has_confirmed(&placement.node)
                || seen.is_some_and(|seen| seen.phase == VmPhase::Stopping)
        };
        record.former.contains_key(id) || record.placements.get(id).is_some_and(stops)
    }

    /// Deleted, and every node has confirmed that nothing is left: the end.
    fn bury(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let owed = !record.owing.is_empty() && !has(Bug::BuriedAlive);
        if !record.declared.deleting || owed {
            return;
        }
        let (name, gone) = (record.declared.name.clone(), record.declared.gone);
        rooms.registers.change(&self.ve, |record| {
            record.tombstone = true;
            record.declared.spec.members.clear();
            record.declared.spec.placement.clear();
        });
        if !gone {
            let message = "every VM and disk is gone".to_owned();
            ctx.happened((&self.ve, &name), false, "Deleted", message);
            ctx.cluster(ClusterAction::ReleaseVe { uid: self.ve.clone(), name });
        }
    }

    fn report(&mut self, rooms: &Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        if record.tombstone || record.declared.gone {
            return;
        }
        let placing = rooms.lrt.is_placing(&self.ve);
        let live = |node: &NodeName| *node == ctx.node || rooms.dnt.is_live(node);
        let round = rooms.registers.round(&self.ve);
        let making = rooms.lrt.making_room(&self.ve);
        let report = status::of(record, self, round, (placing, making), rooms, &live);
        let runs = record.declared.is_to_run();
        if report.ready.holds && runs && self.was_ready != Some(record.declared.generation) {
            let message = report.ready.message.clone();
            ctx.happened((&self.ve, &record.declared.name), false, "Started", message);
            self.was_ready = Some(record.declared.generation);
        }
        let again = std::mem::take(&mut self.again);
        if again || self.reported.as_ref() != Some(&report) {
            let told = VeReport { again, ..report.clone() };
            ctx.cluster(ClusterAction::ReportVe(Box::new(told)));
            self.reported = Some(report);
        }
    }
}
