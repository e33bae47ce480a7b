//! A live migration, from the source's side.
//!
//! libvirt moves the guest peer to peer, through tunnels, and leaves it *paused* at the target; it is continued there by an
//! order, once its source has said that it is gone. Without that, the loss of one answer at the wrong moment has the source
//! continue its guest while the target's runs too (libvirt's own comment in its code: there it relies on a lock manager).
//! It costs the time that the source's QEMU takes to end, and a message.

use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::{Domain, MigrateParameters};
use virt::error::Error;
use virt_sys as sys;

use super::calls::Calls;
use super::commands::Job;
use super::error::LibvirtError;
use super::identity::uuid_of;
use super::movable::{Documents, documents};
use super::moving::Sockets;
use super::raw::{self, Numbers};
use crate::agent::ports::{Channel, Pass, TunnelGuard};
use crate::engine::effect::Migration;
use crate::engine::host::{Failure, FailureKind, MigrationFigures};
use crate::engine::input::HypervisorInput;

/// Peer to peer: libvirtd itself leads, so that the death of this agent ends the migration and not the guest. The target
/// keeps the definition and the source loses it, in one step. Only what the target lacks is copied: both have the same
/// base images. Errors of the guest's disks end it, rather than move a guest with a broken disk. A guest that writes
/// faster than the network is slowed down, so that it ends.
const FLAGS: u32 = sys::VIR_MIGRATE_LIVE
    | sys::VIR_MIGRATE_PEER2PEER
    | sys::VIR_MIGRATE_PERSIST_DEST
    | sys::VIR_MIGRATE_UNDEFINE_SOURCE
    | sys::VIR_MIGRATE_NON_SHARED_INC
    | sys::VIR_MIGRATE_ABORT_ON_ERROR
    | sys::VIR_MIGRATE_AUTO_CONVERGE
    | sys::VIR_MIGRATE_PAUSED;

/// How often a migration is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often people are told.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// An aborted migration has ended within this, or its thread is left alone.
const ABORTED_WITHIN: Duration = Duration::from_secs(30);
/// Seconds between keep-alive messages and how many may be lost: a target that is gone is noticed in 10 s.
const KEEP_ALIVE: (i32, u32) = (2, 4);

/// What happens to a migration under way.
#[derive(Debug)]
pub enum News {
    /// libvirt's call has ended.
    Ended(Result<(), Error>),
    /// Somebody wants it given up.
    Abort,
}

/// A connection of one's own: a call that lasts minutes must not make the link's seem stuck.
struct Own {
    connect: Option<Connect>,
    calls: Calls,
    limit: Duration,
}

impl Own {
    fn open(job: &Job<'_>, uri: &str) -> Result<Self, Failure> {
        let (calls, limit) = (job.core.calls.clone(), job.core.config.call_timeout);
        let uri = uri.to_owned();
        let opened = calls.run(limit, move || {
            let connect = Connect::open(Some(&uri))?;
            // A daemon that hangs must be noticed.
            let _ = connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1);
            Ok(connect)
        });
        let connect = opened
            .map_err(|_| LibvirtError::Stuck { what: "be connected to", limit })?
            .map_err(|source| LibvirtError::api("be connected to", source))?;
        Ok(Self { connect: Some(connect), calls, limit })
    }

    /// A call on the domain, within the usual limit.
    fn on<T: Send + 'static>(
        &self,
        job: &Job<'_>,
        what: &'static str,
        call: impl FnOnce(&Domain) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, LibvirtError> {
        let connect = self.connect.clone().ok_or(LibvirtError::Away)?;
        let uuid = uuid_of(job.id);
        let called = self.calls.run(self.limit, move || {
            let mut connect = connect;
            let result = Domain::lookup_by_uuid(&connect, uuid).and_then(|domain| call(&domain));
            let _ = connect.close();
            result
        });
        called
            .map_err(|_| LibvirtError::Stuck { what, limit: self.limit })?
            .map_err(|source| LibvirtError::api(what, source))
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(mut connect) = self.connect.take() {
            let _ = self.calls.run(self.limit, move || connect.close());
        }
    }
}

/// A migration that has begun. The order of fields is that of their end: connections through tunnels before those.
struct Departure<'a> {
    job: &'a Job<'a>,
    migration: &'a Migration,
    source: Own,
    target: Own,
    _tunnels: Vec<TunnelGuard>,
    sockets: Sockets,
    began: Instant,
    /// Bytes of disks that were sent; libvirt forgets them at the end.
    disks: u64,
}

impl Job<'_> {
    /// Moves the domain.
    pub fn migrate(&self, migration: &Migration) -> Result<(), Failure> {
        let documents = documents(self, migration)?;
        self.begin();
        let (news, events) = self.core.moves.leaves(&documents.seen);
        let mut departure = Departure::prepare(self, migration)?;
        departure.call(documents, news)?;
        let ended = departure.attend(&events);
        match ended {
            // The answer may be lost where the deed is not.
            Err(failure) if !departure.is_gone_here() => {
                departure.stay();
                Err(failure)
            }
            _ => {
                departure.tell();
                Ok(())
            }
        }
    }
}

impl<'a> Departure<'a> {
    fn prepare(job: &'a Job<'a>, migration: &'a Migration) -> Result<Self, Failure> {
        let began = Instant::now();
        let pass = Pass { vm: job.id.clone(), epoch: migration.definition.epoch };
        let config = &job.core.config;
        let sockets = Sockets::make(&config.state_dir, &pass)?;
        let mut tunnels = Vec::new();
        for channel in [Channel::Control, Channel::Memory, Channel::Disks] {
            let path = sockets.path(channel);
            let tunnel = job.core.moves.tunnels()?.forward(&migration.to, &pass, channel, &path);
            tunnels.push(tunnel.map_err(|error| Failure {
                kind: FailureKind::Refused,
                message: format!("no tunnel to {}: {error}", migration.to),
            })?);
        }
        let source = Own::open(job, &config.uri)?;
        let target = Own::open(job, &target_uri(&sockets)).map_err(|failure| Failure {
            message: format!(
                "{} is not reached or does not expect the VM: {failure}",
                migration.to
            ),
            ..failure
        })?;
        Ok(Self { job, migration, source, target, _tunnels: tunnels, sockets, began, disks: 0 })
    }

    /// Starts libvirt's call on a thread of its own; its end comes as news.
    fn call(&self, documents: Documents, news: Sender<News>) -> Result<(), Failure> {
        let unix = |path: &Path| format!("unix://{}", path.display());
        let parameters = MigrateParameters {
            uri: Some(unix(&self.sockets.path(Channel::Memory))),
            disks_uri: Some(unix(&self.sockets.path(Channel::Disks))),
            dest_xml: Some(documents.live),
            persist_xml: Some(documents.kept),
            // In MiB a second; nothing would mean without a limit.
            bandwidth: self.migration.bandwidth.map(|bytes| (bytes >> 20).max(1)),
            ..MigrateParameters::default()
        };
        let (uuid, uri) = (uuid_of(self.job.id), target_uri(&self.sockets));
        let connect = self.source.connect.clone().ok_or(LibvirtError::Away)?;
        std::thread::Builder::new()
            .name("libvirt-migrate".into())
            .spawn(move || {
                let mut connect = connect;
                let result = Domain::lookup_by_uuid(&connect, uuid)
                    .and_then(|domain| domain.migrate_to_uri3(Some(&uri), parameters, FLAGS));
                let _ = connect.close();
                // Nobody waits any more: it was given up and did not end.
                let _ = news.send(News::Ended(result));
            })
            .map(drop)
            .map_err(|source| LibvirtError::Thread { source }.failure())
    }

    /// Waits for the end; aborts it when asked to, or when it takes too long.
    fn attend(&mut self, events: &Receiver<News>) -> Result<(), Failure> {
        let deadline = self.began + self.migration.limit;
        let mut given_up: Option<(FailureKind, Instant)> = None;
        let mut told = Instant::now();
        loop {
            match events.recv_timeout(LOOK_EVERY) {
                Ok(News::Ended(result)) => {
                    return result.map_err(|source| self.failure(given_up.map(|(k, _)| k), source));
                }
                Ok(News::Abort) => {
                    given_up.get_or_insert((FailureKind::Aborted, Instant::now()));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(LibvirtError::Away.into()),
            }
            if Instant::now() >= deadline {
                given_up.get_or_insert((FailureKind::TimedOut, Instant::now()));
            }
            match given_up {
                Some((kind, since)) => {
                    // Not begun yet, or just ended: asked again until its end is told.
                    let _ = self.source.on(self.job, "abort a migration", raw::abort_job);
                    if since.elapsed() > ABORTED_WITHIN {
                        return Err(self.given_up(kind));
                    }
                }
                None => self.look(&mut told),
            }
            if self.job.core.inbox.ended() {
                return Err(LibvirtError::Away.into());
            }
        }
    }

    /// How far it is.
    fn look(&mut self, told: &mut Instant) {
        let stats = self.source.on(self.job, "tell of a migration", |d| raw::job_stats(d, false));
        let Ok(stats) = stats else { return };
        let number = |name: &str| stats.get(name).copied().unwrap_or(0);
        self.disks = self.disks.max(number("disk_processed"));
        let (sent, total) = (number("data_processed"), number("data_total"));
        if told.elapsed() >= TELL_EVERY && total > 0 {
            *told = Instant::now();
            let percent = (total - number("data_remaining").min(total)) * 100 / total;
            let message = format!(
                "moving to {}: {percent} % done, {}Mi sent of {}Mi",
                self.migration.to,
                sent >> 20,
                total >> 20
            );
            let id = self.job.id.clone();
            self.job.core.report(HypervisorInput::Progress { id, message });
        }
    }

    fn given_up(&self, kind: FailureKind) -> Failure {
        let to = &self.migration.to;
        let message = match kind {
            FailureKind::Aborted => format!("the migration to {to} was given up as asked"),
            _ => format!("the migration to {to} took longer than {:?}", self.migration.limit),
        };
        Failure { kind, message }
    }

    fn failure(&self, given_up: Option<FailureKind>, source: Error) -> Failure {
        match given_up {
            Some(kind) => self.given_up(kind),
            None => LibvirtError::api("migrate a domain", source).failure(),
        }
    }

    /// The domain has left: libvirt ended it here. A call that was left alone may still do that, so a domain that is here
    /// and does not run is not proof.
    fn is_gone_here(&self) -> bool {
        matches!(self.job.look(), Ok(None))
    }

    /// It has left. What libvirt knows of how it went is at the target.
    fn tell(&self) {
        let over = Instant::now();
        let stats = self.target.on(self.job, "tell of a migration", |d| raw::job_stats(d, true));
        let figures = self.figures(&stats.unwrap_or_default(), over);
        tracing::info!(vm = %self.job.id, to = %self.migration.to, ?figures, "moved");
        self.job.core.report(HypervisorInput::Migrated { id: self.job.id.clone(), figures });
    }

    fn figures(&self, stats: &Numbers, over: Instant) -> MigrationFigures {
        let number = |name: &str| stats.get(name).copied().unwrap_or(0);
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let stood = self.job.core.inbox.stood_still_since(&uuid_of(self.job.id).to_string());
        let stood = stood.map_or(0, |since| millis(over.saturating_duration_since(since)));
        MigrationFigures {
            took_ms: millis(over.duration_since(self.began)),
            // libvirt's figure ends where the target has everything; it stands until its source is gone.
            downtime_ms: stood.max(number("downtime")),
            sent: number("data_processed").max(number("memory_processed")) + self.disks,
        }
    }

    /// It failed: libvirt continues the guest itself, unless it cannot know. The target's stays paused.
    fn stay(&self) {
        match self.job.look() {
            Ok(Some(found)) => {
                if let Err(failure) = self.job.wake(found.seen.state) {
                    tracing::warn!(vm = %self.job.id, %failure, "a guest that stays is not continued");
                }
            }
            Ok(None) => {}
            Err(failure) => tracing::debug!(%failure, "nothing is known of a guest that stays"),
        }
    }
}

fn target_uri(sockets: &Sockets) -> String {
    format!("qemu+unix:///system?socket={}", sockets.path(Channel::Control).display())
}
