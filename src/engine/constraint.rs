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

/// A placement constraint. An empty `members` means all. `continuous` ones hold during every step of a move,
/// the VM counted at both ends; the others (the *discrete* reading) before and after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Constraint {
    /// No two VMs of the members share a domain.
    Spread {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Node or zone.
        over: Domain,
        /// During moves too.
        continuous: bool,
    },
    /// All VMs of the members are in one domain.
    Gather {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Node or zone.
        over: Domain,
        /// During moves too: then none can move, unless it is alone.
        continuous: bool,
    },
    /// The members' VMs run on these nodes only.
    Fence {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Where they may run.
        nodes: NodeSelector,
        /// During moves too.
        continuous: bool,
    },
    /// The members' VMs never run on these nodes.
    Ban {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Where they may not run.
        nodes: NodeSelector,
        /// During moves too.
        continuous: bool,
    },
    /// The environment uses at most this many nodes.
    MaxNodes(u32),
    /// The members' VMs share no node with a VM of another environment.
    Lonely {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// During moves too.
        continuous: bool,
    },
    /// All VMs of the members are within one of these groups of nodes.
    Among {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// The groups.
        groups: Vec<NodeSelector>,
        /// During moves too: then none leaves its group, unless it is alone.
        continuous: bool,
    },
    /// No VM of `members` shares a domain with a VM of `from`.
    Split {
        /// One side; not empty.
        members: Vec<MemberName>,
        /// The other side; not empty.
        from: Vec<MemberName>,
        /// Node or zone.
        over: Domain,
        /// During moves too.
        continuous: bool,
    },
    /// The members' VMs do not migrate.
    Root {
        /// Whom it binds.
        members: Vec<MemberName>,
    },
    /// The environment's VMs on these nodes do not leave, and no other enters.
    Quarantine {
        /// The nodes.
        nodes: NodeSelector,
    },
    /// At most so many of the members' VMs run on these nodes together.
    RunningCapacity {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// The nodes.
        nodes: NodeSelector,
        /// How many.
        max: u32,
        /// During moves too.
        continuous: bool,
    },
    /// On a node of the members' VMs, the virtual processors of all VMs are at most this share of the node's own.
    Overbook {
        /// Whom it binds.
        members: Vec<MemberName>,
        /// Virtual processors per hundred.
        cpu_percent: u32,
    },
    /// N+1: were any one node of the environment lost, the other nodes of the partition would have room for
    /// its VMs. Judged when VMs are placed.
    Spare,
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
            Self::Lonely { .. } => "lonely",
            Self::Among { .. } => "among",
            Self::Split { .. } => "split",
            Self::Root { .. } => "root",
            Self::Quarantine { .. } => "quarantine",
            Self::RunningCapacity { .. } => "runningCapacity",
            Self::Overbook { .. } => "overbook",
            Self::Spare => "spare",
        }
    }

    /// Whether it binds this member.
    #[must_use]
    pub fn binds(&self, member: &MemberName) -> bool {
        match self {
            Self::Spread { members, .. }
            | Self::Gather { members, .. }
            | Self::Fence { members, .. }
            | Self::Ban { members, .. }
            | Self::Lonely { members, .. }
            | Self::Among { members, .. }
            | Self::Root { members }
            | Self::RunningCapacity { members, .. }
            | Self::Overbook { members, .. } => holds(members, member),
            Self::Split { members, from, .. } => members.contains(member) || from.contains(member),
            Self::MaxNodes(_) | Self::Quarantine { .. } | Self::Spare => true,
        }
    }

    /// Whether it holds during every step of a move, the VM counted at both ends.
    #[must_use]
    pub fn is_continuous(&self) -> bool {
        match self {
            Self::Spread { continuous, .. }
            | Self::Gather { continuous, .. }
            | Self::Fence { continuous, .. }
            | Self::Ban { continuous, .. }
            | Self::Lonely { continuous, .. }
            | Self::Among { continuous, .. }
            | Self::Split { continuous, .. }
            | Self::RunningCapacity { continuous, .. } => *continuous,
            // The node itself sees to this one, at any time.
            Self::Root { .. } | Self::Quarantine { .. } | Self::Overbook { .. } => true,
            Self::MaxNodes(_) | Self::Spare => false,
        }
    }

    /// Whether the VMs of this member stay where they are once they are placed.
    #[must_use]
    pub fn forbids_moving(&self, member: &MemberName) -> bool {
        matches!(self, Self::Root { members } if holds(members, member))
    }

    /// Whether this member's VMs on this node stay there.
    #[must_use]
    pub fn forbids_leaving(
        &self,
        member: &MemberName,
        node: &NodeName,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        self.forbids_moving(member)
            || matches!(self, Self::Quarantine { nodes } if nodes.matches(node, labels))
    }
}

/// What a VM asks of its node for as long as it is there, whoever else comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// No VM of another environment is there ([`Constraint::Lonely`]).
    pub alone: bool,
    /// Virtual processors per hundred of the node's own, at most ([`Constraint::Overbook`]).
    pub cpu_percent: Option<u32>,
}

impl Terms {
    /// What these constraints ask for a VM of this member.
    #[must_use]
    pub fn of(constraints: &[Constraint], member: &MemberName) -> Self {
        let binding = constraints.iter().filter(|constraint| constraint.binds(member));
        binding.fold(Self::default(), |terms, constraint| match constraint {
            Constraint::Lonely { .. } => Self { alone: true, ..terms },
            Constraint::Overbook { cpu_percent, .. } => {
                let least = terms.cpu_percent.unwrap_or(u32::MAX).min(*cpu_percent);
                Self { cpu_percent: Some(least), ..terms }
            }
            _ => terms,
        })
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
            Self::Spread { members, over, .. } | Self::Gather { members, over, .. } => {
                write!(f, "{name} ({}, {over})", who(members))
            }
            Self::Fence { members, nodes, .. } | Self::Ban { members, nodes, .. } => {
                write!(f, "{name} ({}, {nodes})", who(members))
            }
            Self::MaxNodes(most) => write!(f, "{name} ({most})"),
            Self::Lonely { members, .. } | Self::Root { members } => {
                write!(f, "{name} ({})", who(members))
            }
            Self::Among { members, groups, .. } => {
                write!(f, "{name} ({}, {} groups)", who(members), groups.len())
            }
            Self::Split { members, from, over, .. } => {
                write!(f, "{name} ({} from {}, {over})", who(members), who(from))
            }
            Self::Quarantine { nodes } => write!(f, "{name} ({nodes})"),
            Self::RunningCapacity { members, nodes, max, .. } => {
                write!(f, "{name} ({}, {nodes}, {max})", who(members))
            }
            Self::Overbook { members, cpu_percent } => {
                write!(f, "{name} ({}, {cpu_percent} %)", who(members))
            }
            Self::Spare => write!(f, "{name} (1)"),
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
