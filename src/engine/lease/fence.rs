//! The proofs that leases are over: whoever handles something on a silent node wants one, and the guardians are asked once a
//! second for all of them together.
//!
//! Where machines can be switched off from outside, that is asked for once a majority of the guardians has promised never to
//! renew the lease: then a machine that is off has ended what ran under it, and whatever it does when it is on again, it does
//! under another one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Lease;
use super::message::{LeaseMessage, Said};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::effect::Action;
use crate::engine::id::NodeName;
use crate::engine::replica::{Replica, is_majority};
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// How often guardians are asked.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// A proof is kept for this long after it was last wanted: more handlers may come to want it.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Who does not answer for so long, asked each second, does not answer.
const ANSWERS_WITHIN: Duration = Duration::from_secs(3);

/// How far the proof is that a silent node's lease is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nobody guards it: there is no proof.
    Unguarded,
    /// Its guardians are asked.
    Asked,
    /// A majority of them has promised: it is over at that moment, unless the node is heard before by those that have not.
    Ends(Instant),
    /// These do not answer, and the others are no majority.
    NoMajority(Vec<NodeName>),
}

/// Whether a machine is being switched off from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Switch {
    Untouched,
    /// What manages the machine was asked to, and has not said that it has.
    Asked,
    Off,
}

#[derive(Clone, Debug)]
struct Asked {
    lease: Lease,
    since: Instant,
    wanted_at: Instant,
    fenced: BTreeSet<Replica>,
    /// When those that have promised say that it will be over.
    promised: BTreeMap<Replica, Instant>,
    /// Those that never renew it again.
    never_renew: BTreeSet<Replica>,
    switch: Switch,
    /// When each answered last.
    heard: BTreeMap<Replica, Instant>,
    ask_at: Instant,
}

impl Asked {
    fn is_proven(&self) -> bool {
        has(Bug::OneFences) && !self.fenced.is_empty()
            || self.switch == Switch::Off
            || is_majority(&self.lease.guardians, |guardian| self.fenced.contains(guardian))
    }
}

/// What this agent asks of guardians.
#[derive(Clone, Debug, Default)]
pub struct Fences {
    asked: BTreeMap<(Replica, u64), Asked>,
    /// Machines can be switched off from outside.
    can_switch_off: bool,
}

impl Fences {
    /// Nothing is asked yet.
    #[must_use]
    pub fn new(can_switch_off: bool) -> Self {
        Self { can_switch_off, ..Self::default() }
    }

    /// Whether this lease is over for certain; if not, its guardians are asked from now on.
    pub fn is_over(&mut self, lease: &Lease, now: Instant) -> bool {
        if has(Bug::SuspicionProves) {
            return true;
        }
        if !lease.is_guarded() {
            return false;
        }
        let key = (lease.holder.clone(), lease.epoch);
        let asked = self.asked.entry(key).or_insert_with(|| Asked {
            lease: lease.clone(),
            since: now,
            wanted_at: now,
            fenced: BTreeSet::new(),
            promised: BTreeMap::new(),
            never_renew: BTreeSet::new(),
            switch: Switch::Untouched,
            heard: BTreeMap::new(),
            ask_at: now,
        });
        asked.wanted_at = now;
        asked.is_proven()
    }

    /// Whether this lease is known to be over. Nobody is asked.
    #[must_use]
    pub fn knows_over(&self, lease: &Lease) -> bool {
        let asked = self.asked.get(&(lease.holder.clone(), lease.epoch));
        asked.is_some_and(Asked::is_proven)
    }

    /// How far the proof is that a lease is over.
    #[must_use]
    pub fn progress(&self, lease: &Lease, now: Instant) -> Progress {
        if !lease.is_guarded() {
            return Progress::Unguarded;
        }
        let Some(asked) = self.asked.get(&(lease.holder.clone(), lease.epoch)) else {
            return Progress::Asked;
        };
        let answers = |guardian: &Replica| {
            let heard = asked.heard.get(guardian);
            heard.is_some_and(|heard| now.since(*heard) < ANSWERS_WITHIN)
        };
        if now.since(asked.since) >= ANSWERS_WITHIN && !is_majority(&lease.guardians, answers) {
            let silent = lease.guardians.iter().filter(|guardian| !answers(guardian));
            return Progress::NoMajority(silent.map(|guardian| guardian.node.clone()).collect());
        }
        let mut ends: Vec<Instant> = asked.promised.values().copied().collect();
        ends.sort();
        ends.get(lease.guardians.len() / 2).map_or(Progress::Asked, |end| Progress::Ends(*end))
    }

    /// A node is heard again: what is not proven need not be asked any longer.
    pub fn heard(&mut self, node: &NodeName) {
        self.asked.retain(|(holder, _), asked| holder.node != *node || asked.is_proven());
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.asked.values().filter(|asked| !asked.is_proven()).map(|asked| asked.ask_at).min()
    }

    /// Asks what is due.
    pub fn wake(&mut self, ctx: &mut Context) {
        self.asked.retain(|_, asked| ctx.now.since(asked.wanted_at) < KEPT_FOR);
        for asked in self.asked.values_mut().filter(|asked| !asked.is_proven()) {
            if asked.ask_at > ctx.now {
                continue;
            }
            asked.ask_at = ctx.now + ASK_EVERY;
            for guardian in asked.lease.guardians.iter().filter(|g| !asked.fenced.contains(g)) {
                let (holder, epoch) = (asked.lease.holder.clone(), asked.lease.epoch);
                let (disk, said) = (guardian.disk, Said::Fence);
                let message = LeaseMessage { guardian: disk, holder, epoch, said };
                ctx.send(&guardian.node, Message::Lease(Box::new(message)));
            }
        }
    }

    /// A guardian answers. Tells whether the lease has just been proven to be over.
    pub fn hear(&mut self, by: &NodeName, message: &LeaseMessage, ctx: &mut Context) -> bool {
        let now = ctx.now;
        let key = (message.holder.clone(), message.epoch);
        let Some(asked) = self.asked.get_mut(&key) else { return false };
        let guardian = Replica { node: by.clone(), disk: message.guardian };
        if !asked.lease.guardians.contains(&guardian) || asked.is_proven() {
            return false;
        }
        asked.heard.insert(guardian.clone(), now);
        match message.said {
            Said::Fenced => {
                asked.fenced.insert(guardian.clone());
                asked.never_renew.insert(guardian.clone());
                asked.promised.insert(guardian, now);
            }
            Said::Away(left) => {
                asked.promised.insert(guardian, now + left);
            }
            Said::Fencing(left) => {
                let end = now + left;
                asked.ask_at = asked.ask_at.min(end);
                asked.never_renew.insert(guardian.clone());
                asked.promised.insert(guardian, end);
            }
            Said::Alive(_) => {
                asked.promised.remove(&guardian);
            }
            _ => {}
        }
        let lease = &asked.lease;
        let promised = has(Bug::OffBeforePromise)
            || is_majority(&lease.guardians, |guardian| asked.never_renew.contains(guardian));
        let untouched = asked.switch == Switch::Untouched;
        if self.can_switch_off && untouched && promised && !asked.is_proven() {
            asked.switch = Switch::Asked;
            let (holder, epoch) = (lease.holder.clone(), lease.epoch);
            ctx.out.actions.push(Action::SwitchOff { holder, epoch });
        }
        asked.is_proven()
    }

    /// What manages a machine has switched it off, or cannot. Tells whether its lease has just been proven to be over.
    pub fn switched(
        &mut self,
        holder: &Replica,
        epoch: u64,
        result: Result<(), String>,
        ctx: &mut Context,
    ) -> bool {
        let node = &holder.node;
        let Some(asked) = self.asked.get_mut(&(holder.clone(), epoch)) else { return false };
        let waits = asked.switch == Switch::Asked && !asked.is_proven();
        match result {
            Ok(()) if waits => {
                asked.switch = Switch::Off;
                let message = format!("{node} was silent, and has been switched off for certain");
                ctx.node_happened(true, "SwitchedOff", message);
            }
            Ok(()) => {}
            Err(why) => {
                let message = format!(
                    "{node} is silent, and cannot be switched off: {why}; its guardians' proof is waited for"
                );
                ctx.node_happened(true, "SwitchOffFailed", message);
            }
        }
        waits && asked.is_proven()
    }
}
