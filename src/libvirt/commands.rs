//! The engine's commands: in order for each VM, side by side for different ones.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use super::core::{Core, Reports, Session, lock};
use super::disks;
use super::domain::DomainPlan;
use super::error::LibvirtError;
use super::identity::{VmFiles, uuid_of};
use super::sighting::{Look, Sighting};
use crate::engine::effect::HypervisorCommand;
use crate::engine::host::{DomainSeen, DomainState, Failure, FailureKind};
use crate::engine::id::VmId;
use crate::engine::input::HypervisorInput;
use crate::engine::spec::VmDefinition;

/// A guest on its way down is looked at this often, should its event be lost.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Queues a command; one thread works on a VM's queue and ends with it.
pub fn submit(core: &Arc<Core>, request: u64, command: HypervisorCommand) {
    let id = command.vm().clone();
    match &command {
        // It overtakes what waits, and ends nothing itself.
        HypervisorCommand::AbortMigration(id) => return core.moves.abort(id),
        HypervisorCommand::Migrate(_) => core.moves.announce(&id),
        _ => {}
    }
    {
        let mut queues = lock(&core.queues);
        if let Some(queue) = queues.get_mut(&id) {
            queue.push_back((request, command));
            return;
        }
        queues.insert(id.clone(), VecDeque::from([(request, command)]));
    }
    let (worker, of) = (core.clone(), id.clone());
    let spawned = std::thread::Builder::new()
        .name("libvirt-command".into())
        .spawn(move || work(&worker, &of));
    if let Err(error) = spawned {
        // Not blocking: this is the driver's own task. A full queue at this moment loses the report.
        tracing::error!(%error, vm = %id, "no thread for a command");
        let lost = lock(&core.queues).remove(&id).unwrap_or_default();
        for (request, _) in lost {
            let result = Err(LibvirtError::Thread { source: io::Error::other("none") }.failure());
            core.try_report(HypervisorInput::Done { request, id: id.clone(), result });
        }
    }
}

fn work(core: &Arc<Core>, id: &VmId) {
    loop {
        let next = {
            let mut queues = lock(&core.queues);
            match queues.get_mut(id).and_then(VecDeque::pop_front) {
                Some(next) => next,
                None => {
                    queues.remove(id);
                    return;
                }
            }
        };
        let (request, command) = next;
        let started = Instant::now();
        let moving = matches!(command, HypervisorCommand::Migrate(_));
        let result = core.session().map_err(Failure::from).and_then(|session| {
            Job { core, session, id, files: VmFiles::of(&core.config.state_dir, id)? }
                .execute(command)
        });
        finish(core, request, id, result, moving);
        tracing::debug!(vm = %id, request, took = ?started.elapsed(), "command done");
    }
}

/// Reports the end with a fresh look, through the door, so that it is in order with the events.
fn finish(core: &Core, request: u64, id: &VmId, result: Result<(), Failure>, moving: bool) {
    let mut door = core.door();
    let result = match result {
        Ok(()) => fresh(core, &mut door, id).map_err(Failure::from),
        Err(failure) => {
            // Its events were not told, and it has stood still for a while.
            if moving && let Ok(Some(seen)) = fresh(core, &mut door, id) {
                core.report(HypervisorInput::Domain(seen));
            }
            Err(failure)
        }
    };
    door.busy.remove(id);
    if moving {
        core.moves.stays_or_left(id);
    }
    if let Err(failure) = &result {
        tracing::warn!(vm = %id, kind = ?failure.kind, "{failure}");
    }
    core.report(HypervisorInput::Done { request, id: id.clone(), result });
}

/// What a VM's domain is, if it is one that may be told.
fn fresh(core: &Core, door: &mut Reports, id: &VmId) -> Result<Option<DomainSeen>, LibvirtError> {
    let look = core.look_at(&core.session()?, id)?;
    if let Look::Ours(sighting) = &look
        && core.moves.hides(sighting)
    {
        return Ok(None);
    }
    Ok(match door.complete(&core.inbox, look) {
        Look::Ours(sighting) => Some(sighting.seen),
        Look::Arriving => None,
        Look::Absent | Look::Foreign(_) => {
            door.forget(&core.inbox, &uuid_of(id).to_string());
            None
        }
    })
}

/// One command.
pub struct Job<'a> {
    pub core: &'a Core,
    pub session: Arc<Session>,
    pub id: &'a VmId,
    pub files: VmFiles,
}

impl Job<'_> {
    fn execute(&self, command: HypervisorCommand) -> Result<(), Failure> {
        if !matches!(command, HypervisorCommand::Expect { .. }) {
            self.end_expectation()?;
        }
        match command {
            HypervisorCommand::Run(definition) => self.run(&definition),
            HypervisorCommand::Resume(_) => self.resume(),
            HypervisorCommand::Stop { grace, .. } => self.stop(grace),
            HypervisorCommand::Remove(_) => self.remove(),
            HypervisorCommand::Expect { definition, from } => self.expect(&definition, &from),
            HypervisorCommand::Migrate(migration) => self.migrate(&migration),
            // Carried out where it is submitted.
            HypervisorCommand::AbortMigration(_) => Ok(()),
        }
    }

    /// Our domain, if it exists.
    ///
    /// # Errors
    /// When a domain that is not ours has its uuid.
    pub fn look(&self) -> Result<Option<Box<Sighting>>, Failure> {
        match self.core.look_at(&self.session, self.id)? {
            Look::Absent | Look::Arriving => Ok(None),
            Look::Ours(sighting) => Ok(Some(sighting)),
            Look::Foreign(name) => {
                let message = format!(
                    "domain {name} has the uuid of this VM and not its metadata; it is not touched: \
                     undefine it to have the VM made anew"
                );
                Err(Failure { kind: FailureKind::Refused, message })
            }
        }
    }

    fn run(&self, definition: &VmDefinition) -> Result<(), Failure> {
        let same = |seen: &DomainSeen| {
            seen.epoch == definition.epoch && seen.revision == definition.revision
        };
        let found = self.look()?;
        if let Some(sighting) = &found
            && sighting.seen.state == DomainState::Running
            && same(&sighting.seen)
            && sighting.seen.edited.is_none()
        {
            return Ok(());
        }
        let prepared = self.prepare(definition)?;
        let plan = DomainPlan {
            definition,
            kind: self.session.kind,
            kernel: prepared.plan_kernel.clone(),
            disks: prepared.disks.clone(),
            console: self.files.console(),
        };
        let xml = plan.xml()?;
        self.begin();
        // Fetching may have taken long.
        let found = self.look()?;
        let declared = plan.projection();
        if let Some(sighting) = &found
            && !matches!(sighting.seen.state, DomainState::Stopped(_))
        {
            if same(&sighting.seen) && sighting.live.as_ref() == Some(&declared) {
                // The guest itself is as declared: mend its definition without a restart.
                if sighting.seen.edited.is_some() {
                    tracing::info!(vm = %self.id, "defined again; its guest runs on");
                    self.define(xml)?;
                }
                return self.wake(sighting.seen.state);
            }
            tracing::info!(vm = %self.id, edited = ?sighting.seen.edited, "stopped, to follow its definition");
            self.end(self.core.config.restart_grace, sighting.seen.state)?;
        }
        self.define(xml)?;
        self.core.slow_call(&self.session, "start a domain", {
            let uuid = uuid_of(self.id);
            move |connect| {
                let domain = Domain::lookup_by_uuid(connect, uuid)?;
                domain.create().map(drop)
            }
        })?;
        Ok(())
    }

    /// From here on the command changes the domain: its events are not told, its end is.
    pub fn begin(&self) {
        self.core.door().busy.insert(self.id.clone());
    }

    fn define(&self, xml: String) -> Result<(), Failure> {
        let defined = self.core.slow_call(&self.session, "define a domain", move |connect| {
            Domain::define_xml(connect, &xml).map(drop)
        });
        defined.map_err(Failure::from)
    }

    pub fn wake(&self, state: DomainState) -> Result<(), Failure> {
        if !matches!(state, DomainState::Paused(_)) {
            return Ok(());
        }
        self.on_domain("resume a domain", |domain| domain.resume().map(drop))
    }

    fn resume(&self) -> Result<(), Failure> {
        match self.look()? {
            Some(sighting) => self.wake(sighting.seen.state),
            None => Ok(()),
        }
    }

    fn stop(&self, grace: Duration) -> Result<(), Failure> {
        match self.look()? {
            Some(sighting) => {
                self.begin();
                self.end(grace, sighting.seen.state)
            }
            None => Ok(()),
        }
    }

    fn remove(&self) -> Result<(), Failure> {
        if let Some(sighting) = self.look()? {
            self.begin();
            self.end(Duration::ZERO, sighting.seen.state)?;
            self.on_domain("undefine a domain", undefine)?;
        }
        if self.core.test {
            return Ok(());
        }
        disks::remove(&self.files)
    }

    /// Ends the guest: asks it first, if it may take time; a paused guest cannot hear.
    fn end(&self, grace: Duration, state: DomainState) -> Result<(), Failure> {
        if matches!(state, DomainState::Stopped(_)) {
            // A start of it that was given up may be under way still, and is shown so: libvirt ends that too.
            return self.destroy();
        }
        if !grace.is_zero() && state == DomainState::Running {
            let asked =
                self.on_domain("ask a domain to shut down", |domain| domain.shutdown().map(drop));
            if let Err(failure) = asked {
                tracing::info!(vm = %self.id, %failure, "cannot be asked to power off");
            } else if self.is_down_within(grace)? {
                return Ok(());
            }
        }
        self.destroy()
    }

    /// Ends the guest on the spot.
    pub fn destroy(&self) -> Result<(), Failure> {
        let destroyed = self.core.slow_call(&self.session, "destroy a domain", {
            let uuid = uuid_of(self.id);
            move |connect| Domain::lookup_by_uuid(connect, uuid)?.destroy()
        });
        match destroyed {
            Err(error) if error.is_no_domain() || error.is_wrong_state() => Ok(()),
            other => other.map_err(Failure::from),
        }
    }

    fn is_down_within(&self, grace: Duration) -> Result<bool, Failure> {
        let deadline = Instant::now() + grace;
        loop {
            match self.look()? {
                None => return Ok(true),
                Some(found) if matches!(found.seen.state, DomainState::Stopped(_)) => {
                    return Ok(true);
                }
                Some(_) => {}
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || self.core.inbox.ended() {
                return Ok(false);
            }
            self.core.inbox.wait_for_any(left.min(LOOK_EVERY));
        }
    }

    /// A call on the domain; one that is gone or already in the wanted state is no failure.
    pub fn on_domain(
        &self,
        what: &'static str,
        call: impl FnOnce(&Domain) -> Result<(), Error> + Send + 'static,
    ) -> Result<(), Failure> {
        let uuid = uuid_of(self.id);
        let done = self.core.slow_call(&self.session, what, move |connect: &Connect| {
            call(&Domain::lookup_by_uuid(connect, uuid)?)
        });
        match done {
            Err(error) if error.is_no_domain() || error.is_wrong_state() => Ok(()),
            other => other.map_err(Failure::from),
        }
    }
}

/// Takes the definition away.
pub fn undefine(domain: &Domain) -> Result<(), Error> {
    // All that libvirt itself keeps of a domain; drivers that keep nothing refuse the flags.
    let flags = sys::VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | sys::VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | sys::VIR_DOMAIN_UNDEFINE_NVRAM;
    domain.undefine_flags(flags).or_else(|_| domain.undefine())
}
