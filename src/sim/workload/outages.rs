//! Nodes that go, under the loads of [`vmplaces`]: into maintenance (`drain`), or dead and back (`crash`).

use std::collections::BTreeSet;
use std::time::Duration;

use super::java_random::JavaRandom;
use super::{Incident, NodeEvent, Workload, instant, vmplaces};
use crate::engine::time::Instant;

/// Nodes are put into maintenance then, seconds: all at once, when loads are six sevenths of what they come to.
const MAINTENANCE_BEGINS_S: f64 = 600.0;
/// It ends then.
const MAINTENANCE_ENDS_S: f64 = 1_200.0;
/// Nodes die between these times, each at one of its own, seconds.
const CRASHES_S: (f64, f64) = (300.0, 1_500.0);
/// A node is dead for so long: what a server takes to start.
const DEAD_FOR: Duration = Duration::from_secs(180);
/// Of so many nodes one goes, unless it is said how many. All others have room for its VMs, on average.
const ONE_OF: u32 = 32;

/// How many nodes go if nobody says.
#[must_use]
pub fn usual(nodes: u32) -> u32 {
    (nodes / ONE_OF).max(1)
}

/// So many of the nodes are put into maintenance.
#[must_use]
pub fn drain(nodes: u32, vms_per_node: u32, seed: u64, away: u32) -> Workload {
    let (begins, ends) = (instant(MAINTENANCE_BEGINS_S), instant(MAINTENANCE_ENDS_S));
    let during = |_: &mut JavaRandom| [begins, ends];
    let incidents = [Incident::MaintenanceBegins, Incident::MaintenanceEnds];
    workload("drain", vmplaces::workload(nodes, vms_per_node, seed), seed, away, incidents, during)
}

/// So many of the nodes die, and return.
#[must_use]
pub fn crash(nodes: u32, vms_per_node: u32, seed: u64, away: u32) -> Workload {
    let during = |random: &mut JavaRandom| {
        let (first, last) = CRASHES_S;
        let dies = instant(first + random.next_double() * (last - first));
        [dies, dies + DEAD_FOR]
    };
    let incidents = [Incident::Dies, Incident::Returns];
    workload("crash", vmplaces::workload(nodes, vms_per_node, seed), seed, away, incidents, during)
}

fn workload(
    name: &'static str,
    base: Workload,
    seed: u64,
    away: u32,
    what: [Incident; 2],
    when: impl Fn(&mut JavaRandom) -> [Instant; 2],
) -> Workload {
    let nodes = base.nodes() as u32;
    let mut random = JavaRandom::new(seed ^ 0x0007_a6e5);
    let mut gone = BTreeSet::new();
    let mut incidents = Vec::new();
    while gone.len() < away.min(nodes - 1) as usize {
        let node = random.next_int(nodes);
        if gone.insert(node) {
            let times = when(&mut random).into_iter().zip(what);
            incidents.extend(times.map(|(at, incident)| NodeEvent { at, node, incident }));
        }
    }
    incidents.sort_by_key(|event| event.at);
    Workload { name, incidents, ..base }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_different_nodes_go_and_each_comes_back() {
        for workload in [drain(64, 10, 3, 5), crash(64, 10, 3, 5)] {
            let nodes: BTreeSet<u32> = workload.incidents.iter().map(|event| event.node).collect();
            assert_eq!((nodes.len(), workload.incidents.len()), (5, 10), "{}", workload.name);
            assert!(workload.incidents.is_sorted_by_key(|event| event.at));
            assert!(workload.incidents.iter().all(|event| event.at < workload.end));
            assert_eq!(workload.events, vmplaces::workload(64, 10, 3).events, "its loads");
        }
        assert_eq!(drain(2, 10, 3, 9).incidents.len(), 2, "one node is left");
        assert_eq!([2, 64, 128].map(usual), [1, 2, 4]);
    }
}
