//! The lease: no VM runs twice, as long as guards and clocks are within the margin and nobody forgets.

use std::time::Duration;

use discovery::engine::lease::Times;

use super::check::{breaks, holds, large};
use super::leases::{Begins, Flaw, HANDLER, HOLDER, Leases, NEVER_TWICE, Plan};

/// A lease of two seconds, which outlives its renewal by no more: the margin is for guards that are late, and for clocks that
/// differ.
fn plan() -> Plan {
    let second = Duration::from_secs(1);
    let times = Times { lease: 2 * second, watchdog: Duration::ZERO, margin: 2 * second };
    times.check().expect("they are allowed");
    Plan {
        times,
        ends: 5,
        drift: 0,
        late: 0,
        begins: Begins::Running,
        renewals: 2,
        starts: 1,
        restarts: 0,
        restarting: vec![1],
        repeats: false,
        // Of the guardians, the one in the middle is heard by both sides, and decides.
        cut: vec![(HOLDER, 2), (HOLDER, HANDLER)],
        prompt: true,
        flaw: None,
    }
}

/// All guardians hear the holder again: its lease is lost for good, and another follows.
fn anew() -> Plan {
    let times = Times { margin: Duration::from_secs(1), ..plan().times };
    times.check().expect("they are allowed");
    Plan { begins: Begins::Lost, cut: vec![(HOLDER, HANDLER)], times, ends: 3, ..plan() }
}

fn larger(plan: Plan) -> Plan {
    if large() { Plan { ends: 6, renewals: 3, ..plan } } else { plan }
}

#[test]
fn a_vm_never_runs_twice_though_its_guard_is_late() {
    holds("lease, a late guard", Leases::new(larger(Plan { late: 1, ..plan() })));
}

#[test]
fn a_vm_never_runs_twice_though_a_clock_is_slow() {
    holds("lease, a slow clock", Leases::new(larger(Plan { drift: 1, ..plan() })));
}

#[test]
fn a_vm_never_runs_twice_though_a_guardian_restarts() {
    holds(
        "lease, a guardian restarts",
        Leases::new(larger(Plan { restarts: 1, renewals: 1, ..plan() })),
    );
}

#[test]
fn a_vm_never_runs_twice_though_it_is_being_started_when_its_lease_is_lost() {
    let plan = if large() { Plan { begins: Begins::Placed, ..anew() } } else { anew() };
    holds("lease, one after the other", Leases::new(plan));
}

#[test]
fn a_vm_never_runs_twice_though_its_node_goes_over_to_other_guardians() {
    let changing = Plan { begins: Begins::Changing, renewals: 1, starts: 0, ..plan() };
    holds("lease, other guardians", Leases::new(changing));
}

#[test]
fn a_guard_that_is_later_than_the_margin_lets_a_vm_run_twice() {
    let plan = Plan { late: 2, ..plan() };
    breaks("lease, a guard that is too late", Leases::new(plan), NEVER_TWICE);
}

#[test]
fn clocks_that_differ_by_more_than_the_margin_let_a_vm_run_twice() {
    let plan = Plan { drift: 2, ..plan() };
    breaks("lease, clocks that differ by too much", Leases::new(plan), NEVER_TWICE);
}

#[test]
fn a_guardian_that_forgets_at_a_restart_lets_a_vm_run_twice() {
    let plan = Plan { flaw: Some(Flaw::Forgets), restarts: 1, ..plan() };
    breaks("lease, a guardian that forgets", Leases::new(plan), NEVER_TWICE);
}

#[test]
fn a_guardian_that_answers_before_it_has_written_lets_a_vm_run_twice() {
    let plan = Plan { flaw: Some(Flaw::WritesLate), restarts: 1, renewals: 1, ends: 4, ..plan() };
    breaks("lease, written late", Leases::new(plan), NEVER_TWICE);
}

#[test]
fn a_start_that_nobody_tells_of_lets_a_vm_run_twice() {
    let plan = Plan { flaw: Some(Flaw::HidesStarts), ..anew() };
    breaks("lease, a hidden start", Leases::new(plan), NEVER_TWICE);
}

#[test]
fn a_start_that_outlives_its_agent_lets_a_vm_run_twice() {
    let flaw = Some(Flaw::StartsOutlive);
    let plan = Plan { flaw, restarts: 1, restarting: vec![HOLDER], ..anew() };
    breaks("lease, a start that outlives its agent", Leases::new(plan), NEVER_TWICE);
}
