//! What the engine and this node's guard say to each other. The guard is a process of its own that outlives the agent: when the
//! time that it was last told has passed, it ends every VM of ours on this node, whatever has become of the agent.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bugs::{Bug, has};
use super::replica::DiskId;
use super::time::Instant;

/// How long this node's VMs may run. Replaces what was said before; of two deadlines of one lease, given by one life of the agent,
/// the later one counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Allowance {
    /// Who says so.
    pub by: Teller,
    /// The epoch of the node's lease.
    pub lease: u64,
    /// Until when; `None`: for as long as they like (a node that nobody takes over).
    pub until: Option<Instant>,
}

/// One life of a node's agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Teller {
    /// Its disk: what counts its lives.
    pub disk: DiskId,
    /// How many lives it has had.
    pub life: u64,
}

impl Allowance {
    /// What holds once `said` was said to a guard that held `held`. In one life of the agent a lease only ever grows, so an older
    /// word of it that arrives late takes nothing away. The next life may give less: what an earlier one asked for its
    /// absence ends with that. A word of an earlier life that arrives late is none.
    #[must_use]
    pub fn after(held: Option<&Self>, said: &Self) -> Self {
        if let Some(Self { until: Some(held), .. }) = held
            && has(Bug::GuardKeepsLatest)
        {
            let until = said.until.map(|until| until.max(*held));
            return Self { until, ..said.clone() };
        }
        match held {
            Some(held) if held.by.disk == said.by.disk && held.by.life > said.by.life => {
                held.clone()
            }
            Some(Self { by, lease, until: Some(held) })
                if (*by, *lease) == (said.by, said.lease) =>
            {
                let until = said.until.map(|until| until.max(*held));
                Self { by: *by, lease: *lease, until }
            }
            _ => said.clone(),
        }
    }

    /// Whether all that ran under it must have ended before `said` counts: the next lease does not revive what the one before it
    /// let run. An agent with another disk knows nothing of that, so that it is waited for even if its time is not over yet.
    #[must_use]
    pub fn must_end_before(&self, said: &Self, now: Instant) -> bool {
        let other_disk = self.by.disk != said.by.disk && self.until.is_some();
        other_disk || self.lease != said.lease && self.is_over(now)
    }

    /// Whether the time is over.
    #[must_use]
    pub fn is_over(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| until <= now)
    }
}

/// What the guard tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum GuardInput {
    /// It is there. What it was told before, by an earlier life of the agent, still counts.
    Connected {
        /// It feeds a hardware watchdog, which resets the machine when it has not been fed for this long.
        watchdog: Option<Duration>,
    },
    /// It does not answer any more.
    Gone,
    /// It has this allowance, and keeps to it.
    Armed(Allowance),
    /// The time was over: it has ended this many VMs, and ends whatever starts until it has a new allowance.
    Lapsed {
        /// When the last of them had ended.
        at: Instant,
        /// How many there were.
        ended: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_life(life: u64, lease: u64, until: impl Into<Option<u64>>) -> Allowance {
        let by = Teller { disk: DiskId(1), life };
        Allowance { by, lease, until: until.into().map(Instant) }
    }

    fn allowance(lease: u64, until: impl Into<Option<u64>>) -> Allowance {
        of_life(1, lease, until)
    }

    #[test]
    fn the_newest_word_counts_but_a_lease_never_shrinks() {
        let cases = [
            (None, allowance(1, 5), allowance(1, 5)),
            (Some(allowance(1, 5)), allowance(1, 9), allowance(1, 9)),
            (Some(allowance(1, 9)), allowance(1, 5), allowance(1, 9)),
            (Some(allowance(1, 9)), allowance(2, 5), allowance(2, 5)),
            (Some(allowance(1, 9)), allowance(1, None), allowance(1, None)),
            // A node that gets guardians: from here on it can be taken over.
            (Some(allowance(1, None)), allowance(1, 5), allowance(1, 5)),
            // The next life of the agent is back before its absence was over.
            (Some(of_life(1, 1, 90)), of_life(2, 1, 5), of_life(2, 1, 5)),
            (Some(of_life(2, 1, 5)), of_life(1, 1, 90), of_life(2, 1, 5)),
        ];
        for (held, said, holds) in cases {
            assert_eq!(Allowance::after(held.as_ref(), &said), holds, "{held:?}, then {said:?}");
        }
    }

    #[test]
    fn an_agent_with_another_disk_begins_to_count_anew() {
        let held = of_life(9, 4, 90);
        let said = Allowance { by: Teller { disk: DiskId(2), life: 1 }, ..of_life(1, 1, 5) };
        assert_eq!(Allowance::after(Some(&held), &said), said);
    }

    #[test]
    fn what_another_lease_or_another_disk_let_run_ends_first() {
        let of_disk = |disk, lease, until| {
            let by = Teller { disk: DiskId(disk), life: 1 };
            Allowance { by, ..allowance(lease, until) }
        };
        let said = of_disk(2, 1, Some(90));
        assert!(of_disk(1, 1, Some(90)).must_end_before(&said, Instant(5)), "it may run still");
        assert!(!of_disk(1, 1, None).must_end_before(&said, Instant(5)), "nobody took it over");
        assert!(!of_disk(2, 1, Some(9)).must_end_before(&said, Instant(5)), "the same");
        assert!(!of_disk(2, 0, Some(9)).must_end_before(&said, Instant(5)), "both last");
        assert!(of_disk(2, 0, Some(4)).must_end_before(&said, Instant(5)), "that one is over");
    }

    #[test]
    fn the_last_moment_is_over_and_without_a_deadline_none_is() {
        assert!(!allowance(1, 5).is_over(Instant(4)));
        assert!(allowance(1, 5).is_over(Instant(5)));
        assert!(!allowance(1, None).is_over(Instant(u64::MAX)));
    }
}
