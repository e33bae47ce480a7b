//! Plans that make room: which VMs that run must move, where to and in which order, so that others find a place.
//!
//! ```text
//!   Situation ──> focus.rs     many nodes: the few that matter
//!             ──> search.rs    A* over where everybody is (board.rs), bounded by steps; what is still to be moved
//!                              at least: bound.rs; what a hasty answer can do without: lighten.rs
//!             ──> schedule.rs  the moves one by one become steps of moves at the same time
//! ```
//!
//! A VM on its way counts at both ends, so an order of moves is part of the answer: two VMs on full nodes change places
//! through a third. The cost is the migrations' (seconds, most of all); among plans of the same cost those with
//! smaller moves, of which several can go at the same time. (A configuration as the state, the actions that lead from one to
//! another as the plan: F. Hermenier et al., *Entropy: a consolidation manager for clusters*, VEE 2009; the search is A* with
//! an additive bound.)

mod board;
mod bound;
mod focus;
mod lighten;
mod schedule;
mod search;
#[cfg(test)]
mod tests;

use crate::engine::spec::Resources;

pub use schedule::{ARRIVALS, DEPARTURES};

/// A node, as far as a plan goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What no VM uses.
    pub free: Resources,
}

/// A VM that runs and may be moved, or one that wants room. (VMs that cannot move are only room that is not free.)
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// What it takes.
    pub size: Resources,
    /// Its node; a VM without one wants room.
    pub at: Option<usize>,
    /// The nodes that it may be on, at any time. If its own is not among them it must leave.
    pub may: Vec<bool>,
    /// What a migration of it costs, in units of time. (Above 2³² all count alike.)
    pub cost: u64,
}

/// What is, and who wants room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Situation {
    /// The nodes, nearest first.
    pub hosts: Vec<Host>,
    /// The VMs.
    pub tenants: Vec<Tenant>,
}

/// One VM's live migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which, by its number among the tenants.
    pub tenant: usize,
    /// From this node.
    pub from: usize,
    /// To that.
    pub to: usize,
}

/// How to make room.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Moves of one step are made at the same time, steps one after the other.
    pub steps: Vec<Vec<Move>>,
    /// Where those that want room find it then: tenant and node.
    pub places: Vec<(usize, usize)>,
    /// All migrations together.
    pub cost: u64,
    /// From the beginning of the first to the end of the last: of each step, the longest.
    pub makespan: u64,
    /// It is certain that none costs less (among the nodes that were looked at).
    pub cheapest: bool,
}

/// How many moves a search may look at: its bound, in place of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Effort {
    /// For the cheapest plan.
    pub exact: u32,
    /// For any plan, if the cheapest was not found.
    pub greedy: u32,
}

impl Effort {
    /// For one attempt of an agent: a few tens of milliseconds.
    pub const FULL: Self = Self { exact: 20_000, greedy: 10_000 };

    /// Of many tenants a move takes longer to look at: fewer are, in about the same time.
    fn among(self, tenants: usize) -> Self {
        let share = |steps: u32| (steps as usize * FEW / tenants.max(FEW)) as u32;
        Self { exact: share(self.exact), greedy: share(self.greedy) }
    }
}

/// Among so many tenants the effort is what it says.
const FEW: usize = 16;

/// Finds a plan: everybody who wants room has it at the end, and who must leave a node has left.
///
/// Returns `None` when there is no plan, or none was found within the effort.
#[must_use]
pub fn plan(situation: &Situation, effort: Effort) -> Option<Plan> {
    let focus = focus::on(situation);
    let found = search::run(&focus.situation, effort.among(focus.tenants.len()))?;
    let mut plan = schedule::plan(&focus.situation, found);
    for step in plan.steps.iter_mut().flatten() {
        let Move { tenant, from, to } = *step;
        *step =
            Move { tenant: focus.tenants[tenant], from: focus.hosts[from], to: focus.hosts[to] };
    }
    for (tenant, host) in &mut plan.places {
        (*tenant, *host) = (focus.tenants[*tenant], focus.hosts[*host]);
    }
    Some(plan)
}
