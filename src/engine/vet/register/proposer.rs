//! The handler's side of a register: it wins a round, then changes the value step by step.
//!
//! ```text
//!   Asking ──a majority has promised──> Leading: change, propose, a majority has taken it, what was held back goes out
//!      └──────────── somebody else's turn ────────────┴──> nothing that was held back ever happened
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Held;
use super::ballot::{Ballot, ReplicaSet};
use super::message::{RegisterMessage, Said};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::effect::ClusterAction;
use crate::engine::id::{NodeName, VeUid};
use crate::engine::input::VeDeclared;
use crate::engine::record::VeRecord;
use crate::engine::replica::Replica;
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// What is not answered by then is said again.
const REPEAT_AFTER: Duration = Duration::from_millis(500);
/// Longest pause between repetitions.
const REPEAT_MAX: Duration = Duration::from_secs(5);
/// Repetitions after which people are told that a majority is silent.
const SILENT_AFTER: u32 = 6;
/// Most things that wait for one change to be chosen; an order that is due is repeated anyway.
const MOST_HELD: usize = 1024;

/// How far it is.
#[derive(Clone, Debug)]
enum Stage {
    /// It asks for its round.
    Asking {
        /// The set of the newest value that it has heard of.
        set: ReplicaSet,
        /// What the keepers have promised, each with what it has.
        promises: BTreeMap<Replica, Option<(Ballot, VeRecord)>>,
    },
    /// It has won it.
    Leading(Box<Lead>),
}

#[derive(Clone, Debug)]
struct Lead {
    record: VeRecord,
    /// Counts the changes; those up to `chosen` are chosen.
    version: u64,
    chosen: u64,
    /// The set of the value before the one that is proposed: it decides too.
    base: ReplicaSet,
    /// What was proposed last.
    flight: Option<Flight>,
}

#[derive(Clone, Debug)]
struct Flight {
    step: u64,
    version: u64,
    record: VeRecord,
    accepted: BTreeSet<Replica>,
    chosen: bool,
    since: Instant,
}

/// One register, by the one who proposes.
#[derive(Clone, Debug)]
pub struct Proposer {
    ve: VeUid,
    ballot: Ballot,
    stage: Stage,
    repeat_at: Instant,
    tries: u32,
    /// Nobody who could answer has anything to answer.
    quiet: bool,
    /// Declarations that came before the round was won; the newest, and who wants to know.
    pub declared: Vec<(NodeName, VeDeclared)>,
    held: Vec<(u64, Held)>,
}

/// What an answer has led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nothing new.
    None,
    /// The round is won.
    Won,
    /// What was proposed is chosen.
    Chosen,
}

impl Proposer {
    /// Asks the members of a set for a round.
    #[must_use]
    pub fn ask(ve: VeUid, ballot: Ballot, set: ReplicaSet, ctx: &mut Context) -> Self {
        let stage = Stage::Asking { set, promises: BTreeMap::new() };
        let (repeat_at, declared, held) = (ctx.now, Vec::new(), Vec::new());
        let (tries, quiet) = (0, false);
        let mut proposer = Self { ve, ballot, stage, repeat_at, tries, quiet, declared, held };
        proposer.repeat(&|_| true, ctx);
        proposer
    }

    /// The round that it has, or asks for.
    #[must_use]
    pub fn ballot(&self) -> &Ballot {
        &self.ballot
    }

    /// The round is won.
    #[must_use]
    pub fn leads(&self) -> bool {
        matches!(self.stage, Stage::Leading(_))
    }

    /// The value, with changes that are not chosen yet; none before the round is won.
    #[must_use]
    pub fn record(&self) -> Option<&VeRecord> {
        match &self.stage {
            Stage::Leading(lead) => Some(&lead.record),
            Stage::Asking { .. } => None,
        }
    }

    /// Everything is chosen.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        matches!(&self.stage, Stage::Leading(lead) if lead.chosen == lead.version)
    }

    /// Since when a majority has not answered.
    #[must_use]
    pub fn waits_since(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Leading(lead) => {
                lead.flight.as_ref().filter(|flight| !flight.chosen).map(|flight| flight.since)
            }
            Stage::Asking { .. } => None,
        }
    }

    /// Whether this member has taken the newest value.
    #[must_use]
    pub fn has_newest(&self, member: &Replica) -> bool {
        match &self.stage {
            Stage::Leading(lead) => {
                lead.flight.as_ref().is_some_and(|flight| flight.accepted.contains(member))
            }
            Stage::Asking { .. } => false,
        }
    }

    /// Changes the value. Tells whether it did.
    pub fn change(&mut self, change: impl FnOnce(&mut VeRecord)) -> bool {
        let Stage::Leading(lead) = &mut self.stage else { return false };
        let before = lead.record.clone();
        change(&mut lead.record);
        if lead.record == before {
            return false;
        }
        lead.version += 1;
        true
    }

    /// A change of the set before this is not over, and cannot be taken back together with the next one.
    #[must_use]
    pub fn is_changing_set(&self) -> bool {
        matches!(&self.stage, Stage::Leading(lead) if !lead.base.leaving.is_empty())
    }

    /// Takes back a change of the set that is proposed and not chosen. Whoever proposes after this needs a majority of the old
    /// members as before, and so learns of it.
    pub fn take_back_set(&mut self) {
        let Stage::Leading(lead) = &mut self.stage else { return };
        let is_open = |flight: &Flight| !flight.chosen && flight.record.set == lead.record.set;
        let changes = lead.base.leaving.is_empty() && !lead.record.set.leaving.is_empty();
        if changes && lead.flight.as_ref().is_some_and(is_open) {
            lead.record.set.take_back();
            lead.version += 1;
        }
    }

    /// Keeps something back until all that has been changed is chosen.
    pub fn hold(&mut self, held: Held) {
        let Stage::Leading(lead) = &self.stage else { return };
        let item = (lead.version, held);
        // What is said again is said last: of two reports the newer one must come out behind the older.
        self.held.retain(|other| *other != item);
        if self.held.len() < MOST_HELD {
            self.held.push(item);
        }
    }

    /// What may happen now.
    pub fn release(&mut self) -> Vec<Held> {
        let Stage::Leading(lead) = &self.stage else { return Vec::new() };
        let chosen = lead.chosen;
        let (out, held): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .partition(|(version, _)| *version <= chosen || has(Bug::NothingHeldBack));
        self.held = held;
        out.into_iter().map(|(_, held)| held).collect()
    }

    /// Proposes what has changed, unless something is under way.
    pub fn propose(&mut self, ctx: &mut Context) {
        let Stage::Leading(lead) = &mut self.stage else { return };
        let taken_back = |flight: &Flight| {
            !flight.record.set.leaving.is_empty() && lead.record.set.leaving.is_empty()
        };
        let waits = |flight: &Flight| !flight.chosen && !taken_back(flight);
        let first = lead.flight.is_none();
        if lead.flight.as_ref().is_some_and(waits) || (lead.version == lead.chosen && !first) {
            return;
        }
        let step = lead.flight.as_ref().map_or(1, |flight| flight.step + 1);
        lead.flight = Some(Flight {
            step,
            version: lead.version,
            record: lead.record.clone(),
            accepted: BTreeSet::new(),
            chosen: false,
            since: ctx.now,
        });
        self.tries = 0;
        self.repeat(&|_| true, ctx);
    }

    /// When something is to be said again.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        (!self.quiet).then_some(self.repeat_at)
    }

    /// Says again what was not answered. Once the value is chosen, only live members that lack it are told.
    pub fn wake(&mut self, is_live: &dyn Fn(&Replica) -> bool, ctx: &mut Context) {
        if self.next_wakeup().is_some_and(|at| at <= ctx.now) {
            self.repeat(is_live, ctx);
        }
    }

    /// A member came back: what it lacks is said to it soon.
    pub fn hurry(&mut self, now: Instant) {
        self.repeat_at = now;
        self.tries = 0;
        self.quiet = false;
    }

    fn repeat(&mut self, is_live: &dyn Fn(&Replica) -> bool, ctx: &mut Context) {
        self.repeat_at =
            ctx.now + (REPEAT_AFTER * 2_u32.saturating_pow(self.tries.min(8))).min(REPEAT_MAX);
        self.tries += 1;
        self.quiet = false;
        let (to, said): (Vec<Replica>, Said) = match &self.stage {
            Stage::Asking { set, promises } => {
                let silent = set.voices().filter(|voice| !promises.contains_key(voice));
                (silent.cloned().collect(), Said::Ask { ballot: self.ballot.clone() })
            }
            Stage::Leading(lead) => {
                let Some(flight) = &lead.flight else { return };
                let to = if flight.chosen {
                    let lagging = lead.lagging(flight, is_live);
                    self.quiet = lagging.is_empty();
                    lagging
                } else {
                    lead.voices(flight).filter(|v| !flight.accepted.contains(v)).cloned().collect()
                };
                let ballot = self.ballot.at(flight.step);
                (to, Said::Propose { ballot, record: Box::new(flight.record.clone()) })
            }
        };
        if self.tries == SILENT_AFTER && !self.is_settled() {
            self.tell_silent(&to, ctx);
        }
        for Replica { node, disk } in to {
            let (ve, said) = (self.ve.clone(), said.clone());
            ctx.send(&node, Message::Register(Box::new(RegisterMessage { ve, disk, said })));
        }
    }

    /// A majority has not answered for some ten seconds.
    fn tell_silent(&self, silent: &[Replica], ctx: &mut Context) {
        let (record, set) = match &self.stage {
            Stage::Asking { set, promises } => {
                (promises.values().flatten().next().map(|(_, record)| record), set)
            }
            Stage::Leading(lead) => (Some(&lead.record), &lead.base),
        };
        let Some(record) = record else { return };
        let names = |replicas: &mut dyn Iterator<Item = &Replica>| {
            replicas.map(|replica| replica.node.to_string()).collect::<Vec<_>>().join(", ")
        };
        let message = format!(
            "{} do not answer {}: nothing of this environment is changed without a majority of {}, which keep its record; VMs \
             that run go on",
            names(&mut silent.iter()),
            ctx.node,
            names(&mut set.voices())
        );
        let name = record.declared.name.clone();
        let (uid, text) = (self.ve.clone(), message.clone());
        ctx.happened((&self.ve, &name), true, "NoMajority", message);
        ctx.cluster(ClusterAction::ReportNoMajority { uid, name, message: text });
    }

    /// A keeper has promised. `first` is the value of a register that nobody has written yet.
    pub fn promised(
        &mut self,
        by: Replica,
        ballot: &Ballot,
        accepted: Option<(Ballot, VeRecord)>,
        first: impl FnOnce(&ReplicaSet) -> Option<VeRecord>,
        ctx: &mut Context,
    ) -> Progress {
        let Stage::Asking { set, promises } = &mut self.stage else { return Progress::None };
        if *ballot != self.ballot || !set.has(&by) {
            return Progress::None;
        }
        promises.insert(by, accepted);
        let newest = promises.values().flatten().max_by(|a, b| a.0.cmp(&b.0));
        if let Some((_, record)) = newest
            && record.set != *set
        {
            // The keepers of the newest value are to be asked, too: of what they alone have chosen since, nobody else knows. That its
            // set was counted later than others says nothing: a change of the set may have been proposed, and not chosen.
            *set = record.set.clone();
            self.repeat_at = ctx.now;
        }
        let voices: BTreeSet<Replica> = promises.keys().cloned().collect();
        if !set.is_decided_by(&voices) {
            if self.repeat_at == ctx.now {
                self.tries = 0;
                self.repeat(&|_| true, ctx);
            }
            return Progress::None;
        }
        let all = || promises.values().flatten();
        let newest = if has(Bug::OldestWins) {
            all().min_by(|a, b| a.0.cmp(&b.0))
        } else {
            all().max_by(|a, b| a.0.cmp(&b.0))
        };
        let record = newest.map(|(_, record)| record.clone()).or_else(|| first(set));
        let Some(record) = record else { return Progress::None };
        let base = record.set.clone();
        let lead = Lead { record, version: 1, chosen: 0, base, flight: None };
        self.stage = Stage::Leading(Box::new(lead));
        Progress::Won
    }

    /// A keeper has taken a step of this round.
    pub fn accepted(&mut self, by: Replica, ballot: &Ballot) -> Progress {
        if !ballot.is_turn_of(&self.ballot) {
            return Progress::None;
        }
        let Stage::Leading(lead) = &mut self.stage else { return Progress::None };
        let Lead { base, chosen, flight: Some(flight), .. } = &mut **lead else {
            return Progress::None;
        };
        if ballot.step != flight.step {
            return Progress::None;
        }
        flight.accepted.insert(by);
        let complete = flight.record.set.voices().all(|voice| flight.accepted.contains(voice));
        // What this turn itself has had chosen is known to any majority of its members; who asks those before them learns of them.
        let before = match *chosen {
            0 => base.clone(),
            _ => ReplicaSet { leaving: Vec::new(), ..base.clone() },
        };
        let decided = before.is_decided_by(&flight.accepted)
            && flight.record.set.is_decided_by(&flight.accepted);
        if flight.chosen || !decided {
            self.quiet = self.quiet || (flight.chosen && complete);
            return Progress::None;
        }
        self.quiet = complete;
        flight.chosen = true;
        let (version, set) = (flight.version, flight.record.set.clone());
        lead.chosen = version;
        lead.base = set;
        if !lead.base.leaving.is_empty() && lead.record.set == lead.base {
            lead.record.set.arrive();
            lead.version += 1;
        }
        Progress::Chosen
    }
}

impl Lead {
    /// Everybody who is to take what is proposed.
    fn voices<'a>(&'a self, flight: &'a Flight) -> impl Iterator<Item = &'a Replica> {
        let before = self.base.voices().filter(|voice| !flight.record.set.has(voice));
        flight.record.set.voices().chain(before)
    }

    /// Live members that lack what is chosen.
    fn lagging(&self, flight: &Flight, is_live: &dyn Fn(&Replica) -> bool) -> Vec<Replica> {
        let lacks = |voice: &&Replica| !flight.accepted.contains(voice) && is_live(voice);
        flight.record.set.voices().filter(lacks).cloned().collect()
    }
}
