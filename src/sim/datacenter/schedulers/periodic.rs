//! What Entropy and Snooze have in common: a service that, every so often, looks at all its nodes, computes,
//! and carries out what it has computed, by then on a state that has moved on.
//!
//! ```text
//!   look ──(time to compute)──> migrate, all at once ──(the last has ended)──> wait for the rest of 30 s ─┐
//!    ^                                                                                                   │
//!    └───────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! As `CentralizedResolver` of VMPlaceS does it.

use std::ops::Range;
use std::time::Duration;

use super::super::scheduler::Desk;
use super::repair::{self, Plan, Seen};
use crate::engine::time::Instant;

/// From the start of a look to the next, if nothing takes longer (BENCHMARKS, B1).
pub const PERIOD: Duration = Duration::from_secs(30);

const LOOK: u64 = 0;
const COMPUTED: u64 = 1;

/// What a solver over so many nodes takes: a cost model that each baseline states.
pub type Cost = fn(nodes: u32, overloaded: bool) -> Duration;

/// The service for some nodes.
#[derive(Debug)]
pub struct Periodic {
    nodes: Range<u32>,
    cost: Cost,
    looked_at: Instant,
    plan: Plan,
    under_way: usize,
}

impl Periodic {
    /// A service that has done nothing yet.
    #[must_use]
    pub fn new(nodes: Range<u32>, cost: Cost) -> Self {
        let looked_at = Instant::ZERO;
        Self { nodes, cost, looked_at, plan: Plan::default(), under_way: 0 }
    }

    /// The first look is after a period: all loads are zero at the start.
    pub fn start<M>(&mut self, desk: &mut Desk<'_, M>) {
        desk.wake_at(Instant::ZERO + PERIOD, LOOK);
    }

    /// Its timers.
    pub fn timer<M>(&mut self, token: u64, desk: &mut Desk<'_, M>) {
        match token {
            LOOK => self.look(desk),
            _ => self.carry_out(desk),
        }
    }

    /// One of its migrations has ended.
    pub fn migration_ended<M>(&mut self, desk: &mut Desk<'_, M>) {
        self.under_way -= 1;
        if self.under_way == 0 {
            self.wait(desk);
        }
    }

    fn look<M>(&mut self, desk: &mut Desk<'_, M>) {
        self.looked_at = desk.now();
        let seen: Vec<Seen> =
            self.nodes.clone().map(|node| Seen::new(node, desk.poll(node))).collect();
        let capacity = desk.capacity();
        seen.iter().filter(|seen| seen.load > capacity).for_each(|seen| desk.detected(seen.node));
        self.plan = repair::repair(seen, capacity);
        let overloaded = !self.plan.moves.is_empty() || self.plan.unsolved > 0;
        let cost = (self.cost)(self.nodes.len() as u32, overloaded);
        desk.compute(cost, COMPUTED);
    }

    /// Moves that are no longer possible are left out; the others are as they were computed.
    fn carry_out<M>(&mut self, desk: &mut Desk<'_, M>) {
        if !self.plan.moves.is_empty() {
            let members: Vec<u32> = self.nodes.clone().collect();
            desk.partition_ended(&members, self.plan.unsolved == 0);
        }
        let moves = std::mem::take(&mut self.plan.moves);
        self.under_way =
            moves.iter().filter(|chosen| desk.migrate(chosen.vm, chosen.to).is_ok()).count();
        if self.under_way == 0 {
            self.wait(desk);
        }
    }

    fn wait<M>(&mut self, desk: &mut Desk<'_, M>) {
        desk.wake_at(self.looked_at + PERIOD, LOOK);
    }
}
