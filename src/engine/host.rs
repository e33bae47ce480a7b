//! What the engine knows of machines: this host, its hypervisor's domains, and what may go wrong there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::VmId;
use super::spec::Resources;

/// How guests are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Acceleration {
    /// Hardware virtualisation; a throw-away guest has proven that it works.
    Kvm,
    /// Software emulation.
    Emulation,
}

/// This node's machine, as its hypervisor tells.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostInfo {
    /// Processors and memory of the whole machine.
    pub capacity: Resources,
    /// Bytes of the file system that holds images and disks.
    pub storage: u64,
    /// How guests are run.
    pub acceleration: Acceleration,
    /// The hypervisor and its version, for people.
    pub hypervisor: String,
    /// Changes at every boot of the machine.
    pub boot_id: String,
}

/// Why a domain is not running.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StopCause {
    /// The guest powered itself off.
    Shutdown,
    /// The guest crashed (panic, or the hypervisor reported a crash).
    Crashed,
    /// Somebody destroyed the domain, or its process was killed.
    Destroyed,
    /// The hypervisor could not run it.
    Failed,
    /// It has not been started, or nobody knows.
    Unknown,
}

/// Why a domain's processors are paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PauseCause {
    /// The hypervisor could not read or write its disk, and keeps the guest from hearing of it.
    DiskError,
    /// Somebody paused it, it has just arrived, or nobody knows.
    Other,
}

/// A domain's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum DomainState {
    /// It runs.
    Running,
    /// Its processors are paused.
    Paused(PauseCause),
    /// It is defined and does not run.
    Stopped(StopCause),
}

/// One domain of ours, as seen on this node. Domains that do not carry our metadata are never reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainSeen {
    /// Which VM it is, from the domain's metadata.
    pub id: VmId,
    /// The domain's uuid.
    pub uuid: String,
    /// The placement it belongs to, from the metadata.
    pub epoch: u64,
    /// The definition it was made from, from the metadata.
    pub revision: i64,
    /// What it takes of its host while it runs; nothing where that cannot be read. Peers are not told.
    #[serde(skip)]
    pub size: Resources,
    /// Its state.
    pub state: DomainState,
    /// Somebody changed the domain behind our back: what differs, for people.
    pub edited: Option<String>,
}

impl DomainSeen {
    /// It takes room: it runs, or may go on.
    #[must_use]
    pub fn may_run(&self) -> bool {
        !matches!(self.state, DomainState::Stopped(_))
    }
}

/// What a VM used of its host, on average since it was last looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmLoad {
    /// Which VM.
    pub id: VmId,
    /// Processor time that it used *and waited for*, thousandths of a processor: on a crowded host what is used says
    /// nothing of what is wanted.
    pub cpu_milli: u64,
    /// Memory that it occupies, bytes.
    pub memory: u64,
    /// Memory that it writes to, bytes a second, where that is known.
    pub dirty: Option<u64>,
}

/// How a live migration went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationFigures {
    /// From its beginning to its end, milliseconds.
    pub took_ms: u64,
    /// How long the guest stood still, milliseconds, as the hypervisor says.
    pub downtime_ms: u64,
    /// Bytes of memory and disks that were sent, at least: the last of the disks may be missed.
    pub sent: u64,
}

/// What kind of thing went wrong on the hypervisor's side. Retryable or not is in the type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum FailureKind {
    /// The hypervisor does not answer; tried again when it is back.
    Unavailable,
    /// An image cannot be fetched now; tried again.
    ImageUnreachable,
    /// An image's bytes have another SHA-256 than declared. Only a changed spec or source helps.
    ImageMismatch,
    /// An image is not what it should be (format, size). Only a changed spec helps.
    ImageUnusable,
    /// No room for the image or the disk; tried again.
    StorageFull,
    /// A call took longer than its limit; tried again.
    TimedOut,
    /// The hypervisor refused; tried again, slowly.
    Refused,
    /// A migration is asked for of a domain that does not run here.
    NotHere,
    /// The VM has something that cannot move (a device of this host). Only a changed domain helps.
    Unmovable,
    /// A migration was given up as asked.
    Aborted,
}

/// A failed hypervisor command.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind.
    pub kind: FailureKind,
    /// For people: names the thing, says what to do where that is known.
    pub message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
