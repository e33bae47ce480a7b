//! What is to be written, newest report per thing. Pure: time is handed in.
//!
//! Memory is bounded by the number of environments, whatever happens in them and however long the API
//! server is away.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt as _;
use tokio::time::Instant;

use super::happenings::{EventWork, Talk};
use super::patience::{COALESCE, Due, Patience};
use super::request::pause;
use crate::engine::effect::ClusterAction;
use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::replica::Replica;
use crate::engine::report::{NodeReport, VeReport};

/// Shortest time between two status writes of one environment.
const VE_AT_MOST: Duration = Duration::from_secs(1);
/// Shortest time between two status writes of this node.
const NODE_AT_MOST: Duration = Duration::from_secs(10);
/// How long a peer must be silent before its page says so: longer than a restart of its agent takes.
const SILENT_FOR: Duration = Duration::from_secs(20);
/// How long the identity of a new node waits for its first report, to be written together.
const NODE_FIRST: Duration = Duration::from_secs(1);
/// Over which time retries are spread when the API server is back.
const COME_BACK_OVER: Duration = Duration::from_secs(2);

/// The first replica set, to be swapped in.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Claim {
    pub(super) uid: VeUid,
    pub(super) name: VeName,
    pub(super) resource_version: String,
    pub(super) replicas: Vec<Replica>,
}

/// A spec that cannot be carried out, to be said so in the status.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct InvalidSpec {
    pub(super) uid: VeUid,
    pub(super) name: VeName,
    pub(super) generation: i64,
    pub(super) message: String,
}

/// What is said of an environment while a majority of its record's keepers is away.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NoMajority {
    pub(super) uid: VeUid,
    pub(super) name: VeName,
    pub(super) message: String,
}

/// One thing to write.
#[derive(Debug)]
pub(super) enum Work {
    Claim(Claim),
    Invalid(InvalidSpec),
    Report(Box<VeReport>),
    NoMajority(NoMajority),
    Release(VeUid, VeName),
    /// `None`: the engine has not reported yet, but the identity is to be published.
    Node(Option<Box<NodeReport>>),
    /// A peer is silent.
    Silent(NodeName),
    Event(EventWork),
}

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// It is written.
    Written,
    /// It says what is there already.
    Same,
    /// It will never be written: refused, or nothing is left to write to.
    Dropped,
    /// It is to be tried again.
    Again,
}

#[derive(Default)]
struct Ve {
    claim: Option<Claim>,
    invalid: Option<InvalidSpec>,
    report: Option<(Box<VeReport>, Due<Instant>)>,
    /// Said after the report that waits; a later report takes its place.
    no_majority: Option<NoMajority>,
    release: Option<VeName>,
    busy: bool,
    failures: u32,
    not_before: Option<Instant>,
}

impl Ve {
    fn is_empty(&self) -> bool {
        self.claim.is_none()
            && self.invalid.is_none()
            && self.report.is_none()
            && self.no_majority.is_none()
            && self.release.is_none()
            && !self.busy
    }

    fn due(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let at_once = self.claim.is_some() || self.invalid.is_some() || self.release.is_some();
        let due = match &self.report {
            _ if at_once => now,
            Some((_, due)) => due.at(patience),
            None => self.no_majority.as_ref().map(|_| now)?,
        };
        (!self.busy).then(|| self.not_before.map_or(due, |not_before| not_before.max(due)))
    }

    fn take(&mut self, uid: &VeUid) -> Option<Work> {
        let work = if let Some(claim) = self.claim.take() {
            Work::Claim(claim)
        } else if let Some(name) = self.release.clone() {
            Work::Release(uid.clone(), name)
        } else if let Some(invalid) = self.invalid.take() {
            Work::Invalid(invalid)
        } else if let Some((report, _)) = self.report.take() {
            Work::Report(report)
        } else {
            Work::NoMajority(self.no_majority.take()?)
        };
        self.busy = true;
        Some(work)
    }
}

#[derive(Default)]
struct Node {
    report: Option<Box<NodeReport>>,
    due: Option<Instant>,
    written: Option<Instant>,
    busy: bool,
    failures: u32,
}

/// A peer that is silent.
struct Silent {
    /// When its page is to say so; none: it does, or it is being written.
    due: Option<Instant>,
    failures: u32,
}

/// Everything that is to be written.
#[derive(Default)]
pub(super) struct Queue {
    ves: BTreeMap<VeUid, Ve>,
    node: Node,
    silent: BTreeMap<NodeName, Silent>,
    talk: Talk,
    patience: Patience<Instant>,
    /// Reports replaced by newer ones.
    pub(super) coalesced: u64,
}

impl Queue {
    /// Takes an action (watching is not a write: it is not for here). Returns how many Events had to be
    /// dropped.
    pub(super) fn put(&mut self, action: ClusterAction, now: Instant) -> u64 {
        match action {
            ClusterAction::WatchVes(_) => {}
            ClusterAction::ClaimReplicaSet { uid, name, resource_version, replicas } => {
                let ve = self.ves.entry(uid.clone()).or_default();
                ve.claim = Some(Claim { uid, name, resource_version, replicas });
            }
            ClusterAction::ReportVe(report) => self.put_report(report, now),
            ClusterAction::ReleaseVe { uid, name } => {
                let ve = self.ves.entry(uid).or_default();
                (ve.claim, ve.invalid, ve.report, ve.no_majority) = (None, None, None, None);
                ve.release = Some(name);
            }
            ClusterAction::ReportNoMajority { uid, name, message } => {
                let ve = self.ves.entry(uid.clone()).or_default();
                if ve.release.is_none() {
                    ve.no_majority = Some(NoMajority { uid, name, message });
                }
            }
            ClusterAction::ReportNode(report) => {
                self.coalesced += u64::from(self.node.report.is_some() && self.node.due.is_some());
                self.node.report = Some(report);
                self.node_soon(now + COALESCE);
            }
            ClusterAction::ReportSilent(silent) => {
                self.silent.retain(|node, _| silent.contains(node));
                for node in silent {
                    let due = Some(now + SILENT_FOR);
                    self.silent.entry(node).or_insert(Silent { due, failures: 0 });
                }
            }
            ClusterAction::Happened(happening) => return self.talk.put(happening, now),
        }
        0
    }

    fn put_report(&mut self, mut report: Box<VeReport>, now: Instant) {
        let ve = self.ves.entry(report.uid.clone()).or_default();
        if ve.release.is_some() {
            return;
        }
        let mut due = if report.settled { Due::At(now + COALESCE) } else { Due::Passing(now) };
        if let Some((before, earlier)) = &ve.report {
            report.again |= before.again;
            self.coalesced += 1;
            due = earlier.joined_by(due);
        } else if !report.settled {
            self.patience.begins(now);
        }
        if report.settled {
            self.talk.settled(&report.uid, now);
        }
        ve.no_majority = None;
        ve.report = Some((report, due));
    }

    /// A spec that cannot be carried out.
    pub(super) fn put_invalid(&mut self, invalid: InvalidSpec) {
        let ve = self.ves.entry(invalid.uid.clone()).or_default();
        ve.invalid = Some(invalid);
    }

    /// An environment is gone: nothing more can be claimed of it.
    pub(super) fn forget(&mut self, uid: &VeUid) {
        if let Some(ve) = self.ves.get_mut(uid) {
            (ve.claim, ve.invalid) = (None, None);
        }
    }

    /// This node's `PhysicalNode` is new, or its spec has changed: its status follows.
    pub(super) fn node_changed(&mut self, now: Instant) {
        let wait = if self.node.report.is_some() { COALESCE } else { NODE_FIRST };
        self.node_soon(now + wait);
    }

    fn node_soon(&mut self, soon: Instant) {
        let earliest = self.node.written.map_or(soon, |written| soon.max(written + NODE_AT_MOST));
        self.node.due = Some(self.node.due.map_or(earliest, |due| due.min(earliest)));
    }

    /// Holds nothing back any more.
    pub(super) fn hurry(&mut self) {
        let now = Instant::now();
        for ve in self.ves.values_mut() {
            ve.not_before = None;
            if let Some((_, due)) = &mut ve.report {
                *due = Due::At(now);
            }
        }
        self.node.due = self.node.due.map(|_| now);
        self.talk.hurry();
    }

    /// The API server is back: everything is tried again soon, not all at once.
    pub(super) fn come_back(&mut self, now: Instant) {
        for ve in self.ves.values_mut().filter(|ve| ve.failures > 0) {
            ve.failures = 0;
            ve.not_before = Some(now + COME_BACK_OVER.mul_f64(rand::rng().random_range(0.0..1.0)));
        }
    }

    /// Nothing waits and nothing is being written.
    pub(super) fn is_empty(&self) -> bool {
        self.ves.values().all(Ve::is_empty)
            && self.node.due.is_none()
            && !self.node.busy
            && self.talk.is_empty()
    }

    /// When there is something to do next.
    pub(super) fn next_due(&self, now: Instant) -> Option<Instant> {
        let patience = self.patience.length(now);
        let ves = self.ves.values().filter_map(|ve| ve.due(now, patience));
        let node = self.node.due.filter(|_| !self.node.busy);
        let silent = self.silent.values().filter_map(|silent| silent.due);
        ves.chain(node).chain(silent).chain(self.talk.next_due(now, patience)).min()
    }

    /// At most `room` things that are due. Each is busy until [`Queue::finish`]. `dropped` counts Events
    /// over budget.
    pub(super) fn take_due(&mut self, now: Instant, room: usize, dropped: &mut u64) -> Vec<Work> {
        self.ves.retain(|_, ve| !ve.is_empty() || ve.not_before.is_some_and(|at| at > now));
        let patience = self.patience.length(now);
        let mut works = Vec::new();
        if room > 0 && !self.node.busy && self.node.due.is_some_and(|due| due <= now) {
            self.node.due = None;
            self.node.busy = true;
            works.push(Work::Node(self.node.report.clone()));
        }
        for (node, silent) in &mut self.silent {
            if works.len() < room && silent.due.is_some_and(|due| due <= now) {
                silent.due = None;
                works.push(Work::Silent(node.clone()));
            }
        }
        for (uid, ve) in &mut self.ves {
            if works.len() >= room {
                break;
            }
            if ve.due(now, patience).is_some_and(|due| due <= now) {
                works.extend(ve.take(uid));
            }
        }
        while works.len() < room
            && let Some(event) = self.talk.take_due(now, patience, dropped)
        {
            works.push(Work::Event(event));
        }
        works
    }

    /// What became of a thing that was taken. Returns how many Events were dropped.
    pub(super) fn finish(&mut self, work: Work, ended: Ended, now: Instant) -> u64 {
        let again = ended == Ended::Again;
        match work {
            Work::Node(_) => {
                self.node.busy = false;
                self.node.failures = if again { self.node.failures + 1 } else { 0 };
                if again {
                    let due = now + pause(self.node.failures);
                    self.node.due = Some(self.node.due.map_or(due, |earlier| earlier.max(due)));
                } else if ended == Ended::Written {
                    self.node.written = Some(now);
                    self.node.due = self.node.due.map(|due| due.max(now + NODE_AT_MOST));
                }
                0
            }
            Work::Silent(node) => {
                if let Some(silent) = self.silent.get_mut(&node).filter(|_| again) {
                    silent.failures += 1;
                    silent.due = Some(now + pause(silent.failures));
                }
                0
            }
            Work::Event(event) => {
                let written = (!again).then_some(ended != Ended::Dropped);
                self.talk.finish(event, written, now)
            }
            Work::Claim(claim) => {
                let ve = self.ves.entry(claim.uid.clone()).or_default();
                if again && ve.release.is_none() {
                    ve.claim.get_or_insert(claim);
                }
                ve.ended(ended, now);
                0
            }
            Work::Invalid(invalid) => {
                let ve = self.ves.entry(invalid.uid.clone()).or_default();
                if again && ve.release.is_none() {
                    ve.invalid.get_or_insert(invalid);
                }
                ve.ended(ended, now);
                0
            }
            Work::Report(report) => {
                let ve = self.ves.entry(report.uid.clone()).or_default();
                if again && ve.release.is_none() {
                    ve.report.get_or_insert((report, Due::At(now)));
                }
                ve.ended(ended, now);
                if ended == Ended::Written {
                    ve.not_before = Some(now + VE_AT_MOST);
                }
                0
            }
            Work::NoMajority(said) => {
                let ve = self.ves.entry(said.uid.clone()).or_default();
                if again && ve.release.is_none() && ve.report.is_none() {
                    ve.no_majority.get_or_insert(said);
                }
                ve.ended(ended, now);
                0
            }
            Work::Release(uid, _) => {
                let ve = self.ves.entry(uid).or_default();
                if !again {
                    ve.release = None;
                }
                ve.ended(ended, now);
                0
            }
        }
    }
}

impl Ve {
    fn ended(&mut self, ended: Ended, now: Instant) {
        self.busy = false;
        if ended == Ended::Again {
            self.failures += 1;
            self.not_before = Some(now + pause(self.failures));
        } else {
            self.failures = 0;
            self.not_before = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::report::{About, Condition, Happening, Phase};

    /// What a passing state is held for after so many environments have come into one.
    fn hold_of(environments: usize) -> Duration {
        let (mut patience, now) = (Patience::default(), Instant::now());
        (0..environments).for_each(|_| patience.begins(now));
        patience.length(now)
    }

    fn hold() -> Duration {
        hold_of(1)
    }

    fn report(uid: &str, generation: i64, settled: bool) -> ClusterAction {
        let condition = Condition::no("Starting", "");
        ClusterAction::ReportVe(Box::new(VeReport {
            uid: uid.into(),
            name: VeName::new("ns", uid),
            observed_generation: generation,
            phase: Phase::Running,
            ready: condition.clone(),
            placed: condition.clone(),
            progressing: condition,
            vms: Vec::new(),
            round: 1,
            replica_set: Vec::new(),
            settled,
            again: false,
        }))
    }

    fn release(uid: &str) -> ClusterAction {
        ClusterAction::ReleaseVe { uid: uid.into(), name: VeName::new("ns", uid) }
    }

    fn take(queue: &mut Queue, now: Instant) -> Vec<Work> {
        queue.take_due(now, 8, &mut 0)
    }

    fn generation(works: &[Work]) -> i64 {
        match works {
            [Work::Report(report)] => report.observed_generation,
            other => panic!("one report expected: {other:?}"),
        }
    }

    #[test]
    fn a_passing_state_waits_for_a_settled_one_to_replace_it() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(report("a", 1, false), now);
        assert!(take(&mut queue, now + hold() / 2).is_empty());
        queue.put(report("a", 2, true), now + hold() / 2);
        assert_eq!(generation(&take(&mut queue, now + hold() / 2 + COALESCE)), 2);
        assert_eq!(queue.coalesced, 1);
    }

    #[test]
    fn a_passing_state_that_lasts_is_shown() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(report("a", 1, false), now);
        queue.put(report("a", 2, false), now + hold() / 2);
        assert_eq!(queue.next_due(now), Some(now + hold()), "later ones do not put it off");
        assert_eq!(generation(&take(&mut queue, now + hold())), 2);
    }

    #[test]
    fn in_a_burst_passing_states_are_held_for_longer() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for ve in 0..40 {
            queue.put(report(&format!("ve{ve}"), 1, false), now);
        }
        assert!(take(&mut queue, now + hold()).is_empty());
        assert_eq!(queue.next_due(now), Some(now + hold_of(40)));
        assert_eq!(take(&mut queue, now + hold_of(40)).len(), 8);
    }

    #[test]
    fn a_settled_report_brings_its_environments_event_along() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let about = About::Ve { uid: "a".into(), name: VeName::new("ns", "a") };
        let message = "placed on n1".to_owned();
        let placed = Happening { about, warning: false, reason: "Placed", message, failover: None };
        queue.put(ClusterAction::Happened(placed), now);
        queue.put(report("a", 1, true), now);
        let works = take(&mut queue, now + COALESCE);
        assert!(matches!(works[..], [Work::Report(_), Work::Event(_)]), "{works:?}");
    }

    #[test]
    fn what_a_missing_majority_means_comes_behind_the_report_that_waits_and_before_a_later_one() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let lacking = || ClusterAction::ReportNoMajority {
            uid: "a".into(),
            name: VeName::new("ns", "a"),
            message: "n1 does not answer".to_owned(),
        };
        queue.put(report("a", 1, true), now);
        queue.put(lacking(), now);
        let mut works = take(&mut queue, now + COALESCE);
        assert_eq!(generation(&works), 1);
        queue.finish(works.remove(0), Ended::Written, now + COALESCE);
        let works = take(&mut queue, now + COALESCE + VE_AT_MOST);
        assert!(matches!(works[..], [Work::NoMajority(_)]), "{works:?}");
        let mut queue = Queue::default();
        queue.put(lacking(), now);
        queue.put(report("a", 2, true), now);
        let mut works = take(&mut queue, now + COALESCE);
        assert_eq!(generation(&works), 2);
        queue.finish(works.remove(0), Ended::Written, now + COALESCE);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_newer_report_is_not_replaced_by_an_older_one_that_failed() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.put(report("a", 1, true), now);
        let mut works = take(&mut queue, now + COALESCE);
        queue.put(report("a", 2, true), now + COALESCE);
        assert!(take(&mut queue, now + hold()).is_empty(), "one write at a time per environment");
        queue.finish(works.remove(0), Ended::Again, now + COALESCE);
        assert_eq!(generation(&take(&mut queue, now + hold())), 2);
    }

    #[test]
    fn a_release_replaces_reports_and_is_tried_until_it_succeeds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        queue.put(report("a", 1, true), now);
        queue.put(release("a"), now);
        queue.put(report("a", 2, true), now);
        for _ in 0..100 {
            let mut works = take(&mut queue, now);
            assert!(matches!(works[..], [Work::Release(..)]), "{works:?}");
            queue.finish(works.remove(0), Ended::Again, now);
            now += Duration::from_secs(31);
        }
        let mut works = take(&mut queue, now);
        queue.finish(works.remove(0), Ended::Written, now);
        assert!(queue.is_empty());
    }

    #[test]
    fn an_environments_status_is_written_at_most_once_a_second() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let mut written = 0;
        for step in 0..100 {
            queue.put(report("a", step, true), now);
            for work in take(&mut queue, now) {
                written += 1;
                queue.finish(work, Ended::Written, now);
            }
            now += Duration::from_millis(100);
        }
        assert!((8..=11).contains(&written), "{written}");
    }

    #[test]
    fn the_nodes_status_is_written_at_most_every_ten_seconds() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let mut written = 0;
        for _ in 0..600 {
            queue.node_changed(now);
            for work in take(&mut queue, now) {
                written += 1;
                queue.finish(work, Ended::Written, now);
            }
            now += Duration::from_millis(100);
        }
        assert!((5..=7).contains(&written), "{written}");
    }

    #[test]
    fn a_peer_that_stays_silent_is_written_of_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let silent = |nodes: &[&str]| {
            ClusterAction::ReportSilent(nodes.iter().map(|node| NodeName::from(*node)).collect())
        };
        queue.put(silent(&["n1", "n2"]), now);
        assert!(take(&mut queue, now + SILENT_FOR / 2).is_empty());
        assert!(queue.is_empty(), "nothing waits for it");
        queue.put(silent(&["n2", "n3"]), now + SILENT_FOR / 2);
        let mut works = take(&mut queue, now + SILENT_FOR);
        assert!(matches!(&works[..], [Work::Silent(node)] if *node == "n2".into()), "{works:?}");
        queue.finish(works.remove(0), Ended::Again, now + SILENT_FOR);
        let again = queue.next_due(now + SILENT_FOR).expect("it is tried again");
        let mut works = take(&mut queue, again);
        assert!(matches!(&works[..], [Work::Silent(node)] if *node == "n2".into()), "{works:?}");
        queue.finish(works.remove(0), Ended::Written, again);
        let works = take(&mut queue, now + SILENT_FOR * 3);
        assert!(matches!(&works[..], [Work::Silent(node)] if *node == "n3".into()), "{works:?}");
    }

    #[test]
    fn memory_is_bounded_by_the_number_of_environments() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for step in 0..10_000 {
            queue.put(report(&format!("ve{}", step % 10), step, true), now);
        }
        assert_eq!(queue.ves.len(), 10);
        for work in queue.take_due(now + COALESCE, 100, &mut 0) {
            queue.finish(work, Ended::Dropped, now + COALESCE);
        }
        assert!(queue.is_empty());
        take(&mut queue, now + hold());
        assert!(queue.ves.is_empty());
    }

    #[test]
    fn after_an_absence_retries_come_soon_but_not_all_at_once() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for ve in 0..100 {
            queue.put(report(&format!("ve{ve}"), 1, true), now);
        }
        for work in queue.take_due(now + COALESCE, 100, &mut 0) {
            queue.finish(work, Ended::Again, now + COALESCE);
        }
        let back = now + Duration::from_secs(3600);
        queue.come_back(back);
        let early = queue.take_due(back + COME_BACK_OVER / 2, 100, &mut 0).len();
        assert!((20..80).contains(&early), "{early}");
        assert_eq!(queue.take_due(back + COME_BACK_OVER, 100, &mut 0).len(), 100 - early);
    }
}
