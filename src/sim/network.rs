//! The network: each message is delayed by its own amount (so that they overtake each other), lost or
//! repeated with a stated probability, and cut where a node is cut off.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use crate::engine::id::NodeName;

/// How bad the network is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Quality {
    /// Shortest delay, microseconds.
    pub min_delay_us: u64,
    /// Longest delay, microseconds.
    pub max_delay_us: u64,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message arrives twice.
    pub repeat: f64,
}

impl Default for Quality {
    fn default() -> Self {
        Self { min_delay_us: 100, max_delay_us: 2_000, loss: 0.0, repeat: 0.0 }
    }
}

/// What the network did: a fault test first asserts that its fault fired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages handed over.
    pub sent: u64,
    /// Messages lost by chance.
    pub lost: u64,
    /// Messages delivered twice.
    pub repeated: u64,
    /// Messages that met a cut.
    pub cut: u64,
}

/// The network of a world.
#[derive(Debug)]
pub struct Network {
    quality: Quality,
    cut: BTreeSet<(NodeName, NodeName)>,
    /// What it did so far.
    pub counts: Counts,
}

impl Network {
    /// A network of this quality, whole.
    #[must_use]
    pub fn new(quality: Quality) -> Self {
        Self { quality, cut: BTreeSet::new(), counts: Counts::default() }
    }

    /// Messages from `a` to `b` meet a cut (one way) until it is mended.
    pub fn cut(&mut self, a: &NodeName, b: &NodeName) {
        self.cut.insert((a.clone(), b.clone()));
    }

    /// Mends every cut.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// Whether bytes pass between two nodes both ways.
    #[must_use]
    pub fn joins(&self, a: &NodeName, b: &NodeName) -> bool {
        let cut = |from: &NodeName, to: &NodeName| self.cut.contains(&(from.clone(), to.clone()));
        !cut(a, b) && !cut(b, a)
    }

    /// When the copies of one message arrive: none, one or two.
    pub fn carry(&mut self, from: &NodeName, to: &NodeName, rng: &mut ChaCha8Rng) -> Vec<Duration> {
        self.counts.sent += 1;
        if self.cut.contains(&(from.clone(), to.clone())) {
            self.counts.cut += 1;
            return Vec::new();
        }
        if rng.random_bool(self.quality.loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let copies = if rng.random_bool(self.quality.repeat) { 2 } else { 1 };
        self.counts.repeated += copies - 1;
        let Quality { min_delay_us, max_delay_us, .. } = self.quality;
        let mut delay = || Duration::from_micros(rng.random_range(min_delay_us..=max_delay_us));
        (0..copies).map(|_| delay()).collect()
    }
}
