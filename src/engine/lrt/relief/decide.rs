//! Which VM had better be elsewhere, and where.
//!
//! A move is worth what the outlooks of its two ends fall by in sum, counted from when the VM would arrive: until
//! then the source keeps the load whatever is decided. Nothing is gained by a move that only hands the trouble on,
//! for the target's outlook rises by as much.

use super::habit::Habit;
use super::outlook::{FORESIGHT_S, Outline, outlook};

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

/// A node that would be relieved.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its VMs.
    pub outline: Outline,
    /// What they may load it with.
    pub capacity: f64,
    /// How long it has been overloaded already, in units of the foresight, and 1 at least: what has lasted for long is expected
    /// to last as long again.
    pub lasting: f64,
}

/// What this VM's move there would save, seconds of overload.
#[must_use]
pub fn gain<N, V>(here: &Source, vm: &Movable<V>, to: &Target<'_, N>) -> f64 {
    if fits(here, vm, to) { relief(here, vm) - burden(vm, to, here.capacity) } else { 0.0 }
}

/// Whether it has the memory, and would be less loaded with the VM than the source is. (An overloaded node is no worse
/// off for one VM more, by its outlook; but it is no place for it.)
fn fits<N, V>(here: &Source, vm: &Movable<V>, to: &Target<'_, N>) -> bool {
    to.free_mib >= vm.memory_mib && to.outline.load + vm.habit.load < here.outline.load
}

/// By how much the source's outlook falls.
fn relief<V>(here: &Source, vm: &Movable<V>) -> f64 {
    let (from_s, with) = (vm.travel_s(), &here.outline);
    let without = with.without(&vm.habit);
    let saved = outlook(with, here.capacity, from_s) - outlook(&without, here.capacity, from_s);
    (saved + share(with, &without, here.capacity)) * here.lasting
}

/// An overload that no single move ends would never be relieved if the first were worth nothing: each is worth its share
/// of what is too much, as far as that is how the node's VMs usually are.
fn share(with: &Outline, without: &Outline, capacity: f64) -> f64 {
    let excess = |node: &Outline| node.load.min(node.mean) - capacity;
    let (before, after) = (excess(with), excess(without));
    if after > 0.0 { FORESIGHT_S * (before - after) / before } else { 0.0 }
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
    here: &Source,
    vms: &[Movable<V>],
    targets: &[Target<'_, N>],
    threshold_s: f64,
) -> Option<Move<N, V>> {
    let mut best: Option<(Move<N, V>, u32)> = None;
    for vm in vms {
        let relief = relief(here, vm);
        // A target's outlook never falls by one more VM, so that nothing better can come of it.
        if relief <= threshold_s {
            continue;
        }
        for to in targets.iter().filter(|to| fits(here, vm, to)) {
            let gain_s = relief - burden(vm, to, here.capacity);
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

    fn source(vms: &[Movable<u32>]) -> Source {
        Source { outline: outline(vms), capacity: 700.0, lasting: 1.0 }
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
        let found = best(&source(&vms), &vms, &targets, 3.0).expect("one saves enough");
        assert_eq!(found.to, 2);
    }

    #[test]
    fn nothing_moves_where_all_are_alike_or_nobody_has_room() {
        let vms = full(69.0);
        assert_eq!(best(&source(&vms), &vms, &[target(&1, 69.0)], 3.0), None);
        let no_room = Target { free_mib: 512, ..target(&2, 20.0) };
        assert_eq!(best(&source(&vms), &vms, &[no_room], 3.0), None);
        assert!(best(&source(&vms), &vms, &[target(&2, 20.0)], 3.0).is_some());
    }

    #[test]
    fn a_node_acts_before_its_limit_is_crossed_and_a_higher_threshold_makes_it_wait() {
        let vms = full(69.0);
        let act = |threshold_s| best(&source(&vms), &vms, &[target(&1, 45.0)], threshold_s);
        assert!(act(3.0).is_some());
        assert_eq!(act(60.0), None);
    }

    #[test]
    fn of_two_vms_that_do_the_same_the_smaller_moves() {
        let mut vms = full(74.0);
        vms.iter_mut().skip(5).for_each(|vm| vm.memory_mib = 256);
        let found = best(&source(&vms), &vms, &[target(&1, 40.0)], 3.0).expect("one moves");
        assert!(found.vm >= 5);
    }

    #[test]
    fn an_overload_that_no_single_move_ends_is_relieved_move_by_move() {
        let mut vms = full(95.0);
        vms.iter_mut().for_each(|vm| vm.habit.mean = 95.0);
        let found = best(&source(&vms), &vms, &[target(&1, 0.0)], 6.0);
        assert!(found.is_some_and(|found| found.gain_s > 6.0), "950 of 700, and 855 after a move");
    }

    #[test]
    fn an_overload_that_lasts_passes_any_threshold() {
        let vms = full(74.0);
        let best = |lasting, threshold_s| {
            let source = Source { lasting, ..source(&vms) };
            best(&source, &vms, &[target(&1, 20.0)], threshold_s).is_some()
        };
        assert!(!best(1.0, 60.0) && best(8.0, 60.0));
    }
}
