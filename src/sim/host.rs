//! A machine with a hypervisor: domains that start, stop, crash, and survive their agent.

use std::collections::BTreeMap;

use crate::engine::effect::HypervisorCommand;
use crate::engine::host::{
    Acceleration, DomainSeen, DomainState, Failure, FailureKind, HostInfo, StopCause,
};
use crate::engine::id::VmId;
use crate::engine::spec::{Resources, VmDefinition};

/// A machine's hypervisor.
#[derive(Debug)]
pub struct Host {
    capacity: Resources,
    boots: u64,
    domains: BTreeMap<VmId, (DomainSeen, Resources)>,
    /// Disks, by VM: they outlive the power.
    pub disks: BTreeMap<VmId, u32>,
}

impl Host {
    /// A machine of this size without domains.
    #[must_use]
    pub fn new(capacity: Resources) -> Self {
        Self { capacity, boots: 1, domains: BTreeMap::new(), disks: BTreeMap::new() }
    }

    /// What its hypervisor tells.
    #[must_use]
    pub fn info(&self) -> HostInfo {
        HostInfo {
            capacity: self.capacity,
            storage: 1 << 40,
            acceleration: Acceleration::Emulation,
            hypervisor: "simulated".into(),
            boot_id: self.boots.to_string(),
        }
    }

    /// Every domain.
    #[must_use]
    pub fn list(&self) -> Vec<DomainSeen> {
        self.domains.values().map(|(seen, _)| seen.clone()).collect()
    }

    /// VMs that run now, with what they take.
    pub fn running(&self) -> impl Iterator<Item = (&VmId, &Resources)> {
        let up = |state| matches!(state, DomainState::Running | DomainState::Paused);
        self.domains.iter().filter(move |(_, (seen, _))| up(seen.state)).map(|(id, (_, r))| (id, r))
    }

    /// Power is lost: every domain ends, definitions stay.
    pub fn power_off(&mut self) {
        self.boots += 1;
        for (seen, _) in self.domains.values_mut() {
            seen.state = DomainState::Stopped(StopCause::Unknown);
        }
    }

    /// A guest stops by itself. Returns what its hypervisor shows.
    pub fn stop_guest(&mut self, id: &VmId, cause: StopCause) -> Option<DomainSeen> {
        let (seen, _) = self.domains.get_mut(id)?;
        if seen.state != DomainState::Running {
            return None;
        }
        seen.state = DomainState::Stopped(cause);
        Some(seen.clone())
    }

    /// Somebody undefines a domain behind the agent's back.
    pub fn undefine(&mut self, id: &VmId) -> bool {
        self.domains.remove(id).is_some()
    }

    /// Carries out a command.
    ///
    /// # Errors
    /// Resuming a domain that does not exist.
    pub fn carry_out(
        &mut self,
        command: &HypervisorCommand,
    ) -> Result<Option<DomainSeen>, Failure> {
        match command {
            HypervisorCommand::Run(definition) => Ok(Some(self.run(definition))),
            HypervisorCommand::Resume(id) => match self.domains.get_mut(id) {
                Some((seen, _)) => {
                    seen.state = DomainState::Running;
                    Ok(Some(seen.clone()))
                }
                None => {
                    Err(Failure { kind: FailureKind::Refused, message: "no such domain".into() })
                }
            },
            HypervisorCommand::Stop { id, .. } => Ok(self.domains.get_mut(id).map(|(seen, _)| {
                seen.state = DomainState::Stopped(StopCause::Shutdown);
                seen.clone()
            })),
            HypervisorCommand::Remove(id) => {
                self.domains.remove(id);
                self.disks.remove(id);
                Ok(None)
            }
            HypervisorCommand::Expect { .. }
            | HypervisorCommand::Migrate(_)
            | HypervisorCommand::AbortMigration(_) => {
                Err(Failure { kind: FailureKind::Refused, message: "does not migrate".into() })
            }
        }
    }

    fn run(&mut self, definition: &VmDefinition) -> DomainSeen {
        let size = Resources::of(definition.cpus, definition.memory);
        *self.disks.entry(definition.id.clone()).or_default() += 1;
        let seen = DomainSeen {
            id: definition.id.clone(),
            uuid: format!("uuid-of-{}", definition.id),
            epoch: definition.epoch,
            revision: definition.revision,
            state: DomainState::Running,
            edited: None,
        };
        self.domains.insert(definition.id.clone(), (seen.clone(), size));
        seen
    }
}
