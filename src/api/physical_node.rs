//! `PhysicalNode`: a host. Its agent makes it and reports; people edit its spec.
#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::quantity;

/// Virtual processors handed out per hundred processors when nothing is declared. Guests' processors are
/// idle most of the time, and a busy node makes its guests slow, never wrong; four is where public
/// experience puts the balance. Memory has no such number: a node short of it kills guests.
pub const DEFAULT_CPU_PERCENT: u32 = 400;

/// What people decide about a host. Its agent makes the resource and never changes its spec afterwards.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "discovery.beyondtheclouds.io",
    version = "v1alpha1",
    kind = "PhysicalNode",
    plural = "physicalnodes",
    shortname = "pn",
    category = "discovery",
    status = "PhysicalNodeStatus",
    derive = "PartialEq",
    doc = "A host of virtual machines, named as its Kubernetes Node. Its agent makes it and keeps its status. \
           Deleting it revokes its agent's identity: peers then refuse that agent until it is made again.",
    selectable = ".spec.schedulable",
    selectable = ".spec.site",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Schedulable",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Schedulable\")].status",
        description = "Whether new VMs may be placed on it"
    ),
    printcolumn(
        name = "Drained",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Drained\")].status",
        description = "In maintenance: whether no VM is left on it"
    ),
    printcolumn(
        name = "VMs",
        type_ = "integer",
        json_path = ".status.vms",
        description = "VMs that it holds"
    ),
    printcolumn(
        name = "CPU",
        type_ = "string",
        json_path = ".status.usage.cpus",
        description = "Virtual processors in use, of those allocatable"
    ),
    printcolumn(
        name = "Memory",
        type_ = "string",
        json_path = ".status.usage.memory",
        description = "Memory in use, of that allocatable"
    ),
    printcolumn(
        name = "Lease",
        type_ = "string",
        json_path = ".status.lease.state",
        description = "The lease that its VMs run under: Held, Lapsed (no VM may run), or Unguarded (nothing is taken over)"
    ),
    printcolumn(
        name = "Protection",
        type_ = "string",
        json_path = ".status.protection",
        description = "What keeps VMs that were taken over from running here as well: Watchdog, Guard, or None"
    ),
    printcolumn(name = "Site", type_ = "string", json_path = ".spec.site"),
    printcolumn(name = "Acceleration", type_ = "string", json_path = ".status.acceleration.kind"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn = r#"{"name":"Peers","type":"integer","jsonPath":".status.peers","priority":1}"#,
    printcolumn = r#"{"name":"Guardians","type":"string","jsonPath":".status.lease.guardians","priority":1}"#,
    printcolumn = r#"{"name":"Gateway","type":"boolean","jsonPath":".status.gateway","priority":1}"#,
    printcolumn = r#"{"name":"Hypervisor","type":"string","jsonPath":".status.hypervisor","priority":1}"#,
    printcolumn = r#"{"name":"Agent","type":"string","jsonPath":".status.agentVersion","priority":1}"#
)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalNodeSpec {
    /// Whether new VMs may be placed here. `false` leaves those that run alone. A cordon of the Kubernetes
    /// Node does the same. Default: true.
    #[serde(default = "yes")]
    pub schedulable: bool,

    /// Whether VMs are to leave this node: each is moved to another one by live migration, as far as there is room and
    /// its constraints allow; and no new ones come. The condition `Drained` tells when none is left, and what is waited for.
    /// Back to `false`, moves that have not ended are called off. Default: false.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub maintenance: bool,

    /// What is kept from VMs, for the host itself and for pods.
    #[serde(default)]
    pub reserved: Reserved,

    /// How far resources are handed out beyond what the host has. Memory never is.
    #[serde(default)]
    pub overcommit: Overcommit,

    /// Place that the node is at, to read and to select by: at most 63 letters, digits, `-`, `_` and `.`.
    /// Example: `lyon`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
    )]
    pub site: Option<String>,
}

impl Default for PhysicalNodeSpec {
    fn default() -> Self {
        Self {
            schedulable: true,
            maintenance: false,
            reserved: Reserved::default(),
            overcommit: Overcommit::default(),
            site: None,
        }
    }
}

fn yes() -> bool {
    true
}

/// Resources kept from VMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reserved {
    /// Processors, a Kubernetes quantity, 0 to 4096. Taken off before `overcommit` multiplies. Example:
    /// `500m` (half a processor). Default: 0.
    #[serde(default = "no_cpus")]
    #[schemars(schema_with = "quantity::reserved_cpus_schema")]
    pub cpus: Quantity,

    /// Memory, a Kubernetes quantity in bytes, 0 to 64Ti. Example: `4Gi`. Default: 512Mi, what an idle host
    /// and its kubelet need.
    #[serde(default = "host_memory")]
    #[schemars(schema_with = "quantity::reserved_memory_schema")]
    pub memory: Quantity,
}

impl Default for Reserved {
    fn default() -> Self {
        Self { cpus: no_cpus(), memory: host_memory() }
    }
}

fn no_cpus() -> Quantity {
    Quantity("0".to_owned())
}

fn host_memory() -> Quantity {
    Quantity("512Mi".to_owned())
}

/// How far resources are handed out beyond what the host has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overcommit {
    /// Virtual processors handed out per hundred processors, 100 to 6400 percent. Example: `100` gives every
    /// virtual processor one of its own. Default: 400.
    #[serde(default = "default_cpu_percent")]
    #[schemars(range(min = 100, max = 6400))]
    pub cpu_percent: u32,
}

impl Default for Overcommit {
    fn default() -> Self {
        Self { cpu_percent: DEFAULT_CPU_PERCENT }
    }
}

fn default_cpu_percent() -> u32 {
    DEFAULT_CPU_PERCENT
}

/// What the host is, written by its agent when it changes. Heartbeats never go here.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PhysicalNodeStatus {
    /// The generation of the spec that the agent has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`, `Schedulable`, `HypervisorReady`, `Accelerated`, `StorageFull`, `Protected`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_version: Option<String>,

    /// Hypervisor and its version. Example: `QEMU 10.0.2, libvirt 11.3.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hypervisor: Option<String>,

    /// What the host has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<NodeResources>,

    /// What VMs may use: capacity without `spec.reserved`, processors times `spec.overcommit`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<NodeResources>,

    /// What its VMs use, as declared by them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allocated: Option<NodeResources>,

    /// Allocated of allocatable, to read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<NodeUsage>,

    /// Number of VMs that it holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vms: Option<u32>,

    /// Number of those that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_vms: Option<u32>,

    /// How guests run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acceleration: Option<Acceleration>,

    /// Its agent's identity and addresses on the overlay. Peers trust no other key for this node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlay: Option<NodeOverlay>,

    /// Where it is in the space of round-trip times (Vivaldi).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coordinates: Option<Coordinates>,

    /// The lease that its VMs run under: they may be taken over once its guardians prove that it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<NodeLease>,

    /// What keeps VMs that were taken over from running here as well: `Watchdog` (its guard, and a hardware watchdog behind it),
    /// `Guard` (against all but a stall of the guard itself), or `None` (nothing is taken over); the condition `Protected` says why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<String>,

    /// Number of live peers that it knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peers: Option<u32>,

    /// Whether its agent watches all VirtualEnvironments for the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<bool>,
}

/// A node's lease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeLease {
    /// `Held`: a majority of its guardians acknowledges it; `Lapsed`: none has for too long, and no VM may run; `Unguarded`: it does
    /// not end, and nothing is taken over; `Unknown`: its agent is not heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,

    /// Counts this node's leases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,

    /// The nodes that guard it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub guardians: Vec<String>,
}

/// An amount of resources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeResources {
    /// Processors (virtual ones in `allocatable` and `allocated`). Example: `32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity::reported_schema")]
    pub cpus: Option<Quantity>,

    /// Memory, bytes. Example: `64Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity::reported_schema")]
    pub memory: Option<Quantity>,

    /// Disk space for images and disks, bytes. Example: `900Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "quantity::reported_schema")]
    pub storage: Option<Quantity>,
}

/// Allocated of allocatable, to read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeUsage {
    /// Example: `3/32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpus: Option<String>,

    /// Example: `512Mi/23Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<String>,
}

/// How guests run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Acceleration {
    /// `kvm` (hardware virtualisation, a probe guest ran) or `emulation` (software, many times slower).
    #[schemars(with = "String")]
    pub kind: AccelerationKind,

    /// What the probe found. Example: `/dev/kvm: No such file or directory`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How guests run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum AccelerationKind {
    /// Hardware virtualisation.
    Kvm,
    /// Software emulation.
    Emulation,
    /// A word of a newer agent.
    #[default]
    #[serde(other)]
    Unknown,
}

/// An agent's identity and addresses on the overlay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeOverlay {
    /// Public half of its ed25519 key, 64 lower-case hexadecimal digits.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub public_key: String,

    /// `host:port` at which it listens (UDP). Example: `[10.0.0.4:7400]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 3, max = 260)), extend("x-kubernetes-list-type" = "atomic"))]
    pub addresses: Vec<String>,

    /// Version of the overlay's messages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<u32>,
}

/// A Vivaldi coordinate, in microseconds (integers, because a report must not change by a rounding).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Coordinates {
    /// First axis, microseconds.
    pub x: i64,
    /// Second axis, microseconds.
    pub y: i64,
    /// Third axis, microseconds.
    pub z: i64,
    /// Height: the part of every round trip that is the node's own, microseconds.
    pub height: i64,
    /// Expected error, 0 (sure) to 100 percent.
    pub error_percent: i64,
}
