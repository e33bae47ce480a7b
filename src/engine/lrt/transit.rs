//! A VM's live migration, on the side of either node: what its handler of this node does, and what it says of it.
//!
//! ```text
//!   order: leaving ──Migrate──> Left | Stayed(why) | NotHere      whatever it is, nothing more is done with the domain
//!   order: halted ──AbortMigration, if it is under way──> the same
//!   either, and it does not run, but may have been told to start ──Stop──> as above
//!   order: no part in any ──> the domain is looked at again as ever
//! ```

use std::time::Duration;

use super::vmh::{Vmh, What};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::effect::{Action, HypervisorCommand, Migration};
use crate::engine::host::{DomainSeen, Failure, FailureKind};
use crate::engine::record::{Transit, VmGoal};
use crate::engine::report::MoveProgress;
use crate::engine::spec::VmDefinition;

/// A migration is given up after this time, and a second for each [`SLOWEST`] bytes of memory and disks.
const MIGRATE_WITHIN: Duration = Duration::from_secs(120);
/// Bytes a second that a migration makes at least, unless it is kept slower.
const SLOWEST: u64 = 16 << 20;

/// What live migrations may take of a node, as its cluster wants it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MigrationLimits {
    /// Most bytes a second for the VMs that leave the node, together; without, it is left to the network.
    pub bandwidth: Option<u64>,
    /// VMs that leave a node at the same time: they share its link, and each is copied the sooner the fewer there are.
    pub out: usize,
    /// VMs that a node lets arrive at the same time.
    pub into: usize,
}

impl Default for MigrationLimits {
    fn default() -> Self {
        Self { bandwidth: None, out: 2, into: 2 }
    }
}

impl MigrationLimits {
    /// What one VM may have of the bandwidth: its share, also while it is alone, as others may follow.
    fn each(&self) -> Option<u64> {
        self.bandwidth.map(|bytes| (bytes / self.out.max(1) as u64).max(1))
    }

    /// When a migration of so many bytes is given up. It may be kept slower than what is slow otherwise; half of what it
    /// may have is for what the guest writes meanwhile.
    fn patience(&self, bytes: u64) -> Duration {
        let slowest = self.each().map_or(SLOWEST, |each| SLOWEST.min((each / 2).max(1)));
        MIGRATE_WITHIN + Duration::from_secs(bytes / slowest)
    }
}

impl Vmh {
    /// It is being sent away, or nobody knows yet whether it was: nothing is done with its domain.
    #[must_use]
    pub fn in_transit(&self) -> bool {
        let sent = !has(Bug::LeavingRestarts) || self.moved == MoveProgress::Open;
        sent && matches!(self.record.transit, Transit::Leaving { .. } | Transit::Halted)
    }

    /// Its migration is under way on this node.
    #[must_use]
    pub fn is_migrating(&self) -> bool {
        self.in_flight.as_ref().is_some_and(|flight| flight.what == What::Migrate)
    }

    /// Its next command would be to send it away.
    #[must_use]
    pub fn wants_to_leave(&self) -> bool {
        self.in_flight.is_none() && self.wanted() == Some(What::Migrate)
    }

    /// The word that a halt asks for, when there is no migration whose end would say it. That it is not here is said when nothing can
    /// start it any more.
    pub(super) fn answer_halt(&mut self) {
        let asked = self.record.transit == Transit::Halted && self.moved == MoveProgress::Open;
        if !asked || self.record.goal != VmGoal::Run || self.is_migrating() {
            return;
        }
        if self.domain.as_ref().is_some_and(DomainSeen::may_run) {
            self.moved = MoveProgress::Stayed("called off".into());
        } else if self.in_flight.is_none() && self.record.running.is_none() {
            self.moved = MoveProgress::NotHere;
        }
    }

    /// One that still runs at a former, larger size does not go: what its target has promised is for the size that is declared.
    pub(super) fn stay_while_larger(&mut self) {
        let leaves = self.record.goal == VmGoal::Run
            && matches!(self.record.transit, Transit::Leaving { .. })
            && self.moved == MoveProgress::Open
            && self.in_flight.is_none();
        let larger = self.record.running.is_some_and(|running| !self.size().holds(&running));
        if leaves && larger {
            self.moved = MoveProgress::Stayed("still runs at its former, larger size".into());
        }
    }

    /// A migration that is no longer wanted is told to give up; it then ends by itself.
    pub(super) fn abort_if_called_off(&mut self, next_request: &mut u64, ctx: &mut Context) {
        let wanted = self.record.goal == VmGoal::Run
            && matches!(self.record.transit, Transit::Leaving { .. });
        let id = self.record.definition.id.clone();
        if let Some(flight) = &mut self.in_flight
            && flight.what == What::Migrate
            && !flight.aborted
            && !wanted
        {
            flight.aborted = true;
            *next_request += 1;
            let command = HypervisorCommand::AbortMigration(id);
            ctx.out.actions.push(Action::Hypervisor { request: *next_request, command });
        }
    }

    /// The command to send it where the order says. It stays the machine that runs now: of its revision.
    pub(super) fn migration(&self, limits: &MigrationLimits) -> Option<Migration> {
        let Transit::Leaving { to, epoch, .. } = &self.record.transit else { return None };
        let current = &self.record.definition;
        let revision = self.domain.as_ref().map_or(current.revision, |domain| domain.revision);
        let definition = VmDefinition { epoch: *epoch, revision, ..current.clone() };
        let bytes = definition.disks.iter().map(|disk| disk.size).sum::<u64>() + definition.memory;
        let (bandwidth, limit) = (limits.each(), limits.patience(bytes));
        Some(Migration { definition, to: to.clone(), bandwidth, limit })
    }

    /// It was not sent. What the hypervisor shows of it is looked at when the next order lets this node act again.
    pub(super) fn stayed(&mut self, failure: &Failure) {
        self.moved = if failure.kind == FailureKind::NotHere {
            MoveProgress::NotHere
        } else {
            MoveProgress::Stayed(failure.message.clone())
        };
        self.reason = Some(format!("stays: {failure}"));
    }

    /// Takes its part in a migration from an order.
    pub fn take_part(&mut self, transit: Transit, ctx: &mut Context) {
        if self.record.transit == transit {
            return;
        }
        let ends = transit == Transit::None;
        self.cannot_leave = None;
        if transit != Transit::Halted {
            self.moved = MoveProgress::Open;
        }
        self.record.transit = transit;
        self.keep(ctx);
        if ends {
            self.reason = None;
            if self.in_flight.is_none() {
                // What happened to it meanwhile counts from now on.
                self.judge(None, ctx);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::VmRecord;
    use crate::engine::time::Instant;

    fn command_of(action: Action) -> Option<(u64, HypervisorCommand)> {
        match action {
            Action::Hypervisor { request, command } => Some((request, command)),
            _ => None,
        }
    }

    /// The command that it gives now, if any.
    fn command(vmh: &mut Vmh, ctx: &mut Context) -> Option<(u64, HypervisorCommand)> {
        let mut next = vmh.in_flight.as_ref().map_or(0, |flight| flight.request);
        vmh.act(true, &mut next, &MigrationLimits::default(), ctx);
        let actions = std::mem::take(&mut ctx.out.actions);
        actions.into_iter().find_map(command_of)
    }

    /// It was started where it had been, by a hypervisor that had not answered, after its node had said that it was not there, and ran
    /// elsewhere (seed 96870 of the fuzz).
    #[test]
    fn that_a_vm_is_not_here_is_said_when_nothing_can_start_it_any_more() {
        let (mut vmh, mut ctx) =
            (Vmh::new(VmRecord::sample()), Context::sample("n1", Instant::ZERO));
        let (start, run) = command(&mut vmh, &mut ctx).expect("it is started");
        assert!(matches!(run, HypervisorCommand::Run(_)));
        vmh.take_part(Transit::Halted, &mut ctx);
        assert_eq!(command(&mut vmh, &mut ctx), None);
        assert_eq!(vmh.moved, MoveProgress::Open, "it is being started");
        let silent = || Failure { kind: FailureKind::Unavailable, message: "no answer".into() };
        vmh.done(start, Err(silent()), &mut ctx);
        ctx.now = ctx.now + Duration::from_secs(60);
        let (stop, told) = command(&mut vmh, &mut ctx).expect("what may start is ended");
        assert!(matches!(told, HypervisorCommand::Stop { .. }));
        assert_eq!(vmh.moved, MoveProgress::Open, "it may be starting still");
        vmh.done(stop, Ok(None), &mut ctx);
        assert_eq!(command(&mut vmh, &mut ctx), None);
        assert_eq!(vmh.moved, MoveProgress::NotHere);
    }

    #[test]
    fn vms_that_leave_share_the_bandwidth_and_have_the_time_that_it_takes() {
        let unlimited = MigrationLimits::default();
        assert_eq!(unlimited.each(), None);
        assert_eq!(unlimited.patience(1 << 30), Duration::from_secs(120 + 64));
        let ample = MigrationLimits { bandwidth: Some(200 << 20), ..unlimited };
        assert_eq!(ample.each(), Some(100 << 20));
        assert_eq!(ample.patience(1 << 30), unlimited.patience(1 << 30));
        let narrow = MigrationLimits { bandwidth: Some(8 << 20), out: 1, ..unlimited };
        assert_eq!(narrow.each(), Some(8 << 20));
        assert_eq!(narrow.patience(1 << 30), Duration::from_secs(120 + 256));
    }
}
