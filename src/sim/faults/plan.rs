//! Plans: what people and fate do in one run, drawn from a seed before it begins.

use std::fmt;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::FaultKind;
use crate::engine::id::NodeName;

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
    let span = (EACH * shape.faults as u32).max(Duration::from_secs(20));
    let mut steps = Vec::new();
    let mut add = |at: Duration, what: What, rng: &mut ChaCha8Rng| {
        steps.push(Step { at, what, chance: rng.random() });
    };
    let node =
        |rng: &mut ChaCha8Rng| NodeName::from(format!("n{}", rng.random_range(1..=shape.nodes)));
    let within =
        |share: f64, rng: &mut ChaCha8Rng| BEGIN + span.mul_f64(share * rng.random::<f64>());
    for number in 0..shape.ves {
        let at = within(0.6, &mut rng);
        add(at, What::Apply(number), &mut rng);
    }
    for _ in 0..shape.ves + shape.ves / 2 {
        let at = within(1.0, &mut rng);
        let what = match rng.random_range(0..6) {
            0 => What::Cordon(node(&mut rng)),
            1 | 2 => What::Maintenance(node(&mut rng)),
            _ => What::Change,
        };
        add(at, what, &mut rng);
    }
    let kinds: Vec<FaultKind> =
        shape.kinds.iter().copied().filter(|kind| *kind != FaultKind::Migration).collect();
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
            for other in (1..=shape.nodes).map(|n| NodeName::from(format!("n{n}"))) {
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
        let steps = draw(1, &shape);
        assert_eq!(steps, draw(1, &shape));
        assert_ne!(steps, draw(2, &shape));
        assert!(steps.is_sorted_by_key(|step| step.at));
        let drawn = |kind: FaultKind| {
            steps.iter().any(|s| matches!(s.what, What::Fault(k, ..) if k == kind))
        };
        let missing: Vec<_> = FaultKind::ALL.into_iter().filter(|kind| !drawn(*kind)).collect();
        assert_eq!(missing, vec![FaultKind::Migration], "those are drawn as migrations end");
    }
}
