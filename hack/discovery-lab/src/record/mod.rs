//! Who runs when: a record of every QEMU process on this machine, and what follows from it.
//!
//! ```text
//!   kernel ── exec (proc connector) ──┐
//!   /proc/PID/cmdline: which VM       ├─> recorder ──> JSON lines ──> overlap: instances, overlaps, gaps
//!   pidfd: it has ended               │
//!   its processors' time: it runs ────┘
//! ```
//!
//! **What counts as an instance of a VM**: a QEMU process with the VM's uuid, from its `exec` until the kernel says that
//! the process, with all of its threads, has ended. Whether libvirt knows it, whether it is paused, stopped by a signal or
//! about to die makes no difference: it could run again. Only the target of a migration (`-incoming`) is no instance
//! while it waits, since its memory is not there yet: it becomes one when its guest's processors first use time. That
//! is seen from outside, in the kernel's accounts of their threads, every 20 ms, and dated back to the last look at which
//! they were quiet.
//! A target whose processors cannot be seen within 10 s counts from its start, to be on the safe side.

pub mod connector;
mod line;
pub mod overlap;
mod qemu;
mod recorder;

pub use line::{Line, Source};
pub use qemu::{Qemu, pids, started_ns};
pub use recorder::Recorder;

use rustix::time::{ClockId, clock_gettime};

/// Now, of the clock that all nodes share and that goes on while the machine sleeps.
pub fn boottime_ns() -> u64 {
    nanoseconds(ClockId::Boottime)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let now = clock_gettime(clock);
    // Since the machine's start: never negative.
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}
