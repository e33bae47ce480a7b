//! `replay`: what agents would decide next, from dumps of what they believe.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use discovery::engine::time::Instant;
use discovery::sim::datacenter::catalogue::{Knob, Name, simulate};
use discovery::sim::datacenter::run::Setup;
use discovery::sim::workload::{LoadEvent, NodeShape, Sites, VmShape, Workload};
use serde_json::Value;

use super::options::Replay;

/// The policy's own chance: the same dumps give the same answer.
const SEED: u64 = 1;
/// Dirtying of memory is not in a dump: the least class of the literature.
const DIRTY_CLASS: u32 = 10;
/// Dumps of one VM at two nodes happen while it moves; the one that runs it counts.
const RUNS: [&str; 2] = ["Running", "Migrating"];

/// One node, as its agent describes it.
#[derive(Debug, PartialEq)]
struct Node {
    name: String,
    shape: NodeShape,
    vms: Vec<Vm>,
}

#[derive(Debug, PartialEq)]
struct Vm {
    name: String,
    shape: VmShape,
    load: u32,
}

/// Reads the dumps, runs the policy, tells the moves.
pub fn run(options: &Replay) -> Result<ExitCode, String> {
    let mut nodes = Vec::new();
    for path in &options.dumps {
        nodes.push(read(path).map_err(|problem| format!("{}: {problem}", path.display()))?);
    }
    nodes.sort_by(|a, b| a.name.cmp(&b.name));
    let names: BTreeSet<&String> = nodes.iter().map(|node| &node.name).collect();
    if names.len() != nodes.len() {
        return Err("two dumps are of the same node: give one for each".to_owned());
    }
    if nodes.len() < 2 {
        return Err("one node has nobody to hand a VM to: give a dump of each node".to_owned());
    }
    let workload = workload(&nodes, options.seconds);
    let setup = Setup { workload: &workload, seed: SEED, loss: 0.0, progress: &mut |_| {} };
    let knob = Knob { threshold_s: options.threshold, look_every: Duration::ZERO };
    let ended = simulate(Name::Discovery, knob, setup);
    tell(&nodes, &workload, |vm| ended.fleet.vm(vm).node);
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> Result<Node, String> {
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let dump: Value =
        serde_json::from_str(&text).map_err(|error| format!("is no JSON: {error}"))?;
    node(&dump)
}

/// A node from what its agent serves.
fn node(dump: &Value) -> Result<Node, String> {
    let text = |value: &Value, field: &str| {
        let found = value[field].as_str().map(str::to_owned);
        found.ok_or_else(|| format!("{field} is missing: is it what /debug/engine serves?"))
    };
    let number = |value: &Value, pointer: &str| {
        let found = value.pointer(pointer).and_then(Value::as_f64);
        found
            .filter(|n| n.is_finite() && *n >= 0.0)
            .ok_or_else(|| format!("{pointer} is no number"))
    };
    let capacity = number(dump, "/gauges/load_capacity_processors")? * 100.0;
    let memory = number(dump, "/host/allocatable/memory")?;
    let shape = NodeShape { capacity: capacity as u32, memory_mib: mib(memory) };
    let mut vms = Vec::new();
    for vm in dump["vms"].as_array().into_iter().flatten() {
        let runs = vm["phase"].as_str().is_some_and(|phase| RUNS.contains(&phase));
        if !runs {
            continue;
        }
        let shape = VmShape {
            vcpus: number(vm, "/cpus")? as u32,
            memory_mib: mib(number(vm, "/memory")?),
            dirty_class: DIRTY_CLASS,
        };
        // One that has just started is not judged by its load yet.
        let load = vm["load_percent"].as_f64().unwrap_or(0.0).max(0.0) as u32;
        vms.push(Vm { name: text(vm, "domain_name")?, shape, load });
    }
    Ok(Node { name: text(dump, "node")?, shape, vms })
}

fn mib(bytes: f64) -> u32 {
    (bytes / f64::from(1 << 20)) as u32
}

/// These nodes with these loads from the first moment on. All nodes of a simulated data centre are alike: they are as
/// the smallest of them.
fn workload(nodes: &[Node], seconds: u64) -> Workload {
    let least = |of: fn(&NodeShape) -> u32| nodes.iter().map(|n| of(&n.shape)).min().unwrap_or(0);
    let node = NodeShape { capacity: least(|n| n.capacity), memory_mib: least(|n| n.memory_mib) };
    let all =
        || (0..).zip(nodes).flat_map(|(index, node)| node.vms.iter().map(move |vm| (index, vm)));
    let event = |(vm, (_, is)): (u32, (u32, &Vm))| LoadEvent { at: Instant(1), vm, load: is.load };
    Workload {
        name: "replay",
        node,
        sites: Sites::one(nodes.len() as u32),
        vms: all().map(|(_, vm)| vm.shape).collect(),
        placement: all().map(|(node, _)| node).collect(),
        events: (0..).zip(all()).map(event).collect(),
        incidents: Vec::new(),
        end: Instant(seconds * 1_000_000),
    }
}

fn tell(nodes: &[Node], workload: &Workload, node_of: impl Fn(u32) -> u32) {
    let vms: Vec<&Vm> = nodes.iter().flat_map(|node| &node.vms).collect();
    let mut after: BTreeMap<u32, u32> = BTreeMap::new();
    for (index, vm) in (0..).zip(&vms) {
        *after.entry(node_of(index)).or_default() += vm.load;
    }
    println!("node                 capacity  load now  load then");
    for (index, node) in (0..).zip(nodes) {
        let now: u32 = node.vms.iter().map(|vm| vm.load).sum();
        let then = after.get(&index).copied().unwrap_or(0);
        let over = if now > workload.node.capacity { "  overloaded" } else { "" };
        println!("{:<20} {:>8} {now:>9} {then:>10}{over}", node.name, node.shape.capacity);
    }
    let mut moves = 0;
    for (index, (vm, from)) in (0..).zip(vms.iter().zip(&workload.placement)) {
        let to = node_of(index);
        if to != *from {
            moves += 1;
            let name = |node: u32| &nodes[node as usize].name;
            println!("{} would move from {} to {}", vm.name, name(*from), name(to));
        }
    }
    let seconds = workload.end.0 / 1_000_000;
    println!("{moves} moves in {seconds} s, loads in percent of a processor");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn dump(name: &str, loads: &[f64]) -> Value {
        let vm = |(index, load): (usize, &f64)| {
            json!({
                "domain_name": format!("default.{name}-web-{index}"), "phase": "Running", "cpus": 1,
                "memory": 64 << 20, "load_percent": load
            })
        };
        json!({
            "node": name, "gauges": {"load_capacity_processors": 2.0},
            "host": {"allocatable": {"memory": 8_u64 << 30}},
            "vms": loads.iter().enumerate().map(vm).collect::<Vec<_>>()
        })
    }

    #[test]
    fn a_dump_is_read_and_what_is_missing_is_named() {
        let read = node(&dump("n1", &[90.0, 10.0])).expect("it is whole");
        assert_eq!((read.shape.capacity, read.vms.len(), read.vms[0].load), (200, 2, 90));
        let mut broken = dump("n1", &[]);
        broken["gauges"] = json!({});
        assert!(node(&broken).expect_err("no capacity").contains("load_capacity_processors"));
        assert!(node(&json!([])).is_err());
    }

    #[test]
    fn an_overloaded_node_would_hand_a_vm_to_one_that_idles() {
        let nodes = [dump("n1", &[95.0, 95.0, 95.0]), dump("n2", &[5.0])];
        let nodes: Vec<Node> = nodes.iter().map(|dump| node(dump).expect("whole")).collect();
        let workload = workload(&nodes, 120);
        let setup = Setup { workload: &workload, seed: SEED, loss: 0.0, progress: &mut |_| {} };
        let knob = Knob { threshold_s: 6.0, look_every: Duration::ZERO };
        let ended = simulate(Name::Discovery, knob, setup);
        let moved = (0..3).filter(|vm| ended.fleet.vm(*vm).node == 1).count();
        assert!(moved >= 1, "{moved}");
    }
}
