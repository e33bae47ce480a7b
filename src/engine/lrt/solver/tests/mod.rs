//! The solver against a brute-force oracle, and its words.

mod constraints;
mod goals;
mod oracle;
mod words;

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::engine::id::{MemberName, VeName, VeUid};
use crate::engine::spec::{Boot, NodeSelector, Recovery, Resources, RunStrategy, Terms};

const MIB: u64 = 1 << 20;

fn vm(member: &str, index: u32, memory_mib: u64) -> VmDefinition {
    VmDefinition {
        id: VmId { ve: VeUid::from("ve"), member: MemberName::from(member), index },
        ve: VeName::new("default", "ve"),
        epoch: 1,
        revision: 1,
        cpus: 1,
        memory: memory_mib * MIB,
        boot: Boot::Disk,
        disks: Vec::new(),
        run_strategy: RunStrategy::Always,
        terms: Terms::default(),
        recovery: Recovery::default(),
        depends: false,
    }
}

fn offer(node: &str, zone: &str, free_mib: u64) -> NodeOffer {
    let free = Resources { cpu_milli: 64_000, memory: free_mib * MIB };
    NodeOffer {
        node: NodeName::from(node),
        free,
        allocatable: free,
        labels: BTreeMap::from([("zone".to_owned(), zone.to_owned())]),
        zone: zone.to_owned(),
        schedulable: true,
        allocated: Resources::default(),
        processors_milli: 64_000,
        others: 0,
        guests: Vec::new(),
    }
}

fn problem(vms: Vec<VmDefinition>, constraints: Vec<Constraint>) -> Problem {
    Problem {
        vms,
        pinned: BTreeMap::new(),
        existing: BTreeMap::new(),
        moving: BTreeMap::new(),
        constraints,
    }
}

fn members(names: &[&str]) -> Vec<MemberName> {
    names.iter().map(|name| MemberName::from(*name)).collect()
}

/// Whether a full assignment is right: written apart from the search, on the whole at once.
fn holds(problem: &Problem, offers: &[NodeOffer], assignment: &Assignment) -> bool {
    let offer_of = |node: &NodeName| offers.iter().find(|offer| offer.node == *node);
    let fits = offers.iter().all(|offer| {
        let here = problem.vms.iter().filter(|vm| assignment.get(&vm.id) == Some(&offer.node));
        let sizes = here.map(|vm| Resources::of(vm.cpus, vm.memory));
        offer.free.holds(&sizes.fold(Resources::default(), |sum, size| sum.plus(&size)))
    });
    fits && problem.constraints.iter().all(|constraint| {
        let bound: Vec<_> = problem
            .vms
            .iter()
            .filter(|vm| constraint.binds(&vm.id.member))
            .filter_map(|vm| offer_of(assignment.get(&vm.id)?))
            .collect();
        let domains = |over: &Domain| -> BTreeSet<&str> {
            let name = |offer: &&NodeOffer| match over {
                Domain::Node => {
                    offers.iter().find(|o| o.node == offer.node).map(|o| o.node.as_str())
                }
                Domain::Zone => {
                    offers.iter().find(|o| o.node == offer.node).map(|o| o.zone.as_str())
                }
            };
            bound.iter().filter_map(name).collect()
        };
        match constraint {
            Constraint::Spread { over, .. } => domains(over).len() == bound.len(),
            Constraint::Gather { over, .. } => domains(over).len() <= 1,
            Constraint::Fence { nodes, .. } => {
                bound.iter().all(|offer| nodes.matches(&offer.node, &offer.labels))
            }
            Constraint::Ban { nodes, .. } => {
                bound.iter().all(|offer| !nodes.matches(&offer.node, &offer.labels))
            }
            Constraint::MaxNodes(most) => domains(&Domain::Node).len() <= *most as usize,
            Constraint::Lonely { .. } => bound.iter().all(|offer| offer.others == 0),
            Constraint::Among { groups, .. } => groups
                .iter()
                .any(|group| bound.iter().all(|offer| group.matches(&offer.node, &offer.labels))),
            Constraint::Split { members, from, over, .. } => {
                let side = |side: &[MemberName]| -> BTreeSet<String> {
                    let vms = problem.vms.iter().filter(|vm| side.contains(&vm.id.member));
                    let offers = vms.filter_map(|vm| offer_of(assignment.get(&vm.id)?));
                    offers.map(|offer| domain_of(*over, &offer.node, &offer.zone)).collect()
                };
                side(members).is_disjoint(&side(from))
            }
            Constraint::RunningCapacity { nodes, max, .. } => {
                let inside = bound.iter().filter(|o| nodes.matches(&o.node, &o.labels));
                inside.count() <= *max as usize
            }
            Constraint::Overbook { cpu_percent, .. } => bound.iter().all(|offer| {
                let here =
                    problem.vms.iter().filter(|v| assignment.get(&v.id) == Some(&offer.node));
                let cpus: u64 = here.map(|vm| u64::from(vm.cpus) * 1000).sum();
                let limit = offer.processors_milli * u64::from(*cpu_percent) / 100;
                offer.allocated.cpu_milli + cpus <= limit
            }),
            Constraint::Quarantine { nodes } => {
                bound.iter().all(|offer| !nodes.matches(&offer.node, &offer.labels))
            }
            Constraint::Root { .. } => true,
            Constraint::Spare => {
                assignment.len() < problem.vms.len() || survives(problem, offers, assignment)
            }
        }
    })
}

/// Whether the VMs of any one node have a place on the others.
fn survives(problem: &Problem, offers: &[NodeOffer], assignment: &Assignment) -> bool {
    fn house(problem: &Problem, offers: &[NodeOffer], assignment: &mut Assignment) -> bool {
        if !holds(problem, offers, assignment) {
            return false;
        }
        let next = problem.vms.iter().find(|vm| !assignment.contains_key(&vm.id));
        next.is_none_or(|vm| {
            offers.iter().any(|offer| {
                assignment.insert(vm.id.clone(), offer.node.clone());
                let housed = house(problem, offers, assignment);
                assignment.remove(&vm.id);
                housed
            })
        })
    }
    let mut others = problem.clone();
    others.constraints.retain(|constraint| *constraint != Constraint::Spare);
    let used: BTreeSet<&NodeName> = assignment.values().collect();
    used.into_iter().all(|lost| {
        let offers: Vec<_> = offers.iter().filter(|offer| offer.node != *lost).cloned().collect();
        let kept = assignment.iter().filter(|(_, node)| *node != lost);
        let mut kept: Assignment = kept.map(|(vm, node)| (vm.clone(), node.clone())).collect();
        house(&others, &offers, &mut kept)
    })
}

/// Tries every assignment.
fn feasible(problem: &Problem, offers: &[NodeOffer]) -> bool {
    let (nodes, vms) = (offers.len(), problem.vms.len());
    (0..nodes.pow(vms as u32)).any(|mut code| {
        let mut assignment = Assignment::new();
        for vm in &problem.vms {
            assignment.insert(vm.id.clone(), offers[code % nodes].node.clone());
            code /= nodes;
        }
        holds(problem, offers, &assignment)
    })
}

fn constraint() -> impl Strategy<Value = Constraint> {
    let who = prop_oneof![Just(vec![]), Just(members(&["a"])), Just(members(&["b"]))];
    let over = prop_oneof![Just(Domain::Node), Just(Domain::Zone)];
    let nodes = prop_oneof![
        Just(NodeSelector { names: vec![NodeName::from("n0")], labels: BTreeMap::new() }),
        Just(NodeSelector {
            names: vec![],
            labels: BTreeMap::from([("zone".to_owned(), "x".to_owned())])
        }),
    ];
    prop_oneof![
        (who.clone(), over.clone()).prop_map(|(members, over)| Constraint::Spread {
            members,
            over,
            continuous: true
        }),
        (who.clone(), over.clone()).prop_map(|(members, over)| Constraint::Gather {
            members,
            over,
            continuous: false
        }),
        (who.clone(), nodes.clone()).prop_map(|(members, nodes)| Constraint::Fence {
            members,
            nodes,
            continuous: true
        }),
        (who.clone(), nodes.clone()).prop_map(|(members, nodes)| Constraint::Ban {
            members,
            nodes,
            continuous: true
        }),
        (1..4_u32).prop_map(Constraint::MaxNodes),
        who.clone().prop_map(|members| Constraint::Lonely { members, continuous: true }),
        who.clone().prop_map(|members| Constraint::Root { members }),
        (who.clone(), prop::collection::vec(nodes.clone(), 1..3)).prop_map(|(members, groups)| {
            Constraint::Among { members, groups, continuous: false }
        }),
        over.clone().prop_map(|over| {
            let (members, from) = (members(&["a"]), members(&["b"]));
            Constraint::Split { members, from, over, continuous: true }
        }),
        nodes.clone().prop_map(|nodes| Constraint::Quarantine { nodes }),
        (who.clone(), nodes.clone(), 0..4_u32).prop_map(|(members, nodes, max)| {
            Constraint::RunningCapacity { members, nodes, max, continuous: true }
        }),
        (who.clone(), 50..200_u32)
            .prop_map(|(members, cpu_percent)| { Constraint::Overbook { members, cpu_percent } }),
        Just(Constraint::Spare),
    ]
}

/// A case as generated: VMs of members a and b, and nodes in three zones.
fn case(
    sizes: &[(bool, u64)],
    free: &[(usize, u64)],
    constraints: Vec<Constraint>,
) -> (Problem, Vec<NodeOffer>) {
    let vms = sizes
        .iter()
        .enumerate()
        .map(|(index, (first, size))| vm(if *first { "a" } else { "b" }, index as u32, *size));
    let offers = free
        .iter()
        .enumerate()
        .map(|(index, (zone, free))| offer(&format!("n{index}"), ["x", "y", "z"][*zone], *free));
    (problem(vms.collect(), constraints), offers.collect())
}

proptest! {
    #[test]
    fn it_finds_an_assignment_exactly_where_one_exists(
        sizes in prop::collection::vec((prop::bool::ANY, 1..5_u64), 1..6),
        free in prop::collection::vec((0..3_usize, 0..9_u64), 1..5),
        constraints in prop::collection::vec(constraint(), 0..4),
    ) {
        let (problem, offers) = case(&sizes, &free, constraints);
        match solve(&problem, &offers, Goal::Stay) {
            Some(assignment) => {
                prop_assert_eq!(assignment.len(), problem.vms.len());
                prop_assert!(holds(&problem, &offers, &assignment), "{:?}", assignment);
            }
            None => {
                prop_assert!(!feasible(&problem, &offers), "the oracle found one");
                prop_assert!(!explain(&problem, &offers, &BTreeMap::new()).is_empty());
            }
        }
    }
}

#[test]
fn existing_vms_count_for_spread_and_max_nodes() {
    let place =
        Place { node: NodeName::from("n0"), zone: String::new(), size: Resources::default() };
    let mut spread = problem(
        vec![vm("a", 1, 1)],
        vec![Constraint::Spread { members: vec![], over: Domain::Node, continuous: true }],
    );
    spread.existing.insert(vm("a", 0, 1).id, place);
    assert_eq!(solve(&spread, &[offer("n0", "", 8)], Goal::Stay), None);
    let found = solve(&spread, &[offer("n0", "", 8), offer("n1", "", 8)], Goal::Stay);
    assert_eq!(found.and_then(|a| a.into_values().next()), Some(NodeName::from("n1")));
}
