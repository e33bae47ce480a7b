//! The value function: what a node's VMs will cost in seconds of overload, from some moment on.
//!
//! Each VM keeps its load until it changes, and then has another, around its mean. So t seconds from now a VM still
//! has its present load with probability p = exp(-rate·t), and otherwise a new one. Summed over the node's VMs and
//! taken as normal, that says how probable an overload is at t: it starts at what is true now and ends at what is
//! usual for these VMs. The outlook is the integral of that probability over time to come, discounted, as what lies
//! further off can be seen to when it is nearer.
//!
//! The idea is BENCHMARKS' (B1): single jumps cannot be foreseen, so that only head-room saves violations, and this
//! says what head-room is worth where. Only the four operations and the square root are used: another machine's
//! mathematical library would differ in the last bit.

use serde::{Deserialize, Serialize};

use super::habit::Habit;

/// How far ahead it pays to look, seconds: the discount falls to 1/e after so long. It stands for what the model leaves
/// out, that an overload to come will be seen to when it is nearer; longer, and a migration seems to save more than
/// it does. No outlook is above it. The better loads are known the further it pays to look: when nodes did not share
/// what they had seen, 40 s was as good as any. From 60 to 80 s, with thresholds to match, results differ little.
pub const FORESIGHT_S: f64 = 70.0;

/// No sum over the VMs of a node is above this: squares of loads of 10⁵ cores, 10⁴ times. More is nonsense from a peer.
const SUM_LIMIT: f64 = 1e18;

/// Gauss–Laguerre's points (in units of the foresight) and weights: the integral of exp(-x)·f(x) from zero on.
const POINTS: [(f64, f64); 4] = [
    (0.322_547_689_619_392, 0.603_154_104_341_634),
    (1.745_761_101_158_347, 0.357_418_692_437_800),
    (4.536_620_296_921_128, 0.038_887_908_515_005),
    (9.395_070_912_301_133, 0.000_539_294_705_561),
];

/// A set of VMs on one node, as sums over them: a VM is added or taken away in one step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outline {
    /// How many.
    pub vms: f64,
    /// Loads now.
    pub load: f64,
    /// Mean loads.
    pub mean: f64,
    /// Variances of the loads around their means.
    pub noise: f64,
    /// Squares of how far each load is from its mean now.
    pub gap: f64,
    /// Changes per second.
    pub rate: f64,
}

impl Outline {
    /// With one more VM.
    #[must_use]
    pub fn with(self, vm: &Habit) -> Self {
        self.shifted(vm, 1.0)
    }

    /// Without one of its VMs.
    #[must_use]
    pub fn without(self, vm: &Habit) -> Self {
        self.shifted(vm, -1.0)
    }

    /// Without so many VMs like this one.
    #[must_use]
    pub fn without_some(self, vm: &Habit, count: f64) -> Self {
        self.shifted(vm, -count)
    }

    /// Whether a node's VMs can have come to these sums.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        let sums = [self.vms, self.load, self.mean, self.noise, self.gap, self.rate];
        sums.iter().all(|sum| (0.0..=SUM_LIMIT).contains(sum))
    }

    fn shifted(self, vm: &Habit, sign: f64) -> Self {
        let gap = vm.load - vm.mean;
        Self {
            vms: self.vms + sign,
            load: self.load + sign * vm.load,
            mean: self.mean + sign * vm.mean,
            noise: self.noise + sign * vm.noise,
            gap: self.gap + sign * gap * gap,
            rate: self.rate + sign * vm.rate,
        }
    }

    /// Probability that the sum of the loads is above the capacity so many seconds after it was as it says.
    #[must_use]
    pub fn overload_probability(&self, capacity: f64, seconds: f64) -> f64 {
        let rate = if self.vms >= 1.0 { self.rate.max(0.0) / self.vms } else { 0.0 };
        let same = decay(rate * seconds);
        let mean = self.mean + (self.load - self.mean) * same;
        let variance = (1.0 - same) * (self.noise + same * self.gap);
        if variance <= f64::EPSILON {
            return f64::from(u8::from(mean > capacity));
        }
        upper_tail((capacity - mean) / variance.sqrt())
    }
}

/// Seconds of overload to be expected, discounted, from so many seconds after the outline was true on.
#[must_use]
pub fn outlook(node: &Outline, capacity: f64, from_s: f64) -> f64 {
    let at = |(x, weight): &(f64, f64)| {
        weight * node.overload_probability(capacity, from_s + FORESIGHT_S * x)
    };
    FORESIGHT_S * POINTS.iter().map(at).sum::<f64>()
}

/// exp(-x) for x from zero on: the series for x/64, squared six times. Right to a millionth up to x = 3, and to a thousandth
/// of itself everywhere.
fn decay(x: f64) -> f64 {
    if x > 40.0 {
        return 0.0;
    }
    let y = x / 64.0;
    let mut value = 1.0 - y * (1.0 - y / 2.0 * (1.0 - y / 3.0 * (1.0 - y / 4.0 * (1.0 - y / 5.0))));
    for _ in 0..6 {
        value *= value;
    }
    value
}

/// Probability that a standard normal number is above this one, within 0.00001 (Abramowitz and Stegun, 26.2.16).
fn upper_tail(z: f64) -> f64 {
    let k = 1.0 / (1.0 + 0.332_67 * z.abs());
    let series = k * (0.436_183_6 + k * (-0.120_167_6 + k * 0.937_298_0));
    let tail = 0.398_942_28 * decay(z * z / 2.0) * series;
    if z < 0.0 { 1.0 - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ten VMs of these loads, each of mean 60 and deviation 20, that change every five minutes.
    fn node(loads: [f64; 10]) -> Outline {
        let vm = |load| Habit { load, mean: 60.0, noise: 400.0, rate: 1.0 / 300.0 };
        loads.into_iter().fold(Outline::default(), |node, load| node.with(&vm(load)))
    }

    #[test]
    fn the_outlook_of_an_empty_node_is_nothing_and_it_grows_with_the_load() {
        assert_eq!(outlook(&Outline::default(), 700.0, 0.0), 0.0);
        let by_load: Vec<f64> = [20.0, 50.0, 60.0, 68.0, 80.0]
            .map(|load| outlook(&node([load; 10]), 700.0, 0.0))
            .into();
        assert!(by_load.is_sorted() && by_load[0] < 0.5, "{by_load:?}");
        assert!(by_load[4] > 0.5 * FORESIGHT_S, "{by_load:?}");
    }

    #[test]
    fn an_overload_is_certain_now_and_only_usual_in_the_end() {
        let node = node([80.0; 10]);
        assert_eq!(node.overload_probability(700.0, 0.0), 1.0);
        let usual = node.overload_probability(700.0, 1e5);
        assert!((usual - 0.0569).abs() < 1e-3, "100 above the mean of 600, deviation 63: {usual}");
    }

    #[test]
    fn what_is_added_and_taken_away_again_changes_nothing() {
        let vm = Habit { load: 90.0, mean: 55.0, noise: 250.0, rate: 0.01 };
        let before = node([70.0; 10]);
        let after = before.with(&vm).without(&vm);
        assert!((outlook(&before, 700.0, 0.0) - outlook(&after, 700.0, 0.0)).abs() < 1e-9);
    }

    #[test]
    fn the_functions_are_near_those_of_the_library() {
        for step in 0..120 {
            let x = f64::from(step) / 20.0;
            assert!((decay(x) - (-x).exp()).abs() < 1e-5, "{x}");
        }
        for (z, tail) in [(-1.0, 0.841_345), (0.0, 0.5), (1.0, 0.158_655), (2.0, 0.022_750)] {
            assert!((upper_tail(z) - tail).abs() < 2e-5, "{z}");
        }
    }
}
