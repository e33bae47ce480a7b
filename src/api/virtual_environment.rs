//! `VirtualEnvironment`: the unit people manage, a group of (possibly unlike) virtual machines.
#![allow(clippy::duplicated_attributes, reason = "every printer column has a type")]

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment_rules as rules;
use super::environment_status::VirtualEnvironmentStatus;
use super::placement::PlacementConstraint;
use super::quantity;

/// What the environment should be.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "discovery.beyondtheclouds.io",
    version = "v1alpha1",
    kind = "VirtualEnvironment",
    plural = "virtualenvironments",
    shortname = "ve",
    category = "discovery",
    namespaced,
    status = "VirtualEnvironmentStatus",
    derive = "PartialEq",
    doc = "A group of virtual machines that are placed whole, or wait whole. Its VMs are named \
           `<environment>-<member>-<index>`. Shortest example: one member with a kernel to boot, or with \
           one disk that has an image. See `kubectl explain ve.spec.members`.",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
    selectable = ".spec.state",
    selectable = ".status.phase",
    selectable = ".status.handler",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.ready",
        description = "VMs that run, of those declared"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase",
        description = "Waiting, Running, FailingOver, Terminated or Deleting"),
    printcolumn(name = "Nodes", type_ = "string", json_path = ".status.nodeList",
        description = "Physical nodes that hold its VMs"),
    printcolumn(name = "Since", type_ = "date",
        json_path = ".status.conditions[?(@.type==\"Ready\")].lastTransitionTime",
        description = "When Ready last changed"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn = r#"{"name":"Handler","type":"string","jsonPath":".status.handler","priority":1,"description":"The agent that handles this environment"}"#,
    printcolumn = r#"{"name":"Why","type":"string","jsonPath":".status.waitingReason","description":"Why it is not as declared"}"#,
    validation = rules::name_rule()
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::spec_rules()))]
pub struct VirtualEnvironmentSpec {
    /// `Running`: its VMs run. `Terminated`: its VMs are stopped, hold neither processors nor memory, and
    /// keep their disks; back to `Running` starts them again. An environment that is declared Terminated
    /// and is stopped counts as Ready. Default: Running.
    #[serde(default)]
    pub state: DesiredState,

    /// Groups of like VMs, 1 to 32. Names are unique.
    #[schemars(length(min = 1, max = 32))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub members: Vec<Member>,

    /// Constraints on where VMs may be, all of which must hold; at most 16. Without any, the agents choose.
    /// Example: `[{spread: {members: [web], over: node}}, {maxNodes: 4}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    pub placement: Vec<PlacementConstraint>,

    /// What is done about VMs and nodes that crash. Absent: both are started again, each VM for itself.
    /// Example: `{onVmCrash: restartVE, backOff: {firstSeconds: 5, longestSeconds: 300}}`.
    #[serde(default, skip_serializing_if = "Recovery::is_default")]
    pub recovery: Recovery,

    /// Number of VMs of the scaled member (see `scaledMember`), 0 to 64. It is what `kubectl scale ve/NAME
    /// --replicas=N` writes, and it wins over that member's own `replicas`, which cannot be changed while
    /// this is set. Absent: every member has its own number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: Option<u32>,

    /// Name of the member that `replicas` (and so `kubectl scale`) is about. Default: the first member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub scaled_member: Option<String>,
}

impl VirtualEnvironmentSpec {
    /// The member that `kubectl scale` is about.
    #[must_use]
    pub fn scaled_member(&self) -> Option<&Member> {
        match &self.scaled_member {
            Some(name) => self.members.iter().find(|member| &member.name == name),
            None => self.members.first(),
        }
    }

    /// How many VMs a member has, `spec.replicas` considered.
    #[must_use]
    pub fn replicas_of(&self, member: &Member) -> u32 {
        match (self.replicas, self.scaled_member()) {
            (Some(replicas), Some(scaled)) if scaled.name == member.name => replicas,
            _ => member.replicas,
        }
    }
}

/// A declared state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum DesiredState {
    /// Its VMs run.
    #[default]
    Running,
    /// Its VMs are stopped; their disks are kept.
    Terminated,
}

/// A group of like VMs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::member_rules()))]
pub struct Member {
    /// Unique within the environment: lower-case letters and digits, beginning with a letter, at most 32.
    /// No dash, so that `<environment>-<member>-<index>` names one VM only. Example: `web`.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z][a-z0-9]*$"))]
    pub name: String,

    /// How many VMs, 0 to 64; at most 256 in the environment. VMs are numbered from 0; scaling down removes
    /// those of the highest index, with their disks. Default: 1.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 64))]
    pub replicas: u32,

    /// What its replicas are. Default: VirtualMachine. Cannot be changed.
    #[serde(default)]
    pub kind: MemberKind,

    /// Virtual processors of each VM, 1 to 256. A change restarts the VMs, one after the other.
    #[schemars(range(min = 1, max = 256))]
    pub cpus: u32,

    /// Memory of each VM, 16Mi to 4Ti: a Kubernetes quantity in bytes. It is never overcommitted. A change
    /// restarts the VMs, one after the other. Example: `512Mi`.
    #[schemars(schema_with = "quantity::memory_schema")]
    pub memory: Quantity,

    /// A kernel to start directly. Absent: the VM boots from its first disk, which then needs an image. A
    /// change restarts the VMs, one after the other.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Boot>,

    /// Disks of each VM, in order: the first is `vda` in the guest. At most 16. They cannot be changed once
    /// the member exists, because their content lies on the nodes: add a member with other disks instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub disks: Vec<Disk>,

    /// What to do when a guest stops by itself. `Always`: start it again whatever the cause.
    /// `RerunOnFailure`: start it again after a crash; a guest that powered itself off stays off.
    /// `Once`: never start it again. Default: Always.
    #[serde(default)]
    pub run_strategy: RunStrategy,

    /// Names of members of this environment, at most 8, that are up before a VM of this one is started: all of their
    /// VMs run, or have completed. It says in which order VMs start (at first, elsewhere after the loss of a node, after a power
    /// failure of all); a VM that runs is not stopped when one of those ends. No circles. Example: `[db]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub depends_on: Vec<String>,
}

/// What is done about VMs and nodes that crash.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recovery {
    /// About a VM that crashed (it ended, but did not power itself off), and that its run strategy would start again.
    /// `restart`: it is. `restartVE`: all VMs of the environment are stopped, and started when all are down. `none`: it is
    /// left as it is until the environment has been `Terminated` and is `Running` again. Default: restart.
    #[serde(default)]
    pub on_vm_crash: OnVmCrash,

    /// About the VMs of a node that is gone. `restartVM`: they are started elsewhere, once they have ended for certain.
    /// `restartVE`: the same, and all VMs of the environment are stopped and started; also when the node comes back with
    /// its VMs before. `none`: they wait for their node. Default: restartVM.
    #[serde(default)]
    pub on_node_crash: OnNodeCrash,

    /// How long a VM, or an environment, waits that crashes again and again. The first start is at once.
    #[serde(default)]
    pub back_off: BackOff,
}

impl Recovery {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What is done about a VM that crashed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnVmCrash {
    /// It is started again.
    #[default]
    #[serde(rename = "restart")]
    Restart,
    /// All VMs of the environment are stopped, then started.
    #[serde(rename = "restartVE")]
    RestartVe,
    /// Nothing.
    #[serde(rename = "none")]
    None,
}

/// What is done about the VMs of a node that is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnNodeCrash {
    /// They are started elsewhere.
    #[default]
    #[serde(rename = "restartVM")]
    RestartVm,
    /// The same, and all VMs of the environment are stopped, then started.
    #[serde(rename = "restartVE")]
    RestartVe,
    /// They wait for their node.
    #[serde(rename = "none")]
    None,
}

/// The pauses of what crashes again and again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::back_off_rules()))]
pub struct BackOff {
    /// Seconds before the second start in a row, 1 to 3600; it doubles with each further one. Default: 1.
    #[serde(default = "first_pause")]
    #[schemars(range(min = 1, max = 3600))]
    pub first_seconds: u32,

    /// The longest pause in seconds, 1 to 3600. What has run for a minute begins anew. Default: 60.
    #[serde(default = "longest_pause")]
    #[schemars(range(min = 1, max = 3600))]
    pub longest_seconds: u32,
}

impl Default for BackOff {
    fn default() -> Self {
        Self { first_seconds: first_pause(), longest_seconds: longest_pause() }
    }
}

fn first_pause() -> u32 {
    1
}

fn longest_pause() -> u32 {
    60
}

fn one() -> u32 {
    1
}

/// What a member's replicas are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberKind {
    /// Virtual machines of the node's hypervisor.
    #[default]
    VirtualMachine,
}

/// A kernel that the hypervisor starts directly, without a boot loader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// The kernel image. Example: `{url: "https://images.example.org/vmlinuz", sha256: "…"}`.
    pub kernel: BootImage,

    /// The initial RAM disk. Absent: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initrd: Option<BootImage>,

    /// The kernel's command line, at most 2048 printable ASCII characters. Example: `console=ttyS0 root=/dev/vda1`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 2048), regex(pattern = r"^[ -~]*$"))]
    pub cmdline: String,
}

/// A kernel or an initial RAM disk, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BootImage {
    /// Where to fetch it: `http://…`, `https://…`, or `file:///…` for a file that every node has.
    #[schemars(length(max = 2048), regex(pattern = r"^(https?://[^/\s]+/\S*|file:///\S+)$"))]
    #[schemars(extend("x-kubernetes-validations" = rules::url_rules()))]
    pub url: String,

    /// SHA-256 of the content, 64 lower-case hexadecimal digits; content of another digest is refused.
    /// Absent: the first copy that a node fetches is kept as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: Option<String>,
}

/// One disk of each VM of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Disk {
    /// Unique within the member: lower-case letters, digits and dashes, at most 32. Example: `root`.
    #[schemars(length(min = 1, max = 32), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// Size that the guest sees, 1Mi to 64Ti: a Kubernetes quantity in bytes. It takes room on the node as
    /// the guest writes. It must not be smaller than the image. Example: `20Gi`.
    #[schemars(schema_with = "quantity::disk_schema")]
    pub size: Quantity,

    /// First content, qcow2 or raw. Absent: the disk is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<DiskImage>,
}

/// A disk image, and where it comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DiskImage {
    /// Where to fetch it: `http://…`, `https://…`, or `file:///…` for a file that every node has.
    #[schemars(length(max = 2048), regex(pattern = r"^(https?://[^/\s]+/\S*|file:///\S+)$"))]
    #[schemars(extend("x-kubernetes-validations" = rules::url_rules()))]
    pub url: String,

    /// SHA-256 of the content, 64 lower-case hexadecimal digits: two nodes must start from the same bytes.
    #[schemars(length(min = 64, max = 64), regex(pattern = r"^[0-9a-f]{64}$"))]
    pub sha256: String,
}

/// What to do when a guest stops by itself. KubeVirt's words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RunStrategy {
    /// Start it again whatever the cause.
    #[default]
    Always,
    /// Start it again after a failure only.
    RerunOnFailure,
    /// Never start it again.
    Once,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn spec(extra: serde_json::Value) -> VirtualEnvironmentSpec {
        let boot = json!({"kernel": {"url": "file:///vmlinuz"}});
        let mut spec = json!({"members": [
            {"name": "web", "replicas": 2, "cpus": 1, "memory": "64Mi", "boot": boot},
            {"name": "db", "cpus": 1, "memory": 67_108_864, "boot": boot},
        ]});
        spec.as_object_mut().into_iter().for_each(|map| {
            map.extend(extra.as_object().cloned().unwrap_or_default());
        });
        serde_json::from_value(spec).expect("the spec is one")
    }

    fn counts(spec: &VirtualEnvironmentSpec) -> Vec<u32> {
        spec.members.iter().map(|member| spec.replicas_of(member)).collect()
    }

    #[test]
    fn the_scaled_number_is_about_one_member_only() {
        assert_eq!(counts(&spec(json!({}))), [2, 1]);
        assert_eq!(counts(&spec(json!({"replicas": 5}))), [5, 1]);
        assert_eq!(counts(&spec(json!({"replicas": 0, "scaledMember": "db"}))), [2, 0]);
        assert_eq!(counts(&spec(json!({"scaledMember": "db"}))), [2, 1]);
    }

    #[test]
    fn what_is_left_out_is_read_as_the_definition_defaults_it() {
        let spec = spec(json!({}));
        assert_eq!(spec.state, DesiredState::Running);
        assert_eq!(spec.members[1].replicas, 1);
        assert_eq!(spec.members[1].kind, MemberKind::VirtualMachine);
        assert_eq!(spec.members[1].run_strategy, RunStrategy::Always);
        assert_eq!(super::super::bytes(&spec.members[1].memory), Ok(64 << 20));
    }

    #[test]
    fn what_is_not_set_is_not_written() {
        let text = serde_json::to_string(&spec(json!({}))).expect("a spec is JSON");
        let absent = [
            "null",
            "placement",
            "scaledMember",
            "disks",
            "sha256",
            "cmdline",
            "recovery",
            "dependsOn",
        ];
        for absent in absent {
            assert!(!text.contains(absent), "{absent} in {text}");
        }
    }
}
