//! What is to touch no guest: crashes and upgrades of agents, restarts of libvirtd, an API server that is away.

use std::{
    fmt, thread,
    time::{Duration, Instant},
};

use serde::Serialize;

use super::{LOOK_EVERY, NAMESPACE, Tape};
use crate::{
    error::{LabError, Result},
    lab::Lab,
    nemesis::{Fault, Ves, Wanted},
    record::{boottime_ns, overlap::Recording},
};

/// How many environments are kept an eye on.
const VES: usize = 6;
/// A lease lasts for five seconds after an agent's last word; a guest whose guard has ended it, it has ended by then.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// One thing that happened, and what became of the guests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Untouched {
    /// What.
    pub event: String,
    /// How often, and what it did the last time.
    pub fired: Vec<String>,
    /// Guests before it, which are the same after it.
    pub guests: usize,
    /// Guests that ended, or were started, meanwhile: there should be none.
    pub touched: Vec<String>,
}

impl fmt::Display for Untouched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.fired.last().map_or("", String::as_str);
        write!(f, "{}, {} times ({last}): ", self.event, self.fired.len())?;
        if self.touched.is_empty() {
            write!(f, "{} guests, all the same processes", self.guests)
        } else {
            write!(f, "{} guests, NOT the same: {}", self.guests, self.touched.join(", "))
        }
    }
}

impl Lab {
    /// Lets each of them happen to every node, the API server be away for so long, and tells which guests changed. One that did
    /// is an error.
    pub fn measure_untouched(&self, away: Duration, deadline: Duration) -> Result<Vec<Untouched>> {
        let ves = Ves::new(NAMESPACE, VES);
        self.heal_all()?;
        let tape = Tape::begin(self, &self.layout.logs().join("measure-untouched.jsonl"))?;
        ves.apply(self)?;
        let result = self.all_untouched(&ves, (away, deadline), &tape);
        // All of it is tried, whatever failed before.
        let healed = self.heal_all();
        let deleted = ves.delete(self);
        let all = result?;
        healed?;
        deleted?;
        let recording = tape.end()?;
        if !recording.is_clean() {
            return Err(LabError::Twice(recording.report()));
        }
        match all.iter().find(|one| !one.touched.is_empty()) {
            Some(one) => Err(LabError::Unexpected {
                what: one.event.clone(),
                detail: format!("it touched {}", one.touched.join(", ")),
            }),
            None => Ok(all),
        }
    }

    fn all_untouched(
        &self,
        ves: &Ves,
        (away, deadline): (Duration, Duration),
        tape: &Tape<'_>,
    ) -> Result<Vec<Untouched>> {
        let wanted = Wanted::now(self, ves)?;
        let nodes = self.nodes();
        let on_each = |fault: fn(String) -> Fault| nodes.iter().cloned().map(fault).collect();
        let cases: [(&str, Vec<Fault>, Duration); 5] = [
            ("crash of the agent", on_each(|node| Fault::AgentKill { node }), Duration::ZERO),
            ("upgrade of the agents", vec![Fault::Upgrade], Duration::ZERO),
            ("kill of libvirtd", on_each(|node| Fault::LibvirtdKill { node }), Duration::ZERO),
            ("stop of libvirtd", on_each(|node| Fault::LibvirtdStop { node }), AFTERWARDS),
            ("API server away", vec![Fault::ApiServer], away),
        ];
        let mut all = Vec::new();
        for (event, faults, hold) in cases {
            let mut fired = Vec::new();
            self.until_whole(&wanted, deadline)?;
            let from_ns = boottime_ns();
            for fault in &faults {
                fired.push(self.fire(fault)?.did);
                if fault.lasts() {
                    thread::sleep(hold);
                    self.heal(fault)?;
                }
                self.until_whole(&wanted, deadline)?;
                thread::sleep(AFTERWARDS);
            }
            let (guests, touched) = touched(&until(tape, boottime_ns())?, from_ns);
            let event = if hold > AFTERWARDS {
                format!("{event} for {} s", hold.as_secs())
            } else {
                event.to_owned()
            };
            let one = Untouched { event, fired, guests, touched };
            self.say(&one.to_string());
            all.push(one);
        }
        Ok(all)
    }
}

/// The recording up to now: it says once a second that it lives.
fn until(tape: &Tape<'_>, now_ns: u64) -> Result<Recording> {
    let begun = Instant::now();
    loop {
        let recording = tape.read()?;
        if recording.to_ns >= now_ns || begun.elapsed() > AFTERWARDS {
            return Ok(recording);
        }
        thread::sleep(LOOK_EVERY);
    }
}

/// How many guests there were before that moment, and which have ended or begun since.
fn touched(recording: &Recording, from_ns: u64) -> (usize, Vec<String>) {
    let ours = || recording.instances.iter().filter(|one| one.node.is_some());
    let before = ours()
        .filter(|one| one.from_ns < from_ns && one.to_ns.is_none_or(|ended| ended >= from_ns));
    let ended = ours().filter(|one| one.to_ns.is_some_and(|ended| ended >= from_ns));
    let begun = ours().filter(|one| one.from_ns >= from_ns);
    let name = |what: &str, name: &str| format!("{name} {what}");
    let ended = ended.map(|one| name("ended", &one.name));
    (before.count(), ended.chain(begun.map(|one| name("was started", &one.name))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::overlap::Instance;

    #[test]
    fn a_guest_that_ended_or_began_since_is_touched_and_one_that_ended_before_is_not_there() {
        let instance = |name: &str, from_ns, to_ns| Instance {
            vm: name.into(),
            name: name.into(),
            pid: 1,
            node: Some("n1".into()),
            from_ns,
            to_ns,
            runs_ns: None,
            incoming: false,
        };
        let instances = vec![
            instance("stays", 1, None),
            instance("gone", 1, Some(5)),
            instance("ends", 6, Some(15)),
            instance("begins", 15, None),
        ];
        let recording = Recording { instances, ..Recording::default() };
        let changed = vec!["ends ended".to_owned(), "begins was started".to_owned()];
        assert_eq!(touched(&recording, 10), (2, changed));
        assert_eq!(touched(&recording, 20), (2, Vec::new()));
    }
}
