//! What people read when an environment waits: each text to the letter.

use super::*;

/// The reason, without how many nodes were asked.
fn why(problem: &Problem, offers: &[NodeOffer]) -> String {
    assert_eq!(solve(problem, offers, Goal::Balance), None, "it fits");
    let text = explain(problem, offers, &BTreeMap::new());
    let asked = format!(" ({0} of {0} nodes asked)", offers.len());
    text.strip_suffix(&asked).expect("it ends with the nodes that were asked").to_owned()
}

fn webs(count: u32, memory_mib: u64) -> Vec<VmDefinition> {
    (0..count).map(|index| vm("web", index, memory_mib)).collect()
}

fn spread(member: &str, over: Domain) -> Constraint {
    Constraint::Spread { members: members(&[member]), over, continuous: true }
}

fn fence(member: &str, selector: NodeSelector) -> Constraint {
    Constraint::Fence { members: members(&[member]), nodes: selector, continuous: true }
}

fn zone(name: &str) -> NodeSelector {
    NodeSelector { labels: BTreeMap::from([("zone".into(), name.into())]), ..named(&[]) }
}

fn named(names: &[&str]) -> NodeSelector {
    let names = names.iter().map(|name| NodeName::from(*name)).collect();
    NodeSelector { names, labels: BTreeMap::new() }
}

#[test]
fn one_vm_that_is_too_large_is_told_with_the_best_node() {
    let offers = [offer("n0", "x", 300), offer("n1", "y", 100)];
    let big = problem(vec![vm("db", 0, 512)], vec![]);
    let absent = BTreeMap::from([(NodeName::from("n2"), "is cordoned".to_owned())]);
    assert_eq!(
        explain(&big, &offers, &absent),
        "db-0 needs 512Mi of memory; the most that a node has free is 300Mi (n0): 212Mi short (2 of 3 nodes \
         asked); n2 is cordoned"
    );
    let fenced = problem(vec![vm("db", 0, 200)], vec![fence("db", zone("y"))]);
    assert_eq!(
        why(&fenced, &offers),
        "db-0 needs 200Mi of memory; the most that a node of fence (db, zone=y) has free is 100Mi (n1): 100Mi \
         short"
    );
}

#[test]
fn too_few_processors_are_told_of_the_nodes_with_the_memory() {
    let mut offers = [offer("n0", "x", 300), offer("n1", "y", 100)];
    offers[0].free.cpu_milli = 500;
    let one = problem(vec![vm("db", 0, 200)], vec![]);
    assert_eq!(
        why(&one, &offers),
        "db-0 needs 1 cpu and 200Mi; the most that a node with the memory has free is 0.5 cpus (n0): 0.5 cpus short"
    );
}

#[test]
fn a_fence_that_no_node_satisfies_is_named() {
    let fenced = problem(webs(1, 1), vec![fence("web", named(&["n9"]))]);
    assert_eq!(
        why(&fenced, &[offer("n0", "x", 300)]),
        "no schedulable node satisfies fence (web, n9) for web-0"
    );
}

#[test]
fn disks_on_a_node_that_takes_nothing_are_told() {
    let mut one = problem(webs(1, 1), vec![]);
    one.pinned.insert(one.vms[0].id.clone(), NodeName::from("n7"));
    assert_eq!(
        why(&one, &[offer("n0", "x", 300)]),
        "web-0 has its disks on n7, which takes no VMs now"
    );
}

#[test]
fn a_spread_over_too_few_nodes_says_how_many_have_the_room() {
    let offers = [offer("n0", "x", 300), offer("n1", "y", 100), offer("n2", "y", 10)];
    let three = problem(webs(3, 50), vec![spread("web", Domain::Node)]);
    assert_eq!(
        why(&three, &offers),
        "spread (web, node) needs 3 nodes with 1 cpu and 50Mi free, and there are 2: 1 short"
    );
    let mut more = problem(webs(3, 50), vec![spread("web", Domain::Zone)]);
    more.vms.remove(0);
    let place = Place { node: NodeName::from("n9"), zone: "x".into(), size: Resources::default() };
    more.existing.insert(vm("web", 0, 50).id, place);
    assert_eq!(
        why(&more, &offers),
        "spread (web, zone) needs 2 more zones with 1 cpu and 50Mi free, and there is 1: 1 short"
    );
}

#[test]
fn what_is_short_in_all_is_told_as_a_sum() {
    let offers = [offer("n0", "x", 300), offer("n1", "y", 100)];
    let many = problem(webs(9, 50), vec![]);
    assert_eq!(why(&many, &offers), "needs 450Mi of memory in all; 400Mi is free: 50Mi short");
}

#[test]
fn room_in_pieces_is_told_with_how_far_it_came() {
    let offers = [offer("n0", "x", 50), offer("n1", "y", 50)];
    let pieces = problem(webs(3, 30), vec![]);
    assert_eq!(
        why(&pieces, &offers),
        "each VM would fit on a node alone, but not all together in the free room: at best 2 of 3 VMs find a \
         place"
    );
}

#[test]
fn a_spread_and_a_fence_that_clash_are_named_with_how_many_nodes_satisfy_the_fence() {
    let offers: Vec<_> = ["x", "x", "y", "y"]
        .iter()
        .enumerate()
        .map(|(index, zone)| offer(&format!("n{index}"), zone, 300))
        .collect();
    let constraints = vec![
        Constraint::MaxNodes(4),
        spread("web", Domain::Node),
        Constraint::Ban { members: members(&["db"]), nodes: named(&["n0"]), continuous: true },
        fence("web", zone("x")),
    ];
    let clash = problem(webs(3, 50), constraints);
    assert_eq!(
        why(&clash, &offers),
        "spread (web, node) and fence (web, zone=x) clash: without either, it would fit; spread needs 3 nodes, 2 \
         satisfy fence"
    );
}

#[test]
fn three_rules_that_clash_are_named_and_no_other() {
    let offers: Vec<_> = (0..4).map(|i| offer(&format!("n{i}"), "x", 300)).collect();
    let constraints = vec![
        Constraint::Gather { members: members(&["web"]), over: Domain::Zone, continuous: true },
        fence("web", named(&["n0", "n1", "n2"])),
        spread("web", Domain::Node),
        Constraint::Ban { members: vec![], nodes: named(&["n1"]), continuous: true },
    ];
    assert_eq!(
        why(&problem(webs(3, 50), constraints), &offers),
        "fence (web, n0 or n1 or n2), spread (web, node) and ban (all, n1) clash: without any one of them, it \
         would fit; spread needs 3 nodes, 2 satisfy fence and ban"
    );
}

#[test]
fn two_clashes_at_once_do_not_promise_that_mending_one_is_enough() {
    let offers: Vec<_> = (0..3).map(|i| offer(&format!("n{i}"), "x", 300)).collect();
    let mut vms = webs(2, 50);
    vms.extend([vm("db", 0, 50), vm("db", 1, 50)]);
    let constraints = vec![
        spread("web", Domain::Node),
        fence("web", named(&["n0"])),
        spread("db", Domain::Node),
        fence("db", named(&["n1"])),
    ];
    assert_eq!(
        why(&problem(vms, constraints), &offers),
        "spread (web, node) and fence (web, n0) clash, and they are not alone; spread needs 2 nodes, 1 satisfies \
         fence"
    );
}

#[test]
fn a_gather_says_how_much_it_needs_in_one_place() {
    let offers = [offer("n0", "x", 100), offer("n1", "x", 120)];
    let gather = |over| vec![Constraint::Gather { members: vec![], over, continuous: true }];
    assert_eq!(
        why(&problem(webs(3, 50), gather(Domain::Node)), &offers),
        "gather (all, node) cannot hold: without it, it would fit; gather needs 3 cpus and 150Mi in one node, n1 has \
         64 cpus and 120Mi"
    );
    assert!(solve(&problem(webs(3, 50), gather(Domain::Zone)), &offers, Goal::Stay).is_some());
}

#[test]
fn max_nodes_says_how_many_nodes_it_needs() {
    let offers = [offer("n0", "x", 50), offer("n1", "x", 50), offer("n2", "x", 50)];
    let few = problem(webs(3, 30), vec![Constraint::MaxNodes(1)]);
    assert_eq!(
        why(&few, &offers),
        "maxNodes (1) cannot hold: without it, it would fit; it needs 3 nodes"
    );
}

#[test]
fn disks_that_stand_against_a_rule_are_named() {
    let offers = [offer("n0", "x", 300), offer("n1", "x", 300)];
    let mut two = problem(webs(2, 50), vec![spread("web", Domain::Node)]);
    for vm in &two.vms {
        two.pinned.insert(vm.id.clone(), NodeName::from("n0"));
    }
    assert_eq!(
        why(&two, &offers),
        "spread (web, node) and disks (web-0 on n0 and 1 more) clash: without either, it would fit; spread needs 2 \
         nodes, 1 satisfies disks"
    );
}

#[test]
fn a_node_without_a_zone_is_a_zone_of_its_own() {
    let offers = [offer("n0", "", 300), offer("n1", "", 300)];
    let apart = problem(webs(2, 50), vec![spread("web", Domain::Zone)]);
    assert!(solve(&apart, &offers, Goal::Stay).is_some());
    let gather = Constraint::Gather { members: vec![], over: Domain::Zone, continuous: true };
    let together = solve(&problem(webs(2, 50), vec![gather]), &offers, Goal::Balance);
    let nodes: BTreeSet<_> = together.expect("it fits").into_values().collect();
    assert_eq!(nodes.len(), 1);
}

proptest! {
    #[test]
    fn the_rules_that_are_named_do_clash_and_each_is_needed(
        sizes in prop::collection::vec((prop::bool::ANY, 1..5_u64), 1..6),
        free in prop::collection::vec((0..3_usize, 0..9_u64), 1..5),
        constraints in prop::collection::vec(constraint(), 0..5),
    ) {
        let (problem, offers) = case(&sizes, &free, constraints);
        if let (None, Some(clash)) =
            (solve(&problem, &offers, Goal::Stay), clash::find(&problem, &offers))
        {
            let outcome = |rules: &Rules<'_>| {
                search::run(Board::new(&problem, &offers, rules), Goal::Stay, Effort::FULL).outcome
            };
            prop_assert_eq!(outcome(&clash.rules), Outcome::Impossible);
            for index in 0..clash.rules.constraints.len() {
                let mut fewer = clash.rules.clone();
                fewer.constraints.remove(index);
                prop_assert!(matches!(outcome(&fewer), Outcome::Found(_)), "{:?}", clash.rules);
            }
        }
    }
}
