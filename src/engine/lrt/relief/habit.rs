//! What a node learns of its VMs' loads from seeing them change: how high, how far apart, how often.
//!
//! Nobody says how loads come about, and a VM changes seldom; so each VM's own observations are weighed against a
//! prior that the node's VMs share, and which is itself learnt. Everything fades with what follows, so that a day
//! is followed and a burst forgotten. What a VM's node has learnt of it moves with the VM.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::outlook::is_plausible;
use crate::engine::time::Instant;

/// A VM's own observations last for about so many of its changes.
const OWN_MEMORY: f64 = 12.0;
/// Those of all VMs of a node together, for about so many: about as many changes of each of ten VMs.
const SHARED_MEMORY: f64 = 100.0;
/// What all VMs share weighs as much as so many of a VM's own changes: VMs of a node are more alike than three
/// or four changes of one would tell.
const PRIOR_WEIGHT: f64 = 8.0;
/// Before anything is seen: a VM changes once a minute. One change of any VM outweighs it.
const FIRST_PERIOD_S: f64 = 60.0;
/// Before anything is seen: loads deviate by this much of a core's percent. Two changes outweigh it.
const FIRST_NOISE: f64 = 15.0 * 15.0;

/// What a VM does, as far as its node can say: what the outlook needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Habit {
    /// Its load now, percent of a core.
    pub load: f64,
    /// What its loads are around.
    pub mean: f64,
    /// Variance of its loads around that.
    pub noise: f64,
    /// Changes per second.
    pub rate: f64,
}

/// Observations that fade.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    /// Changes.
    changes: f64,
    /// Sum of the loads that they led to.
    loads: f64,
    /// Sum of the squares of how far those were from what was expected.
    misses: f64,
    /// Seconds watched.
    watched_s: f64,
}

impl Seen {
    fn fade(&mut self, memory: f64) {
        let kept = 1.0 - 1.0 / memory;
        self.changes *= kept;
        self.loads *= kept;
        self.misses *= kept;
        self.watched_s *= kept;
    }

    fn note(&mut self, load: f64, miss: f64, lasted_s: f64, memory: f64) {
        self.fade(memory);
        self.changes += 1.0;
        self.loads += load;
        self.misses += miss * miss;
        self.watched_s += lasted_s;
    }
}

/// One VM's observations.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Watched {
    /// Its load now.
    load: f64,
    seen: Seen,
}

impl Watched {
    /// Whether its numbers are such as come of loads.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let Seen { changes, loads, misses, watched_s } = self.seen;
        [self.load, changes, loads, misses, watched_s].into_iter().all(is_plausible)
    }

    /// A VM that nothing is known of but its load.
    #[must_use]
    pub fn new(load: f64) -> Self {
        Self { load, seen: Seen::default() }
    }
}

/// A VM on this node: its observations, and since when it has its load as seen here.
#[derive(Clone, Copy, Debug)]
pub struct Lodger {
    /// What moves with it.
    pub watched: Watched,
    since: Instant,
}

impl Lodger {
    /// A VM that is here from now on.
    #[must_use]
    pub fn new(watched: Watched, now: Instant) -> Self {
        Self { watched, since: now }
    }

    /// A VM that was watched elsewhere, and may have another load by now.
    #[must_use]
    pub fn arrived(watched: Watched, load: f64, now: Instant) -> Self {
        Self::new(Watched { load, ..watched }, now)
    }

    /// Its load now.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.watched.load
    }
}

/// What all VMs of a node share.
#[derive(Clone, Copy, Debug, Default)]
pub struct House {
    seen: Seen,
}

impl House {
    /// A VM's load became something else.
    pub fn note(&mut self, vm: &mut Lodger, load: f64, now: Instant) {
        let expected = if self.seen.changes > 0.0 { self.mean_of(&vm.watched) } else { load };
        let (miss, lasted) = (load - expected, now.since(vm.since).as_secs_f64());
        vm.watched.seen.note(load, miss, lasted, OWN_MEMORY);
        self.seen.note(load, miss, lasted, SHARED_MEMORY);
        vm.watched.load = load;
        vm.since = now;
    }

    /// What this VM does, as of now. That it has not changed for long counts too.
    #[must_use]
    pub fn habit(&self, vm: &Lodger, now: Instant) -> Habit {
        let (own, all) = (&vm.watched.seen, &self.seen);
        let noise = (all.misses + 2.0 * FIRST_NOISE) / (all.changes + 2.0);
        let period_s = (all.watched_s + FIRST_PERIOD_S) / (all.changes + 1.0);
        let waited: Duration = now.since(vm.since);
        let watched_s = own.watched_s + waited.as_secs_f64() + PRIOR_WEIGHT * period_s;
        Habit {
            load: vm.watched.load,
            mean: self.mean_of(&vm.watched),
            noise: (own.misses + PRIOR_WEIGHT * noise) / (own.changes + PRIOR_WEIGHT),
            rate: (own.changes + PRIOR_WEIGHT) / watched_s,
        }
    }

    /// What its loads are around. Where nothing was ever seen to change, what it does now is all that is known.
    fn mean_of(&self, vm: &Watched) -> f64 {
        let own = &vm.seen;
        let all =
            if self.seen.changes > 0.0 { self.seen.loads / self.seen.changes } else { vm.load };
        (own.loads + PRIOR_WEIGHT * all) / (own.changes + PRIOR_WEIGHT)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten VMs, each of which changes every 40 seconds, to 30 and 70 in turn.
    fn learnt(changes: u64) -> (House, Vec<Lodger>, Instant) {
        let mut house = House::default();
        let mut vms = vec![Lodger::new(Watched::new(0.0), Instant::ZERO); 10];
        for change in 0..changes {
            let now = Instant(40_000_000 * (change + 1));
            for (index, vm) in vms.iter_mut().enumerate() {
                let high = (change + index as u64).is_multiple_of(2);
                house.note(vm, if high { 70.0 } else { 30.0 }, now);
            }
        }
        (house, vms, Instant(40_000_000 * changes))
    }

    #[test]
    fn it_comes_to_know_a_distribution_that_nobody_told() {
        let (house, vms, now) = learnt(60);
        for vm in &vms {
            let habit = house.habit(vm, now);
            assert!((habit.mean - 50.0).abs() < 2.0, "{habit:?}");
            assert!((habit.noise.sqrt() - 20.0).abs() < 3.0, "{habit:?}");
            assert!((1.0 / habit.rate - 40.0).abs() < 4.0, "{habit:?}");
        }
    }

    #[test]
    fn a_vm_unlike_the_others_becomes_known_for_itself_and_wherever_it_goes() {
        let (mut house, mut vms, mut now) = learnt(30);
        for _ in 0..30 {
            now = now + Duration::from_secs(5);
            house.note(&mut vms[0], 95.0, now);
        }
        let (odd, usual) = (house.habit(&vms[0], now), house.habit(&vms[1], now));
        assert!(odd.mean > usual.mean + 5.0 && odd.rate > 1.5 * usual.rate, "{odd:?} {usual:?}");
        let elsewhere = learnt(30).0.habit(&Lodger::new(vms[0].watched, now), now);
        assert!(elsewhere.mean > 70.0, "{elsewhere:?}");
    }

    #[test]
    fn a_vm_that_stays_as_it_is_is_expected_to() {
        let (house, vms, now) = learnt(20);
        let later = now + Duration::from_secs(1_000);
        assert!(house.habit(&vms[0], later).rate < 0.6 * house.habit(&vms[0], now).rate);
    }
}
