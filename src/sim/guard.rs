//! A node's guard: it outlives the agent, and ends every domain when the time that it was told has passed.

use std::time::Duration;

use rand::RngExt;

use super::world::{Event, World};
use crate::engine::guard::{Allowance, GuardInput};
use crate::engine::id::NodeName;
use crate::engine::input::{HypervisorInput, Input};
use crate::engine::time::Instant;

/// How long a word takes to the guard, and back.
const HOP: Duration = Duration::from_millis(1);

/// The guard of one node.
#[derive(Debug, Default)]
pub struct Guard {
    allowance: Option<Allowance>,
    /// It ends whatever starts.
    pub(super) lapsed: bool,
    away: Option<Away>,
    /// Counts once what ran under the allowance that it keeps to has ended.
    waiting: Option<Allowance>,
    /// An agent has started while it stood still, and waits for its answer.
    pub(super) called: bool,
    /// Counts the times that it was away, or its machine stood still: a watchdog's time-out belongs to one.
    hold: u64,
}

/// Why a guard does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Away {
    /// It stands still, and goes on as if nothing had been.
    Stalled,
    /// It has ended, and comes back with what it was told.
    Gone,
}

impl Guard {
    /// It does nothing now.
    pub(super) fn is_away(&self) -> bool {
        self.away.is_some()
    }
}

/// Between two feedings of a watchdog.
const FEED_EVERY: Duration = Duration::from_secs(1);

impl World {
    /// An agent tells its node's guard.
    pub(super) fn tell_guard(&mut self, node: &NodeName, boot: u64, allowance: Allowance) {
        let node = node.clone();
        self.push(HOP, Event::Allowance { node, boot, allowance });
    }

    /// The guard of this boot of a node hears it.
    pub(super) fn allow(&mut self, name: &NodeName, boot: u64, allowance: Allowance) {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.boot == boot) else { return };
        let (guard, life, clock) = (&mut node.guard, node.life, node.clock);
        match guard.away {
            Some(Away::Gone) => return,
            Some(Away::Stalled) => {
                let event = Event::Allowance { node: name.clone(), boot, allowance };
                return node.deferred.push(event);
            }
            None => {}
        }
        let held = guard.allowance.as_ref().filter(|_| !guard.lapsed);
        if held.is_some_and(|held| held.must_end_before(&allowance, clock.local(now))) {
            guard.waiting = Some(allowance);
            return self.look_at_deadline(name);
        }
        let allowance = Allowance::after(guard.allowance.as_ref(), &allowance);
        guard.allowance = Some(allowance.clone());
        guard.lapsed = false;
        match allowance.until {
            Some(_) if allowance.is_over(clock.local(now)) => self.lapse(name),
            until => {
                if let Some(until) = until {
                    let (node, after) = (name.clone(), clock.world(until).since(now));
                    self.push(after, Event::Lapse { node, boot, until });
                }
                let input = Box::new(Input::Guard(GuardInput::Armed(allowance)));
                self.push(HOP, Event::Input { node: name.clone(), life, input });
            }
        }
    }

    /// The time may be over.
    pub(super) fn lapse_if_due(&mut self, name: &NodeName, boot: u64, until: Instant) {
        let due = self.guard_mut(name, boot).is_some_and(|(guard, _)| {
            guard.allowance.as_ref().is_some_and(|allowance| allowance.until == Some(until))
        });
        if due {
            self.look_at_deadline(name);
        }
    }

    /// A guard looks at its clock, if it can.
    fn look_at_deadline(&mut self, name: &NodeName) {
        let now = self.now();
        let Some(node) = self.nodes.get(name).filter(|node| !node.guard.is_away()) else { return };
        let Some(until) = node.guard.allowance.as_ref().and_then(|allowance| allowance.until)
        else {
            return;
        };
        let (boot, at) = (node.boot, node.clock.world(until));
        if at <= now {
            self.lapse(name);
        } else {
            let node = name.clone();
            self.push(at.since(now), Event::Lapse { node, boot, until });
        }
    }

    // ---- what may happen to it ---------------------------------------------------------------

    /// A guard is away. Tells whether it was not.
    pub(super) fn take_guard(&mut self, name: &NodeName, away: Away) -> bool {
        let Some(node) = self.nodes.get_mut(name) else { return false };
        if node.frozen || node.guard.is_away() {
            return false;
        }
        node.guard.away = Some(away);
        if away == Away::Gone {
            self.handle(name, Input::Guard(GuardInput::Gone));
        }
        self.starve_watchdog(name);
        true
    }

    /// It is well again: it looks at its clock first.
    pub(super) fn give_guard_back(&mut self, name: &NodeName, boot: u64) {
        let watchdog = self.watchdog;
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.boot == boot) else { return };
        let Some(away) = node.guard.away.take() else { return };
        node.guard.hold += 1;
        let called = std::mem::take(&mut node.guard.called);
        self.look_at_deadline(name);
        if called || away == Away::Gone {
            self.handle(name, Input::Guard(GuardInput::Connected { watchdog }));
        }
        self.do_deferred(name);
    }

    /// A whole machine stands still. Tells whether it did not.
    pub(super) fn freeze(&mut self, name: &NodeName) -> bool {
        let Some(node) = self.nodes.get_mut(name).filter(|node| !node.frozen) else { return false };
        if node.guard.is_away() || node.engine.is_none() {
            return false;
        }
        node.frozen = true;
        self.machines_changed = true;
        self.starve_watchdog(name);
        true
    }

    /// It goes on as if nothing had been; its guard comes before everything else.
    pub(super) fn thaw(&mut self, name: &NodeName, boot: u64) {
        let Some(node) = self.nodes.get_mut(name).filter(|n| n.boot == boot && n.frozen) else {
            return;
        };
        node.frozen = false;
        node.guard.hold += 1;
        self.machines_changed = true;
        self.look_at_deadline(name);
        self.do_deferred(name);
        self.go_on(name);
    }

    /// What was put off happens now, in its order.
    fn do_deferred(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        for event in std::mem::take(&mut node.deferred) {
            self.push(Duration::ZERO, event);
        }
    }

    /// Nobody feeds a node's watchdog from now on. It was fed last within the second before, and not so late that it would act
    /// after W from the deadline.
    fn starve_watchdog(&mut self, name: &NodeName) {
        let (Some(timeout), now) = (self.watchdog, self.now()) else { return };
        let ago = Duration::from_micros(self.rng().random_range(0..FEED_EVERY.as_micros() as u64));
        let Some(node) = self.nodes.get_mut(name) else { return };
        let allowance = node.guard.allowance.as_ref().filter(|_| !node.guard.lapsed);
        let deadline = allowance.and_then(|allowance| allowance.until);
        let latest = deadline.map(|deadline| node.clock.world(deadline + self.times.watchdog));
        let due = (now - ago + timeout).min(latest.unwrap_or(Instant(u64::MAX)));
        let (node, boot, hold) = (name.clone(), node.boot, node.guard.hold);
        self.push(due.since(now), Event::Watchdog { node, boot, hold });
    }

    /// A watchdog's time is over.
    pub(super) fn watchdog_barks(&mut self, name: &NodeName, boot: u64, hold: u64) {
        let starved = self.nodes.get(name).is_some_and(|node| {
            let away = node.frozen || node.guard.is_away();
            away && node.boot == boot && node.guard.hold == hold
        });
        if starved {
            self.resets += 1;
            self.power_off(name);
            let boots = Duration::from_millis(self.rng().random_range(2_000..30_000));
            self.start_after(name, boots);
        }
    }

    fn lapse(&mut self, name: &NodeName) {
        let Some((boot, life)) = self.lives(name) else { return };
        if let Some((guard, _)) = self.guard_mut(name, boot) {
            guard.lapsed = true;
        }
        let ended = self.end_all(name);
        let at = self.nodes.get(name).map_or(Instant::ZERO, |node| node.clock.local(self.now()));
        let input = Input::Guard(GuardInput::Lapsed { at, ended });
        self.push(HOP, Event::Input { node: name.clone(), life, input: Box::new(input) });
        if let Some(waiting) =
            self.guard_mut(name, boot).and_then(|(guard, _)| guard.waiting.take())
        {
            self.tell_guard(name, boot, waiting);
        }
    }

    /// A node's guard ends whatever starts there.
    pub(super) fn has_lapsed(&mut self, name: &NodeName) -> bool {
        let boot = self.lives(name).map_or(0, |(boot, _)| boot);
        self.guard_mut(name, boot).is_some_and(|(guard, _)| guard.lapsed && !guard.is_away())
    }

    /// Ends every domain of a node whose guard has lapsed, and what has just been started there.
    pub(super) fn end_all(&mut self, name: &NodeName) -> u32 {
        let (ended, gone) = self.host_mut(name).map(|host| host.end_all()).unwrap_or_default();
        self.lapses += u64::from(!ended.is_empty());
        let life = self.lives(name).map_or(0, |(_, life)| life);
        let count = ended.len() as u32;
        for id in gone {
            let input = Box::new(Input::Hypervisor(HypervisorInput::DomainGone(id)));
            self.push(HOP, Event::Input { node: name.clone(), life, input });
        }
        for seen in ended {
            let input = Box::new(Input::Hypervisor(HypervisorInput::Domain(seen)));
            self.push(HOP, Event::Input { node: name.clone(), life, input });
        }
        count
    }
}
