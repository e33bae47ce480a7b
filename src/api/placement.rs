//! Placement constraints, named as the literature names them (BtrPlace).

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
