//! A VM's live migration, on the side of either node: what its handler of this node does, and what it says of it.
//!
//! ```text
//!   order: leaving ──Migrate──> Left | Stayed(why) | NotHere      whatever it is, nothing more is done with the domain
//!   order: halted ──AbortMigration, if it is under way──> the same
//!   order: no part in any ──> the domain is looked at again as ever
//! ```

use std::time::Duration;

use super::vmh::{Vmh, What};
use crate::engine::context::Context;
use crate::engine::effect::{Action, HypervisorCommand, Migration};
use crate::engine::host::{DomainState, Failure, FailureKind};
use crate::engine::record::{Transit, VmGoal};
use crate::engine::report::MoveProgress;
use crate::engine::spec::VmDefinition;

/// A migration is given up after this time, and a second for each [`SLOWEST`] bytes of memory and disks.
const MIGRATE_WITHIN: Duration = Duration::from_secs(120);
/// Bytes a second that a migration makes at least.
const SLOWEST: u64 = 16 << 20;

impl Vmh {
    /// It is being sent away, or nobody knows yet whether it was: nothing is done with its domain.
    #[must_use]
    pub fn in_transit(&self) -> bool {
        matches!(self.record.transit, Transit::Leaving { .. } | Transit::Halted)
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

    /// The word that a halt asks for, when there is no migration whose end would say it.
    pub(super) fn answer_halt(&mut self) {
        let asked = self.record.transit == Transit::Halted && self.moved == MoveProgress::Open;
        if asked && self.record.goal == VmGoal::Run && !self.is_migrating() {
            let state = self.domain.as_ref().map(|domain| domain.state);
            let here = matches!(state, Some(DomainState::Running | DomainState::Paused));
            self.moved = if here {
                MoveProgress::Stayed("called off".into())
            } else {
                MoveProgress::NotHere
            };
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
    pub(super) fn migration(&self) -> Option<Migration> {
        let Transit::Leaving { to, epoch, .. } = &self.record.transit else { return None };
        let current = &self.record.definition;
        let revision = self.domain.as_ref().map_or(current.revision, |domain| domain.revision);
        let definition = VmDefinition { epoch: *epoch, revision, ..current.clone() };
        let bytes = definition.disks.iter().map(|disk| disk.size).sum::<u64>() + definition.memory;
        let limit = MIGRATE_WITHIN + Duration::from_secs(bytes / SLOWEST);
        Some(Migration { definition, to: to.clone(), bandwidth: None, limit })
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
