//! Nodes that take nothing, nodes without room, and one that loses its power.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::world::{Member, SPREAD, World, ready_of};

#[test]
fn what_does_not_fit_waits_and_says_what_is_short() {
    let world = World::new("full");
    world.apply("wide", 4, SPREAD);
    world.until_refused("wide", "needs 4 nodes");
    world.cluster.must(&["delete", "ve", "wide"], "");
    // More memory than all three nodes have, in VMs of which each would fit.
    let fat = Member { replicas: 6, memory: "12Gi", ..Member::default() };
    world.apply_members("fat", &[fat], "");
    world.until_refused("fat", "memory");
    assert!(world.domains().is_empty(), "it waits whole");
    world.delete("fat");
}

/// Cordoned by kubectl or by the node's own page: what runs stays, what comes goes elsewhere.
#[test]
fn a_cordoned_node_keeps_its_guests_and_takes_no_new_one() {
    let world = World::new("cordon");
    world.apply("old", 3, SPREAD);
    world.until_ready("old");
    let before = world.domains();
    let physical = |schedulable: bool| {
        let patch = format!(r#"{{"spec":{{"schedulable":{schedulable}}}}}"#);
        world.cluster.must(&["patch", "pn", "n2", "--type=merge", "-p", &patch], "");
    };
    let takes = |node: &str, wanted: &str| {
        let path = "jsonpath={.status.conditions[?(@.type==\"Schedulable\")].status}";
        world.until("the node to know", || {
            world.cluster.must(&["get", "pn", node, "-o", path], "") == wanted
        });
    };
    world.cluster.must(&["cordon", "n1"], "");
    physical(false);
    takes("n1", "False");
    takes("n2", "False");
    world.apply("new", 2, "");
    world.until_ready("new");
    world.apply("wide", 2, SPREAD);
    world.until_refused("wide", "needs 2 nodes");
    let found = world.domains();
    // Released before anything is asserted: other tests need the nodes.
    world.cluster.must(&["uncordon", "n1"], "");
    physical(true);
    takes("n1", "True");
    takes("n2", "True");
    for (domain, place) in &before {
        assert_eq!(found.get(domain), Some(place), "what ran stays");
    }
    let new = found.iter().filter(|(name, _)| name.contains(".new-"));
    let nodes: BTreeSet<&String> = new.map(|(_, (node, _))| node).collect();
    assert_eq!(nodes, BTreeSet::from([&"n3".to_owned()]));
    // What waited for a node is placed when one is back.
    world.until_ready("wide");
    for name in ["old", "new", "wide"] {
        world.delete(name);
    }
}

/// Kubernetes' garbage collector removes the page of a node whose `Node` is deleted.
#[test]
fn a_deleted_nodes_page_goes_and_comes_back_with_it() {
    let world = World::new("removed");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let (domain, home, pid) = world.one("shop-web-0");
    let removed = world.lab.nodes().into_iter().find(|node| *node != home).expect("another node");
    let has_page = || {
        let names = world.cluster.must(&["get", "pn", "-o", "name"], "");
        names.lines().any(|name| name.ends_with(&format!("/{removed}")))
    };
    assert!(has_page());
    world.lab.node_stop(&removed).expect("the node loses its power");
    world.cluster.must(&["delete", "node", &removed], "");
    world.until("its page to be gone", || !has_page());
    world.lab.node_start(&removed).expect("the node boots again");
    world.until("its page to be back", has_page);
    world.until_agents_are_back();
    assert_eq!(world.domains().get(&domain), Some(&(home, pid)), "nobody else is concerned");
    // All of its peers know it for one of them again.
    world.apply("wide", 3, SPREAD);
    world.until_ready("wide");
    for name in ["shop", "wide"] {
        world.delete(name);
    }
}

/// Whatever dies with the gateway's node: no environment is lost, none is half, and no VM runs twice. There
/// is room for some of them only, so that others wait, whole.
#[test]
fn a_burst_of_applies_survives_the_power_loss_of_a_gateways_node() {
    const BURST: usize = 20;
    let world = World::new("burst");
    let path = "jsonpath={range .items[?(@.status.gateway==true)]}{.metadata.name} {end}";
    let gateways = world.cluster.must(&["get", "pn", "-o", path], "");
    let victim = gateways.split_whitespace().next().expect("there is a gateway").to_owned();
    let name = |index: usize| format!("ve{index}");
    for index in 0..BURST {
        if index == BURST / 2 {
            world.lab.node_stop(&victim).expect("the node loses its power");
        }
        world.apply(&name(index), 2, SPREAD);
    }
    let off = world.lab.node(&victim).is_ok_and(|node| node.init().is_none());
    assert!(off, "the fault fired: {victim} is off");
    let fates = || {
        let fates = world.ves().iter().map(Fate::of).collect::<Vec<_>>();
        assert_eq!(fates.len(), BURST, "none is lost: {fates:?}");
        fates
    };
    // All but those that live there, or whose record is there.
    world.until("what does not need the node to be whole, or to wait whole", || {
        let fates = fates();
        let half: Vec<&str> =
            fates.iter().filter(|fate| fate.placed == 1).map(|fate| fate.name.as_str()).collect();
        assert!(half.is_empty(), "half placed: {half:?} of {fates:?}");
        fates
            .iter()
            .all(|fate| fate.nodes.contains(&victim) || fate.handler == victim || fate.is_settled())
    });
    no_vm_runs_twice(&world);
    let ready = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}";
    world.until("its page to say that it is silent", || {
        world.cluster.must(&["get", "pn", &victim, "-o", ready], "") == "Silent"
    });
    world.lab.node_start(&victim).expect("the node boots again");
    world.until_agents_are_back();
    world.until("its page to be its own again", || {
        world.cluster.must(&["get", "pn", &victim, "-o", ready], "") == "AgentReady"
    });
    world.until("all to be whole or to wait whole", || fates().iter().all(Fate::is_settled));
    // Others may make room for one that waits, at any moment.
    let whole = || fates().iter().filter(|fate| fate.ready).count();
    world.until("nothing but whole ones to run", || world.domains().len() == 2 * whole());
    no_vm_runs_twice(&world);
    let whole = whole();
    assert!(whole >= 8, "only {whole} of {BURST} are whole");
    for index in 0..BURST {
        world.cluster.must(&["delete", "ve", &name(index), "--wait=false"], "");
    }
    world.until("all of it to go", || world.domains().is_empty());
}

/// What has become of an environment of two VMs.
#[derive(Debug)]
struct Fate {
    name: String,
    handler: String,
    ready: bool,
    waits: bool,
    placed: usize,
    nodes: BTreeSet<String>,
}

impl Fate {
    fn of(ve: &Value) -> Self {
        let vms = ve["status"]["vms"].as_array().into_iter().flatten();
        let placed: Vec<String> =
            vms.filter_map(|vm| vm["node"].as_str().map(str::to_owned)).collect();
        let (status, reason, _) = ready_of(ve).unwrap_or_default();
        Self {
            name: ve["metadata"]["name"].as_str().unwrap_or_default().to_owned(),
            handler: ve["status"]["handler"].as_str().unwrap_or_default().to_owned(),
            ready: status == "True",
            waits: reason == "CannotBePlaced",
            placed: placed.len(),
            nodes: placed.into_iter().collect(),
        }
    }

    /// It runs whole, or it waits whole.
    fn is_settled(&self) -> bool {
        (self.ready && self.placed == 2) || (self.waits && self.placed == 0)
    }
}

fn no_vm_runs_twice(world: &World) {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let all = world.all_domains();
    // Room may be made by live migration: one of the two processes is paused then.
    for process in all.iter().filter(|process| process.state != "paused") {
        *count.entry(process.domain.clone()).or_default() += 1;
    }
    assert!(!count.is_empty(), "something runs: {all:?}");
    assert!(count.values().all(|count| *count == 1), "{all:?}");
}
