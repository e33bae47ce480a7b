//! A real API server for tests: `kubectl` with a namespace of the test's own, deleted at its end.
//!
//! Needs `DISCOVERY_TEST_KUBECONFIG` (a kubeconfig file) and `kubectl` in the path.
#![allow(dead_code, reason = "each test file is a crate of its own, and uses some of this")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A namespace of this test's own on the API server.
pub struct Cluster {
    kubeconfig: PathBuf,
    /// Its name.
    pub namespace: String,
}

impl Cluster {
    /// Makes the namespace. Two purposes, two namespaces.
    pub fn new(purpose: &str) -> Self {
        let Some(kubeconfig) = std::env::var_os("DISCOVERY_TEST_KUBECONFIG") else {
            panic!(
                "DISCOVERY_TEST_KUBECONFIG must name a kubeconfig file: these tests need an API server"
            );
        };
        let namespace = format!("{purpose}-{}", std::process::id());
        let cluster = Self { kubeconfig: kubeconfig.into(), namespace };
        cluster.must(&["create", "namespace", &cluster.namespace], "");
        cluster
    }

    /// The same cluster and namespace with another kubeconfig.
    pub fn kubectl_as(&self, kubeconfig: &Path, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", kubeconfig);
        command.args(["--namespace", &self.namespace, "--request-timeout=30s"]).args(arguments);
        fed(command, input)
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        self.kubectl_as(&self.kubeconfig, arguments, input)
    }

    /// Runs kubectl, which must succeed, and gives back what it prints.
    pub fn must(&self, arguments: &[&str], input: &str) -> String {
        let output = self.kubectl(arguments, input);
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.kubectl(&["delete", "namespace", &self.namespace, "--wait=false"], "");
    }
}

/// Runs a command with this input.
pub fn fed(mut command: Command, input: &str) -> Output {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{command:?} is in the path: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // What a command does not care to read is no failure; its exit code tells.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("the command ends")
}

/// Bytes as text.
pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
