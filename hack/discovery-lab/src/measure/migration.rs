//! Live migrations in the middle of which a node loses its power: the source, the target, or the one that handles them.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::Value;

use super::{LOOK_EVERY, NAMESPACE, Tape, VM};
use crate::{
    error::{LabError, Result},
    lab::Lab,
    nemesis::{Fault, Ves, Wanted, qemus},
    process::wait_for,
    record::{
        boottime_ns,
        overlap::{Instance, Recording},
    },
};

/// The environment of the one VM, as its handler calls it.
const VE: &str = "measure/ve0";
/// Where an agent tells what it believes.
const ENGINE: &str = "http://127.0.0.1:7401/debug/engine";
/// A migration that is to come begins within this time.
const BEGINS_WITHIN: Duration = Duration::from_secs(120);
/// How far into the transfer [`Moment::Late`] is.
const LATE: Duration = Duration::from_millis(400);
/// How often a moment that was over before it was seen is waited for again.
const TRIES: usize = 4;
/// Looks in a row at what the handler believes, on its own node: some steps last for a tenth of a second.
const LOOKS: usize = 50;

/// Who loses its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Victim {
    /// The node that the VM leaves.
    Source,
    /// The node that it goes to.
    Target,
    /// The node of the environment's handler, which may be one of these two.
    Handler,
}

/// When.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, clap::ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Moment {
    /// The target makes ready.
    Preparing,
    /// The source has just got the order to send it.
    Going,
    /// A while later.
    Late,
    /// It was called off in the middle: the source is to say whether it still has it.
    Halting,
    /// It was called off in the middle, and has not left: the target is to forget it.
    Clearing,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::Preparing, Self::Going, Self::Late, Self::Halting, Self::Clearing];

    /// The step of which the handler tells then.
    fn step(self) -> &'static str {
        match self {
            Self::Preparing => "Preparing",
            Self::Going | Self::Late => "Going",
            Self::Halting => "Halting",
            Self::Clearing => "Clearing",
        }
    }

    /// Whether the migration has to be called off for it to come.
    fn is_called_off(self) -> bool {
        matches!(self, Self::Halting | Self::Clearing)
    }
}

/// What has become of the VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// The same guest goes on, where it was or where it went.
    GoesOn,
    /// Its memory was lost with the node that had it; it was started anew.
    Restarted,
}

/// One loss in the middle of a migration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Death {
    /// Who was to be lost.
    pub victim: Victim,
    /// When it was to be.
    pub moment: Moment,
    /// The step that the handler told of just before.
    pub step: String,
    /// From where to where, who handled it, and who was lost.
    pub nodes: [String; 4],
    /// Who had the guest's memory at that moment.
    pub holder: String,
    /// What has become of it.
    pub fate: Fate,
    /// From the loss until one instance of the VM was there, seconds.
    pub settled_s: f64,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [source, target, handler, lost] = &self.nodes;
        let fate = match self.fate {
            Fate::GoesOn => "the same guest goes on",
            Fate::Restarted => "started anew",
        };
        write!(
            f,
            "{:?} lost, {:?} ({}): {source} -> {target}, handled by {handler}, {lost} off, memory on {}: {fate}, after {:.1} s",
            self.victim, self.moment, self.step, self.holder, self.settled_s
        )
    }
}

impl Lab {
    /// Loses source, target and handler at each moment, so many times. That the VM ran twice, or that a guest was started anew
    /// though the node that had its memory lived, is an error.
    pub fn measure_migration(
        &self,
        (rounds, moments): (usize, &[Moment]),
        deadline: Duration,
    ) -> Result<Vec<Death>> {
        let ves = Ves::new(NAMESPACE, 1);
        self.heal_all()?;
        let tape = Tape::begin(self, &self.layout.logs().join("measure-migration.jsonl"))?;
        ves.apply(self)?;
        let result = self.deaths((rounds, moments), deadline, &ves, &tape);
        // All of it is tried, whatever failed before.
        let healed = self.heal_all();
        let opened = self.nodes().iter().try_for_each(|node| self.maintain(node, false));
        let deleted = ves.delete(self);
        let deaths = result?;
        healed?;
        opened?;
        deleted?;
        if deaths.is_empty() {
            let detail = "every migration was over before it was seen: the guest is too small for this machine";
            return Err(LabError::NotFired {
                fault: "loss in a migration".into(),
                detail: detail.into(),
            });
        }
        let recording = tape.end()?;
        if !recording.is_clean() {
            return Err(LabError::Twice(recording.report()));
        }
        Ok(deaths)
    }

    fn deaths(
        &self,
        (rounds, moments): (usize, &[Moment]),
        deadline: Duration,
        ves: &Ves,
        tape: &Tape<'_>,
    ) -> Result<Vec<Death>> {
        let all = Wanted::now(self, ves)?;
        let mut deaths = Vec::new();
        for _ in 0..rounds {
            for victim in [Victim::Source, Victim::Target, Victim::Handler] {
                for &moment in moments {
                    let death = self.lose_in(victim, moment, (&all, deadline), tape)?;
                    match death {
                        Some(death) => {
                            self.say(&death.to_string());
                            deaths.push(death);
                        }
                        None => {
                            let never = "was over each time before it was seen";
                            self.say(&format!("{victim:?} lost, {moment:?}: {never}"));
                        }
                    }
                }
            }
        }
        self.until_whole(&all, deadline)?;
        Ok(deaths)
    }

    fn lose_in(
        &self,
        victim: Victim,
        moment: Moment,
        (all, deadline): (&Wanted<'_>, Duration),
        tape: &Tape<'_>,
    ) -> Result<Option<Death>> {
        for _ in 0..TRIES {
            self.until_whole(all, deadline)?;
            let running = qemus(&self.layout);
            let vm = running.into_iter().find(|one| one.qemu.name == VM);
            let source = vm.ok_or_else(|| LabError::NoSuchDomain(VM.into()))?.node;
            let handler = self.of_status(".handler")?;
            // Somebody looks already when it begins.
            let caught = thread::scope(|scope| {
                let begins = scope.spawn(|| self.maintain(&source, true));
                let caught = self.catch(&handler, moment, &source);
                begins.join().expect("a thread that does not panic")?;
                caught
            });
            let Some((step, target)) = caught? else {
                self.maintain(&source, false)?;
                continue;
            };
            let lost = match victim {
                Victim::Source => source.clone(),
                Victim::Target => target.clone(),
                Victim::Handler => handler.clone(),
            };
            let at_ns = boottime_ns();
            let fired = self.fire(&Fault::Power { node: lost.clone() })?;
            if fired.already {
                let fault = format!("power loss of {lost}");
                return Err(LabError::NotFired { fault, detail: fired.did });
            }
            let leaves = !moment.is_called_off();
            wait_for(&format!("one {VM}"), deadline, "is there failover?", || {
                thread::sleep(LOOK_EVERY);
                let running = qemus(&self.layout);
                let mut ours = running.iter().filter(|one| one.qemu.name == VM);
                let first = ours.next().filter(|one| !leaves || one.node != source);
                let one = first.filter(|one| one.node != lost && ours.next().is_none());
                // A target that waits for a guest is a process, too: its handler tells whether it runs.
                one.is_some_and(|one| self.runs_on(&one.node))
            })?;
            let settled_s = boottime_ns().saturating_sub(at_ns) as f64 / 1e9;
            self.maintain(&source, false)?;
            self.heal_all()?;
            self.until_whole(all, deadline)?;
            let (holder, fate) = judge(&tape.read()?, at_ns, &source);
            let nodes = [source, target, handler, lost];
            let death = Death { victim, moment, step, nodes, holder, fate, settled_s };
            if death.fate == Fate::Restarted && death.holder != death.nodes[3] {
                let what = format!("the VM that {} had", death.holder);
                return Err(LabError::Unexpected { what, detail: death.to_string() });
            }
            return Ok(Some(death));
        }
        Ok(None)
    }

    fn has_it(&self, node: &str) -> bool {
        qemus(&self.layout).iter().any(|one| one.qemu.name == VM && one.node == node)
    }

    fn maintain(&self, node: &str, maintenance: bool) -> Result<()> {
        let patch = format!(r#"{{"spec":{{"maintenance":{maintenance}}}}}"#);
        self.kubectl(&["patch", "physicalnode", node, "--type=merge", "--patch", &patch]).map(drop)
    }

    fn of_status(&self, path: &str) -> Result<String> {
        let path = format!("jsonpath={{.status{path}}}");
        let words =
            ["get", "virtualenvironment", "ve0", "--namespace", NAMESPACE, "--output", &path];
        Ok(self.kubectl(&words)?.trim().to_owned())
    }

    fn runs_on(&self, node: &str) -> bool {
        let is = |path, wanted| self.of_status(path).is_ok_and(|text| text == wanted);
        is(".vms[0].node", node) && is(".vms[0].state", "Running")
    }

    /// Waits for a moment of the migration to come: its step, and where the VM goes. Nothing if it was over before it was seen.
    fn catch(
        &self,
        handler: &str,
        moment: Moment,
        source: &str,
    ) -> Result<Option<(String, String)>> {
        let begun = Instant::now();
        let (mut moves, mut called_off) = (false, false);
        while begun.elapsed() < BEGINS_WITHIN {
            let wanted =
                if moment.is_called_off() && !called_off { "Going" } else { moment.step() };
            let Ok(text) = self.exec(handler, &["sh", "-c", &looks_for(wanted)]) else { continue };
            match step(&text) {
                Some((step, target)) if step == moment.step() => {
                    if moment == Moment::Late {
                        thread::sleep(LATE);
                    }
                    return Ok(Some((step, target)));
                }
                Some((step, _)) => {
                    moves = true;
                    if moment.is_called_off() && step == "Going" && !called_off {
                        self.maintain(source, false)?;
                        called_off = true;
                    }
                }
                None if moves || !self.has_it(source) => return Ok(None),
                None => {}
            }
        }
        if called_off {
            return Ok(None);
        }
        Err(LabError::Unexpected {
            what: format!("{source} in maintenance"),
            detail: format!("no migration began within {} s", BEGINS_WITHIN.as_secs()),
        })
    }
}

/// A script that looks until the handler tells of a step, or often enough, and prints what it tells.
fn looks_for(step: &str) -> String {
    format!(
        "for i in $(seq {LOOKS}); do told=$(curl --silent --fail --max-time 2 {ENGINE}); \
         case \"$told\" in *'\"{step}\"'*) break;; esac; done; echo \"$told\""
    )
}

/// How far the VM's migration is, and where to, by what its handler believes.
fn step(engine: &str) -> Option<(String, String)> {
    let engine: Value = serde_json::from_str(engine).ok()?;
    // Those that were deleted are there, too, under the same name.
    let mut ours = engine["ves"].as_array()?.iter().filter(|ve| ve["name"] == VE);
    let first = ours.find_map(|ve| ve["moves"].as_array()?.first())?;
    let text = |at: usize| first[at].as_str().map(str::to_owned);
    Some((text(2)?, text(1)?))
}

/// Who had the guest's memory then, and whether a guest was started anew since.
fn judge(recording: &Recording, at_ns: u64, source: &str) -> (String, Fate) {
    let ours = || recording.instances.iter().filter(|one| one.name == VM);
    // A target counts from when it ran.
    let there =
        |one: &&Instance| one.from_ns <= at_ns && one.to_ns.is_none_or(|ended| ended >= at_ns);
    let latest = ours().filter(there).max_by_key(|one| one.from_ns);
    let holder = latest.and_then(|one| one.node.clone()).unwrap_or_else(|| source.to_owned());
    let anew = ours().any(|one| one.from_ns > at_ns && !one.incoming);
    (holder, if anew { Fate::Restarted } else { Fate::GoesOn })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_read_from_what_the_handler_believes() {
        let engine = r#"{"ves":[{"name":"a/b","moves":[["web-0","n9","Going"]]},
            {"name":"measure/ve0","moves":[]},{"name":"measure/ve0","moves":[["web-0","n3","Halting"]]}]}"#;
        assert_eq!(step(engine), Some(("Halting".to_owned(), "n3".to_owned())));
        assert_eq!(step(r#"{"ves":[{"name":"measure/ve0","moves":[]}]}"#), None);
        assert!(looks_for("Halting").contains(r#"*'"Halting"'*) break"#));
    }

    #[test]
    fn a_guest_that_is_started_after_the_loss_and_did_not_come_is_a_new_one() {
        let instance = |node: &str, from_ns, incoming| Instance {
            vm: "u".into(),
            name: VM.into(),
            pid: 1,
            node: Some(node.into()),
            from_ns,
            to_ns: None,
            runs_ns: None,
            incoming,
        };
        let instances = vec![instance("n1", 5, false), instance("n2", 20, true)];
        let mut recording = Recording { instances, ..Recording::default() };
        assert_eq!(judge(&recording, 10, "n1"), ("n1".to_owned(), Fate::GoesOn));
        assert_eq!(judge(&recording, 30, "n1"), ("n2".to_owned(), Fate::GoesOn));
        recording.instances.push(instance("n3", 40, false));
        assert_eq!(judge(&recording, 30, "n1"), ("n2".to_owned(), Fate::Restarted));
    }
}
