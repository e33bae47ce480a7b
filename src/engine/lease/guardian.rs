//! What this node guards for others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Times;
use super::message::Said;
use crate::engine::bugs::{Bug, has};
use crate::engine::replica::Replica;
use crate::engine::time::Instant;

/// What a guardian keeps of one holder, on disk before it is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ward {
    /// Whose leases.
    pub holder: Replica,
    /// Epochs up to this one are over: their holder has said so.
    pub released: u64,
    /// The epochs that were acknowledged, or promised not to be.
    pub epochs: BTreeMap<u64, Guarded>,
}

/// One epoch, as its guardian keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guarded {
    /// The times that were agreed at the first acknowledgement.
    pub times: Times,
    /// Never acknowledged again.
    pub fenced: bool,
}

impl Ward {
    fn new(holder: Replica) -> Self {
        Self { holder, released: 0, epochs: BTreeMap::new() }
    }
}

/// The wards of one node.
#[derive(Debug)]
pub struct Guardian {
    wards: BTreeMap<Replica, Ward>,
    /// When each epoch was last acknowledged, as far as this life of the agent knows.
    acknowledged: BTreeMap<(Replica, u64), Instant>,
    /// When this life began: whatever an earlier one acknowledged, it did before.
    began: Instant,
}

/// Holders whose wards are kept: more than a cell has nodes with all their disks.
const MOST_WARDS: usize = 4096;
/// Epochs of one holder that are kept: it has two at a time.
const MOST_EPOCHS: usize = 8;

impl Guardian {
    /// The wards as they were kept.
    #[must_use]
    pub fn recover(wards: Vec<Ward>, began: Instant) -> Self {
        let wards = wards.into_iter().map(|ward| (ward.holder.clone(), ward)).collect();
        Self { wards, acknowledged: BTreeMap::new(), began }
    }

    /// The wards, for people.
    pub fn wards(&self) -> impl Iterator<Item = &Ward> {
        self.wards.values()
    }

    fn last(&self, holder: &Replica, epoch: u64) -> Instant {
        let unknown = if has(Bug::RestartIsSilence) { Instant::ZERO } else { self.began };
        self.acknowledged.get(&(holder.clone(), epoch)).copied().unwrap_or(unknown)
    }

    /// A holder renews: the answer, and the ward if it must be written before it is given.
    pub fn renew(
        &mut self,
        holder: &Replica,
        epoch: u64,
        (sent, times, released): (Instant, Times, u64),
        now: Instant,
    ) -> (Said, Option<Ward>) {
        if !self.wards.contains_key(holder) && self.wards.len() >= MOST_WARDS {
            return (Said::Dead, None);
        }
        let ward = self.wards.entry(holder.clone()).or_insert_with(|| Ward::new(holder.clone()));
        let mut news = false;
        if released > ward.released {
            ward.released = released;
            ward.epochs.retain(|epoch, _| *epoch > released);
            self.acknowledged.retain(|(of, epoch), _| of != holder || *epoch > released);
            news = true;
        }
        if epoch <= ward.released {
            return (Said::Dead, news.then(|| ward.clone()));
        }
        match ward.epochs.get(&epoch) {
            Some(guarded) if guarded.fenced && !has(Bug::FencedRenewed) => {
                (Said::Dead, news.then(|| ward.clone()))
            }
            // Other times than were agreed would be another lease.
            Some(guarded) if guarded.times != times => (Said::Dead, news.then(|| ward.clone())),
            None if ward.epochs.len() >= MOST_EPOCHS => (Said::Dead, news.then(|| ward.clone())),
            known => {
                if known.is_none() {
                    ward.epochs.insert(epoch, Guarded { times, fenced: false });
                    news = true;
                }
                self.acknowledged.insert((holder.clone(), epoch), now);
                (Said::Renewed { sent }, news.then(|| ward.clone()))
            }
        }
    }

    /// Somebody wants to know whether a lease is over: the answer, and the ward if it must be written before it is given.
    pub fn fence(&mut self, holder: &Replica, epoch: u64, now: Instant) -> (Said, Option<Ward>) {
        let last = self.last(holder, epoch);
        if !self.wards.contains_key(holder) && self.wards.len() >= MOST_WARDS {
            return (Said::Alive(now.since(self.began)), None);
        }
        let ward = self.wards.entry(holder.clone()).or_insert_with(|| Ward::new(holder.clone()));
        if epoch <= ward.released {
            return (Said::Fenced, None);
        }
        // What was never acknowledged has nothing to wait for; the promise is needed all the same.
        let Some(guarded) = ward.epochs.get_mut(&epoch) else {
            ward.epochs.insert(epoch, Guarded { times: Times::default(), fenced: true });
            self.acknowledged.insert((holder.clone(), epoch), Instant::ZERO);
            return (Said::Fenced, Some(ward.clone()));
        };
        let silent = now.since(last);
        if !guarded.fenced && silent < guarded.times.lease {
            return (Said::Alive(silent), None);
        }
        let news = !guarded.fenced;
        guarded.fenced = true;
        let wait =
            if has(Bug::FencedAtOnce) { guarded.times.lease } else { guarded.times.until_fenced() };
        let left = wait.saturating_sub(silent);
        let said = if left.is_zero() { Said::Fenced } else { Said::Fencing(left) };
        (said, (news && !has(Bug::PromiseUnwritten)).then(|| ward.clone()))
    }
}
