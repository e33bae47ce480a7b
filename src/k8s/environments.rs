//! All virtual environments, watched while this agent is a gateway.
//!
//! An environment's own status reports come back through the watch; the engine is told only of what
//! matters to it: the spec, a deletion, and who handles it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use kube::Api;
use kube::runtime::watcher::{self, Event};

use super::Shared;
use super::convert::declared;
use super::queue::InvalidSpec;
use super::watch::{Follower, follow};
use crate::api::{VirtualEnvironment, ve_condition};
use crate::engine::id::{VeName, VeUid};
use crate::engine::input::{ClusterInput, Input, VeDeclared};
use crate::engine::replica::Replica;

/// Reason of a condition that says that a spec cannot be carried out as it is.
pub(super) const INVALID_SPEC: &str = "InvalidSpec";

/// Watches while asked to.
pub(super) async fn follow_while_gateway(shared: Arc<Shared>) {
    let mut wanted = shared.watch_ves.subscribe();
    loop {
        let Ok(begun) = wanted.wait_for(|watching| watching.on).await.map(|now| now.begun) else {
            return;
        };
        tracing::info!("gateway: watching all virtual environments");
        let api: Api<VirtualEnvironment> = Api::all(shared.client.clone());
        let environments =
            Environments { shared: shared.clone(), told: BTreeMap::new(), listed: None };
        tokio::select! {
            () = follow(shared.clone(), api, watcher::Config::default(), "VirtualEnvironments", environments) => return,
            _ = wanted.wait_for(|now| !now.on || now.begun != begun) => {}
        }
        tracing::info!("no longer a gateway: watch closed");
    }
}

/// What of an environment, when it changes, the engine must know.
#[derive(PartialEq, Eq)]
struct Told {
    generation: i64,
    deleting: bool,
    replica_set: Vec<Replica>,
    reported: u64,
    /// Only while nobody has claimed it: what a claim swaps against.
    unclaimed_version: Option<String>,
}

impl From<&VeDeclared> for Told {
    fn from(ve: &VeDeclared) -> Self {
        let unclaimed = ve.replica_set.is_empty();
        Self {
            generation: ve.generation,
            deleting: ve.deleting,
            replica_set: ve.replica_set.clone(),
            reported: ve.reported,
            unclaimed_version: unclaimed.then(|| ve.resource_version.clone()),
        }
    }
}

struct Environments {
    shared: Arc<Shared>,
    told: BTreeMap<VeUid, Told>,
    /// The uids seen so far in a list that is going on.
    listed: Option<Vec<VeUid>>,
}

impl Environments {
    async fn tell(&self, input: ClusterInput) {
        // The receiver is gone only when the agent ends.
        let _ = self.shared.inputs.send(Input::Cluster(input)).await;
    }

    async fn seen(&mut self, ve: &VirtualEnvironment) {
        match declared(ve) {
            Ok(declared) => {
                let news = Told::from(&declared);
                if self.listed.is_none() && self.told.get(&declared.uid) == Some(&news) {
                    return;
                }
                self.told.insert(declared.uid.clone(), news);
                self.tell(ClusterInput::Ve(Box::new(declared))).await;
            }
            Err(error) => self.say_invalid(ve, &error.to_string()),
        }
    }

    /// A spec that this agent cannot read is said to be so in the status, once.
    fn say_invalid(&self, ve: &VirtualEnvironment, error: &str) {
        let Some((uid, name)) = identity(ve) else { return };
        let generation = ve.metadata.generation.unwrap_or_default();
        let said = ve.status.as_ref().is_some_and(|status| {
            status.conditions.iter().any(|condition| {
                condition.type_ == ve_condition::READY
                    && condition.reason == INVALID_SPEC
                    && condition.message == error
                    && condition.observed_generation == Some(generation)
            })
        });
        if !said {
            tracing::warn!(ve = %name, error, "spec cannot be carried out");
            self.shared.counters.invalid_specs.add(1);
            let invalid = InvalidSpec { uid, name, generation, message: error.to_owned() };
            self.shared.queue().put_invalid(invalid);
            self.shared.queue_changed.notify_one();
        }
    }
}

fn identity(ve: &VirtualEnvironment) -> Option<(VeUid, VeName)> {
    let metadata = &ve.metadata;
    let (uid, namespace, name) =
        (metadata.uid.as_deref()?, metadata.namespace.as_deref()?, metadata.name.as_deref()?);
    Some((uid.into(), VeName::new(namespace, name)))
}

impl Follower<VirtualEnvironment> for Environments {
    async fn take(&mut self, event: Event<VirtualEnvironment>) {
        match event {
            Event::Init => self.listed = Some(Vec::new()),
            Event::InitApply(ve) => {
                if let (Some(listed), Some((uid, _))) = (&mut self.listed, identity(&ve)) {
                    listed.push(uid);
                }
                self.seen(&ve).await;
            }
            Event::InitDone => {
                let live = self.listed.take().unwrap_or_default();
                let kept: BTreeSet<&VeUid> = live.iter().collect();
                self.told.retain(|uid, _| kept.contains(uid));
                self.tell(ClusterInput::VesListed { live }).await;
            }
            Event::Apply(ve) => self.seen(&ve).await,
            Event::Delete(ve) => {
                if let Some((uid, name)) = identity(&ve) {
                    self.told.remove(&uid);
                    self.shared.queue().forget(&uid);
                    self.tell(ClusterInput::VeGone { uid, name }).await;
                }
            }
        }
    }
}
