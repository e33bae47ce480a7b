//! A node's clock: it begins at its boot, and runs a little fast or slow.

use std::time::Duration;

use crate::engine::time::Instant;

/// Most that a clock gains or loses, millionths: two of them stay within what leases allow for
/// ([`crate::engine::lease::Times::check`]).
pub const MOST_DRIFT_PPM: i64 = 500;

/// From the world's time to the node's and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// The world's time, and the node's, when it was last set going.
    since: (Instant, Instant),
    /// What it gains, millionths.
    ppm: i64,
}

impl Clock {
    /// The node boots.
    pub fn begin_anew(&mut self, now: Instant) {
        self.since = (now, Instant::ZERO);
    }

    /// It runs at another rate from now on.
    pub fn set_rate(&mut self, now: Instant, ppm: i64) {
        self.since = (now, self.local(now));
        self.ppm = ppm.clamp(-MOST_DRIFT_PPM, MOST_DRIFT_PPM);
    }

    fn rate(&self) -> u128 {
        (1_000_000 + self.ppm) as u128
    }

    /// What it shows.
    #[must_use]
    pub fn local(&self, now: Instant) -> Instant {
        let passed = now.since(self.since.0).as_micros() * self.rate() / 1_000_000;
        self.since.1 + Duration::from_micros(passed as u64)
    }

    /// When it shows this, or has for the first time.
    #[must_use]
    pub fn world(&self, local: Instant) -> Instant {
        let passed = (local.since(self.since.1).as_micros() * 1_000_000).div_ceil(self.rate());
        self.since.0 + Duration::from_micros(passed as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_never_early_and_there_and_back_is_where_it_was() {
        for ppm in [-500, -1, 0, 3, 500] {
            let mut clock = Clock::default();
            clock.begin_anew(Instant(7_000_000));
            clock.set_rate(Instant(9_000_000), ppm);
            for local in [2_000_000, 2_000_001, 5_123_457, 90_000_000_000] {
                let at = clock.world(Instant(local));
                assert!(clock.local(at) >= Instant(local), "{ppm} {local}");
                assert!(clock.local(Instant(at.0 - 2)) < Instant(local) || local == 2_000_000);
            }
        }
    }
}
