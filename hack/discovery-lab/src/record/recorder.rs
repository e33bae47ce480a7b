//! The recorder: waits for starts and ends, and writes a line for each.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, pidfd_open, setpriority_process},
    time::ClockId,
};

use super::{
    Line, Qemu, Source, boottime_ns,
    connector::{Connector, Heard},
    nanoseconds,
    qemu::{guest_time_ns, is_ending, pids, started_ns},
};
use crate::{
    error::{AtPath, Result, system},
    lab::Lab,
    layout::Layout,
    process::node_of,
};

/// How often a guest that does not run yet is looked at, and `/proc` where there is no connector.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// How often the record says that it goes on.
const ALIVE_EVERY_NS: u64 = 1_000_000_000;
/// A guest's processors that have used less between two looks were quiet. One that waits uses up to 0.2 ms now and then,
/// one that runs 2 to 26 ms of each look (measured, emulated).
const QUIET_NS: u64 = 300_000;
/// Those that have used as much since they were quiet run. QEMU itself uses 1.1 ms of them when it makes them.
const RUNS_NS: u64 = 3_000_000;
/// The same since the first look, should a guest ever run in very thin slices.
const RUNS_IN_ALL_NS: u64 = 20_000_000;
/// A guest that has not run by then is not looked at any more, unless it is a target: it counts in any case.
const RUNS_WITHIN_NS: u64 = 120_000_000_000;
/// Processors that are not to be seen by then never will be.
const PROCESSORS_WITHIN_NS: u64 = 10_000_000_000;

/// See the head of the room.
#[derive(Debug)]
pub struct Recorder {
    out: File,
    path: PathBuf,
    connector: Option<Connector>,
    layout: Layout,
    open: BTreeMap<i32, Open>,
    next: u64,
    said_ns: u64,
}

/// A QEMU that has not ended.
#[derive(Debug)]
struct Open {
    process: u64,
    started_ns: u64,
    end: OwnedFd,
    waits: Option<Waits>,
}

/// A guest that has not been seen to run.
#[derive(Debug, Clone, Copy)]
struct Waits {
    incoming: bool,
    /// How long its processors had run at the first look.
    first_ns: Option<u64>,
    /// When they were last quiet, and how long they had run by then.
    quiet: Option<(u64, u64)>,
    /// How long they had run at the last look.
    ran_ns: u64,
}

impl Recorder {
    /// Opens the file (which is replaced) and the connector, and notes what runs already.
    pub fn open(layout: &Layout, path: &Path) -> Result<Self> {
        let connector = Connector::listen().ok();
        let mut recorder = Self {
            out: File::create(path).at(path)?,
            path: path.to_owned(),
            connector,
            layout: layout.clone(),
            open: BTreeMap::new(),
            next: 0,
            said_ns: 0,
        };
        // What is late is recorded late: best before everybody else. Not everybody may.
        let _ = setpriority_process(None, -20);
        let source = recorder.source();
        recorder.write(&Line::Recorder { at_ns: boottime_ns(), source })?;
        recorder.scan()?;
        Ok(recorder)
    }

    /// How it learns of starts.
    pub fn source(&self) -> Source {
        if self.connector.is_some() { Source::Connector } else { Source::Scan }
    }

    /// Records until told to stop; asked once a second at least.
    pub fn run(&mut self, mut stop: impl FnMut() -> bool) -> Result<()> {
        while !stop() {
            self.turn()?;
        }
        let at_ns = boottime_ns();
        self.write(&Line::Alive { at_ns })
    }

    fn turn(&mut self) -> Result<()> {
        let ended = self.wait()?;
        let at_ns = boottime_ns();
        for pid in ended {
            self.look(pid)?;
            if let Some(open) = self.open.remove(&pid) {
                self.write(&Line::End { at_ns, process: open.process })?;
            }
        }
        self.hear()?;
        let waiting: Vec<i32> = self
            .open
            .iter()
            .filter(|(_, open)| open.waits.is_some())
            .map(|(pid, _)| *pid)
            .collect();
        for pid in waiting {
            self.look(pid)?;
        }
        if at_ns >= self.said_ns + ALIVE_EVERY_NS {
            self.said_ns = at_ns;
            self.write(&Line::Alive { at_ns })?;
        }
        Ok(())
    }

    // Until something happens, or it is time to look; returns who has ended.
    fn wait(&self) -> Result<Vec<i32>> {
        let mut fds: Vec<PollFd<'_>> =
            self.open.values().map(|open| PollFd::new(&open.end, PollFlags::IN)).collect();
        fds.extend(self.connector.iter().map(|connector| PollFd::new(connector, PollFlags::IN)));
        let look = self.connector.is_none() || self.open.values().any(|open| open.waits.is_some());
        let timeout = if look { LOOK_EVERY } else { Duration::from_nanos(ALIVE_EVERY_NS) };
        let timeout = Timespec::try_from(timeout).ok();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return system("wait for processes", Err(error)),
        }
        let ended = self.open.keys().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ended.map(|(pid, _)| *pid).collect())
    }

    fn hear(&mut self) -> Result<()> {
        let Some(connector) = &self.connector else { return self.scan() };
        let heard = system("hear of processes", connector.hear())?;
        // The two clocks differ by the time that the machine has slept.
        let slept = boottime_ns().saturating_sub(nanoseconds(ClockId::Monotonic));
        for one in heard {
            match one {
                Heard::Exec { pid, monotonic_ns } => self.meet(pid, monotonic_ns + slept)?,
                Heard::Lost => {
                    self.write(&Line::Lost { at_ns: boottime_ns() })?;
                    self.scan()?;
                }
            }
        }
        Ok(())
    }

    fn scan(&mut self) -> Result<()> {
        for pid in pids() {
            if let Some(at_ns) = started_ns(pid).filter(|_| !self.open.contains_key(&pid)) {
                self.meet(pid, at_ns)?;
            }
        }
        Ok(())
    }

    // A process has started a program, or was found.
    fn meet(&mut self, pid: i32, at_ns: u64) -> Result<()> {
        let Some(qemu) = Qemu::of(pid) else { return Ok(()) };
        let Some(end) =
            Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok())
        else {
            // It has ended since its command line was read: it was there, all the same.
            let process = self.number();
            self.write_start(process, pid, at_ns, qemu)?;
            return self.write(&Line::End { at_ns: boottime_ns(), process });
        };
        if self.open.get(&pid).is_some_and(|open| started_ns(pid) == Some(open.started_ns)) {
            // Found by a scan and heard of, or its program was replaced by another QEMU.
            return Ok(());
        }
        let process = self.number();
        let incoming = qemu.incoming;
        let waits = Some(Waits::new(incoming));
        self.write_start(process, pid, at_ns, qemu)?;
        let started_ns = started_ns(pid).unwrap_or(at_ns);
        self.open.insert(pid, Open { process, started_ns, end, waits });
        Ok(())
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn write_start(&mut self, process: u64, pid: i32, at_ns: u64, qemu: Qemu) -> Result<()> {
        let node = node_of(&self.layout, pid);
        let Qemu { uuid: vm, name, incoming } = qemu;
        self.write(&Line::Start { at_ns, process, vm, name, pid, node, incoming })
    }

    // Whether a guest runs by now.
    fn look(&mut self, pid: i32) -> Result<()> {
        let now_ns = boottime_ns();
        let Some(open) = self.open.get_mut(&pid) else { return Ok(()) };
        let Some(waits) = &mut open.waits else { return Ok(()) };
        let runs = waits.look(now_ns, guest_time_ns(pid), open.started_ns);
        // A target that ends without having run has its memory taken down, which its processors' time shows, too.
        let runs = runs.filter(|_| !(waits.incoming && is_ending(pid)));
        let process = open.process;
        match runs {
            None if !waits.incoming && now_ns > open.started_ns + RUNS_WITHIN_NS => {
                open.waits = None;
                Ok(())
            }
            None => Ok(()),
            Some(at_ns) => {
                open.waits = None;
                self.write(&Line::Runs { at_ns, process })
            }
        }
    }

    fn write(&mut self, line: &Line) -> Result<()> {
        // A line of plain fields is always JSON.
        let mut text = serde_json::to_vec(line).unwrap_or_default();
        text.push(b'\n');
        // At once, and whole: whoever kills the recorder loses nothing.
        self.out.write_all(&text).at(&self.path)
    }
}

impl Lab {
    /// Records to this file until the process is ended, or `stop` says so.
    pub fn record(&self, path: &Path, stop: impl FnMut() -> bool) -> Result<()> {
        let mut recorder = Recorder::open(&self.layout, path)?;
        self.say(&format!("recording to {}, by {:?}", path.display(), recorder.source()));
        recorder.run(stop)
    }
}

impl Waits {
    fn new(incoming: bool) -> Self {
        Self { incoming, first_ns: None, quiet: None, ran_ns: 0 }
    }

    // Since when it runs, as far as these looks tell: since the last one at which it was quiet.
    fn look(&mut self, now_ns: u64, ran_ns: Option<u64>, started_ns: u64) -> Option<u64> {
        let Some(ran) = ran_ns else {
            // One that had processors has ended.
            let unseen = self.incoming && self.first_ns.is_none();
            let too_long = now_ns > started_ns + PROCESSORS_WITHIN_NS;
            return (unseen && too_long).then_some(started_ns);
        };
        let first = *self.first_ns.get_or_insert(ran);
        let grown = ran.saturating_sub(std::mem::replace(&mut self.ran_ns, ran));
        let (quiet_at, quiet_ran) = *self.quiet.get_or_insert((now_ns, ran));
        if grown < QUIET_NS {
            self.quiet = Some((now_ns, ran));
        }
        let runs = ran.saturating_sub(quiet_ran) >= RUNS_NS;
        (runs || ran.saturating_sub(first) >= RUNS_IN_ALL_NS).then_some(quiet_at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// As measured of a target: made, waiting, its memory arrived, running.
    #[test]
    fn a_guest_runs_since_the_last_look_at_which_it_was_quiet() {
        let mut waits = Waits::new(true);
        let looks = [(20, 0), (40, 260), (60, 1_010), (80, 1_010), (100, 1_160), (120, 1_160)];
        for (now, us) in looks {
            assert_eq!(waits.look(now * MS, Some(us * 1_000), 0), None, "at {now} ms");
        }
        assert_eq!(waits.look(140 * MS, Some(3_200_000), 0), None, "too little to be sure");
        assert_eq!(waits.look(160 * MS, Some(14_000_000), 0), Some(120 * MS));
    }

    #[test]
    fn a_guest_that_runs_in_thin_slices_is_seen_in_the_end_and_one_that_has_ended_is_not() {
        let mut waits = Waits::new(true);
        let thin = |look: &u64| waits.look(look * 20 * MS, Some(look * MS / 4), 0).is_some();
        assert_eq!((1..100).find(thin), Some(81));
        let mut ended = Waits { first_ns: Some(1), ..Waits::new(true) };
        assert_eq!(ended.look(2 * PROCESSORS_WITHIN_NS, None, 0), None);
    }

    #[test]
    fn a_target_whose_processors_are_not_to_be_seen_counts_from_its_start() {
        let mut waits = Waits::new(true);
        assert_eq!(waits.look(PROCESSORS_WITHIN_NS, None, 7), None);
        assert_eq!(waits.look(PROCESSORS_WITHIN_NS + 8, None, 7), Some(7));
        let mut plain = Waits::new(false);
        assert_eq!(plain.look(PROCESSORS_WITHIN_NS * 2, None, 7), None, "it counts anyway");
    }
}
