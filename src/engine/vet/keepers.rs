//! Who keeps an environment's record: replicas that are gone for good, that lost their disk, or that are to be emptied, are
//! replaced by others, one change of the set at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::register::ballot::ReplicaSet;
use super::veh::{Rooms, Veh};
use crate::engine::context::Context;
use crate::engine::id::NodeName;
use crate::engine::record::VeRecord;
use crate::engine::replica::{Replica, is_majority};
use crate::engine::time::Instant;

/// A member that is silent for this long is replaced: by then it is not about to come back with its disk.
const REPLACE_AFTER: Duration = Duration::from_secs(60);
/// One that is silent and not one of us any more (its `PhysicalNode` was deleted) is replaced after this time.
const REPLACE_REMOVED_AFTER: Duration = Duration::from_secs(5);
/// A change of the set that is not chosen by then is taken back.
const TAKE_BACK_AFTER: Duration = Duration::from_secs(5);
/// The next change is not tried before.
const CHANGE_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// A node that is to become a member is asked again after this time, and its answer counts for as long.
const ANSWER_COUNTS_FOR: Duration = Duration::from_millis(500);

/// A member whose node says that it has another disk is asked, and again after this time.
const ASK_FOR_DISK_EVERY: Duration = Duration::from_secs(2);

/// What a handler knows of the members of its replica set.
#[derive(Debug, Default)]
pub struct Keepers {
    silent_since: BTreeMap<NodeName, Instant>,
    /// Nodes whose disk is another one now.
    lost: BTreeSet<NodeName>,
    /// Nodes that say so, and when they were asked last: what they say may be of an earlier disk, and late.
    doubted: BTreeMap<NodeName, Instant>,
    /// There were too few that stay, when that was last looked at.
    lacks: bool,
    look_at: Option<Instant>,
    /// A change was taken back: the next one is not tried before.
    not_before: Option<Instant>,
    /// Those that are to become members, and are asked first.
    invited: BTreeMap<Replica, Invitation>,
}

/// A node that is to become a member is asked whether it is there.
#[derive(Debug)]
struct Invitation {
    asked: Instant,
    answered: Option<Instant>,
}

impl Keepers {
    /// When to look again.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.look_at
    }

    fn look_soon(&mut self, at: Instant) {
        self.look_at = Some(self.look_at.map_or(at, |before| before.min(at)));
    }
}

impl Veh {
    /// A member answers from another disk.
    pub fn lost_disk(&mut self, node: NodeName) {
        self.keepers.lost.insert(node);
    }

    /// A node answers the handler. Tells whether it was asked because it is to become a member.
    pub fn answered(&mut self, by: &Replica, now: Instant) -> bool {
        let invited = self.keepers.invited.get_mut(by);
        invited.is_some_and(|invited| invited.answered.replace(now).is_none())
    }

    /// A node that may keep the record is welcome.
    #[must_use]
    pub fn lacks_keepers(&self) -> bool {
        self.keepers.lacks
    }

    /// Changes the replica set if a member of it is to go, or one is missing.
    pub(super) fn look_after_keepers(&mut self, rooms: &mut Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let members = record.set.members.clone();
        let silent = |member: &&Replica| !rooms.is_live(&member.node);
        let since = members.iter().filter(silent).map(|member| {
            let since = self.keepers.silent_since.get(&member.node).copied().unwrap_or(ctx.now);
            (member.node.clone(), since)
        });
        self.keepers.silent_since = since.collect();
        let due =
            self.keepers.silent_since.values().flat_map(|since| {
                [REPLACE_REMOVED_AFTER, REPLACE_AFTER].map(|after| *since + after)
            });
        self.keepers.look_at = due.filter(|at| *at > ctx.now).min();
        if !record.set.leaving.is_empty() {
            let set = record.set.clone();
            return self.take_back_set(&set, rooms, ctx.now);
        }
        if record.declared.deleting || rooms.registers.is_changing_set(&self.ve) {
            return;
        }
        self.ask_the_doubted(&members, rooms, ctx);
        if let Some(at) = self.keepers.not_before.filter(|at| *at > ctx.now) {
            return self.keepers.look_soon(at);
        }
        let stays = |member: &Replica| self.stays(member, rooms, ctx.now);
        let kept: Vec<Replica> = members.iter().filter(|m| stays(m)).cloned().collect();
        self.keepers.lacks = kept.len() < rooms.registers.count();
        let wanted = self.best_set(record, &kept, rooms);
        // The new set must be able to decide at once, and so must the old one.
        let there = |replica: &Replica| rooms.is_there(replica);
        if wanted == members || !is_majority(&wanted, there) || !is_majority(&members, there) {
            self.keepers.invited.clear();
        } else if self.are_sure(&wanted, &members, rooms, ctx) {
            rooms.registers.change(&self.ve, |record| record.set.change_to(wanted));
            self.keepers.lost.clear();
            self.keepers.invited.clear();
        }
    }

    /// Members that may have lost their disks answer so when they are asked, though nothing else is to be said to them.
    fn ask_the_doubted(&mut self, members: &[Replica], rooms: &Rooms<'_>, ctx: &mut Context) {
        let Keepers { lost, doubted, .. } = &mut self.keepers;
        let says_other = |member: &&Replica| {
            rooms.is_live(&member.node) && !rooms.is_there(member) && !lost.contains(&member.node)
        };
        let members: Vec<&Replica> = members.iter().filter(says_other).collect();
        doubted.retain(|node, _| members.iter().any(|member| member.node == *node));
        for member in members {
            let asked = doubted.get(&member.node).map(|at| *at + ASK_FOR_DISK_EVERY);
            if asked.is_none_or(|again| again <= ctx.now) {
                rooms.registers.ask(&self.ve, member, ctx);
                doubted.insert(member.node.clone(), ctx.now);
            }
        }
        if let Some(at) = self.keepers.doubted.values().min() {
            self.keepers.look_soon(*at + ASK_FOR_DISK_EVERY);
        }
    }

    /// Whether all new members are surely there, and with them a majority of the new set. That a peer is believed alive may be seconds
    /// old, and a change of the set whose new members have just died can be taken back by nobody but this turn of this handler: so
    /// they are asked first.
    fn are_sure(
        &mut self,
        wanted: &[Replica],
        members: &[Replica],
        rooms: &Rooms<'_>,
        ctx: &mut Context,
    ) -> bool {
        let Keepers { invited, look_at, .. } = &mut self.keepers;
        invited.retain(|replica, _| wanted.contains(replica));
        for replica in wanted.iter().filter(|replica| !members.contains(replica)) {
            let due = |invited: &Invitation| invited.asked + ANSWER_COUNTS_FOR <= ctx.now;
            if invited.get(replica).is_none_or(due) {
                rooms.registers.ask(&self.ve, replica, ctx);
                let invitation = Invitation { asked: ctx.now, answered: None };
                invited.insert(replica.clone(), invitation);
            }
        }
        let answers = |invited: &Invitation| {
            invited.answered.is_some_and(|at| ctx.now.since(at) < ANSWER_COUNTS_FOR)
        };
        let again = ctx.now + ANSWER_COUNTS_FOR;
        *look_at = Some(look_at.map_or(again, |before| before.min(again)));
        let there = |replica: &Replica| invited.contains_key(replica) || rooms.is_there(replica);
        invited.values().all(answers) && is_majority(wanted, there)
    }

    /// A change of the set whose new members do not answer is taken back before it is chosen: the old ones decide again.
    fn take_back_set(&mut self, set: &ReplicaSet, rooms: &mut Rooms<'_>, now: Instant) {
        let due = rooms.registers.waits_since(&self.ve).unwrap_or(now) + TAKE_BACK_AFTER;
        if due > now {
            self.keepers.look_soon(due);
        } else if is_majority(&set.leaving, |replica| rooms.is_there(replica)) {
            rooms.registers.take_back_set(&self.ve);
            self.keepers.not_before = Some(now + CHANGE_AGAIN_AFTER);
        } else {
            self.keepers.look_soon(now + TAKE_BACK_AFTER);
        }
    }

    fn stays(&self, member: &Replica, rooms: &Rooms<'_>, now: Instant) -> bool {
        if *member == *rooms.registers.own() {
            return !rooms.lrt.is_leaving();
        }
        let state = rooms.dnt.state_of(&member.node);
        let leaves = state.is_some_and(|state| state.leaving);
        let other_disk = self.keepers.lost.contains(&member.node)
            && state.is_some_and(|state| state.disk != member.disk);
        let patience =
            if rooms.dnt.knows(&member.node) { REPLACE_AFTER } else { REPLACE_REMOVED_AFTER };
        let silent = self.keepers.silent_since.get(&member.node);
        let gone = silent.is_some_and(|since| now.since(*since) >= patience);
        !leaves && !other_disk && !gone
    }

    /// Those that stay, and as many others as are missing; the old set where there is nobody better. An even set is not
    /// worth its price: it takes as many to decide as the next larger one.
    fn best_set(&self, record: &VeRecord, kept: &[Replica], rooms: &Rooms<'_>) -> Vec<Replica> {
        let zone = rooms.lrt.zone();
        let own = (!rooms.lrt.is_leaving()).then_some((rooms.registers.own(), zone.as_str()));
        let candidates = rooms.dnt.replicas(self.ve.as_str(), own, usize::MAX);
        let mut set = kept.to_vec();
        let new = candidates.iter().filter(|c| kept.iter().all(|kept| kept.node != c.node));
        let count = rooms.registers.count();
        set.extend(new.take(count.saturating_sub(set.len())).cloned());
        // What is to go stays for as long as there is nobody to take its place.
        for old in &record.set.members {
            if set.len() < count.min(record.set.members.len())
                && set.iter().all(|member| member.node != old.node)
            {
                set.push(old.clone());
            }
        }
        if set.len().is_multiple_of(2) && set.len() > record.set.members.len() {
            set.truncate(set.len() - 1);
        }
        if set.is_empty() { record.set.members.clone() } else { set }
    }
}
