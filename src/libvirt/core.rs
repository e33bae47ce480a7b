//! What the link and the commands share: the connection, the calls on it, and the one door through
//! which both report.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::{Error, ErrorNumber};

use super::calls::{CallError, Calls};
use super::domain::DomainType;
use super::error::LibvirtError;
use super::events::{self, Watch};
use super::identity::uuid_of;
use super::images::ImageCache;
use super::inbox::Inbox;
use super::moving::Moves;
use super::sighting::{Look, look};
use super::{LibvirtConfig, LibvirtCounters};
use crate::agent::ports::{InputSender, Tunnels};
use crate::engine::effect::HypervisorCommand;
use crate::engine::host::{DomainState, StopCause};
use crate::engine::id::VmId;
use crate::engine::input::{HypervisorInput, Input};

/// libvirtd handles five requests of one client at a time (`max_client_requests`), the sixth waits in
/// its queue and would seem stuck. Calls that take long use at most four of the five.
const SLOW_CALLS: usize = 4;

/// An open connection.
#[derive(Debug)]
pub struct Session {
    pub connect: Connect,
    pub generation: u64,
    pub kind: DomainType,
    watch: Watch,
}

impl Session {
    pub fn new(connect: Connect, generation: u64, kind: DomainType, watch: Watch) -> Self {
        Self { connect, generation, kind, watch }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        events::unwatch(&self.connect, &self.watch);
        if let Err(error) = self.connect.close() {
            tracing::debug!(%error, "closing the old connection failed");
        }
    }
}

/// State of the door.
#[derive(Debug, Default)]
pub struct Reports {
    /// Domains of ours, by uuid, for those whose end is only told by uuid.
    pub known: BTreeMap<String, VmId>,
    /// VMs that a command works on now: their events are its own doing, and its end reports them.
    pub busy: BTreeSet<VmId>,
    /// Last known reasons of stopped domains: a restarted libvirtd has forgotten them.
    causes: BTreeMap<String, StopCause>,
}

/// Commands of one VM that are not finished, oldest first.
pub type Queue = VecDeque<(u64, HypervisorCommand)>;

/// Everything that is shared.
#[derive(Debug)]
pub struct Core {
    pub config: LibvirtConfig,
    pub inbox: Arc<Inbox>,
    pub calls: Calls,
    pub images: ImageCache,
    /// Live migrations.
    pub moves: Moves,
    pub queues: Mutex<BTreeMap<VmId, Queue>>,
    /// libvirt's test driver: domains without processes or files.
    pub test: bool,
    inputs: InputSender,
    session: Mutex<Option<Arc<Session>>>,
    reports: Mutex<Reports>,
    slow: Mutex<usize>,
    slow_done: Condvar,
    connections: AtomicU64,
}

pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind these locks is changed in whole steps.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Core {
    pub fn new(
        config: LibvirtConfig,
        inputs: InputSender,
        tunnels: Option<Arc<dyn Tunnels>>,
    ) -> Result<Self, LibvirtError> {
        let images = ImageCache::new(&config)?;
        Ok(Self {
            moves: Moves::new(&config.state_dir, tunnels),
            test: config.uri.starts_with("test:"),
            config,
            inbox: Arc::default(),
            calls: Calls::default(),
            images,
            queues: Mutex::default(),
            inputs,
            session: Mutex::default(),
            reports: Mutex::default(),
            slow: Mutex::default(),
            slow_done: Condvar::new(),
            connections: AtomicU64::new(0),
        })
    }

    pub fn counters(&self) -> LibvirtCounters {
        LibvirtCounters {
            connections: self.connections.load(Ordering::Relaxed),
            calls_timed_out: self.calls.timed_out(),
            calls_stuck: self.calls.stuck(),
            commands_waiting: lock(&self.queues).values().map(|queue| queue.len() as u64 + 1).sum(),
        }
    }

    /// The connection, while there is one.
    pub fn session(&self) -> Result<Arc<Session>, LibvirtError> {
        lock(&self.session).clone().ok_or(LibvirtError::Away)
    }

    pub fn connected(&self, session: Arc<Session>) {
        self.connections.fetch_add(1, Ordering::Relaxed);
        *lock(&self.session) = Some(session);
    }

    /// Gives the connection up. Closing may block: it is a call of its own.
    pub fn disconnected(&self) {
        if let Some(session) = lock(&self.session).take() {
            let _ = self.calls.run(self.config.call_timeout, move || drop(session));
        }
    }

    /// A call that libvirt answers from memory.
    pub fn call<T: Send + 'static>(
        &self,
        session: &Arc<Session>,
        what: &'static str,
        call: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        self.limited(session, self.config.call_timeout, what, call)
    }

    /// A call that starts or ends a guest. Only a few run at a time.
    pub fn slow_call<T: Send + 'static>(
        &self,
        session: &Arc<Session>,
        what: &'static str,
        call: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let running = lock(&self.slow);
        let mut running = self
            .slow_done
            .wait_while(running, |running| *running >= SLOW_CALLS)
            .unwrap_or_else(PoisonError::into_inner);
        *running += 1;
        drop(running);
        let result = self.limited(session, self.config.start_timeout, what, call);
        *lock(&self.slow) -= 1;
        self.slow_done.notify_one();
        result
    }

    fn limited<T: Send + 'static>(
        &self,
        session: &Arc<Session>,
        limit: Duration,
        what: &'static str,
        call: impl FnOnce(&Connect) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let used = session.clone();
        match self.calls.run(limit, move || call(&used.connect)) {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(source)) => {
                let error = LibvirtError::api(what, source);
                if error.breaks_connection() {
                    self.inbox.lost(session.generation, "its socket broke");
                }
                Err(error)
            }
            Err(CallError::TimedOut(limit)) => {
                tracing::warn!(what, ?limit, "a call to libvirt is stuck; connecting anew");
                self.inbox.lost(session.generation, "a call is stuck");
                Err(LibvirtError::Stuck { what, limit })
            }
            Err(CallError::NoThread | CallError::Broken) => Err(LibvirtError::Away),
        }
    }

    /// Takes the door: until it is given back nobody else reports, so what is read and reported
    /// through it is in order.
    pub fn door(&self) -> MutexGuard<'_, Reports> {
        lock(&self.reports)
    }

    /// Reports. Waits when the engine is behind (back-pressure); gives up when it is gone.
    pub fn report(&self, input: HypervisorInput) {
        if self.inputs.blocking_send(Input::Hypervisor(input)).is_err() {
            self.inbox.end();
        }
    }

    /// Reports if the engine's queue has room.
    pub fn try_report(&self, input: HypervisorInput) {
        if self.inputs.try_send(Input::Hypervisor(input)).is_err() {
            tracing::error!("the engine's queue is full; a report is lost");
        }
    }

    /// Reports what is of no use later, if the engine has room for it.
    pub fn offer(&self, input: HypervisorInput) {
        let _ = self.inputs.try_send(Input::Hypervisor(input));
    }

    /// Looks at a VM's domain.
    pub fn look_at(&self, session: &Arc<Session>, id: &VmId) -> Result<Look, LibvirtError> {
        self.look_at_uuid(session, uuid_of(id).to_string())
    }

    /// Looks at a domain.
    pub fn look_at_uuid(&self, session: &Arc<Session>, uuid: String) -> Result<Look, LibvirtError> {
        self.call(session, "look at a domain", move |connect| match Domain::lookup_by_uuid_string(
            connect, &uuid,
        )
        .and_then(|domain| look(&domain))
        {
            Err(error) if error.code() == ErrorNumber::NoDomain => Ok(Look::Absent),
            other => other,
        })
    }
}

impl Reports {
    /// Completes what libvirt says of a stopped domain by what it has forgotten or does not tell.
    pub fn complete(&mut self, inbox: &Inbox, look: Look) -> Look {
        let Look::Ours(mut sighting) = look else { return look };
        let uuid = sighting.seen.uuid.clone();
        self.known.insert(uuid.clone(), sighting.seen.id.clone());
        match &mut sighting.seen.state {
            DomainState::Stopped(cause) => {
                if *cause == StopCause::Shutdown && inbox.was_ended_by_host(&uuid) {
                    *cause = StopCause::Destroyed;
                }
                if *cause == StopCause::Unknown {
                    *cause = self.causes.get(&uuid).copied().unwrap_or(StopCause::Unknown);
                } else {
                    self.causes.insert(uuid, *cause);
                }
            }
            DomainState::Running | DomainState::Paused(_) => {
                self.causes.remove(&uuid);
            }
        }
        Look::Ours(sighting)
    }

    /// Forgets a domain that is gone, and tells whose it was.
    pub fn forget(&mut self, inbox: &Inbox, uuid: &str) -> Option<VmId> {
        inbox.forget(uuid);
        self.causes.remove(uuid);
        self.known.remove(uuid)
    }
}
