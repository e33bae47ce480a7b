//! Correlated bursts: services whose VMs all become busy within seconds, and calm down together.
//!
//! Nothing here is like B1: loads are no redraws around one mean, they last by the burst and not by a constant
//! rate, and VMs of one service move together. A scheduler that has B1's constants built in shows it here.

use super::java_random::JavaRandom;
use super::{Load, LoadEvent, Sites, Workload, instant, vmplaces};

/// VMs of a service. They fill node by node, so that a burst falls on one node: half of its VMs.
const VMS_PER_SERVICE: u32 = 5;
/// A service bursts once in this many seconds, on average.
const PERIOD_S: f64 = 400.0;
/// A burst lasts this long on average, seconds, exponentially.
const BURST_S: f64 = 60.0;
/// Its VMs follow each other within this many seconds.
const FOLLOW_S: f64 = 5.0;
/// Load of a calm VM, and its deviation.
const CALM: (f64, f64) = (48.0, 12.0);
/// Load of a bursting VM, and its deviation.
const BUSY: (f64, f64) = (90.0, 8.0);

/// The workload on this many nodes.
#[must_use]
pub fn workload(nodes: u32, vms_per_node: u32, seed: u64) -> Workload {
    let count = nodes * vms_per_node;
    let mut random = JavaRandom::new(seed ^ 0xb025);
    let mut events = Vec::new();
    for vm in 0..count {
        let at = instant(random.next_double() * FOLLOW_S);
        events.push(LoadEvent { at, vm, load: draw(CALM, &mut random) });
    }
    for service in 0..count.div_ceil(VMS_PER_SERVICE) {
        let first = service * VMS_PER_SERVICE;
        let vms = first..count.min(first + VMS_PER_SERVICE);
        let mut begins = FOLLOW_S + random.next_exponential(1.0 / PERIOD_S);
        while begins < vmplaces::DURATION_S {
            let ends = begins + FOLLOW_S + random.next_exponential(1.0 / BURST_S);
            for vm in vms.clone() {
                for (around, range) in [(begins, BUSY), (ends, CALM)] {
                    let at = instant(around + random.next_double() * FOLLOW_S);
                    events.push(LoadEvent { at, vm, load: draw(range, &mut random) });
                }
            }
            begins = ends + FOLLOW_S + random.next_exponential(1.0 / PERIOD_S);
        }
    }
    let end = instant(vmplaces::DURATION_S);
    events.retain(|event| event.at < end);
    events.sort_by_key(|event| event.at);
    Workload {
        name: "bursts",
        node: vmplaces::NODE,
        sites: Sites::one(nodes),
        vms: vmplaces::vms(count, seed),
        placement: (0..count).map(|vm| vm / vms_per_node).collect(),
        events,
        incidents: Vec::new(),
        end,
    }
}

fn draw((mean, deviation): (f64, f64), random: &mut JavaRandom) -> Load {
    (random.next_gaussian() * deviation + mean).clamp(0.0, 100.0) as Load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vms_of_a_service_become_busy_together() {
        let workload = workload(16, 10, 1);
        let busy = |vm: u32| {
            let busy = workload.events.iter().filter(move |e| e.vm == vm && e.load > 85);
            busy.map(|event| event.at.0 as f64 / 1e6)
        };
        let together = busy(0).filter(|at| busy(1).any(|other| (at - other).abs() <= FOLLOW_S));
        assert!(together.count() >= 1);
        assert!(workload.events.is_sorted_by_key(|event| event.at));
    }
}
