//! The restart of a whole environment, after a crash for which its declaration asks that; and which of its VMs start before which.
//!
//! ```text
//!   a VM says that it crashed, or its node is gone
//!     ──restarting──> each node stops its VMs, and keeps their room ──all are down──> none is restarting: they start,
//!                                                                                     those that others depend on first
//! ```

use super::status;
use super::veh::{Rooms, Veh};
use crate::engine::context::Context;
use crate::engine::id::VmId;
use crate::engine::record::{Placement, Start, VeRecord};
use crate::engine::report::VmPhase;
use crate::engine::spec::BackOff;
use crate::engine::time::Instant;

/// What a handler knows of restarts that is not in its record: another that takes over begins anew.
#[derive(Debug, Default)]
pub struct Restarts {
    /// Crashes in a row.
    crashes: u32,
    /// When its VMs were last let start.
    let_at: Option<Instant>,
    /// When they may be let start again.
    due: Option<Instant>,
}

impl Restarts {
    /// When a pause ends.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.due
    }

    /// Nothing is to be started.
    pub fn rest(&mut self) {
        self.due = None;
    }
}

impl Veh {
    /// Begins a restart when a VM asks for it, and ends it when every VM is down.
    pub(super) fn follow_restart(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        self.restarts.due = self.restarts.due.filter(|due| *due > ctx.now);
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        if record.restarting.is_some() {
            if self.restarts.due.is_none() && self.are_down(record, rooms) {
                self.restarts.let_at = Some(ctx.now);
                rooms.registers.change(&self.ve, |record| record.restarting = None);
            }
            return;
        }
        let crashed = record.placements.iter().filter(|(id, placement)| {
            let seen = self.observed(&placement.node, id);
            seen.is_some_and(|seen| seen.crashed && seen.epoch == placement.epoch)
        });
        let name = &record.declared.name;
        let crashed: Vec<String> = crashed.map(|(id, _)| name.vm(id)).collect();
        if !crashed.is_empty() {
            self.restart_whole(format!("{} crashed", status::some(&crashed)), rooms, ctx);
        }
    }

    /// All VMs are to be stopped, then started.
    pub(super) fn restart_whole(&mut self, why: String, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        if record.restarting.is_some() || !record.declared.is_to_run() {
            return;
        }
        let stable = |at: Instant| ctx.now.since(at) >= BackOff::STABLE_AFTER;
        if self.restarts.let_at.is_some_and(stable) {
            self.restarts.crashes = 0;
        }
        let pause = record.declared.spec.recovery.back_off.pause(self.restarts.crashes);
        self.restarts.crashes += 1;
        self.restarts.due = (!pause.is_zero()).then_some(ctx.now + pause);
        let name = record.declared.name.clone();
        let when = if pause.is_zero() {
            String::new()
        } else {
            format!(", {} s from now at the earliest", pause.as_secs())
        };
        let message = format!("{why}: all VMs are stopped, then started{when}");
        ctx.happened((&self.ve, &name), true, "Restarting", message);
        rooms.registers.change(&self.ve, |record| record.restarting = Some(why));
    }

    /// Every VM that is placed has ended, by what its node said under the newest order, or with its node.
    fn are_down(&self, record: &VeRecord, rooms: &Rooms<'_>) -> bool {
        record.placements.iter().filter(|(_, placement)| placement.active).all(|(id, placement)| {
            let node = &placement.node;
            let gone = !record.leases.contains_key(node) && !rooms.is_live(node);
            let seen = self.observed(node, id).filter(|_| self.is_up_to_date(node));
            let down = seen.is_some_and(|seen| {
                seen.epoch == placement.epoch && seen.phase == VmPhase::Stopped
            });
            placement.moving.is_none() && (gone || down)
        })
    }

    /// Whether a VM may be started, for its node's next order.
    pub(super) fn start_of(
        &self,
        record: &VeRecord,
        (id, placement): (&VmId, &Placement),
        rooms: &Rooms<'_>,
    ) -> Start {
        if record.restarting.is_some() {
            // One that moves is called off first: until then nobody knows where it is.
            return if placement.moving.is_none() { Start::Down } else { Start::Free };
        }
        let held = self.observed(&placement.node, id).is_some_and(|seen| seen.held);
        if self.waits_for(record, id, rooms).is_empty() || self.was_let(id, placement) && !held {
            Start::Free
        } else {
            Start::Waits
        }
    }

    /// Members that a VM's start waits for.
    pub(super) fn waits_for(&self, record: &VeRecord, id: &VmId, rooms: &Rooms<'_>) -> Vec<String> {
        let spec = &record.declared.spec;
        let member = spec.members.iter().find(|member| member.name == id.member);
        let depends_on = member.map(|member| member.depends_on.as_slice()).unwrap_or_default();
        let is_up = |vm: &VmId| {
            let Some(placement) = record.placements.get(vm) else { return false };
            let phase =
                |phase| matches!(phase, VmPhase::Running | VmPhase::Migrating | VmPhase::Completed);
            let seen = self.observed(&placement.node, vm);
            rooms.is_live(&placement.node)
                && seen.is_some_and(|seen| seen.epoch == placement.epoch && phase(seen.phase))
        };
        let down = depends_on.iter().filter(|name| {
            let vms = spec.vms(&record.declared.uid);
            vms.filter(|(vm, _)| vm.member == **name).any(|(vm, _)| !is_up(&vm))
        });
        down.map(ToString::to_string).collect()
    }
}
