//! What the rim has done, counted. The admin room turns the numbers into metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A number that goes up, or (for gauges) also down.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// Takes off.
    pub fn sub(&self, less: u64) {
        self.0.fetch_sub(less, Ordering::Relaxed);
    }

    /// The number.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Everything the rim counts.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests sent, watches not included.
    pub requests: Count,
    /// Of those, requests that failed for whatever reason.
    pub requests_failed: Count,
    /// Requests that changed something at the API server.
    pub writes: Count,
    /// Writes that will be tried again.
    pub retries: Count,
    /// Reports that the API server refuses, or that are about something that no longer exists.
    pub reports_dropped: Count,
    /// Reports that a newer one replaced before they were written.
    pub reports_coalesced: Count,
    /// Replica sets that another gateway wrote first.
    pub swaps_lost: Count,
    /// Events given up: too many, or refused.
    pub events_dropped: Count,
    /// Environments whose spec cannot be read.
    pub invalid_specs: Count,
    /// Watches that are open or being opened (a gauge).
    pub watches: Count,
    /// Watches that broke and were opened again.
    pub watches_broken: Count,
    /// Listings of all `PhysicalNode`s.
    pub peer_lists: Count,
    /// Strangers that were not looked up: too many at once, or too soon after the last look-up.
    pub strangers_dropped: Count,
}

impl Counters {
    /// Every number with its name, in a fixed order; `true` marks a gauge.
    #[must_use]
    pub fn all(&self) -> [(&'static str, u64, bool); 13] {
        [
            ("requests", self.requests.get(), false),
            ("requests_failed", self.requests_failed.get(), false),
            ("writes", self.writes.get(), false),
            ("retries", self.retries.get(), false),
            ("reports_dropped", self.reports_dropped.get(), false),
            ("reports_coalesced", self.reports_coalesced.get(), false),
            ("swaps_lost", self.swaps_lost.get(), false),
            ("events_dropped", self.events_dropped.get(), false),
            ("invalid_specs", self.invalid_specs.get(), false),
            ("watches", self.watches.get(), true),
            ("watches_broken", self.watches_broken.get(), false),
            ("peer_lists", self.peer_lists.get(), false),
            ("strangers_dropped", self.strangers_dropped.get(), false),
        ]
    }
}

/// Counts one open watch for as long as it lives.
pub(super) struct OpenWatch(Arc<Counters>);

impl OpenWatch {
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        counters.watches.add(1);
        Self(counters)
    }
}

impl Drop for OpenWatch {
    fn drop(&mut self) {
        self.0.watches.sub(1);
    }
}
