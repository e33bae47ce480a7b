//! The writes themselves.
//!
//! Status is written by server-side apply, whole, under this agent's own field manager. What a former
//! handler applied and nobody says any more would stay for ever: its share is given up in its name, once,
//! when another agent takes the environment over. The claim of a replica set is a merge patch instead,
//! with the resourceVersion as the swap's condition, and says nothing that the handler does not always
//! say too, so that it leaves nothing behind.

use std::fmt::Debug;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Resource, ResourceExt as _};
use serde_json::{Value, json};

use super::Shared;
use super::environments::INVALID_SPEC;
use super::happenings::EventWork;
use super::queue::{Claim, Ended, InvalidSpec, NoMajority};
use super::request::RequestError;
use super::{node_status, ve_status};
use crate::api::{
    self, FINALIZER, PhysicalNode, PhysicalNodeStatus, VirtualEnvironment,
    VirtualEnvironmentStatus, ve_condition, ve_reason,
};
use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::report::{About, Condition, NodeReport, VeReport};

/// Every agent's field manager is this and its node's name.
pub(super) const FIELD_MANAGER_PREFIX: &str = "discovery-agent-";
/// Longest name of a field manager that Kubernetes takes, bytes.
pub(super) const LONGEST_MANAGER: usize = 128;
/// Who says that a record's majority is away; no node is named so. The next handler's report gives it up, as it does a former handler's.
const NO_MAJORITY_MANAGER: &str = "discovery-agent-/no-majority";
/// How often a status is read and written again because somebody else has changed its object meanwhile.
const MOST_SWAPS: usize = 4;
/// Who makes the Events, for those who filter them.
const REPORTER: &str = "discovery.beyondtheclouds.io/agent";

/// An environment's status as this agent wrote it, or found it.
pub(super) struct Written {
    status: VirtualEnvironmentStatus,
    generation: i64,
    scaled: Option<String>,
    /// The resource version of the object then.
    version: String,
}

/// This node's status as this agent wrote it, or found it.
pub(super) struct WrittenNode {
    uid: String,
    status: PhysicalNodeStatus,
}

fn environments(shared: &Shared, name: &VeName) -> Api<VirtualEnvironment> {
    Api::namespaced(shared.client.clone(), &name.namespace)
}

fn swap(shared: &Shared) -> PatchParams {
    PatchParams { field_manager: Some(shared.field_manager()), ..PatchParams::default() }
}

/// Applies a whole status under a field manager.
async fn apply_status<K>(
    shared: &Shared,
    api: &Api<K>,
    manager: &str,
    (name, uid, version): (&str, &str, Option<&str>),
    status: Value,
) -> Result<K, RequestError>
where
    K: Resource<DynamicType = ()> + Clone + Debug + serde::de::DeserializeOwned,
{
    // With the uid, a namesake that was made meanwhile is not written to; with the version, nothing that others have changed since.
    let mut metadata = json!({"name": name, "uid": uid});
    if let Some(version) = version {
        metadata["resourceVersion"] = json!(version);
    }
    let object = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": metadata,
        "status": status,
    });
    let params = PatchParams::apply(manager).force();
    shared.change(api.patch_status(name, &params, &Patch::Apply(&object))).await
}

/// Swaps the first replica set in.
pub(super) async fn claim(shared: &Shared, claim: &Claim) -> Result<Ended, RequestError> {
    let now = ve_status::now();
    let condition = |type_: &str, says: Condition| ve_status::made(type_, &says, None, &[], &now);
    let why = "a handler has been chosen and looks for nodes";
    let status = VirtualEnvironmentStatus {
        phase: Some(api::Phase::Waiting),
        conditions: vec![
            condition(ve_condition::READY, Condition::no(ve_reason::SCHEDULING, why)),
            condition(ve_condition::PLACED, Condition::no(ve_reason::SCHEDULING, why)),
            condition(ve_condition::PROGRESSING, Condition::yes(ve_reason::SCHEDULING, why)),
        ],
        handler: claim.replicas.first().map(|replica| replica.node.to_string()),
        replica_set: claim.replicas.iter().map(ToString::to_string).collect(),
        ..VirtualEnvironmentStatus::default()
    };
    let patch = json!({
        "metadata": {"resourceVersion": claim.resource_version, "uid": claim.uid.as_str()},
        "status": status,
    });
    let api = environments(shared, &claim.name);
    let patched = shared
        .change(api.patch_status(&claim.name.name, &swap(shared), &Patch::Merge(&patch)))
        .await;
    match patched {
        Ok(ve) => {
            tracing::info!(ve = %claim.name, replicas = ?claim.replicas, "replica set written");
            keep_until_released(shared, &ve).await;
            Ok(Ended::Written)
        }
        Err(RequestError::Conflict(_)) => {
            tracing::debug!(ve = %claim.name, "another gateway was faster");
            shared.counters.swaps_lost.add(1);
            Ok(Ended::Dropped)
        }
        Err(error) => Err(error),
    }
}

/// Adds the finalizer where it is missing. (The chart's admission policy adds it at creation, so this
/// write is for clusters without it.) A failure is repaired by whoever writes the status next.
async fn keep_until_released(shared: &Shared, ve: &VirtualEnvironment) {
    let finalizers = ve.finalizers();
    if ve.metadata.deletion_timestamp.is_some() || finalizers.iter().any(|name| name == FINALIZER) {
        return;
    }
    let mut all = finalizers.to_vec();
    all.push(FINALIZER.to_owned());
    if let Err(error) = set_finalizers(shared, ve, &all).await {
        tracing::info!(%error, ve = %ve.name_any(), "finalizer not added yet");
    }
}

async fn set_finalizers(
    shared: &Shared,
    ve: &VirtualEnvironment,
    finalizers: &[String],
) -> Result<(), RequestError> {
    let patch = json!({"metadata": {
        "resourceVersion": ve.resource_version(),
        "uid": ve.uid(),
        "finalizers": finalizers,
    }});
    let namespace = ve.namespace().unwrap_or_default();
    let api: Api<VirtualEnvironment> = Api::namespaced(shared.client.clone(), &namespace);
    shared.change(api.patch(&ve.name_any(), &swap(shared), &Patch::Merge(&patch))).await?;
    Ok(())
}

/// Says in the status that a spec cannot be carried out.
pub(super) async fn invalid(shared: &Shared, invalid: &InvalidSpec) -> Result<Ended, RequestError> {
    let api = environments(shared, &invalid.name);
    let before = shared.read(api.get(&invalid.name.name)).await?;
    if before.uid().as_deref() != Some(invalid.uid.as_str())
        || before.metadata.generation != Some(invalid.generation)
    {
        return Ok(Ended::Dropped);
    }
    let says = Condition::no(INVALID_SPEC, invalid.message.as_str());
    let now = ve_status::now();
    let known = before.status.map(|status| status.conditions).unwrap_or_default();
    let condition = |type_: &str, says: &Condition| {
        ve_status::made(type_, says, Some(invalid.generation), &known, &now)
    };
    let stalled = Condition { holds: true, ..says.clone() };
    let status = VirtualEnvironmentStatus {
        observed_generation: Some(invalid.generation),
        conditions: vec![
            condition(ve_condition::READY, &says),
            condition(ve_condition::STALLED, &stalled),
        ],
        ..VirtualEnvironmentStatus::default()
    };
    let uid = invalid.uid.as_str();
    let object = (&*invalid.name.name, uid, None);
    apply_status(shared, &api, &shared.field_manager(), object, json!(status)).await?;
    Ok(Ended::Written)
}

/// Says in an environment's status that no majority keeps its record, unless its handler says something meanwhile.
pub(super) async fn no_majority(shared: &Shared, said: &NoMajority) -> Result<Ended, RequestError> {
    let api = environments(shared, &said.name);
    let before = shared.read(api.get(&said.name.name)).await?;
    let status = before.status.clone().unwrap_or_default();
    if before.uid().as_deref() != Some(said.uid.as_str())
        || status.handler_round.is_none()
        || ve_status::lacks_majority(&status)
    {
        return Ok(Ended::Same);
    }
    let generation = status.observed_generation;
    let version = before.resource_version();
    let status = ve_status::no_majority(&said.message, generation, &ve_status::now());
    // A share of its own: what this agent may have said as the handler stays.
    let object = (&*said.name.name, said.uid.as_str(), version.as_deref());
    apply_status(shared, &api, NO_MAJORITY_MANAGER, object, status).await?;
    Ok(Ended::Written)
}

/// Writes an environment's status. Returns what is known of it afterwards.
pub(super) async fn report(
    shared: &Shared,
    report: &VeReport,
    before: Option<Written>,
) -> (Result<Ended, RequestError>, Option<Written>) {
    // A new generation may scale another member; who that is, only the spec tells.
    let mut known =
        before.filter(|written| written.generation == report.observed_generation && !report.again);
    for _ in 0..MOST_SWAPS {
        let before = match known.take() {
            Some(written) => written,
            None => match read_status(shared, report).await {
                Ok(Some(written)) => written,
                Ok(None) => return (Ok(Ended::Dropped), None),
                Err(error) => return (Err(error), None),
            },
        };
        match swap_status(shared, report, before).await {
            // Somebody has changed the object since; who, and whether this report is still the newest, is read.
            Err(RequestError::Conflict(_)) => {}
            Ok((ended, written)) => return (Ok(ended), written),
            // Read anew at the next try, which also finds out whether it is still the same environment.
            Err(error) => return (Err(error), None),
        }
    }
    let why = "the object changes all the time".to_owned();
    (Err(RequestError::Conflict(why)), None)
}

/// The status as it stands there; nothing if this is another environment of that name.
async fn read_status(shared: &Shared, report: &VeReport) -> Result<Option<Written>, RequestError> {
    let ve = shared.read(environments(shared, &report.name).get(&report.name.name)).await?;
    if ve.uid().as_deref() != Some(report.uid.as_str()) {
        return Ok(None);
    }
    keep_until_released(shared, &ve).await;
    Ok(Some(Written::from(&ve)))
}

/// Writes a status where it was `before`, unless a newer handler has written that.
async fn swap_status(
    shared: &Shared,
    report: &VeReport,
    before: Written,
) -> Result<(Ended, Option<Written>), RequestError> {
    let api = environments(shared, &report.name);
    if before.status.handler_round.is_some_and(|newest| newest > report.round) {
        tracing::info!(ve = %report.name, "another agent handles it by now: this status is not written");
        return Ok((Ended::Dropped, None));
    }
    let node = &shared.config.node;
    let now = ve_status::now();
    let status = ve_status::status(report, &before.status, before.scaled.as_deref(), node, &now);
    if status == before.status {
        return Ok((Ended::Same, Some(before)));
    }
    let manager = shared.field_manager();
    let (name, uid) = (&report.name.name, report.uid.as_str());
    let object = (&**name, uid, Some(before.version.as_str()));
    let mut ve = apply_status(shared, &api, &manager, object, json!(status)).await?;
    for former in former_handlers(&ve, &manager) {
        tracing::info!(ve = %report.name, former, "taking the status over");
        match apply_status(shared, &api, &former, (name, uid, None), json!({})).await {
            Ok(after) => ve = after,
            Err(error) => {
                // What it left shows until the next report reads the object anew.
                tracing::warn!(%error, ve = %report.name, former, "its share of the status stays");
                return Ok((Ended::Written, None));
            }
        }
    }
    Ok((Ended::Written, Some(Written { status, ..Written::from(&ve) })))
}

impl From<&VirtualEnvironment> for Written {
    fn from(ve: &VirtualEnvironment) -> Self {
        Self {
            status: ve.status.clone().unwrap_or_default(),
            generation: ve.metadata.generation.unwrap_or_default(),
            scaled: ve.spec.scaled_member().map(|member| member.name.clone()),
            version: ve.resource_version().unwrap_or_default(),
        }
    }
}

/// Other agents that have applied a share of the status.
fn former_handlers(ve: &VirtualEnvironment, manager: &str) -> Vec<String> {
    ve.managed_fields()
        .iter()
        .filter(|entry| {
            entry.subresource.as_deref() == Some("status")
                && entry.operation.as_deref() == Some("Apply")
        })
        .filter_map(|entry| entry.manager.clone())
        .filter(|name| name.starts_with(FIELD_MANAGER_PREFIX) && name != manager)
        .collect()
}

/// Removes the finalizer.
pub(super) async fn release(
    shared: &Shared,
    uid: &VeUid,
    name: &VeName,
) -> Result<Ended, RequestError> {
    let api = environments(shared, name);
    let ve = match shared.read(api.get(&name.name)).await {
        Ok(ve) => ve,
        Err(RequestError::NotFound(_)) => return Ok(Ended::Same),
        Err(error) => return Err(error),
    };
    let ours = ve.finalizers().iter().any(|name| name == FINALIZER);
    if ve.uid().as_deref() != Some(uid.as_str()) || !ours {
        return Ok(Ended::Same);
    }
    if ve.metadata.deletion_timestamp.is_none() {
        // Without its finalizer a live environment could vanish with its VMs running.
        tracing::error!(ve = %name, "asked to release an environment that is not being deleted");
        return Ok(Ended::Dropped);
    }
    let others: Vec<String> =
        ve.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
    match set_finalizers(shared, &ve, &others).await {
        Ok(()) => {
            tracing::info!(ve = %name, "released");
            Ok(Ended::Written)
        }
        Err(RequestError::NotFound(_)) => Ok(Ended::Same),
        Err(error) => Err(error),
    }
}

/// Says on a peer's page that it is silent.
pub(super) async fn silent(shared: &Shared, node: &NodeName) -> Result<Ended, RequestError> {
    let api: Api<PhysicalNode> = Api::all(shared.client.clone());
    let physical = shared.read(api.get(node.as_str())).await?;
    let before = physical.status.clone().unwrap_or_default();
    if before.overlay.is_none() || node_status::is_silent(&before) {
        return Ok(Ended::Same);
    }
    let status = node_status::silent(physical.metadata.generation, &ve_status::now());
    let (uid, version) = (physical.uid().unwrap_or_default(), physical.resource_version());
    // What its agent says meanwhile goes before.
    let object = (node.as_str(), uid.as_str(), version.as_deref());
    apply_status::<PhysicalNode>(shared, &api, &shared.field_manager(), object, status).await?;
    tracing::info!(%node, "is silent: its page says so");
    Ok(Ended::Written)
}

/// Writes this node's status, if anything material has changed.
pub(super) async fn node(
    shared: &Shared,
    report: Option<&NodeReport>,
    before: Option<WrittenNode>,
) -> (Result<Ended, RequestError>, Option<WrittenNode>) {
    let (uid, facts, overwritten) = {
        let mut seen = shared.this_node();
        let facts = node_status::Facts { generation: seen.generation(), cordoned: seen.cordoned() };
        (seen.uid(), facts, seen.take_overwritten())
    };
    // Not made yet, or deleted: its coming back is seen, and leads here again.
    let Some(uid) = uid else { return (Ok(Ended::Dropped), None) };
    let api: Api<PhysicalNode> = Api::all(shared.client.clone());
    let name = shared.config.node.as_str();
    let before = match before.filter(|written| written.uid == uid && !overwritten) {
        Some(written) => written,
        None => match shared.read(api.get(name)).await {
            Ok(physical) => WrittenNode {
                uid: physical.uid().unwrap_or_default(),
                status: physical.status.unwrap_or_default(),
            },
            Err(error) => return (Err(error), None),
        },
    };
    let status =
        node_status::status(&shared.config, report, &facts, &before.status, &ve_status::now());
    // An agent that has just started has nothing to say that is better than what stands there, if its
    // identity is right.
    if status == before.status || (report.is_none() && status.overlay == before.status.overlay) {
        shared.published(&before.uid);
        return (Ok(Ended::Same), Some(before));
    }
    let object = (name, before.uid.as_str(), None);
    match apply_status(shared, &api, &shared.field_manager(), object, json!(status)).await {
        Ok(_) => {
            shared.published(&before.uid);
            (Ok(Ended::Written), Some(WrittenNode { uid: before.uid, status }))
        }
        Err(error) => (Err(error), None),
    }
}

/// Makes an Event, or counts one up.
pub(super) async fn event(shared: &Shared, work: &EventWork) -> Result<Ended, RequestError> {
    let note = &work.note;
    let regarding = regarding(shared, &note.about);
    // Events about cluster-wide objects live in `default`.
    let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
    let api: Api<Event> = Api::namespaced(shared.client.clone(), &namespace);
    let series = (note.count > 1).then(|| EventSeries {
        count: i32::try_from(note.count).unwrap_or(i32::MAX),
        last_observed_time: MicroTime(note.last),
    });
    if work.exists {
        let patch = json!({"series": series});
        shared.change(api.patch(&work.name, &swap(shared), &Patch::Merge(&patch))).await?;
        return Ok(Ended::Written);
    }
    let event = Event {
        action: Some(note.reason.to_owned()),
        event_time: Some(MicroTime(note.first)),
        metadata: ObjectMeta {
            name: Some(work.name.clone()),
            namespace: Some(namespace),
            ..ObjectMeta::default()
        },
        note: Some(note.text.clone()),
        reason: Some(note.reason.to_owned()),
        regarding: Some(regarding),
        reporting_controller: Some(REPORTER.to_owned()),
        reporting_instance: Some(shared.field_manager()),
        series,
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    };
    let manner =
        PostParams { field_manager: Some(shared.field_manager()), ..PostParams::default() };
    match shared.change(api.create(&manner, &event)).await {
        // A try whose answer was lost has made it.
        Ok(_) | Err(RequestError::Exists(_)) => Ok(Ended::Written),
        Err(error) => Err(error),
    }
}

fn regarding(shared: &Shared, about: &About) -> ObjectReference {
    match about {
        About::Ve { uid, name } => ObjectReference {
            api_version: Some(VirtualEnvironment::api_version(&()).into_owned()),
            kind: Some(VirtualEnvironment::kind(&()).into_owned()),
            name: Some(name.name.to_string()),
            namespace: Some(name.namespace.to_string()),
            uid: Some(uid.to_string()),
            ..ObjectReference::default()
        },
        About::ThisNode => ObjectReference {
            api_version: Some(PhysicalNode::api_version(&()).into_owned()),
            kind: Some(PhysicalNode::kind(&()).into_owned()),
            name: Some(shared.config.node.to_string()),
            uid: shared.this_node().uid(),
            ..ObjectReference::default()
        },
    }
}
