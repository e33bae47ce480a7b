//! What a constraint between VMs has to count so as to judge one more VM at once. All but the last word of
//! a search: a partial assignment that breaks one of these is never mended by placing more VMs.

use std::collections::BTreeMap;

use crate::engine::id::MemberName;
use crate::engine::spec::{Constraint, Domain};

/// The counts of one constraint. Nodes and members are numbers of the [`super::board::Board`].
#[derive(Clone, Debug)]
pub struct Tally {
    bound: Vec<bool>,
    kind: Kind,
}

#[derive(Clone, Debug)]
enum Kind {
    /// Spread: at most one in each domain.
    Apart(Counts),
    /// Gather: all in one domain.
    Together(Counts),
    /// `maxNodes`: at most so many nodes in use.
    Few { counts: Counts, most: usize },
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

/// The numbers of the board that a tally needs to begin.
pub struct Numbers<'a> {
    /// Every member.
    pub members: &'a [MemberName],
    /// For each kind of domain, the domain's number of each node.
    pub domains: &'a BTreeMap<Domain, Vec<usize>>,
}

impl Tally {
    /// The empty tally of a constraint; `None` for one that asks about single VMs only.
    pub fn of(constraint: &Constraint, numbers: &Numbers<'_>) -> Option<Self> {
        let counts = |over: &Domain| Counts::new(&numbers.domains[over]);
        let kind = match constraint {
            Constraint::Spread { over, .. } => Kind::Apart(counts(over)),
            Constraint::Gather { over, .. } => Kind::Together(counts(over)),
            Constraint::MaxNodes(most) => {
                Kind::Few { counts: counts(&Domain::Node), most: *most as usize }
            }
            Constraint::Fence { .. } | Constraint::Ban { .. } => return None,
        };
        let bound = numbers.members.iter().map(|member| constraint.binds(member)).collect();
        Some(Self { bound, kind })
    }

    /// Whether it still holds with one more VM of this member on this node.
    pub fn allows(&self, member: usize, node: usize) -> bool {
        if !self.bound[member] {
            return true;
        }
        match &self.kind {
            Kind::Apart(counts) => counts.at(node) == 0,
            Kind::Together(counts) => counts.used == usize::from(counts.at(node) > 0),
            Kind::Few { counts, most } => counts.used + usize::from(counts.at(node) == 0) <= *most,
        }
    }

    /// One more VM of this member is on this node.
    pub fn add(&mut self, member: usize, node: usize) {
        if self.bound[member] {
            self.counts().add(node);
        }
    }

    /// And now it is not.
    pub fn remove(&mut self, member: usize, node: usize) {
        if self.bound[member] {
            self.counts().remove(node);
        }
    }

    fn counts(&mut self) -> &mut Counts {
        match &mut self.kind {
            Kind::Apart(counts) | Kind::Together(counts) | Kind::Few { counts, .. } => counts,
        }
    }
}
