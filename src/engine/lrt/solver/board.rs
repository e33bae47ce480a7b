//! A problem with numbers for names: what the search moves its pieces on.

use std::collections::{BTreeMap, BTreeSet};

use super::goal::Load;
use super::tally::{Numbers, Site, Tally};
use super::{Assignment, Problem, domain_of};
use crate::engine::id::{MemberName, NodeName, VmId};
use crate::engine::lrt::NodeOffer;
use crate::engine::spec::{Constraint, Domain, Resources, VmDefinition};

/// Which rules of a problem count. To find what clashes, some are left out.
#[derive(Clone, Debug)]
pub struct Rules<'a> {
    /// These constraints.
    pub constraints: Vec<&'a Constraint>,
    /// VMs go where their disks are.
    pub disks: bool,
}

impl<'a> Rules<'a> {
    /// All of a problem's.
    pub fn all(problem: &'a Problem) -> Self {
        Self { constraints: problem.constraints.iter().collect(), disks: true }
    }

    /// None: only the nodes' room counts.
    pub fn none() -> Self {
        Self { constraints: Vec::new(), disks: false }
    }

    /// Whether this node may hold this VM, whatever else it holds.
    pub fn permit(&self, problem: &Problem, vm: &VmId, offer: &NodeOffer) -> bool {
        let home = problem.pinned.get(vm).filter(|_| self.disks);
        home.is_none_or(|node| *node == offer.node)
            && offer.schedulable
            && self.constraints.iter().all(|constraint| {
                permits(constraint, &vm.member, offer)
                    // Who is on a node already does not enter it.
                    || (home.is_some() && matches!(constraint, Constraint::Quarantine { .. }))
            })
    }
}

/// Whether a constraint permits a VM of this member on this node, whatever else is there.
pub fn permits(constraint: &Constraint, member: &MemberName, offer: &NodeOffer) -> bool {
    match constraint {
        _ if !constraint.binds(member) => true,
        Constraint::Fence { nodes, .. } => nodes.matches(&offer.node, &offer.labels),
        Constraint::Ban { nodes, .. } => !nodes.matches(&offer.node, &offer.labels),
        Constraint::Quarantine { nodes } => !nodes.matches(&offer.node, &offer.labels),
        Constraint::Lonely { .. } => offer.others == 0,
        _ => true,
    }
}

/// One VM to be placed.
pub struct Piece<'a> {
    /// What it is.
    pub vm: &'a VmDefinition,
    /// What it takes.
    pub size: Resources,
    /// Pieces of one class may stand in for each other.
    pub class: usize,
    /// Its member's number.
    pub member: usize,
}

/// A VM that stays where it is.
#[derive(Clone, Debug)]
pub struct Settled {
    /// Its member's number.
    pub member: usize,
    /// What it takes.
    pub size: Resources,
    /// Where it is.
    pub site: usize,
    /// The nodes that could take it in if that one were lost.
    pub refuge: Vec<bool>,
}

/// The state of a search: what is where, what is left, and what each constraint has counted.
pub struct Board<'a> {
    /// VMs to be placed, in the order in which the search places them.
    pub pieces: Vec<Piece<'a>>,
    /// The offered nodes, nearest first.
    pub loads: Vec<Load>,
    /// How many classes of pieces there are.
    pub classes: usize,
    /// The environment's other VMs.
    pub settled: Vec<Settled>,
    /// For each class, the nodes that could take its pieces in if theirs were lost.
    pub refuge: Vec<Vec<bool>>,
    /// What each constraint between VMs has counted.
    pub tallies: Vec<Tally>,
    /// The environment must survive the loss of a node.
    pub spare: bool,
    offers: &'a [NodeOffer],
    members: Vec<MemberName>,
    sites: BTreeMap<&'a NodeName, usize>,
    /// For each class, the nodes that the rules for single VMs leave it.
    permitted: Vec<Vec<bool>>,
}

impl<'a> Board<'a> {
    /// The board before the first move: the existing VMs are where they are.
    pub fn new(problem: &'a Problem, offers: &'a [NodeOffer], rules: &Rules<'a>) -> Self {
        let members: BTreeSet<&MemberName> = problem
            .vms
            .iter()
            .map(|vm| &vm.id)
            .chain(problem.existing.keys())
            .map(|id| &id.member)
            .collect();
        let members: Vec<MemberName> = members.into_iter().cloned().collect();
        // Existing VMs may be on nodes outside the partition: those get the numbers after the offered ones.
        let site = |offer: &'a NodeOffer| Site {
            node: &offer.node,
            zone: &offer.zone,
            offer: Some(offer),
        };
        let mut sites: Vec<Site<'_>> = offers.iter().map(site).collect();
        let mut site_of: BTreeMap<&NodeName, usize> =
            offers.iter().enumerate().map(|(index, offer)| (&offer.node, index)).collect();
        for place in problem.existing.values().chain(problem.moving.values()) {
            site_of.entry(&place.node).or_insert_with(|| {
                sites.push(Site { node: &place.node, zone: &place.zone, offer: None });
                sites.len() - 1
            });
        }
        let domains = [Domain::Node, Domain::Zone].map(|over| (over, number(over, &sites)));
        let domains = BTreeMap::from(domains);
        let numbers = Numbers { members: &members, sites: &sites, domains: &domains };
        let tallies = rules.constraints.iter().filter_map(|c| Tally::of(c, &numbers)).collect();

        let member_of = |member: &MemberName| members.binary_search(member).unwrap_or(0);
        let mut board = Self {
            pieces: pieces(problem, rules, &member_of),
            loads: offers.iter().enumerate().map(|(rank, offer)| load(rank, offer)).collect(),
            classes: 0,
            settled: Vec::new(),
            refuge: Vec::new(),
            tallies,
            spare: rules.constraints.iter().any(|c| **c == Constraint::Spare),
            offers,
            members: members.clone(),
            sites: site_of.clone(),
            permitted: Vec::new(),
        };
        // Disks go with their node.
        let diskless = Rules { disks: false, ..rules.clone() };
        let refuge = |vm: &VmId| -> Vec<bool> {
            offers.iter().map(|offer| diskless.permit(problem, vm, offer)).collect()
        };
        for piece in &board.pieces {
            if piece.class == board.classes {
                let permit = |offer| rules.permit(problem, &piece.vm.id, offer);
                board.permitted.push(offers.iter().map(permit).collect());
                board.refuge.push(refuge(&piece.vm.id));
                board.classes += 1;
            }
        }
        for (vm, place) in &problem.existing {
            let (member, site) = (member_of(&vm.member), site_of[&place.node]);
            // What it takes is in the offers already.
            let target = problem.moving.get(vm).map(|place| site_of[&place.node]);
            for tally in &mut board.tallies {
                match target {
                    Some(target) if !tally.continuous => tally.add(member, 0, target),
                    _ => tally.add(member, 0, site),
                }
                if let Some(target) = target.filter(|_| tally.continuous) {
                    tally.add(member, 0, target);
                }
            }
            if board.spare {
                let (size, refuge) = (place.size, refuge(vm));
                board.settled.push(Settled { member, size, site, refuge });
            }
        }
        board
    }

    /// Whether all constraints between VMs hold with one more VM of this member and size on this node.
    pub fn admits(&self, member: usize, size: &Resources, node: usize) -> bool {
        self.tallies.iter().all(|tally| tally.allows(member, size.cpu_milli, node))
    }

    /// Whether all rules hold with this piece on this node, too.
    pub fn allows(&self, piece: usize, node: usize) -> bool {
        let piece = &self.pieces[piece];
        self.permitted[piece.class][node]
            && self.loads[node].free.holds(&piece.size)
            && self.admits(piece.member, &piece.size, node)
    }

    /// Whether the rules for single VMs leave this piece the node, and the node has room for it alone.
    pub fn fits_alone(&self, piece: usize, node: usize) -> bool {
        let piece = &self.pieces[piece];
        self.permitted[piece.class][node] && self.loads[node].offered.holds(&piece.size)
    }

    /// A member's number, if any VM is of it.
    pub fn member(&self, member: &MemberName) -> Option<usize> {
        self.members.binary_search(member).ok()
    }

    /// One of the settled VMs, of this member, leaves its node.
    pub fn leave(&mut self, member: usize, node: &NodeName) {
        if let Some(site) = self.sites.get(node) {
            self.tallies.iter_mut().for_each(|tally| tally.remove(member, 0, *site));
        }
    }

    /// Puts a piece on a node.
    pub fn put(&mut self, piece: usize, node: usize) {
        let Piece { member, size, .. } = self.pieces[piece];
        let load = &mut self.loads[node];
        load.free = load.free.minus(&size);
        self.tallies.iter_mut().for_each(|tally| tally.add(member, size.cpu_milli, node));
    }

    /// Takes it off again.
    pub fn take(&mut self, piece: usize, node: usize) {
        let Piece { member, size, .. } = self.pieces[piece];
        let load = &mut self.loads[node];
        load.free = load.free.plus(&size);
        self.tallies.iter_mut().for_each(|tally| tally.remove(member, size.cpu_milli, node));
    }

    /// Where the pieces are, by name; `nodes` has one number for each.
    pub fn assignment(&self, nodes: &[usize]) -> Assignment {
        let named = |(piece, node): (&Piece<'_>, &usize)| {
            (piece.vm.id.clone(), self.offers[*node].node.clone())
        };
        self.pieces.iter().zip(nodes).map(named).collect()
    }
}

fn load(rank: usize, offer: &NodeOffer) -> Load {
    Load { allocatable: offer.allocatable, free: offer.free, offered: offer.free, rank }
}

/// The VMs, those with the least choice and the largest first.
fn pieces<'a>(
    problem: &'a Problem,
    rules: &Rules<'_>,
    member_of: &dyn Fn(&MemberName) -> usize,
) -> Vec<Piece<'a>> {
    let home = |vm: &VmDefinition| problem.pinned.get(&vm.id).filter(|_| rules.disks);
    let mut order: Vec<&VmDefinition> = problem.vms.iter().collect();
    order.sort_by(|a, b| {
        (home(b).is_some(), b.memory, b.cpus, &a.id).cmp(&(
            home(a).is_some(),
            a.memory,
            a.cpus,
            &b.id,
        ))
    });
    let mut classes = BTreeMap::new();
    let piece = |vm: &'a VmDefinition| {
        let size = Resources::of(vm.cpus, vm.memory);
        let next = classes.len();
        let class = *classes.entry((&vm.id.member, size, home(vm))).or_insert(next);
        Piece { vm, size, class, member: member_of(&vm.id.member) }
    };
    order.into_iter().map(piece).collect()
}

/// The number of each site's domain.
fn number(over: Domain, sites: &[Site<'_>]) -> Vec<usize> {
    let mut known = BTreeMap::new();
    let number = |site: &Site<'_>| {
        let next = known.len();
        *known.entry(domain_of(over, site.node, site.zone)).or_insert(next)
    };
    sites.iter().map(number).collect()
}
