//! A guard in this process, behind the same port as the real one: for tests of the driver.
//!
//! Its guests are names. It keeps real time, by the clock that the real one keeps, and passes the same conformance suite
//! (`tests/conformance/guard.rs`). As the real one it outlives agents: [`FakeGuard::attach`] is the next agent's connection.

// A thread waits for the deadline; the ban is for the engine.
#![allow(clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::clock;
use super::ports::{Guard, InputSender};
use crate::engine::guard::{Allowance, GuardInput};
use crate::engine::input::Input;
use crate::engine::time::Instant;

/// A guard and the guests of its node. Clones are the same one.
#[derive(Clone)]
pub struct FakeGuard(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    watchdog: Option<Duration>,
    /// The agent that is connected.
    out: Option<Sender<GuardInput>>,
    /// The process does not run: what it held is kept, and nothing is ended.
    away: bool,
    /// What the agent said last.
    said: Option<Allowance>,
    /// What the guard keeps to.
    held: Option<Allowance>,
    /// Counts once the guests of what it keeps to have ended.
    waiting: Option<Allowance>,
    guests: BTreeSet<String>,
    lapsed: Option<(Instant, u32)>,
}

impl FakeGuard {
    /// A guard that was never told anything, and feeds this watchdog.
    #[must_use]
    pub fn start(watchdog: Option<Duration>) -> Self {
        let state = Mutex::new(State { watchdog, ..State::default() });
        let inner = Arc::new(Inner { state, changed: Condvar::new() });
        let watched = Arc::downgrade(&inner);
        std::thread::spawn(move || {
            while let Some(inner) = watched.upgrade() {
                let mut state = inner.state();
                state.enforce();
                // Wakes up now and then to find that nobody holds it any more.
                let rest = state.rest().min(Duration::from_millis(50));
                drop(inner.changed.wait_timeout(state, rest));
            }
        });
        Self(inner)
    }

    /// The agent that reports go to from here on: the one before it is not listened to any more.
    #[must_use]
    pub fn attach(&self, inputs: InputSender) -> Arc<dyn Guard> {
        let (out, reports) = mpsc::channel();
        // A thread of its own, because `allow` must not wait for a full queue and no report is lost.
        std::thread::spawn(move || {
            for report in reports {
                if inputs.blocking_send(Input::Guard(report)).is_err() {
                    return;
                }
            }
        });
        let mut state = self.0.state();
        state.said = None;
        state.waiting = None;
        state.out = Some(out);
        if !state.away {
            state.greet();
        }
        drop(state);
        Arc::new(self.clone())
    }

    /// The process is killed (true), or begins anew with what it held.
    pub fn set_away(&self, away: bool) {
        let mut state = self.0.state();
        if std::mem::replace(&mut state.away, away) == away {
            return;
        }
        if away {
            state.report(GuardInput::Gone);
        } else {
            state.lapsed = None;
            state.enforce();
            state.greet();
            if let Some(said) = state.said.clone() {
                state.take(&said);
            }
        }
        self.0.changed.notify_all();
    }

    /// A guest starts. While the guard is lapsed it does not live.
    pub fn run(&self, guest: &str) {
        let mut state = self.0.state();
        state.guests.insert(guest.to_owned());
        state.enforce();
    }

    /// Whether this guest lives.
    #[must_use]
    pub fn runs(&self, guest: &str) -> bool {
        self.0.state().guests.contains(guest)
    }

    /// What it keeps to.
    #[must_use]
    pub fn held(&self) -> Option<Allowance> {
        self.0.state().held.clone()
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn report(&self, report: GuardInput) {
        if let Some(out) = &self.out {
            // The agent has ended.
            let _ = out.send(report);
        }
    }

    /// What holds now.
    fn tell(&self) {
        match (&self.lapsed, &self.held) {
            (Some((at, ended)), _) => {
                self.report(GuardInput::Lapsed { at: *at, ended: *ended });
            }
            (None, Some(held)) => self.report(GuardInput::Armed(held.clone())),
            (None, None) => {}
        }
    }

    fn greet(&self) {
        self.report(GuardInput::Connected { watchdog: self.watchdog });
        self.tell();
    }

    fn take(&mut self, said: &Allowance) {
        let now = clock::now();
        if self.lapsed.is_none()
            && self.held.as_ref().is_some_and(|held| held.must_end_before(said, now))
        {
            self.waiting = Some(said.clone());
            return self.enforce();
        }
        let held = Allowance::after(self.held.as_ref(), said);
        if !held.is_over(now) {
            self.lapsed = None;
        }
        self.held = Some(held);
        self.enforce();
        self.tell();
    }

    /// Ends what may not run, and says so once.
    fn enforce(&mut self) {
        let now = clock::now();
        let over = self.held.as_ref().is_some_and(|held| held.is_over(now));
        if self.away || !over {
            return;
        }
        let ended = u32::try_from(std::mem::take(&mut self.guests).len()).unwrap_or(u32::MAX);
        match &mut self.lapsed {
            Some(_) if ended == 0 => return,
            Some((at, all)) => (*at, *all) = (now, all.saturating_add(ended)),
            None => self.lapsed = Some((now, ended)),
        }
        self.tell();
        if let Some(said) = self.waiting.take() {
            self.take(&said);
        }
    }

    fn rest(&self) -> Duration {
        match self.held.as_ref().and_then(|held| held.until) {
            Some(until) if self.lapsed.is_none() => until.since(clock::now()),
            _ => Duration::MAX,
        }
    }
}

impl Guard for FakeGuard {
    fn allow(&self, allowance: Allowance) {
        let mut state = self.0.state();
        state.said = Some(allowance.clone());
        if !state.away {
            state.take(&allowance);
        }
        self.0.changed.notify_all();
    }
}
