//! The ports: what the driver needs of the world. Each has a fake and a real implementation, and one
//! conformance suite that both pass (`tests/conformance/`).
//!
//! A port is handed an [`InputSender`] when it is made and reports through it; the driver calls the
//! trait's methods, which return at once unless they are `async`.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::engine::effect::{ClusterAction, HypervisorCommand};
use crate::engine::guard::Allowance;
use crate::engine::id::{NodeName, VmId};
use crate::engine::input::Input;
use crate::engine::replica::Replica;
use crate::engine::wire::Message;

/// How many inputs may wait for the engine. The engine takes microseconds per input; a full queue means
/// that it is stuck, and senders wait (back-pressure) rather than grow.
pub const INPUT_QUEUE: usize = 4096;

/// Where ports put what happened.
pub type InputSender = mpsc::Sender<Input>;

/// A key and its value, as a store keeps them.
pub type Pair = (Vec<u8>, Vec<u8>);

/// The durable journal: a small map. Blocking; the driver calls it on a thread of its own.
pub trait Store: Send + 'static {
    /// Everything that is kept, in key order.
    ///
    /// # Errors
    /// When the store cannot be read; names the file.
    fn load(&mut self) -> Result<Vec<Pair>, StoreError>;

    /// Applies all changes or none (`None` forgets the key), and returns when they are on disk.
    ///
    /// # Errors
    /// When they are not; nothing has changed then.
    fn write(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError>;
}

/// A store's failure.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk is full: nothing was written; tried again.
    #[error("no room left for {path}: free some space; nothing was lost")]
    Full {
        /// The file.
        path: String,
    },
    /// Another process holds the store.
    #[error("{path} is in use by another process")]
    Busy {
        /// The file.
        path: String,
    },
    /// What is on disk cannot be read as a store.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: String,
        /// How.
        reason: String,
    },
    /// Any other failure of the disk.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system's word.
        source: std::io::Error,
    },
}

/// The bare hardware wrapper. Reports [`Input::Hypervisor`]: the host, domains, full passes, and one
/// `Done` for each command.
pub trait Hypervisor: Send + Sync + 'static {
    /// Starts a command and returns at once. Its end is reported with the same request number, exactly
    /// once, also when the hypervisor is away.
    fn submit(&self, request: u64, command: HypervisorCommand);
}

/// What one end of a migration wants to reach at the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Channel {
    /// The hypervisor's control socket.
    Control,
    /// Where the guest's memory goes.
    Memory,
    /// Where its disks' contents go.
    Disks,
}

/// Which migration: nothing else passes. Both ends have it from the handler of the VM's environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Pass {
    /// The VM.
    pub vm: VmId,
    /// The placement that it moves to.
    pub epoch: u64,
}

/// Held while a tunnel stands; dropping it closes the tunnel and every connection through it.
pub type TunnelGuard = Box<dyn Send + Sync>;

/// Carries byte streams between a unix socket of this node and one of a peer, under the overlay's mutual TLS. The bytes
/// are the hypervisors' own: no hypervisor listens on the network. Called by threads that may block.
pub trait Tunnels: Send + Sync + 'static {
    /// Listens on `socket` here; what connects to it reaches the peer's socket for this channel, if the peer has admitted
    /// this node for this pass. The socket's directory exists; an old socket there is replaced.
    ///
    /// # Errors
    /// The peer is unknown, or the socket cannot be made.
    fn forward(
        &self,
        to: &NodeName,
        pass: &Pass,
        channel: Channel,
        socket: &Path,
    ) -> io::Result<TunnelGuard>;

    /// Lets this one peer reach these sockets of this node for this pass, until the guard is dropped. A socket may
    /// come to be later: a connection waits for it for a moment.
    fn admit(
        &self,
        from: &NodeName,
        pass: &Pass,
        sockets: BTreeMap<Channel, PathBuf>,
    ) -> TunnelGuard;
}

/// What an agent proves itself with, as published in its `PhysicalNode`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeName,
    /// ed25519 public key.
    pub key: [u8; 32],
    /// Where its overlay listens (UDP).
    pub addresses: Vec<SocketAddr>,
}

/// The overlay. Reports [`Input::Message`] with a verified sender, and nothing from strangers.
pub trait Peers: Send + Sync + 'static {
    /// Sends if it can: at most once, dropped when the peer is unknown, away or slow.
    fn send(&self, to: &NodeName, message: Message);

    /// Makes this peer known, or changes its addresses. Another key for a known name replaces the old
    /// one and closes its connections.
    fn pin(&self, peer: PeerIdentity);

    /// Makes a peer a stranger again and closes its connections.
    fn revoke(&self, node: &NodeName);
}

/// Something the overlay needs of Kubernetes: a stranger knocks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// The key it proved to hold.
    pub key: [u8; 32],
    /// Where it came from.
    pub from: SocketAddr,
}

/// Kubernetes. Reports [`Input::Cluster`], and peers as [`PeerNews`].
pub trait Cluster: Send + Sync + 'static {
    /// Takes an action and returns at once. Reports of one thing replace older ones that are not written
    /// yet; writes are retried until they succeed or are replaced.
    fn submit(&self, action: ClusterAction);

    /// A stranger knocked: look its key up (at most once in a while per key). A found one is reported
    /// as [`PeerNews::Known`].
    fn find_peer(&self, stranger: Stranger);
}

/// This node's guard: a process of its own, which outlives the agent, holds the time that VMs may run, and ends them when it
/// is over. Reports [`Input::Guard`]: `Connected` and `Gone` in turn; after `Connected`, and after every change, what holds
/// now: `Armed` (also for each allowance, when the guard keeps to it) or `Lapsed`, once every VM of ours has ended. A guard
/// that nobody has told anything yet ends nothing and reports neither. A new lease counts once the VMs of one that was over
/// have ended.
pub trait Guard: Send + Sync + 'static {
    /// Tells it, and returns at once. The newest allowance is told again whenever the guard comes back; older ones that it has
    /// not been told are dropped.
    fn allow(&self, allowance: Allowance);
}

/// Switches peers' machines off by what manages them from outside (a management controller, a power strip, a hypervisor below
/// them). Reports [`Input::Switched`], exactly once for each time it is asked.
pub trait PowerSwitch: Send + Sync + 'static {
    /// Starts to switch a machine off, and returns at once. Success is reported only when the machine is off for certain; one
    /// that is off already is. Whether somebody switches it on again later makes no difference.
    fn switch_off(&self, holder: Replica, epoch: u64);
}

/// What the Kubernetes rim learns about peers, for the driver to pin and revoke.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerNews {
    /// This agent's `PhysicalNode` says so.
    Known(PeerIdentity),
    /// The `PhysicalNode` is gone.
    Revoked(NodeName),
}

/// Where the Kubernetes rim puts what it learns about peers.
pub type PeerNewsSender = mpsc::Sender<PeerNews>;
/// Where the overlay puts strangers that knock.
pub type StrangerSender = mpsc::Sender<Stranger>;
