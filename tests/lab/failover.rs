//! Nodes that are lost: their VMs run elsewhere, and never twice. The recorder hears of each QEMU's start and end from the kernel.

use std::time::Duration;

use discovery_lab::{Loss, Measurement, Sample};

use crate::world::World;

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

/// Waits until each node says that it may be taken over.
fn until_protected(world: &World) {
    let path = "jsonpath={range .items[*]}{.status.lease.state}{.status.protection} {end}";
    world.until("every node to hold a lease", || {
        let told = world.cluster.must(&["get", "pn", "-o", path], "");
        told.split_whitespace().count() == world.lab.nodes().len()
            && told.split_whitespace().all(|node| node == "HeldGuard")
    });
}
