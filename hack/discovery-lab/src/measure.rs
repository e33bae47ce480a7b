//! How long a VM is away, and whether it is ever there twice: a node loses its power, or is cut off while its guests live on, or the guest is killed, many times.
//!
//! From outside, in the recorder's times: when the old instance ended, when the new one was started, and when its guest
//! ran. How that time is made up is told by the agents' own log lines (see [`steps`]).

mod migration;
mod steps;
mod tape;
mod untouched;

use std::{
    fmt::Write as _,
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;

pub use migration::{Death, Fate, Moment, Victim};
pub use steps::Steps;
pub use tape::Tape;
pub use untouched::Untouched;

use crate::{
    error::{LabError, Result},
    lab::Lab,
    nemesis::{Fault, Ves, Wanted, percentile, qemus},
    process::wait_for,
    record::{boottime_ns, overlap::Instance},
};

const NAMESPACE: &str = "measure";
/// The one VM that is measured, as its domain is called.
const VM: &str = "measure.ve0-web-0";
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// A guest that crashes after less than this time is made to wait before it is started again.
const CALM: Duration = Duration::from_secs(62);
/// From a started QEMU to a guest whose processors run; some seconds on a busy host.
const RUNS_WITHIN: Duration = Duration::from_secs(60);
/// From a running guest to the agents' log lines of it: a report to the VM's handler.
const TOLD_WITHIN: Duration = Duration::from_secs(10);

/// What befalls the node that holds the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loss {
    /// Its power.
    Power,
    /// Its network; its guests live on.
    Cut,
    /// Nothing: only the guest is killed.
    Crash,
}

/// What is to be measured.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Measurement {
    /// What befalls it.
    pub loss: Loss,
    /// How often.
    pub times: usize,
    /// Whether the API server is away meanwhile.
    pub api_stopped: bool,
    /// A replacement that does not run by then never will.
    #[serde(skip)]
    pub deadline: Duration,
}

/// One time. Seconds since the fault, except where it says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Sample {
    /// The node that was lost.
    pub from: String,
    /// Where the VM ran next.
    pub to: String,
    /// When the old instance had ended.
    pub ended_s: f64,
    /// When the new one was started.
    pub started_s: f64,
    /// When its guest ran.
    pub running_s: f64,
    /// From the end of the old one to the start of the new one, seconds; negative is an overlap.
    pub gap_s: f64,
    /// The agents' own account.
    pub steps: Steps,
}

impl Lab {
    /// Measures, one loss after the other, each on a lab that is whole. The environment is deleted afterwards.
    pub fn measure_loss(&self, wanted: Measurement) -> Result<Vec<Sample>> {
        let ves = Ves::new(NAMESPACE, 1);
        self.heal_all()?;
        let tape = Tape::begin(self, &self.layout.logs().join("measure.jsonl"))?;
        ves.apply(self)?;
        let result = self.measure_all(wanted, &ves, &tape);
        // All of it is tried, whatever failed before.
        let healed = self.heal_all();
        let deleted = ves.delete(self);
        let samples = result?;
        healed?;
        deleted?;
        let recording = tape.end()?;
        if !recording.is_clean() {
            return Err(LabError::Twice(recording.report()));
        }
        Ok(samples)
    }

    fn measure_all(&self, wanted: Measurement, ves: &Ves, tape: &Tape<'_>) -> Result<Vec<Sample>> {
        let all = Wanted::now(self, ves)?;
        let mut samples = Vec::new();
        for number in 1..=wanted.times {
            self.until_whole(&all, wanted.deadline)?;
            if wanted.loss == Loss::Crash {
                thread::sleep(CALM);
            }
            let sample = self.lose(wanted, tape)?;
            self.say(&format!(
                "{number} of {}: {} -> {}: ended after {:.3} s, started after {:.3} s, running after {:.3} s",
                wanted.times, sample.from, sample.to, sample.ended_s, sample.started_s, sample.running_s
            ));
            samples.push(sample);
            for healed in self.heal_all()? {
                self.say(&format!("  {healed}"));
            }
        }
        self.until_whole(&all, wanted.deadline)?;
        Ok(samples)
    }

    fn until_whole(&self, all: &Wanted<'_>, within: Duration) -> Result<()> {
        let mut missing = Vec::new();
        wait_for("everything to be whole", within, "", || {
            missing = all.missing();
            missing.is_empty() || {
                thread::sleep(LOOK_EVERY);
                false
            }
        })
        .map_err(|_| LabError::NotWhole {
            when: "between two losses".into(),
            within,
            missing,
        })
    }

    fn lose(&self, wanted: Measurement, tape: &Tape<'_>) -> Result<Sample> {
        let running = qemus(&self.layout);
        let vm = running.into_iter().find(|one| one.qemu.name == VM);
        let old = vm.ok_or_else(|| LabError::NoSuchDomain(VM.into()))?;
        let node = old.node.clone();
        if wanted.api_stopped {
            self.fire(&Fault::ApiServer)?;
        }
        let at_ns = boottime_ns();
        let fired = match wanted.loss {
            Loss::Power => self.fire(&Fault::Power { node: node.clone() })?,
            Loss::Cut => {
                self.fire(&Fault::Cut { node: node.clone(), one_way: None, from: vec![] })?
            }
            Loss::Crash => self.fire(&Fault::Guest { node: node.clone(), vm: Some(VM.into()) })?,
        };
        if fired.already {
            return Err(LabError::NotFired { fault: format!("loss of {node}"), detail: fired.did });
        }
        let again = || {
            let running = qemus(&self.layout);
            let stays = wanted.loss == Loss::Crash;
            running
                .iter()
                .any(|one| one.qemu.name == VM && one.pid != old.pid && (stays || one.node != node))
        };
        wait_for(&format!("{VM} to run again"), wanted.deadline, "is there failover?", || {
            again() || {
                thread::sleep(LOOK_EVERY);
                false
            }
        })?;
        let mut found = None;
        let know = || {
            found = tape.read().ok().and_then(|tape| replaced(&tape.instances, old.pid));
            found.is_some() || {
                thread::sleep(LOOK_EVERY);
                false
            }
        };
        wait_for("the recorder to see it run", RUNS_WITHIN, "see its file", know)?;
        // Waited for.
        let (before, after) = found.ok_or_else(|| LabError::NoSuchDomain(VM.into()))?;
        // A power loss or a crash is when the guest died; a cut is when the cable was taken.
        let at_ns = match wanted.loss {
            Loss::Power | Loss::Crash => before.to_ns.unwrap_or(at_ns),
            Loss::Cut => at_ns,
        };
        let mut steps = Steps::read(&self.layout, VM, &node, at_ns);
        // The kernel tells of the guest sooner than an agent hears of it. Agents that tell nothing are no error.
        let told_by = Instant::now() + TOLD_WITHIN;
        while wanted.loss != Loss::Crash && !steps.have_ended() && Instant::now() < told_by {
            thread::sleep(LOOK_EVERY);
            steps = Steps::read(&self.layout, VM, &node, at_ns);
        }
        Ok(sample(at_ns, &before, &after, steps))
    }
}

// The old instance, which has ended, and the one that runs after it.
fn replaced(instances: &[Instance], old: i32) -> Option<(Instance, Instance)> {
    let ours: Vec<&Instance> = instances.iter().filter(|one| one.name == VM).collect();
    let at = ours.iter().rposition(|one| one.pid == old && one.to_ns.is_some())?;
    let next = ours[at + 1..].iter().find(|one| one.runs_ns.is_some())?;
    Some((ours[at].clone(), (*next).clone()))
}

fn sample(at_ns: u64, before: &Instance, after: &Instance, steps: Steps) -> Sample {
    let since = |ns: u64| (ns as f64 - at_ns as f64) / 1e9;
    let ended_s = since(before.to_ns.unwrap_or(at_ns));
    let started_s = since(after.from_ns);
    let place = |one: &Instance| one.node.clone().unwrap_or_default();
    Sample {
        from: place(before),
        to: place(after),
        ended_s,
        started_s,
        running_s: since(after.runs_ns.unwrap_or(after.from_ns)),
        gap_s: started_s - ended_s,
        steps,
    }
}

/// Half of the times, 95 % of them, all.
pub fn table(samples: &[Sample]) -> String {
    let mut text = format!(
        "{:<34} {:>5} {:>8} {:>8} {:>8} {:>8}\n",
        "seconds", "times", "min", "p50", "p95", "max"
    );
    let mut line = |name: &str, values: Vec<f64>| {
        let shown = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.3}"));
        let least = values.iter().copied().reduce(f64::min);
        let [p50, p95, max] = [50, 95, 100].map(|percent| shown(percentile(&values, percent)));
        // Writing into a string does not fail.
        let _ = writeln!(
            text,
            "{name:<34} {:>5} {:>8} {p50:>8} {p95:>8} {max:>8}",
            values.len(),
            shown(least)
        );
    };
    let of = |value: fn(&Sample) -> f64| samples.iter().map(value).collect::<Vec<f64>>();
    line("loss -> old instance ended", of(|one| one.ended_s));
    line("loss -> new instance started", of(|one| one.started_s));
    line("loss -> new guest runs", of(|one| one.running_s));
    line("gap between the two", of(|one| one.gap_s));
    for (name, value) in Steps::PARTS {
        line(name, samples.iter().filter_map(|one| value(&one.steps, one.running_s)).collect());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(pid: i32, from_s: u64, to_s: Option<u64>, runs_s: Option<u64>) -> Instance {
        let ns = |s: u64| s * 1_000_000_000;
        Instance {
            vm: "u".into(),
            name: VM.into(),
            pid,
            node: Some(format!("n{pid}")),
            from_ns: ns(from_s),
            to_ns: to_s.map(ns),
            runs_ns: runs_s.map(ns),
            incoming: false,
        }
    }

    #[test]
    fn a_replacement_is_the_next_instance_that_runs() {
        let mut all = vec![instance(1, 1, Some(10), Some(2)), instance(2, 18, None, None)];
        assert_eq!(replaced(&all, 1), None, "it does not run yet");
        all[1].runs_ns = Some(20_000_000_000);
        let (old, new) = replaced(&all, 1).expect("it runs");
        let sample = sample(9_000_000_000, &old, &new, Steps::default());
        assert_eq!((sample.ended_s, sample.started_s, sample.running_s), (1.0, 9.0, 11.0));
        assert_eq!((sample.gap_s, sample.from.as_str(), sample.to.as_str()), (8.0, "n1", "n2"));
        assert!(table(&[sample]).contains("gap between the two"));
    }

    #[test]
    fn an_instance_that_has_not_ended_is_not_replaced() {
        let all = [instance(1, 1, None, Some(2)), instance(2, 18, None, Some(20))];
        assert_eq!(replaced(&all, 1), None, "that is an overlap, and the recording says so");
    }
}
