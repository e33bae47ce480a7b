//! Nodes that are lost: their VMs run elsewhere, and never twice. The recorder hears of each QEMU's start and end from the kernel.

use std::time::Duration;

use discovery_lab::{Lab, Loss, Measurement, Sample};

use crate::world::{SYSTEM, World};

/// Three losses, with the API server up and away. How long they take is measured elsewhere (`hack/lab measure`).
#[test]
fn a_lost_nodes_vm_runs_elsewhere_and_never_twice() {
    let world = World::new("failover");
    fails_over(&world, true);
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
    fails_over(&world, false);
}

/// Turns failover on or off, and waits until the nodes say so.
fn fails_over(world: &World, on: bool) {
    let chart = Lab::source_tree().join("charts/discovery").display().to_string();
    let set = format!("agent.failover.enabled={on}");
    let words = ["upgrade", "discovery", &chart, "--reuse-values", "--set", &set];
    let wait = ["--wait", "--timeout", "180s"];
    let said = world.lab.helm(&[&words[..], &wait, &SYSTEM].concat());
    said.unwrap_or_else(|error| panic!("{error}"));
    world.until_agents_are_back();
    let path = "jsonpath={range .items[*]}{.status.lease.state}{.status.protection} {end}";
    let wanted = if on { "HeldGuard" } else { "UnguardedNone" };
    world.until("every node to say so", || {
        let told = world.cluster.must(&["get", "pn", "-o", path], "");
        told.split_whitespace().count() == world.lab.nodes().len()
            && told.split_whitespace().all(|node| node == wanted)
    });
}
