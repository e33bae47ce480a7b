//! What Helm does to the agents, and what it never does to a guest.

use std::io::Write as _;

use discovery_lab::Lab;

use crate::world::{SPREAD, SYSTEM, World};

#[test]
fn upgrade_rollback_uninstall_and_a_new_install_touch_no_guest() {
    let world = World::new("helm");
    let chart = Lab::source_tree().join("charts/discovery").display().to_string();
    let helm = |words: &[&str]| {
        world.lab.helm(&[words, &SYSTEM[..]].concat()).unwrap_or_else(|error| panic!("{error}"))
    };
    let mut values = tempfile::NamedTempFile::new().expect("a file of our own");
    let given = helm(&["get", "values", "discovery", "-o", "yaml"]);
    values.write_all(given.as_bytes()).expect("it takes them");
    let values = values.path().display().to_string();
    world.apply("shop", 3, SPREAD);
    world.until_ready("shop");
    let before = world.domains();
    assert_eq!(before.len(), 3);
    let mut agents = world.agents();
    let mut replaced = |what: &str| {
        world.until_agents_are_back();
        let now = world.agents();
        assert!(now.iter().all(|pod| !agents.contains(pod)), "{what}: every agent is another");
        agents = now;
        assert_eq!(world.domains(), before, "{what}: every QEMU is the same");
    };
    let wait = ["--wait", "--timeout", "180s"];

    let louder = ["upgrade", "discovery", &chart, "--reuse-values", "--set", "agent.log=debug"];
    helm(&[&louder[..], &wait].concat());
    replaced("upgrade");
    helm(&[&["rollback", "discovery"], &wait[..]].concat());
    replaced("rollback");
    let said = helm(&[&["uninstall", "discovery"], &wait[..]].concat());
    assert!(said.contains("uninstalled"), "{said}");
    world.until("the agents to go", || world.agents().is_empty());
    assert_eq!(world.domains(), before, "guests run without agents");
    helm(&[&["install", "discovery", &chart, "-f", &values], &wait[..]].concat());
    replaced("install");

    // The new agents know the guests as theirs.
    world.cluster.must(&["scale", "ve/shop", "--replicas=2"], "");
    world.until("two domains", || world.domains().len() == 2);
    world.delete("shop");
    assert!(world.domains().is_empty());
}
