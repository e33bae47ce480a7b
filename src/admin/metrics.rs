//! The metrics page, made anew from the board and the rims' counters each time it is read.

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::agent::snapshot::{Board, CounterSource, Snapshot};

/// What every name begins with.
const PREFIX: &str = "discovery";

/// The page.
///
/// # Errors
/// Only when memory cannot hold it.
pub(super) fn text(board: &Board, sources: &[Arc<dyn CounterSource>]) -> Result<String, Error> {
    let snapshot = board.snapshot();
    let mut counters = snapshot.counters.clone();
    counters.extend(sources.iter().flat_map(|source| source.counters()));
    let age = board.heartbeat_age().map(|age| age.as_secs_f64());
    let mut registry = Registry::with_prefix(PREFIX);
    let version = vec![("version", snapshot.version.clone()), ("node", snapshot.node.clone())];
    registry.register("build", "The agent's version, and its node", Info::new(version));
    register_families(&mut registry, &snapshot);
    registry.register_collector(Box::new(Numbers { snapshot, counters, age }));
    // The process's own numbers have the names that every exporter gives them, without our prefix.
    let mut process = Registry::default();
    process.register_collector(Box::new(Process));
    let mut page = String::new();
    encode_registry(&mut page, &registry)?;
    encode_registry(&mut page, &process)?;
    encode_eof(&mut page)?;
    Ok(page)
}

/// What the kernel says of this process.
#[derive(Debug)]
struct Process;

/// Clock ticks in `/proc/self/stat`, per second: USER_HZ, which Linux fixes for all of user space.
const USER_HZ: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        if let Some(bytes) = resident_memory() {
            let gauge = ConstGauge::new(bytes);
            let help = "Resident memory of the agent";
            let kind = gauge.metric_type();
            let metric = encoder.encode_descriptor(
                "process_resident_memory",
                help,
                Some(&Unit::Bytes),
                kind,
            )?;
            gauge.encode(metric)?;
        }
        if let Some(seconds) = processor_time() {
            let counter = ConstCounter::new(seconds);
            let help = "Processor time that the agent has used";
            let kind = counter.metric_type();
            let metric =
                encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), kind)?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// Bytes.
fn resident_memory() -> Option<f64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.split_whitespace().next()?.parse().ok()?;
    Some(kib * 1024.0)
}

/// Seconds, in user space and in the kernel.
fn processor_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command's name in parentheses and may hold spaces; `utime` and `stime` are
    // the fields 14 and 15, so the 12th and 13th behind it (proc_pid_stat(5)).
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let kernel: f64 = fields.next()?.parse().ok()?;
    Some((user + kernel) / USER_HZ)
}

type Label = Vec<(&'static str, String)>;

/// What is told with a label.
fn register_families(registry: &mut Registry, snapshot: &Snapshot) {
    let family = |registry: &mut Registry, name: &str, help: &str| {
        let family = Family::<Label, Gauge>::default();
        registry.register(name, help, family.clone());
        family
    };
    let parts = family(registry, "part_ready", "Whether a part of the agent works (1) or not (0)");
    for (name, part) in &snapshot.parts {
        parts.get_or_create(&vec![("part", name.clone())]).set(part.ready.into());
    }
    let peers = family(registry, "peers", "Known peers by what membership says of them");
    for peer in &snapshot.peers {
        peers.get_or_create(&vec![("state", peer.state.clone())]).inc();
    }
    let vms = family(registry, "vms", "VMs on this node by what they are meant to do");
    for vm in &snapshot.vms {
        let goal = format!("{:?}", vm.goal).to_lowercase();
        vms.get_or_create(&vec![("goal", goal)]).inc();
    }
}

/// Single numbers.
#[derive(Debug)]
struct Numbers {
    snapshot: Arc<Snapshot>,
    counters: BTreeMap<String, u64>,
    /// Seconds since the driver's loop went round.
    age: Option<f64>,
}

impl Collector for Numbers {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), Error> {
        let mut gauge = |name: &str, help: &str, unit: Option<Unit>, value: f64| {
            let gauge = ConstGauge::new(value);
            let metric =
                encoder.encode_descriptor(name, help, unit.as_ref(), gauge.metric_type())?;
            gauge.encode(metric)
        };
        if let Some(age) = self.age {
            gauge(
                "loop_heartbeat_age",
                "Since the agent's loop last went round",
                Some(Unit::Seconds),
                age,
            )?;
        }
        let snapshot = &self.snapshot;
        let count = |number: usize| u32::try_from(number).map_or(f64::INFINITY, f64::from);
        gauge(
            "ves_handled",
            "Virtual environments that this agent handles",
            None,
            count(snapshot.ves.len()),
        )?;
        gauge(
            "partitions",
            "Scheduling partitions that this node is in",
            None,
            count(snapshot.partitions.len()),
        )?;
        gauge(
            "reservations",
            "VMs that room is kept for on this node",
            None,
            count(snapshot.reservations.len()),
        )?;
        if let Some(host) = &snapshot.host {
            gauge("vms_running", "VMs that run on this node", None, f64::from(host.running))?;
            gauge("gateway", "Whether this agent is a gateway", None, f64::from(host.gateway))?;
            for (name, help, resources) in [
                ("allocatable", "What VMs may use on this node", &host.allocatable),
                ("allocated", "What VMs use on this node or were promised", &host.allocated),
            ] {
                let memory = format!("memory_{name}");
                gauge(&memory, help, Some(Unit::Bytes), resources.memory as f64)?;
                let cpus = format!("cpus_{name}");
                gauge(&cpus, help, None, resources.cpu_milli as f64 / 1000.0)?;
            }
        }
        for (name, value) in &snapshot.gauges {
            let (name, unit) = split_unit(name);
            gauge(name, &sentence(name), unit, *value)?;
        }
        for (name, value) in &self.counters {
            let (name, unit) = split_unit(name);
            let help = format!("{} since the agent's start", sentence(name));
            let counter = ConstCounter::new(*value);
            let metric =
                encoder.encode_descriptor(name, &help, unit.as_ref(), counter.metric_type())?;
            counter.encode(metric)?;
        }
        Ok(())
    }
}

/// A name's unit, which OpenMetrics tells apart.
fn split_unit(name: &str) -> (&str, Option<Unit>) {
    if let Some(name) = name.strip_suffix("_bytes") {
        (name, Some(Unit::Bytes))
    } else if let Some(name) = name.strip_suffix("_seconds") {
        (name, Some(Unit::Seconds))
    } else {
        (name, None)
    }
}

/// A name as words.
fn sentence(name: &str) -> String {
    name.replace('_', " ")
}
