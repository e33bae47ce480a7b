//! Plans: what people and fate do in one run, drawn from a seed before it begins.

use std::fmt;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::FaultKind;
use crate::engine::id::NodeName;
use crate::engine::lease::Times;

/// One thing that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, from the start.
    pub at: Duration,
    /// What.
    pub what: What,
    /// Feeds what is left to chance in it.
    pub chance: u64,
}

/// What is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// People apply the environment of this number.
    Apply(usize),
    /// People change or delete an environment; now and then they take that back at once.
    Change,
    /// People cordon a node, or take that back.
    Cordon(NodeName),
    /// People put a node into maintenance, or take that back.
    Maintenance(NodeName),
    /// Something goes wrong, for so long.
    Fault(FaultKind, NodeName, Duration),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>9.3} s  ", self.at.as_secs_f64())?;
        match &self.what {
            What::Apply(number) => write!(f, "people apply ve-{number}"),
            What::Change => {
                write!(f, "people change or delete an environment, and may take that back")
            }
            What::Cordon(node) => write!(f, "people cordon {node}, or take it back"),
            What::Maintenance(node) => {
                write!(f, "people put {node} into maintenance, or take it back")
            }
            What::Fault(kind, node, lasts) => {
                write!(f, "{kind}")?;
                if kind.is_of_a_node() {
                    write!(f, " {node}")?;
                }
                write!(f, " for {:.3} s", lasts.as_secs_f64())
            }
        }
    }
}

/// What a plan is drawn from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// How many nodes.
    pub nodes: usize,
    /// How many environments.
    pub ves: usize,
    /// How many faults.
    pub faults: usize,
    /// Of these kinds.
    pub kinds: Vec<FaultKind>,
}

/// What one seed's world is like. Seeds differ in which kinds of faults they have at all: few kinds meet each other more often
/// than many do (Groce, Zhang, Eide, Chen and Regehr, *Swarm Testing*, ISSTA 2012). And they differ in how little time there is
/// to spare between the end of a VM and its start elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// How many nodes: where there are few, few have to be hit.
    pub nodes: usize,
    /// What may go wrong.
    pub kinds: Vec<FaultKind>,
    /// What leases are made of.
    pub times: Times,
    /// Each node's hardware watchdog resets it when it has not been fed for so long.
    pub watchdog: Option<Duration>,
    /// How often people change their minds, for each environment, in halves.
    changes: usize,
}

/// The time-out that `docs/protection.md` advises.
const WATCHDOG: Duration = Duration::from_secs(6);
/// The least margin that [`Times::check`] lets pass for a lease of five seconds without a watchdog.
const LEAST_MARGIN: Duration = Duration::from_millis(205);
/// What it takes more with a watchdog of five seconds.
const LEAST_MARGIN_OF_WATCHDOG: Duration = Duration::from_millis(5);

/// Nodes guard each other where there are so many.
const FEWEST: usize = 3;

impl Conditions {
    /// Of one seed: in every third world all kinds of the shape may go wrong.
    #[must_use]
    pub fn draw(seed: u64, shape: &Shape) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x5a4_c0de);
        let all = seed.is_multiple_of(3);
        let one_of = [2, 4, 8][rng.random_range(0..3)];
        let mut kinds: Vec<FaultKind> = shape.kinds.clone();
        kinds.retain(|_| rng.random_ratio(1, one_of) || all);
        // Two that meet are the least.
        while kinds.len() < shape.kinds.len().min(2) {
            let more = shape.kinds[rng.random_range(0..shape.kinds.len())];
            kinds.push(more);
            kinds.sort();
            kinds.dedup();
        }
        let (mut times, mut watchdog) = (Times::default(), Some(WATCHDOG));
        match rng.random_range(0..4) {
            // The latest that it may act, and nothing else to spare.
            0 => {
                times.margin = LEAST_MARGIN + LEAST_MARGIN_OF_WATCHDOG;
                watchdog = Some(times.lease + times.watchdog);
            }
            // No watchdog: a guard must not stall then, and end for no longer than it takes to notice.
            1 => {
                (times.watchdog, times.margin, watchdog) = (Duration::ZERO, LEAST_MARGIN, None);
                kinds.retain(|kind| !matches!(kind, FaultKind::Guard | FaultKind::GuardStall));
            }
            _ => {}
        }
        let few = rng.random_bool(0.5) && shape.nodes > FEWEST;
        let nodes = if few { rng.random_range(FEWEST..shape.nodes) } else { shape.nodes };
        Self { nodes, kinds, times, watchdog, changes: [3, 3, 12][rng.random_range(0..3)] }
    }
}

/// Faults begin within this time for each of them: on average so many are under way together.
const EACH: Duration = Duration::from_secs(4);
/// Nothing goes wrong before agents have found each other.
const BEGIN: Duration = Duration::from_secs(3);

/// How likely a fault of a node hits others too.
const SPREADS: f64 = 0.1;

/// Draws a plan, in the order of time.
#[must_use]
pub fn draw(seed: u64, shape: &Shape) -> Vec<Step> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0xfa17_5eed);
    let conditions = Conditions::draw(seed, shape);
    let span = (EACH * shape.faults as u32).max(Duration::from_secs(20));
    let mut steps = Vec::new();
    let mut add = |at: Duration, what: What, rng: &mut ChaCha8Rng| {
        steps.push(Step { at, what, chance: rng.random() });
    };
    let node = |rng: &mut ChaCha8Rng| {
        NodeName::from(format!("n{}", rng.random_range(1..=conditions.nodes)))
    };
    let within =
        |share: f64, rng: &mut ChaCha8Rng| BEGIN + span.mul_f64(share * rng.random::<f64>());
    for number in 0..shape.ves {
        let at = within(0.6, &mut rng);
        add(at, What::Apply(number), &mut rng);
    }
    for _ in 0..shape.ves * conditions.changes / 2 {
        let at = within(1.0, &mut rng);
        let what = match rng.random_range(0..6) {
            0 => What::Cordon(node(&mut rng)),
            1 | 2 => What::Maintenance(node(&mut rng)),
            _ => What::Change,
        };
        add(at, what, &mut rng);
    }
    let kinds: Vec<FaultKind> =
        conditions.kinds.iter().copied().filter(|kind| *kind != FaultKind::Migration).collect();
    let (mut last, mut there) = (BEGIN, node(&mut rng));
    for _ in 0..if kinds.is_empty() { 0 } else { shape.faults } {
        // What goes wrong goes wrong together, and often at one place.
        let soon = last + Duration::from_millis(rng.random_range(0..3_000));
        let together = rng.random_bool(0.5);
        last = if together { soon } else { within(1.0, &mut rng) };
        if !(together && rng.random_bool(0.6)) {
            there = node(&mut rng);
        }
        let kind = kinds[rng.random_range(0..kinds.len())];
        let lasts = duration(kind, &mut rng);
        add(last, What::Fault(kind, there.clone(), lasts), &mut rng);
        // A rack, an upgrade: the same happens to others, for about as long.
        // (Not the loss of a disk: where most of them are lost nothing is left to be shown.)
        let spreads = kind.is_of_a_node() && kind != FaultKind::LostDisk;
        if spreads && rng.random_bool(SPREADS) {
            for other in (1..=conditions.nodes).map(|n| NodeName::from(format!("n{n}"))) {
                let (at, lasts) = (
                    last + Duration::from_millis(rng.random_range(0..2_000)),
                    lasts.mul_f64(rng.random_range(0.7..1.3)),
                );
                if other != there && rng.random_bool(0.6) {
                    add(at, What::Fault(kind, other, lasts), &mut rng);
                }
            }
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// How long one lasts: as often a tenth of a second as ten, in the time that is of interest for its kind.
fn duration(kind: FaultKind, rng: &mut ChaCha8Rng) -> Duration {
    let (least, most) = match kind {
        FaultKind::Stall if rng.random_bool(0.02) => (60_000, 7_200_000),
        FaultKind::Guard => (50, 15_000),
        FaultKind::Freeze | FaultKind::GuardStall => (500, 25_000),
        FaultKind::Clock | FaultKind::Guest | FaultKind::Domain => (1, 2),
        FaultKind::Loss | FaultKind::Repeat | FaultKind::Reorder | FaultKind::Late => {
            (2_000, 60_000)
        }
        FaultKind::LostDisk | FaultKind::Leave => (500, 90_000),
        _ => (300, 45_000),
    };
    let (least, most) = (f64::from(least), f64::from(most));
    // Halving the span of powers of two again and again is a logarithm that is the same everywhere.
    let (mut low, mut high) = (least, most);
    for _ in 0..8 {
        let middle = (low * high).sqrt();
        if rng.random_bool(0.5) { low = middle } else { high = middle }
    }
    Duration::from_micros((low * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_follows_from_its_seed_and_has_every_kind() {
        let shape = Shape { nodes: 5, ves: 3, faults: 400, kinds: FaultKind::ALL.to_vec() };
        let steps = draw(6, &shape);
        assert_eq!(steps, draw(6, &shape));
        assert_ne!(steps, draw(3, &shape));
        assert!(steps.is_sorted_by_key(|step| step.at));
        let drawn = |kind: FaultKind| {
            steps.iter().any(|s| matches!(s.what, What::Fault(k, ..) if k == kind))
        };
        let missing: Vec<_> = FaultKind::ALL.into_iter().filter(|kind| !drawn(*kind)).collect();
        assert_eq!(missing, vec![FaultKind::Migration], "those are drawn as migrations end");
    }

    #[test]
    fn worlds_differ_in_their_kinds_and_in_their_times_and_all_of_them_can_keep_what_they_promise()
    {
        let shape = Shape { nodes: 5, ves: 3, faults: 9, kinds: FaultKind::ALL.to_vec() };
        let worlds: Vec<Conditions> = (0..300).map(|seed| Conditions::draw(seed, &shape)).collect();
        for world in &worlds {
            assert_eq!(world.times.check(), Ok(()));
            let stalls = world.kinds.contains(&FaultKind::GuardStall);
            match world.watchdog {
                Some(timeout) => assert!(timeout <= world.times.lease + world.times.watchdog),
                None => assert!(!stalls, "nothing would end its VMs"),
            }
            assert!(world.kinds.is_sorted() && !world.kinds.is_empty());
        }
        let few = worlds.iter().filter(|world| world.kinds.len() < 6).count();
        let tight = worlds.iter().filter(|world| world.watchdog.is_none()).count();
        assert!(few > 50 && tight > 40, "{few} with few kinds, {tight} without a watchdog");
        let only = Shape { kinds: vec![FaultKind::Cut], ..shape };
        assert!((0..9).all(|seed| Conditions::draw(seed, &only).kinds == [FaultKind::Cut]));
    }
}
