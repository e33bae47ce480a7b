//! What makes the guard able to act when the machine is short of everything.

#![allow(clippy::disallowed_methods, reason = "a lock is waited for")]

use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::mm::{MlockAllFlags, mlockall};
use rustix::process::setpriority_process;

use super::GuardError;

/// How often a guard looks whether the one before it has ended.
const RETRY: Duration = Duration::from_millis(50);
/// The kernel then ends everything else first.
const NEVER: &str = "-1000";
/// Before whatever else wants a processor.
const FIRST: i32 = -20;

/// Asks for all of it; what the system refuses is said and done without.
pub fn raise() {
    // What is touched stays: all of it is touched by the rehearsal at the start. Without ON_FAULT the libraries of
    // the whole program would be held in memory, most of which a guard never uses.
    let flags = MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT;
    if let Err(error) = mlockall(flags) {
        tracing::warn!(%error, "cannot keep the guard in memory: it may have to wait for a slow disk (CAP_IPC_LOCK)");
    }
    if let Err(error) = setpriority_process(None, FIRST) {
        tracing::warn!(%error, "cannot put the guard before others: it may have to wait for a processor (CAP_SYS_NICE)");
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", NEVER) {
        tracing::info!(%error, "cannot exempt the guard from being ended for want of memory (CAP_SYS_RESOURCE)");
    }
}

/// Waits until no other guard of this socket runs. Held until dropped.
pub fn only_one(path: &Path) -> Result<OwnedFd, GuardError> {
    let open = File::options().create(true).truncate(false).write(true).open(path);
    let lock = OwnedFd::from(open.map_err(GuardError::file("open", path))?);
    let mut said = false;
    while let Err(error) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        if error != rustix::io::Errno::WOULDBLOCK {
            return Err(GuardError::file("lock", path)(error.into()));
        }
        if !std::mem::replace(&mut said, true) {
            tracing::warn!(path = %path.display(), "another guard of this node runs: waiting for its end");
        }
        std::thread::sleep(RETRY);
    }
    Ok(lock)
}
