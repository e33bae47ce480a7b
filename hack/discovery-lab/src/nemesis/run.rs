//! Many faults, one or two at a time, on a lab that must be whole again after each.

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use super::{Fault, Kind, Report, Row, Ves, Wanted, active, inside, plan, qemus};
use crate::{
    error::{LabError, Result},
    lab::Lab,
    measure::Tape,
    node,
    process::wait_for,
    record::{boottime_ns, overlap},
};

/// The namespace of a run's environments.
const NAMESPACE: &str = "nemesis";
/// How often it is looked whether all is whole.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// For how long all must look whole.
const STAYS: Duration = Duration::from_secs(2);
/// How often it is said what is still waited for.
const SAY_EVERY: Duration = Duration::from_secs(20);
/// What a run is to do.
#[derive(Debug, Clone)]
pub struct Run {
    /// How many faults, at least.
    pub faults: usize,
    /// What it is planned from.
    pub seed: u64,
    /// How many nodes the lab must have.
    pub nodes: usize,
    /// How many environments.
    pub ves: usize,
    /// Which kinds; empty: all that this lab and this product know.
    pub kinds: Vec<Kind>,
    /// The product does not run VMs of a dead node elsewhere: they wait for its return.
    pub without_failover: bool,
    /// From the end of a fault until all must be whole.
    pub deadline: Duration,
    /// Goes on after a fault from which the lab did not recover.
    pub keep_going: bool,
}

struct Going<'a> {
    lab: &'a Lab,
    run: &'a Run,
    wanted: Wanted<'a>,
    report: Report,
}

impl Lab {
    /// Runs it, and tells what was seen. The record of all guests is kept with the logs.
    pub fn nemesis_run(&self, run: &Run) -> Result<Report> {
        let nodes = self.nodes_for(run)?;
        let kinds = self.kinds_for(run)?;
        let rounds = plan::plan(run.seed, run.faults, &nodes, &kinds);
        let ves = Ves::new(NAMESPACE, run.ves);
        let names: Vec<&str> = kinds.iter().map(|kind| kind.name()).collect();
        self.say(&format!("seed {}: {} faults of {}", run.seed, run.faults, names.join(", ")));
        self.say(&ves.cost(nodes.len()));
        for healed in self.heal_all()? {
            self.say(&format!("left from before: {healed}"));
        }
        let tape = Tape::begin(self, &self.record_of(run))?;
        self.say("applying the environments");
        ves.apply(self)?;
        let wanted = Wanted::now(self, &ves)?;
        let mut going = Going { lab: self, run, wanted, report: Report::new(run) };
        let result = going.through(&rounds);
        if let Err(error) = result {
            going.report.failures.push(error.to_string());
        }
        // Whatever happened, no fault outlives its run.
        if let Err(error) = self.heal_all() {
            going.report.failures.push(error.to_string());
        }
        if going.report.failures.is_empty() {
            going.end(&ves);
        } else {
            self.say("the environments are left as they are, to be looked at");
        }
        going.report.judge(&tape.end()?);
        Ok(going.report)
    }

    /// Where a run's record of guests lies.
    pub fn record_of(&self, run: &Run) -> PathBuf {
        self.layout.logs().join(format!("nemesis-{}.jsonl", run.seed))
    }

    fn nodes_for(&self, run: &Run) -> Result<Vec<String>> {
        let on: Vec<String> = node::all(&self.layout)
            .into_iter()
            .filter(|node| node.init().is_some())
            .map(|node| node.name)
            .collect();
        if on.len() < run.nodes {
            return Err(LabError::NotReadyFor {
                what: format!("a run on {} nodes", run.nodes),
                detail: format!(
                    "{} are on: hack/lab up --nodes {} --disk-mib 4096",
                    on.len(),
                    run.nodes
                ),
            });
        }
        let agents = ["get", "daemonset/discovery-agent", "--namespace", crate::product::NAMESPACE];
        self.kubectl(&agents).map_err(|error| LabError::NotReadyFor {
            what: "a run".into(),
            detail: format!(
                "the product is not installed (hack/lab install --set 'agent.imageDirs={{/var/lib/discovery-guests}}'): {error}"
            ),
        })?;
        Ok(on[..run.nodes].to_vec())
    }

    // Those that were asked for, or all that can fire here.
    fn kinds_for(&self, run: &Run) -> Result<Vec<Kind>> {
        if !run.kinds.is_empty() {
            return Ok(run.kinds.clone());
        }
        let nodes = node::all(&self.layout);
        let guarded = inside::everywhere(&self.layout)
            .values()
            .all(|inside| inside.iter().any(|process| process.is_discovery("guard")));
        let own_disks = nodes.iter().all(|node| node.has_own_disk());
        let mut kinds = Kind::ALL.to_vec();
        if !guarded {
            self.say("no stall-guard: there is no `discovery guard` on every node");
            kinds.retain(|kind| *kind != Kind::StallGuard);
        }
        if !own_disks {
            self.say("no disk-full: nodes share the host's disk (hack/lab up --disk-mib gives them their own)");
            kinds.retain(|kind| *kind != Kind::DiskFull);
        }
        Ok(kinds)
    }
}

impl Going<'_> {
    fn through(&mut self, rounds: &[plan::Round]) -> Result<()> {
        self.until_whole("everything to run").ok_or_else(|| self.not_whole("before any fault"))?;
        for (number, round) in rounds.iter().enumerate() {
            let what: Vec<String> = round.faults.iter().map(|one| one.fault.to_string()).collect();
            let what = what.join(", and ");
            self.lab.say(&format!("round {} of {}: {what}", number + 1, rounds.len()));
            if let Err(error) = self.one(round) {
                self.report.failures.push(format!("round {} ({what}): {error}", number + 1));
                self.lab.say(&format!("FAILED: {error}"));
                for healed in self.lab.heal_all()? {
                    self.lab.say(&healed);
                }
                if !self.run.keep_going {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn one(&mut self, round: &plan::Round) -> Result<()> {
        let started = Instant::now();
        let first_row = self.report.rows.len();
        let mut fired = Vec::new();
        for one in &round.faults {
            let fault = self.aimed(&one.fault);
            let did = self.lab.fire(&fault)?;
            self.lab.say(&format!("  {fault}: {}", did.did));
            if did.already {
                let detail = "it was so already".into();
                return Err(LabError::NotFired { fault: fault.to_string(), detail });
            }
            self.report.rows.push(Row {
                kind: one.kind,
                fault: fault.to_string(),
                did: did.did,
                with_another: round.faults.len() > 1,
                fired_ns: boottime_ns(),
                replaced_s: None,
                held_s: 0.0,
                whole_s: None,
            });
            fired.push(fault);
        }
        self.hold(round, &fired, first_row, started)?;
        fired.sort_by_key(active::rank);
        for fault in &fired {
            if fault.lasts() {
                let proven = self.lab.prove(fault);
                let healed = self.lab.heal(fault)?;
                proven?;
                self.lab.say(&format!("  {healed}"));
            }
        }
        for row in &mut self.report.rows[first_row..] {
            row.held_s = started.elapsed().as_secs_f64();
        }
        let whole =
            self.until_whole("all to be whole").ok_or_else(|| self.not_whole("after it"))?;
        self.lab.say(&format!("  whole again after {:.1} s", whole.as_secs_f64()));
        for row in &mut self.report.rows[first_row..] {
            row.whole_s = Some(whole.as_secs_f64());
        }
        Ok(())
    }

    // A guest is killed where there is one.
    fn aimed(&self, fault: &Fault) -> Fault {
        let Fault::Guest { node, .. } = fault else { return fault.clone() };
        let running = qemus(&self.lab.layout);
        let on = |name: &str| running.iter().any(|one| one.node == name);
        let node = match running.first() {
            Some(other) if !on(node) => other.node.clone(),
            _ => node.clone(),
        };
        Fault::Guest { node, vm: None }
    }

    // For its time; and until the VMs of nodes that are away run elsewhere, where the product does that.
    fn hold(
        &mut self,
        round: &plan::Round,
        fired: &[Fault],
        first_row: usize,
        started: Instant,
    ) -> Result<()> {
        let hold = match fired.iter().any(Fault::lasts) {
            true => Duration::from_secs(round.hold_s),
            false => Duration::ZERO,
        };
        let away = round.to_be_replaced();
        if !self.run.without_failover && !away.is_empty() {
            let what = format!("the VMs of {} to run elsewhere", away.join(" and "));
            wait_for(
                &what,
                self.run.deadline,
                "is there failover? see --without-failover",
                || {
                    thread::sleep(LOOK_EVERY);
                    self.wanted.without_guest(&away).is_empty()
                },
            )?;
            let replaced = started.elapsed().as_secs_f64();
            self.lab.say(&format!("  they run elsewhere after {replaced:.1} s"));
            for (row, one) in self.report.rows[first_row..].iter_mut().zip(&round.faults) {
                row.replaced_s = one.kind.takes_a_node_away().then_some(replaced);
            }
        }
        thread::sleep(hold.saturating_sub(started.elapsed()));
        Ok(())
    }

    // How long that took; none when it was not so within the deadline.
    fn until_whole(&self, what: &str) -> Option<Duration> {
        let started = Instant::now();
        let mut said = Instant::now();
        let mut whole_since = None;
        loop {
            let missing = self.wanted.missing();
            if missing.is_empty() {
                // What the API server shows may be from before the fault: all must be so, and stay so.
                let since = *whole_since.get_or_insert(started.elapsed());
                if started.elapsed() >= since + STAYS {
                    return Some(since);
                }
                thread::sleep(LOOK_EVERY);
                continue;
            }
            whole_since = None;
            if started.elapsed() > self.run.deadline {
                return None;
            }
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                let more = missing.len() - 1;
                let first = &missing[0];
                self.lab.say(&format!("  waiting for {what}: {first} (and {more} more)"));
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    fn not_whole(&self, when: &str) -> LabError {
        let missing = self.wanted.missing();
        LabError::NotWhole { when: when.into(), within: self.run.deadline, missing }
    }

    // After the last fault: everything goes, and nothing stays.
    fn end(&mut self, ves: &Ves) {
        self.lab.say("deleting the environments, and looking for what is left");
        let deleted = ves.delete(self.lab);
        let gone = wait_for("everything to be gone", self.run.deadline, "", || {
            thread::sleep(LOOK_EVERY);
            self.wanted.left().is_empty()
        });
        if let Err(error) = deleted {
            self.report.failures.push(error.to_string());
        }
        if gone.is_err() {
            self.report.failures.push(format!("left behind: {}", self.wanted.left().join(", ")));
        }
    }
}

impl Report {
    fn new(run: &Run) -> Self {
        Self {
            seed: run.seed,
            wanted: run.faults,
            rows: Vec::new(),
            instances: 0,
            overlap_ms: 0.0,
            overlap_max_ms: 0.0,
            failures: Vec::new(),
        }
    }

    fn judge(&mut self, recording: &overlap::Recording) {
        let twice: Vec<_> = recording.fates().into_iter().flat_map(|fate| fate.overlaps).collect();
        self.instances = recording.instances.len();
        self.overlap_ms = overlap::ms(overlap::sum_ns(&twice));
        self.overlap_max_ms = overlap::ms(overlap::max_ns(&twice));
        if recording.instances.is_empty() {
            self.failures.push("the recorder has seen no guest at all".into());
        }
        self.failures.extend(recording.holes.iter().map(|hole| format!("not shown: {hole}")));
    }
}
