//! etcd, the API server, the controller manager and the scheduler: processes of the host that listen on the
//! lab's bridge.

use std::{fs, process::Command, time::Duration};

use serde_json::json;

use crate::{
    error::{AtPath, Result},
    kubeconfig::{write_json, write_kubeconfig},
    layout::{API_PORT, Layout, SERVICE_RANGE},
    pki,
    process::{self, command, find, run, start_daemon, terminate, wait_for},
};

/// The API server is up 3 s after etcd on two idle cores; builds beside it make that much longer.
const API_WITHIN: Duration = Duration::from_secs(120);
/// An API server with open watches waits for them for a minute: after this it is killed, as an outage would.
const STOP_WITHIN: Duration = Duration::from_secs(2);

/// The roles of the control plane's processes, in the order of their start.
pub const ROLES: [&str; 4] =
    ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

/// Starts what is not running, and waits until the API server says that it is ready.
pub fn start(layout: &Layout) -> Result<()> {
    pki::ensure_authority(&layout.pki())?;
    for subject in pki::control_plane(layout) {
        pki::ensure_certificate(&layout.pki(), &subject)?;
        write_kubeconfig(layout, &subject.file)?;
    }
    write_json(&layout.dir.join("audit-policy.json"), &audit_policy())?;
    fs::create_dir_all(layout.dir.join("etcd")).at(layout.dir.join("etcd"))?;
    start_role(layout, "etcd", &etcd_arguments(layout))?;
    start_api(layout)?;
    start_role(layout, "kube-controller-manager", &controller_manager_arguments(layout))?;
    start_role(layout, "kube-scheduler", &scheduler_arguments(layout))
}

/// Starts the API server unless it runs, and waits for it.
pub fn start_api(layout: &Layout) -> Result<()> {
    start_role(layout, "kube-apiserver", &api_arguments(layout))?;
    let hint = format!("see {}", layout.logs().join("kube-apiserver.log").display());
    wait_for("the API server", API_WITHIN, &hint, || api_is_ready(layout))
}

/// Ends the API server; etcd and all else go on.
pub fn stop_api(layout: &Layout) -> Result<()> {
    terminate(&find(layout, "kube-apiserver"), STOP_WITHIN)
}

/// Whether the API server answers that it is ready.
pub fn api_is_ready(layout: &Layout) -> bool {
    run(kubectl(layout).args(["get", "--raw", "/readyz", "--request-timeout=2s"]))
        .is_ok_and(|answer| answer == "ok")
}

/// kubectl as the cluster's admin.
pub fn kubectl(layout: &Layout) -> Command {
    let mut kubectl = Command::new(layout.program("kubectl"));
    kubectl.arg("--kubeconfig").arg(layout.kubeconfig("admin"));
    kubectl
}

fn start_role(layout: &Layout, role: &str, arguments: &[String]) -> Result<()> {
    if !find(layout, role).is_empty() {
        return Ok(());
    }
    let log = layout.logs().join(format!("{role}.log"));
    start_daemon(layout, role, command(layout.program(role), arguments), &log).map(drop)
}

fn etcd_arguments(layout: &Layout) -> Vec<String> {
    let (client, peer) = (etcd_url(layout), format!("http://{}:2380", layout.host_ip()));
    vec![
        format!("--data-dir={}", layout.dir.join("etcd").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        // A lab's data need not survive the host's power loss, and syncing costs seconds on slow disks.
        "--unsafe-no-fsync".into(),
        "--log-level=warn".into(),
    ]
}

fn etcd_url(layout: &Layout) -> String {
    format!("http://{}:2379", layout.host_ip())
}

fn api_arguments(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    vec![
        format!("--etcd-servers={}", etcd_url(layout)),
        format!("--bind-address={}", layout.host_ip()),
        format!("--advertise-address={}", layout.host_ip()),
        format!("--secure-port={API_PORT}"),
        format!("--service-cluster-ip-range={SERVICE_RANGE}"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        "--allow-privileged=true".into(),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--tls-cert-file={}", pki("kube-apiserver.crt")),
        format!("--tls-private-key-file={}", pki("kube-apiserver.key")),
        format!("--kubelet-certificate-authority={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        "--kubelet-preferred-address-types=InternalIP".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        format!("--audit-policy-file={}", layout.dir.join("audit-policy.json").display()),
        format!("--audit-log-path={}", layout.audit_log().display()),
        // Blocking: a request's line is in the file when the client has its answer, so tests need not wait.
        "--audit-log-mode=blocking".into(),
        "--event-ttl=1h".into(),
    ]
}

// One line for each finished write, and for each watch when it starts; the kubelets' leases would be
// most of it.
fn audit_policy() -> serde_json::Value {
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [
            {
                "level": "None",
                "resources": [{"group": "coordination.k8s.io", "resources": ["leases"]}],
                "namespaces": ["kube-node-lease", "kube-system"],
            },
            {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
            {"level": "Metadata", "verbs": ["watch"], "resources": [{"group": "discovery.beyondtheclouds.io"}]},
            {"level": "None"},
        ],
    })
}

fn controller_manager_arguments(layout: &Layout) -> Vec<String> {
    let pki = |file: &str| layout.pki().join(file).display().to_string();
    let mut arguments = client_arguments(layout, "controller-manager");
    arguments.extend([
        "--use-service-account-credentials".to_owned(),
        "--controllers=*,-nodeipam,-node-route-controller".into(),
        format!("--root-ca-file={}", pki("ca.crt")),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--cluster-signing-cert-file={}", pki("ca.crt")),
        format!("--cluster-signing-key-file={}", pki("ca.key")),
    ]);
    arguments
}

fn scheduler_arguments(layout: &Layout) -> Vec<String> {
    client_arguments(layout, "scheduler")
}

fn client_arguments(layout: &Layout, file: &str) -> Vec<String> {
    let kubeconfig = layout.kubeconfig(file).display().to_string();
    let pki = |ending: &str| layout.pki().join(format!("{file}.{ending}")).display().to_string();
    vec![
        format!("--kubeconfig={kubeconfig}"),
        format!("--authentication-kubeconfig={kubeconfig}"),
        format!("--authorization-kubeconfig={kubeconfig}"),
        format!("--bind-address={}", layout.host_ip()),
        format!("--tls-cert-file={}", pki("crt")),
        format!("--tls-private-key-file={}", pki("key")),
        "--leader-elect=false".into(),
    ]
}

/// The roles whose process is there.
pub fn running(layout: &Layout) -> Vec<&'static str> {
    let found = process::find_all(layout);
    ROLES.into_iter().filter(|role| found.iter().any(|process| process.role == *role)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> Layout {
        Layout { dir: "/lab".into(), cache: "/cache".into(), net: "10.78".into() }
    }

    #[test]
    fn everything_listens_on_the_labs_own_address() {
        let all = [
            etcd_arguments(&layout()),
            api_arguments(&layout()),
            controller_manager_arguments(&layout()),
            scheduler_arguments(&layout()),
        ];
        for arguments in &all {
            let listens: Vec<_> = arguments
                .iter()
                .filter(|a| a.contains("bind-address") || a.contains("listen-"))
                .collect();
            assert!(!listens.is_empty());
            assert!(listens.iter().all(|a| a.contains("10.78.0.1")), "{listens:?}");
        }
    }

    #[test]
    fn the_audit_log_is_written_before_the_answer() {
        let arguments = api_arguments(&layout());
        assert!(arguments.contains(&"--audit-log-mode=blocking".to_owned()));
        assert!(arguments.contains(&"--audit-log-path=/lab/logs/audit.log".to_owned()));
    }

    #[test]
    fn kubelets_leases_are_not_audited_but_all_other_writes_are() {
        let policy = audit_policy();
        assert_eq!(policy["rules"][0]["level"], "None");
        assert_eq!(policy["rules"][0]["resources"][0]["resources"][0], "leases");
        assert_eq!(policy["rules"][0]["namespaces"][0], "kube-node-lease");
        assert!(policy["rules"][1].get("resources").is_none());
    }
}
