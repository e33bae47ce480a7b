//! What the API server refuses by itself about a `VirtualEnvironment`: CEL rules.
//!
//! Every list and string that a rule walks has a bound in the schema, so that the API server's estimate of
//! a rule's cost stays within its budget. What it costs when it runs has a budget of its own: what is cheap
//! and often false comes first. `tests/manifests.rs` proves both on a real API server.
//! Messages say what to do, or why it cannot be.

use kube::core::Rule;
use serde_json::{Value, json};

/// Every constraint, as its field is named.
const CONSTRAINTS: [&str; 13] = [
    "spread",
    "gather",
    "fence",
    "ban",
    "maxNodes",
    "lonely",
    "among",
    "split",
    "root",
    "quarantine",
    "runningCapacity",
    "overbook",
    "spare",
];

/// Those that name the members that they bind.
const BINDING: [&str; 10] = [
    "spread",
    "gather",
    "fence",
    "ban",
    "lonely",
    "among",
    "split",
    "root",
    "runningCapacity",
    "overbook",
];

/// Checks the object's own name. The name is part of libvirt domain names and of file names.
pub(super) fn name_rule() -> Rule {
    Rule::new(
        "self.metadata.name.size() <= 63 && \
         self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')",
    )
    .message(
        "metadata.name must be a DNS label of at most 63 characters: it is part of the names of libvirt \
         domains and of files",
    )
}

/// The rules of `spec`.
pub(super) fn spec_rules() -> Value {
    let total = format!("self.members.map(m, {}).sum() <= 256", count("m"));
    let own_count = format!(
        "!has(self.replicas) || !has(oldSelf.replicas) || self.replicas != oldSelf.replicas || \
         self.members.all(m, m.name != {} || \
         oldSelf.members.all(o, o.name != m.name || o.replicas == m.replicas))",
        scaled("self")
    );
    let mut rules = vec![
        rule(&total, ".members", "an environment holds at most 256 VMs over all its members"),
        rule(
            "!has(self.scaledMember) || self.members.exists(m, m.name == self.scaledMember)",
            ".scaledMember",
            "scaledMember must be the name of a member",
        ),
        rule(
            &own_count,
            ".replicas",
            "the scaled member's own replicas have no effect while spec.replicas is set: change \
             spec.replicas, or remove it in the same change",
        ),
        rule(
            "!has(self.replicas) || !has(oldSelf.replicas) || has(self.scaledMember) || \
             has(oldSelf.scaledMember) || self.members[0].name == oldSelf.members[0].name",
            ".members",
            "spec.replicas is about the first member, which would now be another one: set scaledMember",
        ),
    ];
    rules.push(rule(
        "self.members.all(m, !has(m.dependsOn) || m.dependsOn.all(d, d != m.name && \
         self.members.exists(o, o.name == d)))",
        ".members",
        "dependsOn must be names of other members of this environment",
    ));
    for kind in BINDING {
        rules.push(rule(
            &format!(
                "!has(self.placement) || self.placement.all(p, !has(p.{kind}) || \
                 !has(p.{kind}.members) || \
                 p.{kind}.members.all(n, self.members.exists(m, m.name == n)))"
            ),
            ".placement",
            &format!("{kind}.members must be names of members of this environment"),
        ));
    }
    rules.push(rule(
        "!has(self.placement) || self.placement.all(p, !has(p.split) || \
         p.split.from.all(n, self.members.exists(m, m.name == n)))",
        ".placement",
        "split.from must be names of members of this environment",
    ));
    rules.extend(contradictions());
    Value::Array(rules)
}

/// Placements that nothing can satisfy, whatever the nodes are.
fn contradictions() -> Vec<Value> {
    let spread_and_gather = pair(
        "spread",
        "gather",
        &format!(
            "(p.spread.over == 'zone' || q.gather.over == 'node') && {} > 1",
            vms(&["p.spread", "q.gather"])
        ),
    );
    let too_few_nodes = format!(
        "!has(self.placement) || !self.placement.exists(p, has(p.spread) && \
         self.placement.exists(q, has(q.maxNodes) && {} > q.maxNodes))",
        vms(&["p.spread"])
    );
    let fence_too_small = pair(
        "spread",
        "fence",
        &format!(
            "has(q.fence.nodes.names) && !has(q.fence.nodes.matchLabels) && \
             {} > size(q.fence.nodes.names)",
            vms(&["p.spread", "q.fence"])
        ),
    );
    let fence_banned = pair(
        "fence",
        "ban",
        &format!(
            "has(p.fence.nodes.names) && !has(p.fence.nodes.matchLabels) && \
             has(q.ban.nodes.names) && {} > 0 && \
             p.fence.nodes.names.all(n, n in q.ban.nodes.names)",
            vms(&["p.fence", "q.ban"])
        ),
    );
    vec![
        rule(
            &spread_and_gather,
            ".placement",
            "contradiction: spread and gather bind the same VMs, which cannot be apart and together",
        ),
        rule(
            &too_few_nodes,
            ".placement",
            "contradiction: maxNodes is less than the number of VMs that spread keeps apart",
        ),
        rule(
            &fence_too_small,
            ".placement",
            "contradiction: fence names fewer nodes than the number of its VMs that spread keeps apart",
        ),
        rule(
            &fence_banned,
            ".placement",
            "contradiction: ban names every node that fence allows for the same member",
        ),
    ]
}

/// The rules of a member.
pub(super) fn member_rules() -> Value {
    json!([
        rule(
            "has(self.boot) || (has(self.disks) && size(self.disks) > 0 && has(self.disks[0].image))",
            ".disks",
            "without boot, a VM boots from its first disk: give that disk an image, or set boot",
        ),
        forbidden(
            "self.kind == oldSelf.kind",
            ".kind",
            "kind cannot be changed: add a member of the other kind",
        ),
        // `==` on a list map disregards order, but a disk's place is its name in the guest: hence the names.
        forbidden(
            "(!has(self.disks) && !has(oldSelf.disks)) || (has(self.disks) && has(oldSelf.disks) && \
             self.disks == oldSelf.disks && \
             self.disks.map(d, d.name) == oldSelf.disks.map(d, d.name))",
            ".disks",
            "disks cannot be changed once the member exists, because their content lies on the nodes: add \
             a member with other disks and remove this one",
        ),
    ])
}

/// The rules of a back-off.
pub(super) fn back_off_rules() -> Value {
    json!([{
        "rule": "self.firstSeconds <= self.longestSeconds",
        "message": "firstSeconds must not be more than longestSeconds",
    }])
}

/// The rules of a placement constraint.
pub(super) fn constraint_rules() -> Value {
    let set = CONSTRAINTS.map(|name| format!("has(self.{name})")).join(", ");
    json!([{
        "rule": format!("[{set}].filter(set, set).size() == 1"),
        "message": format!(
            "each entry is one constraint: set exactly one of {}", CONSTRAINTS.join(", ")
        ),
    }])
}

/// The rules of a split.
pub(super) fn split_rules() -> Value {
    json!([{
        "rule": "!self.members.exists(m, m in self.from)",
        "message": "members and from must have no member in common: it cannot be apart from itself",
    }])
}

/// The rules of a selection of nodes.
pub(super) fn node_selection_rules() -> Value {
    json!([{
        "rule": "(has(self.names) && size(self.names) > 0) || \
                 (has(self.matchLabels) && size(self.matchLabels) > 0)",
        "message": "say which nodes: names, matchLabels, or both",
    }])
}

/// The rules of an image's URL.
pub(super) fn url_rules() -> Value {
    json!([{
        "rule": "!self.contains('/..')",
        "message": "a path with .. is refused",
    }])
}

fn rule(rule: &str, field: &str, message: &str) -> Value {
    json!({"rule": rule, "fieldPath": field, "message": message})
}

fn forbidden(rule: &str, field: &str, message: &str) -> Value {
    json!({"rule": rule, "fieldPath": field, "message": message, "reason": "FieldValueForbidden"})
}

/// Name of the member that `spec.replicas` is about.
fn scaled(spec: &str) -> String {
    format!("(has({spec}.scaledMember) ? {spec}.scaledMember : {spec}.members[0].name)")
}

/// Number of VMs of member `m`.
fn count(m: &str) -> String {
    format!("(has(self.replicas) && {m}.name == {} ? self.replicas : {m}.replicas)", scaled("self"))
}

/// Number of VMs that all of the constraints bind.
fn vms(constraints: &[&str]) -> String {
    let binds: Vec<String> = constraints
        .iter()
        .map(|c| format!("(!has({c}.members) || size({c}.members) == 0 || m.name in {c}.members)"))
        .collect();
    format!("self.members.map(m, {}, {}).sum()", binds.join(" && "), count("m"))
}

/// No constraint `p` of the first kind and `q` of the second for which `conflict` holds.
fn pair(first: &str, second: &str, conflict: &str) -> String {
    format!(
        "!has(self.placement) || !self.placement.exists(p, has(p.{first}) && \
         self.placement.exists(q, has(q.{second}) && {conflict}))"
    )
}
