//! What the engine and this node's guard say to each other. The guard is a process of its own that outlives the agent: when the
//! time that it was last told has passed, it ends every VM of ours on this node, whatever has become of the agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::time::Instant;

/// How long this node's VMs may run. Replaces what was said before; of two deadlines of one lease the later one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// The epoch of the node's lease.
    pub lease: u64,
    /// Until when; `None`: for as long as they like (a node that nobody takes over).
    pub until: Option<Instant>,
}

/// What the guard tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardInput {
    /// It is there. What it was told before, by an earlier life of the agent, still counts.
    Connected {
        /// It feeds a hardware watchdog, which resets the machine when it has not been fed for this long.
        watchdog: Option<Duration>,
    },
    /// It does not answer any more.
    Gone,
    /// It has this allowance, and keeps to it.
    Armed(Allowance),
    /// The time was over: it has ended this many VMs, and ends whatever starts until it has a new allowance.
    Lapsed {
        /// When the last of them had ended.
        at: Instant,
        /// How many there were.
        ended: u32,
    },
}
