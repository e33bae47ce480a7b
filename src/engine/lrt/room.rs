//! Room for environments that wait: a procedure that found none wishes that VMs of others move, where that would let it in.
//!
//! ```text
//!   procedure ends: CannotFit ──plan──> MakeRoom(vm, to) to the VM's node ──Move──> the VM's handler ──> a move as any other
//!          ^                            not twice in 5 minutes, not one that has    which may refuse
//!          └──── tries again as ever ──── just come                   <──Stays──
//! ```
//!
//! Nothing is reserved meanwhile, and nobody waits for an answer: when the procedure runs again, what the nodes offer says what
//! came of it. A wish is never more than a live migration; nobody is stopped for it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::procedure::{Aim, Ended, Procedure};
use super::relief::protocol::Part;
use super::solver::{self, Wish};
use super::{Lrt, NodeOffer};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, VeName, VeUid, VmId};
use crate::engine::record::MoveReason;
use crate::engine::spec::Resources;
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// A node tells of so many of its VMs, at most.
pub const MAX_GUESTS: usize = 32;
/// Wishes are waited for so long before others take their place.
const WISHED_FOR: Duration = Duration::from_secs(60);
/// Where no plan was found it is thought about again after this time, and after twice as long each time that none is, up to
const THINK_AGAIN: Duration = Duration::from_secs(30);
/// so many doublings.
const MOST_DOUBLINGS: u32 = 3;
/// So often an environment wishes,
const MOST_ROUNDS: u32 = 8;
/// and then leaves the others alone for so long.
const REST: Duration = Duration::from_secs(600);
/// Wishes at the same time.
const MOST_WISHES: usize = 8;
/// A migration that is under way is waited for so long.
const MOVES_WITHIN: Duration = Duration::from_secs(600);
/// A VM that was asked, and is still here, is not asked again for so long: others may be asked meanwhile.
const ASKED_ONCE_IN: Duration = Duration::from_secs(300);
/// A VM that moves, or has moved, for others is not moved for its load for so long.
pub(super) const LEFT_ALONE: Duration = Duration::from_secs(60);

/// A VM of a node in a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guest {
    /// Which.
    pub id: VmId,
    /// Its environment's name, for people.
    pub ve: VeName,
    /// What it takes.
    pub size: Resources,
    /// Memory and disks, bytes: what a migration sends at most.
    pub bytes: u64,
    /// It may be asked to move. (Its handler decides.)
    pub movable: bool,
}

/// What an environment that waits has wished.
#[derive(Debug, Default)]
pub struct Making {
    wishes: Vec<Wish>,
    rounds: u32,
    /// How often in a row no plan was found.
    in_vain: u32,
    wished_at: Instant,
    again_at: Instant,
}

impl Lrt {
    /// This node's VMs that run, for a procedure: those first that may move, the smallest first.
    pub(super) fn guests(&self, now: Instant) -> Vec<Guest> {
        let guests = self.vms.values().filter(|vmh| vmh.is_settled()).map(|vmh| {
            let definition = &vmh.record.definition;
            let disks: u64 = definition.disks.iter().map(|disk| disk.size).sum();
            Guest {
                id: definition.id.clone(),
                ve: definition.ve.clone(),
                size: vmh.record.held(),
                bytes: definition.memory.saturating_add(disks),
                movable: vmh.may_make_room(now) && !self.is_in_relief(&definition.id),
            }
        });
        let mut guests: Vec<Guest> = guests.collect();
        guests.sort_by_key(|guest| (!guest.movable, guest.bytes));
        guests.truncate(MAX_GUESTS);
        guests
    }

    fn is_in_relief(&self, id: &VmId) -> bool {
        let part = self.relief.as_ref().and_then(|relief| relief.part());
        matches!(part, Some(Part::Asking { vm, .. } | Part::Sending { vm, .. }) if vm == id)
    }

    /// A procedure wishes that a VM of this node moves: its handler is asked, if it may be.
    pub fn asked_to_make_room(&mut self, id: &VmId, to: NodeName, ctx: &mut Context) {
        if to == ctx.node || self.is_leaving() || self.is_in_relief(id) {
            return;
        }
        let Some(vmh) = self.vms.get_mut(id).filter(|vmh| vmh.may_make_room(ctx.now)) else {
            return;
        };
        vmh.left_alone_until = ctx.now + ASKED_ONCE_IN;
        let handler = vmh.record.handler.clone();
        if let Some(relief) = &mut self.relief {
            relief.leave_alone(id, ctx.now + LEFT_ALONE);
        }
        ctx.send(&handler, Message::Move { vm: id.clone(), to, why: MoveReason::Room });
    }

    /// What is being done to make room for this environment, for people.
    #[must_use]
    pub fn making_room(&self, ve: &VeUid) -> Option<String> {
        let wishes = &self.making.get(ve)?.wishes;
        let moves: Vec<_> = wishes.iter().map(|w| format!("{} to {}", w.name, w.to)).collect();
        (!moves.is_empty()).then(|| format!("making room: {} to move", moves.join(", ")))
    }

    /// A procedure of this agent has ended. If it found no room, others may be able to make some.
    pub(super) fn make_room(&mut self, procedure: &Procedure, ended: &Ended, ctx: &mut Context) {
        let request = &procedure.request;
        let waits = match &request.aim {
            Aim::Place => true,
            Aim::Move { why, .. } => *why == MoveReason::Maintenance,
        };
        match ended {
            _ if !waits => return,
            Ended::Committed(_) => {
                self.making.remove(&request.ve);
                return;
            }
            Ended::Contended(_) => return,
            Ended::CannotFit(_) => {}
        }
        let making = self.making.entry(request.ve.clone()).or_default();
        let offers = procedure.offers();
        let under_way = making.wishes.iter().any(|wish| is_under_way(wish, offers));
        if under_way && ctx.now < making.wished_at + MOVES_WITHIN {
            return;
        }
        let fulfilled = making.wishes.iter().all(|wish| has_come_true(wish, offers));
        if ctx.now < making.again_at && (making.wishes.is_empty() || !fulfilled) {
            return;
        }
        making.wishes.clear();
        if making.rounds >= MOST_ROUNDS {
            *making = Making { again_at: ctx.now + REST, ..Making::default() };
            return;
        }
        let Some(mut wishes) = solver::make_room(&request.problem, offers, self.goal) else {
            making.again_at = ctx.now + THINK_AGAIN * (1 << making.in_vain.min(MOST_DOUBLINGS));
            making.in_vain += 1;
            return;
        };
        wishes.truncate(MOST_WISHES);
        (making.rounds, making.in_vain) = (making.rounds + 1, 0);
        (making.wished_at, making.again_at) = (ctx.now, ctx.now + WISHED_FOR);
        for Wish { vm, from, to, .. } in &wishes {
            ctx.send(from, Message::MakeRoom { vm: vm.clone(), to: to.clone() });
        }
        making.wishes = wishes;
        if let (Some(vm), Some(text)) = (request.problem.vms.first(), self.making_room(&request.ve))
        {
            ctx.happened((&request.ve, &vm.ve), false, "MakingRoom", text);
        }
    }
}

/// The VM is settled at neither end: it moves.
fn is_under_way(wish: &Wish, offers: &[NodeOffer]) -> bool {
    let lacks = |node: &NodeName| {
        let offer = offers.iter().find(|offer| offer.node == *node);
        offer.is_some_and(|offer| offer.guests.iter().all(|guest| guest.id != wish.vm))
    };
    lacks(&wish.from) && !has_come_true(wish, offers)
}

/// The VM is where it was wished to be.
fn has_come_true(wish: &Wish, offers: &[NodeOffer]) -> bool {
    let target = offers.iter().find(|offer| offer.node == wish.to);
    target.is_some_and(|offer| offer.guests.iter().any(|guest| guest.id == wish.vm))
}
