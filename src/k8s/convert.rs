//! Declared specs as the engine reads them.
//!
//! The API server has validated them, by the definition that it holds: that may be an older one, so all
//! bounds are checked again. What breaks one is named by its field; nothing here panics.

use std::collections::BTreeSet;
use std::time::Duration;

use super::constraints::constraint;
use super::ve_status;
use crate::api;
use crate::engine::id::{MemberName, VeName};
use crate::engine::input::{NOT_ITS_HANDLERS, VeDeclared};
use crate::engine::replica::Replica;
use crate::engine::spec::{
    BackOff, Boot, DiskSpec, ImageSource, MemberSpec, OnNodeCrash, OnVmCrash, Recovery,
    RunStrategy, VeSpec, VeState,
};

/// Fewest and most bytes of a VM's memory: 16 MiB boots nothing smaller, 4 TiB is more than hosts have.
const MEMORY: (u64, u64) = (16 << 20, 4 << 40);
/// Fewest and most bytes of a disk.
const DISK: (u64, u64) = (1 << 20, 64 << 40);
/// Most virtual processors of a VM.
const MAX_CPUS: u32 = 256;
/// Longest pause before a start, seconds.
const MAX_PAUSE: u32 = 3600;
/// Longest URL or kernel command line, bytes.
const MAX_TEXT: usize = 2048;

/// A spec that cannot be carried out as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct SpecError {
    /// The field, as in a manifest: `spec.members[0].memory`.
    pub field: String,
    /// What is wrong with it.
    pub reason: String,
}

pub(super) fn wrong<T>(
    field: impl Into<String>,
    reason: impl Into<String>,
) -> Result<T, SpecError> {
    Err(SpecError { field: field.into(), reason: reason.into() })
}

/// An environment as the API server holds it. One that is being deleted is read whatever its spec says,
/// because somebody must release it: a spec that cannot be read counts as an empty one then.
///
/// # Errors
/// When it is not being deleted and its spec cannot be read, or when it has no identity.
pub(super) fn declared(ve: &api::VirtualEnvironment) -> Result<VeDeclared, SpecError> {
    let metadata = &ve.metadata;
    let (Some(uid), Some(namespace), Some(name)) =
        (&metadata.uid, &metadata.namespace, &metadata.name)
    else {
        return wrong("metadata", "has no uid, namespace or name");
    };
    let deleting = metadata.deletion_timestamp.is_some();
    let spec = match ve_spec(&ve.spec) {
        Ok(spec) => spec,
        Err(_) if deleting => VeSpec {
            state: VeState::Terminated,
            members: Vec::new(),
            placement: Vec::new(),
            recovery: Recovery::default(),
        },
        Err(error) => return Err(error),
    };
    let status = ve.status.as_ref();
    let replica_set = status.map(|status| status.replica_set.as_slice()).unwrap_or_default();
    let replica_set: Result<Vec<Replica>, String> =
        replica_set.iter().map(|replica| replica.parse()).collect();
    let replica_set = replica_set
        .or_else(|error| wrong("status.replicaSet", format!("{error}: remove the field")))?;
    Ok(VeDeclared {
        uid: uid.as_str().into(),
        name: VeName::new(namespace, name),
        generation: metadata.generation.unwrap_or_default(),
        resource_version: metadata.resource_version.clone().unwrap_or_default(),
        deleting,
        gone: false,
        reported: match status {
            Some(status) if ve_status::lacks_majority(status) => NOT_ITS_HANDLERS,
            _ => status.and_then(|status| status.handler_round).unwrap_or_default(),
        },
        replica_set,
        spec,
    })
}

/// A declared spec in plain numbers, `kubectl scale` considered.
///
/// # Errors
/// Names the first field that breaks a bound.
pub fn ve_spec(spec: &api::VirtualEnvironmentSpec) -> Result<VeSpec, SpecError> {
    if spec.members.is_empty() || spec.members.len() > api::MAX_MEMBERS {
        return wrong("spec.members", format!("must be 1 to {} members", api::MAX_MEMBERS));
    }
    if spec.scaled_member().is_none() {
        return wrong("spec.scaledMember", "is not the name of a member");
    }
    let mut names = BTreeSet::new();
    let mut members = Vec::with_capacity(spec.members.len());
    for (index, declared) in spec.members.iter().enumerate() {
        let field = format!("spec.members[{index}]");
        if !names.insert(declared.name.as_str()) {
            return wrong(format!("{field}.name"), format!("{} is there twice", declared.name));
        }
        members.push(member(&field, declared, spec.replicas_of(declared))?);
    }
    let total: u32 = members.iter().map(|member| member.replicas).sum();
    if total > api::MAX_VMS {
        return wrong("spec.members", format!("{total} VMs, at most {}", api::MAX_VMS));
    }
    if spec.placement.len() > api::MAX_CONSTRAINTS {
        return wrong("spec.placement", format!("at most {} constraints", api::MAX_CONSTRAINTS));
    }
    let placement = spec
        .placement
        .iter()
        .enumerate()
        .map(|(index, declared)| constraint(&format!("spec.placement[{index}]"), declared, &names))
        .collect::<Result<_, _>>()?;
    let state = match spec.state {
        api::DesiredState::Running => VeState::Running,
        api::DesiredState::Terminated => VeState::Terminated,
    };
    let recovery = recovery(&spec.recovery)?;
    in_order(&members)?;
    Ok(VeSpec { state, members, placement, recovery })
}

fn member(field: &str, declared: &api::Member, replicas: u32) -> Result<MemberSpec, SpecError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let name = &declared.name;
    if name.is_empty()
        || name.len() > api::MAX_PART_NAME
        || !name.chars().all(plain)
        || !name.starts_with(|c: char| c.is_ascii_lowercase())
    {
        return wrong(
            format!("{field}.name"),
            "must be lower-case letters and digits, beginning with a letter, at most 32",
        );
    }
    if replicas > api::MAX_REPLICAS {
        return wrong(format!("{field}.replicas"), format!("at most {}", api::MAX_REPLICAS));
    }
    if declared.cpus == 0 || declared.cpus > MAX_CPUS {
        return wrong(format!("{field}.cpus"), format!("must be 1 to {MAX_CPUS}"));
    }
    if declared.disks.len() > api::MAX_DISKS {
        return wrong(format!("{field}.disks"), format!("at most {}", api::MAX_DISKS));
    }
    let mut disks: Vec<DiskSpec> = Vec::with_capacity(declared.disks.len());
    for (index, declared) in declared.disks.iter().enumerate() {
        let field = format!("{field}.disks[{index}]");
        if disks.iter().any(|disk| disk.name == declared.name) {
            return wrong(format!("{field}.name"), format!("{} is there twice", declared.name));
        }
        disks.push(disk(&field, declared)?);
    }
    let boot = match &declared.boot {
        Some(declared) => kernel(&format!("{field}.boot"), declared)?,
        None if disks.first().is_some_and(|disk| disk.image.is_some()) => Boot::Disk,
        None => {
            return wrong(format!("{field}.disks"), "without boot, the first disk needs an image");
        }
    };
    Ok(MemberSpec {
        name: name.as_str().into(),
        replicas,
        cpus: declared.cpus,
        memory: quantity(&format!("{field}.memory"), &declared.memory, MEMORY)?,
        boot,
        disks,
        run_strategy: match declared.run_strategy {
            api::RunStrategy::Always => RunStrategy::Always,
            api::RunStrategy::RerunOnFailure => RunStrategy::RerunOnFailure,
            api::RunStrategy::Once => RunStrategy::Once,
        },
        depends_on: declared.depends_on.iter().map(|name| name.as_str().into()).collect(),
    })
}

/// Members can be started one after the other, each after those that it depends on.
fn in_order(members: &[MemberSpec]) -> Result<(), SpecError> {
    let mut started: BTreeSet<&MemberName> = BTreeSet::new();
    let known: BTreeSet<&MemberName> = members.iter().map(|member| &member.name).collect();
    for (index, member) in members.iter().enumerate() {
        if let Some(unknown) = member.depends_on.iter().find(|name| !known.contains(name)) {
            let field = format!("spec.members[{index}].dependsOn");
            return wrong(field, format!("{unknown} is not the name of a member"));
        }
    }
    loop {
        let may = |m: &&MemberSpec| m.depends_on.iter().all(|name| started.contains(name));
        let next = members.iter().filter(may).map(|member| &member.name);
        let next: BTreeSet<&MemberName> = next.collect();
        if next.len() == started.len() {
            break;
        }
        started = next;
    }
    let waits = |member: &MemberSpec| !started.contains(&member.name);
    let Some(index) = members.iter().position(waits) else { return Ok(()) };
    let names: Vec<&str> =
        known.iter().filter(|n| !started.contains(*n)).map(|n| n.as_str()).collect();
    let reason = format!("members wait for each other: {}", names.join(", "));
    wrong(format!("spec.members[{index}].dependsOn"), reason)
}

fn recovery(declared: &api::Recovery) -> Result<Recovery, SpecError> {
    let api::BackOff { first_seconds, longest_seconds } = declared.back_off;
    for (name, seconds) in [("firstSeconds", first_seconds), ("longestSeconds", longest_seconds)] {
        if !(1..=MAX_PAUSE).contains(&seconds) {
            return wrong(
                format!("spec.recovery.backOff.{name}"),
                format!("must be 1 to {MAX_PAUSE}"),
            );
        }
    }
    Ok(Recovery {
        on_vm_crash: match declared.on_vm_crash {
            api::OnVmCrash::Restart => OnVmCrash::Restart,
            api::OnVmCrash::RestartVe => OnVmCrash::RestartVe,
            api::OnVmCrash::None => OnVmCrash::Leave,
        },
        on_node_crash: match declared.on_node_crash {
            api::OnNodeCrash::RestartVm => OnNodeCrash::RestartVm,
            api::OnNodeCrash::RestartVe => OnNodeCrash::RestartVe,
            api::OnNodeCrash::None => OnNodeCrash::Leave,
        },
        back_off: BackOff {
            first: Duration::from_secs(first_seconds.into()),
            longest: Duration::from_secs(longest_seconds.into()),
        },
    })
}

fn kernel(field: &str, boot: &api::Boot) -> Result<Boot, SpecError> {
    if boot.cmdline.len() > MAX_TEXT || !boot.cmdline.chars().all(|c| (' '..='~').contains(&c)) {
        return wrong(format!("{field}.cmdline"), "must be at most 2048 printable characters");
    }
    let source = |part: &str, image: &api::BootImage| {
        image_source(&format!("{field}.{part}"), &image.url, image.sha256.as_deref())
    };
    Ok(Boot::Kernel {
        kernel: source("kernel", &boot.kernel)?,
        initrd: boot.initrd.as_ref().map(|image| source("initrd", image)).transpose()?,
        cmdline: boot.cmdline.clone(),
    })
}

fn disk(field: &str, declared: &api::Disk) -> Result<DiskSpec, SpecError> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let name = &declared.name;
    if name.is_empty()
        || name.len() > api::MAX_PART_NAME
        || !name.chars().all(plain)
        || name.starts_with('-')
        || name.ends_with('-')
    {
        return wrong(format!("{field}.name"), "must be lower-case letters, digits and dashes");
    }
    let image = declared
        .image
        .as_ref()
        .map(|image| image_source(&format!("{field}.image"), &image.url, Some(&image.sha256)))
        .transpose()?;
    Ok(DiskSpec {
        name: name.clone(),
        size: quantity(&format!("{field}.size"), &declared.size, DISK)?,
        image,
    })
}

fn image_source(field: &str, url: &str, sha256: Option<&str>) -> Result<ImageSource, SpecError> {
    let rest =
        ["http://", "https://", "file:///"].iter().find_map(|scheme| url.strip_prefix(scheme));
    let usable = rest.is_some_and(|rest| !rest.is_empty())
        && url.len() <= MAX_TEXT
        && !url.contains(|c: char| c.is_whitespace() || c.is_control())
        && !url.contains("/..");
    if !usable {
        return wrong(format!("{field}.url"), "must be http://, https:// or file:/// and a path");
    }
    let hexadecimal = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    if let Some(digest) = sha256
        && (digest.len() != 64 || !digest.chars().all(hexadecimal))
    {
        return wrong(format!("{field}.sha256"), "must be 64 lower-case hexadecimal digits");
    }
    Ok(ImageSource { url: url.to_owned(), sha256: sha256.map(str::to_owned) })
}

fn quantity(
    field: &str,
    quantity: &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
    (least, most): (u64, u64),
) -> Result<u64, SpecError> {
    match api::bytes(quantity) {
        Ok(bytes) if (least..=most).contains(&bytes) => Ok(bytes),
        Ok(_) => wrong(
            field,
            format!(
                "{} is not between {} and {}",
                quantity.0,
                api::from_bytes(least).0,
                api::from_bytes(most).0
            ),
        ),
        Err(error) => wrong(field, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::engine::spec::{Constraint, Domain, NodeSelector};

    fn spec(value: Value) -> Result<VeSpec, SpecError> {
        let spec: api::VirtualEnvironmentSpec =
            serde_json::from_value(value).expect("the test's manifest has the right types");
        ve_spec(&spec)
    }

    fn member(overrides: Value) -> Value {
        let mut member = json!({
            "name": "web", "replicas": 2, "cpus": 1, "memory": "256Mi",
            "boot": {"kernel": {"url": "https://images.example.org/vmlinuz"}},
            "disks": [{"name": "root", "size": "1Gi"}],
        });
        let fields = member.as_object_mut().expect("an object");
        for (key, value) in overrides.as_object().expect("an object") {
            fields.insert(key.clone(), value.clone());
        }
        member
    }

    #[test]
    fn a_declared_spec_becomes_plain_numbers() {
        let read = spec(json!({
            "members": [member(json!({})), member(json!({"name": "db", "replicas": 1}))],
            "replicas": 5, "scaledMember": "web",
            "placement": [
                {"spread": {"members": ["web"], "over": "zone"}},
                {"ban": {"nodes": {"names": ["n1"], "matchLabels": {"disk": "tape"}}}},
                {"maxNodes": 3},
            ],
        }))
        .expect("a valid spec");
        assert_eq!(read.state, VeState::Running);
        assert_eq!(read.members[0].replicas, 5, "kubectl scale wins over the member's own number");
        assert_eq!(read.members[1].replicas, 1);
        assert_eq!(read.members[0].memory, 256 << 20);
        assert_eq!(read.members[0].disks[0].size, 1 << 30);
        assert_eq!(
            read.placement[0],
            Constraint::Spread {
                members: vec!["web".into()],
                over: Domain::Zone,
                continuous: true
            }
        );
        assert_eq!(read.placement[2], Constraint::MaxNodes(3));
    }

    #[test]
    fn members_that_wait_for_each_other_and_pauses_out_of_bounds_are_refused_by_field() {
        let waits = |name: &str, on: &[&str]| member(json!({"name": name, "dependsOn": on}));
        let read = |members: [Value; 3], recovery: Value| {
            spec(json!({"members": members, "recovery": recovery}))
        };
        let chain = [waits("web", &["db"]), waits("db", &["log"]), waits("log", &[])];
        let good = read(chain.clone(), json!({"onVmCrash": "restartVE", "onNodeCrash": "none"}));
        let good = good.expect("a chain is no circle");
        assert_eq!(good.members[0].depends_on, ["db".into()]);
        assert_eq!(good.recovery.on_vm_crash, OnVmCrash::RestartVe);
        assert_eq!(good.recovery.on_node_crash, OnNodeCrash::Leave);
        assert_eq!(good.recovery.back_off, BackOff::default());
        let refused =
            |result: Result<VeSpec, SpecError>| result.expect_err("is refused").to_string();
        let circle = [waits("log", &[]), waits("web", &["db", "log"]), waits("db", &["web"])];
        assert_eq!(
            refused(read(circle, json!({}))),
            "spec.members[1].dependsOn: members wait for each other: db, web"
        );
        let nobody = [waits("web", &[]), waits("db", &["dc"]), waits("log", &[])];
        assert_eq!(
            refused(read(nobody, json!({}))),
            "spec.members[1].dependsOn: dc is not the name of a member"
        );
        assert_eq!(
            refused(read(chain, json!({"backOff": {"firstSeconds": 0}}))),
            "spec.recovery.backOff.firstSeconds: must be 1 to 3600"
        );
    }

    #[test]
    fn every_constraint_is_read() {
        let rack = |name: &str| json!({"matchLabels": {"rack": name}});
        let read = spec(json!({
            "members": [member(json!({})), member(json!({"name": "db"}))],
            "placement": [
                {"gather": {"members": ["web"]}},
                {"lonely": {"members": ["db"], "continuous": false}},
                {"among": {"members": ["db"], "groups": [rack("a"), rack("b")]}},
                {"split": {"members": ["web"], "from": ["db"], "over": "zone"}},
                {"root": {}},
                {"quarantine": {"nodes": {"names": ["n1"]}}},
                {"runningCapacity": {"nodes": rack("a"), "max": 0}},
                {"overbook": {"members": ["db"], "cpuPercent": 150}},
                {"spare": 1},
            ],
        }))
        .expect("a valid spec");
        let (web, db) = (vec!["web".into()], vec!["db".into()]);
        let rack = |name: &str| NodeSelector {
            names: vec![],
            labels: [("rack".to_owned(), name.to_owned())].into(),
        };
        let groups = vec![rack("a"), rack("b")];
        let named = NodeSelector { names: vec!["n1".into()], labels: [].into() };
        assert_eq!(
            read.placement,
            [
                Constraint::Gather { members: web.clone(), over: Domain::Node, continuous: false },
                Constraint::Lonely { members: db.clone(), continuous: false },
                Constraint::Among { members: db.clone(), groups, continuous: false },
                Constraint::Split {
                    members: web,
                    from: db.clone(),
                    over: Domain::Zone,
                    continuous: true
                },
                Constraint::Root { members: vec![] },
                Constraint::Quarantine { nodes: named },
                Constraint::RunningCapacity {
                    members: vec![],
                    nodes: rack("a"),
                    max: 0,
                    continuous: true
                },
                Constraint::Overbook { members: db, cpu_percent: 150 },
                Constraint::Spare,
            ]
        );
    }

    #[test]
    fn a_constraint_that_breaks_a_bound_is_named_by_its_field() {
        let nine: Vec<Value> = (0..9).map(|i| json!({"names": [format!("n{i}")]})).collect();
        let table = [
            (json!({"lonely": {"members": ["x"]}}), "lonely.members"),
            (json!({"among": {"groups": []}}), "among.groups"),
            (json!({"among": {"groups": nine}}), "among.groups"),
            (json!({"among": {"groups": [{"names": ["n1"]}, {}]}}), "among.groups[1]"),
            (json!({"among": {"members": ["x"], "groups": [{"names": ["n1"]}]}}), "among.members"),
            (json!({"split": {"members": ["web"], "from": ["x"]}}), "split.from"),
            (json!({"split": {"members": ["x"], "from": ["web"]}}), "split.members"),
            (json!({"split": {"members": ["web"], "from": ["web"]}}), "split.from"),
            (json!({"split": {"members": ["web"], "from": []}}), "split"),
            (json!({"root": {"members": ["x"]}}), "root.members"),
            (json!({"quarantine": {"nodes": {}}}), "quarantine.nodes"),
            (json!({"runningCapacity": {"nodes": {}, "max": 1}}), "runningCapacity.nodes"),
            (
                json!({"runningCapacity": {"nodes": {"names": ["n1"]}, "max": 257}}),
                "runningCapacity.max",
            ),
            (json!({"overbook": {"cpuPercent": 0}}), "overbook.cpuPercent"),
            (json!({"overbook": {"cpuPercent": 6401}}), "overbook.cpuPercent"),
            (json!({"overbook": {"members": ["x"], "cpuPercent": 9}}), "overbook.members"),
            (json!({"spare": 2}), "spare"),
            (json!({"spare": 0}), "spare"),
        ];
        for (constraint, field) in table {
            let manifest = json!({"members": [member(json!({}))], "placement": [constraint]});
            let error = spec(manifest.clone()).expect_err(&manifest.to_string());
            assert_eq!(error.field, format!("spec.placement[0].{field}"), "{error}");
        }
    }

    #[test]
    fn what_breaks_a_bound_is_named_by_its_field() {
        let image = json!({"url": "ftp://x/y", "sha256": "0".repeat(64)});
        let short = json!({"url": "https://x/y", "sha256": "abc"});
        let table = [
            (json!({"members": []}), "spec.members"),
            (json!({"members": [member(json!({"cpus": 0}))]}), "spec.members[0].cpus"),
            (json!({"members": [member(json!({"cpus": 1000}))]}), "spec.members[0].cpus"),
            (json!({"members": [member(json!({"memory": "-1"}))]}), "spec.members[0].memory"),
            (json!({"members": [member(json!({"memory": "1Mb"}))]}), "spec.members[0].memory"),
            (json!({"members": [member(json!({"memory": "9Ei"}))]}), "spec.members[0].memory"),
            (json!({"members": [member(json!({"replicas": 65}))]}), "spec.members[0].replicas"),
            (json!({"members": [member(json!({"name": "a-b"}))]}), "spec.members[0].name"),
            (json!({"members": [member(json!({})), member(json!({}))]}), "spec.members[1].name"),
            (
                json!({"members": [member(json!({"boot": null, "disks": []}))]}),
                "spec.members[0].disks",
            ),
            (
                json!({"members": [member(json!({"disks": [
                    {"name": "a", "size": "1Gi"}, {"name": "a", "size": "1Gi"}]}))]}),
                "spec.members[0].disks[1].name",
            ),
            (
                json!({"members": [member(json!({"disks": [
                    {"name": "a", "size": "1Gi", "image": image}]}))]}),
                "spec.members[0].disks[0].image.url",
            ),
            (
                json!({"members": [member(json!({"disks": [
                    {"name": "a", "size": "1Gi", "image": short}]}))]}),
                "spec.members[0].disks[0].image.sha256",
            ),
            (json!({"members": [member(json!({}))], "scaledMember": "x"}), "spec.scaledMember"),
            (json!({"members": [member(json!({}))], "replicas": 70}), "spec.members[0].replicas"),
            (json!({"members": [member(json!({}))], "placement": [{}]}), "spec.placement[0]"),
            (
                json!({"members": [member(json!({}))], "placement": [{"maxNodes": 0}]}),
                "spec.placement[0].maxNodes",
            ),
            (
                json!({"members": [member(json!({}))], "placement": [
                    {"maxNodes": 1, "gather": {}}]}),
                "spec.placement[0]",
            ),
            (
                json!({"members": [member(json!({}))], "placement": [
                    {"fence": {"nodes": {}}}]}),
                "spec.placement[0].fence.nodes",
            ),
            (
                json!({"members": [member(json!({}))], "placement": [
                    {"spread": {"members": ["nobody"]}}]}),
                "spec.placement[0].spread.members",
            ),
        ];
        for (manifest, field) in table {
            let error = spec(manifest.clone()).expect_err(&manifest.to_string());
            assert_eq!(error.field, field, "{error}");
        }
        let many: Vec<Value> =
            (0..5).map(|i| member(json!({"name": format!("m{i}"), "replicas": 60}))).collect();
        assert_eq!(spec(json!({"members": many})).expect_err("300 VMs").field, "spec.members");
    }

    #[test]
    fn a_deleted_environment_is_read_whatever_its_spec_says() {
        let mut ve: api::VirtualEnvironment = serde_json::from_value(json!({
            "apiVersion": "discovery.beyondtheclouds.io/v1alpha1", "kind": "VirtualEnvironment",
            "metadata": {"name": "a", "namespace": "b", "uid": "u", "generation": 3,
                "resourceVersion": "7", "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"members": []},
            "status": {"replicaSet": ["n1#0000000a", "n2#0000000b"], "handlerRound": 4},
        }))
        .expect("the right types");
        let read = declared(&ve).expect("readable");
        assert!(read.deleting && read.spec.members.is_empty());
        let set: Vec<String> = read.replica_set.iter().map(ToString::to_string).collect();
        assert_eq!((set.join(" ").as_str(), read.reported), ("n1#0000000a n2#0000000b", 4));
        assert_eq!((read.generation, read.resource_version.as_str()), (3, "7"));
        ve.metadata.deletion_timestamp = None;
        assert_eq!(declared(&ve).expect_err("invalid").field, "spec.members");
    }
}
