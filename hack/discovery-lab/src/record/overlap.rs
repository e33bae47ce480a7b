//! From a recording to the instances of each VM: when two ran at once, and when none did.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::{BufRead as _, BufReader},
    path::Path,
};

use serde::Serialize;

use super::{Line, Source};
use crate::error::{AtPath, LabError, Result};

/// A QEMU process that counts as an instance of its VM (see the head of the room for what does).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Instance {
    /// The domain's uuid.
    pub vm: String,
    /// The domain's name.
    pub name: String,
    /// As the host numbers it.
    pub pid: i32,
    /// The lab's node.
    pub node: Option<String>,
    /// Since when it is an instance.
    pub from_ns: u64,
    /// When it had ended; none if it had not when the recording did.
    pub to_ns: Option<u64>,
    /// When its guest began to run, if that was seen.
    pub runs_ns: Option<u64>,
    /// Whether it came by a migration.
    pub incoming: bool,
}

/// A stretch of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Stretch {
    /// Its beginning.
    pub from_ns: u64,
    /// Its end.
    pub to_ns: u64,
}

/// What became of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fate {
    /// The domain's uuid.
    pub vm: String,
    /// The domain's name.
    pub name: String,
    /// By their beginning.
    pub instances: Vec<Instance>,
    /// When two or more ran, each as long as it lasted.
    pub overlaps: Vec<Stretch>,
    /// When none ran, between two that did.
    pub gaps: Vec<Stretch>,
}

/// A recording, read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recording {
    /// All instances, those of one VM by their beginning.
    pub instances: Vec<Instance>,
    /// From its first line to its last.
    pub from_ns: u64,
    /// The same.
    pub to_ns: u64,
    /// Targets of migrations that never ran.
    pub idle_targets: usize,
    /// Why this recording may have missed something; empty when it has not.
    pub holes: BTreeSet<String>,
    /// Whether starts were looked for, since the kernel would not tell: then shorter lives are missed.
    pub scanned: bool,
}

impl Stretch {
    fn length_ns(&self) -> u64 {
        self.to_ns - self.from_ns
    }
}

impl Recording {
    /// Reads a file. Its last line may be half written: the recorder was killed, or is at it.
    pub fn read(path: &Path) -> Result<Self> {
        let mut lines = Vec::new();
        let mut bad = None;
        for (at, text) in BufReader::new(File::open(path).at(path)?).lines().enumerate() {
            if let Some(detail) = bad.take() {
                return Err(LabError::Unexpected { what: path.display().to_string(), detail });
            }
            match serde_json::from_str(&text.at(path)?) {
                Ok(line) => lines.push(line),
                Err(error) => bad = Some(format!("line {}: {error}", at + 1)),
            }
        }
        Ok(Self::of(&lines))
    }

    /// Of these lines.
    pub fn of(lines: &[Line]) -> Self {
        /// A recorder that says nothing for as long was not there.
        const SILENCE_NS: u64 = 3_000_000_000;
        let mut recording = Self::default();
        let mut open: BTreeMap<u64, Instance> = BTreeMap::new();
        let mut idle: BTreeMap<u64, Instance> = BTreeMap::new();
        let mut last = None;
        for line in lines {
            let at_ns = line.at_ns();
            match line {
                Line::Recorder { source, .. } => {
                    recording.from_ns = at_ns;
                    recording.scanned = *source == Source::Scan;
                }
                Line::Start { process, vm, name, pid, node, incoming, .. } => {
                    let instance = Instance {
                        vm: vm.clone(),
                        name: name.clone(),
                        pid: *pid,
                        node: node.clone(),
                        from_ns: at_ns,
                        to_ns: None,
                        runs_ns: None,
                        incoming: *incoming,
                    };
                    let place = if *incoming { &mut idle } else { &mut open };
                    place.insert(*process, instance);
                }
                Line::Runs { process, .. } => {
                    if let Some(target) = idle.remove(process) {
                        open.insert(*process, Instance { from_ns: at_ns, ..target });
                    }
                    if let Some(instance) = open.get_mut(process) {
                        instance.runs_ns = Some(at_ns);
                    }
                }
                Line::End { process, .. } => {
                    if let Some(instance) = open.get_mut(process) {
                        instance.to_ns = Some(at_ns);
                    }
                }
                Line::Alive { .. } => {}
                Line::Lost { .. } => {
                    recording.holes.insert("the kernel told more than was taken".into());
                }
            }
            // Starts and runs are dated back: the recorder's own time only goes on with the others.
            if !matches!(line, Line::Start { .. } | Line::Runs { .. }) {
                let silence = at_ns.saturating_sub(last.replace(at_ns).unwrap_or(at_ns));
                if silence > SILENCE_NS {
                    let why = format!("the recorder was silent for {} s", silence / 1_000_000_000);
                    recording.holes.insert(why);
                }
                recording.to_ns = recording.to_ns.max(at_ns);
            }
        }
        recording.idle_targets = idle.len();
        recording.instances = open.into_values().collect();
        recording.instances.sort_by_key(|one| (one.vm.clone(), one.from_ns));
        recording
    }

    /// What became of each VM.
    pub fn fates(&self) -> Vec<Fate> {
        let mut by_vm: BTreeMap<&str, Vec<Instance>> = BTreeMap::new();
        for instance in &self.instances {
            by_vm.entry(&instance.vm).or_default().push(instance.clone());
        }
        by_vm.into_values().map(|instances| fate(instances, self.to_ns)).collect()
    }

    /// Whether it is shown that no VM ran twice.
    pub fn is_clean(&self) -> bool {
        self.holes.is_empty() && self.fates().iter().all(|fate| fate.overlaps.is_empty())
    }

    /// For people.
    pub fn report(&self) -> String {
        let fates = self.fates();
        let mut text = format!(
            "{:<36} {:>9} {:>14} {:>14} {:>5} {:>13}\n",
            "VM", "instances", "overlap sum ms", "overlap max ms", "gaps", "gap max ms"
        );
        for fate in &fates {
            let name = if fate.name.is_empty() { &fate.vm } else { &fate.name };
            // Writing into a string does not fail.
            let _ = writeln!(
                text,
                "{name:<36} {:>9} {:>14.3} {:>14.3} {:>5} {:>13.3}",
                fate.instances.len(),
                ms(sum_ns(&fate.overlaps)),
                ms(max_ns(&fate.overlaps)),
                fate.gaps.len(),
                ms(max_ns(&fate.gaps)),
            );
            for overlap in &fate.overlaps {
                let there = fate.instances.iter().filter(|one| {
                    one.from_ns < overlap.to_ns && one.to_ns.is_none_or(|to| to > overlap.from_ns)
                });
                let there: Vec<String> = there.map(Instance::place).collect();
                let _ = writeln!(
                    text,
                    "  TWICE for {:.3} ms from {} ns: {}",
                    ms(overlap.length_ns()),
                    overlap.from_ns,
                    there.join(" and ")
                );
            }
        }
        if self.scanned {
            text.push_str(
                "NOTE: the kernel refused its proc connector; starts were looked for every 20 ms\n",
            );
        }
        for hole in &self.holes {
            let _ = writeln!(text, "NOT SHOWN: {hole}");
        }
        let all: Vec<Stretch> = fates.iter().flat_map(|fate| fate.overlaps.clone()).collect();
        let _ = writeln!(
            text,
            "{} instances of {} VMs in {:.0} s ({} targets of migrations never ran): overlap {:.3} ms in all, {:.3} ms at most",
            self.instances.len(),
            fates.len(),
            (self.to_ns.saturating_sub(self.from_ns)) as f64 / 1e9,
            self.idle_targets,
            ms(sum_ns(&all)),
            ms(max_ns(&all)),
        );
        text
    }
}

impl Instance {
    fn place(&self) -> String {
        format!("pid {} on {}", self.pid, self.node.as_deref().unwrap_or("no node of this lab"))
    }
}

/// Nanoseconds in milliseconds.
pub fn ms(ns: u64) -> f64 {
    ns as f64 / 1e6
}

/// Of all these stretches.
pub fn sum_ns(stretches: &[Stretch]) -> u64 {
    stretches.iter().map(Stretch::length_ns).sum()
}

/// The longest of them.
pub fn max_ns(stretches: &[Stretch]) -> u64 {
    stretches.iter().map(Stretch::length_ns).max().unwrap_or(0)
}

// Sweeps over the instances' beginnings and ends, counting. An end and a beginning at the same nanosecond do not overlap.
fn fate(mut instances: Vec<Instance>, until_ns: u64) -> Fate {
    instances.sort_by_key(|one| one.from_ns);
    let mut edges: Vec<(u64, i32)> = Vec::new();
    for one in &instances {
        edges.push((one.from_ns, 1));
        edges.push((one.to_ns.unwrap_or(until_ns).max(one.from_ns), -1));
    }
    // Ends (-1) before beginnings (+1).
    edges.sort_unstable();
    let (mut count, mut twice_since, mut none_since) = (0, None, None);
    let (mut overlaps, mut gaps) = (Vec::new(), Vec::new());
    for (at, change) in edges {
        let before = count;
        count += change;
        let stretch = |from_ns: u64| Some(Stretch { from_ns, to_ns: at });
        match (before, count) {
            (1, 2) => twice_since = Some(at),
            (2, 1) => overlaps.extend(twice_since.take().and_then(stretch)),
            (1, 0) => none_since = Some(at),
            (0, 1) => gaps.extend(none_since.take().and_then(stretch)),
            _ => {}
        }
    }
    for stretches in [&mut overlaps, &mut gaps] {
        stretches.retain(|stretch: &Stretch| stretch.length_ns() > 0);
    }
    let first = instances.first();
    let (vm, name) = first.map(|one| (one.vm.clone(), one.name.clone())).unwrap_or_default();
    Fate { vm, name, instances, overlaps, gaps }
}

#[cfg(test)]
#[path = "overlap_tests.rs"]
mod tests;
