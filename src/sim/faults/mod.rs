//! Faults: what may go wrong, a plan of when it does, and the world that it is done to.
//!
//! ```text
//!   seed ──plan.rs──> steps (time, what, how long) ──inflict.rs──> World, and after a while it is over
//! ```
//!
//! A plan is a list: each step draws what it needs from a number of its own, so that the others stay what they are when one is
//! taken out of it.

mod inflict;
pub mod plan;

use std::fmt;
use std::str::FromStr;

pub(super) use inflict::AGREE_WITHIN;
pub use inflict::Over;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// An agent ends, and starts again from its disk.
    Crash,
    /// An agent is told to end, as in an upgrade, and comes back sooner or later.
    Leave,
    /// A node loses its power; its disk stays.
    Power,
    /// A node comes back empty: neither its agent's records nor its VMs' disks are left.
    LostDisk,
    /// An agent's records are lost while its guests run on: it starts anew, as if it had never been there.
    LostRecords,
    /// An agent ends in the middle of a write: all of it is on disk, or nothing, and nothing that follows from it was said.
    Torn,
    /// An agent stands still, for up to two hours, and goes on as if nothing had been.
    Stall,
    /// A whole machine stands still; its watchdog may reset it meanwhile.
    Freeze,
    /// A guard ends, and is back soon.
    Guard,
    /// A guard stands still; the watchdog resets its node if that lasts.
    GuardStall,
    /// A node is cut off.
    Cut,
    /// A node is not heard, or does not hear.
    OneWay,
    /// Some nodes do not reach some others, both ways or one way.
    Partial,
    /// Messages are lost: all nodes', or one node's.
    Loss,
    /// Messages come twice.
    Repeat,
    /// Messages overtake each other by up to a second.
    Reorder,
    /// Messages take seconds: all nodes', or one node's.
    Delay,
    /// Messages come once more when nobody expects them, also those of agents that have ended since.
    Late,
    /// A node's clock runs at another rate. (And each begins anew at a boot.)
    Clock,
    /// A disk takes its time.
    SlowDisk,
    /// A disk is full: the agent waits for room, and says nothing.
    FullDisk,
    /// A hypervisor stands still: what it is told is done when it goes on.
    Hypervisor,
    /// The API server does not answer.
    ApiAway,
    /// Its watches show what was.
    ApiStale,
    /// It does not answer some agents.
    ApiSplit,
    /// A guest crashes.
    Guest,
    /// Somebody undefines a domain.
    Domain,
    /// Migrations fail, and their last answers are lost.
    Migration,
    /// A node's `PhysicalNode` is deleted while its agent lives, and is made anew: who lists them meanwhile shuts the node out.
    Page,
}

impl FaultKind {
    /// All of them.
    pub const ALL: [Self; 29] = [
        Self::Crash,
        Self::Leave,
        Self::Power,
        Self::LostDisk,
        Self::LostRecords,
        Self::Torn,
        Self::Stall,
        Self::Freeze,
        Self::Guard,
        Self::GuardStall,
        Self::Cut,
        Self::OneWay,
        Self::Partial,
        Self::Loss,
        Self::Repeat,
        Self::Reorder,
        Self::Delay,
        Self::Late,
        Self::Clock,
        Self::SlowDisk,
        Self::FullDisk,
        Self::Hypervisor,
        Self::ApiAway,
        Self::ApiStale,
        Self::ApiSplit,
        Self::Guest,
        Self::Domain,
        Self::Migration,
        Self::Page,
    ];

    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Crash => "crash",
            Self::Leave => "leave",
            Self::Power => "power",
            Self::LostDisk => "lost-disk",
            Self::LostRecords => "lost-records",
            Self::Torn => "torn",
            Self::Stall => "stall",
            Self::Freeze => "freeze",
            Self::Guard => "guard",
            Self::GuardStall => "guard-stall",
            Self::Cut => "cut",
            Self::OneWay => "one-way",
            Self::Partial => "partial",
            Self::Loss => "loss",
            Self::Repeat => "repeat",
            Self::Reorder => "reorder",
            Self::Delay => "delay",
            Self::Late => "late",
            Self::Clock => "clock",
            Self::SlowDisk => "slow-disk",
            Self::FullDisk => "full-disk",
            Self::Hypervisor => "hypervisor",
            Self::ApiAway => "api-away",
            Self::ApiStale => "api-stale",
            Self::ApiSplit => "api-split",
            Self::Guest => "guest",
            Self::Domain => "domain",
            Self::Migration => "migration",
            Self::Page => "page",
        }
    }

    /// It is about a node; others are about the network or the API server.
    #[must_use]
    pub fn is_of_a_node(self) -> bool {
        !matches!(
            self,
            Self::Partial
                | Self::Loss
                | Self::Repeat
                | Self::Reorder
                | Self::Delay
                | Self::Late
                | Self::ApiAway
                | Self::ApiStale
                | Self::Guest
                | Self::Domain
                | Self::Migration
        )
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|kind| kind.word() == text);
        let words = || Self::ALL.map(Self::word).join(", ");
        found.ok_or_else(|| format!("'{text}' is neither 'all' nor one of {}", words()))
    }
}
