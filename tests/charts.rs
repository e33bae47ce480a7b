//! The charts: they lint, they render whatever is switched on, they ask for no right they do not need, and
//! a misspelt or absurd value is refused. Needs `helm` in the path, and no cluster.

use std::path::Path;
use std::process::{Command, Output};

fn helm(arguments: &[&str]) -> Output {
    Command::new("helm")
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("helm is in the path: {error}"))
}

fn rendered(arguments: &[&str]) -> String {
    let mut all =
        vec!["template", "discovery", "charts/discovery", "--namespace", "discovery-system"];
    all.extend(arguments);
    let output = helm(&all);
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn both_charts_lint_strictly() {
    for chart in ["charts/discovery-crds", "charts/discovery"] {
        let output = helm(&["lint", "--strict", chart]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
}

#[test]
fn no_right_is_a_wildcard_and_no_capability_is_asked_for() {
    let yaml = rendered(&[]);
    assert!(yaml.contains("kind: ClusterRole\n"), "there are rights to look at");
    for line in yaml.lines().map(str::trim) {
        for field in ["verbs:", "resources:", "apiGroups:", "nonResourceURLs:"] {
            assert!(!(line.starts_with(field) && line.contains('*')), "{line}");
        }
    }
    let [agent, guard] = ["agent", "guard"].map(|name| daemon_set(&yaml, name));
    assert!(agent.contains("drop: [ALL]") && !agent.contains("add: ["), "capabilities are dropped");
    assert!(!agent.contains("hostPID: true") && !yaml.contains("privileged: true"));
    assert_eq!(guard.matches("add: [KILL, IPC_LOCK, SYS_NICE]\n").count(), 1, "{guard}");
    assert!(yaml.contains("readOnlyRootFilesystem: true"));
}

/// The manifest of one of the DaemonSets.
fn daemon_set(yaml: &str, name: &str) -> String {
    let named = format!("\n  name: discovery-{name}\n");
    let mut documents = yaml.split("\n---");
    let found = documents.find(|one| one.contains("kind: DaemonSet\n") && one.contains(&named));
    found.unwrap_or_else(|| panic!("no DaemonSet {name}: {yaml}")).to_owned()
}

#[test]
fn a_guard_outlives_upgrades_and_has_no_word_with_the_api_server() {
    let guard = daemon_set(&rendered(&[]), "guard");
    for line in [
        "type: OnDelete",
        "priorityClassName: system-node-critical",
        "automountServiceAccountToken: false",
        "hostPID: true",
        "readOnlyRootFilesystem: true",
        "command: [discovery, guard]",
        "value: \"/run/libvirt/qemu\"",
        "{name: libvirt, mountPath: /run/libvirt, readOnly: true}",
    ] {
        assert!(guard.contains(line), "{line}: {guard}");
    }
    assert!(!guard.contains("serviceAccountName") && !guard.contains("DISCOVERY_WATCHDOG"));
    // Nothing of the template changes with the chart's or the agents' version.
    let (_, template) = guard.split_once("\n  template:").expect("it has one");
    assert!(!template.contains("helm.sh/chart") && !template.contains("app.kubernetes.io/version"));
    let other = ["--set", "image.tag=v9,guard.image=registry/guard:1,agent.log=debug"];
    let other = daemon_set(&rendered(&other), "guard");
    assert!(other.contains("image: registry/guard:1\n") && !other.contains("debug"), "{other}");
    // Both are told of one socket.
    let yaml = rendered(&["--set", "guard.runDir=/run/elsewhere"]);
    for name in ["agent", "guard"] {
        let set = daemon_set(&yaml, name);
        assert!(set.contains("value: \"/run/elsewhere/guard.sock\""), "{set}");
        assert!(set.contains("mountPath: /run/elsewhere}"), "{set}");
    }
}

#[test]
fn a_watchdog_is_fed_where_it_is_asked_for() {
    let guard = daemon_set(&rendered(&["--set", "guard.watchdog.enabled=true"]), "guard");
    assert!(guard.contains("value: \"/dev/watchdog\"") && guard.contains("privileged: true"));
    assert!(!guard.contains("DISCOVERY_WATCHDOG_TIMEOUT"), "the kernel is asked");
    let told = "guard.watchdog.enabled=true,guard.watchdog.timeoutSeconds=8";
    let guard = daemon_set(&rendered(&["--set", told]), "guard");
    assert!(guard.contains("name: DISCOVERY_WATCHDOG_TIMEOUT\n              value: \"8\""));
}

#[test]
fn the_finalizer_policy_is_rendered_where_the_api_server_knows_it() {
    let known = ["--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy"];
    let policy = "kind: MutatingAdmissionPolicy\n";
    assert!(!rendered(&[]).contains(policy));
    assert!(rendered(&known).contains(policy));
    assert!(
        !rendered(&[&known[..], &["--set", "admission.finalizer=false"]].concat()).contains(policy)
    );
}

#[test]
fn the_admin_port_is_on_loopback_until_metrics_are_asked_for() {
    let closed = rendered(&[]);
    assert!(closed.contains("value: \"127.0.0.1:7401\"") && closed.contains("host: 127.0.0.1"));
    assert!(!closed.contains("kind: Service\n"));
    let open = rendered(&[
        "--set",
        "metrics.enabled=true,metrics.serviceMonitor.enabled=true,metrics.serviceMonitor.labels.team=a",
    ]);
    assert!(open.contains("value: \"$(DISCOVERY_NODE_IP):7401\"") && !open.contains("127.0.0.1"));
    assert!(open.contains("kind: Service\n") && open.contains("kind: ServiceMonitor\n"));
}

#[test]
fn image_directories_are_mounted_read_only_and_told_to_the_agent() {
    let yaml = rendered(&["--set", "agent.imageDirs={/srv/a,/srv/b}"]);
    assert!(yaml.contains("value: \"/srv/a:/srv/b\""));
    assert!(yaml.contains("{name: images-1, mountPath: /srv/b, readOnly: true}"));
}

#[test]
fn the_goal_of_placements_is_told_to_the_agent() {
    assert!(rendered(&[]).contains("name: DISCOVERY_GOAL\n              value: \"balance\""));
    let yaml = rendered(&["--set", "agent.scheduling.goal=pack"]);
    assert!(yaml.contains("name: DISCOVERY_GOAL\n              value: \"pack\""));
}

#[test]
fn the_threshold_of_relief_reaches_the_agent_with_its_tenths() {
    let name = "name: DISCOVERY_MIGRATION_MUST_SAVE\n              value: ";
    assert!(rendered(&[]).contains(&format!("{name}\"9.2\"")));
    for seconds in ["12", "21.6"] {
        let set = format!("agent.scheduling.migrationMustSaveSeconds={seconds}");
        assert!(rendered(&["--set", &set]).contains(&format!("{name}\"{seconds}\"")));
    }
}

#[test]
fn agents_and_guards_are_told_the_same_times() {
    let yaml = rendered(&["--set", "agent.failover.leaseSeconds=10,agent.failover.waitSeconds=7"]);
    for (name, value) in [("DISCOVERY_LEASE", "10"), ("DISCOVERY_LEASE_WAIT", "7")] {
        let told = format!("name: {name}\n              value: \"{value}\"");
        assert_eq!(yaml.matches(&told).count(), 2, "{name}, in both daemon sets");
    }
    assert!(yaml.contains("name: DISCOVERY_ABSENCE\n              value: \"60\""));
    // A slower watchdog, where peers wait for it.
    let slower = "agent.failover.waitSeconds=20,guard.watchdog.timeoutSeconds=24";
    rendered(&["--set", slower]);
}

#[test]
fn what_migrations_may_take_is_told_to_the_agent() {
    let yaml = rendered(&[]);
    assert!(yaml.contains("name: DISCOVERY_MIGRATIONS_OUT\n              value: \"2\""));
    assert!(!yaml.contains("DISCOVERY_MIGRATION_BANDWIDTH"), "no limit");
    let yaml = rendered(&["--set", "agent.migration.bandwidth=100Mi,agent.migration.inAtOnce=1"]);
    assert!(yaml.contains("name: DISCOVERY_MIGRATION_BANDWIDTH\n              value: \"100Mi\""));
    assert!(yaml.contains("name: DISCOVERY_MIGRATIONS_IN\n              value: \"1\""));
}

#[test]
fn everything_can_be_switched_off() {
    let yaml = rendered(&["--set", "admission.enforce=false,admission.finalizer=false"]);
    assert!(!yaml.contains("AdmissionPolicy"));
}

#[test]
fn misspelt_and_absurd_values_are_refused_by_name() {
    for (value, word) in [
        ("agent.stateDri=/var/lib/x", "stateDri"),
        ("agent.stateDir=var/lib/x", "stateDir"),
        ("agent.overlayPort=70000", "overlayPort"),
        ("agent.imageCacheLimit=lots", "imageCacheLimit"),
        ("agent.logFormat=xml", "logFormat"),
        ("agent.scheduling.goal=spread", "goal"),
        ("agent.scheduling.migrationMustSaveSeconds=0.5", "migrationMustSaveSeconds"),
        ("agent.migration.bandwidth=fast", "bandwidth"),
        ("agent.migration.outAtOnce=0", "outAtOnce"),
        ("agent.libvirt.uri=/run/libvirt", "uri"),
        ("image.digest=sha256:abc", "digest"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("metrics.serviceMonitor.interval=often", "interval"),
        ("updateStrategy.maxUnavailable=0", "maxUnavailable"),
        ("securityContext.capabilities={sys_admin}", "capabilities"),
        ("guard.runDir=/var/lib/discovery", "runDir"),
        ("guard.image=registry/guard", "image"),
        ("guard.watchdog.enable=true", "enable"),
        ("guard.watchdog.device=watchdog", "device"),
        ("guard.watchdog.timeoutSeconds=10", "timeoutSeconds"),
        ("guard.watchdog.timeoutSeconds=600", "timeoutSeconds"),
        ("agent.failover.leaseSeconds=1", "leaseSeconds"),
        ("agent.failover.absenceSeconds=3601", "absenceSeconds"),
        ("agent.failover.recordReplicas=4", "recordReplicas"),
        ("agent.failover.powerOff.program=power-off", "program"),
        ("replicas=3", "replicas"),
    ] {
        let output = helm(&["template", "discovery", "charts/discovery", "--set", value]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{value} was accepted");
        assert!(said.contains(word), "{value}: {said}");
    }
}

#[test]
fn uninstalling_the_definitions_leaves_them_in_place() {
    let output = helm(&["template", "crds", "charts/discovery-crds"]);
    let yaml = String::from_utf8_lossy(&output.stdout);
    let definitions = yaml.matches("kind: CustomResourceDefinition\n").count();
    assert_eq!(definitions, 2);
    assert_eq!(yaml.matches("helm.sh/resource-policy: keep\n").count(), definitions, "{yaml}");
}
