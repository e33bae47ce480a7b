//! How long what passes is held back, so that what follows on its heels is written in its place.

use std::collections::VecDeque;
use std::ops::Add;
use std::time::Duration;

/// When a few environments have begun to change of late. Small guests start in less, and most environments
/// are created with one write of their status and one Event; people look at longer starts more than once
/// anyway.
const FEW: Duration = Duration::from_secs(5);
/// So many are a few.
const FEW_ARE: usize = 4;
/// Whatever is going on, something is told of it within this time. It is also how far *of late* reaches back:
/// a burst is over when nothing of it can be held any more, and not when most of it has settled.
const MOST: Duration = Duration::from_secs(60);
/// From this many on, patience has its longest; more need not be remembered.
const MANY_ARE: usize = FEW_ARE * (MOST.as_secs() / FEW.as_secs()) as usize;
/// How long what is settled waits for more that belongs to it.
pub(super) const COALESCE: Duration = Duration::from_millis(200);

/// How long a state that will pass is held: longer in a burst, where each start takes longer too and the API
/// server has most to do.
#[derive(Debug)]
pub(super) struct Patience<I> {
    /// When the last environments came into a passing state, oldest first.
    began: VecDeque<I>,
}

impl<I> Default for Patience<I> {
    fn default() -> Self {
        Self { began: VecDeque::new() }
    }
}

impl<I: Copy + Ord + Add<Duration, Output = I>> Patience<I> {
    /// An environment has come into a state that will pass.
    pub(super) fn begins(&mut self, now: I) {
        self.began.push_back(now);
        if self.began.len() > MANY_ARE {
            self.began.pop_front();
        }
    }

    /// How long it is now.
    pub(super) fn length(&self, now: I) -> Duration {
        let of_late = self.began.iter().filter(|began| **began + MOST > now).count();
        FEW.mul_f64(of_late.max(FEW_ARE) as f64 / FEW_ARE as f64).min(MOST)
    }
}

/// When something held is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due<I> {
    /// Then.
    At(I),
    /// When patience has run out since then.
    Passing(I),
}

impl<I: Copy + Ord + Add<Duration, Output = I>> Due<I> {
    /// The time, given today's patience.
    pub(super) fn at(self, patience: Duration) -> I {
        match self {
            Self::At(at) => at,
            Self::Passing(since) => since + patience,
        }
    }

    /// Something else about the same thing has come; it is not put off by that.
    pub(super) fn joined_by(self, other: Self) -> Self {
        match (self, other) {
            (Self::At(one), Self::At(other)) => Self::At(one.min(other)),
            (Self::Passing(one), Self::Passing(other)) => Self::Passing(one.min(other)),
            (Self::At(at), Self::Passing(_)) | (Self::Passing(_), Self::At(at)) => Self::At(at),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_a_burst_has_an_end_and_lasts_until_the_burst_is_over() {
        let mut patience = Patience::default();
        assert_eq!(patience.length(Duration::ZERO), FEW);
        for _ in 0..4 * FEW_ARE {
            patience.begins(Duration::ZERO);
        }
        assert_eq!(patience.length(MOST - FEW), 4 * FEW);
        assert_eq!(patience.length(MOST), FEW);
        for _ in 0..1000 {
            patience.begins(MOST);
        }
        assert_eq!(patience.length(MOST), MOST);
        assert_eq!(patience.began.len(), MANY_ARE);
    }
}
