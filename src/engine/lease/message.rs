//! What holders, guardians and those who want to know say to each other.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Absence, Times};
use crate::engine::replica::{DiskId, Replica};
use crate::engine::time::Instant;

/// One message about one lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseMessage {
    /// The guardian's disk: a guardian that has another one now has promised nothing.
    pub guardian: DiskId,
    /// The holder.
    pub holder: Replica,
    /// Which of its epochs.
    pub epoch: u64,
    /// What.
    pub said: Said,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Said {
    /// Holder to guardian: I am here.
    Renew {
        /// Which life of the holder's agent says so; comes back in the acknowledgement.
        life: u64,
        /// When this left, by the holder's clock, which begins anew when it boots; comes back, too.
        sent: Instant,
        /// The times of this lease.
        times: Times,
        /// Epochs up to this one are over: the holder has given them up.
        released: u64,
        /// What it says of its absence.
        absence: Absence,
    },
    /// Guardian to holder: I heard you.
    Renewed {
        /// From the renewal.
        life: u64,
        /// From the renewal.
        sent: Instant,
    },
    /// Guardian to holder: I have promised never to acknowledge this epoch again.
    Dead,
    /// To a guardian: is this lease over?
    Fence,
    /// Guardian: I heard the holder this long ago.
    Alive(Duration),
    /// Guardian: the holder has said that its agent will be away; it may be over in so long at the earliest.
    Away(Duration),
    /// Guardian: I have promised; it is over in so long.
    Fencing(Duration),
    /// Guardian: it is over.
    Fenced,
}
