//! What must hold over all agents at every moment (I3, I4, I5). The simulator checks it after every
//! event; it reads engines, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Engine;
use super::id::{NodeName, VmId};
use super::lrt::{LOCK_TIMEOUT, ZONE_LABEL};
use super::record::VeRecord;
use super::spec::{Constraint, Domain, Resources, VeState};

/// A broken invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which: "I3" to "I5".
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is broken: {}", self.invariant, self.what)
    }
}

/// Checks all engines that are alive, and the labels of their nodes.
#[must_use]
pub fn check(engines: &[&Engine]) -> Vec<Broken> {
    let mut broken = Vec::new();
    for engine in engines {
        within_capacity(engine, &mut broken);
        lock_is_short(engine, &mut broken);
        for record in engine.registers.all() {
            placed_whole(record, &mut broken);
            constraints_hold(record, engines, &mut broken);
        }
    }
    partitions_are_disjoint(engines, &mut broken);
    broken
}

/// I5, memory and processors: nothing is promised that is not there.
fn within_capacity(engine: &Engine, broken: &mut Vec<Broken>) {
    let (has, gave) = (engine.lrt.allocatable(), engine.lrt.allocated());
    // Before the hypervisor has told, nothing is known; nothing new is promised then either.
    if has != Resources::default() && !has.holds(&gave) {
        let what = format!("{} has {has:?} and gave {gave:?}", engine.ctx.node);
        broken.push(Broken { invariant: "I5", what });
    }
}

/// I4, second half: no partition is held for ever.
fn lock_is_short(engine: &Engine, broken: &mut Vec<Broken>) {
    if let Some(lock) = engine.lrt.lock()
        && engine.ctx.now.since(lock.since) > LOCK_TIMEOUT
    {
        let what =
            format!("{} is held by {} since {:?}", engine.ctx.node, lock.procedure, lock.since);
        broken.push(Broken { invariant: "I4", what });
    }
}

/// I4, first half: every node that is locked is locked by one procedure (its lock is one value), and no
/// two procedures that still hold their members' locks count the same node.
fn partitions_are_disjoint(engines: &[&Engine], broken: &mut Vec<Broken>) {
    let mut owner: BTreeMap<&NodeName, String> = BTreeMap::new();
    for engine in engines {
        let Some(procedure) = engine.lrt.procedure() else { continue };
        for member in procedure.members() {
            let holds = engines
                .iter()
                .find(|other| other.ctx.node == *member)
                .and_then(|other| other.lrt.lock())
                .is_some_and(|lock| lock.procedure == procedure.id);
            if holds && let Some(other) = owner.insert(member, procedure.id.to_string()) {
                let what = format!("{member} is in the partitions of {} and {other}", procedure.id);
                broken.push(Broken { invariant: "I4", what });
            }
        }
    }
}

/// I3: an environment that has been placed at its present generation is placed whole.
fn placed_whole(record: &VeRecord, broken: &mut Vec<Broken>) {
    let declared = &record.declared;
    let runs = declared.spec.state == VeState::Running && !declared.deleting && !record.tombstone;
    if !runs {
        return;
    }
    let wanted: BTreeSet<VmId> = declared.spec.vms(&declared.uid).map(|(id, _)| id).collect();
    let active =
        record.placements.iter().filter(|(id, p)| p.active && wanted.contains(*id)).count();
    let whole = active == wanted.len();
    let none = active == 0;
    // A first placement is all or nothing; a later one extends a whole environment by all that is new.
    if !whole && !none && (record.committed == 0 || record.committed == declared.generation) {
        let what = format!("{}: {active} of {} VMs are placed", declared.name, wanted.len());
        broken.push(Broken { invariant: "I3", what });
    }
}

/// I5, constraints: they hold for what was committed at the present generation.
fn constraints_hold(record: &VeRecord, engines: &[&Engine], broken: &mut Vec<Broken>) {
    if record.committed != record.declared.generation || record.tombstone {
        return;
    }
    let node_labels: BTreeMap<&NodeName, &BTreeMap<String, String>> = engines
        .iter()
        .filter_map(|engine| Some((&engine.ctx.node, engine.lrt.labels()?)))
        .collect();
    let nothing = BTreeMap::new();
    let labels = |node: &NodeName| node_labels.get(node).copied().unwrap_or(&nothing);
    for constraint in &record.declared.spec.placement {
        let bound: Vec<&NodeName> = record
            .placements
            .iter()
            .filter(|(id, placement)| placement.active && constraint.binds(&id.member))
            .map(|(_, placement)| &placement.node)
            .filter(|node| node_labels.contains_key(node))
            .collect();
        let domains = |over: &Domain| -> BTreeSet<String> {
            let name = |node: &&NodeName| match (
                over,
                labels(node).get(ZONE_LABEL).filter(|zone| !zone.is_empty()),
            ) {
                (Domain::Zone, Some(zone)) => format!("/{zone}"),
                // A node without a zone is one of its own.
                (Domain::Zone, None) | (Domain::Node, _) => node.to_string(),
            };
            bound.iter().map(name).collect()
        };
        let holds = match constraint {
            Constraint::Spread { over, .. } => domains(over).len() == bound.len(),
            Constraint::Gather { over, .. } => domains(over).len() <= 1,
            Constraint::Fence { nodes, .. } => bound.iter().all(|n| nodes.matches(n, labels(n))),
            Constraint::Ban { nodes, .. } => !bound.iter().any(|n| nodes.matches(n, labels(n))),
            Constraint::MaxNodes(most) => domains(&Domain::Node).len() <= *most as usize,
        };
        if !holds {
            let what = format!(
                "{}: {} does not hold on {bound:?}",
                record.declared.name,
                constraint.name()
            );
            broken.push(Broken { invariant: "I5", what });
        }
    }
}
