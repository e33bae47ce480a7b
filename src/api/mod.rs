//! Custom resource types (`discovery.beyondtheclouds.io/v1alpha1`) and nothing else.
//!
//! ```text
//!   virtual_environment.rs   what people declare: members, disks, boot, placement
//!     placement.rs             the constraints, named as the literature names them
//!     environment_rules.rs     what the API server refuses by itself (CEL)
//!     environment_status.rs    what agents report
//!   physical_node.rs         a host: edited by people, reported by its agent
//!   conditions.rs            condition types and reasons: the vocabulary of `kubectl wait` and events
//!   quantity.rs              Kubernetes quantities to and from plain numbers
//!   crd.rs                   the definitions as the API server wants them, printed as YAML
//! ```
//!
//! The doc comments of the fields are what `kubectl explain` prints, so they speak to the person who
//! writes a manifest. `crds/` holds the printed definitions; `tests/crds.rs` fails when they differ.

mod conditions;
mod crd;
mod environment_rules;
mod environment_status;
mod physical_node;
mod placement;
mod quantity;
mod virtual_environment;

pub use conditions::{node_condition, node_reason, ve_condition, ve_reason};
pub use crd::{crds, crds_yaml, definition_yaml};
pub use environment_status::{Phase, VirtualEnvironmentStatus, VmState, VmStatus};
pub use physical_node::{
    Acceleration, AccelerationKind, Coordinates, DEFAULT_CPU_PERCENT, NodeLease, NodeOverlay,
    NodeResources, NodeUsage, Overcommit, PhysicalNode, PhysicalNodeSpec, PhysicalNodeStatus,
    Reserved,
};
pub use placement::{
    Among, Fence, Gather, Lonely, NodeSelection, Overbook, PlacementConstraint, Quarantine, Root,
    RunningCapacity, Split, Spread, TopologyDomain,
};
pub use quantity::{QuantityError, bytes, from_bytes, from_milli, milli};
pub use virtual_environment::{
    BackOff, Boot, BootImage, DesiredState, Disk, DiskImage, Member, MemberKind, OnNodeCrash,
    OnVmCrash, Recovery, RunStrategy, VirtualEnvironment, VirtualEnvironmentSpec,
};

/// API group of every resource here.
pub const GROUP: &str = "discovery.beyondtheclouds.io";
/// The version served and stored.
pub const VERSION: &str = "v1alpha1";
/// Keeps a deleted VirtualEnvironment until every VM of it is confirmed gone.
pub const FINALIZER: &str = "discovery.beyondtheclouds.io/vms";
/// Label (and `status.selector` key) that carries a VirtualEnvironment's name.
pub const LABEL_ENVIRONMENT: &str = "discovery.beyondtheclouds.io/environment";
/// Label (and `status.selector` key) that carries a member's name.
pub const LABEL_MEMBER: &str = "discovery.beyondtheclouds.io/member";

/// Most members of one environment.
pub const MAX_MEMBERS: usize = 32;
/// Most VMs of one environment, over all its members.
pub const MAX_VMS: u32 = 256;
/// Most VMs of one member.
pub const MAX_REPLICAS: u32 = 64;
/// Most disks of one VM: libvirt names them `vda` to `vdp`.
pub const MAX_DISKS: usize = 16;
/// Most placement constraints of one environment.
pub const MAX_CONSTRAINTS: usize = 16;
/// Most groups of nodes of one constraint.
pub const MAX_GROUPS: usize = 8;
/// Most nodes that one constraint names. Labels name more.
pub const MAX_NODE_NAMES: usize = 32;
/// Longest name of a member or a disk, bytes. With a namespace and an environment of 63 each, a libvirt
/// domain is named in at most 163 bytes, and its files in fewer than the 255 that file systems allow.
pub const MAX_PART_NAME: usize = 32;
