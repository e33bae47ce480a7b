//! What each constraint means, one by one, when VMs are placed and when one moves.

use super::*;

fn labelled(node: &str, key: &str, value: &str) -> NodeOffer {
    let mut offer = offer(node, "", 1000);
    offer.labels.insert(key.to_owned(), value.to_owned());
    offer
}

fn by_label(key: &str, value: &str) -> NodeSelector {
    NodeSelector { names: vec![], labels: BTreeMap::from([(key.to_owned(), value.to_owned())]) }
}

fn by_name(names: &[&str]) -> NodeSelector {
    let names = names.iter().map(|name| NodeName::from(*name)).collect();
    NodeSelector { names, labels: BTreeMap::new() }
}

/// The node of each VM, or nothing.
fn placed(problem: &Problem, offers: &[NodeOffer]) -> Option<Vec<String>> {
    let found = solve(problem, offers, Goal::Stay)?;
    Some(found.into_values().map(|node| node.to_string()).collect())
}

fn at(node: &str) -> Place {
    let size = Resources::of(1, 100 * MIB);
    Place { node: NodeName::from(node), zone: String::new(), size }
}

/// A problem of VMs that have their places.
fn settled(places: &[(&str, u32, &str)], constraints: Vec<Constraint>) -> Problem {
    let mut problem = problem(vec![], constraints);
    for (member, index, node) in places {
        problem.existing.insert(vm(member, *index, 100).id, at(node));
    }
    problem
}

fn moves(problem: &Problem, id: (&str, u32), to: &str, offers: &[NodeOffer]) -> Result<(), String> {
    let id = vm(id.0, id.1, 100).id;
    let from = problem.existing[&id].node.clone();
    problem.holds_during_move(&id, &from, &NodeName::from(to), offers)
}

fn three() -> [NodeOffer; 3] {
    ["n0", "n1", "n2"].map(|node| offer(node, "", 1000))
}

#[test]
fn a_lonely_vm_goes_where_no_other_environment_is() {
    let mut offers = three();
    offers[0].others = 1;
    let lonely =
        |member| vec![Constraint::Lonely { members: members(&[member]), continuous: true }];
    let vms = || vec![vm("db", 0, 10), vm("web", 0, 10)];
    let nodes = placed(&problem(vms(), lonely("db")), &offers);
    assert_eq!(nodes, Some(vec!["n1".into(), "n0".into()]), "web may share, db may not");
    let text = explain(&problem(vms(), lonely("db")), &offers[..1], &BTreeMap::new());
    assert_eq!(text, "no schedulable node satisfies lonely (db) for db-0 (1 of 1 nodes asked)");
}

#[test]
fn an_among_keeps_to_one_group_whichever() {
    let offers =
        [("n0", "a"), ("n1", "b"), ("n2", "b"), ("n3", "c")].map(|(n, r)| labelled(n, "rack", r));
    let groups = vec![by_label("rack", "a"), by_label("rack", "b")];
    let among = Constraint::Among { members: vec![], groups, continuous: false };
    let spread = Constraint::Spread { members: vec![], over: Domain::Node, continuous: true };
    let two = || (0..2).map(|i| vm("db", i, 10)).collect();
    let nodes = placed(&problem(two(), vec![among.clone(), spread.clone()]), &offers);
    assert_eq!(nodes, Some(vec!["n1".into(), "n2".into()]), "rack a has one node only");
    assert_eq!(
        explain(&problem(two(), vec![among, spread]), &offers[..2], &BTreeMap::new()),
        "among (all, 2 groups) and spread (all, node) clash: without either, it would fit; at best 1 of 2 VMs find \
         a place (2 of 2 nodes asked)"
    );
}

#[test]
fn an_among_must_know_the_nodes_of_those_that_are_there() {
    let groups = vec![by_label("rack", "a"), by_label("rack", "b")];
    let among = Constraint::Among { members: vec![], groups, continuous: false };
    let mut one = settled(&[("db", 0, "n2")], vec![among]);
    one.vms.push(vm("db", 1, 10));
    assert_eq!(one.asked_first().into_iter().next(), Some(&NodeName::from("n2")));
    let offers = [("n0", "a"), ("n1", "b"), ("n2", "b")].map(|(n, r)| labelled(n, "rack", r));
    assert_eq!(placed(&one, &offers[..2]), None, "n2's rack is not known");
    assert_eq!(placed(&one, &offers), Some(vec!["n1".into()]));
    let mut cordoned = offers.clone();
    cordoned[2].schedulable = false;
    assert_eq!(placed(&one, &cordoned), Some(vec!["n1".into()]), "it need not take new ones");
}

#[test]
fn a_split_keeps_two_sets_apart_and_says_nothing_within_each() {
    let split = |over| {
        let (members, from) = (members(&["web"]), members(&["db"]));
        vec![Constraint::Split { members, from, over, continuous: true }]
    };
    let vms = vec![vm("db", 0, 10), vm("web", 0, 9), vm("web", 1, 9)];
    let nodes = placed(&problem(vms.clone(), split(Domain::Node)), &three());
    assert_eq!(nodes, Some(vec!["n1".into(), "n0".into(), "n0".into()]));
    let one_zone = [offer("n0", "x", 100), offer("n1", "x", 100)];
    assert_eq!(placed(&problem(vms, split(Domain::Zone)), &one_zone), None);
}

#[test]
fn no_vm_enters_a_quarantine_but_one_that_has_its_disks_there_starts_again() {
    let quarantine = Constraint::Quarantine { nodes: by_name(&["n0"]) };
    let mut one = problem(vec![vm("web", 0, 10)], vec![quarantine]);
    assert_eq!(placed(&one, &three()), Some(vec!["n1".into()]));
    one.pinned.insert(one.vms[0].id.clone(), NodeName::from("n0"));
    assert_eq!(placed(&one, &three()), Some(vec!["n0".into()]));
}

#[test]
fn a_running_capacity_counts_the_vms_on_its_nodes_together() {
    let offers =
        [("n0", "yes"), ("n1", "yes"), ("n2", "no")].map(|(n, l)| labelled(n, "licensed", l));
    let capacity = Constraint::RunningCapacity {
        members: members(&["web"]),
        nodes: by_label("licensed", "yes"),
        max: 1,
        continuous: true,
    };
    let vms = vec![vm("db", 0, 10), vm("web", 0, 9), vm("web", 1, 9)];
    let nodes = placed(&problem(vms, vec![capacity.clone()]), &offers);
    assert_eq!(nodes, Some(vec!["n0".into(), "n0".into(), "n2".into()]));
    let mut more = settled(&[("web", 0, "n7")], vec![capacity]);
    more.vms.push(vm("web", 1, 9));
    assert_eq!(placed(&more, &offers), Some(vec!["n2".into()]), "n7 may be a licensed one");
}

#[test]
fn an_overbook_counts_all_processors_on_the_nodes_of_its_members() {
    let mut offers = three();
    for offer in &mut offers {
        (offer.processors_milli, offer.allocated.cpu_milli) = (4_000, 2_000);
    }
    let overbook = Constraint::Overbook { members: members(&["db"]), cpu_percent: 100 };
    let vms = vec![vm("db", 0, 10), vm("web", 0, 9), vm("web", 1, 9), vm("web", 2, 9)];
    let nodes = placed(&problem(vms, vec![overbook.clone()]), &offers).expect("it fits");
    let beside = nodes[1..].iter().filter(|node| **node == nodes[0]).count();
    assert!(beside <= 1, "two of four were in use, db takes one: {nodes:?}");
    offers.iter_mut().for_each(|offer| offer.allocated.cpu_milli = 4_000);
    assert_eq!(placed(&problem(vec![vm("db", 0, 10)], vec![overbook]), &offers), None);
}

#[test]
fn a_spare_node_has_room_for_the_loss_of_any_other() {
    let offers = [offer("n0", "", 100), offer("n1", "", 100), offer("n2", "", 100)];
    let two = |spare: bool| {
        let constraints = if spare { vec![Constraint::Spare] } else { vec![] };
        problem((0..2).map(|i| vm("web", i, 60)).collect(), constraints)
    };
    assert!(placed(&two(false), &offers[..2]).is_some());
    assert_eq!(placed(&two(true), &offers[..2]), None);
    assert!(placed(&two(true), &offers).is_some());
    assert_eq!(
        explain(&two(true), &offers[..2], &BTreeMap::new()),
        "spare (1) cannot hold: without it, it would fit; with one node lost, its VMs find no room on the others (2 \
         of 2 nodes asked)"
    );
    let mut grown = settled(&[("web", 7, "n9")], vec![Constraint::Spare]);
    grown.vms = vec![vm("web", 0, 60)];
    assert_eq!(placed(&grown, &offers[..1]), None, "n9 may be lost, and its VM needs room too");
    assert!(placed(&grown, &[offers[0].clone(), offer("n1", "", 160)]).is_some());
}

#[test]
fn a_vm_that_moves_is_in_the_way_of_others_and_not_in_its_own() {
    let spread = |over| vec![Constraint::Spread { members: vec![], over, continuous: true }];
    let apart = [("web", 0, "n0"), ("web", 1, "n1")];
    let nodes = settled(&apart, spread(Domain::Node));
    assert_eq!(moves(&nodes, ("web", 0), "n2", &three()), Ok(()));
    assert_eq!(
        moves(&nodes, ("web", 0), "n1", &three()),
        Err("spread (all, node) would not hold with it on n1".into())
    );
    let zones = ["n0", "n1"].map(|node| offer(node, "x", 1000));
    let mut zone = settled(&apart[..1], spread(Domain::Zone));
    zone.existing.values_mut().for_each(|place| place.zone = "x".into());
    assert_eq!(moves(&zone, ("web", 0), "n1", &zones), Ok(()), "within its own zone");
}

#[test]
fn who_is_on_its_way_counts_at_both_ends_if_the_constraint_is_continuous() {
    let under_way = |continuous| {
        let spread = Constraint::Spread { members: vec![], over: Domain::Node, continuous };
        let mut problem = settled(&[("web", 0, "n0"), ("web", 1, "n1")], vec![spread]);
        problem.moving.insert(vm("web", 1, 100).id, at("n2"));
        problem
    };
    assert_eq!(moves(&under_way(false), ("web", 0), "n1", &three()), Ok(()), "n1 is being left");
    assert!(moves(&under_way(true), ("web", 0), "n1", &three()).is_err());
    for continuous in [true, false] {
        assert!(moves(&under_way(continuous), ("web", 0), "n2", &three()).is_err());
    }
    // Two that belong together may follow each other only by a discrete gather.
    let gather = |continuous| {
        let gather = Constraint::Gather { members: vec![], over: Domain::Node, continuous };
        let mut problem = settled(&[("web", 0, "n0"), ("web", 1, "n0")], vec![gather]);
        problem.moving.insert(vm("web", 1, 100).id, at("n2"));
        problem
    };
    assert_eq!(moves(&gather(false), ("web", 0), "n2", &three()), Ok(()));
    assert!(moves(&gather(true), ("web", 0), "n2", &three()).is_err());
}

#[test]
fn a_root_and_a_quarantine_let_nobody_leave() {
    let root = Constraint::Root { members: members(&["db"]) };
    assert!(root.forbids_moving(&MemberName::from("db")));
    let both = settled(&[("db", 0, "n0"), ("web", 0, "n0")], vec![root]);
    assert_eq!(moves(&both, ("web", 0), "n1", &three()), Ok(()));
    assert_eq!(moves(&both, ("db", 0), "n1", &three()), Err("root (db) keeps it on n0".into()));

    let quarantine = vec![Constraint::Quarantine { nodes: by_name(&["n0"]) }];
    let both = settled(&[("db", 0, "n0"), ("web", 0, "n1")], quarantine);
    assert_eq!(
        moves(&both, ("db", 0), "n1", &three()),
        Err("quarantine (n0) keeps it on n0".into())
    );
    assert_eq!(
        moves(&both, ("web", 0), "n0", &three()),
        Err("quarantine (n0) would not hold with it on n0".into())
    );
    assert_eq!(moves(&both, ("web", 0), "n2", &three()), Ok(()));
}

#[test]
fn a_move_minds_who_else_is_on_the_target() {
    let mut offers = three();
    (offers[1].others, offers[1].processors_milli, offers[2].schedulable) = (1, 1_000, false);
    let lonely = Constraint::Lonely { members: vec![], continuous: true };
    let overbook = Constraint::Overbook { members: vec![], cpu_percent: 50 };
    for (constraint, name) in [(lonely, "lonely (all)"), (overbook, "overbook (all, 50 %)")] {
        let one = settled(&[("db", 0, "n0")], vec![constraint]);
        assert_eq!(
            moves(&one, ("db", 0), "n1", &offers),
            Err(format!("{name} would not hold with it on n1"))
        );
    }
    let free = settled(&[("db", 0, "n0")], vec![]);
    assert_eq!(moves(&free, ("db", 0), "n1", &offers), Ok(()));
    assert!(moves(&free, ("db", 0), "n9", &offers).is_err());
}
