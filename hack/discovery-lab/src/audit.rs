//! The API server's audit log: who wrote what, and who watches. Tests count with it.

use std::{
    fs::File,
    io::{BufRead, BufReader},
};

use serde::Deserialize;

use crate::{
    error::{AtPath, Result},
    lab::Lab,
    layout::MAX_NODES,
};

/// One line of the audit log. The log holds every finished write, except the kubelets' leases, and for
/// watches of the product's resources their start and their end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// When the API server answered, as it says it (RFC 3339, microseconds): sorts as text.
    pub at: String,
    /// Such as `system:serviceaccount:discovery-system:discovery-agent`.
    pub user: String,
    /// The node that it came from, by its address: a pod of the host's network, or one of the node's programs.
    pub node: Option<String>,
    /// `create`, `update`, `patch`, `delete`, `deletecollection` or `watch`.
    pub verb: String,
    /// API group; empty for the core.
    pub group: String,
    /// Such as `virtualenvironments`.
    pub resource: String,
    /// Such as `status`; empty for the resource itself.
    pub subresource: String,
    /// Empty for what is in no namespace.
    pub namespace: String,
    /// Empty for a `create` whose name the API server chose, and for lists.
    pub name: String,
    /// HTTP status.
    pub code: u16,
    /// True for the line that tells the end of a request; a watch has one when it starts too.
    pub complete: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    stage: String,
    verb: String,
    stage_timestamp: String,
    user: User,
    #[serde(default, rename = "sourceIPs")]
    source_ips: Vec<String>,
    object_ref: Option<Object>,
    response_status: Option<Status>,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
    api_group: String,
}

#[derive(Deserialize)]
struct Status {
    code: u16,
}

impl Lab {
    /// All requests in the audit log, oldest first. A line that is being written at this moment is left out.
    pub fn audit(&self) -> Result<Vec<Request>> {
        let path = self.layout().audit_log();
        let mut requests = Vec::new();
        for line in BufReader::new(File::open(&path).at(&path)?).lines() {
            if let Ok(line) = serde_json::from_str::<Line>(&line.at(&path)?) {
                requests.push(self.request(line));
            }
        }
        Ok(requests)
    }

    fn request(&self, line: Line) -> Request {
        let object = line.object_ref.unwrap_or_default();
        let node = (1..=MAX_NODES)
            .find(|index| line.source_ips.contains(&self.layout().node_ip(*index)))
            .map(|index| format!("n{index}"));
        Request {
            at: line.stage_timestamp,
            user: line.user.username,
            node,
            verb: line.verb,
            group: object.api_group,
            resource: object.resource,
            subresource: object.subresource,
            namespace: object.namespace,
            name: object.name,
            code: line.response_status.map_or(0, |status| status.code),
            complete: line.stage == "ResponseComplete",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_told_with_its_author_and_its_node() {
        let line = r#"{"kind":"Event","stage":"ResponseComplete","verb":"patch","stageTimestamp":"2026-01-02T03:04:05.000006Z",
            "user":{"username":"system:serviceaccount:discovery-system:discovery-agent","groups":["x"]},
            "sourceIPs":["10.77.0.12"],"responseStatus":{"metadata":{},"code":200},
            "objectRef":{"resource":"virtualenvironments","namespace":"shop","name":"hello","apiGroup":"discovery.beyondtheclouds.io","apiVersion":"v1alpha1","subresource":"status"}}"#;
        let mut lab = Lab::open();
        lab.layout.net = "10.77".into();
        let request = lab.request(serde_json::from_str(line).expect("as the API server writes it"));
        assert_eq!(request.node.as_deref(), Some("n2"));
        assert_eq!(
            (request.resource.as_str(), request.subresource.as_str()),
            ("virtualenvironments", "status")
        );
        assert!(request.complete && request.code == 200);
    }
}
