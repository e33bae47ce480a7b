//! What `discovery doctor` lists: the nodes and their health, as the API server knows them.

use std::time::Duration;

use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::api::{PhysicalNode, node_condition};

/// How long a person waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// One node's health, as its agent reported it last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeHealth {
    /// The node's name.
    pub name: String,
    /// Its `Ready` condition: `Some(true)` if it is, `None` if its agent has not reported.
    pub ready: Option<bool>,
    /// Why, in one word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
    /// Its agent's version.
    pub agent_version: String,
    /// How many live peers its agent knows.
    pub peers: u32,
    /// How many VMs it holds.
    pub vms: u32,
    /// Whether its agent watches all environments for the others.
    pub gateway: bool,
}

/// Why there is no list.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The API server gave no answer in time.
    #[error("the API server does not answer within {} s", ANSWER_WITHIN.as_secs())]
    Silent,
    /// The resource is not known there.
    #[error("the API server knows no PhysicalNode: install the chart discovery-crds")]
    NotInstalled,
    /// Anything else.
    #[error("PhysicalNodes cannot be listed: {0}")]
    Failed(Box<kube::Error>),
}

/// Lists every `PhysicalNode` and whether it is ready, by name.
///
/// # Errors
/// When the API server gives no list.
pub async fn doctor(client: Client) -> Result<Vec<NodeHealth>, DoctorError> {
    let api: Api<PhysicalNode> = Api::all(client);
    let params = ListParams::default();
    let list = tokio::time::timeout(ANSWER_WITHIN, api.list(&params)).await;
    let list = list.map_err(|_| DoctorError::Silent)?.map_err(|error| match &error {
        kube::Error::Api(status) if status.code == 404 => DoctorError::NotInstalled,
        _ => DoctorError::Failed(Box::new(error)),
    })?;
    let mut nodes: Vec<NodeHealth> = list.items.iter().map(health).collect();
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(nodes)
}

fn health(physical: &PhysicalNode) -> NodeHealth {
    let status = physical.status.clone().unwrap_or_default();
    let ready = status.conditions.iter().find(|condition| condition.type_ == node_condition::READY);
    NodeHealth {
        name: physical.name_any(),
        ready: ready.map(|condition| condition.status == "True"),
        reason: ready.map_or_else(|| "Silent".to_owned(), |condition| condition.reason.clone()),
        message: ready.map_or_else(
            || "its agent has not reported".to_owned(),
            |condition| condition.message.clone(),
        ),
        agent_version: status.agent_version.unwrap_or_default(),
        peers: status.peers.unwrap_or_default(),
        vms: status.vms.unwrap_or_default(),
        gateway: status.gateway.unwrap_or_default(),
    }
}
