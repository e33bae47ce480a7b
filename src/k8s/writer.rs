//! One task that writes what is due, a few at once, and tries again for ever.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;

use super::Shared;
use super::queue::{Ended, Work};
use super::request::RequestError;
use super::writes::{self, Written, WrittenNode};
use crate::engine::id::VeUid;

/// How many writes go on at once: one that hangs until its time limit does not hold up the others.
const AT_ONCE: usize = 8;
/// How many environments' last status is remembered. Forgetting one costs one read.
const REMEMBERED: usize = 1024;

/// What the writer remembers.
#[derive(Default)]
struct Memory {
    ves: BTreeMap<VeUid, (Box<Written>, Instant)>,
    node: Option<Box<WrittenNode>>,
}

/// What one piece of work takes with it, and brings back.
enum Luggage {
    Nothing,
    Ve(Option<Box<Written>>),
    Node(Option<Box<WrittenNode>>),
}

/// Writes for ever. While the API server is away nothing is tried: the probe of `reach` does that.
pub(super) async fn write(shared: Arc<Shared>) {
    let mut up = shared.reach.subscribe();
    let mut memory = Memory::default();
    let mut going_on = FuturesUnordered::new();
    loop {
        let mut next = None;
        if *up.borrow_and_update() {
            let (mut dropped, now) = (0, Instant::now());
            let room = AT_ONCE - going_on.len();
            let works = {
                let mut queue = shared.queue();
                let works = queue.take_due(now, room, &mut dropped);
                shared.counters.reports_coalesced.add(std::mem::take(&mut queue.coalesced));
                if works.len() < room {
                    next = queue.next_due(now);
                }
                works
            };
            shared.counters.events_dropped.add(dropped);
            for work in works {
                let luggage = memory.pack(&work);
                let shared = shared.clone();
                going_on.push(async move { carry_out(&shared, work, luggage).await });
            }
        }
        tokio::select! {
            Some((work, ended, luggage)) = going_on.next(), if !going_on.is_empty() => {
                memory.unpack(&work, ended, luggage);
                let dropped = shared.queue().finish(work, ended, Instant::now());
                shared.counters.events_dropped.add(dropped);
            }
            () = shared.queue_changed.notified() => {}
            changed = up.changed() => {
                if changed.is_err() {
                    return;
                }
                if *up.borrow() {
                    shared.queue().come_back(Instant::now());
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
        }
    }
}

impl Memory {
    fn pack(&mut self, work: &Work) -> Luggage {
        match work {
            Work::Report(report) => {
                Luggage::Ve(self.ves.remove(&report.uid).map(|(written, _)| written))
            }
            Work::Node(_) => Luggage::Node(self.node.take()),
            _ => Luggage::Nothing,
        }
    }

    fn unpack(&mut self, work: &Work, ended: Ended, luggage: Luggage) {
        match (work, luggage) {
            (Work::Report(report), Luggage::Ve(Some(written))) => {
                self.ves.insert(report.uid.clone(), (written, Instant::now()));
                if self.ves.len() > REMEMBERED {
                    let oldest = self.ves.iter().min_by_key(|(_, (_, at))| *at);
                    if let Some(uid) = oldest.map(|(uid, _)| uid.clone()) {
                        self.ves.remove(&uid);
                    }
                }
            }
            (Work::Release(uid, _), _) if ended != Ended::Again => {
                self.ves.remove(uid);
            }
            (Work::Node(_), Luggage::Node(written)) => self.node = written,
            _ => {}
        }
    }
}

async fn carry_out(shared: &Shared, work: Work, luggage: Luggage) -> (Work, Ended, Luggage) {
    let (result, luggage) = match (&work, luggage) {
        (Work::Report(report), Luggage::Ve(before)) => {
            let (result, written) =
                writes::report(shared, report, before.map(|before| *before)).await;
            (result, Luggage::Ve(written.map(Box::new)))
        }
        (Work::Node(report), Luggage::Node(before)) => {
            let (result, written) =
                writes::node(shared, report.as_deref(), before.map(|before| *before)).await;
            (result, Luggage::Node(written.map(Box::new)))
        }
        (Work::Claim(claim), _) => (writes::claim(shared, claim).await, Luggage::Nothing),
        (Work::NoMajority(said), _) => (writes::no_majority(shared, said).await, Luggage::Nothing),
        (Work::Invalid(invalid), _) => (writes::invalid(shared, invalid).await, Luggage::Nothing),
        (Work::Release(uid, name), _) => {
            (writes::release(shared, uid, name).await, Luggage::Nothing)
        }
        (Work::Silent(node), _) => (writes::silent(shared, node).await, Luggage::Nothing),
        (Work::Event(event), _) => (writes::event(shared, event).await, Luggage::Nothing),
        // `pack` gives each kind of work its own luggage.
        (Work::Report(_) | Work::Node(_), _) => (Ok(Ended::Again), Luggage::Nothing),
    };
    let ended = result.unwrap_or_else(|error| judge(shared, &work, &error));
    (work, ended, luggage)
}

/// What a failure means for a piece of work.
fn judge(shared: &Shared, work: &Work, error: &RequestError) -> Ended {
    let what = match work {
        Work::Claim(claim) => format!("replica set of {}", claim.name),
        Work::Invalid(invalid) => format!("status of {}", invalid.name),
        Work::Report(report) => format!("status of {}", report.name),
        Work::NoMajority(said) => format!("status of {}", said.name),
        Work::Release(_, name) => format!("finalizer of {name}"),
        Work::Node(_) => "status of this node".to_owned(),
        Work::Silent(node) => format!("silence of {node}"),
        Work::Event(_) => "event".to_owned(),
    };
    let again = match error {
        RequestError::Away(_) | RequestError::Busy(_) => true,
        // Nothing is left to write to.
        RequestError::NotFound(_) => false,
        RequestError::Conflict(_) | RequestError::Exists(_) => {
            !matches!(work, Work::Claim(_) | Work::Event(_))
        }
        // An Event into a namespace that is being deleted is forbidden for ever; roles get repaired.
        RequestError::Forbidden(_) => !matches!(work, Work::Event(_)),
        // The next report may be another one; a finalizer has no next.
        RequestError::Refused(_) => matches!(work, Work::Release(..) | Work::Claim(_)),
    };
    if again {
        shared.counters.retries.add(1);
        tracing::debug!(%error, what, "not written; tried again");
        return Ended::Again;
    }
    if !matches!(work, Work::Event(_)) {
        shared.counters.reports_dropped.add(1);
    }
    match error {
        RequestError::NotFound(_) => tracing::debug!(%error, what, "gone; not written"),
        _ => tracing::warn!(%error, what, "refused; not written"),
    }
    Ended::Dropped
}
