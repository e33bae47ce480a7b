//! The arithmetic of overlaps, by hand-made recordings.

use super::*;

const MS: u64 = 1_000_000;

/// A recording in the making, in milliseconds.
struct Tape(Vec<Line>);

impl Tape {
    fn new() -> Self {
        Self(vec![Line::Recorder { at_ns: 0, source: Source::Connector }])
    }

    fn start(mut self, at: u64, process: u64, vm: &str) -> Self {
        self.0.push(start(at, process, vm, false));
        self
    }

    fn target(mut self, at: u64, process: u64, vm: &str) -> Self {
        self.0.push(start(at, process, vm, true));
        self
    }

    fn runs(mut self, at: u64, process: u64) -> Self {
        self.0.push(Line::Runs { at_ns: at * MS, process });
        self
    }

    fn end(mut self, at: u64, process: u64) -> Self {
        self.0.push(Line::End { at_ns: at * MS, process });
        self
    }

    fn stop(mut self, at: u64) -> Recording {
        self.0.push(Line::Alive { at_ns: at * MS });
        let mut recording = Recording::of(&self.0);
        // These tapes have no line a second.
        recording.holes.clear();
        recording
    }
}

fn start(at: u64, process: u64, vm: &str, incoming: bool) -> Line {
    let node = Some(format!("n{process}"));
    let (vm, name) = (vm.to_owned(), format!("shop.{vm}"));
    Line::Start { at_ns: at * MS, process, vm, name, pid: 100, node, incoming }
}

/// Stretches, in milliseconds.
type Ms = Vec<(u64, u64)>;

/// Of the only VM: overlaps and gaps, in milliseconds.
fn of(recording: &Recording) -> (Ms, Ms) {
    let fates = recording.fates();
    assert_eq!(fates.len(), 1, "{fates:?}");
    let in_ms = |all: &[Stretch]| all.iter().map(|s| (s.from_ns / MS, s.to_ns / MS)).collect();
    (in_ms(&fates[0].overlaps), in_ms(&fates[0].gaps))
}

#[test]
fn one_after_the_other_is_a_gap_and_no_overlap() {
    let tape = Tape::new().start(10, 1, "a").end(100, 1).start(130, 2, "a").stop(200);
    assert_eq!(of(&tape), (vec![], vec![(100, 130)]));
    assert!(tape.is_clean());
}

#[test]
fn one_that_begins_just_as_the_other_ends_is_neither() {
    let tape = Tape::new().start(10, 1, "a").end(100, 1).start(100, 2, "a").stop(200);
    assert_eq!(of(&tape), (vec![], vec![]));
    assert!(tape.is_clean());
}

#[test]
fn a_single_nanosecond_of_two_is_found() {
    let mut lines = vec![Line::Recorder { at_ns: 0, source: Source::Connector }];
    lines.extend([start(0, 1, "a", false), start(5, 2, "a", false)]);
    lines.push(Line::End { at_ns: 5 * MS + 1, process: 1 });
    let recording = Recording::of(&lines);
    assert_eq!(sum_ns(&recording.fates()[0].overlaps), 1);
    assert!(!recording.is_clean());
}

#[test]
fn two_at_once_are_counted_for_as_long_as_there_are_two_or_more() {
    let tape = Tape::new()
        .start(0, 1, "a")
        .start(10, 2, "a")
        .start(20, 3, "a")
        .end(30, 1)
        .end(50, 2)
        .start(60, 4, "a")
        .end(65, 4)
        .stop(100);
    let fates = tape.fates();
    assert_eq!(of(&tape).0, [(10, 50), (60, 65)]);
    assert_eq!(sum_ns(&fates[0].overlaps), 45 * MS);
    assert_eq!(max_ns(&fates[0].overlaps), 40 * MS);
    assert!(tape.report().contains("TWICE for 40.000 ms"), "{}", tape.report());
}

#[test]
fn one_that_has_not_ended_runs_until_the_recording_does() {
    let tape = Tape::new().start(0, 1, "a").start(90, 2, "a").stop(100);
    assert_eq!(of(&tape).0, [(90, 100)]);
}

#[test]
fn other_vms_are_other_vms() {
    let tape = Tape::new().start(0, 1, "a").start(0, 2, "b").stop(100);
    assert!(tape.is_clean() && tape.fates().len() == 2);
}

#[test]
fn a_target_counts_from_when_it_runs() {
    let moved = Tape::new().start(0, 1, "a").target(50, 2, "a").end(80, 1).runs(90, 2).stop(200);
    assert_eq!(of(&moved), (vec![], vec![(80, 90)]));
    let twice = Tape::new().start(0, 1, "a").target(50, 2, "a").runs(70, 2).end(80, 1).stop(200);
    assert_eq!(of(&twice).0, [(70, 80)]);
}

#[test]
fn a_target_that_never_runs_is_no_instance() {
    let tape = Tape::new().start(0, 1, "a").target(50, 2, "a").end(70, 2).stop(200);
    assert!(tape.is_clean());
    assert_eq!((tape.instances.len(), tape.idle_targets), (1, 1));
}

#[test]
fn a_recording_with_a_hole_shows_nothing() {
    let first = Line::Recorder { at_ns: 0, source: Source::Connector };
    let alive = |at: u64| Line::Alive { at_ns: at * 1_000 * MS };
    assert!(Recording::of(&[first.clone(), alive(1), alive(2)]).is_clean());
    assert!(!Recording::of(&[first.clone(), alive(1), alive(9)]).is_clean(), "it was silent");
    assert!(!Recording::of(&[first, Line::Lost { at_ns: MS }]).is_clean());
    let scan = Line::Recorder { at_ns: 0, source: Source::Scan };
    assert!(Recording::of(&[scan]).report().contains("proc connector"), "it says so");
}

#[test]
fn a_file_ends_where_its_writer_was_killed() {
    let path = std::env::temp_dir().join(format!("discovery-tape-{}", std::process::id()));
    let whole = "{\"event\":\"alive\",\"at_ns\":5}\n";
    std::fs::write(&path, format!("{whole}{{\"event\":\"al")).expect("a temporary file");
    assert_eq!(Recording::read(&path).expect("its last line does not count").to_ns, 5);
    std::fs::write(&path, format!("nonsense\n{whole}")).expect("a temporary file");
    assert!(Recording::read(&path).is_err());
    std::fs::remove_file(path).expect("the test made it");
}
