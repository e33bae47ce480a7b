//! VMH: the handler of one VM on this node. It compares what is meant to be with what the hypervisor
//! shows, and gives at most one command at a time.
//!
//! ```text
//!   goal Run:   no domain / stopped ──Run──> Starting ──Done──> Running
//!                   ^                                             │ crashed, destroyed, undefined
//!                   └────────── back-off (run strategy) <─────────┘
//!               paused ──Resume──>        edited or older revision ──Run (redefines)──>
//!   goal Stop:  running ──Stop──> Stopped
//!   goal Run, its environment is being restarted (Start::Down): the same, and its room stays its own; until it is free to start
//!   goal Remove:        ──Remove──> record forgotten
//!   goal Arrive:        ──Expect──> ready; it comes, paused; the order to run it continues it
//!   goal Run, leaving:  ──Migrate──> it is there, or it stayed; either way nothing more is done with it until the
//!                                    next order, whatever the hypervisor shows
//! ```

mod judge;
mod pace;

use std::fmt;
use std::time::Duration;

use pace::Pace;

use super::transit::MigrationLimits;
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::effect::{Action, HypervisorCommand};
use crate::engine::host::{DomainSeen, DomainState, Failure, FailureKind};
use crate::engine::record::{Kept, Start, Transit, VmGoal, VmRecord};
use crate::engine::report::{MoveProgress, VmObserved, VmPhase};
use crate::engine::spec::{Resources, VmDefinition};
use crate::engine::time::Instant;

/// How long a guest may take to power off when asked.
const STOP_GRACE: Duration = Duration::from_secs(15);
/// A hypervisor that has not answered a command for so long is said to be silent. A call that may not last has failed
/// before that, after 20 s; one that starts or ends a guest may take 2 min, and shows this while it does.
const SILENT: Duration = Duration::from_secs(30);

/// A guest that has been started is busy for a while with that: its load then says nothing of what it will be.
const BOOTS_FOR: Duration = Duration::from_secs(60);
/// A VM that has come by live migration is not asked to make room for so long: it would be moved to and fro.
const STAYS_FOR: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
pub(super) struct InFlight {
    pub(super) request: u64,
    pub(super) what: What,
    /// It was told to give up.
    pub(super) aborted: bool,
    /// When it was given, or last said how far it is.
    heard: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    Run,
    Resume,
    Stop,
    Remove,
    Expect,
    Migrate,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Run => "start",
            Self::Resume => "continue",
            Self::Stop => "stop",
            Self::Remove => "remove",
            Self::Expect => "make ready for",
            Self::Migrate => "move",
        })
    }
}

/// One VM on this node.
#[derive(Clone, Debug)]
pub struct Vmh {
    /// What is kept on disk.
    pub record: VmRecord,
    /// What the hypervisor last showed.
    pub domain: Option<DomainSeen>,
    /// The last order allows a restart to follow a changed definition.
    pub may_restart: bool,
    /// Why it is not as it should be.
    pub reason: Option<String>,
    /// Why it is not as its handler last said: it runs on as it was before.
    pub refused: Option<String>,
    /// How far its migration is.
    pub moved: MoveProgress,
    /// Why it does not leave its node, which is to be emptied.
    pub cannot_leave: Option<String>,
    /// It is not asked to make room for others before.
    pub(super) left_alone_until: Instant,
    pub(super) in_flight: Option<InFlight>,
    pace: Pace,
    running_since: Option<Instant>,
    /// It came by live migration: it did not boot here.
    came: bool,
    /// It was seen running from the current placement, in this life of the agent or before.
    ran: bool,
    /// What went wrong and has not been announced as healed.
    hurt: Option<String>,
    /// It was free to start in this placement, in this life of the agent: what others do since is nothing to it.
    opened: bool,
}

/// What became of a command.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The handler goes on.
    Goes,
    /// Nothing of the VM is left on this node.
    Gone,
}

impl Vmh {
    /// A handler for a kept record, before anything is known of its domain.
    #[must_use]
    pub fn new(record: VmRecord) -> Self {
        let ran = record.running.is_some();
        Self {
            record,
            domain: None,
            may_restart: false,
            reason: None,
            refused: None,
            moved: MoveProgress::Open,
            cannot_leave: None,
            left_alone_until: Instant::ZERO,
            in_flight: None,
            pace: Pace::new(),
            running_since: None,
            came: false,
            ran,
            hurt: None,
            opened: false,
        }
    }

    pub(super) fn size(&self) -> Resources {
        Resources::of(self.record.definition.cpus, self.record.definition.memory)
    }

    fn name(&self) -> String {
        self.record.definition.ve.vm(&self.record.definition.id)
    }

    /// When it wants to be looked at again.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let waits = self.in_flight.is_none() && self.wanted().is_some();
        self.pace.due_at().filter(|_| waits)
    }

    /// Whether the domain runs what is meant to run.
    fn is_current(&self, domain: &DomainSeen) -> bool {
        let definition = &self.record.definition;
        domain.epoch == definition.epoch && domain.revision == definition.revision
    }

    /// Its room is here, and it is to run when its handler lets it.
    fn is_held(&self) -> bool {
        let open = match self.record.start {
            Start::Free => self.opened || !self.record.definition.depends,
            Start::Waits => self.opened,
            Start::Down => false,
        };
        self.record.goal == VmGoal::Run && !self.record.completed && !open
    }

    /// Takes from an order whether it may be started.
    pub(super) fn let_start(&mut self, start: Start) {
        if self.record.start != start && [start, self.record.start].contains(&Start::Down) {
            self.pace.at_once();
        }
        match start {
            Start::Free => self.opened = true,
            Start::Waits => {}
            Start::Down => {
                self.opened = false;
                self.record.crashed = false;
                self.record.completed = false;
                self.ends();
            }
        }
        self.record.start = start;
    }

    /// It is to be ended: what becomes of its domain is no deed of the guest's.
    fn ends(&mut self) {
        self.hurt = None;
        self.running_since = None;
        self.ran = false;
    }

    /// The command that would bring the VM closer to its goal.
    pub(super) fn wanted(&self) -> Option<What> {
        let state = self.domain.as_ref().map(|domain| domain.state);
        let runs = self.domain.as_ref().is_some_and(DomainSeen::may_run);
        match self.record.goal {
            VmGoal::Absent => None,
            VmGoal::Remove => Some(What::Remove),
            VmGoal::Arrive => {
                let arrived =
                    self.domain.as_ref().is_some_and(|d| d.epoch == self.record.definition.epoch);
                if arrived && has(Bug::ArrivedRuns) {
                    let paused = matches!(state, Some(DomainState::Paused(_)));
                    return paused.then_some(What::Resume);
                }
                (self.moved != MoveProgress::Ready && !arrived).then_some(What::Expect)
            }
            VmGoal::Run if self.in_transit() => {
                let open = self.moved == MoveProgress::Open;
                let leaves = matches!(self.record.transit, Transit::Leaving { .. });
                if open && !runs && self.record.running.is_some() {
                    // It may be starting still, by a command that was said to have failed, or by an earlier life of the agent.
                    Some(What::Stop)
                } else {
                    (open && leaves).then_some(What::Migrate)
                }
            }
            VmGoal::Run if self.record.start == Start::Down => {
                (runs || self.record.running.is_some()).then_some(What::Stop)
            }
            VmGoal::Stop => (runs || self.record.running.is_some()).then_some(What::Stop),
            VmGoal::Run if self.record.completed || self.record.crashed => None,
            VmGoal::Run if self.is_held() && !runs => None,
            VmGoal::Run => match &self.domain {
                None => Some(What::Run),
                Some(domain) => match domain.state {
                    DomainState::Stopped(_) => Some(What::Run),
                    _ if domain.edited.is_some() => Some(What::Run),
                    _ if !self.is_current(domain) && self.may_restart => Some(What::Run),
                    DomainState::Paused(_) => Some(What::Resume),
                    DomainState::Running => None,
                },
            },
        }
    }

    /// It runs, and has done so for long enough to be judged by its load.
    #[must_use]
    pub fn has_booted(&self, now: Instant) -> bool {
        self.running_since.is_some_and(|since| self.came || now.since(since) >= BOOTS_FOR)
    }

    /// It runs here as meant, and nothing is being done with it.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let running = |domain: &DomainSeen| {
            domain.state == DomainState::Running && domain.epoch == self.record.definition.epoch
        };
        let free = self.record.promise.is_none() && self.record.transit == Transit::None;
        let calm = free && self.in_flight.is_none() && self.moved != MoveProgress::Left;
        calm && self.record.goal == VmGoal::Run && self.domain.as_ref().is_some_and(running)
    }

    /// It may be asked to make room for others. One that has just come is left alone.
    #[must_use]
    pub fn may_make_room(&self, now: Instant) -> bool {
        let came = self.running_since.filter(|_| self.came);
        let stays = came.is_some_and(|since| now.since(since) < STAYS_FOR);
        self.is_settled() && !stays && self.left_alone_until <= now
    }

    /// The hypervisor has been told to let it run, and has not answered.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        let flight = self.in_flight.as_ref();
        flight.is_some_and(|flight| matches!(flight.what, What::Run | What::Resume))
    }

    /// It came here by live migration.
    #[must_use]
    pub fn came(&self) -> bool {
        self.came
    }

    /// Gives the next command if one is wanted and it is time. The hypervisor is there, and has shown its domains.
    pub fn act(
        &mut self,
        may_start: bool,
        next_request: &mut u64,
        limits: &MigrationLimits,
        ctx: &mut Context,
    ) {
        self.abort_if_called_off(next_request, ctx);
        self.answer_halt();
        self.stay_while_larger();
        if self.in_flight.is_some() || !self.pace.is_due(ctx.now) {
            return;
        }
        let Some(what) = self.wanted() else { return };
        if !may_start && matches!(what, What::Run | What::Resume | What::Expect) {
            // Looked at again when something says that it may; there is no time to wait for.
            self.pace.at_once();
            return;
        }
        let id = self.record.definition.id.clone();
        let command = match what {
            What::Expect => {
                let Transit::Arriving { from } = self.record.transit.clone() else { return };
                self.will_run(ctx);
                let definition = Box::new(self.record.definition.clone());
                HypervisorCommand::Expect { definition, from }
            }
            What::Migrate => match self.migration(limits) {
                Some(migration) => HypervisorCommand::Migrate(Box::new(migration)),
                None => return,
            },
            What::Run => {
                self.will_run(ctx);
                HypervisorCommand::Run(Box::new(self.record.definition.clone()))
            }
            What::Resume => HypervisorCommand::Resume(id),
            What::Stop => HypervisorCommand::Stop { id, grace: STOP_GRACE },
            What::Remove => HypervisorCommand::Remove(id),
        };
        *next_request += 1;
        let request = *next_request;
        self.in_flight = Some(InFlight { request, what, aborted: false, heard: ctx.now });
        ctx.out.actions.push(Action::Hypervisor { request, command });
    }

    /// Writes down what the domain will take, before it takes it.
    fn will_run(&mut self, ctx: &mut Context) {
        let most = self.record.running.unwrap_or_default().largest(&self.size());
        if self.record.running != Some(most) {
            self.record.running = Some(most);
            self.keep(ctx);
        }
    }

    /// Writes the record.
    pub fn keep(&self, ctx: &mut Context) {
        ctx.keep(Kept::Vm(self.record.clone()));
    }

    /// As many others leave as may: it is looked at again when one of them has left, at no time of its own.
    pub(super) fn lets_others_leave(&mut self) {
        self.pace.at_once();
    }

    /// The hypervisor's connection came back: what waited for it need not wait longer.
    pub fn hurry(&mut self) {
        self.pace.at_once();
    }

    /// Takes note of what the hypervisor shows outside of a command's end.
    pub fn observe(&mut self, domain: Option<DomainSeen>, ctx: &mut Context) {
        let before = self.domain.take();
        self.domain = domain;
        if self.in_flight.is_none() {
            self.judge(before.as_ref(), ctx);
        }
    }

    /// A command has ended.
    pub fn done(
        &mut self,
        request: u64,
        result: Result<Option<DomainSeen>, Failure>,
        ctx: &mut Context,
    ) -> Outcome {
        // A command of an earlier life of the agent, or one that was given up.
        if self.in_flight.as_ref().is_none_or(|flight| flight.request != request) {
            return Outcome::Goes;
        }
        let Some(flight) = self.in_flight.take() else { return Outcome::Goes };
        match result {
            Ok(domain) => {
                if flight.what == What::Remove && domain.is_none() {
                    return Outcome::Gone;
                }
                self.domain = domain;
                self.pace.at_once();
                self.succeeded(flight.what, ctx);
            }
            Err(failure) if flight.what == What::Migrate => self.stayed(&failure),
            Err(failure) => self.failed(flight.what, &failure, ctx),
        }
        Outcome::Goes
    }

    fn succeeded(&mut self, what: What, ctx: &mut Context) {
        let runs = self.domain.as_ref().is_some_and(|d| d.state == DomainState::Running);
        match what {
            What::Stop if !runs => {
                self.reason = None;
                self.pace.succeeded();
                if !self.in_transit() {
                    self.ends();
                }
                if self.record.running.take().is_some() {
                    self.keep(ctx);
                }
            }
            What::Run if runs => {
                // The old domain, which may have been larger, is gone. (An order may have changed the
                // definition meanwhile: then what runs is not of its size.)
                let current = self.domain.as_ref().is_some_and(|domain| self.is_current(domain));
                if current && self.record.running != Some(self.size()) {
                    self.record.running = Some(self.size());
                    self.keep(ctx);
                }
                self.runs(ctx);
            }
            What::Resume if runs => self.runs(ctx),
            What::Expect => {
                self.moved = MoveProgress::Ready;
                self.reason = None;
                self.pace.succeeded();
            }
            What::Migrate => {
                self.moved = MoveProgress::Left;
                self.domain = None;
                self.reason = None;
            }
            // The domain stopped between the command's end and now: judged like any other stop.
            _ => self.judge(None, ctx),
        }
    }

    fn runs(&mut self, ctx: &mut Context) {
        self.ran = true;
        self.reason = None;
        self.running_since.get_or_insert(ctx.now);
        if let Some(hurt) = self.hurt.take() {
            let message = format!("{} runs again on {} ({hurt})", self.name(), ctx.node);
            self.tell(ctx, false, "Healed", message);
        }
    }

    fn failed(&mut self, what: What, failure: &Failure, ctx: &mut Context) {
        let pause = self.pace.failed(failure.kind, ctx.now);
        let text = format!("{failure}; tried again in {}", seconds(pause));
        if what == What::Expect {
            self.moved = MoveProgress::CannotArrive(failure.message.clone());
        }
        if failure.kind != FailureKind::Unavailable && self.reason.is_none() {
            let message = format!("cannot {what} {} on {}: {failure}", self.name(), ctx.node);
            self.tell(ctx, true, "Failed", message);
        }
        self.reason = Some(text);
    }

    fn tell(&self, ctx: &mut Context, warning: bool, reason: &'static str, message: String) {
        let definition = &self.record.definition;
        ctx.happened((&definition.id.ve, &definition.ve), warning, reason, message);
    }

    /// A long command goes on.
    pub fn progress(&mut self, message: String, now: Instant) {
        if let Some(flight) = &mut self.in_flight {
            flight.heard = now;
            self.reason = Some(message);
        }
    }

    /// Takes a definition and a goal from an order. A new goal or definition forgives old failures.
    pub fn obey(&mut self, definition: VmDefinition, goal: VmGoal, ctx: &mut Context) {
        let changed = self.record.definition != definition || self.record.goal != goal;
        if changed {
            self.came = self.record.goal == VmGoal::Arrive && goal == VmGoal::Run;
            let other = self.record.definition.epoch != definition.epoch;
            if other || self.record.goal != goal {
                self.record.completed = false;
                self.record.crashed = false;
            }
            self.opened &= !other;
            self.record.definition = definition;
            self.record.goal = goal;
            self.pace.succeeded();
            self.pace.at_once();
            self.reason = None;
            if goal != VmGoal::Run {
                self.ends();
            }
        }
        self.keep(ctx);
    }

    /// What it is doing, in a word.
    #[must_use]
    pub fn phase(&self, now: Instant) -> VmPhase {
        let state = self.domain.as_ref().map(|domain| domain.state);
        let runs = state == Some(DomainState::Running);
        match self.record.goal {
            VmGoal::Absent => VmPhase::Waiting,
            VmGoal::Remove => VmPhase::Removing,
            VmGoal::Run if self.record.start == Start::Down && !self.in_transit() => {
                let ended = !runs && self.record.running.is_none();
                if ended { VmPhase::Stopped } else { VmPhase::Stopping }
            }
            VmGoal::Stop if runs || self.record.running.is_some() => VmPhase::Stopping,
            VmGoal::Stop => VmPhase::Stopped,
            VmGoal::Arrive => VmPhase::Arriving,
            VmGoal::Run if self.in_transit() => VmPhase::Migrating,
            VmGoal::Run if self.record.completed => VmPhase::Completed,
            VmGoal::Run if self.in_flight.as_ref().is_some_and(|f| f.what == What::Run) => {
                VmPhase::Starting
            }
            VmGoal::Run if runs => VmPhase::Running,
            VmGoal::Run if matches!(state, Some(DomainState::Paused(_))) => VmPhase::Paused,
            VmGoal::Run if self.record.crashed || !self.pace.is_due(now) => VmPhase::BackOff,
            VmGoal::Run => VmPhase::Starting,
        }
    }

    /// What its hypervisor was told, and does not answer. (A migration may last; it says elsewhere how far it is.)
    fn unanswered(&self, now: Instant) -> Option<String> {
        let flight = self.in_flight.as_ref().filter(|flight| flight.what != What::Migrate)?;
        let silent = now.since(flight.heard) >= SILENT;
        silent.then(|| {
            let before = self.reason.as_ref().map(|reason| format!(" (before: {reason})"));
            format!(
                "the hypervisor was told to {} it, and has not answered for {}{}",
                flight.what,
                seconds(SILENT),
                before.unwrap_or_default()
            )
        })
    }

    /// Why it is not as it should be, was last ordered to be, or should leave: the first of these that holds.
    #[must_use]
    pub fn why(&self, now: Instant) -> Option<String> {
        let here =
            self.unanswered(now).or_else(|| self.reason.clone()).or_else(|| self.refused.clone());
        let leave =
            || self.cannot_leave.as_ref().map(|why| format!("cannot leave its node: {why}"));
        here.or_else(leave)
    }

    /// What its handler is told.
    #[must_use]
    pub fn observed(&self, now: Instant) -> VmObserved {
        let definition = &self.record.definition;
        let revision = self.domain.as_ref().map_or(definition.revision, |domain| domain.revision);
        VmObserved {
            id: definition.id.clone(),
            epoch: definition.epoch,
            revision,
            promised: self.record.promise.is_some(),
            accepted: definition.revision,
            phase: self.phase(now),
            domain: self.domain.clone(),
            reason: self.why(now),
            restarts: self.record.restarts,
            transit: self.record.transit.clone(),
            moved: self.moved.clone(),
            crashed: self.record.crashed,
            held: self.is_held(),
        }
    }
}

fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(2) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{} s", duration.as_secs())
    }
}
