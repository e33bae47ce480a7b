//! What two nodes say to each other about one VM's move, and what a node knows meanwhile.
//!
//! ```text
//!   source                                  target
//!     │ ──────────── Ask (the VM) ──────────> │   is it free, is there room?
//!     │ <────── Granted (its VMs now) ─────── │   reserved for this source: its one partition
//!     │   is it still worth it? if not, Release
//!     │ ══════════ migration ═══════════════> │
//!     │ ──────────── Moving ────────────────> │   now and then: the reservation lives on
//! ```
//!
//! A partition here is a source and a target. Neither takes part in another meanwhile; what is not confirmed
//! ends by time.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::habit::{Lore, Watched};
use super::outlook::Outline;
use crate::engine::time::Instant;

/// A target that has not answered by then is not waited for: many round trips, also between continents.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// A reservation that nothing is heard of for so long is over: two signs of life may be lost.
pub const HELD_FOR: Duration = Duration::from_secs(5);
/// Between two signs of life of a migration.
pub const SIGN_EVERY: Duration = Duration::from_millis(1_600);
/// A migration whose end is not heard of by then concerns the source no longer. A large VM may take minutes.
pub const MOVED_WITHIN: Duration = Duration::from_secs(600);

/// What a node says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Its VMs, as sums.
    pub outline: Outline,
    /// What it has seen of VMs' loads.
    pub lore: Lore,
    /// Memory free for others' VMs, MiB.
    pub free_mib: u32,
    /// It takes part in a move, and in no other until that is over.
    pub busy: bool,
}

/// What is said. `number` counts the asker's questions, so that late answers are known as such.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// To peers: so I am now.
    Tell(Summary),
    /// Would you take this VM?
    Ask {
        /// Which question.
        number: u64,
        /// Its memory, MiB.
        memory_mib: u32,
        /// What is known of it, and goes with it.
        watched: Watched,
    },
    /// Yes, and I am reserved for it; so I am now.
    Granted {
        /// Which question.
        number: u64,
        /// The target now.
        summary: Summary,
    },
    /// No; so I am now.
    Refused {
        /// Which question.
        number: u64,
        /// The target now.
        summary: Summary,
    },
    /// It is on its way.
    Moving {
        /// Which question.
        number: u64,
    },
    /// It will not come.
    Release {
        /// Which question.
        number: u64,
    },
}

impl Message {
    /// Whether all its numbers are such as a node can have come to. What is not is not listened to: one number that is
    /// none would spread to all that a node knows, and from there to its peers.
    #[must_use]
    pub fn is_sane(&self) -> bool {
        match self {
            Self::Tell(summary) | Self::Granted { summary, .. } | Self::Refused { summary, .. } => {
                summary.outline.is_sane() && summary.lore.is_sane()
            }
            Self::Ask { watched, .. } => watched.is_sane(),
            Self::Moving { .. } | Self::Release { .. } => true,
        }
    }

    /// Its size on the wire, bytes, at most: 64 for the frame and the envelope; a summary is 6 numbers of 8 bytes, 8 of 4
    /// and a few bytes more, what is known of a VM 5 of 8.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        64 + match self {
            Self::Tell(_) | Self::Granted { .. } | Self::Refused { .. } => 88,
            Self::Ask { .. } => 48,
            Self::Moving { .. } | Self::Release { .. } => 0,
        }
    }
}

/// The one move that a node takes part in.
#[derive(Clone, Debug)]
pub enum Part<N, V> {
    /// It has asked.
    Asking {
        /// Whom.
        target: N,
        /// For which of its VMs.
        vm: V,
        /// Which question.
        number: u64,
        /// When it gives up.
        until: Instant,
    },
    /// One of its VMs is on its way.
    Sending {
        /// Where to.
        target: N,
        /// Which.
        vm: V,
        /// Which question.
        number: u64,
        /// When it gives up.
        until: Instant,
        /// When the target is to hear again that it lives.
        sign_at: Instant,
    },
    /// It is reserved as a target.
    Held {
        /// For whom.
        source: N,
        /// The source's question.
        number: u64,
        /// What is known of the VM that comes.
        watched: Watched,
        /// When it ends if nothing is heard.
        until: Instant,
    },
}

impl<N, V> Part<N, V> {
    /// When something must be done about it.
    #[must_use]
    pub fn due(&self) -> Instant {
        match self {
            Self::Asking { until, .. } | Self::Held { until, .. } => *until,
            Self::Sending { until, sign_at, .. } => *(until.min(sign_at)),
        }
    }

    /// When it ends if nothing is heard.
    #[must_use]
    pub fn ends(&self) -> Instant {
        match self {
            Self::Asking { until, .. } | Self::Held { until, .. } | Self::Sending { until, .. } => {
                *until
            }
        }
    }
}
