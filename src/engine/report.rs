//! What people are told: the status of environments and nodes, and events.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::host::{DomainSeen, HostInfo};
use super::id::{NodeName, VeName, VeUid, VmId};
use super::lease::tenant::Protection;
use super::record::Transit;
use super::replica::Replica;
use super::spec::Resources;

/// Where a virtual environment is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Admitted, not placed.
    Waiting,
    /// Placed; its VMs run or are being started.
    Running,
    /// VMs of it were on a node that is silent or lost: they are to run elsewhere.
    FailingOver,
    /// Declared so, and every VM is stopped.
    Terminated,
    /// Being deleted.
    Deleting,
}

/// A condition's value with its words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// Whether it holds.
    pub holds: bool,
    /// One CamelCase word for machines.
    pub reason: Arc<str>,
    /// A sentence for people.
    pub message: String,
}

impl Condition {
    /// A condition that holds.
    #[must_use]
    pub fn yes(reason: &str, message: impl Into<String>) -> Self {
        Self { holds: true, reason: reason.into(), message: message.into() }
    }

    /// A condition that does not.
    #[must_use]
    pub fn no(reason: &str, message: impl Into<String>) -> Self {
        Self { holds: false, reason: reason.into(), message: message.into() }
    }
}

/// What one VM is doing, in a word people know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmPhase {
    /// Not placed.
    Waiting,
    /// Its images and disks are made, or its domain is being started.
    Starting,
    /// It runs.
    Running,
    /// It is paused and about to be continued.
    Paused,
    /// It runs, and is being moved to another node.
    Migrating,
    /// It is to arrive from another node.
    Arriving,
    /// It is being stopped.
    Stopping,
    /// It is stopped, as wanted.
    Stopped,
    /// It failed and will be tried again.
    BackOff,
    /// It ended by itself and its run strategy leaves it so.
    Completed,
    /// It is being removed.
    Removing,
    /// Its node is silent: nobody knows.
    Unknown,
}

/// One VM's line in its environment's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmReport {
    /// Which.
    pub id: VmId,
    /// Where, if placed.
    pub node: Option<NodeName>,
    /// What it is doing.
    pub phase: VmPhase,
    /// Domain uuid, if there is a domain.
    pub uuid: Option<String>,
    /// Placement epoch.
    pub epoch: u64,
    /// Why, if there is something to say.
    pub reason: Option<String>,
    /// How often it was started again after it stopped by itself or was ended.
    pub restarts: u32,
}

/// A virtual environment's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeReport {
    /// Identity.
    pub uid: VeUid,
    /// Name.
    pub name: VeName,
    /// The generation of the spec that has been seen.
    pub observed_generation: i64,
    /// Where it is in its life.
    pub phase: Phase,
    /// Every VM is as declared.
    pub ready: Condition,
    /// Every VM has a node.
    pub placed: Condition,
    /// Something is being done.
    pub progressing: Condition,
    /// One line per VM, ordered by id.
    pub vms: Vec<VmReport>,
    /// The handler's round: a report of an older one is out of date.
    pub round: u64,
    /// The replicas of its record.
    pub replica_set: Vec<Replica>,
    /// How soon people should see it: a settled state at once, a passing one when it lasts.
    pub settled: bool,
    /// A former handler has written its status since this one did: it is written once more.
    pub again: bool,
}

/// A node's status.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeReport {
    /// The machine, if its hypervisor has told.
    pub host: Option<HostInfo>,
    /// The hypervisor answers.
    pub hypervisor_available: bool,
    /// What VMs may use in all.
    pub allocatable: Resources,
    /// What VMs use or have been promised.
    pub allocated: Resources,
    /// VMs on this node.
    pub vms: u32,
    /// VMs that run.
    pub running: u32,
    /// New VMs may be placed here.
    pub schedulable: bool,
    /// It is in maintenance: what of its VMs is still here, a few words each.
    pub leaving: Option<Vec<String>>,
    /// The lease that its VMs run under.
    pub lease: LeaseReport,
    /// What keeps a VM that was taken over from running here as well.
    pub protection: Protection,
    /// Live peers, without this node.
    pub peers: u32,
    /// This agent is a gateway.
    pub gateway: bool,
    /// Vivaldi coordinate, milliseconds: x, y, z, height.
    pub coordinate: [f64; 4],
    /// Vivaldi error, 0 (sure) to 1.
    pub coordinate_error: f64,
}

/// A node's lease, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseReport {
    /// How it is.
    pub state: LeaseState,
    /// Counts this node's leases.
    pub epoch: u64,
    /// Who guards it: nobody takes its VMs over unless a majority of them agrees.
    pub guardians: Vec<NodeName>,
}

/// How a lease is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseState {
    /// A majority of its guardians has answered lately.
    Held,
    /// No majority has for too long: no VM may run.
    Lapsed,
    /// Nobody guards it: it does not end, and nothing is taken over.
    Unguarded,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum About {
    /// A virtual environment.
    Ve {
        /// Identity.
        uid: VeUid,
        /// Name.
        name: VeName,
    },
    /// This node's `PhysicalNode`.
    ThisNode,
}

/// Something that a person would ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Happening {
    /// What it is about.
    pub about: About,
    /// A warning, or normal.
    pub warning: bool,
    /// One CamelCase word: Placed, CannotBePlaced, Started, Crashed, Healed, Deleted …
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// It is a step of a failover.
    pub failover: Option<Failover>,
}

/// How far a failover is, for the logs: where its time goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// How far.
    pub step: FailoverStep,
    /// The VMs that it is about (`NAMESPACE/VM`), each with the node that was lost.
    pub vms: Vec<(String, NodeName)>,
}

/// The steps from the loss of a node to a VM that runs elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailoverStep {
    /// The node is silent: its guardians are asked.
    Suspected,
    /// A majority of them has proven that the VM has ended there.
    Proven,
    /// The register says where it runs next.
    Placed,
    /// It runs.
    Started,
}

impl FailoverStep {
    /// Its word.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Suspected => "suspected",
            Self::Proven => "proven",
            Self::Placed => "placed",
            Self::Started => "started",
        }
    }
}

/// A VM as its own node tells it to the VEH.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmObserved {
    /// Which.
    pub id: VmId,
    /// Placement epoch that this node knows.
    pub epoch: u64,
    /// The definition that runs, or is about to.
    pub revision: i64,
    /// Room is kept for it that its handler has not decided on.
    pub promised: bool,
    /// The newest definition that its node has room for and will follow at the next restart.
    pub accepted: i64,
    /// What it is doing.
    pub phase: VmPhase,
    /// The domain, if any.
    pub domain: Option<DomainSeen>,
    /// Why, if there is something to say.
    pub reason: Option<String>,
    /// Restarts so far.
    pub restarts: u32,
    /// Its part in a live migration.
    pub transit: Transit,
    /// How far this node is with that part.
    pub moved: MoveProgress,
    /// It ended, and its environment is to be restarted for that.
    pub crashed: bool,
    /// It is not started before its handler lets it.
    pub held: bool,
}

/// How far a node is with its part in a live migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveProgress {
    /// It has not ended.
    #[default]
    Open,
    /// The target: everything is ready for it.
    Ready,
    /// The target cannot make itself ready: why.
    CannotArrive(String),
    /// The source: it has been sent, and is not here any more.
    Left,
    /// The source: it was not sent, and is here: why.
    Stayed(String),
    /// The source: it is not here. Either it was sent, or it ended before.
    NotHere,
}
