//! The literature's dynamic workload, to the last constant: B1, the one of VMPlaceS.
//!
//! A. Lebre, J. Pastor, M. Südholt: *VMPlaceS: A Generic Tool to Investigate and Compare VM Placement
//! Algorithms*, Euro-Par 2015. The draws follow `Injector.generateLoadQueue` and
//! `SimulatorManager.configureHostsAndVMs` of <https://github.com/BeyondTheClouds/VMPlaceS>: three generators
//! of the same seed, for times, loads and VMs, and a fourth for the VMs' classes.

use super::java_random::JavaRandom;
use super::{Load, LoadEvent, NodeShape, Sites, VmShape, Workload, instant};

/// 8 cores of which 7 are for VMs; 32 GB of memory.
pub const NODE: NodeShape = NodeShape { capacity: 700, memory_mib: 32 * 1024 };
/// VMs per node at the start.
pub const VMS_PER_NODE: u32 = 10;
/// Seconds of a run.
pub const DURATION_S: f64 = 1800.0;
/// Each VM changes its load once in this many seconds, on average.
pub const PERIOD_S: f64 = 300.0;

/// How loads are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Loads {
    /// Mean of the normal distribution, percent of a core.
    pub mean: f64,
    /// Its deviation.
    pub deviation: f64,
    /// Seconds of the run.
    pub duration_s: f64,
}

/// B1's.
pub const LOADS: Loads = Loads { mean: 60.0, deviation: 20.0, duration_s: DURATION_S };

/// The workload for this many nodes.
#[must_use]
pub fn workload(nodes: u32, vms_per_node: u32, seed: u64) -> Workload {
    let count = nodes * vms_per_node;
    Workload {
        name: "vmplaces",
        node: NODE,
        sites: Sites::one(nodes),
        vms: vms(count, seed),
        placement: (0..count).map(|vm| vm / vms_per_node).collect(),
        events: events(count, seed, LOADS),
        incidents: Vec::new(),
        end: instant(DURATION_S),
    }
}

/// VMs of one processor and 1 GiB, each of a dirty-rate class, drawn in order of creation.
#[must_use]
pub fn vms(count: u32, seed: u64) -> Vec<VmShape> {
    let mut classes = JavaRandom::new(seed);
    let mut draw = || 10 * (1 + classes.next_int(8));
    (0..count).map(|_| VmShape { vcpus: 1, memory_mib: 1024, dirty_class: draw() }).collect()
}

/// The load events of this many VMs.
#[must_use]
pub fn events(count: u32, seed: u64, loads: Loads) -> Vec<LoadEvent> {
    let rate = f64::from(count) / PERIOD_S;
    let mut times = JavaRandom::new(seed);
    let mut gaussians = JavaRandom::new(seed);
    let mut picks = JavaRandom::new(seed);
    let mut events = Vec::with_capacity((rate * loads.duration_s * 1.01) as usize);
    let mut time = times.next_exponential(rate);
    while time < loads.duration_s {
        let vm = picks.next_int(count);
        let drawn = gaussians.next_gaussian() * loads.deviation + loads.mean;
        events.push(LoadEvent { at: instant(time), vm, load: in_tens(drawn) });
        time += times.next_exponential(rate);
    }
    events
}

/// A drawn load as the injector rounds it: 0 to 100 in tens (Java's `Math.round`: halves go up).
#[must_use]
pub fn in_tens(drawn: f64) -> Load {
    10 * (drawn.clamp(0.0, 100.0) / 10.0 + 0.5) as Load
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The counts that a correct generator gives (BENCHMARKS, B1).
    #[test]
    fn seed_21_gives_the_literatures_event_counts() {
        for (nodes, count) in [(128, 7678), (256, 15266), (512, 30907), (1024, 61605)] {
            assert_eq!(events(nodes * VMS_PER_NODE, 21, LOADS).len(), count, "{nodes} nodes");
        }
    }

    #[test]
    fn vms_fill_host_by_host_and_loads_are_tens() {
        let workload = workload(8, 10, 3);
        assert_eq!((workload.placement[9], workload.placement[10]), (0, 1));
        assert!(workload.events.iter().all(|event| event.load % 10 == 0 && event.load <= 100));
        assert!(workload.events.is_sorted_by_key(|event| event.at));
        let classes: std::collections::BTreeSet<u32> =
            workload.vms.iter().map(|vm| vm.dirty_class).collect();
        assert_eq!(classes.into_iter().collect::<Vec<_>>(), [10, 20, 30, 40, 50, 60, 70, 80]);
    }

    #[test]
    fn halves_round_up_and_the_ends_are_cut() {
        assert_eq!([-3.0, 4.9, 5.0, 64.9, 65.0, 180.0].map(in_tens), [0, 0, 10, 60, 70, 100]);
    }
}
