//! What people declare, as the engine reads it: plain numbers, no Kubernetes types.
//!
//! The API server has validated it; the rim that converts it bounds it again, and so does the wire
//! (a peer is not the API server).

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
