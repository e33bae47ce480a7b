//! The register: of what several handlers have chosen, nothing is lost and nothing forks.

use super::check::{breaks, holds, large};
use super::cluster::{Cluster, Flaw, NOTHING_LOST, ONE_HISTORY, Plan};

/// Two handlers that do not hear each other, and three keepers: the third knows of both.
fn split() -> Plan {
    Plan {
        nodes: 3,
        declared: vec![(0, 1), (1, 2)],
        take_overs: 1,
        restarts: 1,
        cut: vec![(0, 1)],
        ..Plan::default()
    }
}

#[test]
#[ignore = "takes minutes: with larger bounds"]
fn two_handlers_on_both_sides_of_a_split_lose_and_fork_nothing() {
    let plan = if large() { split() } else { Plan { restarts: 0, ..split() } };
    holds("register, a split and a takeover", Cluster::new(plan));
}

#[test]
fn a_keeper_that_restarts_in_a_split_loses_and_forks_nothing() {
    let plan = Plan { take_overs: 0, ..split() };
    holds("register, a split and a restart", Cluster::new(plan));
}

#[test]
fn a_handler_and_the_one_that_takes_over_lose_and_fork_nothing() {
    let (declared, spared) = (vec![(0, 1), (0, 2)], vec![0, 2]);
    let (restarts, cut) = (0, Vec::new());
    let mut plan = Plan { settled: true, declared, restarts, spared, cut, ..split() };
    if large() {
        plan = Plan { take_overs: 0, cut: Vec::new(), ..split() };
    }
    holds("register, two handlers that hear each other", Cluster::new(plan));
}

#[test]
fn a_keeper_that_answers_before_it_has_written_forks_the_register() {
    let plan = Plan { flaw: Some(Flaw::WritesLate), take_overs: 0, ..split() };
    breaks("register, written late", Cluster::new(plan), ONE_HISTORY);
}

#[test]
fn a_keeper_that_comes_back_empty_under_its_old_id_loses_what_was_acknowledged() {
    let flaw = Some(Flaw::SameDisk);
    let plan = Plan { flaw, take_overs: 0, restarts: 0, lost_disks: 1, ..split() };
    breaks("register, an empty disk under its old id", Cluster::new(plan), NOTHING_LOST);
}

#[test]
fn a_handler_that_answers_before_its_change_is_chosen_loses_it() {
    let plan = Plan { flaw: Some(Flaw::AnswersEarly), take_overs: 0, restarts: 0, ..split() };
    breaks("register, acknowledged early", Cluster::new(plan), NOTHING_LOST);
}
