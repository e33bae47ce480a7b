//! What becomes one Kubernetes Event, and when.
//!
//! Normal happenings of one environment are held until it has settled and told together: *placed* and
//! *started* are one Event, not two. Warnings go out at once. What repeats word by word counts up in the Event that
//! exists. A talkative environment runs out of budget before it runs the API server out of room.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use super::patience::{COALESCE, Due};
use crate::engine::id::VeUid;
use crate::engine::report::{About, Happening};

/// How long an Event is counted up rather than made anew. Kubernetes' own components use six minutes.
const SERIES_ENDS_AFTER: Duration = Duration::from_secs(360);
/// How often a count is written, beyond the first repetition.
const COUNT_EVERY: Duration = Duration::from_secs(60);
/// Events per topic at once, and how often one more is allowed. Kubernetes' own components allow 25, and
/// one per five minutes; an environment has less to say, and people want to see it sooner.
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(30);
/// Most Events that wait to be written; the oldest are dropped.
const MAX_WAITING: usize = 256;
/// Most series that are remembered.
const MAX_SERIES: usize = 1024;
/// Most sentences that one Event joins.
const MAX_JOINED: usize = 6;
/// Longest text of an Event, bytes (Kubernetes refuses more than 1024).
const MAX_TEXT: usize = 1000;

/// Whom an Event is about, as a key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Topic {
    ThisNode,
    Ve(VeUid),
}

impl From<&About> for Topic {
    fn from(about: &About) -> Self {
        match about {
            About::Ve { uid, .. } => Self::Ve(uid.clone()),
            About::ThisNode => Self::ThisNode,
        }
    }
}

/// An Event to be made.
#[derive(Clone, Debug)]
pub(super) struct Note {
    pub(super) about: About,
    pub(super) warning: bool,
    pub(super) reason: &'static str,
    pub(super) text: String,
    /// When it happened, first and last.
    pub(super) first: Timestamp,
    pub(super) last: Timestamp,
    pub(super) count: u32,
}

type SeriesKey = (Topic, bool, &'static str, String);

impl Note {
    fn key(&self) -> SeriesKey {
        (Topic::from(&self.about), self.warning, self.reason, self.text.clone())
    }
}

/// Something to write.
#[derive(Debug)]
pub(super) struct EventWork {
    pub(super) note: Note,
    /// The Event's name: it is made if `exists` is false, otherwise counted up.
    pub(super) name: String,
    pub(super) exists: bool,
}

struct Held {
    note: Note,
    joined: usize,
    due: Due<Instant>,
}

struct Series {
    name: String,
    note: Note,
    written: u32,
    last_written: Instant,
    last_seen: Instant,
}

impl Series {
    /// When its count is to be written.
    fn due(&self) -> Option<Instant> {
        let pause = if self.written <= 1 { Duration::ZERO } else { COUNT_EVERY };
        (self.note.count > self.written).then(|| self.last_written + pause)
    }
}

struct Budget {
    left: u32,
    since: Instant,
}

/// Everything that is to be told.
#[derive(Default)]
pub(super) struct Talk {
    held: BTreeMap<Topic, Held>,
    waiting: VecDeque<Note>,
    series: BTreeMap<SeriesKey, Series>,
    budgets: BTreeMap<Topic, Budget>,
    busy: BTreeSet<Topic>,
    names: u64,
}

impl Talk {
    /// Takes something that happened. Returns how many Events were dropped for want of room.
    pub(super) fn put(&mut self, happening: Happening, now: Instant) -> u64 {
        let time = Timestamp::now();
        let note = Note {
            about: happening.about,
            warning: happening.warning,
            reason: happening.reason,
            text: shortened(happening.message),
            first: time,
            last: time,
            count: 1,
        };
        if note.warning {
            return self.wait(note);
        }
        let topic = Topic::from(&note.about);
        match self.held.get_mut(&topic) {
            Some(held) => held.join(note),
            None => {
                self.held.insert(topic, Held { note, joined: 1, due: Due::Passing(now) });
            }
        }
        0
    }

    fn wait(&mut self, note: Note) -> u64 {
        let key = note.key();
        if let Some(same) = self.waiting.iter_mut().find(|waiting| waiting.key() == key) {
            same.count += note.count;
            same.last = note.last;
            return 0;
        }
        self.waiting.push_back(note);
        if self.waiting.len() <= MAX_WAITING {
            return 0;
        }
        self.waiting.pop_front();
        1
    }

    /// An environment has come to a state that will last: what led there is told, together.
    pub(super) fn settled(&mut self, uid: &VeUid, now: Instant) {
        if let Some(held) = self.held.get_mut(&Topic::Ve(uid.clone())) {
            held.due = held.due.joined_by(Due::At(now + COALESCE));
        }
    }

    /// Tells all that is held now.
    pub(super) fn hurry(&mut self) {
        for (_, held) in std::mem::take(&mut self.held) {
            self.wait(held.note);
        }
    }

    /// Nothing waits, nothing is being written. (Counts that are not due yet may be lost.)
    pub(super) fn is_empty(&self) -> bool {
        self.held.is_empty() && self.waiting.is_empty() && self.busy.is_empty()
    }

    /// When there is something to do next, with this patience for what is held.
    pub(super) fn next_due(&self, now: Instant, patience: Duration) -> Option<Instant> {
        let idle = |topic: &Topic| !self.busy.contains(topic);
        let held = self.held.values().map(|held| held.due.at(patience));
        let waiting =
            self.waiting.iter().any(|note| idle(&Topic::from(&note.about))).then_some(now);
        let series = self.series.iter().filter(|((topic, ..), _)| idle(topic));
        held.chain(waiting).chain(series.filter_map(|(_, series)| series.due())).min()
    }

    /// The next thing to write. Its topic is busy until [`Talk::finish`]. `dropped` counts what went over
    /// budget.
    pub(super) fn take_due(
        &mut self,
        now: Instant,
        patience: Duration,
        dropped: &mut u64,
    ) -> Option<EventWork> {
        let is_ripe = |(_, held): &(Topic, Held)| held.due.at(patience) <= now;
        let (ripe, held): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.held).into_iter().partition(is_ripe);
        self.held = held.into_iter().collect();
        for (_, held) in ripe {
            *dropped += self.wait(held.note);
        }
        self.forget_old(now);
        while let Some(at) =
            self.waiting.iter().position(|note| !self.busy.contains(&Topic::from(&note.about)))
        {
            let Some(note) = self.waiting.remove(at) else { break };
            let key = note.key();
            if let Some(series) = self.series.get_mut(&key) {
                series.note.count += note.count;
                series.note.last = note.last;
                series.last_seen = now;
                continue;
            }
            if !self.spend(&key.0, now) {
                *dropped += 1;
                continue;
            }
            self.busy.insert(key.0);
            let name = self.name(&note);
            return Some(EventWork { note, name, exists: false });
        }
        let (key, series) = self.series.iter().find(|((topic, ..), series)| {
            !self.busy.contains(topic) && series.due().is_some_and(|due| due <= now)
        })?;
        self.busy.insert(key.0.clone());
        Some(EventWork { note: series.note.clone(), name: series.name.clone(), exists: true })
    }

    /// What became of it: `None` to try again, whether it was written otherwise.
    pub(super) fn finish(&mut self, work: EventWork, written: Option<bool>, now: Instant) -> u64 {
        let key = work.note.key();
        self.busy.remove(&key.0);
        match written {
            None if work.exists => 0,
            None => {
                // In front again, so that what happened first is told first.
                self.waiting.push_front(work.note);
                if self.waiting.len() > MAX_WAITING {
                    self.waiting.pop_front();
                    return 1;
                }
                0
            }
            Some(true) => {
                let written = work.note.count;
                let series = self.series.entry(key).or_insert(Series {
                    name: work.name,
                    note: work.note,
                    written,
                    last_written: now,
                    last_seen: now,
                });
                series.written = written;
                series.last_written = now;
                0
            }
            Some(false) => {
                self.series.remove(&key);
                1
            }
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let live = |since: Instant, limit: Duration| now.duration_since(since) < limit;
        self.series.retain(|_, series| {
            live(series.last_seen, SERIES_ENDS_AFTER) || series.due().is_some()
        });
        while self.series.len() > MAX_SERIES {
            self.series.pop_first();
        }
        self.budgets.retain(|_, budget| live(budget.since, REFILL * BURST));
    }

    fn spend(&mut self, topic: &Topic, now: Instant) -> bool {
        let budget =
            self.budgets.entry(topic.clone()).or_insert(Budget { left: BURST, since: now });
        while budget.left < BURST && now.duration_since(budget.since) >= REFILL {
            budget.left += 1;
            budget.since += REFILL;
        }
        if budget.left == BURST {
            budget.since = now;
        }
        let may = budget.left > 0;
        budget.left = budget.left.saturating_sub(1);
        may
    }

    /// A name that no other Event has: the object's, the time, and a number.
    fn name(&mut self, note: &Note) -> String {
        self.names += 1;
        let stem = match &note.about {
            About::Ve { name, .. } => name.name.to_string(),
            About::ThisNode => "physicalnode".to_owned(),
        };
        format!("{stem}.{:x}{:02x}", note.first.as_microsecond(), self.names & 0xff)
    }
}

impl Held {
    /// The last reason says most: it is the one that the course of events has come to.
    fn join(&mut self, note: Note) {
        self.note.reason = note.reason;
        self.note.last = note.last;
        if self.note.text.split("; ").any(|told| told == note.text) {
            return;
        }
        self.joined += 1;
        if self.joined <= MAX_JOINED {
            let text = std::mem::take(&mut self.note.text);
            self.note.text = shortened(format!("{text}; {}", note.text));
        } else if !self.note.text.ends_with('…') {
            self.note.text.push_str("; …");
        }
    }
}

/// At most what an Event may hold.
fn shortened(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::id::VeName;

    const HOLD: Duration = Duration::from_secs(5);

    fn happening(warning: bool, reason: &'static str, message: &str) -> Happening {
        let about = About::Ve { uid: "u".into(), name: VeName::new("ns", "shop") };
        Happening { about, warning, reason, message: message.to_owned(), failover: None }
    }

    fn take(talk: &mut Talk, now: Instant) -> Option<EventWork> {
        talk.take_due(now, HOLD, &mut 0)
    }

    #[test]
    fn placed_and_started_are_one_event() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        talk.put(happening(false, "Placed", "placed on n1"), now);
        talk.put(happening(false, "Started", "3 VMs run"), now + HOLD / 2);
        assert!(take(&mut talk, now + HOLD / 2).is_none());
        let work = take(&mut talk, now + HOLD).expect("due");
        assert_eq!(
            (work.note.reason, work.note.text.as_str()),
            ("Started", "placed on n1; 3 VMs run")
        );
        assert!(take(&mut talk, now + HOLD).is_none());
        assert_eq!(talk.finish(work, Some(true), now + HOLD), 0);
        assert!(talk.is_empty());
    }

    #[test]
    fn what_has_settled_is_told_without_waiting() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        talk.put(happening(false, "Placed", "placed on n1"), now);
        talk.settled(&"u".into(), now);
        assert_eq!(talk.next_due(now, HOLD), Some(now + COALESCE));
        assert_eq!(take(&mut talk, now + COALESCE).expect("due").note.reason, "Placed");
    }

    #[test]
    fn a_warning_goes_out_at_once_and_alone() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        talk.put(happening(false, "Placed", "placed on n1"), now);
        talk.put(happening(true, "Crashed", "web-0 crashed"), now);
        assert_eq!(take(&mut talk, now).expect("at once").note.reason, "Crashed");
    }

    #[test]
    fn what_repeats_is_counted_in_the_event_that_exists() {
        let (mut talk, mut now) = (Talk::default(), Instant::now());
        let mut made = 0;
        let mut counted = Vec::new();
        for _ in 0..100 {
            talk.put(happening(true, "Crashed", "web-0 crashed"), now);
            while let Some(work) = take(&mut talk, now) {
                if work.exists {
                    counted.push(work.note.count);
                } else {
                    made += 1;
                }
                talk.finish(work, Some(true), now);
            }
            now += Duration::from_secs(1);
        }
        assert_eq!(made, 1);
        assert_eq!(counted, [2, 62], "the first repetition at once, the others once a minute");
        now += SERIES_ENDS_AFTER + COUNT_EVERY;
        while let Some(work) = take(&mut talk, now) {
            assert!(work.exists, "the rest of the count");
            talk.finish(work, Some(true), now);
        }
        talk.put(happening(true, "Crashed", "web-0 crashed"), now + SERIES_ENDS_AFTER);
        assert!(!take(&mut talk, now + SERIES_ENDS_AFTER).expect("a new one").exists);
    }

    #[test]
    fn a_talkative_topic_runs_out_of_budget() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        let mut made = 0;
        let mut dropped = 0;
        for number in 0..100 {
            talk.put(happening(true, "Crashed", &format!("crash {number}")), now);
            if let Some(work) = talk.take_due(now, HOLD, &mut dropped) {
                made += 1;
                talk.finish(work, Some(true), now);
            }
        }
        assert_eq!((made, dropped), (BURST, 90));
        talk.put(happening(true, "Crashed", "later"), now + REFILL);
        assert!(take(&mut talk, now + REFILL).is_some());
    }

    #[test]
    fn what_waits_for_the_api_server_is_bounded_and_the_newest_kept() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        let mut dropped = 0;
        for number in 0..1000 {
            dropped += talk.put(happening(true, "Crashed", &format!("crash {number}")), now);
        }
        assert_eq!(dropped, 1000 - MAX_WAITING as u64);
        assert_eq!(take(&mut talk, now).expect("some").note.text, "crash 744");
    }

    #[test]
    fn what_could_not_be_written_is_tried_again_first() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        talk.put(happening(true, "Crashed", "one"), now);
        talk.put(happening(true, "Crashed", "two"), now);
        let work = take(&mut talk, now).expect("one");
        assert!(take(&mut talk, now).is_none(), "one at a time per topic keeps the order");
        talk.finish(work, None, now);
        assert_eq!(take(&mut talk, now).expect("again").note.text, "one");
    }

    #[test]
    fn no_text_is_longer_than_kubernetes_allows() {
        let (mut talk, now) = (Talk::default(), Instant::now());
        talk.put(happening(false, "Started", &"ö".repeat(3000)), now);
        for number in 0..20 {
            talk.put(happening(false, "Started", &format!("{number}{}", "x".repeat(100))), now);
        }
        let work = take(&mut talk, now + HOLD).expect("due");
        assert!(work.note.text.len() <= 1024, "{}", work.note.text.len());
    }
}
