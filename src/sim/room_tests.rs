//! Environments that find no room have it made: others' VMs move, live, by their own handlers, and nobody is stopped.

use std::collections::BTreeMap;
use std::time::Duration;

use super::moves_tests::{instances, maintain};
use super::tests::{apply, is_ready, spec, world};
use super::world::World;
use crate::engine::id::{NodeName, VeUid};
use crate::engine::spec::{Constraint, NodeSelector, VeSpec};

const SOON: Duration = Duration::from_secs(60);
/// A plan of several steps: each is made, seen to be, and the next one thought of.
const LATER: Duration = Duration::from_secs(300);

fn only(node: &str) -> Vec<Constraint> {
    let nodes = NodeSelector { names: vec![NodeName::from(node)], labels: BTreeMap::new() };
    vec![Constraint::Fence { members: Vec::new(), nodes, continuous: true }]
}

/// Nodes of 8 GiB with environments of one VM each: of each node, their names and sizes in GiB.
fn filled(seed: u64, nodes: &[&[(&str, u64)]]) -> World {
    let mut world = world(nodes.len(), seed);
    let names = world.names();
    for (target, ves) in names.iter().zip(nodes) {
        for node in &names {
            world.declare_node(node, |declared| declared.schedulable = node == target);
        }
        for (name, gib) in *ves {
            let uid = apply(&mut world, name, spec(1, *gib));
            assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "{name}");
        }
    }
    for node in &names {
        world.declare_node(node, |declared| declared.schedulable = true);
    }
    world.run_for(Duration::from_secs(2));
    world
}

/// From now on its VM stays where it is.
fn root(world: &mut World, name: &str, gib: u64) {
    let placement = vec![Constraint::Root { members: Vec::new() }];
    let uid = apply(world, name, VeSpec { placement, ..spec(1, gib) });
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "{name}");
}

fn told(world: &World, reason: &str) -> usize {
    world.happened.iter().filter(|(_, _, happening)| happening.reason == reason).count()
}

fn moved(world: &World) -> u64 {
    world.migrations.get("arrived").copied().unwrap_or(0)
}

/// Which start of each VM runs, of all environments there are.
fn starts(world: &World, ves: &[&str]) -> Vec<u64> {
    let of = |name: &&str| instances(world, &VeUid::from(*name)).into_values().collect::<Vec<_>>();
    ves.iter().flat_map(of).map(|(_, start)| start).collect()
}

fn message(world: &World, uid: &VeUid) -> String {
    let status = world.api.get(uid).and_then(|object| object.status.clone());
    status.map(|status| status.ready.message).unwrap_or_default()
}

#[test]
fn a_vm_of_another_environment_moves_so_that_a_new_one_fits() {
    for seed in 0..3 {
        let mut world = filled(seed, &[&[("a", 3), ("b", 3)], &[("c", 4)]]);
        let before = starts(&world, &["a", "b", "c"]);
        let wants = apply(&mut world, "wants", spec(1, 5));
        let says = |world: &World| message(world, &wants).contains("making room: default.");
        assert!(world.run_while_not(SOON, says), "seed {seed}: {}", message(&world, &wants));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &wants)), "seed {seed}");
        assert_eq!((moved(&world), told(&world, "MakingRoom")), (1, 1), "seed {seed}");
        let all = |world: &World| starts(world, &["a", "b", "c"]) == before;
        assert!(world.run_while_not(SOON, all), "nobody is stopped");
        world.run_for(LATER);
        assert_eq!(moved(&world), 1, "and nothing moves back, seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn an_environment_is_scaled_up_by_moving_a_foreign_vm() {
    for seed in 0..3 {
        let mut world = filled(seed, &[&[("web", 2), ("a", 2), ("b", 3)], &[("c", 5)]]);
        let uid = VeUid::from("web");
        let before = starts(&world, &["web", "a", "b", "c"]);
        // The second one is to be where the first is, and there is room on the other node.
        apply(&mut world, "web", VeSpec { placement: only("n1"), ..spec(2, 2) });
        let ready = |world: &World| is_ready(world, &uid) && instances(world, &uid).len() == 2;
        assert!(world.run_while_not(LATER, ready), "seed {seed}: {}", message(&world, &uid));
        assert!(instances(&world, &uid).values().all(|(node, _)| node.as_str() == "n1"));
        assert_eq!(moved(&world), 1, "seed {seed}: {:?}", world.happened);
        let others = |world: &World| starts(world, &["a", "b", "c"]) == before[1..];
        assert!(world.run_while_not(SOON, others), "nobody is stopped");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn vms_of_two_full_nodes_change_places_through_the_gap_of_a_third() {
    for seed in 0..3 {
        let names = ["p", "q", "r", "s", "z"];
        let nodes: [&[(&str, u64)]; 3] =
            [&[("p", 4), ("q", 4)], &[("r", 3), ("s", 4)], &[("z", 4)]];
        let mut world = filled(seed, &nodes);
        let before = starts(&world, &names);
        // All that is left, and on the first node: one of its VMs leaves for the third, and the other changes places with
        // the small one of the second.
        let wants = apply(&mut world, "wants", VeSpec { placement: only("n1"), ..spec(1, 5) });
        let ready = |world: &World| is_ready(world, &wants);
        assert!(world.run_while_not(LATER, ready), "seed {seed}: {}", message(&world, &wants));
        // The last one may still be about to be continued where it has come to.
        let all = |world: &World| starts(world, &names) == before;
        assert!(world.run_while_not(SOON, all), "nobody is stopped");
        assert!(moved(&world) == 3, "seed {seed}");
        let settled = moved(&world);
        world.run_for(LATER);
        assert_eq!(moved(&world), settled, "nothing moves any more, seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn a_node_is_drained_into_room_that_others_make() {
    for seed in 0..3 {
        let nodes: [&[(&str, u64)]; 3] = [&[("d", 5)], &[("a", 3), ("b", 2)], &[("c", 6)]];
        let mut world = filled(seed, &nodes);
        let before = starts(&world, &["a", "b", "c", "d"]);
        maintain(&mut world, &"n1".into(), true);
        let empty = |world: &World| world.host(&"n1".into()).expect("a node").list().is_empty();
        assert!(world.run_while_not(LATER, empty), "seed {seed}: {:?}", world.happened);
        let all = |world: &World| starts(world, &["a", "b", "c", "d"]) == before;
        assert!(world.run_while_not(SOON, all), "nobody is stopped");
        assert_eq!(moved(&world), 2, "seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn a_handler_that_refuses_is_asked_a_few_times_and_another_vm_moves_instead() {
    let mut world = filled(1, &[&[("a", 2), ("b", 2), ("c", 2)], &[("d", 5)]]);
    root(&mut world, "a", 2);
    root(&mut world, "b", 2);
    let wants = apply(&mut world, "wants", spec(1, 4));
    assert!(world.run_while_not(LATER, |world| is_ready(world, &wants)), "{:?}", world.happened);
    assert_eq!(moved(&world), 1, "the third");
    assert!((2..=3).contains(&told(&world, "MakingRoom")), "{:?}", world.happened);
    assert_eq!(world.broken, vec![]);
}

#[test]
fn where_every_handler_refuses_an_environment_waits_and_asks_less_and_less() {
    let ves = [("a", 2), ("b", 2), ("c", 2), ("d", 3), ("e", 2)];
    let mut world = filled(1, &[&ves[..3], &ves[3..]]);
    for (name, gib) in ves {
        root(&mut world, name, gib);
    }
    let wants = apply(&mut world, "wants", spec(1, 4));
    world.run_for(Duration::from_secs(1800));
    assert!(!is_ready(&world, &wants));
    assert_eq!(moved(&world), 0);
    assert!((3..=16).contains(&told(&world, "MakingRoom")), "{}", told(&world, "MakingRoom"));
    assert_eq!(world.broken, vec![]);
}

#[test]
fn two_that_want_more_than_there_is_do_not_push_others_to_and_fro_for_ever() {
    for seed in 0..3 {
        let nodes: [&[(&str, u64)]; 3] =
            [&[("a", 3), ("b", 3)], &[("c", 3), ("d", 3)], &[("e", 3), ("f", 3)]];
        let mut world = filled(seed, &nodes);
        // 6 are free in all: one of the two gets in.
        let first = apply(&mut world, "first", spec(1, 5));
        let second = apply(&mut world, "second", spec(1, 4));
        world.run_for(Duration::from_secs(900));
        let both = [is_ready(&world, &first), is_ready(&world, &second)];
        let before = moved(&world);
        world.run_for(Duration::from_secs(900));
        assert!(moved(&world) <= before + 2, "seed {seed}: {before}, {}", moved(&world));
        assert!(before <= 8, "seed {seed}: {before} moves, {both:?}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}
