//! Nodes that are lost: their VMs run elsewhere, and never twice. The recorder hears of each QEMU's start and end from the kernel.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "nothing is to happen in real time"
)]

use std::time::{Duration, Instant};

use discovery_lab::{Loss, Measurement, Sample};

use crate::world::{Member, World};

/// F + W + ε as `hack/test` sets them, twice.
const LONG: Duration = Duration::from_secs(42);

/// Three losses, with the API server up and away. How long they take is measured elsewhere (`hack/lab measure`).
#[test]
fn a_lost_nodes_vm_runs_elsewhere_and_never_twice() {
    let world = World::new("failover");
    until_protected(&world);
    for (loss, api_stopped) in [(Loss::Power, false), (Loss::Power, true), (Loss::Cut, false)] {
        let deadline = Duration::from_secs(120);
        let wanted = Measurement { loss, times: 1, api_stopped, deadline };
        // An overlap is an error.
        let samples = world.lab.measure_loss(wanted).unwrap_or_else(|error| panic!("{error}"));
        let Some(Sample { from, to, ended_s, started_s, running_s, gap_s, steps }) =
            samples.first()
        else {
            panic!("no sample of {wanted:?}")
        };
        println!("{loss:?}: {from} -> {to}: ended {ended_s:.3} s, ran again {running_s:.3} s");
        assert!(from != to && *gap_s > 0.0 && running_s > started_s, "{samples:?}");
        assert_eq!(steps.0.len(), 4, "each step is in the agents' logs: {steps:?}");
        if loss == Loss::Cut {
            assert!(*ended_s > 0.0, "its guard ended it, cut off from everybody: {samples:?}");
        }
    }
}

/// Of three nodes, each is guarded by all.
#[test]
fn without_a_majority_of_its_guardians_nothing_is_started_until_one_is_back() {
    let world = World::new("majority");
    until_protected(&world);
    world.apply_members("shop", &[Member { disks: "[]", ..Member::default() }], "");
    world.until_ready("shop");
    let (domain, node, _) = world.one("shop-web-0");
    let others = world.lab.nodes().into_iter().filter(|other| *other != node);
    let second = others.min().expect("there are three");
    for lost in [&node, &second] {
        world.lab.node_stop(lost).expect("the node loses its power");
    }
    let lost_at = Instant::now();
    // By the handler, if it is the one that is left; else by the one that cannot take over from it.
    let is_said = || {
        let said = world.vm("shop", "shop-web-0")["message"].to_string();
        let (ready, reason, _) = world.ready("shop").unwrap_or_default();
        said.contains("no majority of its guardians answers")
            || (ready.as_str(), reason.as_str()) == ("Unknown", "NoMajority")
    };
    let mut said = false;
    world.until("the reason, and for the time that a proof takes", || {
        assert!(!world.domains().contains_key(&domain), "nobody can prove that it has ended");
        said |= is_said();
        said && lost_at.elapsed() > LONG
    });
    world.lab.node_start(&second).expect("the node boots again");
    world.until("it to run elsewhere", || {
        world.domains().get(&domain).is_some_and(|(now, _)| *now != node)
    });
    world.lab.node_start(&node).expect("the node boots again");
    world.until_ready("shop");
    world.until_agents_are_back();
    world.delete("shop");
}

/// Waits until each node says that it may be taken over.
fn until_protected(world: &World) {
    let path = "jsonpath={range .items[*]}{.status.lease.state}{.status.protection} {end}";
    world.until("every node to hold a lease", || {
        let told = world.cluster.must(&["get", "pn", "-o", path], "");
        told.split_whitespace().count() == world.lab.nodes().len()
            && told.split_whitespace().all(|node| node == "HeldGuard")
    });
}
