//! What people declare, as the engine reads it: plain numbers, no Kubernetes types.
//!
//! The API server has validated it; the rim that converts it bounds it again, and so does the wire
//! (a peer is not the API server).

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use super::constraint::{Constraint, Domain, NodeSelector, Terms};
use super::id::{MemberName, VeName, VeUid, VmId};

/// Most VMs one virtual environment may hold.
pub const MAX_VMS: u32 = 256;

/// A virtual environment's declared state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VeState {
    /// Its VMs run.
    Running,
    /// Its VMs are stopped and hold no memory; their disks are kept.
    Terminated,
}

/// A virtual environment as declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeSpec {
    /// Wanted state.
    pub state: VeState,
    /// Groups of like VMs, in the declared order.
    pub members: Vec<MemberSpec>,
    /// Placement constraints; all must hold.
    pub placement: Vec<Constraint>,
    /// What is done about VMs and nodes that crash.
    pub recovery: Recovery,
}

impl VeSpec {
    /// Every VM that this spec asks for, in order.
    pub fn vms<'a>(&'a self, ve: &'a VeUid) -> impl Iterator<Item = (VmId, &'a MemberSpec)> {
        self.members.iter().flat_map(move |member| {
            (0..member.replicas).map(move |index| {
                (VmId { ve: ve.clone(), member: member.name.clone(), index }, member)
            })
        })
    }

    /// Whether it asks for this VM of its environment.
    #[must_use]
    pub fn asks_for(&self, id: &VmId) -> bool {
        let of_it = self.members.iter().filter(|member| member.name == id.member);
        of_it.map(|member| member.replicas).any(|replicas| id.index < replicas)
    }
}

/// A group of like VMs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberSpec {
    /// Unique within the environment.
    pub name: MemberName,
    /// How many.
    pub replicas: u32,
    /// Virtual processors of each.
    pub cpus: u32,
    /// Memory of each, bytes.
    pub memory: u64,
    /// What it boots from.
    pub boot: Boot,
    /// Its disks, in order; the first is `vda`.
    pub disks: Vec<DiskSpec>,
    /// What to do when the guest stops by itself.
    pub run_strategy: RunStrategy,
    /// Members that are up before a VM of this one is started. There is no circle.
    pub depends_on: Vec<MemberName>,
}

/// What a VM boots from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Boot {
    /// Its first disk.
    Disk,
    /// A kernel handed to the hypervisor.
    Kernel {
        /// The kernel.
        kernel: ImageSource,
        /// The initial RAM disk.
        initrd: Option<ImageSource>,
        /// The kernel's command line.
        cmdline: String,
    },
}

/// Where bytes come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageSource {
    /// `http`, `https` or `file`.
    pub url: String,
    /// Lower-case hexadecimal SHA-256 of the content. Without it the first fetched copy is kept.
    pub sha256: Option<String>,
}

/// One disk of a VM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSpec {
    /// Unique within the member.
    pub name: String,
    /// Virtual size, bytes.
    pub size: u64,
    /// Its first content; empty without.
    pub image: Option<ImageSource>,
}

/// What to do when a guest stops by itself. KubeVirt's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RunStrategy {
    /// Start it again whatever the cause.
    Always,
    /// Start it again only after a failure; a guest that powered itself off stays off.
    RerunOnFailure,
    /// Never start it again.
    Once,
}

/// What is done about VMs and nodes that crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// About a VM that its run strategy would start again.
    pub on_vm_crash: OnVmCrash,
    /// About the VMs of a node that is gone.
    pub on_node_crash: OnNodeCrash,
    /// How long a VM waits that crashes again and again.
    pub back_off: BackOff,
}

/// What is done about a VM that crashed: that ended, but did not power itself off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnVmCrash {
    /// It is started again.
    #[default]
    Restart,
    /// All VMs of its environment are stopped, then started.
    RestartVe,
    /// It is left as it is.
    Leave,
}

/// What is done about VMs whose node is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnNodeCrash {
    /// They are started elsewhere.
    #[default]
    RestartVm,
    /// They are placed elsewhere, and all VMs of the environment are stopped, then started.
    RestartVe,
    /// They wait for their node.
    Leave,
}

/// The pauses of what crashes again and again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackOff {
    /// Before the second start; it doubles with each further one. The first is at once.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first: Duration::from_secs(1), longest: Duration::from_secs(60) }
    }
}

impl BackOff {
    /// What ran for this long has recovered: its next crash is its first.
    pub const STABLE_AFTER: Duration = Duration::from_secs(60);

    /// The pause after so many crashes in a row before this one.
    #[must_use]
    pub fn pause(&self, crashes: u32) -> Duration {
        let doubled = |times: u32| self.first.saturating_mul(2_u32.saturating_pow(times.min(30)));
        crashes.checked_sub(1).map_or(Duration::ZERO, |times| doubled(times).min(self.longest))
    }
}

/// What one VM is, complete: all that its node needs to run it with nobody to ask.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmDefinition {
    /// Which VM.
    pub id: VmId,
    /// Its environment's name.
    pub ve: VeName,
    /// Counts the placements of this VM; a domain of an older epoch is not it.
    pub epoch: u64,
    /// The generation of the VE's spec at which this definition last changed. A domain of another
    /// revision must be restarted to follow.
    pub revision: i64,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory: u64,
    /// What it boots from.
    pub boot: Boot,
    /// Its disks.
    pub disks: Vec<DiskSpec>,
    /// What to do when the guest stops by itself.
    pub run_strategy: RunStrategy,
    /// What it asks of its node as to who else may be there.
    pub terms: Terms,
    /// What is done when it or its node crashes.
    pub recovery: Recovery,
    /// Others of its environment are up before it is started: its handler says when.
    pub depends: bool,
}

impl VmDefinition {
    /// The name of its libvirt domain.
    #[must_use]
    pub fn domain_name(&self) -> String {
        self.ve.domain(&self.id)
    }
}

/// CPU and memory, as offered or asked for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

impl Resources {
    /// What one VM of this size takes.
    #[must_use]
    pub fn of(cpus: u32, memory: u64) -> Self {
        Self { cpu_milli: u64::from(cpus) * 1000, memory }
    }

    /// Whether `other` fits into this.
    #[must_use]
    pub fn holds(&self, other: &Self) -> bool {
        self.cpu_milli >= other.cpu_milli && self.memory >= other.memory
    }

    /// What is left after `other`, never below zero.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_sub(other.cpu_milli),
            memory: self.memory.saturating_sub(other.memory),
        }
    }

    /// The larger of each.
    #[must_use]
    pub fn largest(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.max(other.cpu_milli),
            memory: self.memory.max(other.memory),
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            cpu_milli: self.cpu_milli.saturating_add(other.cpu_milli),
            memory: self.memory.saturating_add(other.memory),
        }
    }
}
