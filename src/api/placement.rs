//! Placement constraints, named as the literature names them: BtrPlace (Hermenier, Lawall, Muller, IEEE TDSC
//! 10(5), 2013).

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::environment_rules as rules;

// A struct rather than an enum, because the API server's word for a broken `oneOf` helps nobody, and a
// CEL rule can say what to do.
/// One constraint: exactly one of its fields is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::constraint_rules()))]
pub struct PlacementConstraint {
    /// No two VMs of these members share a node (or a zone). Example: `{members: [web], over: node}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spread: Option<Spread>,

    /// All VMs of these members are on one node (or in one zone). Example: `{members: [web, cache], over: zone}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gather: Option<Gather>,

    /// The VMs of these members run on these nodes only. Example: `{members: [db], nodes: {matchLabels: {disk: nvme}}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fence: Option<Fence>,

    /// The VMs of these members never run on these nodes. Example: `{nodes: {names: [node3]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ban: Option<Fence>,

    /// The environment uses at most this many nodes, at least 1. Example: `2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub max_nodes: Option<u32>,

    /// The VMs of these members share no node with a VM of another environment; whoever came first keeps the
    /// other out. Example: `{members: [db]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lonely: Option<Lonely>,

    /// All VMs of these members are within one of several groups of nodes. Example:
    /// `{members: [db], groups: [{matchLabels: {rack: a}}, {matchLabels: {rack: b}}]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub among: Option<Among>,

    /// No VM of `members` shares a node (or a zone) with a VM of `from`. Example: `{members: [web], from: [db]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,

    /// The VMs of these members never migrate once they are placed. Example: `{members: [db]}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,

    /// No VM of this environment enters or leaves these nodes: those that are there stay, new ones go elsewhere.
    /// Example: `{nodes: {names: [node3]}}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,

    /// At most `max` of the VMs of these members run on these nodes together. Example:
    /// `{members: [web], nodes: {matchLabels: {licensed: "true"}}, max: 2}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running_capacity: Option<RunningCapacity>,

    /// On nodes with VMs of these members, all VMs together have at most so many virtual processors per hundred
    /// of the node's own. Example: `{members: [db], cpuPercent: 100}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overbook: Option<Overbook>,

    /// Room for the loss of nodes: `1`, that of any one node of the environment's (N+1). When VMs are placed, the
    /// other nodes of the partition must have room for what that node holds; it is not kept free afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1))]
    pub spare: Option<u32>,
}

/// No two VMs share a domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Spread {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// `node`, or `zone`: the nodes' label `topology.kubernetes.io/zone`. A node without that label is a
    /// zone of its own. Default: node.
    #[serde(default)]
    pub over: TopologyDomain,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends. `false`: before
    /// and after it. Default: true.
    #[serde(default = "yes")]
    pub continuous: bool,
}

/// All VMs are in one domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Gather {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// `node`, or `zone`: the nodes' label `topology.kubernetes.io/zone`. A node without that label is a
    /// zone of its own. Default: node.
    #[serde(default)]
    pub over: TopologyDomain,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends, so that none can
    /// leave the others. `false`: before and after it. Default: false.
    #[serde(default)]
    pub continuous: bool,
}

/// Members and the nodes that a fence or a ban is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Fence {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// The nodes, by name, by labels, or both (then a node needs to match one of the two).
    pub nodes: NodeSelection,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends. `false`: before
    /// and after it. Default: true.
    #[serde(default = "yes")]
    pub continuous: bool,
}

/// Members whose VMs share nodes with their own environment only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lonely {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends. `false`: before
    /// and after it. Default: true.
    #[serde(default = "yes")]
    pub continuous: bool,
}

/// All VMs are within one group of nodes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Among {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// The groups, 1 to 8: all VMs of the members are on nodes of one of them.
    #[schemars(length(min = 1, max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub groups: Vec<NodeSelection>,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends, so that none can
    /// leave its group while others are there. `false`: before and after it. Default: false.
    #[serde(default)]
    pub continuous: bool,
}

/// Two sets of members that share no domain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::split_rules()))]
pub struct Split {
    /// Names of the members of one side, 1 to 32.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// Names of the members of the other side, 1 to 32, none of which is among `members`.
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub from: Vec<String>,

    /// `node`, or `zone`: the nodes' label `topology.kubernetes.io/zone`. A node without that label is a
    /// zone of its own. Default: node.
    #[serde(default)]
    pub over: TopologyDomain,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends. `false`: before
    /// and after it. Default: true.
    #[serde(default = "yes")]
    pub continuous: bool,
}

/// Members whose VMs stay where they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,
}

/// Nodes that the environment's VMs neither enter nor leave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Quarantine {
    /// The nodes, by name, by labels, or both (then a node needs to match one of the two).
    pub nodes: NodeSelection,
}

/// A number of VMs that run on some nodes together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningCapacity {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// The nodes, by name, by labels, or both (then a node needs to match one of the two).
    pub nodes: NodeSelection,

    /// How many VMs at most, on all of these nodes together, 0 to 256.
    #[schemars(range(min = 0, max = 256))]
    pub max: u32,

    /// `true`: it holds during every step of a live migration, the VM counted at both ends. `false`: before
    /// and after it. Default: true.
    #[serde(default = "yes")]
    pub continuous: bool,
}

/// A limit to how far processors are handed out beyond what a node has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overbook {
    /// Names of the members that it binds, at most 32. Absent or empty: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 32)), extend("x-kubernetes-list-type" = "set"))]
    pub members: Vec<String>,

    /// Virtual processors per hundred of the node's own, 1 to 6400 percent; the node's own `overcommit` holds
    /// besides. Example: `100`: every virtual processor has one of its own.
    #[schemars(range(min = 1, max = 6400))]
    pub cpu_percent: u32,
}

fn yes() -> bool {
    true
}

/// Nodes, by name or by labels of their Kubernetes `Node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules::node_selection_rules()))]
pub struct NodeSelection {
    /// Node names, at most 32; for more, use labels. Example: `[node1, node2]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)), extend("x-kubernetes-list-type" = "set"))]
    pub names: Vec<String>,

    /// Labels, at most 16, all of which a node must carry. Example: `{disk: nvme}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "match_labels_schema")]
    pub match_labels: BTreeMap<String, String>,
}

fn match_labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {"type": "string", "maxLength": 63},
    })
}

/// What a spread or a gather counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum TopologyDomain {
    /// Physical nodes.
    #[default]
    Node,
    /// Zones.
    Zone,
}
