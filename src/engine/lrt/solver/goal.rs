//! What is preferred among the assignments that hold: the goal, as a cost to be kept low.
//!
//! The order in which a partition grows is not the goal's business: nearest first. Whatever the goal, of
//! two nodes that serve it alike the nearer one is taken.

use serde::{Deserialize, Serialize};

use crate::engine::spec::Resources;

/// What a cluster wants of its placements, where constraints leave a choice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// The node with the most room left after: nodes fill evenly.
    #[default]
    Balance,
    /// The fullest node that fits: nodes stay empty and may be switched off.
    Pack,
    /// The nearest node that fits: fewest nodes asked, fewest changes.
    Stay,
}

/// What a cost counts a step of distance for, against the goal's own units: as a tie-break only.
const RANKS: u64 = 64;
/// All of a node's room, in the units of shares.
const WHOLE: u64 = 1000;

/// A node as the goal sees it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What VMs may use in all.
    pub allocatable: Resources,
    /// What is left, VMs of this search counted.
    pub free: Resources,
    /// What was left before this search.
    pub offered: Resources,
    /// Its place in the order of distance, nearest is 0.
    pub rank: usize,
}

impl Goal {
    /// What placing a VM of this size on this node adds to the cost.
    #[must_use]
    pub fn added(self, node: &Load, size: &Resources) -> u64 {
        let opens = node.offered == node.allocatable && node.free == node.offered;
        let opening = if self == Self::Pack && opens { WHOLE * RANKS } else { 0 };
        opening + self.least(node, size)
    }

    /// At least what that will add later in the search, when other VMs have been placed too.
    #[must_use]
    pub fn least(self, node: &Load, size: &Resources) -> u64 {
        let rank = (node.rank as u64).min(RANKS - 1);
        let [processors, memory] = shares(node, &node.free);
        match self {
            // The sum of squares of used shares is least when all nodes are equally full.
            Self::Balance => {
                let [more_processors, more_memory] = shares(node, &node.free.minus(size));
                let rise = |after: u64, before: u64| after * after - before * before;
                let risen = rise(more_processors, processors) + rise(more_memory, memory);
                risen * RANKS + rank
            }
            Self::Pack => {
                let [processors, memory] = shares(node, &node.offered);
                (WHOLE - processors.max(memory)) * RANKS + rank
            }
            Self::Stay => rank,
        }
    }
}

/// The used shares of processors and memory, in thousandths.
fn shares(node: &Load, free: &Resources) -> [u64; 2] {
    let share = |all: u64, free: u64| match all {
        0 => WHOLE,
        all => all.saturating_sub(free).saturating_mul(WHOLE) / all,
    };
    [share(node.allocatable.cpu_milli, free.cpu_milli), share(node.allocatable.memory, free.memory)]
}
