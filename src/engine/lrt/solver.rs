//! Finds nodes for the VMs of one environment: all of them, or a reason why not.
//!
//! A depth-first search over the partition's nodes, largest VM first, bounded by steps rather than time
//! so that it repeats. Every partial assignment satisfies every constraint, so the first full one is
//! the answer.

use std::collections::{BTreeMap, BTreeSet};

use super::NodeOffer;
use crate::engine::id::{NodeName, VmId};
use crate::engine::spec::{Constraint, Domain, Resources, VmDefinition};

/// How many assignments are tried before the search gives up: milliseconds of work. A partition that
/// grows by one more node starts afresh.
const MAX_STEPS: u32 = 50_000;

/// Where a VM is, with what constraints may ask about that place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: NodeName,
    /// Its zone, empty if it has none.
    pub zone: String,
}

impl Place {
    fn domain(&self, over: Domain) -> &str {
        match over {
            Domain::Node => self.node.as_str(),
            Domain::Zone => &self.zone,
        }
    }
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
    /// All must hold at the end.
    pub constraints: Vec<Constraint>,
}

/// A place for every VM.
pub type Assignment = BTreeMap<VmId, NodeName>;

/// Solves within the offered nodes, preferring them in the given order.
///
/// Returns `None` when there is no assignment, or none was found within the step limit.
#[must_use]
pub fn solve(problem: &Problem, offers: &[NodeOffer]) -> Option<Assignment> {
    let mut order: Vec<&VmDefinition> = problem.vms.iter().collect();
    order.sort_by(|a, b| {
        let pinned = |vm: &VmDefinition| problem.pinned.contains_key(&vm.id);
        (pinned(b), b.memory, b.cpus, &a.id).cmp(&(pinned(a), a.memory, a.cpus, &b.id))
    });
    let mut search = Search {
        problem,
        offers,
        free: offers.iter().map(|offer| offer.free).collect(),
        places: problem.existing.clone(),
        steps: 0,
    };
    search.place(&order).then(|| {
        let mut places = search.places;
        places.retain(|vm, _| !problem.existing.contains_key(vm));
        places.into_iter().map(|(vm, place)| (vm, place.node)).collect()
    })
}

struct Search<'a> {
    problem: &'a Problem,
    offers: &'a [NodeOffer],
    free: Vec<Resources>,
    places: BTreeMap<VmId, Place>,
    steps: u32,
}

impl Search<'_> {
    fn place(&mut self, rest: &[&VmDefinition]) -> bool {
        let Some((vm, rest)) = rest.split_first() else { return true };
        let size = Resources::of(vm.cpus, vm.memory);
        for index in 0..self.offers.len() {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return false;
            }
            let offer = &self.offers[index];
            if !permits(self.problem, vm, offer) || !self.free[index].holds(&size) {
                continue;
            }
            let place = Place { node: offer.node.clone(), zone: offer.zone.clone() };
            if !self.consistent(vm, &place) {
                continue;
            }
            let before = self.free[index];
            self.free[index] = before.minus(&size);
            self.places.insert(vm.id.clone(), place);
            if self.place(rest) {
                return true;
            }
            self.places.remove(&vm.id);
            self.free[index] = before;
        }
        false
    }

    /// Whether the constraints between VMs still hold with this VM at this place.
    fn consistent(&self, vm: &VmDefinition, place: &Place) -> bool {
        self.problem.constraints.iter().all(|constraint| match constraint {
            Constraint::Spread { over, .. } if constraint.binds(&vm.id.member) => {
                let mut others = self.bound(constraint);
                others.all(|other| {
                    other.domain(*over).is_empty() || other.domain(*over) != place.domain(*over)
                }) && !place.domain(*over).is_empty()
            }
            Constraint::Gather { over, .. } if constraint.binds(&vm.id.member) => {
                self.bound(constraint).all(|other| other.domain(*over) == place.domain(*over))
            }
            Constraint::MaxNodes(most) => {
                let mut nodes: BTreeSet<_> =
                    self.places.values().map(|other| &other.node).collect();
                nodes.insert(&place.node);
                nodes.len() <= *most as usize
            }
            _ => true,
        })
    }

    fn bound<'b>(&'b self, constraint: &'b Constraint) -> impl Iterator<Item = &'b Place> {
        let places = self.places.iter();
        places.filter(|(vm, _)| constraint.binds(&vm.member)).map(|(_, place)| place)
    }
}

/// Whether this node may hold this VM, whatever else it holds: fences, bans and disks.
fn permits(problem: &Problem, vm: &VmDefinition, offer: &NodeOffer) -> bool {
    problem.pinned.get(&vm.id).is_none_or(|node| *node == offer.node)
        && offer.schedulable
        && problem.constraints.iter().all(|constraint| match constraint {
            Constraint::Fence { nodes, .. } if constraint.binds(&vm.id.member) => {
                nodes.matches(&offer.node, &offer.labels)
            }
            Constraint::Ban { nodes, .. } if constraint.binds(&vm.id.member) => {
                !nodes.matches(&offer.node, &offer.labels)
            }
            _ => true,
        })
}

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
        .unwrap_or_else(|| {
            let names: BTreeSet<_> = problem.constraints.iter().map(Constraint::name).collect();
            let names: Vec<_> = names.into_iter().collect();
            format!(
                "each VM would fit on a node alone, but not all together under {}",
                if names.is_empty() { "the nodes' free room".into() } else { names.join(", ") }
            )
        });
    let mut text =
        format!("{why} ({} of {} nodes asked)", offers.len(), offers.len() + absent.len());
    for (node, reason) in absent.iter().take(5) {
        text.push_str(&format!("; {node} {reason}"));
    }
    text
}

/// A single VM that fits nowhere.
fn short_of_one(problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
    problem.vms.iter().find_map(|vm| {
        let name = format!("{}-{}", vm.id.member, vm.id.index);
        if let Some(node) = problem.pinned.get(&vm.id)
            && !offers.iter().any(|offer| offer.node == *node && offer.schedulable)
        {
            return Some(format!("{name} has its disks on {node}, which takes no VMs now"));
        }
        let permitted: Vec<_> = offers.iter().filter(|o| permits(problem, vm, o)).collect();
        if permitted.is_empty() {
            let blame = ["fence", "ban"].into_iter().find(|name| {
                problem.constraints.iter().any(|c| c.name() == *name && c.binds(&vm.id.member))
            });
            return Some(match blame {
                Some(constraint) => format!("no schedulable node satisfies {constraint} for {name}"),
                None => format!("no node takes new VMs, for {name}"),
            });
        }
        let size = Resources::of(vm.cpus, vm.memory);
        if permitted.iter().any(|offer| offer.free.holds(&size)) {
            return None;
        }
        let best = permitted.iter().max_by_key(|offer| (offer.free.memory, offer.free.cpu_milli))?;
        if best.free.memory < size.memory {
            return Some(format!(
                "{name} needs {} of memory; the most that a permitted node has free is {} ({}): {} short",
                bytes(size.memory),
                bytes(best.free.memory),
                best.node,
                bytes(size.memory - best.free.memory)
            ));
        }
        let best = permitted.iter().max_by_key(|offer| offer.free.cpu_milli)?;
        Some(format!(
            "{name} needs {} cpus; the most that a permitted node has free is {} ({}): {} short",
            cpus(size.cpu_milli),
            cpus(best.free.cpu_milli),
            best.node,
            cpus(size.cpu_milli.saturating_sub(best.free.cpu_milli))
        ))
    })
}

/// A spread over more nodes or zones than there are with room.
fn short_of_domains(problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
    problem.constraints.iter().find_map(|constraint| {
        let Constraint::Spread { over, .. } = constraint else { return None };
        let new: Vec<_> = problem.vms.iter().filter(|vm| constraint.binds(&vm.id.member)).collect();
        let taken: BTreeSet<&str> = problem
            .existing
            .iter()
            .filter(|(vm, _)| constraint.binds(&vm.member))
            .map(|(_, place)| place.domain(*over))
            .collect();
        let usable: BTreeSet<&str> = offers
            .iter()
            .filter(|offer| {
                new.iter().any(|vm| {
                    let size = Resources::of(vm.cpus, vm.memory);
                    permits(problem, vm, offer) && offer.free.holds(&size)
                })
            })
            .map(|offer| match over {
                Domain::Node => offer.node.as_str(),
                Domain::Zone => offer.zone.as_str(),
            })
            .filter(|domain| !domain.is_empty() && !taken.contains(domain))
            .collect();
        let what = match over {
            Domain::Node => "nodes",
            Domain::Zone => "zones",
        };
        (usable.len() < new.len()).then(|| {
            format!(
                "spread needs {} more {what} with room for one VM each, and there are {}: {} short",
                new.len(),
                usable.len(),
                new.len() - usable.len()
            )
        })
    })
}

/// More in all than is free in all.
fn short_in_all(problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
    let sum = |parts: &mut dyn Iterator<Item = Resources>| {
        parts.fold(Resources::default(), |all, part| all.plus(&part))
    };
    let needed = sum(&mut problem.vms.iter().map(|vm| Resources::of(vm.cpus, vm.memory)));
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
            "needs {} cpus in all; {} are free: {} short",
            cpus(needed.cpu_milli),
            cpus(free.cpu_milli),
            cpus(needed.cpu_milli - free.cpu_milli)
        )
    })
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

fn cpus(milli: u64) -> String {
    if milli.is_multiple_of(1000) {
        (milli / 1000).to_string()
    } else {
        format!("{:.1}", milli as f64 / 1000.0)
    }
}

#[cfg(test)]
#[path = "solver_tests.rs"]
mod tests;
