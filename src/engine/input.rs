//! Everything that can happen to an engine.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::guard::GuardInput;
use super::host::{DomainSeen, Failure, HostInfo, MigrationFigures, VmLoad};
use super::id::{NodeName, VeName, VeUid, VmId};
use super::replica::Replica;
use super::spec::{VeSpec, VeState};
use super::wire::Message;

/// One thing that happened. Inputs are handled one at a time, in the order in which they are handed in.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// The time that [`super::Engine::next_wakeup`] asked for has come. Early or repeated ones do no harm.
    Wakeup,
    /// A peer is known: listed by the API server, or pinned on disk.
    PeerKnown(NodeName),
    /// A peer's `PhysicalNode` was deleted: it is no longer one of us.
    PeerRevoked(NodeName),
    /// An authenticated peer's message.
    Message {
        /// Who sent it; the transport has verified it.
        from: NodeName,
        /// What it says.
        message: Box<Message>,
    },
    /// Kubernetes.
    Cluster(ClusterInput),
    /// The hypervisor.
    Hypervisor(HypervisorInput),
    /// This node's guard.
    Guard(GuardInput),
    /// A peer's machine was to be switched off.
    Switched {
        /// Whose.
        holder: Replica,
        /// As it was asked for.
        epoch: u64,
        /// It is off, for certain: whatever ran there has ended, and the machine does nothing unless it boots. Or why that is
        /// not known.
        result: Result<(), String>,
    },
    /// The agent is about to end, in order, and another life of it is to follow within this time. See
    /// [`super::Engine::may_go`].
    GoAway(Duration),
}

/// What Kubernetes tells.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterInput {
    /// Whether the API server answers.
    Reachable(bool),
    /// This node, from its `Node` and its `PhysicalNode`.
    ThisNode(NodeDeclared),
    /// A virtual environment was seen (by a gateway only).
    Ve(Box<VeDeclared>),
    /// A virtual environment is gone from the API server (by a gateway only).
    VeGone {
        /// Its identity.
        uid: VeUid,
        /// Its name.
        name: VeName,
    },
    /// Every virtual environment has been seen once since the watch began; those not among `live` are
    /// gone (by a gateway only).
    VesListed {
        /// The uids that exist.
        live: Vec<VeUid>,
    },
}

/// What people and Kubernetes say of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeDeclared {
    /// Labels of the Kubernetes `Node`.
    pub labels: std::collections::BTreeMap<String, String>,
    /// New VMs may be placed here: `spec.schedulable` is not false and the `Node` is not cordoned.
    pub schedulable: bool,
    /// `spec.maintenance`: its VMs are to leave it.
    pub maintenance: bool,
    /// Kept free for the host itself.
    pub reserved: super::spec::Resources,
    /// Virtual processors per processor, in percent.
    pub cpu_overcommit_percent: u32,
}

/// In place of the round of an environment's handler where another agent has said that no majority of its record's keepers answers: less
/// than any handler's, so that the handler is asked for its own word.
pub const NOT_ITS_HANDLERS: u64 = 1;

/// A virtual environment as the API server holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeDeclared {
    /// Identity.
    pub uid: VeUid,
    /// Name.
    pub name: VeName,
    /// `metadata.generation`: moves with the spec.
    pub generation: i64,
    /// `metadata.resourceVersion` as read, for compare-and-swap.
    pub resource_version: String,
    /// `metadata.deletionTimestamp` is set.
    pub deleting: bool,
    /// It no longer exists at the API server (its finalizer was removed by force): the same as deleting,
    /// with nothing left to report to.
    pub gone: bool,
    /// `status.handlerRound`: the round of the handler that wrote the status, 0 if none did, [`NOT_ITS_HANDLERS`] if another agent has
    /// written over a part of it.
    pub reported: u64,
    /// `status.replicaSet`, empty if nobody has chosen one.
    pub replica_set: Vec<Replica>,
    /// What people want.
    pub spec: VeSpec,
}

impl VeDeclared {
    /// Whether its VMs are to run.
    #[must_use]
    pub fn is_to_run(&self) -> bool {
        self.spec.state == VeState::Running && !self.deleting
    }
}

/// What the hypervisor tells.
#[derive(Clone, Debug, PartialEq)]
pub enum HypervisorInput {
    /// The host, at connection and when it changes.
    Host(HostInfo),
    /// The hypervisor's connection came (true) or went.
    Available(bool),
    /// One domain, after something happened to it.
    Domain(DomainSeen),
    /// A domain of ours that is no longer defined.
    DomainGone(VmId),
    /// A full pass: every domain of ours on this node.
    Domains(Vec<DomainSeen>),
    /// A long command goes on (an image is fetched): for people.
    Progress {
        /// Which VM waits for it.
        id: VmId,
        /// What it does.
        message: String,
    },
    /// What VMs have used since the last time, once a second or so.
    Loads(Vec<VmLoad>),
    /// A VM has left by live migration: told before the command's end.
    Migrated {
        /// Which VM.
        id: VmId,
        /// How it went.
        figures: MigrationFigures,
    },
    /// A command has ended.
    Done {
        /// The number that the command was given.
        request: u64,
        /// Which VM it was for.
        id: VmId,
        /// What the domain is now (`None`: no domain is left), or why it failed.
        result: Result<Option<DomainSeen>, Failure>,
    },
}

#[cfg(test)]
impl VeDeclared {
    /// An environment without members, for tests.
    pub fn sample() -> Self {
        let (members, placement, recovery) = Default::default();
        Self {
            uid: "u".into(),
            name: VeName::new("ns", "ve"),
            generation: 1,
            resource_version: String::new(),
            deleting: false,
            gone: false,
            reported: 0,
            replica_set: Vec::new(),
            spec: VeSpec { state: VeState::Running, members, placement, recovery },
        }
    }
}
