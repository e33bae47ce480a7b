//! What runs inside the lab's nodes, seen from the host: nothing has to run, or answer, on the node.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
};

use crate::{
    layout::Layout,
    node::{self, Node},
    process::find_all,
    record::{Qemu, pids},
};

/// A process on a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inside {
    /// As the host numbers it.
    pub pid: i32,
    /// R, S, D, T (stopped), Z (ended), …
    pub state: char,
    /// Its command line.
    pub words: Vec<String>,
}

/// A guest's QEMU, on whichever node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Which VM.
    pub qemu: Qemu,
    /// As the host numbers it.
    pub pid: i32,
    /// Where.
    pub node: String,
    /// Whether a signal has stopped it. It holds its VM all the same.
    pub stopped: bool,
}

impl Inside {
    /// `discovery agent`, `discovery guard`.
    pub fn is_discovery(&self, verb: &str) -> bool {
        self.words.len() > 1 && self.program() == "discovery" && self.words[1] == verb
    }

    /// The program's name, without its directory.
    pub fn program(&self) -> &str {
        self.words.first().map_or("", |word| word.rsplit('/').next().unwrap_or(word))
    }

    /// Whether it is a guest.
    pub fn is_guest(&self) -> bool {
        self.program().starts_with("qemu-system-")
    }

    /// Whether it has ended, but for its parent's knowing.
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }
}

/// The node's first process and all that came from it, containers too. Empty when the node is off.
pub fn processes(node: &Node<'_>) -> Vec<Inside> {
    node.init().map(|init| came_from(init, &snapshot())).unwrap_or_default()
}

/// The same of all nodes, by their names, from one look.
pub fn everywhere(layout: &Layout) -> BTreeMap<String, Vec<Inside>> {
    let all = snapshot();
    let inits = find_all(layout).into_iter().filter(|process| process.is_node_init);
    let mut inside: BTreeMap<String, Vec<Inside>> = inits
        .filter_map(|init| Some((init.role.strip_prefix("node/")?.to_owned(), init.pid)))
        .map(|(name, init)| (name, came_from(init, &all)))
        .collect();
    for node in node::all(layout) {
        inside.entry(node.name).or_default();
    }
    inside
}

/// All guests of the lab's nodes.
pub fn qemus(layout: &Layout) -> Vec<Running> {
    let mut found = Vec::new();
    for (node, processes) in everywhere(layout) {
        for process in processes.iter().filter(|one| one.is_guest() && !one.has_ended()) {
            if let Some(qemu) = Qemu::of(process.pid) {
                let (pid, stopped) = (process.pid, process.state == 'T');
                found.push(Running { qemu, pid, node: node.clone(), stopped });
            }
        }
    }
    found
}

/// All processes of this machine, with their parents.
type Snapshot = BTreeMap<i32, (i32, Inside)>;

fn snapshot() -> Snapshot {
    pids().into_iter().filter_map(|pid| Some((pid, read(pid)?))).collect()
}

fn came_from(init: i32, all: &Snapshot) -> Vec<Inside> {
    let mut inside = BTreeSet::from([init]);
    loop {
        let before = inside.len();
        let children = all.iter().filter(|(_, (parent, _))| inside.contains(parent));
        let children: Vec<i32> = children.map(|(pid, _)| *pid).collect();
        inside.extend(children);
        if inside.len() == before {
            break;
        }
    }
    inside.iter().filter_map(|pid| all.get(pid)).map(|(_, process)| process.clone()).collect()
}

fn read(pid: i32) -> Option<(i32, Inside)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (parent, state) = parent_and_state(&stat)?;
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let words = words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    Some((parent, Inside { pid, state, words }))
}

// The name, in parentheses, may hold anything.
fn parent_and_state(stat: &str) -> Option<(i32, char)> {
    let mut rest = stat.rsplit_once(')')?.1.split_whitespace();
    let state = rest.next()?.chars().next()?;
    Some((rest.next()?.parse().ok()?, state))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_with_an_odd_name_has_its_parent_and_state() {
        assert_eq!(parent_and_state("12 (a) b) T 7 12 12 0"), Some((7, 'T')));
        assert_eq!(parent_and_state("12"), None);
    }

    #[test]
    fn agent_and_guard_are_told_by_their_first_word() {
        let process = |words: &[&str]| Inside {
            pid: 1,
            state: 'S',
            words: words.iter().map(|word| (*word).to_owned()).collect(),
        };
        assert!(process(&["discovery", "agent"]).is_discovery("agent"));
        assert!(process(&["/usr/bin/discovery", "guard", "-v"]).is_discovery("guard"));
        assert!(!process(&["discovery", "agent"]).is_discovery("guard"));
        assert!(!process(&["sh", "-c", "discovery agent"]).is_discovery("agent"));
        assert!(process(&["/usr/bin/qemu-system-x86_64", "-S"]).is_guest());
    }
}
