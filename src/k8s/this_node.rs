//! What people say of this node: its `PhysicalNode` (made here if it is missing) and its `Node`.
//!
//! A `PhysicalNode` that is deleted while the agent runs is not made again: deleting it revokes the agent.
//! Somebody who wants it back makes it, or restarts the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::PostParams;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource as _, ResourceExt as _};
use tokio::time::Instant;

use super::Shared;
use super::node_status;
use super::request::{RequestError, pause};
use super::watch::{Follower, follow};
use crate::api::{self, PhysicalNode, PhysicalNodeSpec};
use crate::engine::input::{ClusterInput, Input, NodeDeclared};
use crate::engine::spec::Resources;

/// Bounds of `spec.overcommit.cpuPercent`, percent.
const CPU_PERCENT: (u32, u32) = (100, 6400);

/// What has been seen so far.
#[derive(Default)]
pub(super) struct Seen {
    /// `None`: not listed yet. `Some(None)`: there is none.
    physical: Option<Option<Physical>>,
    node: Option<Labelled>,
    told: Option<NodeDeclared>,
    /// A peer has said on the page that this agent is silent: that is to be put right.
    overwritten: bool,
}

/// What matters of the `PhysicalNode`.
#[derive(Clone)]
struct Physical {
    uid: String,
    generation: i64,
    spec: PhysicalNodeSpec,
}

/// What matters of the `Node`.
#[derive(Clone, Default)]
struct Labelled {
    labels: BTreeMap<String, String>,
    cordoned: bool,
}

impl Seen {
    /// The `PhysicalNode`'s uid, if there is one.
    pub(super) fn uid(&self) -> Option<String> {
        Some(self.physical.as_ref()?.as_ref()?.uid.clone())
    }

    /// The `PhysicalNode`'s generation, if there is one.
    pub(super) fn generation(&self) -> Option<i64> {
        Some(self.physical.as_ref()?.as_ref()?.generation)
    }

    /// Whether the page says what is no longer so; it is put right by who asks.
    pub(super) fn take_overwritten(&mut self) -> bool {
        std::mem::take(&mut self.overwritten)
    }

    /// Whether the Kubernetes `Node` is cordoned.
    pub(super) fn cordoned(&self) -> bool {
        self.node.as_ref().is_some_and(|node| node.cordoned)
    }

    /// What the engine should know now, if it has not been told. Nothing before both have been listed:
    /// half of it would place a VM on a cordoned node.
    fn news(&mut self) -> Option<NodeDeclared> {
        let declared = merge(self.physical.as_ref()?.as_ref(), self.node.as_ref()?);
        if self.told.as_ref() == Some(&declared) {
            return None;
        }
        self.told = Some(declared.clone());
        Some(declared)
    }
}

/// Both together. Without a `PhysicalNode` (it was deleted: this agent is revoked) no VM comes here.
fn merge(physical: Option<&Physical>, node: &Labelled) -> NodeDeclared {
    let default = PhysicalNodeSpec::default();
    let spec = physical.map_or(&default, |physical| &physical.spec);
    let read = |what: &str, number: Result<u64, api::QuantityError>| {
        number.unwrap_or_else(|error| {
            tracing::error!(%error, what, "PhysicalNode: not a number that can be reserved; none is");
            0
        })
    };
    NodeDeclared {
        labels: node.labels.clone(),
        schedulable: physical.is_some() && spec.schedulable && !node.cordoned,
        maintenance: spec.maintenance,
        reserved: Resources {
            cpu_milli: read("spec.reserved.cpus", api::milli(&spec.reserved.cpus)),
            memory: read("spec.reserved.memory", api::bytes(&spec.reserved.memory)),
        },
        cpu_overcommit_percent: spec.overcommit.cpu_percent.clamp(CPU_PERCENT.0, CPU_PERCENT.1),
    }
}

impl Shared {
    async fn tell_this_node(&self) {
        let news = self.this_node().news();
        if let Some(declared) = news {
            // The receiver is gone only when the agent ends.
            let _ = self.inputs.send(Input::Cluster(ClusterInput::ThisNode(declared))).await;
        }
    }

    fn only_this(&self) -> watcher::Config {
        watcher::Config::default().fields(&format!("metadata.name={}", self.config.node))
    }
}

/// Watches this node's `PhysicalNode`.
pub(super) async fn follow_physical_node(shared: Arc<Shared>) {
    let api = Api::all(shared.client.clone());
    let follower = OwnPhysicalNode { shared: shared.clone(), found: false, ever: false };
    follow(shared.clone(), api, shared.only_this(), "PhysicalNode", follower).await;
}

/// Watches this node's `Node`.
pub(super) async fn follow_node(shared: Arc<Shared>) {
    let api = Api::all(shared.client.clone());
    let follower = OwnNode { shared: shared.clone(), found: false };
    follow(shared.clone(), api, shared.only_this(), "Node", follower).await;
}

struct OwnPhysicalNode {
    shared: Arc<Shared>,
    /// The list that is going on has it.
    found: bool,
    /// It has existed since this agent started.
    ever: bool,
}

impl OwnPhysicalNode {
    async fn seen(&mut self, physical: Option<PhysicalNode>) {
        self.ever |= physical.is_some();
        let status = physical.as_ref().and_then(|physical| physical.status.as_ref());
        let overwritten = status.is_some_and(node_status::is_silent);
        let physical = physical.map(|physical| Physical {
            uid: physical.uid().unwrap_or_default(),
            generation: physical.metadata.generation.unwrap_or_default(),
            spec: physical.spec,
        });
        let generation =
            physical.as_ref().map(|physical| (physical.uid.clone(), physical.generation));
        let before = {
            let mut seen = self.shared.this_node();
            seen.overwritten |= overwritten;
            let before = seen.physical.take().flatten();
            seen.physical = Some(physical);
            before.map(|physical| (physical.uid, physical.generation))
        };
        if overwritten || generation.is_some() && generation != before {
            // A new one needs the whole status; a new generation needs its number in it; this agent is not silent.
            self.shared.queue().node_changed(Instant::now());
            self.shared.queue_changed.notify_one();
        }
        if generation.is_none() && before.is_some() {
            tracing::warn!(
                node = %self.shared.config.node,
                "this node's PhysicalNode was deleted: peers will refuse this agent. Make it again, or \
                 restart the agent, to bring it back"
            );
        }
        self.shared.tell_this_node().await;
    }

    /// This node's `Node`; without one nothing owns what is made.
    async fn owner(&self) -> Option<OwnerReference> {
        let nodes: Api<Node> = Api::all(self.shared.client.clone());
        match self.shared.read(nodes.get(self.shared.config.node.as_str())).await {
            Ok(node) => node.owner_ref(&()),
            Err(error) => {
                tracing::info!(%error, "this node's Node cannot be read: its PhysicalNode will outlive it");
                None
            }
        }
    }

    /// Makes it, trying until it exists. The watch tells of it.
    async fn create(&self) {
        let api: Api<PhysicalNode> = Api::all(self.shared.client.clone());
        let mut mine =
            PhysicalNode::new(self.shared.config.node.as_str(), PhysicalNodeSpec::default());
        let manner = PostParams {
            field_manager: Some(self.shared.field_manager()),
            ..PostParams::default()
        };
        for failures in 1.. {
            self.shared.reach.wait_up().await;
            // Where the `Node` is deleted, Kubernetes deletes this, too.
            mine.metadata.owner_references = self.owner().await.map(|owner| vec![owner]);
            match self.shared.change(api.create(&manner, &mine)).await {
                Ok(_) | Err(RequestError::Exists(_)) => return,
                Err(error) => {
                    tracing::warn!(%error, node = %self.shared.config.node, "cannot make the PhysicalNode");
                    tokio::time::sleep(pause(failures)).await;
                }
            }
        }
    }
}

impl Follower<PhysicalNode> for OwnPhysicalNode {
    async fn take(&mut self, event: Event<PhysicalNode>) {
        match event {
            Event::Init => self.found = false,
            Event::InitApply(physical) => {
                self.found = true;
                self.seen(Some(physical)).await;
            }
            Event::InitDone if self.found => {}
            Event::InitDone if self.ever => self.seen(None).await,
            Event::InitDone => self.create().await,
            Event::Apply(physical) => self.seen(Some(physical)).await,
            Event::Delete(_) => self.seen(None).await,
        }
    }
}

struct OwnNode {
    shared: Arc<Shared>,
    found: bool,
}

impl OwnNode {
    async fn seen(&mut self, node: Option<Node>) {
        let node = node.map_or_else(Labelled::default, |node| Labelled {
            cordoned: node.spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            labels: node.metadata.labels.unwrap_or_default(),
        });
        self.shared.this_node().node = Some(node);
        self.shared.tell_this_node().await;
    }
}

impl Follower<Node> for OwnNode {
    async fn take(&mut self, event: Event<Node>) {
        match event {
            Event::Init => self.found = false,
            Event::InitApply(node) => {
                self.found = true;
                self.seen(Some(node)).await;
            }
            Event::InitDone if self.found => {}
            Event::InitDone | Event::Delete(_) => self.seen(None).await,
            Event::Apply(node) => self.seen(Some(node)).await,
        }
    }
}
