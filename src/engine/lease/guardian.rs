//! What this node guards for others.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::Said;
use super::{Absence, LONGEST_ABSENCE, Times};
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
    /// The newest word of an absence.
    pub absence: Absence,
}

impl Ward {
    fn new(holder: Replica) -> Self {
        Self { holder, released: 0, epochs: BTreeMap::new() }
    }
}

/// The wards of one node.
#[derive(Clone, Debug)]
pub struct Guardian {
    wards: BTreeMap<Replica, Ward>,
    /// When each epoch was last acknowledged, as far as this life of the agent knows.
    acknowledged: BTreeMap<(Replica, u64), Instant>,
    /// Until when an absence that was acknowledged lasts. Never sooner, but by a later word.
    away: BTreeMap<(Replica, u64), Instant>,
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
        let wards: BTreeMap<_, _> =
            wards.into_iter().map(|ward| (ward.holder.clone(), ward)).collect();
        let mut away = BTreeMap::new();
        for ward in wards.values() {
            // It was acknowledged before this life began.
            let absent = ward.epochs.iter().filter(|(_, g)| !g.absence.lasts.is_zero());
            away.extend(absent.map(|(epoch, guarded)| {
                ((ward.holder.clone(), *epoch), began + guarded.absence.lasts)
            }));
        }
        Self { wards, acknowledged: BTreeMap::new(), away, began }
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
        ((life, sent), times, released, absence): ((u64, Instant), Times, u64, Absence),
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
            self.away.retain(|(of, epoch), _| of != holder || *epoch > released);
            news = true;
        }
        if epoch <= ward.released || absence.lasts > LONGEST_ABSENCE {
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
                let before = known.map(|guarded| guarded.absence);
                let newer = before.unwrap_or_default().number < absence.number;
                if before.is_none() || newer {
                    let absence = if newer { absence } else { before.unwrap_or_default() };
                    ward.epochs.insert(epoch, Guarded { times, fenced: false, absence });
                    news = true;
                }
                let key = (holder.clone(), epoch);
                if newer && absence.lasts.is_zero() {
                    self.away.remove(&key);
                } else if !absence.lasts.is_zero() && (newer || before == Some(absence)) {
                    // Said again, it begins again: the holder counts from the last one that was answered.
                    self.away.insert(key, now + absence.lasts);
                }
                self.acknowledged.insert((holder.clone(), epoch), now);
                (Said::Renewed { life, sent }, news.then(|| ward.clone()))
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
            let (times, absence) = (Times::default(), Absence::default());
            ward.epochs.insert(epoch, Guarded { times, fenced: true, absence });
            self.acknowledged.insert((holder.clone(), epoch), Instant::ZERO);
            return (Said::Fenced, Some(ward.clone()));
        };
        let silent = now.since(last);
        let beyond = guarded.times.until_fenced().saturating_sub(guarded.times.lease);
        let away = self.away.get(&(holder.clone(), epoch)).copied().unwrap_or(Instant::ZERO);
        if !guarded.fenced && away > now {
            return (Said::Away(away.since(now) + beyond), None);
        }
        if !guarded.fenced && silent < guarded.times.lease {
            return (Said::Alive(silent), None);
        }
        let news = !guarded.fenced;
        guarded.fenced = true;
        let beyond = if has(Bug::FencedAtOnce) { Duration::ZERO } else { beyond };
        let end = (last + guarded.times.lease).max(away) + beyond;
        let left = end.since(now);
        let said = if left.is_zero() { Said::Fenced } else { Said::Fencing(left) };
        (said, (news && !has(Bug::PromiseUnwritten)).then(|| ward.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::id::NodeName;
    use crate::engine::replica::DiskId;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Instant {
        Instant::ZERO + Duration::from_secs(seconds)
    }

    fn holder() -> Replica {
        Replica { node: NodeName::from("n1"), disk: DiskId(1) }
    }

    fn renew(guardian: &mut Guardian, now: u64, absence: Absence) -> (Said, Option<Ward>) {
        guardian.renew(&holder(), 1, ((1, at(now)), Times::default(), 0, absence), at(now))
    }

    #[test]
    fn who_was_heard_lately_is_alive_and_who_was_fenced_is_never_acknowledged_again() {
        let mut guardian = Guardian::recover(Vec::new(), at(0));
        let (said, written) = renew(&mut guardian, 1, Absence::is_over(1));
        assert_eq!(said, Said::Renewed { life: 1, sent: at(1) });
        assert!(written.is_some(), "the first one is written");
        assert_eq!(renew(&mut guardian, 2, Absence::is_over(1)).1, None, "the next one is not");
        let fence = |guardian: &mut Guardian, now| guardian.fence(&holder(), 1, at(now)).0;
        assert_eq!(fence(&mut guardian, 6), Said::Alive(Duration::from_secs(4)));
        assert_eq!(fence(&mut guardian, 7), Said::Fencing(Duration::from_secs(6)));
        assert_eq!(renew(&mut guardian, 8, Absence::is_over(1)).0, Said::Dead);
        assert_eq!(fence(&mut guardian, 13), Said::Fenced);
    }

    #[test]
    fn who_has_announced_its_absence_is_waited_for_also_by_the_guardians_next_life() {
        let mut guardian = Guardian::recover(Vec::new(), at(0));
        renew(&mut guardian, 1, Absence::is_over(1));
        let (_, written) = renew(&mut guardian, 2, Absence::begins(1, MINUTE));
        let ward = written.expect("the next life must know");
        let beyond = Times::default().watchdog + Times::default().margin;
        let away = guardian.fence(&holder(), 1, at(12));
        assert_eq!(away, (Said::Away(Duration::from_secs(50) + beyond), None));
        assert_eq!(guardian.fence(&holder(), 1, at(62)).0, Said::Fencing(beyond));
        // The next life of the guardian does not know when it was acknowledged: before it began.
        let mut next = Guardian::recover(vec![ward], at(20));
        assert_eq!(next.fence(&holder(), 1, at(79)).0, Said::Away(Duration::from_secs(1) + beyond));
        assert_eq!(next.fence(&holder(), 1, at(86)).0, Said::Fenced);
    }

    #[test]
    fn an_absence_ends_by_the_word_of_the_next_life_only() {
        let mut guardian = Guardian::recover(Vec::new(), at(0));
        renew(&mut guardian, 1, Absence::begins(1, MINUTE));
        // Late words of the life that went away, and words of the next one before its guard has heard it.
        renew(&mut guardian, 2, Absence::is_over(1));
        renew(&mut guardian, 3, Absence::default());
        assert!(matches!(guardian.fence(&holder(), 1, at(20)).0, Said::Away(_)));
        let (_, written) = renew(&mut guardian, 21, Absence::is_over(2));
        assert!(written.is_some(), "written before it is counted on");
        assert_eq!(guardian.fence(&holder(), 1, at(32)).0, Said::Fenced);
        let (said, _) = renew(&mut guardian, 33, Absence::begins(2, LONGEST_ABSENCE * 2));
        assert_eq!(said, Said::Dead, "nobody is away for so long");
    }
}
