//! The agent's end: connects, and connects again, tells the newest allowance, and reports what the guard says.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::GuardError;
use super::wire::{Inbox, Reply, Request, frame};
use crate::agent::clock;
use crate::agent::ports::{Guard, InputSender};
use crate::engine::guard::{Allowance, GuardInput};
use crate::engine::input::Input;
use crate::engine::time::Instant;

/// How soon after a failure the next connection is tried: a guard that begins anew is missed no longer than this.
const RETRY: Duration = Duration::from_millis(100);
/// A guard that has not answered for this long is gone, whatever its socket says: it may hang.
const ANSWER: Duration = Duration::from_secs(1);

/// The real guard. Dropping it ends the connection; the guard goes on.
pub struct GuardClient {
    shared: Arc<Shared>,
    /// A byte wakes the thread; its end ends it.
    wake: UnixStream,
}

struct Shared {
    socket: PathBuf,
    said: Mutex<Said>,
    inputs: InputSender,
    counters: Counters,
}

#[derive(Default)]
struct Said {
    newest: Option<Allowance>,
    /// The guard of this connection has not been told.
    news: bool,
    /// It said that the time was over, and how many VMs it has ended since.
    lapse: Option<u32>,
}

#[derive(Default)]
struct Counters {
    connected: AtomicU64,
    connections: AtomicU64,
    lapses: AtomicU64,
    ended: AtomicU64,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardCounters {
    /// Whether it answers now.
    pub connected: bool,
    /// Connections made.
    pub connections: u64,
    /// Lapses that were told of.
    pub lapses: u64,
    /// VMs that the guard has ended in them.
    pub ended: u64,
}

impl GuardClient {
    /// Begins to look for the guard at once, and for as long as it takes.
    ///
    /// # Errors
    /// When the system gives no thread or socket.
    pub fn start(socket: PathBuf, inputs: InputSender) -> Result<Self, GuardError> {
        let (wake, woken) = UnixStream::pair().map_err(GuardError::system("make a pair"))?;
        for end in [&wake, &woken] {
            end.set_nonblocking(true).map_err(GuardError::system("make a pair"))?;
        }
        let (said, counters) = (Mutex::default(), Counters::default());
        let shared = Arc::new(Shared { socket, said, inputs, counters });
        let line = Line { shared: shared.clone(), woken };
        let thread = std::thread::Builder::new().name("guard".into());
        thread.spawn(move || line.run()).map_err(GuardError::system("start a thread"))?;
        Ok(Self { shared, wake })
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> GuardCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        GuardCounters {
            connected: read(&counters.connected) > 0,
            connections: read(&counters.connections),
            lapses: read(&counters.lapses),
            ended: read(&counters.ended),
        }
    }
}

impl Guard for GuardClient {
    fn allow(&self, allowance: Allowance) {
        let mut said = self.shared.said();
        (said.newest, said.news) = (Some(allowance), true);
        drop(said);
        // Full: it is awake already. Broken: its thread has ended with the agent.
        let _ = (&self.wake).write(&[0]);
    }
}

impl Shared {
    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when the agent has ended.
    fn report(&self, report: GuardInput) -> bool {
        let add = |counter: &AtomicU64, n: u64| {
            counter.fetch_add(n, Ordering::Relaxed);
        };
        match &report {
            GuardInput::Connected { .. } => {
                add(&self.counters.connections, 1);
                self.counters.connected.store(1, Ordering::Relaxed);
            }
            GuardInput::Gone => self.counters.connected.store(0, Ordering::Relaxed),
            // Told again at every connection, and for each VM that it ends later on.
            GuardInput::Lapsed { ended, .. } => {
                let before = self.said().lapse.replace(*ended);
                add(&self.counters.lapses, u64::from(before.is_none()));
                add(&self.counters.ended, ended.saturating_sub(before.unwrap_or(0)).into());
            }
            GuardInput::Armed(_) => self.said().lapse = None,
        }
        self.inputs.blocking_send(Input::Guard(report)).is_ok()
    }
}

/// Why a connection is over.
enum Over {
    /// The guard is not there, or does not answer.
    Gone(String),
    /// The agent ends.
    Agent,
}

impl From<io::Error> for Over {
    fn from(error: io::Error) -> Self {
        Self::Gone(error.to_string())
    }
}

/// The thread.
struct Line {
    shared: Arc<Shared>,
    woken: UnixStream,
}

/// What is known of one connection.
#[derive(Default)]
struct Talk {
    inbox: Inbox,
    greeted: bool,
    /// Since when an answer is waited for.
    waits: Option<Instant>,
}

impl Line {
    fn run(self) {
        let mut last = String::new();
        loop {
            let mut talk = Talk::default();
            let over = UnixStream::connect(&self.shared.socket)
                .map_err(Over::from)
                .and_then(|stream| self.talk(&stream, &mut talk));
            let why = match over {
                Err(Over::Gone(why)) => why,
                Err(Over::Agent) | Ok(()) => return,
            };
            let known = std::mem::replace(&mut last, why.clone()) == why;
            if talk.greeted {
                tracing::warn!(why, "this node's guard does not answer");
                if !self.shared.report(GuardInput::Gone) {
                    return;
                }
            } else if !known {
                let socket = self.shared.socket.display();
                tracing::warn!(why, %socket, "this node's guard cannot be reached");
            }
            if self.rest().is_err() {
                return;
            }
        }
    }

    /// Until the next try, or the agent's end.
    fn rest(&self) -> Result<(), Over> {
        let until = clock::now() + RETRY;
        loop {
            let left = until.since(clock::now());
            if left.is_zero() {
                return Ok(());
            }
            self.wait(None, left)?;
        }
    }

    fn talk(&self, stream: &UnixStream, talk: &mut Talk) -> Result<(), Over> {
        stream.set_nonblocking(true)?;
        self.shared.said().news = true;
        talk.waits = Some(clock::now());
        loop {
            if talk.greeted {
                self.tell(stream, talk)?;
            }
            let waited = talk.waits.map(|since| clock::now().since(since));
            let left = match waited {
                Some(waited) if waited >= ANSWER => {
                    return Err(Over::Gone(format!("no answer for {waited:?}")));
                }
                Some(waited) => ANSWER - waited,
                None => Duration::MAX,
            };
            if self.wait(Some(stream), left)? {
                self.hear(stream, talk)?;
            }
        }
    }

    /// The newest allowance, unless it was told on this connection.
    fn tell(&self, mut stream: &UnixStream, talk: &mut Talk) -> Result<(), Over> {
        let newest = {
            let mut said = self.shared.said();
            if !std::mem::take(&mut said.news) {
                return Ok(());
            }
            said.newest.clone()
        };
        let Some(newest) = newest else { return Ok(()) };
        stream.write_all(&frame(&Request::Allow(newest))?)?;
        talk.waits.get_or_insert_with(clock::now);
        Ok(())
    }

    fn hear(&self, mut stream: &UnixStream, talk: &mut Talk) -> Result<(), Over> {
        let mut chunk = [0; 1024];
        match stream.read(&mut chunk) {
            Ok(0) => return Err(Over::Gone("the guard has ended".to_owned())),
            Ok(read) => talk.inbox.push(&chunk[..read]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
        while let Some(reply) =
            talk.inbox.take::<Reply>().map_err(|wrong| Over::Gone(wrong.to_string()))?
        {
            talk.waits = None;
            match reply {
                Reply::Heard => {}
                Reply::Tell(report) => {
                    talk.greeted |= matches!(report, GuardInput::Connected { .. });
                    if !self.shared.report(report) {
                        return Err(Over::Agent);
                    }
                }
                Reply::Refused(why) => {
                    return Err(Over::Gone(format!("the guard refuses this agent: {why}")));
                }
            }
        }
        Ok(())
    }

    /// Whether the guard has said something, within a time.
    fn wait(&self, stream: Option<&UnixStream>, limit: Duration) -> Result<bool, Over> {
        let fds = [Some(&self.woken), stream].into_iter().flatten();
        let mut fds: Vec<PollFd<'_>> =
            fds.map(|fd| PollFd::from_borrowed_fd(fd.as_fd(), PollFlags::IN)).collect();
        let limit = Timespec::try_from(limit).ok();
        match poll(&mut fds, limit.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(false),
            Err(error) => return Err(io::Error::from(error).into()),
        }
        let ready = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        if ready(0) {
            let mut bytes = [0; 64];
            if let Ok(0) = (&self.woken).read(&mut bytes) {
                return Err(Over::Agent);
            }
        }
        Ok(ready(1))
    }
}
