//! Whether the API server answers. Debounced: one lost request is not an absence.

use std::sync::Arc;
use std::time::Duration;

use kube::api::GetParams;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::Shared;
use super::request::about;
use crate::engine::input::{ClusterInput, Input};

/// How often to ask while all is well. The watches break at once when the server goes, and that leads to
/// an early question, so this only finds a server that hangs.
const ASK_WHEN_WELL: Duration = Duration::from_secs(10);
/// How often to ask while it is away.
const ASK_WHEN_AWAY: Duration = Duration::from_secs(2);
/// Shortest time between two questions, however many requests fail.
const ASK_AT_MOST: Duration = Duration::from_millis(500);
/// How long an answer may take: it is a few bytes.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// How long every question must have failed before the server counts as away. Longer than a rolling
/// restart behind a load balancer takes to find the next server.
const AWAY_AFTER: Duration = Duration::from_secs(2);

/// What is known.
pub(super) struct Reach {
    up: watch::Sender<bool>,
    doubts: Notify,
}

impl Default for Reach {
    fn default() -> Self {
        Self { up: watch::channel(false).0, doubts: Notify::new() }
    }
}

impl Reach {
    /// A request has failed in a way that may mean absence: ask soon.
    pub(super) fn doubt(&self) {
        self.doubts.notify_one();
    }

    /// Whether it answers, and its changes.
    pub(super) fn subscribe(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Returns when it answers.
    pub(super) async fn wait_up(&self) {
        // The sender lives in `self`, so waiting cannot fail.
        let _ = self.subscribe().wait_for(|up| *up).await;
    }
}

/// Asks for ever.
pub(super) async fn probe(shared: Arc<Shared>) {
    let mut told = None;
    let mut failing_since: Option<Instant> = None;
    loop {
        let asked = Instant::now();
        let well = ask(&shared).await;
        let since = if well { None } else { Some(failing_since.unwrap_or(asked)) };
        let again = failing_since.is_some() && !well;
        failing_since = since;
        let up = match since {
            None => Some(true),
            Some(since) if again && since.elapsed() >= AWAY_AFTER => Some(false),
            Some(_) => None,
        };
        if let Some(up) = up
            && told != Some(up)
        {
            told = Some(up);
            tracing::info!(reachable = up, "API server");
            shared.reach.up.send_replace(up);
            if shared.inputs.send(Input::Cluster(ClusterInput::Reachable(up))).await.is_err() {
                return;
            }
        }
        if well {
            tokio::select! {
                () = tokio::time::sleep(about(ASK_WHEN_WELL)) => {}
                () = shared.reach.doubts.notified() => tokio::time::sleep(about(ASK_AT_MOST)).await,
            }
        } else {
            tokio::time::sleep(about(ASK_WHEN_AWAY)).await;
        }
    }
}

/// One question. An answer that is not "I cannot serve" is an answer, also a refusal.
async fn ask(shared: &Shared) -> bool {
    let request = match kube::core::Request::new("").get("readyz", &GetParams::default()) {
        Ok(request) => request,
        Err(error) => {
            tracing::error!(%error, "readiness request");
            return false;
        }
    };
    match tokio::time::timeout(ANSWER_WITHIN, shared.client.request_text(request)).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) => status.code < 500,
        Ok(Err(_)) | Err(_) => false,
    }
}
