//! What must hold over all agents at every moment (I3, I4, I5). The simulator checks it after every
//! event; it reads engines, and decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Engine;
use super::id::{MemberName, NodeName, ProcedureId, VeUid, VmId};
use super::input::Input;
use super::lrt::{LOCK_TIMEOUT, ZONE_LABEL};
use super::record::VeRecord;
use super::spec::{Constraint, Domain, NodeSelector, Resources};
use super::wire::Message;

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

/// Who has reserved a node, and who wants to, if that is another.
#[must_use]
pub fn held_and_wanted(engine: &Engine, input: &Input) -> Option<(ProcedureId, ProcedureId)> {
    let Input::Message { message, .. } = input else { return None };
    let Message::Reserve { procedure, .. } = &**message else { return None };
    let held = &engine.lrt.lock()?.procedure;
    (held != procedure).then(|| (held.clone(), procedure.clone()))
}

/// I4: a node that is reserved is reserved once more.
#[must_use]
pub fn taken_away(engine: &Engine, held: &ProcedureId, wanted: &ProcedureId) -> Option<Broken> {
    let what = format!("{} is reserved by {wanted} while {held} has it", engine.ctx.node);
    let taken = engine.lrt.lock().is_some_and(|lock| lock.procedure == *wanted);
    taken.then_some(Broken { invariant: "I4", what })
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
    if record.tombstone || !declared.is_to_run() {
        return;
    }
    let (spec, uid) = (&declared.spec, &declared.uid);
    let wanted: u64 = spec.members.iter().map(|member| u64::from(member.replicas)).sum();
    let is_wanted = |id: &&VmId| id.ve == *uid && spec.asks_for(id);
    let active = record.placements.iter().filter(|(_, p)| p.active).map(|(id, _)| id);
    let active = active.filter(is_wanted).count() as u64;
    // What was lost with a node is placed anew as a whole; the rest goes on meanwhile.
    let lost = record.lost.iter().filter(is_wanted).count() as u64;
    let whole = active + lost == wanted;
    let none = active == 0;
    // A first placement is all or nothing; a later one extends a whole environment by all that is new.
    if !whole && !none && (record.committed == 0 || record.committed == declared.generation) {
        let what = format!("{}: {active} of {wanted} VMs are placed", declared.name);
        broken.push(Broken { invariant: "I3", what });
    }
}

/// I5, constraints: they hold for what was committed at the present generation.
fn constraints_hold(record: &VeRecord, engines: &[&Engine], broken: &mut Vec<Broken>) {
    let constraints = &record.declared.spec.placement;
    let committed = record.committed == record.declared.generation && !record.tombstone;
    if !committed || constraints.is_empty() {
        return;
    }
    let node_labels: BTreeMap<&NodeName, &BTreeMap<String, String>> = engines
        .iter()
        .filter_map(|engine| Some((&engine.ctx.node, engine.lrt.labels()?)))
        .collect();
    let nothing = BTreeMap::new();
    let labels = |node: &NodeName| node_labels.get(node).copied().unwrap_or(&nothing);
    for constraint in constraints {
        let bound: Vec<&NodeName> = record
            .placements
            .iter()
            .filter(|(id, placement)| placement.active && constraint.binds(&id.member))
            .map(|(_, placement)| &placement.node)
            .filter(|node| node_labels.contains_key(node))
            .collect();
        let domain = |over: Domain, node: &NodeName| {
            match (over, labels(node).get(ZONE_LABEL).filter(|zone| !zone.is_empty())) {
                (Domain::Zone, Some(zone)) => format!("/{zone}"),
                // A node without a zone is one of its own.
                (Domain::Zone, None) | (Domain::Node, _) => node.to_string(),
            }
        };
        let domains = |over: &Domain| -> BTreeSet<String> {
            bound.iter().map(|node| domain(*over, node)).collect()
        };
        let matching =
            |nodes: &NodeSelector| bound.iter().filter(|n| nodes.matches(n, labels(n))).count();
        let holds = match constraint {
            Constraint::Spread { over, .. } => domains(over).len() == bound.len(),
            Constraint::Gather { over, .. } => domains(over).len() <= 1,
            Constraint::Fence { nodes, .. } => matching(nodes) == bound.len(),
            Constraint::Ban { nodes, .. } => matching(nodes) == 0,
            Constraint::MaxNodes(most) => domains(&Domain::Node).len() <= *most as usize,
            Constraint::Among { groups, .. } => {
                bound.is_empty() || groups.iter().any(|group| matching(group) == bound.len())
            }
            Constraint::RunningCapacity { nodes, max, .. } => matching(nodes) <= *max as usize,
            Constraint::Split { members, from, over, .. } => {
                apart(record, (members, from), &|node| domain(*over, node))
            }
            Constraint::Lonely { .. } | Constraint::Overbook { .. } => {
                let there = engines.iter().filter(|engine| bound.contains(&&engine.ctx.node));
                there.copied().all(|engine| keeps_terms(engine, constraint, &record.declared.uid))
            }
            // About what may come and go, or what could be lost: nothing that a state shows.
            Constraint::Root { .. } | Constraint::Quarantine { .. } | Constraint::Spare => true,
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

/// I5, split: no domain holds VMs of both sides.
fn apart(
    record: &VeRecord,
    (members, from): (&[MemberName], &[MemberName]),
    domain: &dyn Fn(&NodeName) -> String,
) -> bool {
    let side = |side: &[MemberName]| -> BTreeSet<String> {
        let active = record.placements.iter().filter(|(_, placement)| placement.active);
        let own = active.filter(|(id, _)| side.contains(&id.member));
        own.map(|(_, placement)| domain(&placement.node)).collect()
    };
    side(members).is_disjoint(&side(from))
}

/// I5, lonely and overbook: who else is on a node of the VMs that they bind.
fn keeps_terms(engine: &Engine, constraint: &Constraint, ve: &VeUid) -> bool {
    match constraint {
        Constraint::Overbook { cpu_percent, .. } => {
            let limit = engine.lrt.processors_milli() * u64::from(*cpu_percent) / 100;
            engine.lrt.host().is_none() || engine.lrt.allocated().cpu_milli <= limit
        }
        _ => !engine.lrt.vms().any(|vmh| {
            vmh.record.definition.id.ve != *ve && vmh.record.held() != Resources::default()
        }),
    }
}
