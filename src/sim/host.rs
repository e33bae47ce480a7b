//! A machine with a hypervisor: domains that start, stop, crash, and survive their agent.

use std::collections::BTreeMap;

use crate::engine::effect::HypervisorCommand;
use crate::engine::host::{
    Acceleration, DomainSeen, DomainState, Failure, FailureKind, HostInfo, PauseCause, StopCause,
};
use crate::engine::id::{NodeName, VmId};
use crate::engine::spec::{Resources, VmDefinition};

/// A domain, and the machine in it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// As its hypervisor shows it.
    pub seen: DomainSeen,
    /// What it takes.
    pub size: Resources,
    /// Which start of the VM this is: goes with its memory to another host.
    pub start: u64,
    /// It came by live migration, and has not been continued.
    pub arrived: bool,
}

/// A machine's hypervisor.
#[derive(Debug)]
pub struct Host {
    capacity: Resources,
    boots: u64,
    domains: BTreeMap<VmId, Guest>,
    /// VMs that may arrive: from where, and as which placement.
    expected: BTreeMap<VmId, (NodeName, VmDefinition)>,
    /// It stands still, and does what it is told when it goes on.
    pub stalled: bool,
    /// Disks, by VM: they outlive the power. How often the VM was started from them.
    pub disks: BTreeMap<VmId, u32>,
}

impl Host {
    /// A machine of this size without domains.
    #[must_use]
    pub fn new(capacity: Resources) -> Self {
        Self {
            capacity,
            boots: 1,
            domains: BTreeMap::new(),
            expected: BTreeMap::new(),
            stalled: false,
            disks: BTreeMap::new(),
        }
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
        self.domains.values().map(|guest| guest.seen.clone()).collect()
    }

    /// A VM's domain.
    #[must_use]
    pub fn guest(&self, id: &VmId) -> Option<&Guest> {
        self.domains.get(id)
    }

    /// VMs that run now, with what they take. One that has arrived and waits to be continued does not run.
    pub fn running(&self) -> impl Iterator<Item = (&VmId, &Resources)> {
        let up = |guest: &Guest| match guest.seen.state {
            DomainState::Running => true,
            DomainState::Paused(_) => !guest.arrived,
            DomainState::Stopped(_) => false,
        };
        self.domains.iter().filter(move |(_, guest)| up(guest)).map(|(id, guest)| (id, &guest.size))
    }

    /// Power is lost: every domain ends, definitions stay.
    pub fn power_off(&mut self) {
        self.boots += 1;
        self.stalled = false;
        self.expected.clear();
        self.domains.retain(|_, guest| !guest.arrived);
        for guest in self.domains.values_mut() {
            guest.seen.state = DomainState::Stopped(StopCause::Unknown);
        }
    }

    /// Its disks are others now.
    pub fn wipe(&mut self) {
        self.domains.clear();
        self.expected.clear();
        self.disks.clear();
    }

    /// Its guard ends every domain. Returns what the hypervisor shows of them, and those of which nothing is left: they had arrived,
    /// and not been continued.
    pub fn end_all(&mut self) -> (Vec<DomainSeen>, Vec<VmId>) {
        let arrived = self.domains.iter().filter(|(_, guest)| guest.arrived);
        let gone: Vec<VmId> = arrived.map(|(id, _)| id.clone()).collect();
        self.domains.retain(|_, guest| !guest.arrived);
        let live = self.domains.values_mut().filter(|guest| guest.seen.may_run());
        let ended = live.map(|guest| {
            guest.seen.state = DomainState::Stopped(StopCause::Crashed);
            guest.seen.clone()
        });
        (ended.collect(), gone)
    }

    /// A guest that runs comes into this state by itself. Returns what its hypervisor shows.
    pub fn disturb(&mut self, id: &VmId, state: DomainState) -> Option<DomainSeen> {
        let guest = self.domains.get_mut(id)?;
        if guest.seen.state != DomainState::Running {
            return None;
        }
        guest.seen.state = state;
        Some(guest.seen.clone())
    }

    /// Somebody undefines a domain behind the agent's back.
    pub fn undefine(&mut self, id: &VmId) -> bool {
        self.domains.remove(id).is_some()
    }

    /// The agent has ended, through which migrations arrive.
    pub fn expect_nothing(&mut self) {
        self.expected.clear();
    }

    /// What is expected of a VM from that node, if it is.
    #[must_use]
    pub fn expects(&self, id: &VmId, from: &NodeName) -> Option<&VmDefinition> {
        let (source, definition) = self.expected.get(id)?;
        (source == from).then_some(definition)
    }

    /// A VM leaves by live migration.
    pub fn depart(&mut self, id: &VmId) -> Option<Guest> {
        self.domains.remove(id)
    }

    /// A VM arrives, paused. Returns what its hypervisor shows.
    pub fn arrive(&mut self, guest: &Guest, definition: &VmDefinition) -> DomainSeen {
        let seen = DomainSeen {
            epoch: definition.epoch,
            state: DomainState::Paused(PauseCause::Other),
            ..guest.seen.clone()
        };
        *self.disks.entry(definition.id.clone()).or_default() += 0;
        let guest = Guest { seen: seen.clone(), arrived: true, ..guest.clone() };
        self.domains.insert(definition.id.clone(), guest);
        seen
    }

    /// A VM is about to be started by somebody who has ended meanwhile: it is defined first.
    pub fn define(&mut self, definition: &VmDefinition) {
        if self.domains.get(&definition.id).is_some_and(|guest| guest.seen.may_run()) {
            return;
        }
        *self.disks.entry(definition.id.clone()).or_default() += 0;
        let seen = seen(definition, DomainState::Stopped(StopCause::Unknown));
        let guest = Guest { size: seen.size, seen, start: 0, arrived: false };
        self.domains.insert(definition.id.clone(), guest);
    }

    /// Carries out a command. Migrations concern two hosts, and are the world's.
    ///
    /// # Errors
    /// Resuming a domain that does not exist.
    pub fn carry_out(
        &mut self,
        command: &HypervisorCommand,
        starts: &mut u64,
    ) -> Result<Option<DomainSeen>, Failure> {
        let id = command.vm();
        if !matches!(command, HypervisorCommand::Expect { .. }) {
            self.expected.remove(id);
        }
        match command {
            HypervisorCommand::Run(definition) => Ok(Some(self.run(definition, starts))),
            HypervisorCommand::Resume(_) => match self.domains.get_mut(id) {
                Some(guest) => {
                    guest.seen.state = DomainState::Running;
                    guest.arrived = false;
                    Ok(Some(guest.seen.clone()))
                }
                None => {
                    Err(Failure { kind: FailureKind::Refused, message: "no such domain".into() })
                }
            },
            HypervisorCommand::Stop { .. } => Ok(self.domains.get_mut(id).map(|guest| {
                if guest.seen.may_run() {
                    guest.seen.state = DomainState::Stopped(StopCause::Shutdown);
                }
                guest.seen.clone()
            })),
            HypervisorCommand::Remove(_) => {
                self.domains.remove(id);
                self.disks.remove(id);
                Ok(None)
            }
            HypervisorCommand::Expect { definition, from } => {
                let expected = (from.clone(), (**definition).clone());
                self.expected.insert(id.clone(), expected);
                Ok(self.domains.get(id).map(|guest| guest.seen.clone()))
            }
            HypervisorCommand::Migrate(_) | HypervisorCommand::AbortMigration(_) => {
                let message = "a migration concerns two hosts".to_owned();
                Err(Failure { kind: FailureKind::Refused, message })
            }
        }
    }

    fn run(&mut self, definition: &VmDefinition, starts: &mut u64) -> DomainSeen {
        let same = |guest: &Guest| {
            guest.seen.may_run()
                && guest.seen.epoch == definition.epoch
                && guest.seen.revision == definition.revision
        };
        if let Some(guest) = self.domains.get_mut(&definition.id).filter(|guest| same(guest)) {
            guest.seen.state = DomainState::Running;
            guest.arrived = false;
            return guest.seen.clone();
        }
        *starts += 1;
        *self.disks.entry(definition.id.clone()).or_default() += 1;
        let seen = seen(definition, DomainState::Running);
        let guest = Guest { size: seen.size, seen: seen.clone(), start: *starts, arrived: false };
        self.domains.insert(definition.id.clone(), guest);
        seen
    }
}

fn seen(definition: &VmDefinition, state: DomainState) -> DomainSeen {
    DomainSeen {
        id: definition.id.clone(),
        uuid: format!("uuid-of-{}", definition.id),
        epoch: definition.epoch,
        revision: definition.revision,
        size: Resources::of(definition.cpus, definition.memory),
        state,
        edited: None,
    }
}
