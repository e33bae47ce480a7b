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
    layout::Layout,
    node::{self, Node},
};

const ROOT: &str = "/sys/fs/cgroup";
/// A killed process leaves its cgroup a moment after it is gone.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The cgroups of a node's containers, as long as the node is on; afterwards nobody knows them.
pub fn of_node(node: &Node<'_>) -> BTreeSet<PathBuf> {
    let Ok(tasks) = node.path("/run/containerd/io.containerd.runtime.v2.task/k8s.io") else {
        return BTreeSet::new();
    };
    let containers: BTreeSet<String> = fs::read_dir(tasks)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let mut found = BTreeSet::new();
    collect(Path::new(ROOT), &containers, 0, &mut found);
    found
}

/// The same of every node that is on.
pub fn of_nodes(layout: &Layout) -> BTreeSet<PathBuf> {
    node::all(layout)
        .iter()
        .filter(|node| node.init().is_some())
        .flat_map(of_node)
        .collect()
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
        if entry
            .file_name()
            .to_str()
            .is_some_and(|name| containers.contains(name))
        {
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
