//! When a VM's next command is given. A command that failed, a guest that ended and one that paused again are each answered
//! later the more often it was so in a row.

use std::time::Duration;

use crate::engine::host::FailureKind;
use crate::engine::spec::BackOff;
use crate::engine::time::Instant;

/// First pause after a command that failed; doubles each time.
const FIRST: Duration = Duration::from_millis(500);
/// Longest pause after commands that failed.
const LONGEST: Duration = Duration::from_secs(60);
/// Pause after a command that the hypervisor was not there for. It announces its return; this is only the safety net.
const ABSENT: Duration = Duration::from_secs(2);

/// A guest that pauses again so soon after it was continued (as on a disk that is full) will do so once more: it is continued
/// later each time.
const PAUSES_AGAIN: Duration = Duration::from_secs(60);
/// Longest wait until it is continued: what a guest waits for beyond that is its disk.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// The pace of one VM's commands.
#[derive(Clone, Debug)]
pub(super) struct Pace {
    /// No command is given before; zero if one may be at any time.
    not_before: Instant,
    /// Commands that failed and guests that ended, in a row.
    failures: u32,
    /// When the guest was last seen to have paused, and how many times in a row soon after it had been continued.
    paused: Option<(Instant, u32)>,
}

impl Pace {
    pub fn new() -> Self {
        Self { not_before: Instant::ZERO, failures: 0, paused: None }
    }

    /// A command may be given.
    pub fn is_due(&self, now: Instant) -> bool {
        self.not_before <= now
    }

    /// When a command may be given, if that was put off.
    pub fn due_at(&self) -> Option<Instant> {
        (self.not_before > Instant::ZERO).then_some(self.not_before)
    }

    /// There is nothing more to wait for.
    pub fn at_once(&mut self) {
        self.not_before = Instant::ZERO;
    }

    /// It went well: the next failure is the first again.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// A command failed. Returns how long it is until the next.
    pub fn failed(&mut self, kind: FailureKind, now: Instant) -> Duration {
        let pause = doubled(FIRST, self.failures).min(LONGEST);
        self.failures += 1;
        let pause = if kind == FailureKind::Unavailable { ABSENT } else { pause };
        self.not_before = now + pause;
        pause
    }

    /// The guest ended. Returns how long it is until it is started again, and how many
    /// times in a row it has ended.
    pub fn ended(&mut self, back_off: &BackOff, now: Instant) -> (Duration, u32) {
        let pause = back_off.pause(self.failures);
        self.failures += 1;
        self.not_before = now + pause;
        (pause, self.failures)
    }

    /// The guest paused, and is to be continued: at once the first time.
    pub fn paused(&mut self, now: Instant) {
        let again = match self.paused {
            Some((last, again)) if now.since(last) < PAUSES_AGAIN => again + 1,
            _ => 0,
        };
        self.paused = Some((now, again));
        if again > 0 {
            self.not_before = now + doubled(FIRST, again - 1).min(LONGEST_PAUSE);
        }
    }
}

fn doubled(first: Duration, times: u32) -> Duration {
    first * 2_u32.saturating_pow(times.min(16))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Instant = Instant::ZERO;

    fn waits(pace: &Pace) -> Duration {
        pace.due_at().map_or(Duration::ZERO, |due| due.since(NOW))
    }

    #[test]
    fn commands_that_fail_are_tried_again_later_each_time_up_to_a_minute() {
        let mut pace = Pace::new();
        let pauses: Vec<_> = (0..9).map(|_| pace.failed(FailureKind::Refused, NOW)).collect();
        let millis: Vec<_> = pauses.iter().map(Duration::as_millis).collect();
        assert_eq!(millis, [500, 1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000]);
        assert_eq!(waits(&pace), LONGEST);
        pace.succeeded();
        assert_eq!(pace.failed(FailureKind::Refused, NOW), FIRST);
        assert_eq!(pace.failed(FailureKind::Unavailable, NOW), ABSENT);
        pace.at_once();
        assert!(pace.is_due(NOW) && pace.due_at().is_none());
    }

    #[test]
    fn a_guest_that_pauses_is_continued_at_once_then_later_up_to_ten_seconds() {
        let mut pace = Pace::new();
        let mut now = Instant::ZERO + Duration::from_secs(1);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pace.at_once();
            pace.paused(now);
            pauses.push(pace.due_at().map_or(0, |due| due.since(now).as_millis()));
            now = now + Duration::from_secs(20);
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 4000, 8000, 10_000, 10_000]);
        pace.at_once();
        pace.paused(now + PAUSES_AGAIN);
        assert!(pace.is_due(now), "one that has run for a while is continued at once");
    }
}
