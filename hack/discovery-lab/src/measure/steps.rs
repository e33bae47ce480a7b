//! How a failover's time is made up, as the agents tell it in their logs.
//!
//! What is asked of an agent: log lines (JSON, as the chart has it) of target `failover` with these fields:
//!
//! | field | what |
//! |---|---|
//! | `step` | `suspected`: a peer is asked about · `proven`: its epoch is dead for ever · `placed`: the register says where the VM goes · `started`: its new domain runs |
//! | `node` | the node that was lost |
//! | `vm` | `NAMESPACE/VM`; may be left out of `suspected` and `proven`, which are about a node |
//!
//! Whichever agent says a step first counts. Without such lines the parts are left open.

use std::{collections::BTreeMap, fs, path::PathBuf};

use rustix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};

use crate::{
    layout::{Layout, under},
    node,
    record::boottime_ns,
};

/// A step on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// Somebody asks whether the node lives.
    Suspected,
    /// It may not run the VM any more.
    Proven,
    /// Another node is to run it.
    Placed,
    /// That one does.
    Started,
}

/// When each step was first told, seconds since the fault.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Steps(pub BTreeMap<Step, f64>);

#[derive(Deserialize)]
struct Told {
    timestamp: String,
    target: String,
    step: Step,
    vm: Option<String>,
    node: Option<String>,
}

/// A part of the whole: its name, and how long it took, given when the guest ran.
type Part = (&'static str, fn(&Steps, f64) -> Option<f64>);

impl Steps {
    /// The parts that the time from loss to running guest is made of.
    pub const PARTS: [Part; 4] = [
        ("  detect: loss -> suspected", |steps, _| steps.at(Step::Suspected)),
        ("  prove: suspected -> proven", |steps, _| steps.between(Step::Suspected, Step::Proven)),
        ("  place: proven -> placed", |steps, _| steps.between(Step::Proven, Step::Placed)),
        ("  start: placed -> guest runs", |steps, running| Some(running - steps.at(Step::Placed)?)),
    ];

    /// The last step was told.
    pub fn have_ended(&self) -> bool {
        self.0.contains_key(&Step::Started)
    }

    fn at(&self, step: Step) -> Option<f64> {
        self.0.get(&step).copied()
    }

    fn between(&self, from: Step, to: Step) -> Option<f64> {
        Some(self.at(to)? - self.at(from)?)
    }

    /// From the logs of all agents, on the nodes' disks: what they have told of this VM, or of the loss of this node, since.
    pub fn read(layout: &Layout, vm: &str, lost: &str, since_ns: u64) -> Self {
        let mut steps = Self::default();
        // Log lines have wall time; both clocks run equally fast for as long as this takes.
        let wall = clock_gettime(ClockId::Realtime);
        let wall_ns = wall.tv_sec * 1_000_000_000 + wall.tv_nsec;
        let booted_ns = wall_ns - boottime_ns().cast_signed();
        for file in logs(layout) {
            let text = fs::read_to_string(file).unwrap_or_default();
            for line in text.lines().filter(|line| line.contains("\"failover\"")) {
                let Some((step, wall_ns)) = told(line, vm, lost) else { continue };
                let since = (wall_ns - booted_ns - since_ns.cast_signed()) as f64 / 1e9;
                if since >= 0.0 {
                    let first = steps.0.entry(step).or_insert(since);
                    *first = first.min(since);
                }
            }
        }
        steps
    }
}

fn logs(layout: &Layout) -> Vec<PathBuf> {
    let below = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let pods = |node: &node::Node<'_>| below(under(&layout.node_disk(&node.name), "/var/log/pods"));
    let agents = node::all(layout).iter().flat_map(pods).collect::<Vec<_>>();
    agents.into_iter().flat_map(|pod| below(pod.join("agent"))).collect()
}

// A line as containerd writes it: time, stream, F (whole) or P, and what the agent wrote.
fn told(line: &str, vm: &str, lost: &str) -> Option<(Step, i64)> {
    let told: Told = serde_json::from_str(&line[line.find('{')?..]).ok()?;
    let same_vm = told.vm.as_ref().is_none_or(|name| name.replace('/', ".") == vm);
    let same_node = told.node.as_ref().is_none_or(|node| node == lost);
    let ours = told.target == "failover" && same_vm && same_node;
    ours.then_some((told.step, wall_ns(&told.timestamp)?))
}

/// `2026-01-02T03:04:05.678901Z` in nanoseconds since 1970.
fn wall_ns(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|word| word.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (whole, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut clock = whole.splitn(3, ':').map(|word| word.parse::<i64>().ok());
    let (hour, minute, second) = (clock.next()??, clock.next()??, clock.next()??);
    let nanos: i64 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    // Days since 1970 of the proleptic calendar, with years that begin in March.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = 365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000_000_000 + nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_log_lines_are_read() {
        assert_eq!(wall_ns("1970-01-01T00:00:00Z"), Some(0));
        assert_eq!(wall_ns("2000-02-29T12:00:00.5Z"), Some(951_825_600_500_000_000));
        assert_eq!(wall_ns("2026-11-25T02:13:53.123456Z"), Some(1_795_572_833_123_456_000));
        assert_eq!(wall_ns("yesterday"), None);
    }

    #[test]
    fn a_step_is_told_of_the_vm_or_of_its_node() {
        let line = |fields: &str| {
            format!(
                "2026-01-01T00:00:00.1Z stdout F {{\"timestamp\":\"1970-01-01T00:00:01.000000Z\",\
                 \"level\":\"INFO\",\"message\":\"x\",{fields},\"target\":\"failover\"}}"
            )
        };
        let of = |fields: &str| told(&line(fields), "a.ve-web-0", "n2").map(|(step, _)| step);
        assert_eq!(of("\"step\":\"placed\",\"vm\":\"a/ve-web-0\""), Some(Step::Placed));
        assert_eq!(of("\"step\":\"placed\",\"vm\":\"b/ve-web-0\""), None);
        assert_eq!(of("\"step\":\"suspected\",\"node\":\"n2\""), Some(Step::Suspected));
        assert_eq!(of("\"step\":\"suspected\",\"node\":\"n3\""), None);
        assert_eq!(of("\"step\":\"confused\""), None);
    }

    #[test]
    fn they_have_ended_once_the_new_domain_runs() {
        let mut steps = Steps(BTreeMap::from([(Step::Proven, 9.5), (Step::Placed, 10.0)]));
        assert!(!steps.have_ended());
        steps.0.insert(Step::Started, 11.0);
        assert!(steps.have_ended());
    }

    #[test]
    fn the_parts_add_up_to_the_whole() {
        let steps = Steps(BTreeMap::from([
            (Step::Suspected, 3.0),
            (Step::Proven, 9.5),
            (Step::Placed, 10.0),
        ]));
        let sum: f64 = Steps::PARTS.iter().filter_map(|(_, value)| value(&steps, 13.0)).sum();
        assert_eq!(sum, 13.0);
        assert!(Steps::PARTS.iter().all(|(_, value)| value(&Steps::default(), 13.0).is_none()));
    }
}
