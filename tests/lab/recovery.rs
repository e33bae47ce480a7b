//! What environments declare about crashes, and about who starts before whom.

use crate::world::{Member, World};

/// A VM's QEMU: its pid, and when it was started, in clock ticks of the host.
fn started(world: &World, vm: &str) -> (String, u64) {
    let (_, node, pid) = world.one(vm);
    let stat = world.lab.exec(&node, &["cat", &format!("/proc/{pid}/stat")]).expect("it runs");
    // The second word is the program's name, in brackets, and may hold anything.
    let words = stat.rsplit(')').next().unwrap_or_default();
    let ticks = words.split_whitespace().nth(19).and_then(|word| word.parse().ok());
    (pid, ticks.unwrap_or_else(|| panic!("no start time in {stat}")))
}

#[test]
fn an_environment_is_restarted_whole_and_in_order_when_one_of_its_guests_is_killed() {
    const VMS: [&str; 3] = ["shop-db-0", "shop-web-0", "shop-web-1"];
    let world = World::new("recovery");
    let web = Member { replicas: 2, depends_on: "[db]", ..Member::default() };
    let members = [web, Member { name: "db", ..Member::default() }];
    world.apply_members("shop", &members, "  recovery: {onVmCrash: restartVE}\n");
    world.until_ready("shop");
    let all = || VMS.map(|vm| started(&world, vm));
    let in_order = |starts: &[(String, u64); 3]| {
        let [(_, db), others @ ..] = starts;
        assert!(others.iter().all(|(_, web)| web > db), "web before db: {starts:?}");
    };
    let before = all();
    in_order(&before);

    let (_, node, pid) = world.one("shop-web-0");
    world.lab.exec(&node, &["kill", "-9", &pid]).expect("QEMU is killed");
    world.until("the restart to be told", || {
        world.was_told("shop", "shop-web-0 crashed: all VMs are stopped, then started")
    });
    world.until("three other guests", || {
        let now = world.domains();
        now.len() == 3 && before.iter().all(|(pid, _)| now.values().all(|(_, now)| now != pid))
    });
    world.until_ready("shop");
    in_order(&all());
    world.delete("shop");
}

#[test]
fn a_guest_that_is_killed_is_left_so_if_it_is_declared_so() {
    let world = World::new("left");
    let two = [Member::default(), Member { name: "db", ..Member::default() }];
    world.apply_members("shop", &two, "  recovery: {onVmCrash: none}\n");
    world.until_ready("shop");
    let (domain, node, pid) = world.one("shop-web-0");
    let other = world.one("shop-db-0");
    world.lab.exec(&node, &["kill", "-9", &pid]).expect("QEMU is killed");
    world.until("it to be left so", || {
        let said = world.vm("shop", "shop-web-0");
        let why = said["message"].as_str().unwrap_or_default().to_owned();
        said["state"] == "Completed" && why.contains("its environment's recovery leaves it so")
    });
    assert!(!world.domains().contains_key(&domain));
    world.replace("shop", "/spec/state", "\"Terminated\"");
    world.until("no guest", || world.domains().is_empty());
    world.replace("shop", "/spec/state", "\"Running\"");
    world.until("both", || world.domains().len() == 2);
    world.until_ready("shop");
    assert_ne!(world.one("shop-db-0"), other);
    world.delete("shop");
}
