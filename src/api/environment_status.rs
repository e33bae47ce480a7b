//! What agents report about a `VirtualEnvironment`.
//!
//! States are plain strings in the schema: the API server must not refuse the report of an agent that
//! is newer than the definition. Readers meet an unknown word as `Unknown`.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the environment is, written by its handler.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VirtualEnvironmentStatus {
    /// The generation of the spec that the handler has seen. The rest of the status is about that one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Waiting` (admitted, not placed), `Running` (placed), `FailingOver` (VMs of a silent or lost node are to run
    /// elsewhere), `Terminated` (stopped as declared, disks kept) or `Deleting`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub phase: Option<Phase>,

    /// `Ready`: it is as declared. `Placed`: every VM has a node. `Progressing`: work is going on. And for
    /// tools that read kstatus: `Reconciling` and `Stalled`, present only while true. Wait for it by
    /// `kubectl wait --for=condition=Ready ve/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// VMs that run, of those declared, to read. Example: `3/3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<String>,

    /// Number of VMs that run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_vms: Option<u32>,

    /// Number of VMs declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_vms: Option<u32>,

    /// Number of VMs of the scaled member: what `kubectl scale` reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<u32>,

    /// Selector of the scaled member, for autoscalers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,

    /// Nodes that hold its VMs, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "set"))]
    pub nodes: Vec<String>,

    /// The same nodes in one line, to read. Example: `node1,node3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_list: Option<String>,

    /// Node whose agent handles this environment: a live one of the replica set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,

    /// Grows with each agent that takes the environment over: what an older handler wrote is out of date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler_round: Option<u64>,

    /// The replicas of this environment's record: nodes, each with the number of its disk, of whose agents a majority
    /// decides. First written by the agent that saw the new environment first, later by the handler.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"))]
    pub replica_set: Vec<String>,

    /// Every VM, one entry each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub vms: Vec<VmStatus>,

    /// Why it is not as declared: the constraint that cannot hold, the resource that is short and by how much, the node that is
    /// silent and when its VMs may be taken over, or what its VMs are doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_reason: Option<String>,
}

/// One VM.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VmStatus {
    /// `<environment>-<member>-<index>`. Its libvirt domain is `<namespace>.<name>`.
    pub name: String,

    /// The member it is a replica of.
    pub member: String,

    /// Which replica, from 0.
    pub index: u32,

    /// Node that holds it. Absent: not placed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,

    /// `Waiting` (not placed), `Starting` (its images and disks are made, or it is being started), `Running`,
    /// `Paused`, `Stopping`, `Stopped` (declared Terminated), `BackOff` (it failed and is tried again),
    /// `Completed` (it ended by itself and its run strategy leaves it so), `Removing`, or `Unknown` (its node
    /// does not answer).
    #[schemars(with = "String")]
    pub state: VmState,

    /// UUID of its libvirt domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,

    /// Counts its placements; a domain of an older epoch is not this VM.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,

    /// How often it was started again after it stopped by itself, or was ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<u32>,

    /// When it came into this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// Why it is in this state, in one word. Example: `GuestPoweredOff`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// Why it is in this state, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// States of an environment, as an operating system has them for processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// Admitted, not placed.
    Waiting,
    /// Placed.
    Running,
    /// VMs of it were on a node that is silent or lost: they run elsewhere once it is proven that they have ended there.
    FailingOver,
    /// Stopped as declared, disks kept.
    Terminated,
    /// Deleted by its owner; its VMs are being removed.
    Deleting,
    /// A word of a newer agent.
    #[default]
    #[serde(other)]
    Unknown,
}

/// States of a VM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmState {
    /// Not placed.
    Waiting,
    /// Its images and disks are made, or its domain is being started.
    Starting,
    /// Its guest runs.
    Running,
    /// Its processors are paused, and about to be continued.
    Paused,
    /// Its guest runs, and is being moved to another node.
    Migrating,
    /// Its node stops it.
    Stopping,
    /// Stopped, as declared.
    Stopped,
    /// It failed, and is tried again.
    BackOff,
    /// It ended by itself, and its run strategy leaves it so.
    Completed,
    /// It is being removed.
    Removing,
    /// Its node does not answer, or a word of a newer agent.
    #[default]
    #[serde(other)]
    Unknown,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_words_of_a_newer_agent_are_read_as_unknown() {
        let status: VirtualEnvironmentStatus = serde_json::from_value(json!({
            "phase": "Sleeping",
            "vms": [{"name": "a-web-0", "member": "web", "index": 0, "state": "Teleporting"}],
        }))
        .expect("an unknown word is no error");
        assert_eq!(status.phase, Some(Phase::Unknown));
        assert_eq!(status.vms[0].state, VmState::Unknown);
    }

    #[test]
    fn an_empty_status_takes_nothing_from_another_writer() {
        let empty = serde_json::to_value(VirtualEnvironmentStatus::default()).expect("it is JSON");
        assert_eq!(empty, json!({}));
    }
}
