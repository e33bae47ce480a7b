//! What a recording holds: JSON, one object a line, in the order in which the recorder learnt of it. Times are
//! nanoseconds of CLOCK_BOOTTIME, which all nodes of the lab share.

use serde::{Deserialize, Serialize};

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Line {
    /// Recording has begun.
    Recorder {
        /// When.
        at_ns: u64,
        /// How starts are learnt of.
        source: Source,
    },
    /// A QEMU process has started, or was there already.
    Start {
        /// When it was started.
        at_ns: u64,
        /// Its number in this recording; pids come again.
        process: u64,
        /// The domain's uuid.
        vm: String,
        /// The domain's name.
        name: String,
        /// As the host numbers it.
        pid: i32,
        /// The lab's node that it runs on; none for a QEMU of somebody else's.
        node: Option<String>,
        /// Whether it is to take a running guest over: then it is no instance before it runs.
        incoming: bool,
    },
    /// The guest's processors run for the first time. (Not before this, and at most a look later.)
    Runs {
        /// When they did not yet.
        at_ns: u64,
        /// Which process.
        process: u64,
    },
    /// The process has ended.
    End {
        /// When that was seen.
        at_ns: u64,
        /// Which process.
        process: u64,
    },
    /// Nothing has happened; the recorder lives. Once a second.
    Alive {
        /// When.
        at_ns: u64,
    },
    /// The kernel has told more than the recorder could take: processes may be missing.
    Lost {
        /// When.
        at_ns: u64,
    },
}

/// How the recorder learns of starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The kernel tells each.
    Connector,
    /// `/proc` is read again and again: a QEMU that lives for less than a look is missed.
    Scan,
}

impl Line {
    /// When.
    pub fn at_ns(&self) -> u64 {
        match self {
            Self::Recorder { at_ns, .. }
            | Self::Start { at_ns, .. }
            | Self::Runs { at_ns, .. }
            | Self::End { at_ns, .. }
            | Self::Alive { at_ns }
            | Self::Lost { at_ns } => *at_ns,
        }
    }
}
