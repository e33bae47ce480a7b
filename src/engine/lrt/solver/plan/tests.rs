//! What plans do, case by case. Against an exact oracle they are compared in `sim/plans`.

use super::*;

const GIB: u64 = 1 << 30;

fn size(gib: u64) -> Resources {
    Resources { cpu_milli: 1_000, memory: gib * GIB }
}

fn hosts(free: &[u64]) -> Vec<Host> {
    let free = free.iter().map(|gib| Resources { cpu_milli: 64_000, memory: gib * GIB });
    free.map(|free| Host { free }).collect()
}

fn tenant(gib: u64, at: Option<usize>, may: &[usize]) -> Tenant {
    let may = (0..12).map(|host| may.contains(&host)).collect();
    Tenant { size: size(gib), at, may, cost: gib }
}

fn solved(hosts: Vec<Host>, tenants: Vec<Tenant>) -> Option<Plan> {
    plan(&Situation { hosts, tenants }, Effort::FULL)
}

fn m(tenant: usize, from: usize, to: usize) -> Move {
    Move { tenant, from, to }
}

#[test]
fn one_vm_moves_so_that_another_fits() {
    let tenants = vec![tenant(2, Some(0), &[0, 1]), tenant(4, None, &[0, 1])];
    let plan = solved(hosts(&[2, 3]), tenants).expect("a plan");
    assert_eq!(plan.steps, vec![vec![m(0, 0, 1)]]);
    assert_eq!((plan.places, plan.cost, plan.cheapest), (vec![(1, 0)], 2, true));
}

#[test]
fn what_migrates_fastest_is_moved() {
    let mut slow = tenant(2, Some(0), &[0, 1]);
    slow.cost = 9;
    let tenants = vec![slow, tenant(2, Some(0), &[0, 1]), tenant(4, None, &[0])];
    let plan = solved(hosts(&[2, 2]), tenants).expect("a plan");
    assert_eq!(plan.steps, vec![vec![m(1, 0, 1)]]);
}

#[test]
fn of_two_plans_at_one_cost_the_one_whose_moves_go_at_the_same_time_is_taken() {
    let tenants = vec![
        tenant(4, Some(0), &[0, 1]),
        tenant(2, Some(0), &[0, 1]),
        tenant(2, Some(0), &[0, 1]),
        tenant(4, None, &[0]),
    ];
    let plan = solved(hosts(&[0, 4]), tenants).expect("a plan");
    assert_eq!(plan.steps, vec![vec![m(1, 0, 1), m(2, 0, 1)]]);
    assert_eq!((plan.cost, plan.makespan), (4, 2));
}

#[test]
fn a_node_has_no_more_to_do_at_once_than_it_does() {
    let mut tenants: Vec<Tenant> = (0..5).map(|_| tenant(1, Some(0), &[1])).collect();
    tenants.push(tenant(1, Some(0), &[0]));
    let plan = solved(hosts(&[0, 8]), tenants).expect("a plan");
    let steps: Vec<usize> = plan.steps.iter().map(Vec::len).collect();
    assert_eq!(steps, vec![2, 2, 1]);
}

#[test]
fn two_vms_on_full_nodes_change_places_through_a_third() {
    let tenants = vec![tenant(4, Some(0), &[1, 2]), tenant(4, Some(1), &[0, 2])];
    // Each must leave its node; the third node has room for one, and neither may end up nowhere else.
    let plan = solved(hosts(&[0, 0, 4]), tenants).expect("a plan");
    assert_eq!(plan.cost, 8);
    let tenants =
        vec![tenant(4, Some(0), &[0, 2]), tenant(3, Some(1), &[0, 1, 2]), tenant(3, None, &[1])];
    // Only the first node has a gap of 3 when its VM has gone to the third.
    let plan = solved(hosts(&[0, 0, 4]), tenants).expect("a plan");
    assert_eq!((plan.steps, plan.cost), (vec![vec![m(1, 1, 2)]], 3));
}

#[test]
fn a_swap_takes_three_moves_when_nobody_may_stay_on_the_third_node() {
    // The large one wants the first node, which has the small one; that may go to the second only, where the middle one is.
    let tenants = vec![
        tenant(4, Some(0), &[0, 1, 2]),
        tenant(4, Some(1), &[0, 1, 2]),
        tenant(4, None, &[2]),
        // Pins what must be where at the end: these want the node of the other.
        tenant(4, None, &[3]),
        tenant(4, Some(3), &[0, 1, 2, 3]),
    ];
    assert_eq!(solved(hosts(&[0, 0, 4, 0]), tenants), None, "there is not room for all");
    let swap =
        vec![tenant(4, Some(0), &[1, 2]), tenant(4, Some(1), &[0, 2]), tenant(4, None, &[2])];
    let plan = solved(hosts(&[0, 0, 4]), swap).expect("a plan");
    assert_eq!(plan.steps.len(), 3, "{plan:?}");
    assert_eq!((plan.cost, plan.places), (12, vec![(2, 2)]));
}

#[test]
fn several_that_want_room_are_let_in_together_or_not_at_all() {
    let gib = |at, gib| tenant(gib, at, &[0, 1]);
    let tenants = vec![gib(Some(0), 1), gib(Some(0), 2), gib(None, 3), gib(None, 3)];
    let plan = solved(hosts(&[2, 4]), tenants.clone()).expect("a plan");
    assert_eq!((plan.cost, plan.places.len()), (1, 2));
    assert_eq!(solved(hosts(&[2, 3]), tenants), None);
}

#[test]
fn processors_count_as_memory_does() {
    let mut wants = tenant(1, None, &[0]);
    wants.size.cpu_milli = 64_000;
    let tenants = vec![tenant(1, Some(0), &[0, 1]), tenant(2, Some(0), &[0, 1]), wants];
    let mut hosts = hosts(&[8, 8]);
    hosts[0].free.cpu_milli = 63_000;
    let plan = solved(hosts, tenants).expect("a plan");
    assert_eq!(plan.steps, vec![vec![m(0, 0, 1)]]);
}

#[test]
fn of_many_nodes_a_few_are_enough() {
    let may: Vec<usize> = (0..12).collect();
    let mut free = [1; 12];
    free[11] = 3;
    let mut tenants: Vec<Tenant> = (0..12).map(|host| tenant(4, Some(host), &may)).collect();
    tenants[9] = tenant(3, Some(9), &may);
    tenants.push(tenant(4, None, &may));
    let plan = solved(hosts(&free), tenants).expect("a plan");
    assert_eq!(plan.steps, vec![vec![m(9, 9, 11)]]);
    assert_eq!(plan.places, vec![(12, 9)]);
}

#[test]
fn nothing_is_moved_where_everybody_has_room() {
    let tenants = vec![tenant(2, Some(0), &[0, 1]), tenant(2, None, &[0, 1])];
    let plan = solved(hosts(&[2, 0]), tenants).expect("a plan");
    assert_eq!((plan.steps, plan.places), (vec![], vec![(1, 0)]));
}
