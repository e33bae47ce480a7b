//! I2: what was acknowledged is remembered by the disks of the replicas, for as long as a majority of them is kept.

use std::collections::{BTreeMap, BTreeSet};

use super::world::World;
use crate::engine::id::{NodeName, VeUid};
use crate::engine::invariants::Broken;
use crate::engine::record::{Kept, RecordKey, VeRecord};
use crate::engine::replica::{Replica, is_majority};
use crate::engine::vet::register::acceptor::Acceptor;
use crate::engine::vet::register::ballot::{Ballot, ReplicaSet};

/// What agents have said that they know.
#[derive(Debug, Default)]
pub struct Acknowledged {
    /// The highest generation, and whether the deletion too.
    told: BTreeMap<VeUid, (i64, bool)>,
    /// The newest replica set that was on a disk.
    sets: BTreeMap<VeUid, ReplicaSet>,
    /// A majority of their replicas' disks was lost: nothing is promised.
    lost: BTreeSet<VeUid>,
}

impl Acknowledged {
    /// Whether that is so of any.
    #[must_use]
    pub fn has_lost_some(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Whether nothing is promised any more, as most of the disks that kept it are gone.
    #[must_use]
    pub fn is_lost(&self, ve: &VeUid) -> bool {
        self.lost.contains(ve)
    }
}

/// Whether these replicas decide, by the checker's own reckoning: a majority of the set, and of the one that it replaces.
fn decides(set: &ReplicaSet, by: &BTreeSet<Replica>) -> bool {
    let majority = |of: &[Replica]| is_majority(of, |replica| by.contains(replica));
    majority(&set.members) && (set.leaving.is_empty() || majority(&set.leaving))
}

impl World {
    /// An agent says that it knows this generation of an environment, and whether it is being deleted.
    pub(super) fn acknowledge(&mut self, ve: &VeUid, (generation, deleting): (i64, bool)) {
        let told = self.acknowledged.told.entry(ve.clone()).or_insert((0, false));
        let newest = (told.0.max(generation), told.1 || deleting);
        if newest != *told {
            *told = newest;
            self.check_remembered(ve);
        }
    }

    /// Every disk that is there, and what it keeps of an environment.
    pub(super) fn keepers(&self, ve: &VeUid) -> Vec<(Replica, Option<&Acceptor>)> {
        let key = RecordKey::Register(ve.clone());
        let mut keepers = Vec::new();
        for (name, node) in &self.nodes {
            let incarnation = node.disk.get(&RecordKey::Incarnation);
            let Some(Kept::Incarnation { disk, .. }) = incarnation else { continue };
            let kept = match node.disk.get(&key) {
                Some(Kept::Register(acceptor)) => Some(acceptor),
                _ => None,
            };
            keepers.push((Replica { node: name.clone(), disk: *disk }, kept));
        }
        keepers
    }

    /// A majority of the disks that are to keep some record is gone: of those that the newest one names, or of the first ones. Where
    /// a change of the set is not over, the ones before can take it back, as long as the handler that has proposed it goes on: another
    /// cannot tell whether it was chosen, and what was chosen after it by the new ones alone.
    pub(super) fn has_lost_a_record(&self) -> bool {
        self.api.objects().any(|object| {
            let keepers = self.keepers(&object.declared.uid);
            let newest = newest(&keepers).map(|(_, record)| record.set.clone());
            let set = newest.unwrap_or_else(|| ReplicaSet::of(object.declared.replica_set.clone()));
            let there = |replica: &Replica| keepers.iter().any(|(kept, _)| kept == replica);
            let is_lost = |of: &[Replica]| !of.is_empty() && !is_majority(of, there);
            if set.leaving.is_empty() {
                return is_lost(&set.members);
            }
            let uid = &object.declared.uid;
            let proposes = |node: &NodeName| {
                let ves = self.engine(node).map(|engine| engine.view().ves);
                ves.is_some_and(|ves| ves.iter().any(|ve| ve.uid == *uid && ve.set == set))
            };
            is_lost(&set.leaving) || is_lost(&set.members) && !self.nodes.keys().any(proposes)
        })
    }

    /// A node has this disk still.
    pub(super) fn has_disk(&self, replica: &Replica) -> bool {
        let node = self.nodes.get(&replica.node);
        let own = node.and_then(|node| node.disk.get(&RecordKey::Incarnation));
        matches!(own, Some(Kept::Incarnation { disk, .. }) if *disk == replica.disk)
    }

    /// VMs are bound to a lease of a disk that is gone, and so many of its guardians' disks are gone, too, that nobody can ever prove
    /// that it is over: they wait for a person.
    pub(super) fn has_lease_beyond_proof(&self) -> bool {
        let there = |replica: &Replica| self.has_disk(replica);
        let kept = self.nodes.values().flat_map(|node| node.disk.values());
        let records = kept.filter_map(|kept| match kept {
            Kept::Register(acceptor) => acceptor.accepted.as_ref().map(|(_, record)| record),
            _ => None,
        });
        let mut leases = records.flat_map(|record| record.leases.values());
        leases.any(|lease| {
            lease.is_guarded() && !there(&lease.holder) && !is_majority(&lease.guardians, there)
        })
    }

    /// I2, of every environment.
    pub(super) fn check_all_remembered(&mut self) {
        let all: Vec<VeUid> = self.acknowledged.told.keys().cloned().collect();
        all.iter().for_each(|ve| self.check_remembered(ve));
    }

    /// I2: no majority of the replicas could be asked that does not know what was acknowledged.
    pub(super) fn check_remembered(&mut self, ve: &VeUid) {
        let Some((generation, deleting)) = self.acknowledged.told.get(ve).copied() else { return };
        let keepers = self.keepers(ve);
        let newest = newest(&keepers).map(|(_, record)| record.set.clone());
        let set = newest.or_else(|| self.acknowledged.sets.get(ve).cloned()).unwrap_or_default();
        let there: BTreeSet<Replica> = keepers.iter().map(|(replica, _)| replica.clone()).collect();
        let knows = |kept: &Option<&Acceptor>| {
            kept.and_then(|kept| kept.accepted.as_ref()).is_some_and(|(_, record)| {
                let declared = &record.declared;
                let deletion = declared.deleting || !deleting;
                record.tombstone || declared.generation >= generation && deletion
            })
        };
        let ignorant = keepers.iter().filter(|(_, kept)| !knows(kept));
        let ignorant: BTreeSet<Replica> = ignorant.map(|(replica, _)| replica.clone()).collect();
        let (kept, forgotten) = (decides(&set, &there), decides(&set, &ignorant));
        self.acknowledged.sets.insert(ve.clone(), set.clone());
        if !kept && !set.members.is_empty() {
            self.acknowledged.lost.insert(ve.clone());
        }
        if (forgotten || set.members.is_empty()) && !self.acknowledged.is_lost(ve) {
            let what = format!(
                "generation {generation} of {ve} (deleting {deleting}) was acknowledged, and of {:?} only {:?} know it",
                set.voices().collect::<Vec<_>>(),
                set.voices().filter(|voice| !ignorant.contains(voice)).collect::<Vec<_>>()
            );
            self.broken.push((self.now, Broken { invariant: "I2", what }));
        }
    }

    /// An agent lets go of a deleted environment: nothing of it may run.
    pub(super) fn check_released(&mut self, by: &NodeName, ve: &VeUid) {
        let left = self.nodes.iter().filter(|(_, node)| !node.frozen);
        let left = left.flat_map(|(name, node)| node.host.running().map(move |(id, _)| (id, name)));
        let left: Vec<String> = left
            .filter(|(id, _)| id.ve == *ve)
            .map(|(id, name)| format!("{id} on {name}"))
            .collect();
        if !left.is_empty() && !self.acknowledged.is_lost(ve) {
            let what = format!("{by} says that nothing is left of {ve}: {}", left.join(", "));
            self.broken.push((self.now, Broken { invariant: "I2", what }));
        }
    }
}

/// The newest value that some of these keep, and its ballot.
pub(super) fn newest<'a>(
    keepers: &[(Replica, Option<&'a Acceptor>)],
) -> Option<&'a (Ballot, VeRecord)> {
    let accepted = keepers.iter().filter_map(|(_, kept)| (*kept)?.accepted.as_ref());
    accepted.max_by(|a, b| a.0.cmp(&b.0))
}
