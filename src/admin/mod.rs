//! The admin rim: pages about this agent over HTTP, read from the board that the driver posts to.
//!
//! ```text
//!   driver -- Snapshot, heartbeat --> Board <-- /livez /readyz /metrics /debug/engine
//!   rims   -- counters --> CounterSource <------'
//! ```
//!
//! Nothing here asks the engine anything: a stuck engine is told, not waited for. The pages show names,
//! states and numbers, and no secrets.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use axum::{Router, routing::get};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use crate::agent::snapshot::{Board, CounterSource, Snapshot};

mod metrics;

/// The driver's loop must go round at least this often, if nobody says otherwise. It wakes every second
/// for its own sake; a disk that is slow to sync holds it up for seconds, not for this long.
pub const LOOP_LIMIT: Duration = Duration::from_secs(15);

/// How long an answer that is under way may take after the shutdown was asked for.
const FAREWELL: Duration = Duration::from_secs(2);

/// The content type of OpenMetrics text.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// What `/` answers.
const INDEX: &str = "\
/livez         the agent's loop goes round
/readyz        every part works; if not, which
/metrics       OpenMetrics
/debug/engine  what this agent believes: peers, partitions, VEs, VMs, reservations
";

/// The admin pages.
pub struct Admin {
    board: Board,
    counters: Vec<Arc<dyn CounterSource>>,
    loop_limit: Duration,
}

impl Admin {
    /// Pages about what is posted to `board` and counted by `counters`.
    #[must_use]
    pub fn new(board: Board, counters: Vec<Arc<dyn CounterSource>>) -> Self {
        Self { board, counters, loop_limit: LOOP_LIMIT }
    }

    /// Sets how often the driver's loop must go round to be alive.
    #[must_use]
    pub fn with_loop_limit(mut self, limit: Duration) -> Self {
        self.loop_limit = limit;
        self
    }

    /// Serves until `shutdown` is done and the answers under way are given, or a moment longer.
    ///
    /// # Errors
    /// When the listener fails for good.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        let router = Router::new()
            .route("/", get(async || INDEX))
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics_page))
            .route("/debug/engine", get(debug_engine))
            .with_state(Arc::new(self));
        let (asked, stopping) = oneshot::channel();
        let server = axum::serve(listener, router).with_graceful_shutdown(async move {
            shutdown.await;
            // Nobody listens when the server has failed meanwhile.
            let _ = asked.send(());
        });
        tokio::select! {
            result = server.into_future() => result,
            // A caller that never reads its answer does not hold up the agent's end.
            () = async {
                if stopping.await.is_ok() {
                    tokio::time::sleep(FAREWELL).await;
                } else {
                    std::future::pending::<()>().await;
                }
            } => Ok(()),
        }
    }

    /// Why the driver's loop is not alive, if it is not.
    fn stuck(&self) -> Option<String> {
        match self.board.heartbeat_age() {
            None => Some("the agent's loop has not begun".to_owned()),
            Some(age) if age > self.loop_limit => Some(format!(
                "the agent's loop last went round {:.1} s ago (limit {:.1} s)",
                age.as_secs_f64(),
                self.loop_limit.as_secs_f64()
            )),
            Some(_) => None,
        }
    }
}

async fn livez(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    match admin.stuck() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(reason) => (StatusCode::INTERNAL_SERVER_ERROR, reason + "\n"),
    }
}

async fn readyz(State(admin): State<Arc<Admin>>) -> (StatusCode, String) {
    let snapshot = admin.board.snapshot();
    let mut page = String::new();
    let mut missing = 0;
    if let Some(reason) = admin.stuck() {
        missing += 1;
        page += &format!("loop: not ready: {reason}\n");
    }
    if snapshot.parts.is_empty() {
        missing += 1;
        page += "agent: not ready: no part has reported yet\n";
    }
    for (name, part) in &snapshot.parts {
        if part.ready {
            page += &format!("{name}: ready\n");
        } else {
            missing += 1;
            page += &format!("{name}: not ready: {}\n", part.message);
        }
    }
    let status = if missing == 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, page)
}

async fn metrics_page(State(admin): State<Arc<Admin>>) -> Response {
    match metrics::text(&admin.board, &admin.counters) {
        Ok(text) => ([(CONTENT_TYPE, OPENMETRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// The debug page: the snapshot, and what the board knows beside it.
#[derive(Serialize)]
struct Debug<'a> {
    /// Seconds since the driver's loop last went round.
    loop_heartbeat_age_seconds: Option<f64>,
    #[serde(flatten)]
    snapshot: &'a Snapshot,
    /// The rims' counters.
    rims: std::collections::BTreeMap<String, u64>,
}

async fn debug_engine(State(admin): State<Arc<Admin>>) -> Response {
    let snapshot = admin.board.snapshot();
    Json(Debug {
        loop_heartbeat_age_seconds: admin.board.heartbeat_age().map(|age| age.as_secs_f64()),
        snapshot: &snapshot,
        rims: admin.counters.iter().flat_map(|source| source.counters()).collect(),
    })
    .into_response()
}
