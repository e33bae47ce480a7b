//! Real time: how long runs take, and when to say how far they are. It never reaches what is simulated.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "people wait in real time")]

use std::time::Instant;

/// Between two words on progress, seconds; what is over before says nothing.
const PROGRESS_S: f64 = 5.0;

/// Runs since it was made.
pub struct Stopwatch {
    began: Instant,
    told: Instant,
}

impl Stopwatch {
    /// Starts.
    pub fn start() -> Self {
        let now = Instant::now();
        Self { began: now, told: now }
    }

    /// Seconds since the start.
    pub fn seconds(&self) -> f64 {
        self.began.elapsed().as_secs_f64()
    }

    /// Whether it is time again to say how far things are.
    pub fn should_tell(&mut self) -> bool {
        let due = self.told.elapsed().as_secs_f64() >= PROGRESS_S;
        if due {
            self.told = Instant::now();
        }
        due
    }
}
