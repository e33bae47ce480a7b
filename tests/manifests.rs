//! What the API server makes of manifests: the good, the bad, and changes of what exists.
//!
//! `tests/manifests/good` must be accepted, and so must `examples`. `tests/manifests/bad` is the table of
//! refusals: each document says in `# refused:` lines which words the refusal must hold (the field, and why).
//! `tests/manifests/updates.yaml` holds pairs, before and after. A real API server judges, with the
//! definitions of `crds/` installed; nothing else validates CEL rules and their cost budget.
//!
//! Needs `DISCOVERY_TEST_KUBECONFIG` (a kubeconfig file) and `kubectl` in the path.

use std::fs;
use std::path::{Path, PathBuf};

mod cluster;

use cluster::{Cluster, text};

/// One document of a table.
struct Manifest {
    /// File, and the first line of the document's comment.
    title: String,
    /// Words that the refusal must hold; none means that it must be accepted.
    refused: Vec<String>,
    yaml: String,
}

/// What stands against the manifest, or nothing.
fn complaint(cluster: &Cluster, verb: &str, manifest: &Manifest) -> Option<String> {
    let arguments = [verb, "--dry-run=server", "--validate=strict", "-f", "-"];
    let output = cluster.kubectl(&arguments, &manifest.yaml);
    let said = text(&output.stderr);
    match (output.status.success(), manifest.refused.is_empty()) {
        (true, true) if said.contains("Warning") => Some(format!("a warning: {said}")),
        (true, true) => None,
        (false, true) => Some(format!("refused: {said}")),
        (true, false) => Some("accepted".to_owned()),
        (false, false) => {
            let missing: Vec<_> =
                manifest.refused.iter().filter(|words| !said.contains(words.as_str())).collect();
            (!missing.is_empty()).then(|| format!("the refusal lacks {missing:?}: {said}"))
        }
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The YAML files of a folder, in order of their names.
fn files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.expect("the folder can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "{folder} holds no manifest");
    files
}

/// The documents of a file that declare something.
fn documents(path: &Path) -> Vec<Manifest> {
    let content = fs::read_to_string(path).expect("the manifest can be read");
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    content
        .split("---\n")
        .filter(|document| document.contains("\nkind:"))
        .map(|document| {
            let comments = document.lines().filter_map(|line| line.strip_prefix("# "));
            let refused = comments.clone().filter_map(|line| line.strip_prefix("refused: "));
            Manifest {
                title: format!("{file}: {}", comments.clone().next().unwrap_or_default()),
                refused: refused.map(ToOwned::to_owned).collect(),
                yaml: document.to_owned(),
            }
        })
        .collect()
}

fn report(complaints: &[String], of: usize) {
    assert!(
        complaints.is_empty(),
        "{} of {of} manifests:\n{}",
        complaints.len(),
        complaints.join("\n")
    );
}

#[test]
fn good_manifests_and_the_examples_are_accepted_without_a_warning() {
    let cluster = Cluster::new("manifests-good");
    let mut manifests = Vec::new();
    for folder in ["tests/manifests/good", "examples"] {
        manifests.extend(files(folder).iter().flat_map(|path| documents(path)));
    }
    let complaints: Vec<String> = manifests
        .iter()
        .filter_map(|m| Some(format!("{}: {}", m.title, complaint(&cluster, "apply", m)?)))
        .collect();
    report(&complaints, manifests.len());
}

#[test]
fn every_bad_manifest_is_refused_with_the_field_and_the_reason() {
    let cluster = Cluster::new("manifests-bad");
    let manifests: Vec<Manifest> =
        files("tests/manifests/bad").iter().flat_map(|path| documents(path)).collect();
    assert!(manifests.len() >= 25, "the table has shrunk to {}", manifests.len());
    let mut complaints = Vec::new();
    for manifest in &manifests {
        assert!(!manifest.refused.is_empty(), "{} does not say what is refused", manifest.title);
        if let Some(complaint) = complaint(&cluster, "apply", manifest) {
            complaints.push(format!("{}: {complaint}", manifest.title));
        }
    }
    println!("{} bad manifests", manifests.len());
    report(&complaints, manifests.len());
}

#[test]
fn the_gitops_tree_builds_and_is_accepted() {
    let cluster = Cluster::new("manifests-gitops");
    for overlay in ["staging", "production"] {
        let path = root().join("examples/gitops/overlays").join(overlay);
        let built = cluster.must(&["kustomize", &path.display().to_string()], "");
        let environments: Vec<&str> =
            built.split("---\n").filter(|text| text.contains("kind: VirtualEnvironment")).collect();
        assert_eq!(environments.len(), 1, "{built}");
        // The overlay's own namespace is not made here.
        let yaml = environments[0].replace(&format!("shop-{overlay}"), &cluster.namespace);
        let manifest = Manifest { title: overlay.to_owned(), refused: Vec::new(), yaml };
        assert_eq!(complaint(&cluster, "apply", &manifest), None, "{overlay}");
    }
}

/// As large as the bounds allow, with 8 constraints of each of two sorts. The sorts bind one half of the
/// members each, or both all, so that no rule finds its answer early.
fn largest(first: &str, second: &str) -> String {
    let members: Vec<String> = (0..32).map(|i| format!("m{i:02}{}", "x".repeat(29))).collect();
    let disks: Vec<String> = (0..16).map(|i| format!("{{name: d{i:02}, size: 1Gi}}")).collect();
    let names: Vec<String> = (0..32).map(|i| format!("node{i:03}{}", "x".repeat(50))).collect();
    let list = |items: &[String]| format!("[{}]", items.join(", "));
    let mut yaml = String::from(
        "apiVersion: discovery.beyondtheclouds.io/v1alpha1\nkind: VirtualEnvironment\n\
         metadata: {name: largest}\nspec:\n  members:\n",
    );
    for member in &members {
        yaml.push_str(&format!(
            "    - {{name: {member}, replicas: 8, cpus: 1, memory: 64Mi, disks: {}, \
             boot: {{kernel: {{url: 'file:///vmlinuz'}}}}}}\n",
            list(&disks)
        ));
    }
    yaml.push_str("  placement:\n");
    for constraint in [first, second].iter().flat_map(|sort| std::iter::repeat_n(sort, 8)) {
        let constraint = constraint
            .replace("ALL", &list(&members))
            .replace("LEFT", &list(&members[..16]))
            .replace("RIGHT", &list(&members[16..]))
            .replace("GROUPS", &vec![format!("{{names: {}}}", list(&names)); 8].join(", "))
            .replace("NODES", &list(&names))
            .replace("OTHERS", &list(&names[..31]));
        yaml.push_str(&format!("    - {constraint}\n"));
    }
    yaml
}

#[test]
fn the_largest_environments_stay_within_the_cost_of_their_rules() {
    let cluster = Cluster::new("manifests-largest");
    let sorts = [
        ("{spread: {members: ALL}}", "{gather: {members: ALL, over: zone}}"),
        ("{spread: {members: LEFT, over: zone}}", "{gather: {members: RIGHT}}"),
        ("{spread: {members: ALL}}", "{maxNodes: 256}"),
        ("{spread: {members: LEFT}}", "{fence: {members: RIGHT, nodes: {names: NODES}}}"),
        (
            "{fence: {members: LEFT, nodes: {names: NODES}}}",
            "{ban: {members: RIGHT, nodes: {names: NODES}}}",
        ),
        (
            "{fence: {members: ALL, nodes: {names: NODES}}}",
            "{ban: {members: ALL, nodes: {names: OTHERS}}}",
        ),
        ("{split: {members: LEFT, from: RIGHT}}", "{split: {members: RIGHT, from: LEFT}}"),
        (
            "{among: {members: ALL, groups: [GROUPS]}}",
            "{overbook: {members: ALL, cpuPercent: 100}}",
        ),
        (
            "{runningCapacity: {members: ALL, nodes: {names: NODES}, max: 9}}",
            "{lonely: {members: ALL}}",
        ),
    ];
    let complaints: Vec<String> = sorts
        .iter()
        .filter_map(|(first, second)| {
            let yaml = largest(first, second);
            let manifest =
                Manifest { title: format!("{first} {second}"), refused: Vec::new(), yaml };
            Some(format!("{}: {}", manifest.title, complaint(&cluster, "apply", &manifest)?))
        })
        .collect();
    report(&complaints, sorts.len());
}

#[test]
fn what_cannot_be_changed_is_refused_with_the_reason() {
    let cluster = Cluster::new("manifests-updates");
    let documents = documents(&root().join("tests/manifests/updates.yaml"));
    let mut complaints = Vec::new();
    for pair in documents.chunks(2) {
        let [before, after] = pair else { panic!("updates.yaml holds pairs") };
        cluster.must(&["create", "-f", "-"], &before.yaml);
        if let Some(complaint) = complaint(&cluster, "replace", after) {
            complaints.push(format!("{}: {complaint}", before.title));
        }
    }
    report(&complaints, documents.len() / 2);
}

#[test]
fn kubectl_scale_sets_the_number_of_the_scaled_member() {
    let cluster = Cluster::new("manifests-scale");
    let minimal = fs::read_to_string(root().join("tests/manifests/good/minimal.yaml"))
        .expect("the manifest can be read");
    cluster.must(&["create", "-f", "-"], &format!("{minimal}  state: Terminated\n"));
    cluster.must(&["scale", "ve/minimal", "--replicas=3"], "");
    let spec = |path: &str| {
        cluster.must(&["get", "ve/minimal", "-o", &format!("jsonpath={{.spec.{path}}}")], "")
    };
    assert_eq!(spec("replicas"), "3");
    assert_eq!(spec("members[0].replicas"), "1", "a member's own number is the manifest's");
    // Applying the manifest again, as GitOps does, leaves the scaled number alone.
    cluster
        .must(&["apply", "--server-side", "-f", "-"], &format!("{minimal}  state: Terminated\n"));
    assert_eq!(spec("replicas"), "3");
    let output = cluster.kubectl(&["scale", "ve/minimal", "--replicas=65"], "");
    assert!(!output.status.success(), "65 is over the limit");
    assert!(text(&output.stderr).contains("spec.replicas"), "{}", text(&output.stderr));
}
