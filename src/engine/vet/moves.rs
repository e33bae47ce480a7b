//! Live migrations of an environment's VMs: which is to move, and what becomes of each.
//!
//! The handler decides every step, and writes it into the record before it orders it ([`MoveStep`]); the two nodes only
//! carry out and tell. Nothing but the source's own word that it does not have the VM makes the target's the one that runs,
//! and nothing but the target's that it has nothing lets the source act again (I1): a node that is silent is waited for.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::ledger::{definition, leases_agree, owe, problem, revision};
use super::veh::{Rooms, Veh};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::host::DomainSeen;
use crate::engine::id::{NodeName, VmId};
use crate::engine::lrt::procedure::{Aim, Ended, Request};
use crate::engine::record::{MoveReason, MoveStep, Moving, Placement, Start, Transit, VeRecord};
use crate::engine::report::{MoveProgress, VmObserved, VmPhase};
use crate::engine::spec::Constraint;
use crate::engine::time::Instant;
use crate::engine::wire::{Message, OrderedVm};

/// A VM that found no place, or whose move failed, is tried again after this time.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// What a node asks for is begun within this time, or not at all: what it was to bring about has been brought about otherwise since.
const ASKED_FOR: Duration = Duration::from_secs(60);

/// A VM that is to make room for others is tried so often in a row while its target is in another partition.
const ROOM_TRIES: u32 = 6;

/// What a handler knows of moves that are not in its record.
#[derive(Debug, Default)]
pub struct Moves {
    leaving: BTreeSet<NodeName>,
    /// Nodes that VMs' nodes ask to have them moved to, why, and until when.
    asked: BTreeMap<VmId, ((NodeName, MoveReason), Instant)>,
    /// VMs that could not move: why, and when they are tried again.
    stuck: BTreeMap<VmId, (String, Instant)>,
    contentions: u32,
}

impl Moves {
    /// A node says whether it empties itself.
    pub fn note_leaving(&mut self, node: &NodeName, leaving: bool) {
        if leaving {
            self.leaving.insert(node.clone());
        } else {
            self.leaving.remove(node);
        }
    }

    /// Nothing is to move while nothing is to run.
    pub fn rest(&mut self) {
        self.asked.clear();
        self.stuck.clear();
    }

    /// When one that could not move is to be tried again.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.stuck.values().map(|(_, at)| *at).min()
    }

    /// Those that are due are tried later.
    fn put_off(&mut self, now: Instant) {
        let due = self.stuck.values_mut().filter(|(_, at)| *at <= now);
        due.for_each(|(_, at)| *at = now + TRY_AGAIN);
    }

    /// Room may have appeared.
    pub fn hurry(&mut self, soon: Instant) {
        for (_, at) in self.stuck.values_mut() {
            *at = soon.min(*at);
        }
    }
}

/// What the node that a VM is on is to do about its migration.
#[must_use]
pub fn part_of_source(placement: &Placement) -> Transit {
    let Some(moving) = &placement.moving else { return Transit::None };
    match moving.step {
        MoveStep::Preparing => Transit::None,
        MoveStep::Going => {
            let (to, epoch, why) = (moving.to.clone(), moving.epoch, moving.why);
            Transit::Leaving { to, epoch, why }
        }
        MoveStep::Halting | MoveStep::Clearing => Transit::Halted,
    }
}

/// What the node that it moves to is to do, if anything.
#[must_use]
pub fn part_of_target(
    record: &VeRecord,
    id: &VmId,
    placement: &Placement,
) -> Option<(NodeName, OrderedVm)> {
    let moving = placement.moving.as_ref()?;
    if moving.step == MoveStep::Clearing {
        return None;
    }
    let definition = definition(record, id, moving.epoch)?;
    let transit = Transit::Arriving { from: placement.node.clone() };
    let start = Start::Free;
    let vm = OrderedVm { definition, run: true, may_restart: false, start, transit };
    Some((moving.to.clone(), vm))
}

/// A node is told to have a VM that is on its way to it.
pub(super) fn is_target(record: &VeRecord, node: &NodeName) -> bool {
    let mut all = record.placements.iter();
    all.any(|(id, placement)| {
        part_of_target(record, id, placement).is_some_and(|(to, _)| to == *node)
    })
}

/// A VM that is to move.
struct Wanted {
    id: VmId,
    from: NodeName,
    only: Option<NodeName>,
    why: MoveReason,
}

/// What a move comes to next.
pub(super) enum Next {
    Step(MoveStep),
    /// It is the target's.
    Arrived,
    /// It stays: why.
    Over(String),
    /// Its memory is lost with a node that is gone: it is placed anew.
    Lost,
}

impl Veh {
    /// A node asks to have one of its VMs moved to a node that would take it.
    pub fn asked_to_move(
        &mut self,
        from: &NodeName,
        id: &VmId,
        to: (NodeName, MoveReason),
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let here = record.placements.get(id).filter(|placement| placement.node == *from);
        let why = match here {
            None => "it is not that node's",
            Some(placement) if placement.moving.is_some() => "it is on its way already",
            _ if rooms.lrt.is_placing(&self.ve) => "its environment is being placed",
            Some(_) => {
                self.moves.stuck.remove(id);
                self.moves.asked.insert(id.clone(), (to, ctx.now + ASKED_FOR));
                return;
            }
        };
        ctx.send(from, Message::Stays { vm: id.clone(), why: why.into() });
    }

    /// Looks at what the two nodes of each move say, and takes the next step.
    pub(super) fn follow_moves(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let next: Vec<(VmId, Next)> = record
            .placements
            .iter()
            .filter_map(|(id, placement)| {
                let moving = placement.moving.as_ref()?;
                Some((id.clone(), self.next(record, id, (placement, moving), rooms)?))
            })
            .collect();
        for (id, next) in next {
            self.take_step(&id, next, rooms, ctx);
        }
    }

    fn next(
        &self,
        record: &VeRecord,
        id: &VmId,
        (placement, moving): (&Placement, &Moving),
        rooms: &Rooms<'_>,
    ) -> Option<Next> {
        let source = self.observed(&placement.node, id);
        let target = self.observed(&moving.to, id).filter(|seen| seen.epoch == moving.epoch);
        let ends = (&placement.node, &moving.to);
        if let Some(next) = self.next_without_an_end(record, id, moving.step, ends) {
            return Some(next);
        }
        let wanted = self.is_still_wanted(record, &placement.node, moving.why);
        let declared = revision(record, id);
        let (said, ordered) = match source {
            Some(seen) => (&seen.moved, seen.transit == part_of_source(placement)),
            None => (&MoveProgress::Open, false),
        };
        if has(Bug::MoveWithoutProof)
            && moving.step == MoveStep::Going
            && !rooms.is_live(&placement.node)
        {
            return Some(Next::Arrived);
        }
        match moving.step {
            MoveStep::Preparing => match target.map(|seen| &seen.moved) {
                _ if !wanted => Some(Next::Over("called off".into())),
                Some(MoveProgress::CannotArrive(why)) => Some(Next::Over(why.clone())),
                Some(MoveProgress::Ready)
                    if target.is_some_and(|seen| seen.accepted != declared) =>
                {
                    // What may run at the source by now may be larger than what was promised.
                    let refused = self.is_up_to_date(&moving.to);
                    let why = format!("{} has no room for what it has become", moving.to);
                    refused.then_some(Next::Over(why))
                }
                Some(MoveProgress::Ready) => Some(Next::Step(MoveStep::Going)),
                None if self.knows_nothing_of(&moving.to, id, moving.epoch) => {
                    Some(Next::Over(format!("{} has lost its promise", moving.to)))
                }
                _ if !rooms.is_live(&moving.to) => {
                    Some(Next::Over(format!("{} does not answer", moving.to)))
                }
                _ => None,
            },
            MoveStep::Going | MoveStep::Halting if ordered => match said {
                MoveProgress::Left => Some(Next::Arrived),
                MoveProgress::NotHere if target.is_some_and(has_it) => Some(Next::Arrived),
                // A handler that has just begun has not heard the target yet.
                MoveProgress::NotHere if !self.has_confirmed(&moving.to) => None,
                MoveProgress::NotHere | MoveProgress::Stayed(_) => {
                    Some(Next::Step(MoveStep::Clearing))
                }
                _ if moving.step == MoveStep::Going && !wanted => {
                    Some(Next::Step(MoveStep::Halting))
                }
                _ => None,
            },
            MoveStep::Going if !wanted => Some(Next::Step(MoveStep::Halting)),
            MoveStep::Going | MoveStep::Halting => None,
            MoveStep::Clearing => {
                let why = match said {
                    MoveProgress::Stayed(why) => why.clone(),
                    _ => "it ended on its way".into(),
                };
                self.has_forgotten(&moving.to, id, record).then_some(Next::Over(why))
            }
        }
    }

    /// A node has answered the very order that it is to have this VM, and does not have it: its records are lost.
    fn knows_nothing_of(&self, node: &NodeName, id: &VmId, epoch: u64) -> bool {
        let is_it = |vm: &OrderedVm| vm.definition.id == *id && vm.definition.epoch == epoch;
        let answered = self.sent.get(node).is_some_and(|s| s.confirmed && s.vms.iter().any(is_it));
        answered && self.is_up_to_date(node)
    }

    fn is_still_wanted(&self, record: &VeRecord, source: &NodeName, why: MoveReason) -> bool {
        let runs = record.declared.is_to_run() && record.restarting.is_none();
        // A handler that has just begun does not know yet whether the source still empties itself.
        let leaves = || self.moves.leaving.contains(source) || !self.observed.contains_key(source);
        runs && (why != MoveReason::Maintenance || leaves())
    }

    fn take_step(&mut self, id: &VmId, next: Next, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let change = |record: &mut VeRecord| {
            if matches!(next, Next::Lost) {
                record.placements.remove(id);
                record.lost.insert(id.clone());
            }
            let Some(placement) = record.placements.get_mut(id) else { return };
            match (&next, placement.moving.take()) {
                (Next::Step(step), Some(moving)) => {
                    placement.moving = Some(Moving { step: *step, ..moving });
                }
                (Next::Arrived, Some(Moving { to, zone, epoch, .. })) => {
                    *placement = Placement { node: to, zone, epoch, active: true, moving: None };
                }
                _ => {}
            }
        };
        let before = rooms.registers.read(&self.ve).and_then(|r| r.placements.get(id)).cloned();
        rooms.registers.change(&self.ve, change);
        if !matches!(next, Next::Step(_)) {
            self.placing_may_go_on(ctx.now);
        }
        if let (Next::Over(why), Some(before)) = (next, before) {
            self.moves.stuck.insert(id.clone(), (why.clone(), ctx.now + TRY_AGAIN));
            let Some(record) = rooms.registers.read(&self.ve) else { return };
            let name = record.declared.name.clone();
            let message = format!("{} stays on {}: {why}", name.vm(id), before.node);
            ctx.happened((&self.ve, &name), why != "called off", "MoveFailed", message);
            ctx.send(&before.node, Message::Stays { vm: id.clone(), why });
        }
    }

    /// Starts to look for a place for the next VM that is to move, if nothing else is being placed.
    pub(super) fn plan_move(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let Moves { leaving, asked, stuck, .. } = &mut self.moves;
        let on = |id: &VmId| record.placements.get(id).map(|placement| &placement.node);
        asked.retain(|id, (_, until)| on(id).is_some() && ctx.now < *until);
        stuck.retain(|id, _| asked.contains_key(id) || on(id).is_some_and(|n| leaving.contains(n)));
        if rooms.lrt.is_placing(&self.ve) || in_motion(record) {
            // Its end comes back here.
            stuck.values_mut().for_each(|(_, at)| *at = (*at).max(ctx.now + TRY_AGAIN));
            return;
        }
        let Some(next) = self.next_to_move(record, ctx.now) else {
            // Those that are due do not run at this moment: there is nothing to wake up for.
            self.moves.put_off(ctx.now);
            return;
        };
        let Wanted { id, from, only, why } = next;
        if let Some(bound) = bound(record, &id) {
            let text = format!("{bound} keeps it where it is");
            self.cannot_move(&id, (&from, why), (text, TRY_AGAIN), rooms, ctx);
            // Then the next one, until none is left to try.
            return self.plan_move(rooms, ctx);
        }
        let standing = Box::new(problem(record, &[], rooms));
        let aim = Aim::Move { from, only, why, standing };
        let change = |record: &mut VeRecord| {
            record.order += 1;
            record.epoch += 1;
        };
        rooms.registers.change(&self.ve, change);
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let request = Request {
            ve: self.ve.clone(),
            generation: record.declared.generation,
            priority: self.moves.contentions,
            order: record.order,
            replicas: record.set.members.iter().map(|member| member.node.clone()).collect(),
            problem: problem(record, std::slice::from_ref(&id), rooms),
            aim,
        };
        rooms.lrt.place(request);
    }

    fn next_to_move(&self, record: &VeRecord, now: Instant) -> Option<Wanted> {
        record.placements.iter().find_map(|(id, placement)| {
            let asked = self.moves.asked.get(id).map(|(to, _)| to);
            let empties = self.moves.leaving.contains(&placement.node);
            let (only, why) = match (asked, empties) {
                (_, true) => (None, MoveReason::Maintenance),
                (Some((to, why)), false) => (Some(to.clone()), *why),
                (None, false) => return None,
            };
            let due = self.moves.stuck.get(id).is_none_or(|(_, at)| *at <= now);
            let runs = self.observed(&placement.node, id).is_some_and(|seen| {
                seen.phase == VmPhase::Running && seen.epoch == placement.epoch
            });
            let free = placement.active && placement.moving.is_none();
            let wanted = Wanted { id: id.clone(), from: placement.node.clone(), only, why };
            (due && runs && free).then_some(wanted)
        })
    }

    /// The search for a place for one VM has ended.
    pub(super) fn move_ended(
        &mut self,
        request: &Request,
        ended: Ended,
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        let (Some(vm), Aim::Move { from, why, .. }) = (request.problem.vms.first(), &request.aim)
        else {
            return;
        };
        let id = vm.id.clone();
        let (text, pause) = match ended {
            Ended::Committed(assignment, leases) => {
                self.moves.contentions = 0;
                let Some(to) = assignment.get(&id).cloned() else { return };
                if !leases_agree(rooms.registers.read(&self.ve), &leases) {
                    // Its promise is decided by the next orders.
                    let text = format!("{to} came back with another disk");
                    return self.cannot_move(&id, (from, *why), (text, TRY_AGAIN), rooms, ctx);
                }
                self.moves.stuck.remove(&id);
                self.moves.asked.remove(&id);
                let step = MoveStep::Preparing;
                let zone = rooms.zone_of(&to, &ctx.node);
                let moving = Moving { to: to.clone(), zone, epoch: vm.epoch, step, why: *why };
                rooms.registers.change(&self.ve, |record| {
                    record.leases.extend(leases);
                    owe(record, &to);
                    let placement = record.placements.get_mut(&id);
                    if let Some(placement) = placement.filter(|p| p.node == *from && p.active) {
                        placement.moving = Some(moving);
                    }
                });
                return;
            }
            Ended::CannotFit(text) => {
                self.moves.contentions = 0;
                let making =
                    rooms.lrt.making_room(&self.ve).filter(|_| *why == MoveReason::Maintenance);
                (making.map_or(text.clone(), |making| format!("{text}; {making}")), TRY_AGAIN)
            }
            Ended::Contended(text) => {
                self.moves.contentions += 1;
                let most = 50 << self.moves.contentions.min(5);
                let pause = ctx.jitter(10, most);
                if *why == MoveReason::Room && self.moves.contentions < ROOM_TRIES {
                    // It is still wished; who wishes makes others wait for as short a time as they do.
                    self.moves.stuck.insert(id, (text, ctx.now + pause));
                    return;
                }
                (text, pause)
            }
        };
        self.cannot_move(&id, (from, *why), (text, pause), rooms, ctx);
    }

    /// A VM that is to move cannot now. Its node is told when it asked, or when the reason is a new one that lasts; people
    /// are told of those that keep a node from being emptied.
    fn cannot_move(
        &mut self,
        id: &VmId,
        (from, why): (&NodeName, MoveReason),
        (text, pause): (String, Duration),
        rooms: &mut Rooms<'_>,
        ctx: &mut Context,
    ) {
        let asked = self.moves.asked.remove(id).is_some();
        let known = self.moves.stuck.get(id).is_some_and(|(old, _)| *old == text);
        let news = !known && pause >= TRY_AGAIN;
        if asked || news {
            ctx.send(from, Message::Stays { vm: id.clone(), why: text.clone() });
        }
        if news
            && why == MoveReason::Maintenance
            && let Some(record) = rooms.registers.read(&self.ve)
        {
            let name = record.declared.name.clone();
            let message = format!("{} cannot leave {from}: {text}", name.vm(id));
            ctx.happened((&self.ve, &name), true, "CannotLeave", message);
        }
        self.moves.stuck.insert(id.clone(), (text, ctx.now + pause));
    }
}

/// The constraint that keeps a VM where it is, wherever else there may be room.
fn bound(record: &VeRecord, id: &VmId) -> Option<&'static str> {
    let constraints = record.declared.spec.placement.iter();
    constraints.filter(|c| c.forbids_moving(&id.member)).map(Constraint::name).next()
}

/// A VM is on its way, and constraints bind it to others: it may end up at either end, so nothing else is placed until it is
/// known where.
#[must_use]
pub fn in_motion(record: &VeRecord) -> bool {
    !record.declared.spec.placement.is_empty()
        && record.placements.values().any(|placement| placement.moving.is_some())
}

/// The target has the VM's domain, with its memory.
pub(super) fn has_it(seen: &VmObserved) -> bool {
    let domain = seen.domain.as_ref().filter(|domain| domain.epoch == seen.epoch);
    domain.is_some_and(DomainSeen::may_run)
}
