//! What a constraint between VMs has to count so as to judge one more VM at once. All but the last word of
//! a search: a partial assignment that breaks one of these is never mended by placing more VMs.

use std::collections::BTreeMap;

use super::NodeOffer;
use crate::engine::id::{MemberName, NodeName};
use crate::engine::spec::{Constraint, Domain, NodeSelector};

/// The counts of one constraint. Nodes and members are numbers of the [`super::board::Board`].
#[derive(Clone, Debug)]
pub struct Tally {
    /// The members that it binds.
    bound: Vec<bool>,
    kind: Kind,
    /// VMs on their way count at both ends.
    pub continuous: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Spread: at most one in each domain.
    Apart(Counts),
    /// Gather: all in one domain.
    Together(Counts),
    /// `maxNodes`: at most so many nodes in use.
    Few { counts: Counts, most: usize },
    /// Split: each domain holds members of one side only, `from` or not.
    Sides { from: Vec<bool>, sides: [Counts; 2] },
    /// Among: of each group, its nodes, and how many VMs are elsewhere.
    Within(Vec<Group>),
    /// `runningCapacity`: at most so many on these nodes.
    Limited { inside: Vec<bool>, count: u32, most: u32 },
    /// Overbook: of each node, how many VMs are bound there, and what is left below its limit.
    Ratio { bound_there: Vec<u32>, left_milli: Vec<i64> },
}

#[derive(Clone, Debug)]
struct Group {
    inside: Vec<bool>,
    elsewhere: u32,
}

/// How many VMs are in each domain, and how many domains have any.
#[derive(Clone, Debug)]
struct Counts {
    domain: Vec<usize>,
    in_domain: Vec<u32>,
    used: usize,
}

impl Counts {
    fn new(domain: &[usize]) -> Self {
        let domains = domain.iter().max().map_or(0, |last| last + 1);
        Self { domain: domain.to_vec(), in_domain: vec![0; domains], used: 0 }
    }

    fn at(&self, node: usize) -> u32 {
        self.in_domain[self.domain[node]]
    }

    fn add(&mut self, node: usize) {
        let count = &mut self.in_domain[self.domain[node]];
        self.used += usize::from(*count == 0);
        *count += 1;
    }

    fn remove(&mut self, node: usize) {
        let count = &mut self.in_domain[self.domain[node]];
        *count -= 1;
        self.used -= usize::from(*count == 0);
    }
}

/// A node as tallies see it.
#[derive(Clone, Copy, Debug)]
pub struct Site<'a> {
    /// Its name.
    pub node: &'a NodeName,
    /// Its zone, empty if it has none.
    pub zone: &'a str,
    /// What it offers; `None` outside the partition, where only its name and its zone are known.
    pub offer: Option<&'a NodeOffer>,
}

impl Site<'_> {
    /// Whether it is among these nodes; if that cannot be known, `unknown`.
    fn is_of(&self, nodes: &NodeSelector, unknown: bool) -> bool {
        match self.offer {
            Some(offer) => nodes.matches(self.node, &offer.labels),
            None => nodes.names.contains(self.node) || (!nodes.labels.is_empty() && unknown),
        }
    }
}

/// The numbers of the board that a tally needs to begin.
pub struct Numbers<'a> {
    /// Every member.
    pub members: &'a [MemberName],
    /// Every node.
    pub sites: &'a [Site<'a>],
    /// For each kind of domain, the domain's number of each node.
    pub domains: &'a BTreeMap<Domain, Vec<usize>>,
}

impl Tally {
    /// The empty tally of a constraint; `None` for one that asks about single VMs only.
    pub fn of(constraint: &Constraint, numbers: &Numbers<'_>) -> Option<Self> {
        let counts = |over: &Domain| Counts::new(&numbers.domains[over]);
        let inside = |nodes: &NodeSelector, unknown: bool| -> Vec<bool> {
            numbers.sites.iter().map(|site| site.is_of(nodes, unknown)).collect()
        };
        let kind = match constraint {
            Constraint::Spread { over, .. } => Kind::Apart(counts(over)),
            Constraint::Gather { over, .. } => Kind::Together(counts(over)),
            Constraint::MaxNodes(most) => {
                Kind::Few { counts: counts(&Domain::Node), most: *most as usize }
            }
            Constraint::Split { from, over, .. } => Kind::Sides {
                from: numbers.members.iter().map(|member| from.contains(member)).collect(),
                sides: [counts(over), counts(over)],
            },
            Constraint::Among { groups, .. } => {
                let group = |nodes| Group { inside: inside(nodes, false), elsewhere: 0 };
                Kind::Within(groups.iter().map(group).collect())
            }
            Constraint::RunningCapacity { nodes, max, .. } => {
                Kind::Limited { inside: inside(nodes, true), count: 0, most: *max }
            }
            Constraint::Overbook { cpu_percent, .. } => Kind::Ratio {
                bound_there: vec![0; numbers.sites.len()],
                left_milli: numbers.sites.iter().map(|site| below(site, *cpu_percent)).collect(),
            },
            Constraint::Fence { .. }
            | Constraint::Ban { .. }
            | Constraint::Lonely { .. }
            | Constraint::Root { .. }
            | Constraint::Quarantine { .. }
            | Constraint::Spare => return None,
        };
        let bound = numbers.members.iter().map(|member| constraint.binds(member)).collect();
        Some(Self { bound, kind, continuous: constraint.is_continuous() })
    }

    /// Whether it still holds with one more VM of this member, of so many processors, on this node.
    pub fn allows(&self, member: usize, cpu_milli: u64, node: usize) -> bool {
        let bound = self.bound[member];
        match &self.kind {
            // Who is not bound counts too, once somebody who is bound is there.
            Kind::Ratio { bound_there, left_milli } => {
                !(bound || bound_there[node] > 0) || left_milli[node] >= signed(cpu_milli)
            }
            _ if !bound => true,
            Kind::Apart(counts) => counts.at(node) == 0,
            Kind::Together(counts) => counts.used == usize::from(counts.at(node) > 0),
            Kind::Few { counts, most } => counts.used + usize::from(counts.at(node) == 0) <= *most,
            Kind::Sides { from, sides } => sides[usize::from(!from[member])].at(node) == 0,
            Kind::Within(groups) => groups.iter().any(|g| g.elsewhere == 0 && g.inside[node]),
            Kind::Limited { inside, count, most } => !inside[node] || count < most,
        }
    }

    /// One more VM of this member is on this node.
    pub fn add(&mut self, member: usize, cpu_milli: u64, node: usize) {
        let bound = self.bound[member];
        match &mut self.kind {
            Kind::Ratio { bound_there, left_milli } => {
                bound_there[node] += u32::from(bound);
                left_milli[node] -= signed(cpu_milli);
            }
            _ if !bound => {}
            Kind::Apart(counts) | Kind::Together(counts) | Kind::Few { counts, .. } => {
                counts.add(node)
            }
            Kind::Sides { from, sides } => sides[usize::from(from[member])].add(node),
            Kind::Within(groups) => {
                groups.iter_mut().for_each(|g| g.elsewhere += u32::from(!g.inside[node]));
            }
            Kind::Limited { inside, count, .. } => *count += u32::from(inside[node]),
        }
    }

    /// And now it is not.
    pub fn remove(&mut self, member: usize, cpu_milli: u64, node: usize) {
        let bound = self.bound[member];
        match &mut self.kind {
            Kind::Ratio { bound_there, left_milli } => {
                bound_there[node] -= u32::from(bound);
                left_milli[node] += signed(cpu_milli);
            }
            _ if !bound => {}
            Kind::Apart(counts) | Kind::Together(counts) | Kind::Few { counts, .. } => {
                counts.remove(node);
            }
            Kind::Sides { from, sides } => sides[usize::from(from[member])].remove(node),
            Kind::Within(groups) => {
                groups.iter_mut().for_each(|g| g.elsewhere -= u32::from(!g.inside[node]));
            }
            Kind::Limited { inside, count, .. } => *count -= u32::from(inside[node]),
        }
    }
}

/// How many thousandths of a processor a node has left below this share of its own.
fn below(site: &Site<'_>, percent: u32) -> i64 {
    let Some(offer) = site.offer else { return 0 };
    let limit = offer.processors_milli.saturating_mul(percent.into()) / 100;
    signed(limit) - signed(offer.allocated.cpu_milli)
}

fn signed(milli: u64) -> i64 {
    i64::try_from(milli).unwrap_or(i64::MAX / 4)
}
