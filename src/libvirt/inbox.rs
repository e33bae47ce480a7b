//! What libvirt's callbacks leave for the connection's thread.
//!
//! Notes about one domain replace each other, so the inbox holds at most one per domain however far
//! its reader is behind. Only what a later look at the domain cannot tell is kept of the events.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use virt_sys as sys;

/// A lifecycle event as libvirt numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainEvent {
    /// `virDomainEventType`.
    pub event: i32,
    /// Its detail.
    pub detail: i32,
}

impl DomainEvent {
    /// Its end was asked for by a signal to its process, not by the guest.
    fn ended_by_host(self) -> bool {
        // VIR_DOMAIN_EVENT_SHUTDOWN with VIR_DOMAIN_EVENT_SHUTDOWN_HOST.
        self.event == sys::VIR_DOMAIN_EVENT_SHUTDOWN as i32 && self.detail == 2
    }

    /// It stands still for the last part of a migration.
    fn stands_still(self) -> bool {
        // VIR_DOMAIN_EVENT_SUSPENDED with VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED.
        self.event == sys::VIR_DOMAIN_EVENT_SUSPENDED as i32 && self.detail == 1
    }

    fn started(self) -> bool {
        self.event == sys::VIR_DOMAIN_EVENT_STARTED as i32
    }
}

/// What the connection's thread is woken for.
#[derive(Debug, PartialEq, Eq)]
pub enum Note {
    /// Something happened to these domains (by uuid).
    Domains(Vec<String>),
    /// The connection is gone, and why.
    Lost(String),
    /// Nothing happened in the time asked for.
    Quiet,
    /// The owner is gone.
    Ended,
}

#[derive(Debug, Default)]
struct State {
    domains: BTreeSet<String>,
    /// Domains whose process somebody signalled to end, until they start again.
    ended_by_host: BTreeSet<String>,
    /// When domains began to stand still for a migration.
    still: BTreeMap<String, Instant>,
    lost: Option<(u64, String)>,
    ended: bool,
    /// Counts notes, for those who wait for any.
    count: u64,
}

/// Notes from libvirt.
#[derive(Debug, Default)]
pub struct Inbox {
    state: Mutex<State>,
    changed: Condvar,
}

impl Inbox {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic while it is held leaves whole notes behind: there is nothing to repair.
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state();
        change(&mut state);
        state.count += 1;
        drop(state);
        self.changed.notify_all();
    }

    /// Something happened to a domain.
    pub fn domain(&self, uuid: String, event: DomainEvent) {
        self.note(|state| {
            if event.ended_by_host() {
                state.ended_by_host.insert(uuid.clone());
            } else if event.started() {
                state.ended_by_host.remove(&uuid);
            }
            if event.stands_still() {
                state.still.insert(uuid.clone(), Instant::now());
            }
            state.domains.insert(uuid);
        });
    }

    /// A connection is gone.
    pub fn lost(&self, generation: u64, reason: &str) {
        self.note(|state| state.lost = Some((generation, reason.to_owned())));
    }

    /// The owner is gone: everybody who waits is to end.
    pub fn end(&self) {
        self.note(|state| state.ended = true);
    }

    /// Whether this domain's last end was asked for by a signal to its process.
    pub fn was_ended_by_host(&self, uuid: &str) -> bool {
        self.state().ended_by_host.contains(uuid)
    }

    /// Since when a domain stands still for a migration.
    pub fn stood_still_since(&self, uuid: &str) -> Option<Instant> {
        self.state().still.get(uuid).copied()
    }

    /// Waits; whether the owner is gone by then.
    pub fn ended_within(&self, limit: Duration) -> bool {
        let state = self.state();
        self.changed
            .wait_timeout_while(state, limit, |state| !state.ended)
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .0
            .ended
    }

    /// Whether the owner is gone.
    pub fn ended(&self) -> bool {
        self.state().ended
    }

    /// Forgets that a domain's last end was by a signal; it is gone.
    pub fn forget(&self, uuid: &str) {
        let mut state = self.state();
        state.ended_by_host.remove(uuid);
        state.still.remove(uuid);
    }

    /// Waits for the next note to the connection's thread. Losses of older connections are dropped.
    pub fn next(&self, generation: u64, limit: Duration) -> Note {
        let deadline = Instant::now() + limit;
        let mut state = self.state();
        loop {
            if state.ended {
                return Note::Ended;
            }
            if let Some((lost, reason)) = state.lost.take()
                && lost == generation
            {
                return Note::Lost(reason);
            }
            if !state.domains.is_empty() {
                return Note::Domains(std::mem::take(&mut state.domains).into_iter().collect());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Note::Quiet;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until anything is noted, or for `limit`.
    pub fn wait_for_any(&self, limit: Duration) {
        let state = self.state();
        let (seen, ended) = (state.count, state.ended);
        if !ended {
            drop(self.changed.wait_timeout_while(state, limit, |state| state.count == seen));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING: DomainEvent = DomainEvent { event: 0, detail: 0 };

    #[test]
    fn notes_about_one_domain_replace_each_other() {
        let inbox = Inbox::default();
        for _ in 0..1000 {
            inbox.domain("a".into(), NOTHING);
        }
        inbox.domain("b".into(), NOTHING);
        assert_eq!(inbox.next(1, Duration::ZERO), Note::Domains(vec!["a".into(), "b".into()]));
        assert_eq!(inbox.next(1, Duration::ZERO), Note::Quiet);
    }

    #[test]
    fn the_loss_of_an_older_connection_is_dropped() {
        let inbox = Inbox::default();
        inbox.lost(1, "old");
        assert_eq!(inbox.next(2, Duration::ZERO), Note::Quiet);
        inbox.lost(2, "new");
        assert_eq!(inbox.next(2, Duration::ZERO), Note::Lost("new".into()));
    }

    #[test]
    fn a_signal_to_the_process_is_remembered_until_the_next_start() {
        let inbox = Inbox::default();
        inbox.domain("a".into(), DomainEvent { event: 6, detail: 2 });
        assert!(inbox.was_ended_by_host("a"));
        inbox.domain("a".into(), DomainEvent { event: 2, detail: 0 });
        assert!(!inbox.was_ended_by_host("a"));
    }
}
