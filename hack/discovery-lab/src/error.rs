//! What can go wrong in the lab, as one vocabulary.

use std::{path::PathBuf, process::ExitStatus, time::Duration};

/// What a lab operation can fail with. None of these is retried by the lab itself; `up` and `down` may
/// always be called again.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// A file of the lab could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error(
        "cannot start {program}: {source} (hack/prerequisites and hack/build-tools install what the lab needs)"
    )]
    Start {
        /// The program's name.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A program ran and failed.
    #[error("`{command}` failed with {status}: {stderr}")]
    Failed {
        /// The whole command line.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote to its standard error.
        stderr: String,
    },
    /// Something that was to become true did not within its time.
    #[error("waited {} s for {what}; {hint}", waited.as_secs())]
    Deadline {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
        /// Where to look.
        hint: String,
    },
    /// The lab has no node of this name.
    #[error("the lab has no node {0:?} (hack/lab status lists them)")]
    NoSuchNode(String),
    /// The node is there, but switched off.
    #[error("node {0} is switched off (hack/lab node start {0})")]
    NodeIsOff(String),
    /// A name that the lab cannot use for a node.
    #[error("{0:?} is no node name: the lab's nodes are called n1 to n{max}", max = crate::layout::MAX_NODES)]
    BadNodeName(String),
    /// There is no lab in this directory.
    #[error("no lab is up in {0} (hack/lab up)")]
    NotUp(PathBuf),
    /// The lab moves network devices and mounts: only root may.
    #[error("the lab needs root: it makes network namespaces, mounts and a bridge")]
    NotRoot,
    /// No domain of this name is on any node.
    #[error("no node has a domain {0:?}")]
    NoSuchDomain(String),
    /// A certificate could not be made: a bug of the lab.
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
    /// A system call of a node's own set-up failed.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A fault had no effect that can be seen.
    #[error("{fault} has not fired: {detail}")]
    NotFired {
        /// Which fault.
        fault: String,
        /// What was seen instead.
        detail: String,
    },
    /// A fault of the same kind is there on the same node.
    #[error("there is a {there} already (hack/lab nemesis heal)")]
    OtherFault {
        /// Which.
        there: String,
    },
    /// The node has no guard.
    #[error(
        "no `discovery guard` runs on {0}: the product that is installed has none, or its DaemonSet discovery-guard is not ready"
    )]
    NoGuard(String),
    /// The node has no agent.
    #[error(
        "no `discovery agent` runs on {0}: install the product (hack/lab install), or wait for it"
    )]
    NoAgent(String),
    /// The product's disk is a part of the host's.
    #[error(
        "{0} has no disk of its own for the product, and the host's is not to be filled (hack/lab up --disk-mib 4096, in a new lab)"
    )]
    NoOwnDisk(String),
    /// The lab is not what a run needs.
    #[error("the lab is not ready for {what}: {detail}")]
    NotReadyFor {
        /// What was to be done.
        what: String,
        /// What it lacks.
        detail: String,
    },
    /// Something has not come back in time.
    #[error("not whole {when}, within {} s: {}", within.as_secs(), missing.join("; "))]
    NotWhole {
        /// After what.
        when: String,
        /// How long it was waited for.
        within: Duration,
        /// What is missing, broken or too much.
        missing: Vec<String>,
    },
    /// Two instances of one VM ran at once, or it cannot be shown that they did not.
    #[error("the record of guests is not clean:\n{0}")]
    Twice(String),
    /// An answer of a program, or a file of the lab, is not what it should be.
    #[error("{what} is not as expected: {detail}")]
    Unexpected {
        /// Whose answer.
        what: String,
        /// What is wrong with it.
        detail: String,
    },
}

/// The lab's result.
pub type Result<T, E = LabError> = std::result::Result<T, E>;

/// Adds a path to an input or output error.
pub(crate) trait AtPath<T> {
    /// Names the file in the error.
    fn at(self, path: impl Into<PathBuf>) -> Result<T>;
}

impl<T> AtPath<T> for std::io::Result<T> {
    fn at(self, path: impl Into<PathBuf>) -> Result<T> {
        self.map_err(|source| LabError::File { path: path.into(), source })
    }
}

/// Names the system call in the error.
pub(crate) fn system<T>(what: impl Into<String>, result: rustix::io::Result<T>) -> Result<T> {
    result.map_err(|errno| LabError::System { what: what.into(), source: errno.into() })
}
