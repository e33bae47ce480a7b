//! LRT, the Local Resources Tracker: this node's capacity, its reservations, its VMs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::id::NodeName;
use super::spec::Resources;

/// What a node offers to the partition that it has entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOffer {
    /// The node.
    pub node: NodeName,
    /// Free for new VMs.
    pub free: Resources,
    /// In all, for people to compare with.
    pub allocatable: Resources,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its zone, empty if it has none.
    pub zone: String,
    /// It takes new VMs.
    pub schedulable: bool,
}
