//! A hypervisor in memory, behind the same port as the real one: for tests of the driver.
//!
//! It is deterministic: commands are carried out at once, in the order in which they are given, and
//! reports leave in that order. It passes the same conformance suite as libvirt
//! (`tests/conformance/hypervisor.rs`). What people and hardware do behind the agent's back is done by
//! its own methods (`destroy`, `pause`, …), which report as the real one would.

// One thread hands its reports on; the ban is for the engine.
#![allow(clippy::disallowed_methods)]

mod moves;

use std::collections::BTreeMap;
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub use self::moves::FakeWire;
use super::ports::{Hypervisor, InputSender};
use crate::engine::effect::{HypervisorCommand, Migration};
use crate::engine::host::{
    DomainSeen, DomainState, Failure, FailureKind, HostInfo, PauseCause, StopCause,
};
use crate::engine::id::{NodeName, VmId};
use crate::engine::input::{HypervisorInput, Input};
use crate::engine::spec::{Resources, VmDefinition};

/// A domain, and how often it was started.
#[derive(Clone, Debug)]
struct Domain {
    seen: DomainSeen,
    definition: VmDefinition,
    starts: u64,
    defined: bool,
}

#[derive(Debug)]
struct State {
    host: HostInfo,
    available: bool,
    domains: BTreeMap<VmId, Domain>,
    /// Failures for the next `Run` commands, by VM.
    failures: BTreeMap<VmId, Vec<Failure>>,
    commands: Vec<HypervisorCommand>,
    /// Who may send which placement of a VM here.
    expected: BTreeMap<VmId, (NodeName, u64)>,
    /// Migrations that are held up.
    leaving: BTreeMap<VmId, (u64, Migration)>,
}

/// The fake. Dropping it keeps nothing.
#[derive(Debug)]
pub struct FakeHypervisor {
    inner: Arc<Inner>,
    wire: FakeWire,
}

#[derive(Debug)]
struct Inner {
    node: NodeName,
    state: Mutex<State>,
    out: Sender<HypervisorInput>,
}

impl FakeHypervisor {
    /// Begins connected, with no domain, and with no other node to move them to.
    #[must_use]
    pub fn start(host: HostInfo, inputs: InputSender) -> Self {
        Self::start_on(&FakeWire::default(), NodeName::from("alone"), host, inputs)
    }

    /// Begins connected, with no domain, as one of several nodes.
    #[must_use]
    pub fn start_on(wire: &FakeWire, node: NodeName, host: HostInfo, inputs: InputSender) -> Self {
        let (out, reports) = mpsc::channel();
        // A thread of its own, because `submit` must not wait for a full queue and no report is lost.
        std::thread::spawn(move || {
            for report in reports {
                if inputs.blocking_send(Input::Hypervisor(report)).is_err() {
                    return;
                }
            }
        });
        let state = State {
            host,
            available: true,
            domains: BTreeMap::new(),
            failures: BTreeMap::new(),
            commands: Vec::new(),
            expected: BTreeMap::new(),
            leaving: BTreeMap::new(),
        };
        let inner = Arc::new(Inner { node: node.clone(), state: Mutex::new(state), out });
        wire.wire().nodes.insert(node, Arc::downgrade(&inner));
        let fake = Self { inner, wire: wire.clone() };
        fake.announce(&fake.state());
        fake
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.inner.state()
    }

    fn tell(&self, report: HypervisorInput) {
        self.inner.tell(report);
    }

    fn announce(&self, state: &State) {
        self.tell(HypervisorInput::Available(state.available));
        if state.available {
            self.tell(HypervisorInput::Host(state.host.clone()));
            self.pass(state);
        }
    }

    fn pass(&self, state: &State) {
        let all = state.domains.values().map(|domain| domain.seen.clone()).collect();
        self.tell(HypervisorInput::Domains(all));
    }

    /// Reports every domain, as the slow full pass does.
    pub fn full_pass(&self) {
        let state = self.state();
        if state.available {
            self.pass(&state);
        }
    }

    /// The hypervisor's daemon goes away or comes back. Guests run on meanwhile.
    pub fn set_available(&self, available: bool) {
        let mut state = self.state();
        if state.available != available {
            state.available = available;
            self.announce(&state);
        }
    }

    /// The VM's next `Run` fails like this.
    pub fn fail_next_run(&self, id: &VmId, failure: Failure) {
        self.state().failures.entry(id.clone()).or_default().push(failure);
    }

    /// A running domain stops for this cause (also while the daemon is away: told when it is back).
    pub fn stop(&self, id: &VmId, cause: StopCause) {
        self.change(id, |domain| domain.seen.state = DomainState::Stopped(cause));
    }

    /// Somebody pauses it.
    pub fn pause(&self, id: &VmId) {
        self.change(id, |domain| domain.seen.state = DomainState::Paused(PauseCause::Other));
    }

    /// Somebody changes its definition; `what` is the difference for people.
    pub fn edit(&self, id: &VmId, what: &str) {
        self.change(id, |domain| domain.seen.edited = Some(what.to_owned()));
    }

    /// Somebody undefines it: one that runs goes on without a definition.
    pub fn undefine(&self, id: &VmId) {
        self.change(id, |domain| {
            domain.defined = false;
            domain.seen.edited = Some("its definition was removed".to_owned());
        });
    }

    fn change(&self, id: &VmId, change: impl FnOnce(&mut Domain)) {
        let mut state = self.state();
        let Some(domain) = state.domains.get_mut(id) else { return };
        change(domain);
        let gone = !domain.defined && matches!(domain.seen.state, DomainState::Stopped(_));
        let report = if gone {
            HypervisorInput::DomainGone(id.clone())
        } else {
            HypervisorInput::Domain(domain.seen.clone())
        };
        if gone {
            state.domains.remove(id);
        }
        if state.available {
            self.tell(report);
        }
    }

    /// Which start of the domain runs now; tells a restart from running on.
    #[must_use]
    pub fn starts(&self, id: &VmId) -> Option<u64> {
        self.state().domains.get(id).map(|domain| domain.starts)
    }

    /// What the domain was made from.
    #[must_use]
    pub fn definition(&self, id: &VmId) -> Option<VmDefinition> {
        self.state().domains.get(id).map(|domain| domain.definition.clone())
    }

    /// Every command so far, in order.
    #[must_use]
    pub fn commands(&self) -> Vec<HypervisorCommand> {
        self.state().commands.clone()
    }
}

impl Hypervisor for FakeHypervisor {
    fn submit(&self, request: u64, command: HypervisorCommand) {
        let mut state = self.state();
        let id = command.vm().clone();
        state.commands.push(command.clone());
        match command {
            HypervisorCommand::AbortMigration(_) => {
                if let Some((request, _)) = state.leaving.remove(&id) {
                    let failure = failed(FailureKind::Aborted, "given up as asked");
                    self.tell(HypervisorInput::Done { request, id, result: Err(failure) });
                }
            }
            HypervisorCommand::Migrate(migration) if state.available => {
                if self.wire.wire().held && state.runs(&id) {
                    state.leaving.insert(id, (request, *migration));
                } else {
                    drop(state);
                    self.inner.depart(request, &migration, &self.wire);
                }
            }
            command => {
                let result = state.execute(command);
                self.tell(HypervisorInput::Done { request, id, result });
            }
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, report: HypervisorInput) {
        // Nobody listens any more: the test is over.
        let _ = self.out.send(report);
    }
}

fn failed(kind: FailureKind, message: &str) -> Failure {
    Failure { kind, message: message.to_owned() }
}

impl State {
    fn execute(&mut self, command: HypervisorCommand) -> Result<Option<DomainSeen>, Failure> {
        if !self.available {
            let message = "the hypervisor is away; it is tried again".to_owned();
            return Err(Failure { kind: FailureKind::Unavailable, message });
        }
        let id = command.vm().clone();
        if !matches!(command, HypervisorCommand::Expect { .. }) {
            self.expected.remove(&id);
        }
        match command {
            HypervisorCommand::Run(definition) => self.run(*definition)?,
            HypervisorCommand::Resume(_) => {
                if let Some(domain) = self.domains.get_mut(&id)
                    && matches!(domain.seen.state, DomainState::Paused(_))
                {
                    domain.seen.state = DomainState::Running;
                }
            }
            HypervisorCommand::Stop { .. } => {
                if let Some(domain) = self.domains.get_mut(&id)
                    && !matches!(domain.seen.state, DomainState::Stopped(_))
                {
                    domain.seen.state = DomainState::Stopped(StopCause::Destroyed);
                    if !domain.defined {
                        self.domains.remove(&id);
                    }
                }
            }
            HypervisorCommand::Remove(_) => {
                self.domains.remove(&id);
            }
            HypervisorCommand::Expect { definition, from } => self.expect(&definition, from)?,
            // Carried out where they are submitted.
            HypervisorCommand::Migrate(_) | HypervisorCommand::AbortMigration(_) => {}
        }
        Ok(self.domains.get(&id).map(|domain| domain.seen.clone()))
    }

    fn runs(&self, id: &VmId) -> bool {
        self.domains.get(id).is_some_and(|domain| domain.seen.state == DomainState::Running)
    }

    fn expect(&mut self, definition: &VmDefinition, from: NodeName) -> Result<(), Failure> {
        let id = &definition.id;
        if let Some(domain) = self.domains.get(id) {
            let stopped = matches!(domain.seen.state, DomainState::Stopped(_));
            if !stopped && domain.seen.epoch != definition.epoch {
                return Err(failed(FailureKind::Refused, "another placement runs here"));
            }
            if !stopped {
                return Ok(());
            }
            self.domains.remove(id);
        }
        self.expected.insert(id.clone(), (from, definition.epoch));
        Ok(())
    }

    fn run(&mut self, definition: VmDefinition) -> Result<(), Failure> {
        let id = definition.id.clone();
        if let Some(failures) = self.failures.get_mut(&id)
            && !failures.is_empty()
        {
            return Err(failures.remove(0));
        }
        let seen = DomainSeen {
            id: id.clone(),
            uuid: format!("fake-{id}"),
            epoch: definition.epoch,
            revision: definition.revision,
            size: Resources::of(definition.cpus, definition.memory),
            state: DomainState::Running,
            edited: None,
        };
        let mut starts = 1;
        if let Some(old) = self.domains.get(&id) {
            let same = old.seen.epoch == seen.epoch && old.seen.revision == seen.revision;
            let runs = !matches!(old.seen.state, DomainState::Stopped(_));
            // A running guest whose definition was removed is as declared: only define it again.
            let as_declared = old.seen.edited.is_none() || !old.defined;
            starts = old.starts + u64::from(!(same && runs && as_declared));
        }
        self.domains.insert(id, Domain { seen, definition, starts, defined: true });
        Ok(())
    }
}
