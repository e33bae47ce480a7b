//! What people declare, and what becomes of it.

use std::collections::BTreeSet;

use crate::world::{Domains, Member, SPREAD, World};

#[test]
fn an_environment_runs_spread_over_nodes_and_leaves_nothing_when_deleted() {
    let world = World::new("life");
    world.apply("shop", 2, SPREAD);
    world.until_ready("shop");
    let uid = world.uid("shop");
    let domains = world.domains();
    let nodes: BTreeSet<&String> = domains.values().map(|(node, _)| node).collect();
    assert_eq!((domains.len(), nodes.len(), world.disks(&uid)), (2, 2, 2), "{domains:?}");
    world.delete("shop");
    assert_eq!((world.domains().len(), world.disks(&uid)), (0, 0), "nothing is left");
}

#[test]
fn members_are_scaled_up_and_down() {
    let world = World::new("scale");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let (first, _, pid) = world.one("shop-web-0");
    world.cluster.must(&["scale", "ve/shop", "--replicas=3"], "");
    world.until("three domains", || world.domains().len() == 3);
    world.until_ready("shop");
    world.cluster.must(&["scale", "ve/shop", "--replicas=1"], "");
    world.until("one domain", || world.domains().len() == 1);
    assert_eq!(world.domains().get(&first).map(|(_, pid)| pid.clone()), Some(pid));
    world.delete("shop");
}

/// Memory, then processors: one VM is away at a time, the other member is not touched.
#[test]
fn a_changed_size_restarts_one_after_the_other_and_only_whom_it_concerns() {
    let world = World::new("resize");
    let web = Member { replicas: 2, ..Member::default() };
    let db = Member { name: "db", ..Member::default() };
    world.apply_members("shop", &[web, db], SPREAD);
    world.until_ready("shop");
    let kept = world.one("shop-db-0");
    for (path, value) in [("/spec/members/0/memory", "\"112Mi\""), ("/spec/members/0/cpus", "2")] {
        let old = ["shop-web-0", "shop-web-1"].map(|vm| world.one(vm));
        world.replace("shop", path, value);
        world.until("both to be others", || {
            let now = world.domains();
            // Nodes are read one after the other: who was away on the first may be back before the other leaves the last.
            let nobody = |now: &Domains| old.iter().all(|(domain, ..)| !now.contains_key(domain));
            if nobody(&now) {
                let again = world.domains();
                assert!(!nobody(&again), "both are away at once: {now:?}, then {again:?}");
            }
            let other = |(domain, _, pid): &(String, String, String)| {
                now.get(domain).is_some_and(|(_, new)| new != pid)
            };
            old.iter().all(other)
        });
        world.until_ready("shop");
    }
    let (domain, node, _) = world.one("shop-web-0");
    let said = world.lab.virsh(&node, &["dominfo", &domain]).expect("it is there");
    let says = |field: &str| {
        let line = said.lines().find(|line| line.starts_with(field));
        line.and_then(|line| line.split_whitespace().nth(if field == "CPU(s)" { 1 } else { 2 }))
    };
    assert_eq!((says("CPU(s)"), says("Max memory")), (Some("2"), Some("114688")), "{said}");
    assert_eq!(world.one("shop-db-0"), kept, "the other member's guest is the same");
    world.delete("shop");
}

#[test]
fn a_changed_run_strategy_restarts_nothing() {
    let world = World::new("strategy");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let before = world.one("shop-web-0");
    world.replace("shop", "/spec/members/0/runStrategy", "\"RerunOnFailure\"");
    world.until_ready("shop");
    assert_eq!(world.one("shop-web-0"), before);
    world.delete("shop");
}

#[test]
fn a_terminated_environment_keeps_its_disks_and_comes_back() {
    let world = World::new("stop");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let uid = world.uid("shop");
    let (_, node, _) = world.one("shop-web-0");
    let patch = |state: &str| {
        let patch = format!("{{\"spec\":{{\"state\":\"{state}\"}}}}");
        world.cluster.must(&["patch", "ve", "shop", "--type=merge", "-p", &patch], "");
    };
    patch("Terminated");
    world.until("no domain", || world.domains().is_empty());
    world.until_ready("shop");
    assert_eq!(world.disks(&uid), 1, "its disk is kept");
    patch("Running");
    world.until("a domain", || world.domains().len() == 1);
    world.until_ready("shop");
    assert_eq!(world.one("shop-web-0").1, node, "it is where its disk is");
    world.delete("shop");
}

#[test]
fn equal_names_in_two_namespaces_are_two_environments() {
    let (one, two) = (World::new("left"), World::new("right"));
    one.apply("shop", 1, "");
    two.apply("shop", 1, "");
    one.until_ready("shop");
    two.until_ready("shop");
    assert_eq!((one.domains().len(), two.domains().len()), (1, 1));
    // A namespace that is deleted takes its environments along.
    one.cluster.must(&["delete", "namespace", &one.cluster.namespace, "--timeout=120s"], "");
    assert_eq!((one.domains().len(), two.domains().len()), (0, 1));
    two.delete("shop");
}
