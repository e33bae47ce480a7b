//! What every guard does.

use std::sync::Arc;
use std::time::{Duration, Instant as Wall};

use discovery::agent::clock;
use discovery::agent::fake_guard::FakeGuard;
use discovery::agent::ports::Guard;
use discovery::engine::guard::{Allowance, GuardInput, Teller};
use discovery::engine::input::Input;
use discovery::engine::replica::DiskId;
use discovery::engine::time::Instant;
use tokio::sync::mpsc;

/// Everything here takes milliseconds on a machine that is not overloaded.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// So that a busy machine has armed the guard before it is over.
const SOON: Duration = Duration::from_millis(1500);
const LONG: Duration = Duration::from_secs(600);

/// What happens behind the port's back.
pub trait Hands {
    fn run(&mut self, guest: &str);
    fn runs(&mut self, guest: &str) -> bool;
    /// The guard is killed, or begins anew.
    fn set_away(&mut self, away: bool);
}

impl Hands for FakeGuard {
    fn run(&mut self, guest: &str) {
        FakeGuard::run(self, guest);
    }

    fn runs(&mut self, guest: &str) -> bool {
        FakeGuard::runs(self, guest)
    }

    fn set_away(&mut self, away: bool) {
        FakeGuard::set_away(self, away);
    }
}

pub struct Subject {
    pub port: Arc<dyn Guard>,
    pub inputs: mpsc::Receiver<Input>,
    pub hands: Box<dyn Hands>,
}

pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Wall::now() + PATIENCE;
    while !holds() {
        assert!(Wall::now() < deadline, "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

pub fn allowance(lease: u64, until: impl Into<Option<Instant>>) -> Allowance {
    let by = Teller { disk: DiskId(1), life: 1 };
    Allowance { by, lease, until: until.into() }
}

impl Subject {
    /// The next report of the wanted kind; others are passed over.
    pub fn hears<T>(&mut self, what: &str, wanted: impl Fn(&GuardInput) -> Option<T>) -> T {
        let deadline = Wall::now() + PATIENCE;
        let mut heard = Vec::new();
        while Wall::now() < deadline {
            match self.inputs.try_recv() {
                Ok(Input::Guard(report)) => match wanted(&report) {
                    Some(found) => return found,
                    None => heard.push(report),
                },
                Ok(other) => panic!("a guard reports {other:?}"),
                Err(mpsc::error::TryRecvError::Empty) => {
                    std::thread::sleep(Duration::from_millis(1));
                }
                Err(mpsc::error::TryRecvError::Disconnected) => panic!("the port has ended"),
            }
        }
        panic!("never heard: {what}; but {heard:?}");
    }

    pub fn hears_connected(&mut self) -> Option<Duration> {
        self.hears("connected", |report| match report {
            GuardInput::Connected { watchdog } => Some(*watchdog),
            _ => None,
        })
    }

    pub fn hears_armed(&mut self, holds: &Allowance) {
        self.hears(&format!("armed {holds:?}"), |report| {
            (*report == GuardInput::Armed(holds.clone())).then_some(())
        });
    }

    pub fn hears_lapsed(&mut self, wanted: u32) -> Instant {
        self.hears(&format!("lapsed, {wanted} ended"), |report| match report {
            GuardInput::Lapsed { at, ended } if *ended == wanted => Some(*at),
            _ => None,
        })
    }

    fn hears_gone(&mut self) {
        self.hears("gone", |report| (*report == GuardInput::Gone).then_some(()));
    }
}

pub fn run(subject: &mut Subject) {
    subject.hears_connected();
    // It was never told anything: whatever runs, runs.
    subject.hands.run("a");
    let soon = clock::now() + SOON;
    let first = allowance(1, soon);
    subject.port.allow(first.clone());
    subject.hears_armed(&first);
    assert!(clock::now() >= soon || subject.hands.runs("a"), "ended before its time");
    let at = subject.hears_lapsed(1);
    assert!(at >= soon, "ended before its time");
    assert!(!subject.hands.runs("a"));

    // What starts all the same does not live, also when it was there before.
    for ended in 2..4 {
        subject.hands.run("a");
        subject.hears_lapsed(ended);
        assert!(!subject.hands.runs("a"));
    }

    // A new lease: what starts now lives. An older word of the same lease takes nothing away.
    let second = allowance(2, clock::now() + LONG);
    subject.port.allow(second.clone());
    subject.hears_armed(&second);
    subject.hands.run("b");
    subject.port.allow(allowance(2, clock::now()));
    subject.hears_armed(&second);
    assert!(subject.hands.runs("b"));

    // It is killed, and knows afterwards what it was told.
    subject.hands.set_away(true);
    subject.hears_gone();
    subject.hands.set_away(false);
    subject.hears_connected();
    subject.hears_armed(&second);

    // Nobody takes the node over any more.
    let free = allowance(3, None);
    subject.port.allow(free.clone());
    subject.hears_armed(&free);

    // What it is told while it is away, it hears at its return: the newest only.
    subject.hands.set_away(true);
    subject.hears_gone();
    subject.port.allow(allowance(4, clock::now() + LONG));
    subject.port.allow(allowance(5, clock::now()));
    assert!(subject.hands.runs("b"));
    subject.hands.set_away(false);
    subject.hears_connected();
    subject.hears_lapsed(1);
    assert!(!subject.hands.runs("b"));

    // The time is over while it is away, and there is a new lease before it is back: the guests were not that one's.
    let third = allowance(6, clock::now() + SOON);
    subject.port.allow(third.clone());
    subject.hears_armed(&third);
    subject.hands.run("c");
    subject.hands.set_away(true);
    subject.hears_gone();
    until("its time is over", || third.is_over(clock::now()));
    let fourth = allowance(7, clock::now() + LONG);
    subject.port.allow(fourth.clone());
    assert!(subject.hands.runs("c"), "the fault had no effect");
    subject.hands.set_away(false);
    subject.hears_connected();
    subject.hears_armed(&fourth);
    assert!(!subject.hands.runs("c"));

    // An agent that has lost its records knows nothing of what they let run: its word counts once that has ended.
    let soon = clock::now() + SOON;
    let former = allowance(8, soon);
    subject.port.allow(former.clone());
    // (The fourth lasts for longer: a lease of its own.)
    subject.hears_armed(&former);
    subject.hands.run("d");
    let by = Teller { disk: DiskId(u32::MAX), life: 1 };
    let other = Allowance { by, lease: 1, until: Some(clock::now() + LONG) };
    subject.port.allow(other.clone());
    assert!(clock::now() >= soon || subject.hands.runs("d"), "ended before its time");
    assert!(subject.hears_lapsed(1) >= soon, "ended before its time");
    subject.hears_armed(&other);
    assert!(!subject.hands.runs("d"));
    println!("a suite of a guard's life is over");
}
