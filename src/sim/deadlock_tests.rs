//! Partitions in each other's way: the deadlocks of the literature (Quesnel's and Pastor's tests of DVMS: linear, nested, a
//! ring; with crashes), as environments whose constraints leave each procedure no other nodes. Every initiator starts at the
//! same moment. That no partition is held for ever (I4) is checked after every event.
//!
//! ```text
//!   linear   n1 ─ n2 ─ n3 ─ …      the procedure of ni needs ni and the next
//!   ring     … ─ n12 ─ n1 ─ …      the same, closed
//!   nested   [n1 [n2 [n3 n4] n5] n6]   each from either of its ends
//! ```

use std::time::Duration;

use super::network::Quality;
use super::tests::{is_ready, spec};
use super::world::{Setup, World};
use crate::engine::dnt::rendezvous;
use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::lrt::solver::Goal;
use crate::engine::replica::is_majority;
use crate::engine::spec::{Constraint, Domain, NodeSelector, Resources};

/// Much longer than any of these takes without a crash.
const SOON: Duration = Duration::from_secs(30);

/// Nodes with room for everything, so that nothing but each other is in the procedures' way.
fn world(nodes: usize, seed: u64) -> World {
    let capacity = Resources { cpu_milli: 16_000, memory: 16 << 30 };
    let (network, goal) = (Quality::default(), Goal::default());
    let mut world = World::new(&Setup { seed, nodes, capacity, zones: 0, network, goal });
    world.run_for(Duration::from_secs(2));
    world
}

fn node(number: usize) -> NodeName {
    NodeName::from(format!("n{number}"))
}

/// Applies an environment that this node handles, with one VM on each of these nodes. Its uid is sought, as the
/// handler follows from it.
fn apply(world: &mut World, handler: &NodeName, on: &[NodeName]) -> VeUid {
    let names = world.names();
    let name = format!("on-{handler}-{}", on.len());
    let uid = (0..)
        .map(|salt| VeUid::from(format!("{name}-{salt}")))
        .find(|uid| rendezvous::ranked(uid.as_str(), names.iter()).first() == Some(handler))
        .expect("some uid is its");
    let mut wanted = spec(on.len() as u32, 1);
    let nodes = NodeSelector { names: on.to_vec(), labels: Default::default() };
    wanted.placement = vec![
        Constraint::Spread { members: Vec::new(), over: Domain::Node, continuous: true },
        Constraint::Fence { members: Vec::new(), nodes, continuous: true },
    ];
    world.apply(&uid, &VeName::new("default", &name), wanted);
    uid
}

fn all_ready(world: &World, uids: &[VeUid]) -> bool {
    uids.iter().all(|uid| is_ready(world, uid))
}

fn assert_resolved(nodes: usize, seed: u64, apply_all: impl Fn(&mut World) -> Vec<VeUid>) {
    let mut world = world(nodes, seed);
    let uids = apply_all(&mut world);
    let resolved = world.run_while_not(SOON, |world| all_ready(world, &uids));
    assert_eq!(world.broken, vec![], "{nodes} nodes, seed {seed}");
    assert!(resolved, "{nodes} nodes, seed {seed}");
}

fn ring(world: &mut World, nodes: usize) -> Vec<VeUid> {
    (1..=nodes).map(|i| apply(world, &node(i), &[node(i), node(i % nodes + 1)])).collect()
}

fn nested(world: &mut World, nodes: usize) -> Vec<VeUid> {
    let mut uids = Vec::new();
    for depth in 1..=nodes / 2 {
        let within: Vec<NodeName> = (depth..=nodes + 1 - depth).map(node).collect();
        for end in [depth, nodes + 1 - depth] {
            uids.push(apply(world, &node(end), &within));
        }
    }
    uids
}

#[test]
fn a_line_of_procedures_that_each_need_the_next_node_is_resolved() {
    for nodes in [4, 6, 9, 12] {
        for seed in 0..3 {
            assert_resolved(nodes, seed, |world| {
                let line = 1..nodes;
                line.map(|i| apply(world, &node(i), &[node(i), node(i + 1)])).collect()
            });
        }
    }
}

#[test]
fn a_ring_of_procedures_that_each_need_the_next_node_is_resolved() {
    for nodes in [3, 4, 6, 9, 12] {
        for seed in 0..3 {
            assert_resolved(nodes, seed, |world| ring(world, nodes));
        }
    }
}

#[test]
fn nested_procedures_of_4_nodes_are_resolved() {
    (0..3).for_each(|seed| assert_resolved(4, seed, |world| nested(world, 4)));
}

#[test]
fn nested_procedures_of_6_nodes_are_resolved() {
    (0..3).for_each(|seed| assert_resolved(6, seed, |world| nested(world, 6)));
}

#[test]
fn nested_procedures_of_9_nodes_are_resolved() {
    (0..3).for_each(|seed| assert_resolved(9, seed, |world| nested(world, 9)));
}

#[test]
fn nested_procedures_of_12_nodes_are_resolved() {
    (0..3).for_each(|seed| assert_resolved(12, seed, |world| nested(world, 12)));
}

/// Which of a partition's nodes lose their agents.
#[derive(Clone, Copy, Debug)]
enum Victims {
    Member,
    Initiator,
    Both,
    /// Of two partitions.
    TwoInitiators,
    MemberAndAnotherInitiator,
}

/// A node whose procedure has reserved another one by now, and that one.
fn partition(world: &World, but: &[NodeName]) -> Option<(NodeName, NodeName)> {
    world.names().into_iter().filter(|name| !but.contains(name)).find_map(|name| {
        let procedure = world.engine(&name)?.view().procedure?;
        let other = procedure.members.into_iter().find(|member| *member != name)?;
        Some((name, other))
    })
}

/// In a ring of twelve, these crash while they are in a partition: the others' environments are placed all the same (but for
/// those that need a dead node), and all when the dead are back.
fn crash_in_a_ring_of_12(victims: Victims) {
    for seed in 0..3 {
        let mut world = world(12, seed);
        let uids = ring(&mut world, 12);
        assert!(world.run_while_not(SOON, |world| partition(world, &[]).is_some()), "{victims:?}");
        let (initiator, member) = partition(&world, &[]).expect("there is one");
        let mut dead = match victims {
            Victims::Member | Victims::MemberAndAnotherInitiator => vec![member],
            Victims::Initiator | Victims::TwoInitiators => vec![initiator],
            Victims::Both => vec![initiator, member],
        };
        dead.iter().for_each(|name| world.kill_agent(name));
        if matches!(victims, Victims::TwoInitiators | Victims::MemberAndAnotherInitiator) {
            let found = world.run_while_not(SOON, |world| partition(world, &dead).is_some());
            assert!(found, "another partition, {victims:?}, seed {seed}");
            let (second, _) = partition(&world, &dead).expect("there is one");
            world.kill_agent(&second);
            dead.push(second);
        }
        // What needs no dead node: neither for a VM nor for a majority of its record's replicas.
        let alive = |i: &usize| {
            let needs = [node(*i), node(*i % 12 + 1)];
            let set = world.api.get(&uids[i - 1]).map(|object| object.declared.replica_set.clone());
            let decides = is_majority(&set.unwrap_or_default(), |r| !dead.contains(&r.node));
            decides && needs.iter().all(|needed| !dead.contains(needed))
        };
        let whole: Vec<VeUid> = (1..=12).filter(alive).map(|i| uids[i - 1].clone()).collect();
        assert!(whole.len() >= 6, "{victims:?}, seed {seed}");
        let placed = world.run_while_not(SOON, |world| all_ready(world, &whole));
        assert_eq!(world.broken, vec![], "{victims:?}, seed {seed}");
        assert!(placed, "{victims:?}, seed {seed}");
        dead.iter().for_each(|name| world.start_agent(name));
        let all = world.run_while_not(SOON * 2, |world| all_ready(world, &uids));
        assert_eq!(world.broken, vec![], "{victims:?}, seed {seed}");
        assert!(all, "{victims:?}, seed {seed}");
    }
}

#[test]
fn a_member_that_crashes_in_a_ring_of_12_holds_nobody_up() {
    crash_in_a_ring_of_12(Victims::Member);
}

#[test]
fn an_initiator_that_crashes_in_a_ring_of_12_holds_nobody_up() {
    crash_in_a_ring_of_12(Victims::Initiator);
}

#[test]
fn an_initiator_and_its_member_that_crash_in_a_ring_of_12_hold_nobody_up() {
    crash_in_a_ring_of_12(Victims::Both);
}

#[test]
fn two_initiators_that_crash_in_a_ring_of_12_hold_nobody_up() {
    crash_in_a_ring_of_12(Victims::TwoInitiators);
}

#[test]
fn a_member_and_another_initiator_that_crash_in_a_ring_of_12_hold_nobody_up() {
    crash_in_a_ring_of_12(Victims::MemberAndAnotherInitiator);
}
