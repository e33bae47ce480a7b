//! A real kube-apiserver with its etcd, private to one test: on loopback, on free ports, in a temporary
//! folder, ended with the test. Its programs are those that `hack/build-tools` makes.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use kube::Client;
use tempfile::TempDir;
use tokio::time::Instant;

/// The user that agents are in the chart, and that this fixture gives the chart's role.
const AGENT: &str = "system:serviceaccount:discovery-system:discovery-agent";
/// How long it may take to be ready. Three seconds are usual.
const READY_WITHIN: Duration = Duration::from_secs(90);

/// The servers.
pub struct ApiServer {
    folder: TempDir,
    programs: PathBuf,
    port: u16,
    etcd_port: u16,
    api: Option<Child>,
    etcd: Child,
}

impl ApiServer {
    /// Starts them, installs the definitions of `crds/` and the chart's role for agents.
    pub async fn start() -> Self {
        let programs = programs();
        let folder = tempfile::tempdir().expect("a temporary folder is made");
        let [port, etcd_port, peer_port] = free_ports();
        let address = |port: u16| format!("http://127.0.0.1:{port}");
        let etcd = start(
            &folder,
            Command::new(program(&programs, "etcd"))
                .arg("--data-dir")
                .arg(folder.path().join("etcd"))
                .args(["--unsafe-no-fsync", "--log-level=error"])
                .args(["--listen-client-urls", &address(etcd_port)])
                .args(["--advertise-client-urls", &address(etcd_port)])
                .args(["--listen-peer-urls", &address(peer_port)])
                .args(["--initial-advertise-peer-urls", &address(peer_port)])
                .args(["--initial-cluster", &format!("default={}", address(peer_port))]),
            "etcd",
        );
        let mut server = Self { folder, programs, port, etcd_port, api: None, etcd };
        server.prepare();
        server.go_on().await;
        server.install();
        server
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Keys, tokens and kubeconfigs.
    fn prepare(&self) {
        let keys = Command::new("openssl")
            .args(["genrsa", "-out"])
            .arg(self.path("accounts.key"))
            .arg("2048")
            .stderr(Stdio::null())
            .status()
            .expect("openssl is in the path");
        assert!(keys.success(), "a key is made");
        let tokens = format!(
            "admin-token,admin,1,\"system:masters\"\nagent-token,{AGENT},2,\"system:serviceaccounts\"\n"
        );
        fs::write(self.path("tokens.csv"), tokens).expect("tokens are written");
        for user in ["admin", "agent"] {
            let kubeconfig = serde_json::json!({
                "apiVersion": "v1", "kind": "Config", "current-context": "test",
                "clusters": [{"name": "test", "cluster": {
                    "server": format!("https://127.0.0.1:{}", self.port),
                    "insecure-skip-tls-verify": true,
                }}],
                "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                "users": [{"name": "test", "user": {"token": format!("{user}-token")}}],
            });
            fs::write(self.path(user), kubeconfig.to_string()).expect("a kubeconfig is written");
        }
    }

    /// Definitions and roles.
    fn install(&self) {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        self.kubectl(&["apply", "--server-side", "-f", &root.join("crds").to_string_lossy()]);
        self.kubectl(&["wait", "--for=condition=Established", "crd", "--all"]);
        // The first role of the chart is the agents'; its rules hold no template.
        let chart = fs::read_to_string(root.join("charts/discovery/templates/rbac.yaml"))
            .expect("the chart has its roles");
        let rules = chart.split("\nrules:\n").nth(1).and_then(|rest| rest.split("---\n").next());
        let role = format!(
            "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\n\
             metadata: {{name: discovery}}\nrules:\n{}",
            rules.expect("the first role has rules")
        );
        fs::write(self.path("role.yaml"), role).expect("the role is written");
        self.kubectl(&["apply", "-f", &self.path("role.yaml").to_string_lossy()]);
        let user = format!("--user={AGENT}");
        self.kubectl(&["create", "clusterrolebinding", "agents", "--clusterrole=discovery", &user]);
    }

    /// Runs kubectl as an administrator; it must succeed.
    pub fn kubectl(&self, arguments: &[&str]) -> String {
        let output: Output = Command::new(program(&self.programs, "kubectl"))
            .arg("--kubeconfig")
            .arg(self.path("admin"))
            .args(arguments)
            .output()
            .expect("kubectl runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        text(&output.stdout)
    }

    /// An administrator's client.
    pub async fn admin(&self) -> Client {
        discovery::k8s::connect(Some(&self.path("admin"))).await.expect("a client is made")
    }

    /// A client that may do what the chart lets agents do, and no more.
    pub async fn agent(&self) -> Client {
        discovery::k8s::connect(Some(&self.path("agent"))).await.expect("a client is made")
    }

    /// Ends the API server; etcd keeps what it holds.
    pub fn go_away(&mut self) {
        if let Some(mut api) = self.api.take() {
            // It may have ended by itself.
            let _ = api.kill();
            let _ = api.wait();
        }
    }

    /// The API server hangs (its connections stay open and nothing answers), or goes on.
    pub fn hang(&self, hangs: bool) {
        let api = self.api.as_ref().expect("it runs");
        let signal = if hangs { "-STOP" } else { "-CONT" };
        let sent = Command::new("kill").args([signal, &api.id().to_string()]).status();
        assert!(sent.expect("kill is in the path").success(), "{signal} is sent");
    }

    /// Starts the API server and waits until it is ready.
    pub async fn go_on(&mut self) {
        let key = self.path("accounts.key");
        let mut command = Command::new(program(&self.programs, "kube-apiserver"));
        command
            .args(["--bind-address=127.0.0.1", "--authorization-mode=RBAC"])
            .args([
                "--service-cluster-ip-range=10.96.0.0/16",
                "--service-account-issuer=https://test",
            ])
            .arg("--disable-admission-plugins=ServiceAccount")
            .arg(format!("--etcd-servers=http://127.0.0.1:{}", self.etcd_port))
            .arg(format!("--secure-port={}", self.port))
            .arg(format!("--cert-dir={}", self.path("certificates").display()))
            .arg(format!("--token-auth-file={}", self.path("tokens.csv").display()))
            .arg(format!("--service-account-key-file={}", key.display()))
            .arg(format!("--service-account-signing-key-file={}", key.display()));
        self.api = Some(start(&self.folder, &command, "kube-apiserver"));
        let client = self.admin().await;
        let until = Instant::now() + READY_WITHIN;
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let request = kube::core::Request::new("")
                .get("readyz", &kube::api::GetParams::default())
                .expect("a request is made");
            if client.request_text(request).await.is_ok() {
                return;
            }
            assert!(
                Instant::now() < until,
                "the API server is not ready:\n{}",
                fs::read_to_string(self.path("kube-apiserver.log")).unwrap_or_default()
            );
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.go_away();
        let _ = self.etcd.kill();
        let _ = self.etcd.wait();
    }
}

/// Starts a server with its log in the folder. It is killed with the thread that starts it, should that
/// one not get to end it.
fn start(folder: &TempDir, command: &Command, name: &str) -> Child {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join(format!("{name}.log")))
        .expect("a log is made");
    Command::new("setpriv")
        .arg("--pdeathsig=KILL")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a log can be shared"))
        .stderr(log)
        .spawn()
        .expect("setpriv (util-linux) is in the path")
}

/// Ports that nobody listens on, for now.
fn free_ports() -> [u16; 3] {
    let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("it is bound").port())
}

/// Where `hack/build-tools` puts programs.
fn programs() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = set("DISCOVERY_CACHE")
        .or_else(|| Some(set("XDG_CACHE_HOME")?.join("discovery")))
        .or_else(|| Some(set("HOME")?.join(".cache/discovery")));
    cache.map(|cache| cache.join("bin")).unwrap_or_default()
}

/// A program from there, or from the path.
fn program(programs: &Path, name: &str) -> PathBuf {
    let built = programs.join(name);
    if built.exists() { built } else { PathBuf::from(name) }
}
