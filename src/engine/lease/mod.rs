//! Leases: a node's VMs may run for as long as a majority of its guardians keep saying that they hear it.
//!
//! ```text
//!   this node's own leases  ──Renew, each second──> its guardians      tenant.rs
//!        │ valid until: when the renewal left that a majority has answered, plus F
//!        └──> the guard ends the VMs when that has passed
//!   what this node guards for others: acknowledges, or promises never to do so again      guardian.rs
//!   a handler asks the guardians of a silent node; a majority that has fenced is the proof that its VMs have ended
//! ```
//!
//! A guardian that has not heard a node for F may be asked to fence it: it promises, on disk, never to acknowledge that epoch
//! again, and says "fenced" once F + W + ε have passed since it last did. By then the node has ended its VMs (F after the
//! renewal left), or its watchdog has reset it (W). Suspicion is a hint to start asking; it proves nothing.
//! Leases in the manner of Gray and Cheriton (1989), with the wait on the side that fences.

pub mod fence;
pub mod guardian;
pub mod message;
pub mod tenant;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::replica::Replica;

/// The times that a lease is made of. They are part of each lease: nodes may have different ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Times {
    /// F: how long a lease lasts after a renewal.
    pub lease: Duration,
    /// W: within this time a hardware watchdog resets a node that has stalled.
    pub watchdog: Duration,
    /// ε: how much clocks may differ over F + W, and a guard be late.
    pub margin: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(5),
            watchdog: Duration::from_secs(5),
            margin: Duration::from_secs(1),
        }
    }
}

impl Times {
    /// How long after its last acknowledgement a guardian that has promised says "fenced".
    #[must_use]
    pub fn until_fenced(&self) -> Duration {
        self.lease + self.watchdog + self.margin
    }

    /// Whether these times can keep what leases promise.
    ///
    /// # Errors
    /// Names the one that is wrong, and the bound.
    pub fn check(&self) -> Result<(), String> {
        let (least, most) = (Duration::from_secs(2), Duration::from_secs(300));
        if self.lease < least || self.lease > most {
            return Err(format!(
                "lease: {:?} is not between {least:?} and {most:?}: renewals leave each second",
                self.lease
            ));
        }
        if self.watchdog > most {
            return Err(format!("watchdog: {:?} is more than {most:?}", self.watchdog));
        }
        let drift = (self.lease + self.watchdog) / 1000 + Duration::from_millis(200);
        if self.margin < drift || self.margin > most {
            return Err(format!(
                "margin: {:?} is not between {drift:?} (a thousandth of lease and watchdog, and 200 ms for the guard to \
                 act) and {most:?}",
                self.margin
            ));
        }
        Ok(())
    }
}

/// An absence that the agent of a holder announces before it ends in order, as at an upgrade: its leases last for longer, so that
/// its VMs run on without it. It is over when the next life of the agent says so, or by time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absence {
    /// A higher one replaces a lower one; 0 says nothing. Odd where an absence begins, even where it is over.
    pub number: u64,
    /// How long the lease lasts after this renewal, in place of F; zero: F it is.
    pub lasts: Duration,
}

impl Absence {
    /// Said by a life of the agent that ends.
    #[must_use]
    pub fn begins(life: u64, lasts: Duration) -> Self {
        Self { number: 2 * life + 1, lasts }
    }

    /// Said by a life of the agent whose guard has a deadline of this life.
    #[must_use]
    pub fn is_over(life: u64) -> Self {
        Self { number: 2 * life, lasts: Duration::ZERO }
    }
}

/// The longest absence: a node that is lost meanwhile is not taken over before it ends.
pub const LONGEST_ABSENCE: Duration = Duration::from_secs(3600);

/// One epoch of a node's lease. Its guardians never change; other guardians are another epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Whose: the node, with the disk that remembers its epochs.
    pub holder: Replica,
    /// Which.
    pub epoch: u64,
    /// Who guards it. Nobody: the lease never ends, and the node is never taken over.
    pub guardians: Vec<Replica>,
}

impl Lease {
    /// Whether somebody can prove that it has ended.
    #[must_use]
    pub fn is_guarded(&self) -> bool {
        !self.guardians.is_empty()
    }
}

/// Most guardians of a lease.
pub const MAX_GUARDIANS: usize = 5;
