//! What a node's containers leave in the host's cgroup tree. The kernel ends a node's processes with their
//! namespaces; empty cgroups stay until somebody removes them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use crate::{
    error::{AtPath, Result},
    layout::{Layout, under},
    node::{self, Node},
};

const ROOT: &str = "/sys/fs/cgroup";
/// A killed process leaves its cgroup a moment after it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where a node's containerd keeps a directory for each container and sandbox, on the node's disk.
const RECORDS: [&str; 2] = ["containers", "sandboxes"];

/// The cgroups of a node's containers, whether the node is on or not.
pub fn of_node(layout: &Layout, node: &Node<'_>) -> BTreeSet<PathBuf> {
    let records =
        under(&layout.node_disk(&node.name), "/var/lib/containerd/io.containerd.grpc.v1.cri");
    let containers: BTreeSet<String> = RECORDS
        .iter()
        .flat_map(|kind| fs::read_dir(records.join(kind)).into_iter().flatten().flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let mut found = BTreeSet::new();
    if !containers.is_empty() {
        collect(Path::new(ROOT), &containers, 0, &mut found);
    }
    found
}

/// The same of every node.
pub fn of_nodes(layout: &Layout) -> BTreeSet<PathBuf> {
    node::all(layout).iter().flat_map(|node| of_node(layout, node)).collect()
}

// Containers lie at most a few levels below a controller's root.
fn collect(
    directory: &Path,
    containers: &BTreeSet<String>,
    depth: usize,
    found: &mut BTreeSet<PathBuf>,
) {
    const DEEPEST: usize = 5;
    if depth > DEEPEST {
        return;
    }
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        // Symbolic links such as cpu,cpuacct would show the same twice.
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        if entry.file_name().to_str().is_some_and(|name| containers.contains(name)) {
            found.insert(entry.path());
        } else {
            collect(&entry.path(), containers, depth + 1, found);
        }
    }
}

/// Removes these cgroups, and their parents as far as they were made for them and are empty now.
pub fn remove(cgroups: &BTreeSet<PathBuf>, within: Duration) -> Result<()> {
    let started = Instant::now();
    for cgroup in cgroups {
        loop {
            match remove_tree(cgroup) {
                Ok(()) => break,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
                Err(error) if started.elapsed() > within => return Err(error).at(cgroup),
                Err(_) => thread::sleep(LOOK_EVERY),
            }
        }
        if let Some(parent) = cgroup.parent().filter(|parent| parent.ends_with("k8s.io")) {
            // Another lab's containers may be in it: then it stays.
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

// A cgroup's files cannot be removed, and need not: only the directories.
fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)?.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
