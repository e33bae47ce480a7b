//! The guard: a small process that outlives the agent, holds the time that this node's VMs may run, and ends them when it is
//! over.
//!
//! ```text
//!   agent                         guard                                 the node
//!   client.rs -- allow ------> server.rs -- kept.rs: the allowance, in a file that outlives the guard
//!             <- armed, lapsed --  |     -- guests.rs ---- SIGKILL by pidfd ----> QEMU processes of ours
//!                wire.rs           +------- watchdog.rs -- feeds, or does not --> /dev/watchdog
//! ```
//!
//! Why a process of its own: an agent that hangs, is upgraded or was killed cannot end its VMs, and its peers start them
//! elsewhere once they can count on the guard having done so. The guard does one thing, allocates little, needs neither network,
//! API server nor libvirtd, and is updated only when somebody deletes its pod.
//!
//! **A guard that was never told anything ends nothing.** When it is installed on a node whose VMs an older version runs, nobody
//! takes that node over yet, so nothing is wrong with those VMs; the agent says when that changes. It is also safe: a node is
//! taken over only if it had a lease, an agent counts on a lease only when its guard is armed, and an armed guard remembers so
//! over its own restarts (`kept.rs`), until the machine boots anew, which ends every VM anyway.
//!
//! **When the watchdog is fed.** It must have reset a machine that hangs before its peers start its VMs: see `watchdog.rs`.

mod agent_line;
pub mod client;
mod guests;
mod kept;
pub mod server;
mod shield;
pub mod watchdog;
pub mod wire;

use std::io;
use std::path::PathBuf;

/// Why a guard cannot begin or go on. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// A file, a socket or a device.
    #[error("{what} {path}: {source}", path = path.display())]
    File {
        /// What was tried.
        what: &'static str,
        /// With which.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// What the guard was told last, in this very boot, cannot be read: it would have to guess.
    #[error(
        "{path} is damaged ({reason}), so nobody knows until when VMs may run here. Power the machine off and on, or end this \
         node's VMs and remove the file",
        path = path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How.
        reason: String,
    },
    /// The system refuses something that no guard can do without.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The system's word.
        source: io::Error,
    },
}

impl GuardError {
    /// About a file.
    fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }

    /// About the system.
    fn system<E: Into<io::Error>>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { what, source: source.into() }
    }
}
