//! The bare hardware wrapper over libvirt: domains, their events, images and disks.
//!
//! ```text
//!  submit ──> queue per VM ──> commands (Run, Stop, …) ──┐        ┌── images, disks (files, HTTP)
//!                                                        ├─ calls ┤
//!  libvirt's event loop ──> inbox ──> link (connects, ───┘        └── libvirt, each call with a limit
//!                                     full pass, host)
//!                    both report through one door, so that reports of a VM are in order
//! ```
//!
//! Every blocking call runs on its own thread with a time limit ([`calls`]); the driver is never
//! blocked. libvirtd may be away at any time: the link tries again for ever, and commands end with
//! [`FailureKind::Unavailable`](crate::engine::host::FailureKind) meanwhile. Domains that do not carry
//! our metadata are never touched and never reported.

// Limits, threads and clocks are this room's trade; the ban is for the engine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod calls;
mod commands;
mod core;
mod disks;
mod domain;
mod error;
mod events;
mod expect;
mod fetch;
mod host;
mod identity;
mod images;
mod inbox;
mod link;
mod loads;
mod migrate;
mod movable;
mod moving;
mod prepare;
mod probe;
mod projection;
mod raw;
mod retitle;
mod sighting;
mod tool;
mod xml;

#[cfg(test)]
mod domain_tests;
#[cfg(test)]
mod images_tests;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::error::LibvirtError;
pub use self::identity::{XMLNS, uuid_of};
use crate::agent::ports::{Hypervisor, InputSender, Tunnels};
use crate::engine::effect::HypervisorCommand;

/// What the wrapper needs to know.
#[derive(Clone, Debug)]
pub struct LibvirtConfig {
    /// libvirt's URI: `qemu:///system`, or `test:///default` (libvirt's own in-memory driver: no
    /// process, no image and no disk is made).
    pub uri: String,
    /// Where images and disks are kept. The same path in the agent's pod and on its host.
    pub state_dir: PathBuf,
    /// Images beyond this many bytes are removed, least recently used first, unless in use.
    pub image_cache_limit_bytes: u64,
    /// A larger image is refused, bytes.
    pub image_size_limit_bytes: u64,
    /// `file:` images are read below these directories only. Whoever may write a virtual environment
    /// reads what is there; elsewhere the host's files would be theirs to read.
    pub file_roots: Vec<PathBuf>,
    /// Limit of a call to libvirt that starts or ends no guest.
    pub call_timeout: Duration,
    /// Limit of a call that starts or ends a guest.
    pub start_timeout: Duration,
    /// How long a guest may take to power off before it is started from another definition.
    pub restart_grace: Duration,
    /// How often every domain is looked at, for what events missed.
    pub full_pass_every: Duration,
    /// How often it is asked what running domains use.
    pub loads_every: Duration,
}

impl LibvirtConfig {
    /// With defaults for all but the two that every node knows.
    #[must_use]
    pub fn new(uri: impl Into<String>, state_dir: impl Into<PathBuf>) -> Self {
        Self {
            uri: uri.into(),
            state_dir: state_dir.into(),
            image_cache_limit_bytes: 40 << 30,
            image_size_limit_bytes: 64 << 30,
            file_roots: Vec::new(),
            call_timeout: Duration::from_secs(20),
            start_timeout: Duration::from_secs(120),
            restart_grace: Duration::from_secs(10),
            full_pass_every: Duration::from_secs(60),
            loads_every: Duration::from_secs(1),
        }
    }
}

/// What the wrapper counts, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LibvirtCounters {
    /// Connections made.
    pub connections: u64,
    /// Calls that ran over their limit.
    pub calls_timed_out: u64,
    /// Calls that are stuck now.
    pub calls_stuck: u64,
    /// Commands that are not finished.
    pub commands_waiting: u64,
}

/// The hypervisor port over libvirt. Dropping it leaves every guest as it is.
#[derive(Debug)]
pub struct Libvirt {
    core: Arc<core::Core>,
}

impl Libvirt {
    /// Starts to connect, and returns. Without tunnels nothing moves to or from here. libvirtd may be away: it is tried again for ever, and reported
    /// as [`HypervisorInput::Available`](crate::engine::input::HypervisorInput).
    ///
    /// # Errors
    /// When the state directory cannot be made, or the system gives no threads.
    pub fn start(
        config: LibvirtConfig,
        inputs: InputSender,
        tunnels: Option<Arc<dyn Tunnels>>,
    ) -> Result<Self, LibvirtError> {
        let core = Arc::new(core::Core::new(config, inputs, tunnels)?);
        events::start_loop().map_err(|source| LibvirtError::api("start its event loop", source))?;
        let linked = core.clone();
        let thread = |name: &str, run: Box<dyn FnOnce() + Send>| {
            let started = std::thread::Builder::new().name(name.into()).spawn(run);
            started.map(drop).map_err(|source| LibvirtError::Thread { source })
        };
        thread("libvirt-link", Box::new(move || link::run(&linked)))?;
        let sampled = core.clone();
        thread("libvirt-loads", Box::new(move || loads::run(&sampled)))?;
        Ok(Self { core })
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> LibvirtCounters {
        self.core.counters()
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        self.core.inbox.end();
    }
}

impl Hypervisor for Libvirt {
    fn submit(&self, request: u64, command: HypervisorCommand) {
        commands::submit(&self.core, request, command);
    }
}
