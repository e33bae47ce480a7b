//! The room's errors, and what they are to the engine.

use std::path::PathBuf;
use std::time::Duration;

use virt::error::{ErrorDomain, ErrorNumber};

use crate::engine::host::{Failure, FailureKind};

/// What can go wrong with libvirt.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// There is no connection now; it is tried again.
    #[error("libvirt is away; it is tried again")]
    Away,
    /// libvirt refused, or the connection broke in the middle.
    #[error("libvirt could not {what}: {}", source.message())]
    Api {
        /// What was asked of it.
        what: &'static str,
        /// Its answer.
        source: virt::error::Error,
    },
    /// A call has no answer in its time; whether it still happens is unknown.
    #[error("libvirt did not {what} within {limit:?}; the connection is made anew")]
    Stuck {
        /// What was asked of it.
        what: &'static str,
        /// The limit.
        limit: Duration,
    },
    /// The directory for images and disks cannot be made.
    #[error("cannot make {path}: {source}")]
    StateDir {
        /// Which.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The system gives no thread.
    #[error("cannot start a thread: {source}")]
    Thread {
        /// The system's word.
        source: std::io::Error,
    },
}

impl LibvirtError {
    pub(super) fn api(what: &'static str, source: virt::error::Error) -> Self {
        Self::Api { what, source }
    }

    /// The domain that was asked for does not exist.
    #[must_use]
    pub fn is_no_domain(&self) -> bool {
        matches!(self, Self::Api { source, .. } if source.code() == ErrorNumber::NoDomain)
    }

    /// The domain is not in the state that the call needs: it stopped, or started, meanwhile.
    #[must_use]
    pub fn is_wrong_state(&self) -> bool {
        matches!(self, Self::Api { source, .. } if source.code() == ErrorNumber::OperationInvalid)
    }

    /// The connection cannot be used any more.
    #[must_use]
    pub fn breaks_connection(&self) -> bool {
        self.kind() == FailureKind::Unavailable || matches!(self, Self::Stuck { .. })
    }

    fn kind(&self) -> FailureKind {
        match self {
            Self::Away | Self::StateDir { .. } | Self::Thread { .. } => FailureKind::Unavailable,
            Self::Stuck { .. } => FailureKind::TimedOut,
            Self::Api { source, .. } => match (source.code(), source.domain()) {
                (ErrorNumber::NoConnect | ErrorNumber::InvalidConn, _)
                | (_, ErrorDomain::Rpc | ErrorDomain::Remote) => FailureKind::Unavailable,
                (ErrorNumber::OperationTimeout, _) => FailureKind::TimedOut,
                _ => FailureKind::Refused,
            },
        }
    }

    /// For the engine.
    #[must_use]
    pub fn failure(&self) -> Failure {
        Failure { kind: self.kind(), message: self.to_string() }
    }
}

impl From<LibvirtError> for Failure {
    fn from(error: LibvirtError) -> Self {
        error.failure()
    }
}
