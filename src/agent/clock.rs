//! The agent's one clock: CLOCK_BOOTTIME, which no administrator can step and which goes on while the
//! machine sleeps. A promise that was made before a suspend is older after it.

use nix::time::{ClockId, clock_gettime};

use crate::engine::time::Instant;

/// Now, as the engine counts.
///
/// # Panics
/// Never on Linux 2.6.39 and later, which all have this clock.
#[must_use]
pub fn now() -> Instant {
    let time = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .expect("the kernel has had CLOCK_BOOTTIME since 2.6.39, and the pointer is ours");
    let (seconds, nanoseconds) = (time.tv_sec(), time.tv_nsec());
    let micros = seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1000);
    Instant(u64::try_from(micros).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_counts_microseconds_since_boot() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("Linux has it");
        let seconds = uptime.split(' ').next().and_then(|text| text.parse::<f64>().ok());
        let now = now().0 as f64 / 1e6;
        // A container may be shown another uptime than the kernel's; never a later boot than its own.
        assert!(
            now + 1.0 >= seconds.expect("a number"),
            "{now} s since boot, and up {seconds:?} s"
        );
        assert!(super::now() >= super::now() - std::time::Duration::from_secs(1));
    }
}
