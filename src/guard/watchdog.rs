//! The hardware watchdog: a device that resets the machine when it has not been fed for a while, also when its kernel hangs.
//!
//! Peers may start this node's VMs once F + W (lease and wait) have passed since it *sent* its last renewal; its deadline is that
//! moment + F. Feeding shifts the reset to now + time-out, so while the node has a deadline, the device is fed only as long as
//!
//! ```text
//!   now + time-out <= deadline + W
//! ```
//!
//! and after the deadline only once no VM of ours is left. A time-out below F + W can keep to that: the renewals, one a second,
//! keep the deadline far enough ahead. A slower one cannot; it is fed as well (somebody configured it), and told as none.
//!
//! The device's time-out is read from sysfs. Nothing sets it: that takes an `ioctl`, and drivers and people have settings for it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::GuardError;
use crate::engine::guard::Allowance;
use crate::engine::time::Instant;

/// Fed this often at least, and four times per time-out.
const FEED_EVERY: Duration = Duration::from_secs(1);
/// Said before the device is closed, it stops the device.
const MAGIC: &[u8] = b"V";
/// Do not wait: a device that takes nothing is no watchdog.
const NONBLOCK: i32 = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();

/// What is asked of it.
#[derive(Clone, Debug)]
pub struct WatchdogConfig {
    /// `/dev/watchdog`.
    pub device: PathBuf,
    /// Its time-out, where sysfs does not tell.
    pub timeout: Option<Duration>,
}

/// One that is open: from here on it must be fed.
#[derive(Debug)]
pub struct Watchdog {
    device: PathBuf,
    file: File,
    /// When it can protect.
    timeout: Option<Duration>,
    wait: Duration,
    every: Duration,
    next: Instant,
    failed: bool,
}

impl Watchdog {
    /// Opens it, and so starts it.
    pub fn open(
        config: WatchdogConfig,
        lease: Duration,
        wait: Duration,
    ) -> Result<Self, GuardError> {
        let WatchdogConfig { device, timeout } = config;
        let open = OpenOptions::new().write(true).custom_flags(NONBLOCK).open(&device);
        let file = open.map_err(GuardError::file("open the watchdog", &device))?;
        let known = timeout.or_else(|| of_sysfs(&device));
        let timeout = known.filter(|timeout| *timeout < lease + wait);
        let every = known.map_or(FEED_EVERY, |timeout| FEED_EVERY.min(timeout / 4));
        match (known, timeout) {
            (_, Some(timeout)) => {
                tracing::info!(device = %device.display(), ?timeout, "feeds a watchdog");
            }
            (Some(known), None) => tracing::warn!(
                device = %device.display(), timeout = ?known, must_be_below = ?(lease + wait),
                "the watchdog is too slow to protect: set a shorter time-out"
            ),
            (None, None) => tracing::warn!(
                device = %device.display(),
                "nobody knows the watchdog's time-out, so it counts as none: name it by --watchdog-timeout"
            ),
        }
        Ok(Self { device, file, timeout, wait, every, next: Instant::ZERO, failed: false })
    }

    /// How long the machine may hang, if that is short enough.
    pub fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// When to come again.
    pub fn next(&self) -> Instant {
        self.next
    }

    /// Feeds it if it is time and nothing speaks against it. `clean`: the time is over, and no VM of ours is left.
    pub fn attend(&mut self, now: Instant, held: Option<&Allowance>, clean: bool) {
        if now < self.next {
            return;
        }
        self.next = now + self.every;
        if may_feed(now, held, clean, self.timeout, self.wait) {
            self.write(b"\0");
        }
    }

    /// Stops it: no VM of ours runs.
    pub fn stop(mut self) {
        self.write(MAGIC);
        tracing::info!(device = %self.device.display(), "the watchdog is stopped: no VM of ours runs");
    }

    fn write(&mut self, bytes: &[u8]) {
        let result = self.file.write_all(bytes);
        if let (Err(error), false) = (&result, self.failed) {
            tracing::error!(device = %self.device.display(), %error, "the watchdog takes nothing");
        }
        self.failed = result.is_err();
    }
}

fn may_feed(
    now: Instant,
    held: Option<&Allowance>,
    clean: bool,
    timeout: Option<Duration>,
    wait: Duration,
) -> bool {
    match held.and_then(|held| held.until) {
        None => true,
        Some(until) if until <= now => clean,
        Some(until) => timeout.is_none_or(|timeout| now + timeout <= until + wait),
    }
}

/// What the driver says; without a number in its name, the device is the first one.
fn of_sysfs(device: &Path) -> Option<Duration> {
    let name = device.file_name()?.to_str()?;
    let name = if name == "watchdog" { "watchdog0" } else { name };
    let text =
        fs::read_to_string(Path::new("/sys/class/watchdog").join(name).join("timeout")).ok()?;
    text.trim().parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::guard::Teller;
    use crate::engine::replica::DiskId;

    const SECOND: u64 = 1_000_000;

    fn allowance(until: impl Into<Option<Instant>>) -> Allowance {
        let by = Teller { disk: DiskId(1), life: 1 };
        Allowance { by, lease: 1, until: until.into() }
    }

    #[test]
    fn a_machine_that_hangs_is_reset_before_its_peers_may_start_its_vms() {
        let (lease, wait) = (Duration::from_secs(5), Duration::from_secs(5));
        for timeout in (1..10).map(Duration::from_secs) {
            // The last renewal was sent at 0. Whenever the last feeding was, the reset comes by F + W.
            let held = allowance(Instant::ZERO + lease);
            let fed = (0..5 * SECOND)
                .step_by(10_000)
                .filter(|now| may_feed(Instant(*now), Some(&held), false, Some(timeout), wait));
            let last = fed.last().expect("it is fed after a renewal");
            assert!(Instant(last) + timeout <= Instant::ZERO + lease + wait, "{timeout:?}");
            // A renewal a second always comes in time.
            assert!(last >= SECOND, "{timeout:?}: last fed {last} µs after a renewal");
        }
    }

    #[test]
    fn it_starves_while_a_lapsed_vm_is_left_and_only_then() {
        let held = allowance(Instant(5));
        let (timeout, wait) = (Some(Duration::from_micros(3)), Duration::from_micros(5));
        assert!(!may_feed(Instant(5), Some(&held), false, timeout, wait));
        assert!(may_feed(Instant(5), Some(&held), true, timeout, wait));
        assert!(may_feed(Instant(4), None, false, timeout, wait));
        let free = allowance(None);
        assert!(may_feed(Instant(9), Some(&free), false, timeout, wait));
    }
}
