//! What a node learns of its VMs' loads from seeing them change: how high, how far apart, how often.
//!
//! ```text
//!   changes seen here ──> House: sums that fade ──┐ (told to peers, with each summary)
//!   peers' sums, as last told ────────────────────┴──> Prior: what VMs here are like in general
//!   one VM's own changes (Watched, which moves with it) ──────────> Habit: what this one is like
//! ```
//!
//! Nobody says how loads come about, and a VM changes seldom: ten VMs know little of themselves, and those of sixteen
//! neighbours much. How much a VM is like the others, and how much its next load is like its present one, is learnt
//! too. Everything fades with what follows, so that a day is followed and a burst forgotten.

use serde::{Deserialize, Serialize};

use crate::engine::time::Instant;

/// A VM's own observations last for about so many of its changes.
const OWN_MEMORY: f64 = 12.0;
/// Those of all VMs of a node together, for about so many: about as many changes of each of ten VMs.
const SHARED_MEMORY: f32 = 100.0;
/// How far a VM's loads deviate and how often they change is taken from what all share, as if from so many of
/// its own changes: VMs are more alike in that than three or four changes of one would tell.
const PRIOR_WEIGHT: f64 = 8.0;
/// VMs are taken to be alike until about so many pairs of loads have said otherwise.
const ALIKE_PAIRS: f64 = 20.0;
/// What is shared weighs at the least and at the most as much as so many of a VM's own loads.
const WEIGHTS: (f64, f64) = (1.0, 1e4);
/// No VM's load is above this, percent of a core: a hundred thousand cores. More is nonsense from a peer.
pub const LOAD_LIMIT: f64 = 1e7;
/// Nothing has been watched for longer, seconds: thirty years, by all VMs of a node.
const WATCHED_LIMIT: f64 = 1e9;
/// Before anything is seen: a VM changes once a minute. One change of any VM outweighs it.
const FIRST_PERIOD_S: f64 = 60.0;
/// Before anything is seen: loads deviate by this much of a core's percent. Two changes outweigh it.
const FIRST_NOISE: f64 = 15.0 * 15.0;

/// What a VM does, as far as its node can say: what the outlook needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Habit {
    /// Its load now, percent of a core.
    pub load: f64,
    /// What its next load will be around.
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
    fn note(&mut self, load: f64, miss: f64, lasted_s: f64) {
        let kept = 1.0 - 1.0 / OWN_MEMORY;
        self.changes = kept * self.changes + 1.0;
        self.loads = kept * self.loads + load;
        self.misses = kept * self.misses + miss * miss;
        self.watched_s = kept * self.watched_s + lasted_s;
    }

    fn is_sane(&self) -> bool {
        let within = |number: f64, limit: f64| (0.0..=limit).contains(&number);
        within(self.changes, OWN_MEMORY + 1.0)
            && within(self.loads, (OWN_MEMORY + 1.0) * LOAD_LIMIT)
            && within(self.misses, (OWN_MEMORY + 1.0) * LOAD_LIMIT * LOAD_LIMIT)
            && within(self.watched_s, WATCHED_LIMIT)
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
    /// A VM that nothing is known of but its load.
    #[must_use]
    pub fn new(load: f64) -> Self {
        Self { load, seen: Seen::default() }
    }

    /// Whether a node can have seen this.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        (0.0..=LOAD_LIMIT).contains(&self.load) && self.seen.is_sane()
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

    /// What goes with it to another node, the time that it has kept its load here included.
    #[must_use]
    pub fn packed(&self, now: Instant) -> Watched {
        let mut watched = self.watched;
        watched.seen.watched_s += self.waited_s(now);
        watched
    }

    fn waited_s(&self, now: Instant) -> f64 {
        now.since(self.since).as_secs_f64()
    }
}

/// What one node has seen of all VMs that were there: sums that fade, which can be added to those of other nodes. Of half
/// the usual precision, as they are sent with each summary.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lore {
    /// Changes.
    changes: f32,
    /// Sum of the loads that they led to.
    loads: f32,
    /// Sum of the squares of how far those were from what was expected.
    misses: f32,
    /// Seconds watched, all VMs together, in which those changes came.
    watched_s: f32,
    /// Changes of VMs that had changed before.
    pairs: f32,
    /// Over those, the sum of the products of how far the load before and the load after were from what is usual:
    /// positive as far as a VM's loads are its own.
    alike: f32,
    /// The same, but of how far from what is usual for this very VM: positive as far as a load is like the one before.
    kept: f32,
    /// Sum of the squares of how far the load before was from that.
    strayed: f32,
}

impl Lore {
    /// Both together.
    #[must_use]
    pub fn with(&self, other: &Self) -> Self {
        self.zip(other, |a, b| a + b)
    }

    /// The same after so many seconds, all VMs together, in which nothing changed.
    #[must_use]
    pub fn unchanged_for(&self, seconds: f64) -> Self {
        Self { watched_s: self.watched_s + seconds as f32, ..*self }
    }

    /// Whether a node can have seen this.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let limit = LOAD_LIMIT as f32;
        let all = SHARED_MEMORY + 1.0;
        let squares = all * limit * limit;
        let within = |number: f32, limit: f32| (0.0..=limit).contains(&number);
        within(self.changes, all)
            && within(self.pairs, all)
            && within(self.loads, all * limit)
            && within(self.watched_s, WATCHED_LIMIT as f32)
            && [self.misses, self.strayed].iter().all(|sum| within(*sum, squares))
            && [self.alike, self.kept].iter().all(|sum| within(sum.abs(), squares))
    }

    fn zip(&self, other: &Self, with: impl Fn(f32, f32) -> f32) -> Self {
        Self {
            changes: with(self.changes, other.changes),
            loads: with(self.loads, other.loads),
            misses: with(self.misses, other.misses),
            watched_s: with(self.watched_s, other.watched_s),
            pairs: with(self.pairs, other.pairs),
            alike: with(self.alike, other.alike),
            kept: with(self.kept, other.kept),
            strayed: with(self.strayed, other.strayed),
        }
    }
}

/// What VMs are like in general, by all that a node has seen and heard: made from [`Lore`].
#[derive(Clone, Copy, Debug)]
pub struct Prior {
    /// Nothing is known before the first change.
    known: bool,
    mean: f64,
    noise: f64,
    rate: f64,
    /// How many of a VM's own loads the mean weighs as much as.
    weight: f64,
    /// How much of its present distance from its mean a VM's next load keeps, 0 to 1: nothing where loads are drawn
    /// anew, most where they follow the day.
    keeps: f64,
}

impl Prior {
    /// What this tells. A VM's own mean is shrunk to that of all by the ratio of the variance of its loads to that
    /// between the means of VMs (empirical Bayes), which is the covariance of two successive loads of one VM.
    #[must_use]
    pub fn of(lore: &Lore) -> Self {
        let [changes, loads, misses, watched_s] =
            [lore.changes, lore.loads, lore.misses, lore.watched_s].map(f64::from);
        let [pairs, alike, kept, strayed] =
            [lore.pairs, lore.alike, lore.kept, lore.strayed].map(f64::from);
        let noise = (misses + 2.0 * FIRST_NOISE) / (changes + 2.0);
        let between = (alike / (pairs + ALIKE_PAIRS)).max(noise / WEIGHTS.1);
        Self {
            known: changes > 0.0,
            mean: if changes > 0.0 { loads / changes } else { 0.0 },
            noise,
            rate: (changes + 1.0) / (watched_s + FIRST_PERIOD_S),
            weight: (noise / between).max(WEIGHTS.0),
            keeps: (kept / (strayed + ALIKE_PAIRS * FIRST_NOISE)).clamp(0.0, 1.0),
        }
    }

    /// What this VM does, as of now. That it has not changed for long counts too.
    #[must_use]
    pub fn habit(&self, vm: &Lodger, now: Instant) -> Habit {
        let own = &vm.watched.seen;
        let watched_s = own.watched_s + vm.waited_s(now) + PRIOR_WEIGHT / self.rate;
        Habit {
            load: vm.watched.load,
            mean: self.next_of(&vm.watched),
            noise: (own.misses + PRIOR_WEIGHT * self.noise) / (own.changes + PRIOR_WEIGHT),
            rate: (own.changes + PRIOR_WEIGHT) / watched_s,
        }
    }

    /// What is usual for a VM.
    fn mean_of(&self, own: &Seen) -> f64 {
        (own.loads + self.weight * self.mean) / (own.changes + self.weight)
    }

    /// What its next load will be around. A load that it was first seen with says nothing: it is not known to be
    /// one of those that it changes to.
    fn next_of(&self, vm: &Watched) -> f64 {
        if !self.known {
            return vm.load;
        }
        let usual = self.mean_of(&vm.seen);
        let keeps = if vm.seen.changes > 0.0 { self.keeps } else { 0.0 };
        usual + keeps * (vm.load - usual)
    }
}

/// What a node has seen of its VMs.
#[derive(Clone, Copy, Debug, Default)]
pub struct House {
    lore: Lore,
}

impl House {
    /// A VM's load became something else.
    pub fn note(&mut self, vm: &mut Lodger, load: f64, now: Instant, prior: &Prior) {
        let lasted_s = vm.waited_s(now);
        let seen = self.comparison(&vm.watched, load, prior);
        let miss = if prior.known { load - prior.next_of(&vm.watched) } else { 0.0 };
        let change = Lore {
            changes: 1.0,
            loads: load as f32,
            misses: (miss * miss) as f32,
            watched_s: lasted_s as f32,
            ..seen
        };
        self.lore = self.lore.zip(&change, |sum, new| sum * (1.0 - 1.0 / SHARED_MEMORY) + new);
        vm.watched.seen.note(load, miss, lasted_s);
        vm.watched.load = load;
        vm.since = now;
    }

    /// A VM's load before and after a change, each against what was usual.
    fn comparison(&self, vm: &Watched, load: f64, prior: &Prior) -> Lore {
        if !prior.known || vm.seen.changes <= 0.0 {
            return Lore::default();
        }
        let usual = prior.mean_of(&vm.seen);
        let strayed = vm.load - usual;
        Lore {
            pairs: 1.0,
            alike: ((load - prior.mean) * (vm.load - prior.mean)) as f32,
            kept: (strayed * (load - usual)) as f32,
            strayed: (strayed * strayed) as f32,
            ..Lore::default()
        }
    }

    /// A VM goes: that it has kept its load until now was seen here.
    pub fn part_with(&mut self, vm: &Lodger, now: Instant) {
        self.lore.watched_s += vm.waited_s(now) as f32;
    }

    /// All that was seen here, the time since the last change of each VM included: without it, those that change
    /// often would count for all.
    #[must_use]
    pub fn lore<'a>(&self, vms: impl Iterator<Item = &'a Lodger>, now: Instant) -> Lore {
        let waited_s: f64 = vms.map(|vm| vm.waited_s(now)).sum();
        Lore { watched_s: self.lore.watched_s + waited_s as f32, ..self.lore }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A node with ten VMs that have just come.
    struct Watch {
        house: House,
        vms: Vec<Lodger>,
        now: Instant,
    }

    impl Watch {
        fn new() -> Self {
            let vms = vec![Lodger::new(Watched::new(0.0), Instant::ZERO); 10];
            Self { house: House::default(), vms, now: Instant::ZERO }
        }

        fn prior(&self) -> Prior {
            Prior::of(&self.house.lore(self.vms.iter(), self.now))
        }

        fn habit(&self, vm: usize) -> Habit {
            self.prior().habit(&self.vms[vm], self.now)
        }

        fn change(&mut self, vm: usize, load: f64) {
            let prior = self.prior();
            self.house.note(&mut self.vms[vm], load, self.now, &prior);
        }

        /// Each VM changes every 40 seconds, by its number and how often it has.
        fn learn(mut self, changes: u64, load: impl Fn(usize, u64) -> f64) -> Self {
            for change in 0..changes {
                self.now = self.now + Duration::from_secs(40);
                (0..10).for_each(|vm| self.change(vm, load(vm, change)));
            }
            self
        }
    }

    /// 30 and 70, in an order that does not tell what comes next.
    fn unlike(vm: usize, change: u64) -> f64 {
        let mut mixed = (change * 10 + vm as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        if mixed >> 60 & 1 == 0 { 30.0 } else { 70.0 }
    }

    #[test]
    fn it_comes_to_know_a_distribution_that_nobody_told() {
        let watch = Watch::new().learn(60, unlike);
        for vm in 0..10 {
            let habit = watch.habit(vm);
            assert!((habit.mean - 50.0).abs() < 12.0, "{habit:?}");
            assert!((habit.noise.sqrt() - 20.0).abs() < 3.0, "{habit:?}");
            assert!((1.0 / habit.rate - 40.0).abs() < 4.0, "{habit:?}");
        }
    }

    #[test]
    fn a_vm_unlike_the_others_becomes_known_for_itself_and_wherever_it_goes() {
        let load = |vm, change| if vm < 2 { 95.0 } else { unlike(vm, change) };
        let watch = Watch::new().learn(30, load);
        let (odd, usual) = (watch.habit(0), watch.habit(5));
        assert!(odd.mean > usual.mean + 15.0, "{odd:?} {usual:?}");
        let moved = Lodger::arrived(watch.vms[0].packed(watch.now), 95.0, watch.now);
        let there = Watch::new().learn(30, load).prior().habit(&moved, watch.now);
        assert!(there.mean > 80.0, "{there:?}");
    }

    #[test]
    fn loads_that_follow_a_curve_are_expected_to_stay_near_where_they_are() {
        let day = |vm, change: u64| (change as f64 - 20.0).abs() * 3.0 + vm as f64;
        let watch = Watch::new().learn(60, day);
        let habit = watch.habit(3);
        assert!((habit.mean - habit.load).abs() < 12.0 && habit.load > 100.0, "{habit:?}");
    }

    #[test]
    fn a_vm_that_stays_as_it_is_is_expected_to() {
        let mut watch = Watch::new().learn(20, unlike);
        let before = watch.habit(0).rate;
        watch.now = watch.now + Duration::from_secs(1_000);
        assert!(watch.habit(0).rate < 0.6 * before);
    }

    #[test]
    fn what_peers_have_seen_is_known_before_anything_is_seen_here() {
        let elsewhere = Watch::new().learn(20, unlike);
        let lore = elsewhere.house.lore(elsewhere.vms.iter(), elsewhere.now);
        let here = Watch::new();
        let all = here.house.lore(here.vms.iter(), here.now).with(&lore);
        let habit = Prior::of(&all).habit(&here.vms[0], here.now);
        assert!((habit.mean - 50.0).abs() < 10.0 && habit.rate > 0.02, "{habit:?}");
    }

    #[test]
    fn what_cannot_have_been_seen_is_known_as_such() {
        let watch = Watch::new().learn(200, unlike);
        assert!(watch.house.lore(watch.vms.iter(), watch.now).is_sane());
        assert!(watch.vms.iter().all(|vm| vm.packed(watch.now).is_sane()));
        for nonsense in [f32::NAN, f32::INFINITY, -1.0, 1e30] {
            assert!(!Lore { changes: nonsense, ..Lore::default() }.is_sane());
            assert!(!Lore { strayed: nonsense, ..Lore::default() }.is_sane());
        }
        assert!(!Watched::new(f64::NAN).is_sane() && !Watched::new(-1.0).is_sane());
    }
}
