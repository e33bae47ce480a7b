//! Which VM had better be elsewhere, and where.
//!
//! A move is worth what the outlooks of its two ends fall by in sum, counted from when the VM would arrive: until
//! then the source keeps the load whatever is decided. Nothing is gained by a move that only hands the trouble on,
//! for the target's outlook rises by as much.

use super::habit::Habit;
use super::outlook::{Outline, outlook};

/// Megabytes a second of a live migration: a link of 1 Gb/s.
const LINK_MIB_S: f64 = 112.0;

/// One of this node's VMs.
#[derive(Clone, Debug)]
pub struct Movable<V> {
    /// Which.
    pub vm: V,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// What it does.
    pub habit: Habit,
}

impl<V> Movable<V> {
    /// How long it will be on its way, seconds.
    #[must_use]
    pub fn travel_s(&self) -> f64 {
        f64::from(self.memory_mib) / LINK_MIB_S
    }
}

/// A node that it might move to, as last heard of.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a, N> {
    /// Which.
    pub node: &'a N,
    /// Its VMs then.
    pub outline: Outline,
    /// Its free memory then, MiB.
    pub free_mib: u32,
    /// How long ago, seconds.
    pub age_s: f64,
}

/// A move and what it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct Move<N, V> {
    /// Which VM.
    pub vm: V,
    /// Where to.
    pub to: N,
    /// Seconds of overload that it saves.
    pub gain_s: f64,
}

/// What this VM's move there would save, seconds of overload.
#[must_use]
pub fn gain<N, V>(here: &Outline, vm: &Movable<V>, to: &Target<'_, N>, capacity: f64) -> f64 {
    if fits(here, vm, to) { relief(here, vm, capacity) - burden(vm, to, capacity) } else { 0.0 }
}

/// Whether it has the memory, and would be less loaded with the VM than the source is. (An overloaded node is no worse
/// off for one VM more, by its outlook; but it is no place for it.)
fn fits<N, V>(here: &Outline, vm: &Movable<V>, to: &Target<'_, N>) -> bool {
    to.free_mib >= vm.memory_mib && to.outline.load + vm.habit.load < here.load
}

/// By how much the source's outlook falls. Where one VM less does not end an overload, nothing would fall, however
/// long it lasts; but so many VMs like this do, and each has its part in it.
fn relief<V>(here: &Outline, vm: &Movable<V>, capacity: f64) -> f64 {
    let from_s = vm.travel_s();
    let needed = ((here.load - capacity) / vm.habit.load.max(1.0)).ceil();
    let moves = needed.clamp(1.0, here.vms.max(1.0));
    let after = here.without_some(&vm.habit, moves);
    (outlook(here, capacity, from_s) - outlook(&after, capacity, from_s)) / moves
}

/// By how much the target's rises.
fn burden<N, V>(vm: &Movable<V>, to: &Target<'_, N>, capacity: f64) -> f64 {
    let from_s = to.age_s + vm.travel_s();
    outlook(&to.outline.with(&vm.habit), capacity, from_s) - outlook(&to.outline, capacity, from_s)
}

/// The move that saves most, if it saves more than the threshold. Of moves that save the same, the VM with the
/// least memory, which is there first.
#[must_use]
pub fn best<N: Clone, V: Clone>(
    here: &Outline,
    vms: &[Movable<V>],
    targets: &[Target<'_, N>],
    capacity: f64,
    threshold_s: f64,
) -> Option<Move<N, V>> {
    let mut best: Option<(Move<N, V>, u32)> = None;
    for vm in vms {
        let relief = relief(here, vm, capacity);
        // A target's outlook never falls by one more VM, so that nothing better can come of it.
        if relief <= threshold_s {
            continue;
        }
        for to in targets.iter().filter(|to| fits(here, vm, to)) {
            let gain_s = relief - burden(vm, to, capacity);
            let better = best.as_ref().is_none_or(|(other, memory_mib)| {
                gain_s > other.gain_s || (gain_s == other.gain_s && vm.memory_mib < *memory_mib)
            });
            if gain_s > threshold_s && better {
                let found = Move { vm: vm.vm.clone(), to: to.node.clone(), gain_s };
                best = Some((found, vm.memory_mib));
            }
        }
    }
    best.map(|(found, _)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: u32, load: f64, memory_mib: u32) -> Movable<u32> {
        let habit = Habit { load, mean: 60.0, noise: 400.0, rate: 1.0 / 300.0 };
        Movable { vm: name, memory_mib, habit }
    }

    fn outline(vms: &[Movable<u32>]) -> Outline {
        vms.iter().fold(Outline::default(), |sum, vm| sum.with(&vm.habit))
    }

    fn full(load: f64) -> Vec<Movable<u32>> {
        (0..10).map(|name| vm(name, load, 1024)).collect()
    }

    fn target(node: &u32, load: f64) -> Target<'_, u32> {
        Target { node, outline: outline(&full(load)), free_mib: 2048, age_s: 0.0 }
    }

    #[test]
    fn an_overloaded_node_sends_a_vm_to_the_emptiest_of_its_peers() {
        let vms = full(74.0);
        let targets = [target(&1, 62.0), target(&2, 40.0), target(&3, 66.0)];
        let found = best(&outline(&vms), &vms, &targets, 700.0, 3.0).expect("one saves enough");
        assert_eq!(found.to, 2);
    }

    #[test]
    fn nothing_moves_where_all_are_alike_or_nobody_has_room() {
        let vms = full(69.0);
        assert_eq!(best(&outline(&vms), &vms, &[target(&1, 69.0)], 700.0, 3.0), None);
        let no_room = Target { free_mib: 512, ..target(&2, 20.0) };
        assert_eq!(best(&outline(&vms), &vms, &[no_room], 700.0, 3.0), None);
        assert!(best(&outline(&vms), &vms, &[target(&2, 20.0)], 700.0, 3.0).is_some());
    }

    #[test]
    fn a_node_acts_before_its_limit_is_crossed_and_a_higher_threshold_makes_it_wait() {
        let vms = full(69.0);
        let act = |threshold_s| best(&outline(&vms), &vms, &[target(&1, 45.0)], 700.0, threshold_s);
        assert!(act(3.0).is_some());
        assert_eq!(act(60.0), None);
    }

    #[test]
    fn of_two_vms_that_do_the_same_the_smaller_moves() {
        let mut vms = full(74.0);
        vms.iter_mut().skip(5).for_each(|vm| vm.memory_mib = 256);
        let found = best(&outline(&vms), &vms, &[target(&1, 40.0)], 700.0, 3.0).expect("one moves");
        assert!(found.vm >= 5);
    }
}
