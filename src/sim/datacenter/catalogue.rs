//! Schedulers by name.

use std::time::Duration;

use super::run::{Ended, Setup, run};
use super::schedulers::Nobody;
use super::schedulers::discovery::Discovery;
use super::schedulers::dvms::{Dvms, MINIMUM, Next, Rules};
use super::schedulers::entropy::Entropy;
use super::schedulers::nearby::Nearby;
use super::schedulers::snooze::Snooze;
use crate::engine::lrt::relief::THRESHOLD_S;

/// A scheduler's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// Nobody acts.
    None,
    /// One central solver.
    Entropy,
    /// One solver per 32 nodes.
    Snooze,
    /// Partitions that grow by any node.
    Dvms,
    /// Partitions that grow by the neighbour on a ring.
    DvmsRing,
    /// Partitions that grow by the nearest node.
    DvmsLbo,
    /// Partitions of two nodes at the least, not of four.
    DvmsTwo,
    /// Ours.
    Discovery,
}

impl Name {
    /// All of them, in the order of their tables.
    pub const ALL: [Self; 8] = [
        Self::None,
        Self::Entropy,
        Self::Snooze,
        Self::Dvms,
        Self::DvmsRing,
        Self::DvmsLbo,
        Self::DvmsTwo,
        Self::Discovery,
    ];

    /// As it is written.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Entropy => "entropy",
            Self::Snooze => "snooze",
            Self::Dvms => "dvms",
            Self::DvmsRing => "dvms-ring",
            Self::DvmsLbo => "dvms-lbo",
            Self::DvmsTwo => "dvms-two",
            Self::Discovery => "discovery",
        }
    }
}

/// What can be set for a cluster. (Of these schedulers, ours alone has something to set.)
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Knob {
    /// Seconds of overload that a migration must save.
    pub threshold_s: f64,
    /// Between two looks of a node at its VMs' loads; none, and it is told of changes at once.
    pub look_every: Duration,
}

impl Default for Knob {
    fn default() -> Self {
        Self { threshold_s: THRESHOLD_S, look_every: Duration::ZERO }
    }
}

/// Runs the scheduler of this name.
#[must_use]
pub fn simulate(name: Name, knob: Knob, setup: Setup<'_>) -> Ended {
    let dvms = |next, minimum| Dvms::new(Rules { next, minimum });
    match name {
        Name::None => run(setup, Nobody),
        Name::Entropy => run(setup, Entropy::default()),
        Name::Snooze => run(setup, Snooze::default()),
        Name::Dvms => run(setup, dvms(Next::Random, MINIMUM)),
        Name::DvmsRing => run(setup, dvms(Next::Ring, MINIMUM)),
        Name::DvmsLbo => run(setup, dvms(Next::Nearest, MINIMUM)),
        Name::DvmsTwo => run(setup, dvms(Next::Random, 2)),
        Name::Discovery => {
            run(setup, Nearby::new(Discovery::new(knob.threshold_s), knob.look_every))
        }
    }
}
