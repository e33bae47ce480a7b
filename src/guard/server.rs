//! The guard's process: one thread that waits for the agent's word, for the deadline, for processes to end, and for its own end.
//!
//! ```text
//!   armed ----- the deadline passes -----> lapsed, some left ---- all have ended ----> lapsed, clean
//!     ^                                         ^                                          |  |
//!     |                                         +------------ one of ours starts ----------+  |
//!     +------------------------------ a new allowance ----------------------------------------+
//! ```

use std::fs;
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Mode;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::GuardError;
use super::agent_line::{End, Line};
use super::guests::Guests;
use super::kept::Kept;
use super::shield;
use super::watchdog::{Watchdog, WatchdogConfig};
use super::wire::Reply;
use crate::agent::clock;
use crate::engine::guard::{Allowance, GuardInput};
use crate::engine::time::Instant;

/// While VMs may not run, one that starts all the same lives no longer than this and the time to find it.
const LOOK_WHILE_LAPSED: Duration = Duration::from_millis(20);
/// While they may run: processes are held, so that a lapse finds them at hand.
const LOOK_WHILE_ARMED: Duration = Duration::from_secs(1);

/// What a guard is told at its start.
#[derive(Clone, Debug)]
pub struct GuardConfig {
    /// Where agents connect. Its directory is lost at a boot (`/run`), and holds the guard's state.
    pub socket: PathBuf,
    /// Where libvirt keeps the status of its QEMU domains.
    pub libvirt_run_dir: PathBuf,
    /// A hardware watchdog to feed.
    pub watchdog: Option<WatchdogConfig>,
    /// F: how long a lease holds after its renewal was sent.
    pub lease: Duration,
    /// W: how long peers wait beyond it.
    pub wait: Duration,
}

/// Runs until SIGTERM or SIGINT. VMs run on, and so does what was promised: the next guard keeps to it.
///
/// # Errors
/// When something is missing that it cannot do without.
pub fn run(config: GuardConfig) -> Result<(), GuardError> {
    let mut guard = Guard::begin(config)?;
    while !guard.round()? {}
    guard.end();
    Ok(())
}

struct Guard {
    kept: Kept,
    held: Option<Allowance>,
    /// Counts once the VMs of the lease before it have ended.
    waiting: Option<Allowance>,
    guests: Guests,
    /// Since the time was over.
    lapse: Option<Lapse>,
    watchdog: Option<Watchdog>,
    listener: UnixListener,
    line: Option<Line>,
    signals: SignalFd,
    timer: OwnedFd,
    next_look: Instant,
    _lock: OwnedFd,
}

#[derive(Debug)]
struct Lapse {
    /// When the last one ended.
    at: Instant,
    /// How many did.
    ended: u32,
    /// None of ours is left.
    clean: bool,
    /// The agent knows, if there is one.
    told: bool,
}

impl Guard {
    fn begin(config: GuardConfig) -> Result<Self, GuardError> {
        let GuardConfig { socket, libvirt_run_dir, watchdog, lease, wait } = config;
        let mut mask = SigSet::empty();
        mask.add(Signal::SIGTERM);
        mask.add(Signal::SIGINT);
        mask.thread_block().map_err(GuardError::system("block signals"))?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            .map_err(GuardError::system("wait for signals"))?;
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
        )
        .map_err(GuardError::system("make a timer"))?;
        if let Some(folder) = socket.parent() {
            fs::create_dir_all(folder).map_err(GuardError::file("make", folder))?;
        }
        let lock = shield::only_one(&socket.with_extension("lock"))?;
        let kept = Kept::beside(&socket)?;
        let held = kept.load()?;
        let mut guests = Guests::new(libvirt_run_dir);
        shield::raise();
        // Also a rehearsal: what a lapse needs is in memory from here on.
        if let Err(error) = guests.look_everywhere() {
            tracing::warn!(%error, "cannot look for VMs of ours yet");
        }
        guests.reap();
        let watchdog = watchdog.map(|watchdog| Watchdog::open(watchdog, lease, wait));
        let watchdog = watchdog.transpose()?;
        let listener = listen(&socket)?;
        tracing::info!(?held, socket = %socket.display(), "the guard begins");
        let next_look = Instant::ZERO;
        let (lapse, line, waiting) = (None, None, None);
        Ok(Self {
            kept,
            held,
            waiting,
            guests,
            lapse,
            watchdog,
            listener,
            line,
            signals,
            timer,
            next_look,
            _lock: lock,
        })
    }

    /// Does what there is to do, then waits. True when it was told to end.
    fn round(&mut self) -> Result<bool, GuardError> {
        let now = clock::now();
        if self.held.as_ref().is_some_and(|held| held.is_over(now)) {
            self.enforce(now);
        } else if now >= self.next_look {
            self.next_look = now + LOOK_WHILE_ARMED;
            self.guests.reap();
            if let Err(error) = self.guests.look() {
                tracing::warn!(%error, "cannot look for VMs of ours");
            }
        }
        let clean = self.lapse.as_ref().is_some_and(|lapse| lapse.clean);
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.attend(now, self.held.as_ref(), clean);
        }
        self.set_timer()?;
        let ready = self.wait()?;
        if ready.signal {
            let signal = self.signals.read_signal().map_err(GuardError::system("read a signal"))?;
            if signal.is_some() {
                return Ok(true);
            }
        }
        if ready.caller {
            self.accept();
        } else if ready.line {
            self.listen_to_the_agent();
        }
        Ok(false)
    }

    /// The time is over: nothing of ours may run.
    fn enforce(&mut self, now: Instant) {
        let first = self.lapse.is_none();
        let lapse =
            self.lapse.get_or_insert(Lapse { at: now, ended: 0, clean: false, told: false });
        // Those that are held already, without a look at any file: a signal is all it takes.
        self.guests.kill();
        if first || now >= self.next_look {
            self.next_look = now + LOOK_WHILE_LAPSED;
            let looked = self.guests.look_everywhere();
            self.guests.kill();
            if let (Err(error), true) = (&looked, first) {
                tracing::error!(%error, "cannot look for all VMs of ours: the watchdog is not fed");
            }
            lapse.clean = looked.is_ok();
        }
        let ended = self.guests.reap();
        lapse.clean &= self.guests.is_empty();
        if ended > 0 {
            lapse.at = clock::now();
            lapse.ended = lapse.ended.saturating_add(ended);
            lapse.told = false;
            // Once more, at once: one may have come while the others went.
            self.next_look = Instant::ZERO;
        }
        let (clean, news) = (lapse.clean, lapse.clean && !lapse.told);
        if news {
            let ended = lapse.ended;
            lapse.told = true;
            tracing::warn!(ended, "the time is over: no VM of ours runs here any more");
            self.tell();
        }
        if clean && let Some(said) = self.waiting.take() {
            self.allow(&said);
        }
    }

    /// What holds, to the agent. A lapse is told once none is left.
    fn tell(&mut self) {
        let report = match (&self.lapse, &self.held) {
            (Some(lapse), _) if lapse.clean => {
                GuardInput::Lapsed { at: lapse.at, ended: lapse.ended }
            }
            (None, Some(held)) => GuardInput::Armed(held.clone()),
            _ => return,
        };
        self.say(&Reply::Tell(report));
    }

    fn say(&mut self, reply: &Reply) {
        if let Some(line) = &mut self.line
            && let Err(error) = line.say(reply)
        {
            tracing::warn!(%error, "the agent does not listen");
            self.line = None;
        }
    }

    fn accept(&mut self) {
        let Some(line) = Line::accept(&self.listener) else { return };
        // One agent at a time: what an earlier one has said and nobody has read is void.
        self.line = Some(line);
        self.waiting = None;
        let watchdog = self.watchdog.as_ref().and_then(Watchdog::timeout);
        self.say(&Reply::Tell(GuardInput::Connected { watchdog }));
        self.tell();
    }

    fn listen_to_the_agent(&mut self) {
        let Some(line) = &mut self.line else { return };
        let heard = line.hear();
        for said in &heard.said {
            self.say(&Reply::Heard);
            self.allow(said);
        }
        match heard.end {
            End::No => {}
            End::Quiet => self.line = None,
            End::Wrong(wrong) => {
                tracing::warn!(wrong, "refused");
                self.say(&Reply::Refused(wrong));
                self.line = None;
            }
        }
    }

    fn allow(&mut self, said: &Allowance) {
        let now = clock::now();
        let unfinished = self.lapse.as_ref().is_none_or(|lapse| !lapse.clean);
        if unfinished && self.held.as_ref().is_some_and(|held| held.must_end_before(said, now)) {
            // This guard, or the machine, stood still, or the agent has lost its records: VMs may run that the new lease is not of.
            self.waiting = Some(said.clone());
            return;
        }
        let held = Allowance::after(self.held.as_ref(), said);
        let kept = self.kept.store(&held);
        let over = held.is_over(now);
        self.held = Some(held);
        if let Err(error) = kept {
            // It counts, but the next guard would not know: the agent must not rely on it.
            tracing::error!(%error, "cannot keep what the agent says");
            return;
        }
        if !over && self.lapse.take().is_some() {
            tracing::info!("VMs may run again");
        }
        if over && self.lapse.is_none() {
            // Said once the last VM has ended.
            return;
        }
        self.tell();
    }

    fn set_timer(&self) -> Result<(), GuardError> {
        let deadline = self.held.as_ref().and_then(|held| held.until);
        let deadline = deadline.filter(|_| self.lapse.is_none());
        let fed = self.watchdog.as_ref().map(Watchdog::next);
        let next = [deadline, fed].into_iter().flatten().fold(self.next_look, Instant::min);
        // Zero would disarm it.
        let at = next.0.max(1);
        let spec = |micros: u64| Timespec {
            tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(micros % 1_000_000 * 1000).unwrap_or(0),
        };
        let timer = Itimerspec { it_interval: spec(0), it_value: spec(at) };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &timer)
            .map(drop)
            .map_err(GuardError::system("set a timer"))
    }

    fn wait(&self) -> Result<Ready, GuardError> {
        let fds = [self.signals.as_fd(), self.timer.as_fd(), self.listener.as_fd()];
        let line = self.line.iter().map(AsFd::as_fd);
        let lapsed = self.lapse.is_some();
        let guests = self.guests.fds().filter(|_| lapsed).map(AsFd::as_fd);
        let all = fds.into_iter().chain(line).chain(guests);
        let mut all: Vec<PollFd<'_>> =
            all.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)).collect();
        match poll(&mut all, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(GuardError::system("wait")(error)),
        }
        let ready = |at: usize| all.get(at).is_some_and(|fd| !fd.revents().is_empty());
        Ok(Ready { signal: ready(0), caller: ready(2), line: self.line.is_some() && ready(3) })
    }

    fn end(mut self) {
        self.guests.reap();
        let looked = self.guests.look_everywhere();
        self.guests.reap();
        match self.watchdog {
            Some(watchdog) if looked.is_ok() && self.guests.is_empty() => watchdog.stop(),
            Some(_) => tracing::warn!(
                "VMs of ours run, so the watchdog is left on: the next guard must come before its time-out"
            ),
            None => {}
        }
        tracing::info!("the guard ends; VMs run on until the next one finds their time over");
    }
}

struct Ready {
    signal: bool,
    caller: bool,
    line: bool,
}

/// A socket that only its owner may connect to.
fn listen(socket: &Path) -> Result<UnixListener, GuardError> {
    match fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(GuardError::file("remove the old socket", socket)(error));
        }
        _ => {}
    }
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(socket);
    rustix::process::umask(before);
    let ready = |listener: UnixListener| -> io::Result<UnixListener> {
        listener.set_nonblocking(true)?;
        Ok(listener)
    };
    bound.and_then(ready).map_err(GuardError::file("listen on", socket))
}
