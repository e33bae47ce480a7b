//! What the hypervisor shows of a VM, compared with what is meant to be: was it hurt, has it ended by itself, and what is done
//! about it.

use super::{Vmh, seconds};
use crate::engine::context::Context;
use crate::engine::host::{DomainSeen, DomainState, PauseCause, StopCause};
use crate::engine::record::{Start, VmGoal};
use crate::engine::spec::{BackOff, OnNodeCrash, OnVmCrash, RunStrategy};

/// A guest that ends so often in a row does so in a loop.
const CRASH_LOOP: u32 = 3;

/// What is done about a guest that ended.
enum Next {
    /// It is started again.
    Again,
    /// All VMs of its environment are.
    WithItsEnvironment,
    /// Nothing, by what.
    Left(&'static str),
}

impl Vmh {
    /// Compares what is shown with the goal, when no command is under way.
    pub(in crate::engine::lrt) fn judge(&mut self, before: Option<&DomainSeen>, ctx: &mut Context) {
        let record = &self.record;
        let over = record.completed || record.crashed || record.start == Start::Down;
        if record.goal != VmGoal::Run || over || self.in_transit() {
            return;
        }
        if ctx.lapsed {
            return self.lapsed(ctx);
        }
        match self.domain.as_ref().map(|domain| (domain.state, domain.edited.clone())) {
            Some((DomainState::Running, None)) => self.runs(ctx),
            Some((_, Some(edited))) => self.hurt_by(&format!("was edited: {edited}"), ctx),
            // It has just arrived, and is about to be continued.
            Some((DomainState::Paused(_), None)) if self.came && self.running_since.is_none() => {}
            Some((DomainState::Paused(cause), None)) => self.has_paused(cause, ctx),
            Some((DomainState::Stopped(cause), None)) if self.ran => {
                // The same stop seen twice (an event, then a full pass) is one stop.
                let known = before.is_some_and(|b| matches!(b.state, DomainState::Stopped(_)));
                if !known || self.running_since.is_some() {
                    self.stopped(cause, ctx);
                }
            }
            None if self.ran && before.is_some() => {
                self.running_since = None;
                self.hurt_by("was undefined", ctx);
                self.record.restarts += 1;
                self.keep(ctx);
            }
            _ => {}
        }
    }

    /// Its node is not heard, and its guard ends what runs: whatever is seen now is no deed of the guest's.
    fn lapsed(&mut self, ctx: &mut Context) {
        let runs = self.domain.as_ref().is_some_and(|domain| domain.state == DomainState::Running);
        if !runs {
            self.running_since = None;
            let what = "was ended, as its node was not heard by its guardians";
            self.hurt.get_or_insert_with(|| what.to_owned());
            self.reason = Some(what.to_owned());
            if self.ran && self.record.definition.recovery.on_node_crash == OnNodeCrash::RestartVe {
                self.record.crashed = true;
                self.keep(ctx);
            }
        }
    }

    /// It is continued.
    fn has_paused(&mut self, cause: PauseCause, ctx: &mut Context) {
        // The same pause seen twice (an event, then a full pass) is one pause.
        if self.hurt.is_none() {
            self.pace.paused(ctx.now);
        }
        let what = match cause {
            PauseCause::DiskError => {
                "was paused, as its disk cannot be read or written (is the node's disk full?)"
            }
            PauseCause::Other => "was paused",
        };
        self.hurt_by(what, ctx);
    }

    fn hurt_by(&mut self, what: &str, ctx: &mut Context) {
        if self.hurt.is_none() {
            self.hurt = Some(what.to_owned());
            self.reason = Some(what.to_owned());
            let message = format!("{} {what} on {}; it is put right", self.name(), ctx.node);
            self.tell(ctx, true, "Disturbed", message);
        }
    }

    /// The domain stopped by itself or was ended; the run strategy decides.
    fn stopped(&mut self, cause: StopCause, ctx: &mut Context) {
        self.came = false;
        let uptime = self.running_since.take().map(|since| ctx.now.since(since));
        if uptime.is_some_and(|uptime| uptime >= BackOff::STABLE_AFTER) {
            self.pace.succeeded();
        }
        let (word, reason) = match cause {
            StopCause::Shutdown => ("powered itself off", "PoweredOff"),
            StopCause::Crashed => ("crashed", "Crashed"),
            StopCause::Destroyed => ("was destroyed", "Destroyed"),
            StopCause::Failed => ("was ended by the hypervisor", "Crashed"),
            StopCause::Unknown => ("was not running", "Stopped"),
        };
        let next = self.after(cause);
        let what_next = match next {
            Next::Again => {
                let back_off = &self.record.definition.recovery.back_off;
                let (pause, times) = self.pace.ended(back_off, ctx.now);
                self.record.restarts += 1;
                self.hurt = Some(word.to_owned());
                let often = if times >= CRASH_LOOP {
                    format!("{times} times in a row; ")
                } else {
                    String::new()
                };
                let when =
                    if pause.is_zero() { "now".into() } else { format!("in {}", seconds(pause)) };
                format!("{often}started again {when}")
            }
            Next::WithItsEnvironment => {
                self.record.crashed = true;
                self.record.running = None;
                self.record.restarts += 1;
                "its environment is to be restarted for that".to_owned()
            }
            Next::Left(by) => {
                self.record.completed = true;
                self.record.running = None;
                format!("{by} leaves it so")
            }
        };
        self.reason = Some(format!("{word}; {what_next}"));
        let message = format!("{} {word} on {}; {what_next}", self.name(), ctx.node);
        self.tell(ctx, cause != StopCause::Shutdown, reason, message);
        self.keep(ctx);
    }

    /// What is done about a guest that ended.
    fn after(&self, cause: StopCause) -> Next {
        let definition = &self.record.definition;
        let again = match definition.run_strategy {
            RunStrategy::Always => true,
            RunStrategy::RerunOnFailure => cause != StopCause::Shutdown,
            // A node that lost its power ended the guest; the guest itself did not end.
            RunStrategy::Once => cause == StopCause::Unknown,
        };
        if !again {
            return Next::Left("its run strategy");
        }
        let recovery = &definition.recovery;
        match cause {
            StopCause::Shutdown => Next::Again,
            StopCause::Unknown if recovery.on_node_crash == OnNodeCrash::RestartVe => {
                Next::WithItsEnvironment
            }
            StopCause::Unknown => Next::Again,
            StopCause::Crashed | StopCause::Destroyed | StopCause::Failed => {
                match recovery.on_vm_crash {
                    OnVmCrash::Restart => Next::Again,
                    OnVmCrash::RestartVe => Next::WithItsEnvironment,
                    OnVmCrash::Leave => Next::Left("its environment's recovery"),
                }
            }
        }
    }
}
