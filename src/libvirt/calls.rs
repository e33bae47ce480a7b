//! Blocking calls with a time limit.
//!
//! libvirt has no limits of its own: a call hangs as long as its daemon does. Each call runs on a
//! thread of a small pool; the caller waits at most its limit and then walks away. A stuck thread is
//! abandoned: it rejoins the pool if its call ever ends. Too many of them, and calls are refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex};
use std::time::Duration;

type Job = Box<dyn FnOnce() + Send>;

/// Idle threads that are kept for the next call.
const IDLE: usize = 8;
/// Stuck calls at which no further one is started: each holds a thread and a slot of the daemon's.
const STUCK: u64 = 64;

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It took longer than its limit; whether it still happens is unknown.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// Too many calls are stuck already, or the system has no thread for it. It was not started.
    #[error("too many calls are stuck")]
    NoThread,
    /// Our own bug: the call panicked.
    #[error("the call failed on our side")]
    Broken,
}

#[derive(Debug, Default)]
struct Pool {
    idle: Mutex<Vec<Sender<Job>>>,
    stuck: AtomicU64,
    timed_out: AtomicU64,
}

/// Runs blocking calls.
#[derive(Clone, Debug, Default)]
pub struct Calls(Arc<Pool>);

impl Calls {
    /// Runs a call and waits for it, at most `limit`.
    ///
    /// # Errors
    /// When it has no answer in time, or could not be started.
    pub fn run<T: Send + 'static>(
        &self,
        limit: Duration,
        call: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, CallError> {
        if self.stuck() >= STUCK {
            return Err(CallError::NoThread);
        }
        let (answer, answered) = mpsc::sync_channel::<T>(1);
        let state = Arc::new(Mutex::new(Waiting::Yes));
        let (pool, shared) = (self.0.clone(), state.clone());
        self.start(Box::new(move || {
            let _ = answer.send(call());
            let mut state = lock(&shared);
            if *state == Waiting::No {
                pool.stuck.fetch_sub(1, Ordering::Relaxed);
            }
            *state = Waiting::Over;
        }))?;
        match answered.recv_timeout(limit) {
            Ok(value) => Ok(value),
            Err(RecvTimeoutError::Disconnected) => Err(CallError::Broken),
            Err(RecvTimeoutError::Timeout) => {
                let mut state = lock(&state);
                if *state == Waiting::Over {
                    // It ended in this very moment.
                    return answered.try_recv().map_err(|_| CallError::Broken);
                }
                *state = Waiting::No;
                self.0.stuck.fetch_add(1, Ordering::Relaxed);
                self.0.timed_out.fetch_add(1, Ordering::Relaxed);
                Err(CallError::TimedOut(limit))
            }
        }
    }

    /// Calls that are stuck now.
    #[must_use]
    pub fn stuck(&self) -> u64 {
        self.0.stuck.load(Ordering::Relaxed)
    }

    /// Calls that ran over their limit, ever.
    #[must_use]
    pub fn timed_out(&self) -> u64 {
        self.0.timed_out.load(Ordering::Relaxed)
    }

    fn start(&self, mut job: Job) -> Result<(), CallError> {
        loop {
            let idle = lock(&self.0.idle).pop();
            let Some(thread) = idle else { break };
            match thread.send(job) {
                Ok(()) => return Ok(()),
                Err(back) => job = back.0,
            }
        }
        let pool = self.0.clone();
        let (sender, jobs) = mpsc::channel::<Job>();
        let first = job;
        std::thread::Builder::new()
            .name("libvirt-call".into())
            .spawn(move || {
                first();
                loop {
                    {
                        let mut idle = lock(&pool.idle);
                        if idle.len() >= IDLE {
                            return;
                        }
                        idle.push(sender.clone());
                    }
                    match jobs.recv() {
                        Ok(job) => job(),
                        Err(_) => return,
                    }
                }
            })
            .map(|_| ())
            .map_err(|_| CallError::NoThread)
    }
}

/// Whether somebody waits for a call's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    Yes,
    No,
    Over,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // Nothing under these locks can be left half-done.
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_stuck_call_is_abandoned_counted_and_forgiven_when_it_ends() {
        let calls = Calls::default();
        let (release, released) = mpsc::channel::<()>();
        let (ended, end) = mpsc::channel::<()>();
        let result = calls.run(Duration::from_millis(10), move || {
            let _ = released.recv();
            drop(ended);
        });
        assert_eq!(result, Err(CallError::TimedOut(Duration::from_millis(10))));
        assert_eq!((calls.stuck(), calls.timed_out()), (1, 1));
        assert_eq!(calls.run(LONG, || 7), Ok(7), "others go on");
        drop(release);
        assert!(end.recv_timeout(LONG).is_err());
        let deadline = std::time::Instant::now() + LONG;
        while calls.stuck() > 0 && std::time::Instant::now() < deadline {
            std::thread::yield_now();
        }
        assert_eq!((calls.stuck(), calls.timed_out()), (0, 1));
    }

    #[test]
    fn a_call_that_panics_is_our_bug_and_ends_nobody_else() {
        let calls = Calls::default();
        let result = calls.run(LONG, || -> () { std::panic::resume_unwind(Box::new(())) });
        assert_eq!(result, Err(CallError::Broken));
        assert_eq!(calls.run(LONG, || 1), Ok(1));
    }
}
