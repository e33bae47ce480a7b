//! What is measured during a run: whole numbers, and series over time for the pictures.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::engine::time::Instant;

/// Step of the series, seconds: 60 points for the literature's half hour.
pub const STEP_S: u64 = 30;
const STEP_US: u64 = STEP_S * 1_000_000;

/// A quantity over time: one number per step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series(pub Vec<u64>);

impl Series {
    /// Adds an amount at a moment.
    pub fn add(&mut self, at: Instant, amount: u64) {
        let step = (at.0 / STEP_US) as usize;
        if self.0.len() <= step {
            self.0.resize(step + 1, 0);
        }
        self.0[step] += amount;
    }

    /// Adds a span of time, in microseconds, to each step that it touches.
    fn add_span(&mut self, from: Instant, to: Instant) {
        let mut at = from.0;
        while at < to.0 {
            let end = to.0.min((at / STEP_US + 1) * STEP_US);
            self.add(Instant(at), end - at);
            at = end;
        }
    }
}

/// Time in violation, over all nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overload {
    /// Sum over nodes, microseconds.
    pub total_us: u64,
    /// How many times a node came to be in violation.
    pub count: u64,
    /// The longest, microseconds.
    pub longest_us: u64,
    /// The longest from when a node's scheduler knew of its violation to the end of that, microseconds.
    pub longest_wait_us: u64,
    /// Microseconds per step.
    pub over_time: Series,
}

impl Overload {
    /// A node was in violation from then to then. A violation that lasts no time at all is none: at the very
    /// same instant a load rose and a VM left.
    pub fn add(&mut self, from: Instant, to: Instant) {
        let us = to.0 - from.0;
        if us == 0 {
            return;
        }
        self.total_us += us;
        self.count += 1;
        self.longest_us = self.longest_us.max(us);
        self.over_time.add_span(from, to);
    }
}

/// What came of nodes that were put into maintenance, or died.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outages {
    /// How many were put into maintenance.
    pub maintenances: u64,
    /// From that to when the last VM had left, microseconds: one number for each that became empty.
    pub emptied_us: Vec<u64>,
    /// How many died.
    pub deaths: u64,
    /// Sum over VMs of the time that they did not run, as their node was dead, microseconds.
    pub away_us: u64,
}

/// Everything else.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Measures {
    /// Migrations that ended.
    pub migrations: u64,
    /// Their time, microseconds.
    pub migration_us: u64,
    /// Those between nodes of one site.
    pub within_site: u64,
    /// Migrations that were asked for and refused.
    pub refused: u64,
    /// Migrations that broke off, as an end of theirs died.
    pub broken: u64,
    /// Migrations that began, per step.
    pub migrations_over_time: Series,
    /// Messages handed to the network, per step; their sum is their number.
    pub messages_over_time: Series,
    /// Their bytes.
    pub message_bytes: u64,
    /// Messages that the network lost.
    pub lost: u64,
    /// How many partitions of each size came to an end.
    pub partitions: BTreeMap<u32, u64>,
    /// Sum over partitions of the number of sites that each spanned.
    pub partition_sites: u64,
    /// Partitions that ended without a solution.
    pub unsolved: u64,
    /// From when a node's scheduler found that something must be done to its order to migrate, microseconds: one
    /// number each time.
    pub decisions_us: Vec<u64>,
    /// Virtual time spent computing, microseconds.
    pub compute_us: u64,
    /// Events handled.
    pub events: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_is_spread_over_the_steps_that_it_touches() {
        let mut overload = Overload::default();
        overload.add(Instant(STEP_US - 5), Instant(2 * STEP_US + 7));
        assert_eq!(overload.over_time.0, [5, STEP_US, 7]);
        assert_eq!(overload.total_us, STEP_US + 12);
    }

    #[test]
    fn what_lasts_no_time_is_no_violation() {
        let mut overload = Overload::default();
        overload.add(Instant(5), Instant(5));
        assert_eq!(overload, Overload::default());
    }
}
