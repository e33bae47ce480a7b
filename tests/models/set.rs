//! A change of the replica set: whatever was chosen before it is known to whoever decides after it.

use super::check::{breaks, holds, large};
use super::cluster::{Cluster, Flaw, NOTHING_LOST, ONE_HISTORY, Plan};

/// The handler n1 replaces n2, which it does not hear, by n4; n2 has a change to make, too. Which of the two decides is known to n3.
fn replaced() -> Plan {
    Plan {
        nodes: 4,
        declared: vec![(0, 1), (1, 2)],
        settled: true,
        sets: vec![[0, 2, 3]],
        take_overs: 1,
        restarts: 1,
        spared: vec![1, 2, 3],
        cut: vec![(0, 1)],
        ..Plan::default()
    }
}

/// The handler n1 replaces n2, which nobody hears, by n4, and takes that back while it is under way; n3 has a change to make, too.
fn taken_back() -> Plan {
    let (declared, cut) = (vec![(0, 1), (2, 2)], vec![(0, 1), (1, 2)]);
    let (take_overs, restarts) = (0, 0);
    Plan { declared, cut, take_overs, restarts, take_backs: 1, ..replaced() }
}

/// The keeper n3 comes back with an empty disk, and n1 takes it into the set as what it is now. Changes come to n1 and n2.
fn emptied() -> Plan {
    Plan {
        nodes: 3,
        declared: vec![(0, 1), (0, 2), (1, 3)],
        settled: true,
        lost_disks: 1,
        spared: vec![0, 1],
        cut: vec![(0, 1)],
        ..Plan::default()
    }
}

#[test]
fn a_set_that_changes_while_handlers_change_loses_and_forks_nothing() {
    let plan = if large() { replaced() } else { Plan { take_overs: 0, restarts: 0, ..replaced() } };
    holds("set, a member is replaced", Cluster::new(plan));
}

#[test]
fn a_change_of_the_set_that_is_taken_back_loses_and_forks_nothing() {
    holds("set, a change is taken back", Cluster::new(taken_back()));
}

#[test]
fn a_keeper_that_lost_its_disk_comes_back_as_another() {
    let (sets, declared) = (vec![[0, 1, 2]], vec![(0, 1), (1, 3)]);
    let (take_overs, spared) = if large() { (1, vec![1]) } else { (0, vec![0, 1]) };
    let plan = Plan { sets, declared, take_overs, spared, cut: vec![(1, 2)], ..emptied() };
    holds("set, a disk is lost", Cluster::new(plan));
}

#[test]
fn a_set_that_changes_at_once_forks() {
    let plan = Plan { flaw: Some(Flaw::NoJointSet), ..replaced() };
    breaks("set, without a joint set", Cluster::new(plan), ONE_HISTORY);
}

#[test]
fn a_keeper_that_lost_its_disk_and_keeps_its_place_loses_what_was_acknowledged() {
    let plan = Plan { flaw: Some(Flaw::SameDisk), ..emptied() };
    breaks("set, an empty disk in its old place", Cluster::new(plan), NOTHING_LOST);
}

#[test]
fn a_member_that_answers_before_it_has_written_forks_a_changing_set() {
    let plan =
        Plan { flaw: Some(Flaw::WritesLate), restarts: 1, spared: vec![0, 1, 3], ..replaced() };
    breaks("set, written late", Cluster::new(plan), ONE_HISTORY);
}
