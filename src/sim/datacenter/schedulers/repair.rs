//! The solver of the baselines: the fewest migrations after which no node of a set is overloaded.
//!
//! After Entropy in its repair mode (F. Hermenier, S. Demassey, X. Lorca: *Bin Repacking Scheduling in
//! Virtualized Datacenters*, CP 2011): VMs of nodes that are fine stay, and of an overloaded node the cheapest
//! set goes. With VMs of one size, cheapest is fewest. What Entropy leaves to constraint programming is greedy
//! here: a single VM that suffices if there is one (the least loaded that does), else the most loaded first; each
//! goes to the node with most room. The set is small and the nodes are mostly half empty, so that the
//! greedy way finds a solution nearly whenever there is one.

use std::collections::BTreeSet;

use super::super::super::workload::Load;
use super::super::scheduler::{NodeView, VmView};

/// A node as it was when it was looked at.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which.
    pub node: u32,
    /// Sum of its VMs' loads.
    pub load: Load,
    memory_free_mib: u32,
    vms: Vec<VmView>,
}

impl Seen {
    /// Takes down what is seen of a node. Its VMs are needed only if it is overloaded: only those move.
    #[must_use]
    pub fn new(node: u32, view: NodeView<'_>) -> Self {
        let vms = if view.is_overloaded() { view.vms().collect() } else { Vec::new() };
        Self { node, load: view.load(), memory_free_mib: view.memory_free_mib(), vms }
    }
}

/// A VM that is to go somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// Which.
    pub vm: u32,
    /// Where it runs.
    pub from: u32,
    /// Where it is to run.
    pub to: u32,
}

/// What the solver found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To be done at once.
    pub moves: Vec<Move>,
    /// Nodes that stay overloaded: none, if it is a solution.
    pub unsolved: u32,
}

/// Plans for these nodes.
#[must_use]
pub fn repair(mut nodes: Vec<Seen>, capacity: Load) -> Plan {
    // By room, then by node: the last has most room.
    let mut room: BTreeSet<(Load, usize)> = BTreeSet::new();
    let mut overloaded: Vec<usize> = Vec::new();
    for (index, node) in nodes.iter().enumerate() {
        if node.load > capacity {
            overloaded.push(index);
        } else {
            room.insert((capacity - node.load, index));
        }
    }
    overloaded.sort_by_key(|index| (std::cmp::Reverse(nodes[*index].load), *index));
    let mut plan = Plan::default();
    for index in overloaded {
        relieve(index, &mut nodes, capacity, &mut room, &mut plan);
    }
    plan
}

/// Moves VMs off one node until it is no longer overloaded, or nothing more fits anywhere.
fn relieve(
    index: usize,
    nodes: &mut [Seen],
    capacity: Load,
    room: &mut BTreeSet<(Load, usize)>,
    plan: &mut Plan,
) {
    let mut candidates: Vec<VmView> =
        nodes[index].vms.iter().filter(|vm| !vm.moving && vm.load > 0).copied().collect();
    candidates.sort_by_key(|vm| (vm.load, vm.vm));
    while nodes[index].load > capacity {
        let excess = nodes[index].load - capacity;
        let enough = candidates.iter().position(|vm| vm.load >= excess);
        let found = enough
            .and_then(|at| target(&candidates[at], nodes, room).map(|to| (at, to)))
            .or_else(|| largest_that_fits(&candidates, nodes, room));
        let Some((at, (free, to))) = found else {
            plan.unsolved += 1;
            return;
        };
        let vm = candidates.remove(at);
        room.remove(&(free, to));
        room.insert((free - vm.load, to));
        nodes[to].load += vm.load;
        nodes[to].memory_free_mib -= vm.memory_mib;
        nodes[index].load -= vm.load;
        plan.moves.push(Move { vm: vm.vm, from: nodes[index].node, to: nodes[to].node });
    }
}

fn largest_that_fits(
    candidates: &[VmView],
    nodes: &[Seen],
    room: &BTreeSet<(Load, usize)>,
) -> Option<(usize, (Load, usize))> {
    let by_load = candidates.iter().enumerate().rev();
    by_load.filter_map(|(at, vm)| target(vm, nodes, room).map(|to| (at, to))).next()
}

/// The node with most room that has the memory too.
fn target(vm: &VmView, nodes: &[Seen], room: &BTreeSet<(Load, usize)>) -> Option<(Load, usize)> {
    let fits = room.iter().rev().take_while(|(free, _)| *free >= vm.load);
    fits.copied().find(|(_, node)| nodes[*node].memory_free_mib >= vm.memory_mib)
}

#[cfg(test)]
mod tests {
    use rand::rngs::ChaCha8Rng;
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn seen(node: u32, loads: &[Load], memory_free_mib: u32) -> Seen {
        let vm = |(at, load): (usize, &Load)| VmView {
            vm: node * 100 + at as u32,
            load: *load,
            memory_mib: 1024,
            moving: false,
        };
        let vms = loads.iter().enumerate().map(vm).collect();
        Seen { node, load: loads.iter().sum(), memory_free_mib, vms }
    }

    #[test]
    fn the_least_vm_that_suffices_goes_where_most_room_is() {
        let nodes = vec![seen(0, &[90, 70, 60], 0), seen(1, &[100], 9_000), seen(2, &[40], 9_000)];
        let plan = repair(nodes, 160);
        assert_eq!(plan, Plan { moves: vec![Move { vm: 2, from: 0, to: 2 }], unsolved: 0 });
    }

    #[test]
    fn a_node_without_memory_takes_nothing() {
        let nodes = vec![seen(0, &[90, 80], 0), seen(1, &[60], 9_000), seen(2, &[0], 1_000)];
        let plan = repair(nodes, 160);
        assert_eq!(plan.moves, [Move { vm: 1, from: 0, to: 1 }]);
    }

    #[test]
    fn several_go_when_one_is_not_enough_and_what_stays_is_told() {
        let plan = repair(vec![seen(0, &[50, 50, 50], 0), seen(1, &[0], 9_000)], 60);
        assert_eq!((plan.moves.len(), plan.unsolved), (1, 1));
        let plan = repair(vec![seen(0, &[50, 50, 50], 0), seen(1, &[0], 9_000)], 100);
        assert_eq!((plan.moves.len(), plan.unsolved), (1, 0));
        let more = vec![seen(0, &[50, 50, 50], 0), seen(1, &[0], 9_000), seen(2, &[0], 9_000)];
        assert_eq!(repair(more, 60).moves.len(), 2);
    }

    /// The fewest VMs of the first node that can go so that nothing is overloaded: all ways to place them.
    fn fewest(vms: &[Load], room: [Load; 3], excess: Load) -> Option<u32> {
        let Some((load, rest)) = vms.split_first() else { return (excess == 0).then_some(0) };
        let stays = fewest(rest, room, excess);
        let goes = (0..3).filter(|node| room[*node] >= *load).filter_map(|node| {
            let mut left = room;
            left[node] -= load;
            fewest(rest, left, excess.saturating_sub(*load)).map(|moves| moves + 1)
        });
        goes.chain(stays).min()
    }

    #[test]
    fn nearly_all_that_can_be_solved_is_and_nearly_always_with_the_fewest_moves() {
        let mut random = ChaCha8Rng::seed_from_u64(11);
        let (mut solvable, mut solved, mut best) = (0, 0, 0);
        for _ in 0..400 {
            let mut loads = |sum: Load| -> Vec<Load> {
                let mut loads: Vec<Load> =
                    (0..7).map(|_| 10 * random.random_range(1..=10)).collect();
                while loads.iter().sum::<Load>() > sum {
                    loads.pop();
                }
                loads
            };
            let (full, others) = (loads(700), [(); 3].map(|()| loads(400)));
            let (sum, room) = (
                full.iter().sum::<Load>(),
                others.each_ref().map(|o| 400 - o.iter().sum::<Load>()),
            );
            let exact = fewest(&full, room, sum.saturating_sub(400));
            let nodes = std::iter::once(&full).chain(&others);
            let nodes = (0..).zip(nodes).map(|(node, loads)| seen(node, loads, 9_000)).collect();
            let plan = repair(nodes, 400);
            if plan.unsolved == 0 {
                let moves = plan.moves.len() as u32;
                assert!(exact.is_some_and(|fewest| fewest <= moves), "{full:?} {room:?} {plan:?}");
                best += u32::from(exact == Some(moves));
                solved += 1;
            }
            solvable += u32::from(exact.is_some());
        }
        assert!(solvable > 200 && solved * 100 >= solvable * 99, "{solved} of {solvable}");
        assert!(best * 100 >= solved * 99, "{best} of {solved}");
    }
}
