//! This node's own leases: usually one; two while it goes over to other guardians; none of them lost without its VMs ended.
//!
//! ```text
//!   open(1, nobody) ──guard and two peers are there──> open(2, guardians) ──nothing is bound to 1 any more──> give up 1
//!        each second: Renew to every guardian                │
//!                                                            └──a majority says dead──> end every VM ──> open(3, …)
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{LeaseMessage, Said};
use super::{Absence, Lease, MAX_GUARDIANS, Times};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::guard::{Allowance, GuardInput, Teller};
use crate::engine::id::NodeName;
use crate::engine::lrt::Permit;
use crate::engine::record::Kept;
use crate::engine::replica::{Replica, is_majority};
use crate::engine::report::{LeaseReport, LeaseState};
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// How often a lease is renewed.
const RENEW_EVERY: Duration = Duration::from_secs(1);
/// Guardians that are silent, or too few, are borne for this long before others are chosen: a restart is no reason.
const CHANGE_AFTER: Duration = Duration::from_secs(30);
/// A VM is started only if the lease lasts for at least this long: its start takes a while.
const START_MARGIN: Duration = Duration::from_secs(1);

/// What a node keeps of its own leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnLeases {
    /// The highest epoch so far.
    pub newest: u64,
    /// Those that are held, oldest first, each with its guardians.
    pub held: Vec<(u64, Vec<Replica>)>,
    /// An absence was announced, and may last still.
    pub away: bool,
}

#[derive(Clone, Debug)]
struct Held {
    epoch: u64,
    guardians: Vec<Replica>,
    /// When the newest renewal left that each has answered.
    answered: BTreeMap<Replica, Instant>,
    /// Guardians that have promised not to answer any more, or lost their disk.
    dead: BTreeSet<Replica>,
}

impl Held {
    fn new(epoch: u64, guardians: Vec<Replica>) -> Self {
        Self { epoch, guardians, answered: BTreeMap::new(), dead: BTreeSet::new() }
    }

    /// Until when it lasts: as long as it likes, or F after the newest renewal that a majority has answered; with `absence`, for
    /// so long after one that left at that moment or later.
    fn until(&self, times: &Times, absence: Option<(Instant, Duration)>) -> Option<Instant> {
        if self.guardians.is_empty() {
            return None;
        }
        let end = |sent: Instant| match absence {
            Some((since, lasts)) if sent >= since => sent + lasts.max(times.lease),
            _ => sent + times.lease,
        };
        let answered = |guardian: &Replica| self.answered.get(guardian).copied().map(end);
        let mut ends: Vec<Option<Instant>> = self.guardians.iter().map(answered).collect();
        ends.sort();
        ends.reverse();
        // The majority's first end.
        let decisive = if has(Bug::OneRenews) { 0 } else { self.guardians.len() / 2 };
        let decisive = ends.get(decisive).copied().flatten();
        Some(decisive.unwrap_or(Instant::ZERO))
    }

    /// It can never be renewed again.
    fn is_lost(&self) -> bool {
        let alive = |guardian: &Replica| !self.dead.contains(guardian);
        !self.guardians.is_empty() && !is_majority(&self.guardians, alive)
    }
}

/// How this node is protected against running a VM that was taken over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// By nothing: nobody takes its VMs over, whatever happens to it. Why.
    None(String),
    /// By its guard, against everything but a stall of the guard itself.
    Guard,
    /// By its guard, and by a hardware watchdog behind it.
    Watchdog,
}

/// The leases that this node holds.
#[derive(Clone, Debug)]
pub struct Tenant {
    own: Replica,
    /// Counts the agent's lives.
    life: u64,
    times: Times,
    newest: u64,
    held: Vec<Held>,
    renew_at: Instant,
    /// Since when other guardians would be better.
    worse_since: Option<Instant>,
    /// What the guard was told, and what it has confirmed.
    told: Option<Allowance>,
    armed: Option<Allowance>,
    guard: Option<Option<Duration>>,
    /// Every lease was lost: nothing of ours may be left before there is a new one.
    ending: bool,
    /// The guard has ended everything, but something was being started then: it is to do so once more.
    end_again: bool,
    /// An earlier life's absence may last still.
    was_away: bool,
    /// Since when this life announces its absence, and how long that may last.
    absence: Option<(Instant, Duration)>,
}

impl Tenant {
    /// The leases as they were kept; none was answered in this life, which is so many, yet.
    #[must_use]
    pub fn recover(own: Replica, life: u64, times: Times, kept: Option<OwnLeases>) -> Self {
        let nothing = || OwnLeases { newest: before_the_first(&own), held: vec![], away: false };
        let kept = kept.unwrap_or_else(nothing);
        Self {
            own,
            life,
            times,
            newest: kept.newest,
            held: kept.held.into_iter().map(|(epoch, by)| Held::new(epoch, by)).collect(),
            renew_at: Instant::ZERO,
            worse_since: None,
            told: None,
            armed: None,
            guard: None,
            ending: false,
            end_again: false,
            was_away: kept.away,
            absence: None,
        }
    }

    /// The agent is about to end, and would have its VMs run on without it for so long.
    pub fn go_away(&mut self, lasts: Duration, ctx: &mut Context) {
        if self.absence.is_none() && self.until().is_some() && !self.ending {
            self.absence = Some((ctx.now, lasts));
            self.keep(ctx);
            self.renew_at = ctx.now;
        }
    }

    /// Nothing ends this node's VMs for as long as was asked for, whether the agent is there or not.
    #[must_use]
    pub fn may_go(&self) -> bool {
        let Some((since, lasts)) = self.absence else { return true };
        self.until().is_none()
            || self.armed_now().is_some_and(|armed| {
                armed.until.is_none_or(|until| until >= since + lasts.max(self.times.lease))
            })
    }

    /// What the guard has confirmed of this life's words.
    fn armed_now(&self) -> Option<&Allowance> {
        self.armed.as_ref().filter(|armed| armed.by == self.teller())
    }

    fn teller(&self) -> Teller {
        Teller { disk: self.own.disk, life: self.life }
    }

    /// The lease that VMs are bound to from now on: the newest that the guard has a deadline for, or one without an end. The
    /// guardians of another may have promised that it is over before they have ever acknowledged it, while the guard lets run
    /// whatever is here: what was found here without a record, too.
    #[must_use]
    pub fn newest(&self) -> Option<Lease> {
        let armed = self.armed_now().map_or(0, |armed| armed.lease);
        let known = self.held.iter().rfind(|held| held.epoch <= armed);
        let held = known.or(self.held.first().filter(|held| held.guardians.is_empty()))?;
        let (holder, guardians) = (self.own.clone(), held.guardians.clone());
        Some(Lease { holder, epoch: held.epoch, guardians })
    }

    /// Whether an epoch is one of this disk's.
    #[must_use]
    pub fn is_own(&self, epoch: u64) -> bool {
        epoch > before_the_first(&self.own) && epoch <= self.newest
    }

    /// Whether a lease of this epoch is held.
    #[must_use]
    pub fn holds(&self, epoch: u64) -> bool {
        self.held.iter().any(|held| held.epoch == epoch)
    }

    /// Until when this node's VMs may run: all leases must last, as each may be the one that a VM's record names.
    #[must_use]
    pub fn until(&self) -> Option<Instant> {
        self.held.iter().filter_map(|held| held.until(&self.times, self.absence)).min()
    }

    /// VMs that are bound to this epoch may be started now.
    #[must_use]
    pub fn may_start(&self, epoch: u64, now: Instant) -> bool {
        if has(Bug::DeadEpochStarts) {
            return true;
        }
        if self.ending || !self.holds(epoch) {
            return false;
        }
        match self.until() {
            None => true,
            Some(_) => self.armed_now().is_some_and(|armed| {
                armed.lease >= epoch && armed.until.is_some_and(|until| until >= now + START_MARGIN)
            }),
        }
    }

    /// What its leases allow now.
    #[must_use]
    pub fn permit(&self, now: Instant) -> Permit {
        let epochs = self.held.iter().map(|held| held.epoch);
        Permit {
            newest: self.newest(),
            start: epochs.filter(|epoch| self.may_start(*epoch, now)).collect(),
        }
    }

    /// This node's VMs are being ended, or were: what the hypervisor shows of them is not their doing.
    #[must_use]
    pub fn has_lapsed(&self, now: Instant) -> bool {
        self.ending || self.until().is_some_and(|until| until <= now)
    }

    /// How it is protected.
    #[must_use]
    pub fn protection(&self) -> Protection {
        match (&self.guard, self.held.last()) {
            (None, _) => Protection::None("its guard does not answer".into()),
            (_, None) => Protection::None("it has no lease yet".into()),
            (_, Some(held)) if held.guardians.is_empty() => {
                Protection::None("a lease takes three nodes".into())
            }
            (Some(Some(_)), _) => Protection::Watchdog,
            (Some(None), _) => Protection::Guard,
        }
    }

    /// The newest lease, for people.
    #[must_use]
    pub fn report(&self, now: Instant) -> LeaseReport {
        let state = match self.until() {
            None => LeaseState::Unguarded,
            Some(until) if until > now => LeaseState::Held,
            Some(_) => LeaseState::Lapsed,
        };
        let guardians = self.held.last().map(|held| held.guardians.as_slice()).unwrap_or_default();
        let guardians = guardians.iter().map(|guardian| guardian.node.clone()).collect();
        LeaseReport { state, epoch: self.newest & u64::from(u32::MAX), guardians }
    }

    /// Whether [`Tenant::wake`] has something to do.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        self.renew_at <= now
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        Some(self.renew_at)
    }

    /// Each second: renewals, and other guardians where they would be better. `wanted` are the best guardians now, nothing if
    /// nobody is to guard this node; `bound` is the oldest epoch that a VM of this node is bound to. `starting`: the hypervisor may
    /// be starting something.
    pub fn wake(
        &mut self,
        wanted: Option<&[Replica]>,
        bound: Option<u64>,
        starting: bool,
        ctx: &mut Context,
    ) {
        if self.renew_at > ctx.now {
            return;
        }
        self.renew_at = ctx.now + RENEW_EVERY;
        self.give_up(bound, ctx);
        self.choose(wanted, starting, ctx);
        self.renew(ctx);
        self.tell_guard(ctx);
    }

    fn keep(&self, ctx: &mut Context) {
        let held = self.held.iter().map(|held| (held.epoch, held.guardians.clone())).collect();
        let away = self.was_away || self.absence.is_some();
        ctx.keep(Kept::Lease(OwnLeases { newest: self.newest, held, away }));
    }

    fn open(&mut self, guardians: Vec<Replica>, ctx: &mut Context) {
        self.newest += 1;
        self.held.push(Held::new(self.newest, guardians));
        self.keep(ctx);
    }

    /// Older leases that nothing is bound to any more.
    fn give_up(&mut self, bound: Option<u64>, ctx: &mut Context) {
        let newest = self.newest;
        let before = self.held.len();
        self.held
            .retain(|held| held.epoch == newest || bound.is_some_and(|bound| bound <= held.epoch));
        if self.held.len() != before {
            self.keep(ctx);
        }
    }

    fn choose(&mut self, wanted: Option<&[Replica]>, starting: bool, ctx: &mut Context) {
        // Without records there may be an earlier life's start on its way, allowed by a lease that nobody renews any more. It must
        // not come to run under another.
        let outlives = self.held.is_empty() && starting && !has(Bug::StartsOutliveLease);
        if self.ending || outlives {
            return;
        }
        let (alone, wanted) = (wanted.is_none(), wanted.unwrap_or_default());
        let Some(held) = self.held.last() else {
            let wanted = if self.guard.is_some() { wanted } else { &[] };
            return self.open(wanted.to_vec(), ctx);
        };
        let lost = |guardian: &&Replica| !wanted.contains(guardian) || held.dead.contains(guardian);
        let missing = held.guardians.iter().filter(lost).count();
        // A lease that ends needs a guard to end it.
        let more = missing > 0 || wanted.len() > held.guardians.len();
        let better = if alone {
            !held.guardians.is_empty()
        } else {
            self.guard.is_some() && !wanted.is_empty() && more
        };
        if self.held.len() > 1 || !better {
            self.worse_since = None;
            return;
        }
        // Without guardians there is nothing to be patient about.
        let since = *self.worse_since.get_or_insert(ctx.now);
        if alone || held.guardians.is_empty() || ctx.now.since(since) >= CHANGE_AFTER {
            self.worse_since = None;
            self.open(wanted.to_vec(), ctx);
        }
    }

    fn renew(&self, ctx: &mut Context) {
        let released = self.held.first().map_or(0, |held| held.epoch - 1);
        let absence = match self.absence {
            Some((_, lasts)) => Absence::begins(self.life, lasts),
            // Until the guard has a deadline of this life, the former one's may hold.
            None if self.was_away => Absence::default(),
            None => Absence::is_over(self.life),
        };
        for held in &self.held {
            for guardian in held.guardians.iter().filter(|g| !held.dead.contains(g)) {
                let (life, sent, times) = (self.life, ctx.now, self.times);
                let said = Said::Renew { life, sent, times, released, absence };
                let message = LeaseMessage {
                    guardian: guardian.disk,
                    holder: self.own.clone(),
                    epoch: held.epoch,
                    said,
                };
                ctx.send(&guardian.node, Message::Lease(Box::new(message)));
            }
        }
    }

    fn tell_guard(&mut self, ctx: &mut Context) {
        let Some(newest) = self.held.last() else { return };
        let until = if self.ending { Some(Instant::ZERO) } else { self.until() };
        if until == Some(Instant::ZERO) && !self.ending {
            // Nobody has answered in this life of the agent: what the guard was told before still holds.
            return;
        }
        // An end replaces what was said before only as another lease's.
        let lease = newest.epoch + u64::from(self.ending);
        let allowance = Allowance { by: self.teller(), lease, until };
        if self.guard.is_some() && self.told.as_ref() != Some(&allowance) {
            self.told = Some(allowance.clone());
            ctx.guard(allowance);
        }
    }

    /// A guardian has spoken.
    pub fn hear(&mut self, by: &NodeName, message: &LeaseMessage, ctx: &mut Context) {
        let guardian = Replica { node: by.clone(), disk: message.guardian };
        let held = self.held.iter_mut().find(|held| held.epoch == message.epoch);
        let Some(held) = held.filter(|held| held.guardians.contains(&guardian)) else { return };
        match message.said {
            // What an earlier life sent counted by the clock of another boot.
            Said::Renewed { life, .. } if life != self.life && !has(Bug::OtherLifeRenewed) => {
                return;
            }
            Said::Renewed { sent, .. } if sent <= ctx.now => {
                let sent = if has(Bug::LeaseFromAnswer) { ctx.now } else { sent };
                let newest = held.answered.entry(guardian).or_insert(sent);
                *newest = sent.max(*newest);
            }
            Said::Dead => {
                held.dead.insert(guardian);
            }
            _ => return,
        }
        if self.held.iter().any(Held::is_lost) && !self.ending {
            // Somebody may have taken over what was bound to it. Nothing of ours runs on before a new lease.
            self.ending = true;
            ctx.node_happened(
                true,
                "LeaseLost",
                "was silent for so long that its VMs may have been taken over: it has ended them, and starts anew".into(),
            );
        }
        self.tell_guard(ctx);
    }

    /// Nothing is being started on this node any more: what was ended may be ended for good.
    pub fn nothing_starts(&mut self, ctx: &mut Context) {
        if self.ending && std::mem::take(&mut self.end_again) {
            self.told = None;
            self.tell_guard(ctx);
        }
    }

    /// The guard has spoken. `starting`: the hypervisor may be starting something.
    pub fn guard(&mut self, input: &GuardInput, starting: bool, ctx: &mut Context) {
        match input {
            GuardInput::Connected { watchdog } => {
                self.guard = Some(*watchdog);
                self.told = None;
                self.armed = None;
                self.tell_guard(ctx);
            }
            GuardInput::Gone => {
                self.guard = None;
                self.told = None;
            }
            GuardInput::Armed(allowance) => {
                self.armed = Some(allowance.clone());
                if self.was_away && self.armed_now().is_some() {
                    self.was_away = false;
                    self.keep(ctx);
                }
            }
            // What is being started was allowed by a lease that is lost: it must not come to run under the next one.
            GuardInput::Lapsed { .. }
                if self.ending && starting && !has(Bug::StartsOutliveLease) =>
            {
                self.end_again = true;
            }
            GuardInput::Lapsed { .. } if self.ending => {
                // Everything has ended: a new life of the node.
                self.ending = false;
                self.newest += 1;
                self.held.clear();
                self.armed = None;
                self.told = None;
                self.renew_at = ctx.now;
            }
            GuardInput::Lapsed { ended, .. } => {
                let ours = |armed: &Allowance| armed.by == self.teller();
                let first = self.armed.is_some() || *ended > 0;
                let text = if self.armed.as_ref().is_none_or(ours) {
                    format!(
                        "was not heard by its guardians for {} s: its guard has ended {ended} VMs; they start again when it is \
                         heard, here or elsewhere",
                        self.times.lease.as_secs()
                    )
                } else {
                    format!(
                        "its guard has ended {ended} VMs that an earlier life of the agent had let run for so long; they start \
                         again here or elsewhere"
                    )
                };
                self.armed = None;
                if first {
                    ctx.node_happened(true, "LeaseLapsed", text);
                }
            }
        }
    }
}

/// Epochs of one disk follow each other, and no other disk of the node ever has one of them: an order that names the lease of
/// a disk that was lost allows nothing.
fn before_the_first(own: &Replica) -> u64 {
    u64::from(own.disk.0) << 32
}

/// The best guardians of a node: peers in different zones, and itself where they are few; nobody where there are not two.
#[must_use]
pub fn guardians(own: &Replica, peers: Vec<Replica>) -> Vec<Replica> {
    let mut chosen: Vec<Replica> = peers.into_iter().take(MAX_GUARDIANS).collect();
    if chosen.len() < 2 {
        return Vec::new();
    }
    if chosen.len().is_multiple_of(2) {
        chosen.push(own.clone());
    }
    chosen.sort();
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::replica::DiskId;

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn replica(number: u32) -> Replica {
        Replica { node: NodeName::from(format!("n{number}")), disk: DiskId(number) }
    }

    fn context() -> Context {
        Context::sample("n1", at(10))
    }

    /// Its guardians knew of the new lease and could fence it, and the guard had never been told of an end.
    #[test]
    fn vms_are_bound_to_a_guarded_lease_once_the_guard_has_a_deadline() {
        let guardians = vec![replica(2), replica(3), replica(4)];
        let mut tenant = Tenant::recover(replica(1), 1, Times::default(), None);
        let mut ctx = context();
        tenant.guard(&GuardInput::Connected { watchdog: None }, false, &mut ctx);
        tenant.wake(Some(&[]), Some(0), false, &mut ctx);
        let free = tenant.newest().expect("a lease that nobody guards");
        assert_eq!(free.guardians, vec![]);
        let told = tenant.told.clone().expect("the guard is told");
        tenant.guard(&GuardInput::Armed(told), false, &mut ctx);
        ctx.now = at(12);
        tenant.wake(Some(&guardians), Some(free.epoch), false, &mut ctx);
        assert_eq!(tenant.report(at(12)).guardians.len(), 3, "there is another one");
        assert_eq!(tenant.newest(), Some(free.clone()), "nobody has answered");
        for guardian in &guardians {
            let said = Said::Renewed { life: 1, sent: at(12) };
            let message = LeaseMessage {
                guardian: guardian.disk,
                holder: replica(1),
                epoch: free.epoch + 1,
                said,
            };
            tenant.hear(&guardian.node, &message, &mut ctx);
        }
        assert_eq!(tenant.newest(), Some(free.clone()), "the guard has not said that it knows");
        let told = tenant.told.clone().expect("the guard is told");
        assert_eq!(told.until, Some(at(12) + Times::default().lease));
        tenant.guard(&GuardInput::Armed(told), false, &mut ctx);
        assert_eq!(tenant.newest().map(|lease| lease.epoch), Some(free.epoch + 1));
    }

    /// A majority of the new guardians could promise that the new lease is over, while the guard lets VMs run for the old one's sake.
    #[test]
    fn vms_are_bound_to_other_guardians_once_the_guard_has_their_deadline() {
        let guardians = vec![replica(2), replica(3), replica(4)];
        let held = vec![(7, guardians.clone()), (8, guardians.clone())];
        let kept = OwnLeases { newest: 8, held, away: false };
        let mut tenant = Tenant::recover(replica(1), 1, Times::default(), Some(kept));
        let mut ctx = context();
        tenant.guard(&GuardInput::Connected { watchdog: None }, false, &mut ctx);
        tenant.wake(Some(&guardians), Some(7), false, &mut ctx);
        let bound = |tenant: &Tenant| tenant.newest().map(|lease| lease.epoch);
        assert_eq!(bound(&tenant), None, "nobody has acknowledged one in this life");
        for epoch in [7, 8] {
            for guardian in &guardians {
                let (guardian, by) = (guardian.disk, guardian.node.clone());
                let said = Said::Renewed { life: 1, sent: at(10) };
                let message = LeaseMessage { guardian, holder: replica(1), epoch, said };
                tenant.hear(&by, &message, &mut ctx);
            }
        }
        assert_eq!(bound(&tenant), None, "the guard has not said that it knows");
        let told = tenant.told.clone().expect("the guard is told");
        tenant.guard(&GuardInput::Armed(told), false, &mut ctx);
        assert_eq!(bound(&tenant), Some(8));
    }

    /// The lease before it had been given up, as no record was bound to it; the guard let run without an end what had no record
    /// (seed 440979).
    #[test]
    fn vms_are_bound_to_no_lease_that_the_guard_has_no_deadline_for_though_it_is_the_only_one() {
        let guardians = vec![replica(2), replica(3), replica(4)];
        let mut tenant = Tenant::recover(replica(1), 1, Times::default(), None);
        let mut ctx = context();
        tenant.guard(&GuardInput::Connected { watchdog: None }, false, &mut ctx);
        tenant.wake(Some(&[]), None, false, &mut ctx);
        let told = tenant.told.clone().expect("the guard is told");
        assert_eq!(told.until, None, "of a lease that nobody guards");
        tenant.guard(&GuardInput::Armed(told), false, &mut ctx);
        for second in [12, 14] {
            ctx.now = at(second);
            tenant.wake(Some(&guardians), None, false, &mut ctx);
        }
        let held: Vec<u64> = tenant.held.iter().map(|held| held.epoch).collect();
        assert_eq!(held, [tenant.newest], "the one before is given up");
        assert_eq!(tenant.newest(), None);
    }

    /// The hypervisor hung with a start, and the agent lost its records: that start came through under the next lease, while the
    /// VM had been taken over.
    #[test]
    fn the_first_lease_waits_until_nothing_is_being_started() {
        let guardians = vec![replica(2), replica(3), replica(4)];
        let mut tenant = Tenant::recover(replica(1), 1, Times::default(), None);
        let mut ctx = context();
        tenant.guard(&GuardInput::Connected { watchdog: None }, true, &mut ctx);
        tenant.wake(Some(&guardians), None, true, &mut ctx);
        assert!(tenant.held.is_empty());
        assert!(ctx.out.persist.is_empty() && ctx.out.actions.is_empty(), "{:?}", ctx.out);
        ctx.now = at(11);
        tenant.wake(Some(&guardians), None, false, &mut ctx);
        assert_eq!(tenant.held.last().map(|held| &held.guardians), Some(&guardians));
    }

    /// A late answer, after the machine has booted: its clock has begun anew, and may show that time once more.
    #[test]
    fn an_answer_to_an_earlier_life_renews_nothing() {
        let guardians = vec![replica(2), replica(3), replica(4)];
        let kept = OwnLeases { newest: 2, held: vec![(2, guardians.clone())], away: false };
        let mut tenant = Tenant::recover(replica(1), 7, Times::default(), Some(kept));
        let mut ctx = context();
        let mut answer = |tenant: &mut Tenant, life| {
            for guardian in &guardians {
                let said = Said::Renewed { life, sent: at(9) };
                let (guardian, by) = (guardian.disk, &guardian.node);
                let message = LeaseMessage { guardian, holder: replica(1), epoch: 2, said };
                tenant.hear(by, &message, &mut ctx);
            }
        };
        answer(&mut tenant, 6);
        assert_eq!(tenant.until(), Some(Instant::ZERO), "nobody has answered in this life");
        answer(&mut tenant, 7);
        assert_eq!(tenant.until(), Some(at(9) + Times::default().lease));
    }
}
