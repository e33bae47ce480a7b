//! Placement constraints in a world of agents: what comes and goes breaks none, and nodes keep what their VMs ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::*;
use crate::engine::lrt::ZONE_LABEL;
use crate::engine::spec::NodeSelector;

fn bound(replicas: u32, gib: u64, constraints: Vec<Constraint>) -> VeSpec {
    VeSpec { placement: constraints, ..spec(replicas, gib) }
}

fn nodes_of(world: &World, uid: &VeUid) -> BTreeSet<NodeName> {
    let own = world.running().into_iter().filter(|(id, _)| id.ve == *uid);
    own.map(|(_, node)| node).collect()
}

#[test]
fn a_lonely_environment_and_others_keep_off_each_others_nodes_whoever_came_first() {
    let lonely = || vec![Constraint::Lonely { members: Vec::new(), continuous: true }];
    for lonely_first in [true, false] {
        let mut world = world(3, 1);
        let (first, second) = if lonely_first { (lonely(), vec![]) } else { (vec![], lonely()) };
        let first = apply(&mut world, "first", bound(2, 1, first));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &first)));
        let second = apply(&mut world, "second", bound(2, 1, second));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &second)));
        assert!(nodes_of(&world, &first).is_disjoint(&nodes_of(&world, &second)));
        // Nobody is left but who may share with nobody.
        let third = apply(&mut world, "third", bound(1, 1, lonely()));
        let fourth = apply(&mut world, "fourth", bound(1, 1, lonely()));
        let one_ready = |world: &World| is_ready(world, &third) != is_ready(world, &fourth);
        assert!(world.run_while_not(SOON, one_ready));
        world.run_for(SOON);
        assert!(one_ready(&world), "one node was left for two");
        assert_eq!(world.broken, vec![]);
    }
}

#[test]
fn a_node_keeps_an_overbook_against_whoever_comes_later() {
    // 8 processors, all of which the node would hand out.
    let mut world = world(1, 1);
    let half = vec![Constraint::Overbook { members: Vec::new(), cpu_percent: 50 }];
    let first = apply(&mut world, "first", bound(2, 1, half));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &first)));
    let second = apply(&mut world, "second", spec(3, 1));
    assert!(world.run_while_not(SOON, |world| reason(world, &second) == "CannotBePlaced"));
    let third = apply(&mut world, "third", spec(2, 1));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &third)), "two were left");
    world.delete(&first);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &second)), "all are free again");
    assert_eq!(world.broken, vec![]);
}

/// A constraint of any kind, of those that a state can break.
fn any_constraint(rng: &mut ChaCha8Rng) -> Constraint {
    let members = vec![MemberName::from("web")];
    let over = if rng.random_bool(0.5) { Domain::Node } else { Domain::Zone };
    let named = |first: u32, last: u32| NodeSelector {
        names: (first..=last).map(|node| NodeName::from(format!("n{node}"))).collect(),
        labels: BTreeMap::new(),
    };
    let zone = |zone: u32| NodeSelector {
        names: Vec::new(),
        labels: BTreeMap::from([(ZONE_LABEL.to_owned(), format!("zone-{zone}"))]),
    };
    match rng.random_range(0..8) {
        0 => Constraint::Lonely { members, continuous: true },
        1 => Constraint::Among { members, groups: vec![zone(0), zone(1)], continuous: false },
        2 => {
            let from = vec![MemberName::from("db")];
            Constraint::Split { members, from, over, continuous: true }
        }
        3 => Constraint::RunningCapacity { members, nodes: zone(0), max: 1, continuous: true },
        4 => Constraint::Overbook { members, cpu_percent: 50 },
        5 => Constraint::Quarantine { nodes: named(1, 2) },
        6 => Constraint::Gather { members, over, continuous: false },
        _ => Constraint::Spare,
    }
}

#[test]
fn whatever_comes_and_goes_no_constraint_is_broken() {
    let mut kept = BTreeMap::<&'static str, u32>::new();
    for seed in 0..8 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let capacity = Resources { cpu_milli: 8_000, memory: 8 * GIB };
        let (network, goal) = (Quality { loss: 0.02, ..Quality::default() }, Goal::default());
        let mut world = World::new(&Setup { seed, nodes: 6, capacity, zones: 2, network, goal });
        world.run_for(Duration::from_secs(2));
        for number in 0..8 {
            let count = rng.random_range(0..3);
            let constraints = (0..count).map(|_| any_constraint(&mut rng)).collect();
            let mut spec = bound(rng.random_range(1..4), 1, constraints);
            spec.members
                .push(MemberSpec { name: MemberName::from("db"), ..spec.members[0].clone() });
            let uid = apply(&mut world, &format!("ve{number}"), spec.clone());
            if rng.random_bool(0.5) {
                world.run_for(Duration::from_millis(rng.random_range(0..4_000)));
            }
            match rng.random_range(0..4) {
                0 => spec.members[0].replicas += 1,
                1 => spec.state = VeState::Terminated,
                _ => continue,
            }
            world.apply(&uid, &VeName::new("default", uid.as_str()), spec.clone());
            world.run_for(Duration::from_secs(1));
            spec.state = VeState::Running;
            world.apply(&uid, &VeName::new("default", uid.as_str()), spec);
        }
        world.run_for(SOON);
        assert_eq!(world.broken, vec![], "seed {seed}");
        let ready = world.api.objects().filter(|o| is_ready(&world, &o.declared.uid));
        for constraint in ready.flat_map(|object| &object.declared.spec.placement) {
            *kept.entry(constraint.name()).or_default() += 1;
        }
    }
    assert_eq!(kept.len(), 8, "every kind ran somewhere: {kept:?}");
}
