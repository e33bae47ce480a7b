//! Finds nodes for the VMs of one environment: all of them, or a reason why not.
//!
//! ```text
//!   Problem, offers ──> board.rs   names become numbers; what each constraint counts: tally.rs
//!                   ──> search.rs  depth first, bounded by steps; the goal orders nodes: goal.rs
//!                   ──> why.rs     nothing found: what is short; else which constraints clash: clash.rs
//!                   ──> room.rs    nothing found: which VMs would have to move first, by a plan: plan/
//! ```
//!
//! Every partial assignment satisfies every constraint, so each full one is an answer; the search goes on
//! for a while to find a cheaper one. Bounds are steps, not time, so that it repeats.

mod board;
mod clash;
mod goal;
mod moves;
pub mod plan;
mod room;
mod search;
mod spare;
mod tally;
mod why;

use std::collections::{BTreeMap, BTreeSet};

use super::NodeOffer;
use crate::engine::id::{NodeName, VmId};
use crate::engine::spec::{Constraint, Domain, Resources, VmDefinition};
use board::{Board, Rules};
pub use goal::Goal;
pub use room::{Wish, make_room};
use search::{Effort, Outcome};
pub use why::{bytes, explain};

/// Where a VM is, with what constraints may ask about that place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeName,
    /// Its zone, empty if it has none.
    pub zone: String,
    /// What the VM takes there.
    pub size: Resources,
}

/// What is to be placed.
#[derive(Clone, Debug)]
pub struct Problem {
    /// VMs without a place.
    pub vms: Vec<VmDefinition>,
    /// VMs of `vms` that must go where their disks are.
    pub pinned: BTreeMap<VmId, NodeName>,
    /// The environment's other VMs, which stay where they are.
    pub existing: BTreeMap<VmId, Place>,
    /// VMs of `existing` that are on their way: where to.
    pub moving: BTreeMap<VmId, Place>,
    /// All must hold at the end.
    pub constraints: Vec<Constraint>,
}

impl Problem {
    /// Nodes without which it may not be solved: those that hold disks of its VMs, and, where a constraint
    /// must know the labels of those of its other VMs, these too.
    #[must_use]
    pub fn asked_first(&self) -> BTreeSet<&NodeName> {
        let by_labels = self.constraints.iter().any(|constraint| {
            matches!(constraint, Constraint::Among { .. } | Constraint::RunningCapacity { .. })
        });
        let others = self.existing.values().map(|place| &place.node).filter(|_| by_labels);
        self.pinned.values().chain(others).collect()
    }
}

impl Problem {
    /// Why a VM may not leave its node, if a constraint keeps it there.
    #[must_use]
    pub fn keeps(
        &self,
        vm: &VmId,
        node: &NodeName,
        labels: &BTreeMap<String, String>,
    ) -> Option<String> {
        let keeps = |constraint: &&Constraint| constraint.forbids_leaving(&vm.member, node, labels);
        let constraint = self.constraints.iter().find(keeps)?;
        Some(format!("{constraint} keeps it on {node}"))
    }
}

/// A place for every VM.
pub type Assignment = BTreeMap<VmId, NodeName>;

/// Solves within the offered nodes, which are in the order of their distance.
///
/// Returns `None` when there is no assignment, or none was found within the step limit.
#[must_use]
pub fn solve(problem: &Problem, offers: &[NodeOffer], goal: Goal) -> Option<Assignment> {
    let board = Board::new(problem, offers, &Rules::all(problem));
    match search::run(board, goal, Effort::FULL).outcome {
        Outcome::Found(assignment) => Some(assignment),
        Outcome::Impossible | Outcome::GaveUp => None,
    }
}

/// The domain that a node is: itself, or its zone. A node without a zone is one of its own, and no zone
/// has the name of a node here, because of the slash.
fn domain_of(over: Domain, node: &NodeName, zone: &str) -> String {
    match over {
        Domain::Zone if !zone.is_empty() => format!("/{zone}"),
        Domain::Node | Domain::Zone => node.to_string(),
    }
}

#[cfg(test)]
mod tests;
