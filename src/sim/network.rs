//! The network: each message is delayed by its own amount (so that they overtake each other), lost or
//! repeated with a stated probability, and cut where a node is cut off.

use std::collections::BTreeMap;
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
    /// Probability that a message arrives once more, [`LATE`] after it was sent.
    pub late: f64,
}

/// How late a message comes that nobody expects any more, seconds.
const LATE: (u64, u64) = (5, 90);

impl Default for Quality {
    fn default() -> Self {
        Self { min_delay_us: 100, max_delay_us: 2_000, loss: 0.0, repeat: 0.0, late: 0.0 }
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
    /// Messages that came once more, much later.
    pub late: u64,
}

/// The network of a world.
#[derive(Debug)]
pub struct Network {
    quality: Quality,
    /// What makes it worse for now, by a number: for all, or for what a node sends and gets.
    worse: BTreeMap<u64, (Option<NodeName>, Quality)>,
    /// How many cuts there are one way between two nodes.
    cut: BTreeMap<(NodeName, NodeName), u32>,
    /// What it did so far.
    pub counts: Counts,
}

impl Network {
    /// A network of this quality, whole.
    #[must_use]
    pub fn new(quality: Quality) -> Self {
        let (worse, cut) = (BTreeMap::new(), BTreeMap::new());
        Self { quality, worse, cut, counts: Counts::default() }
    }

    /// Messages from `a` to `b` meet a cut (one way) until it is mended.
    pub fn cut(&mut self, a: &NodeName, b: &NodeName) {
        *self.cut.entry((a.clone(), b.clone())).or_default() += 1;
    }

    /// Takes back one cut.
    pub fn join(&mut self, a: &NodeName, b: &NodeName) {
        let way = (a.clone(), b.clone());
        if let Some(cuts) = self.cut.get_mut(&way) {
            *cuts -= 1;
            if *cuts == 0 {
                self.cut.remove(&way);
            }
        }
    }

    /// From here on it is worse, for all or for one node, until that is over.
    pub fn worsen(&mut self, number: u64, of: Option<NodeName>, by: Quality) {
        self.worse.insert(number, (of, by));
    }

    /// What made it worse is over.
    pub fn better(&mut self, number: u64) {
        self.worse.remove(&number);
    }

    /// How it is now between two nodes.
    fn now(&self, from: &NodeName, to: &NodeName) -> Quality {
        let here = self
            .worse
            .values()
            .filter(|(of, _)| of.as_ref().is_none_or(|node| node == from || node == to));
        here.fold(self.quality, |all, (_, more)| Quality {
            min_delay_us: all.min_delay_us.max(more.min_delay_us),
            max_delay_us: all.max_delay_us.max(more.max_delay_us),
            loss: all.loss.max(more.loss),
            repeat: all.repeat.max(more.repeat),
            late: all.late.max(more.late),
        })
    }

    /// Mends every cut.
    pub fn mend(&mut self) {
        self.cut.clear();
    }

    /// Whether bytes pass between two nodes both ways.
    #[must_use]
    pub fn joins(&self, a: &NodeName, b: &NodeName) -> bool {
        let cut =
            |from: &NodeName, to: &NodeName| self.cut.contains_key(&(from.clone(), to.clone()));
        self.cut.is_empty() || !cut(a, b) && !cut(b, a)
    }

    /// When the copies of one message arrive: none, one or two.
    pub fn carry(&mut self, from: &NodeName, to: &NodeName, rng: &mut ChaCha8Rng) -> Vec<Duration> {
        self.counts.sent += 1;
        if !self.cut.is_empty() && self.cut.contains_key(&(from.clone(), to.clone())) {
            self.counts.cut += 1;
            return Vec::new();
        }
        let Quality { min_delay_us, max_delay_us, loss, repeat, late } = self.now(from, to);
        if rng.random_bool(loss) {
            self.counts.lost += 1;
            return Vec::new();
        }
        let copies = if rng.random_bool(repeat) { 2 } else { 1 };
        self.counts.repeated += copies - 1;
        let mut delay = || Duration::from_micros(rng.random_range(min_delay_us..=max_delay_us));
        let mut all: Vec<Duration> = (0..copies).map(|_| delay()).collect();
        if late > 0.0 && rng.random_bool(late) {
            self.counts.late += 1;
            all.push(Duration::from_millis(rng.random_range(LATE.0 * 1000..LATE.1 * 1000)));
        }
        all
    }
}
