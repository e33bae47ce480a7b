//! Day and night: each VM's load follows the sun of its users, with noise. A day is a run.
//!
//! Loads change slowly and foreseeably, in steps of a minute; all VMs of one part of the world rise together.
//! B1 has no trend at all.

use super::java_random::JavaRandom;
use super::{Load, LoadEvent, Sites, Workload, instant, strict, vmplaces};

/// Parts of the world whose days are shifted against each other.
const ZONES: u32 = 3;
/// Mean load, and how far day and night are from it.
const MEAN: f64 = 58.0;
const SWING: f64 = 28.0;
/// Deviation of each step from the curve.
const NOISE: f64 = 8.0;
/// Seconds between two changes of one VM.
const STEP_S: f64 = 60.0;

/// The workload on this many nodes.
#[must_use]
pub fn workload(nodes: u32, vms_per_node: u32, seed: u64) -> Workload {
    let count = nodes * vms_per_node;
    let mut random = JavaRandom::new(seed ^ 0xda1);
    let mut events = Vec::new();
    for vm in 0..count {
        // Whose users are where is drawn, so that some nodes have more of one zone than others.
        let zone = f64::from(random.next_int(ZONES)) / f64::from(ZONES);
        let mut time = random.next_double() * STEP_S;
        while time < vmplaces::DURATION_S {
            let load = load(time / vmplaces::DURATION_S + zone, &mut random);
            events.push(LoadEvent { at: instant(time), vm, load });
            time += STEP_S;
        }
    }
    events.sort_by_key(|event| event.at);
    Workload {
        name: "day-night",
        node: vmplaces::NODE,
        sites: Sites::one(nodes),
        vms: vmplaces::vms(count, seed),
        placement: (0..count).map(|vm| vm % nodes).collect(),
        events,
        incidents: Vec::new(),
        end: instant(vmplaces::DURATION_S),
    }
}

fn load(day: f64, random: &mut JavaRandom) -> Load {
    let curve = MEAN + SWING * strict::sine_of_turns(day);
    (curve + NOISE * random.next_gaussian()).clamp(0.0, 100.0) as Load
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_load_of_a_vm_rises_and_falls_once_a_day() {
        let workload = workload(4, 10, 1);
        let loads: Vec<Load> =
            workload.events.iter().filter(|event| event.vm == 0).map(|event| event.load).collect();
        assert_eq!(loads.len(), 30);
        let (most, least) = (loads.iter().max(), loads.iter().min());
        assert!(most > Some(&80) && least < Some(&36), "{loads:?}");
    }
}
