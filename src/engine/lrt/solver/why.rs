//! Why there is no assignment, for people: what one cause is short, with the nearest miss; when there is no
//! single cause, which rules clash.

use std::collections::BTreeMap;

use super::board::Rules;
use super::search::{self, Effort};
use super::{Board, Goal, Problem, clash};
use crate::engine::id::{NodeName, VmId};
use crate::engine::lrt::NodeOffer;
use crate::engine::spec::{Constraint, Domain, Resources, VmDefinition};

/// How many nodes that did not take part are told with their reason.
const TOLD: usize = 5;

/// Says why there is no assignment on these nodes, naming the constraint or the resource that is short
/// and by how much. `absent` are nodes that did not take part, with their reason.
#[must_use]
pub fn explain(
    problem: &Problem,
    offers: &[NodeOffer],
    absent: &BTreeMap<NodeName, String>,
) -> String {
    let why = short_of_one(problem, offers)
        .or_else(|| short_of_domains(problem, offers))
        .or_else(|| short_in_all(problem, offers))
        .or_else(|| clash::find(problem, offers).map(|clash| clash.words(problem, offers)))
        .unwrap_or_else(|| {
            let board = Board::new(problem, offers, &Rules::none());
            let most = search::run(board, Goal::Pack, Effort::CHECK).most;
            let how = clash::at_best(most, problem);
            format!(
                "each VM would fit on a node alone, but not all together in the free room: {how}"
            )
        });
    let mut text =
        format!("{why} ({} of {} nodes asked)", offers.len(), offers.len() + absent.len());
    let closed = offers.iter().filter(|offer| !offer.schedulable);
    let closed = closed.map(|offer| (&offer.node, "takes no new VMs"));
    let absent = absent.iter().map(|(node, reason)| (node, reason.as_str()));
    for (node, reason) in closed.chain(absent).take(TOLD) {
        text.push_str(&format!("; {node} {reason}"));
    }
    text
}

fn size(vm: &VmDefinition) -> Resources {
    Resources::of(vm.cpus, vm.memory)
}

fn name(vm: &VmId) -> String {
    format!("{}-{}", vm.member, vm.index)
}

/// A single VM that fits nowhere, for want of room alone or because of one rule.
fn short_of_one(problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
    let open: Vec<_> = offers.iter().filter(|offer| offer.schedulable).collect();
    problem.vms.iter().find_map(|vm| {
        let name = name(&vm.id);
        if open.is_empty() {
            return Some(format!("no node takes new VMs, for {name}"));
        }
        if let Some(node) = problem.pinned.get(&vm.id) {
            let Some(home) = open.iter().find(|offer| offer.node == *node) else {
                return Some(format!("{name} has its disks on {node}, which takes no VMs now"));
            };
            if let Some(short) = lacks(vm, &[home], "the node of its disks") {
                return Some(short);
            }
        }
        lacks(vm, &open, "a node").or_else(|| {
            problem.constraints.iter().find_map(|constraint| {
                let rules = Rules { constraints: vec![constraint], disks: false };
                let left = open.iter().filter(|offer| rules.permit(problem, &vm.id, offer));
                let left: Vec<&NodeOffer> = left.copied().collect();
                if left.is_empty() {
                    return Some(format!("no schedulable node satisfies {constraint} for {name}"));
                }
                lacks(vm, &left, &format!("a node of {constraint}"))
            })
        })
    })
}

/// What a VM lacks on the best of these nodes, if it lacks something on each.
fn lacks(vm: &VmDefinition, offers: &[&NodeOffer], whose: &str) -> Option<String> {
    let (name, size) = (name(&vm.id), size(vm));
    if offers.iter().any(|offer| offer.free.holds(&size)) {
        return None;
    }
    let best = offers.iter().max_by_key(|offer| (offer.free.memory, offer.free.cpu_milli))?;
    if best.free.memory < size.memory {
        return Some(format!(
            "{name} needs {} of memory; the most that {whose} has free is {} ({}): {} short",
            bytes(size.memory),
            bytes(best.free.memory),
            best.node,
            bytes(size.memory - best.free.memory)
        ));
    }
    let room = offers.iter().filter(|offer| offer.free.memory >= size.memory);
    let best = room.max_by_key(|offer| offer.free.cpu_milli)?;
    Some(format!(
        "{name} needs {} and {}; the most that {whose} with the memory has free is {} ({}): {} short",
        cpus(size.cpu_milli),
        bytes(size.memory),
        cpus(best.free.cpu_milli),
        best.node,
        cpus(size.cpu_milli.saturating_sub(best.free.cpu_milli))
    ))
}

/// A spread over more nodes or zones than there are with room, whatever other rules say.
fn short_of_domains(problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
    problem.constraints.iter().find_map(|constraint| {
        let Constraint::Spread { over, .. } = constraint else { return None };
        let need = more::new(problem, constraint).count();
        let least =
            more::new(problem, constraint).map(size).min_by_key(|s| (s.memory, s.cpu_milli))?;
        let left = more::domains(problem, offers, constraint, *over, |vm, offer| {
            offer.schedulable && offer.free.holds(&size(vm))
        });
        let more = if more::taken(problem, constraint, *over).is_empty() { "" } else { " more" };
        (left < need).then(|| {
            format!(
                "{constraint} needs {need}{more} {} with {} and {} free, and there {}: {} short",
                more::noun(*over, need),
                cpus(least.cpu_milli),
                bytes(least.memory),
                if left == 1 { "is 1".into() } else { format!("are {left}") },
                need - left
            )
        })
    })
}

/// More in all than is free in all.
fn short_in_all(problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
    let sum = |parts: &mut dyn Iterator<Item = Resources>| {
        parts.fold(Resources::default(), |all, part| all.plus(&part))
    };
    let needed = sum(&mut problem.vms.iter().map(size));
    let free = sum(&mut offers.iter().filter(|o| o.schedulable).map(|offer| offer.free));
    if needed.memory > free.memory {
        return Some(format!(
            "needs {} of memory in all; {} is free: {} short",
            bytes(needed.memory),
            bytes(free.memory),
            bytes(needed.memory - free.memory)
        ));
    }
    (needed.cpu_milli > free.cpu_milli).then(|| {
        format!(
            "needs {} in all; {} are free: {} short",
            cpus(needed.cpu_milli),
            cpus(free.cpu_milli),
            cpus(needed.cpu_milli - free.cpu_milli)
        )
    })
}

/// Counting the domains that a spread needs more of.
pub mod more {
    use std::collections::BTreeSet;

    use super::super::domain_of;
    use super::{Constraint, Domain, NodeOffer, Problem, VmDefinition};

    /// VMs without a place that the constraint binds.
    pub fn new<'a>(
        problem: &'a Problem,
        constraint: &'a Constraint,
    ) -> impl Iterator<Item = &'a VmDefinition> {
        problem.vms.iter().filter(|vm| constraint.binds(&vm.id.member))
    }

    /// Domains that hold a VM that the constraint binds.
    pub fn taken(problem: &Problem, constraint: &Constraint, over: Domain) -> BTreeSet<String> {
        let existing = problem.existing.iter().filter(|(vm, _)| constraint.binds(&vm.member));
        existing.map(|(_, place)| domain_of(over, &place.node, &place.zone)).collect()
    }

    /// How many other domains would do for at least one of the new VMs.
    pub fn domains(
        problem: &Problem,
        offers: &[NodeOffer],
        constraint: &Constraint,
        over: Domain,
        would_do: impl Fn(&VmDefinition, &NodeOffer) -> bool,
    ) -> usize {
        let taken = taken(problem, constraint, over);
        let useful = |offer: &&NodeOffer| new(problem, constraint).any(|vm| would_do(vm, offer));
        let domains: BTreeSet<String> = offers
            .iter()
            .filter(useful)
            .map(|offer| domain_of(over, &offer.node, &offer.zone))
            .filter(|domain| !taken.contains(domain))
            .collect();
        domains.len()
    }

    /// What is counted.
    pub fn noun(over: Domain, count: usize) -> String {
        if count == 1 { over.to_string() } else { format!("{over}s") }
    }
}

/// A size as people write it.
#[must_use]
pub fn bytes(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    if bytes >= GIB {
        format!("{:.1}Gi", bytes as f64 / GIB as f64)
    } else {
        format!("{}Mi", bytes.div_ceil(MIB))
    }
}

/// Processors as people write them.
pub fn cpus(milli: u64) -> String {
    match milli {
        1000 => "1 cpu".into(),
        _ if milli.is_multiple_of(1000) => format!("{} cpus", milli / 1000),
        _ => format!("{:.1} cpus", milli as f64 / 1000.0),
    }
}
