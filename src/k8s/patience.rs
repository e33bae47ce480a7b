//! How long what passes is held back, so that what follows on its heels is written in its place.

use std::time::Duration;

/// For a few environments at once. Small guests start in less, and most environments are created with one
/// write of their status and one Event; people look at longer starts more than once anyway.
const FEW: Duration = Duration::from_secs(5);
/// So many environments in a passing state are a few.
const FEW_ARE: usize = 8;
/// Whatever is going on, something is told of it within this time.
const MOST: Duration = Duration::from_secs(60);
/// How long what is settled waits for more that belongs to it.
pub(super) const COALESCE: Duration = Duration::from_millis(200);

/// How long a state that will pass is held while so many environments are in one: longer in a burst, where
/// each start takes longer too and the API server has most to do.
pub(super) fn patience(passing: usize) -> Duration {
    (FEW.mul_f64(passing.max(FEW_ARE) as f64 / FEW_ARE as f64)).min(MOST)
}

/// When something held is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due<I> {
    /// Then.
    At(I),
    /// When patience has run out since then.
    Passing(I),
}

impl<I: Copy + Ord + std::ops::Add<Duration, Output = I>> Due<I> {
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
    fn patience_grows_with_a_burst_and_has_an_end() {
        assert_eq!(patience(0), FEW);
        assert_eq!(patience(FEW_ARE), FEW);
        assert_eq!(patience(4 * FEW_ARE), 4 * FEW);
        assert_eq!(patience(usize::MAX), MOST);
    }
}
