//! Placement constraints, named as the literature names them: BtrPlace (Hermenier, Lawall, Muller, *BtrPlace: a
//! flexible consolidation manager for highly available applications*, IEEE TDSC 10(5), 2013).

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::id::{MemberName, NodeName};

/// What a spread or gather counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Domain {
    /// Physical nodes.
    Node,
    /// The nodes' `topology.kubernetes.io/zone`. A node without it is a zone of its own.
    Zone,
}

impl fmt::Display for Domain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Node => "node",
            Self::Zone => "zone",
        })
    }
}

/// Nodes chosen by name or by labels. A node matches when it is named, or when it carries every label
/// of a non-empty `labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeSelector {
    /// By name.
    pub names: Vec<NodeName>,
    /// By labels, all of which must match.
    pub labels: BTreeMap<String, String>,
}

impl NodeSelector {
    /// Whether this node is chosen.
    #[must_use]
    pub fn matches(&self, node: &NodeName, labels: &BTreeMap<String, String>) -> bool {
        let labelled = || self.labels.iter().all(|(key, value)| labels.get(key) == Some(value));
        self.names.contains(node) || (!self.labels.is_empty() && labelled())
    }
}

impl fmt::Display for NodeSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.iter().map(NodeName::to_string);
        let labels: Vec<_> = self.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let labels = (!labels.is_empty()).then(|| labels.join(" and "));
        f.write_str(&some(&names.chain(labels).collect::<Vec<_>>(), " or "))
    }
}

/// A placement constraint. An empty `members` means all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// No two VMs of the members share a domain.
    Spread {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Node or zone.
        over: Domain,
    },
    /// All VMs of the members are in one domain.
    Gather {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Node or zone.
        over: Domain,
    },
    /// The members' VMs run on these nodes only.
    Fence {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Where they may run.
        nodes: NodeSelector,
    },
    /// The members' VMs never run on these nodes.
    Ban {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Where they may not run.
        nodes: NodeSelector,
    },
    /// The environment uses at most this many nodes.
    MaxNodes(u32),
}

impl Constraint {
    /// The literature's name, as in the manifest.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Spread { .. } => "spread",
            Self::Gather { .. } => "gather",
            Self::Fence { .. } => "fence",
            Self::Ban { .. } => "ban",
            Self::MaxNodes(_) => "maxNodes",
        }
    }

    /// Whether it binds this member.
    #[must_use]
    pub fn binds(&self, member: &MemberName) -> bool {
        match self {
            Self::Spread { members, .. }
            | Self::Gather { members, .. }
            | Self::Fence { members, .. }
            | Self::Ban { members, .. } => holds(members, member),
            Self::MaxNodes(_) => true,
        }
    }
}

/// Whether a list of members, of which none means all, names this one.
fn holds(members: &[MemberName], member: &MemberName) -> bool {
    members.is_empty() || members.contains(member)
}

/// As people tell one constraint from another: `spread (web, node)`.
impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Spread { members, over } | Self::Gather { members, over } => {
                write!(f, "{name} ({}, {over})", who(members))
            }
            Self::Fence { members, nodes } | Self::Ban { members, nodes } => {
                write!(f, "{name} ({}, {nodes})", who(members))
            }
            Self::MaxNodes(most) => write!(f, "{name} ({most})"),
        }
    }
}

fn who(members: &[MemberName]) -> String {
    match members {
        [] => "all".into(),
        members => some(&members.iter().map(MemberName::to_string).collect::<Vec<_>>(), "+"),
    }
}

/// The first few of a list: the whole of it is in the manifest.
fn some(items: &[String], between: &str) -> String {
    const FEW: usize = 4;
    let mut text = items.iter().take(FEW).cloned().collect::<Vec<_>>().join(between);
    if items.len() > FEW {
        text.push_str(&format!("{between}{} more", items.len() - FEW));
    }
    text
}
