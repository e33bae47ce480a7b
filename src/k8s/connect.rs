//! A client from a kubeconfig, or from what a pod is given.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// How long a TCP and TLS connection to the API server may take. On one site it takes milliseconds.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Why there is no client. (That the API server is away is no reason: that is found out later.)
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be used.
    #[error("kubeconfig {path}: {source}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<kube::config::KubeconfigError>,
    },
    /// Neither a pod's service account nor a kubeconfig was found.
    #[error("neither inside a pod nor with a kubeconfig: {0}; name one with --kubeconfig")]
    Nothing(Box<kube::config::InferConfigError>),
    /// What was found does not make a client.
    #[error("the Kubernetes client cannot be made: {0}")]
    Client(Box<kube::Error>),
}

/// Makes a client: from `kubeconfig` if given, otherwise from `KUBECONFIG`, `~/.kube/config` or the pod's
/// service account. Nothing is sent yet.
///
/// # Errors
/// When there is no usable configuration.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Client, ConnectError> {
    let mut config = match kubeconfig {
        Some(path) => from_file(path).await.map_err(|source| ConnectError::Kubeconfig {
            path: path.to_owned(),
            source: Box::new(source),
        })?,
        None => Config::infer().await.map_err(|error| ConnectError::Nothing(Box::new(error)))?,
    };
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    // Retrying is the writer's business: it knows what has become out of date meanwhile.
    config.default_retry = false;
    Client::try_from(config).map_err(|error| ConnectError::Client(Box::new(error)))
}

async fn from_file(path: &Path) -> Result<Config, kube::config::KubeconfigError> {
    let kubeconfig = Kubeconfig::read_from(path)?;
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await
}
