//! What each goal prefers.

use super::*;

/// n0 (nearest) half full, n1 empty, n2 nearly full.
fn offers() -> [NodeOffer; 3] {
    [500, 1000, 100].map(|free| {
        let mut offer = offer("", "", 1000);
        offer.free.memory = free * MIB;
        offer.node = NodeName::from(format!("n{free}"));
        offer
    })
}

fn nodes(goal: Goal, vms: Vec<VmDefinition>) -> Vec<String> {
    let found = solve(&problem(vms, vec![]), &offers(), goal).expect("it fits");
    found.into_values().map(|node| node.to_string()).collect()
}

#[test]
fn balance_takes_the_node_with_the_most_room_left_after() {
    assert_eq!(nodes(Goal::Balance, vec![vm("web", 0, 100)]), ["n1000"]);
    let some = nodes(Goal::Balance, (0..5).map(|i| vm("web", i, 100)).collect());
    assert!(some.iter().all(|node| *node == "n1000"), "{some:?}");
    let more = nodes(Goal::Balance, (0..9).map(|i| vm("web", i, 100)).collect());
    assert_eq!(more.iter().filter(|node| *node == "n500").count(), 2, "{more:?}");
}

#[test]
fn pack_takes_the_fullest_that_fits_and_opens_no_empty_node_needlessly() {
    assert_eq!(nodes(Goal::Pack, vec![vm("web", 0, 100)]), ["n100"]);
    assert_eq!(nodes(Goal::Pack, vec![vm("web", 0, 101)]), ["n500"]);
    let many = nodes(Goal::Pack, (0..6).map(|i| vm("web", i, 100)).collect());
    assert!(!many.contains(&"n1000".to_owned()), "{many:?}");
}

#[test]
fn stay_takes_the_nearest_that_fits() {
    assert_eq!(nodes(Goal::Stay, vec![vm("web", 0, 100)]), ["n500"]);
    assert_eq!(nodes(Goal::Stay, vec![vm("web", 0, 501)]), ["n1000"]);
}

#[test]
fn of_two_nodes_that_serve_the_goal_alike_the_nearer_is_taken() {
    for goal in [Goal::Balance, Goal::Pack, Goal::Stay] {
        let offers = [offer("near", "", 100), offer("far", "", 100)];
        let found = solve(&problem(vec![vm("web", 0, 10)], vec![]), &offers, goal);
        let nodes: Vec<_> = found.expect("it fits").into_values().collect();
        assert_eq!(nodes, [NodeName::from("near")], "{goal:?}");
    }
}
