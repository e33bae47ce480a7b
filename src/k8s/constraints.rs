//! Declared placement constraints as the engine reads them: see [`super::convert`], whose bounds and errors
//! these are.

use std::collections::BTreeSet;

use super::convert::{SpecError, wrong};
use crate::api;
use crate::engine::id::{MemberName, NodeName};
use crate::engine::spec::{Constraint, Domain, NodeSelector};

/// Longest label key (a DNS name, a slash and a name), bytes.
const MAX_LABEL_KEY: usize = 317;
/// Most labels of one selection.
const MAX_LABELS: usize = 16;
/// Longest node name, bytes.
const MAX_NODE_NAME: usize = 253;
/// Most nodes that `maxNodes` may say, and most VMs that `runningCapacity` may.
const MAX_COUNT: u32 = 256;
/// Fewest and most virtual processors per hundred that `overbook` may say.
const CPU_PERCENT: (u32, u32) = (1, 6400);

/// One entry of `spec.placement`, at `field`; `known` are the names of the members.
///
/// # Errors
/// Names the field that breaks a bound.
pub(super) fn constraint(
    field: &str,
    declared: &api::PlacementConstraint,
    known: &BTreeSet<&str>,
) -> Result<Constraint, SpecError> {
    let names = |list: &str, names: &[String]| -> Result<Vec<MemberName>, SpecError> {
        let named = names.iter().map(|name| match known.contains(name.as_str()) {
            true => Ok(name.as_str().into()),
            false => wrong(format!("{field}.{list}"), format!("no member {name}")),
        });
        named.collect()
    };
    let members = |kind: &str, list: &[String]| names(&format!("{kind}.members"), list);
    let mut found = Vec::new();
    if let Some(api::Spread { members: bound, over, continuous }) = &declared.spread {
        let (members, over) = (members("spread", bound)?, domain(*over));
        found.push(Constraint::Spread { members, over, continuous: *continuous });
    }
    if let Some(api::Gather { members: bound, over, continuous }) = &declared.gather {
        let (members, over) = (members("gather", bound)?, domain(*over));
        found.push(Constraint::Gather { members, over, continuous: *continuous });
    }
    if let Some(api::Fence { members: bound, nodes, continuous }) = &declared.fence {
        let nodes = selector(&format!("{field}.fence.nodes"), nodes)?;
        let members = members("fence", bound)?;
        found.push(Constraint::Fence { members, nodes, continuous: *continuous });
    }
    if let Some(api::Fence { members: bound, nodes, continuous }) = &declared.ban {
        let nodes = selector(&format!("{field}.ban.nodes"), nodes)?;
        let members = members("ban", bound)?;
        found.push(Constraint::Ban { members, nodes, continuous: *continuous });
    }
    if let Some(most) = declared.max_nodes {
        within(&format!("{field}.maxNodes"), most, (1, MAX_COUNT))?;
        found.push(Constraint::MaxNodes(most));
    }
    if let Some(api::Lonely { members: bound, continuous }) = &declared.lonely {
        let members = members("lonely", bound)?;
        found.push(Constraint::Lonely { members, continuous: *continuous });
    }
    if let Some(api::Among { members: bound, groups, continuous }) = &declared.among {
        let groups = node_groups(&format!("{field}.among.groups"), groups)?;
        let members = members("among", bound)?;
        found.push(Constraint::Among { members, groups, continuous: *continuous });
    }
    if let Some(api::Split { members: bound, from, over, continuous }) = &declared.split {
        let sides = (members("split", bound)?, names("split.from", from)?);
        let (members, from) = two_sides(field, sides)?;
        let over = domain(*over);
        found.push(Constraint::Split { members, from, over, continuous: *continuous });
    }
    if let Some(api::Root { members: bound }) = &declared.root {
        found.push(Constraint::Root { members: members("root", bound)? });
    }
    if let Some(api::Quarantine { nodes }) = &declared.quarantine {
        let nodes = selector(&format!("{field}.quarantine.nodes"), nodes)?;
        found.push(Constraint::Quarantine { nodes });
    }
    if let Some(capacity) = &declared.running_capacity {
        let (max, continuous) = (capacity.max, capacity.continuous);
        within(&format!("{field}.runningCapacity.max"), max, (0, MAX_COUNT))?;
        let nodes = selector(&format!("{field}.runningCapacity.nodes"), &capacity.nodes)?;
        let members = members("runningCapacity", &capacity.members)?;
        found.push(Constraint::RunningCapacity { members, nodes, max, continuous });
    }
    if let Some(api::Overbook { members: bound, cpu_percent }) = &declared.overbook {
        within(&format!("{field}.overbook.cpuPercent"), *cpu_percent, CPU_PERCENT)?;
        let members = members("overbook", bound)?;
        found.push(Constraint::Overbook { members, cpu_percent: *cpu_percent });
    }
    if let Some(nodes) = declared.spare {
        within(&format!("{field}.spare"), nodes, (1, 1))?;
        found.push(Constraint::Spare);
    }
    match (found.pop(), found.is_empty()) {
        (Some(constraint), true) => Ok(constraint),
        _ => wrong(field, "must be exactly one constraint"),
    }
}

/// Two sides of a split that can be apart: neither empty, and no member on both.
fn two_sides(
    field: &str,
    (members, from): (Vec<MemberName>, Vec<MemberName>),
) -> Result<(Vec<MemberName>, Vec<MemberName>), SpecError> {
    if members.is_empty() || from.is_empty() {
        return wrong(format!("{field}.split"), "must have members on both sides");
    }
    if members.iter().any(|member| from.contains(member)) {
        return wrong(format!("{field}.split.from"), "must have no member in common with members");
    }
    Ok((members, from))
}

fn within(field: &str, number: u32, (least, most): (u32, u32)) -> Result<(), SpecError> {
    match (least..=most).contains(&number) {
        true => Ok(()),
        false if least == most => wrong(field, format!("must be {least}")),
        false => wrong(field, format!("must be {least} to {most}")),
    }
}

fn node_groups(field: &str, groups: &[api::NodeSelection]) -> Result<Vec<NodeSelector>, SpecError> {
    if groups.is_empty() || groups.len() > api::MAX_GROUPS {
        return wrong(field, format!("must be 1 to {} groups", api::MAX_GROUPS));
    }
    let groups = groups.iter().enumerate();
    groups.map(|(index, group)| selector(&format!("{field}[{index}]"), group)).collect()
}

fn domain(over: api::TopologyDomain) -> Domain {
    match over {
        api::TopologyDomain::Node => Domain::Node,
        api::TopologyDomain::Zone => Domain::Zone,
    }
}

fn selector(field: &str, declared: &api::NodeSelection) -> Result<NodeSelector, SpecError> {
    if declared.names.is_empty() && declared.match_labels.is_empty() {
        return wrong(field, "must say names, matchLabels, or both");
    }
    let long_name = |name: &String| name.is_empty() || name.len() > MAX_NODE_NAME;
    if declared.names.len() > api::MAX_NODE_NAMES || declared.names.iter().any(long_name) {
        return wrong(
            format!("{field}.names"),
            format!("must be at most {} names of at most 253 characters", api::MAX_NODE_NAMES),
        );
    }
    if declared.match_labels.len() > MAX_LABELS
        || declared
            .match_labels
            .iter()
            .any(|(key, value)| key.is_empty() || key.len() > MAX_LABEL_KEY || value.len() > 63)
    {
        return wrong(format!("{field}.matchLabels"), "must be at most 16 Kubernetes labels");
    }
    Ok(NodeSelector {
        names: declared.names.iter().map(|name| NodeName::from(name.as_str())).collect(),
        labels: declared.match_labels.clone(),
    })
}
