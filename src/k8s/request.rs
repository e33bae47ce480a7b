//! One time limit and one vocabulary of failure for every request.

use std::time::Duration;

use kube::Error as KubeError;
use rand::RngExt as _;

use super::Shared;

/// How long one request may take, its connection included. A healthy API server answers in milliseconds,
/// one that is short of processors in seconds; after ten, asking again is cheaper than waiting.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Longest pause between two tries. Half a minute after a cause is repaired, everybody has noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Why a request failed, as far as it matters for what comes next.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestError {
    /// Nobody answers, or the answer is that the server cannot serve now: tried again.
    #[error("the API server is away: {0}")]
    Away(String),
    /// The server answers and asks for patience: tried again.
    #[error("the API server is busy: {0}")]
    Busy(String),
    /// No such object (or no such resource).
    #[error("not found: {0}")]
    NotFound(String),
    /// Somebody was faster, or the object is another one.
    #[error("conflict: {0}")]
    Conflict(String),
    /// It exists already.
    #[error("exists: {0}")]
    Exists(String),
    /// Not permitted, for now: roles are repaired by people, so tried again, slowly.
    #[error("forbidden: {0}")]
    Forbidden(String),
    /// The request itself is wrong for this server: the same request would fail again.
    #[error("refused: {0}")]
    Refused(String),
}

impl From<KubeError> for RequestError {
    fn from(error: KubeError) -> Self {
        let KubeError::Api(status) = &error else {
            return match &error {
                KubeError::SerdeError(_) | KubeError::BuildRequest(_) | KubeError::HttpError(_) => {
                    Self::Refused(error.to_string())
                }
                _ => Self::Away(error.to_string()),
            };
        };
        let message = status.message.clone();
        match (status.code, status.reason.as_str()) {
            (404, _) => Self::NotFound(message),
            (409, "AlreadyExists") => Self::Exists(message),
            (409, _) => Self::Conflict(message),
            (429, _) => Self::Busy(message),
            (401 | 403, _) => Self::Forbidden(message),
            (500.., _) => Self::Away(message),
            _ => Self::Refused(message),
        }
    }
}

impl Shared {
    /// Awaits a request that reads, within the time limit.
    pub(super) async fn read<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, RequestError> {
        self.counters.requests.add(1);
        let result = match tokio::time::timeout(REQUEST_TIMEOUT, request).await {
            Ok(result) => result.map_err(RequestError::from),
            Err(_) => {
                Err(RequestError::Away(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())))
            }
        };
        if let Err(error) = &result {
            self.counters.requests_failed.add(1);
            if matches!(error, RequestError::Away(_)) {
                self.reach.doubt();
            }
        }
        result
    }

    /// Awaits a request that writes, within the time limit.
    pub(super) async fn change<T>(
        &self,
        request: impl Future<Output = kube::Result<T>>,
    ) -> Result<T, RequestError> {
        self.counters.writes.add(1);
        self.read(request).await
    }
}

/// How long to wait after the `failures`-th failure in a row (from 1): doubled each time up to half a
/// minute, and between half and all of that, so that agents do not come back in step.
pub(super) fn pause(failures: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10));
    doubled.min(LONGEST_PAUSE).mul_f64(rand::rng().random_range(0.5..1.0))
}

/// `period`, a fifth more or less.
pub(super) fn about(period: Duration) -> Duration {
    period.mul_f64(rand::rng().random_range(0.8..1.2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_stay_within_bounds() {
        assert!(pause(1) <= FIRST_PAUSE);
        for failures in 0..100 {
            let pause = pause(failures);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
        }
        assert!(pause(100) >= LONGEST_PAUSE / 2);
    }
}
