//! What befalls guests, daemons, agents and the API server, and how it is put right.
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the API server is away for a minute of real time"
)]

use std::time::{Duration, Instant};

use discovery_lab::wait_for;

use crate::world::{Member, SOON, SPREAD, World};

#[test]
fn a_guest_that_is_killed_paused_destroyed_or_undefined_is_put_right() {
    let world = World::new("heal");
    world.apply("shop", 1, "");
    world.until_ready("shop");

    let (domain, node, pid) = world.one("shop-web-0");
    world.lab.exec(&node, &["kill", "-9", &pid]).expect("QEMU is killed");
    world.until_another(&domain, &pid);
    world.until_ready("shop");

    let (_, node, pid) = world.one("shop-web-0");
    world.lab.virsh(&node, &["destroy", &domain]).expect("the domain is destroyed");
    world.until_another(&domain, &pid);
    world.until_ready("shop");

    let state = || world.lab.virsh(&node, &["domstate", &domain]).unwrap_or_default();
    world.lab.virsh(&node, &["suspend", &domain]).expect("the domain is paused");
    world.until("a running domain", || state().contains("running"));

    let (_, _, pid) = world.one("shop-web-0");
    world.lab.virsh(&node, &["undefine", &domain]).expect("it is undefined");
    let persistent = || world.lab.virsh(&node, &["dominfo", &domain]).unwrap_or_default();
    world.until("its definition", || {
        persistent().lines().any(|l| l.starts_with("Persistent:") && l.ends_with("yes"))
    });
    assert_eq!(world.one("shop-web-0").2, pid, "the guest ran on");
    world.delete("shop");
}

#[test]
fn an_edited_domain_is_as_declared_again_and_its_guest_runs_on() {
    let world = World::new("edit");
    world.apply("shop", 1, "");
    world.until_ready("shop");
    let before = world.one("shop-web-0");
    let (domain, node, _) = &before;
    // As a person would, with an editor.
    let edit = "EDITOR='sed -i /vcpu/s/1/3/' virsh edit \"$0\"";
    let said = world.lab.exec(node, &["sh", "-c", edit, domain]).expect("virsh edits");
    assert!(said.contains("edited"), "the fault fired: {said}");
    world.until("the edit to be noticed", || world.was_told("shop", "was edited"));
    world.until("one processor again", || {
        let xml = world.lab.virsh(node, &["dumpxml", "--inactive", domain]);
        xml.is_ok_and(|xml| xml.contains(">1</vcpu>"))
    });
    world.until_ready("shop");
    assert_eq!(world.one("shop-web-0"), before, "the guest ran on");
    world.delete("shop");
}

/// Each member's guest ends by itself, some seconds after it is up.
#[test]
fn a_guest_that_ends_by_itself_is_treated_by_its_run_strategy() {
    let world = World::new("strategies");
    let (off, crash) = ("guest.poweroff_after=1", "guest.crash_after=1");
    let member =
        |name, does, run_strategy| Member { name, does, run_strategy, ..Member::default() };
    let members = [
        member("always", off, "Always"),
        member("ends", off, "RerunOnFailure"),
        member("crashes", crash, "RerunOnFailure"),
        member("once", crash, "Once"),
    ];
    world.apply_members("jobs", &members, "");
    let started_again = |vm: &str| world.vm("jobs", vm)["restarts"].as_u64().unwrap_or(0) > 0;
    let left = |vm: &str, why: &str| {
        let said = world.vm("jobs", vm);
        let reason = said["message"].as_str().unwrap_or_default();
        said["state"] == "Completed" && reason.starts_with(why)
    };
    world.until("those that run always, or crashed, to be started again", || {
        started_again("jobs-always-0") && started_again("jobs-crashes-0")
    });
    world.until("those that have ended to be left so", || {
        left("jobs-ends-0", "powered itself off") && left("jobs-once-0", "crashed")
    });
    world.until("a crash to be told", || world.was_told("jobs", "jobs-crashes-0 crashed"));
    let running = world.domains();
    for vm in ["jobs-ends-0", "jobs-once-0"] {
        assert!(!running.contains_key(&world.domain(vm)), "{vm} runs: {running:?}");
        assert!(!started_again(vm), "{vm} was started again");
    }
    world.delete("jobs");
}

#[test]
fn daemons_and_agents_restart_without_touching_a_guest() {
    let world = World::new("restart");
    world.apply("shop", 2, SPREAD);
    world.until_ready("shop");
    let before = world.domains();
    assert_eq!(before.len(), 2);
    for node in world.lab.nodes() {
        world.lab.libvirtd_restart(&node).expect("libvirtd is restarted");
    }
    let old = world.agents();
    assert!(old.len() >= 3, "{old:?}");
    let label = "app.kubernetes.io/component=agent";
    world.system(&["delete", "pods", "-l", label, "--timeout=60s"]);
    assert!(world.agents().iter().all(|pod| !old.contains(pod)), "every agent is another");
    world.until_agents_are_back();
    world.cluster.must(&["scale", "ve/shop", "--replicas=3"], "");
    world.until("a third domain", || world.domains().len() == 3);
    let after = world.domains();
    for (name, place) in &before {
        assert_eq!(after.get(name), Some(place), "its QEMU is the same");
    }
    world.delete("shop");
}

/// For a minute, guests are killed one after the other, and each is started again; those that nobody
/// kills are the same afterwards.
#[test]
fn guests_heal_while_the_api_server_is_away_for_a_minute() {
    const AWAY: Duration = Duration::from_secs(60);
    let world = World::new("away");
    world.apply("shop", 1, "");
    world.apply("kept", 1, "");
    world.until_ready("shop");
    world.until_ready("kept");
    let kept = world.one("kept-web-0");
    let domain = world.domain("shop-web-0");
    world.lab.api_stop().expect("the API server is stopped");
    let stopped = Instant::now();
    let gone = world.lab.kubectl(&["get", "--raw", "/readyz", "--request-timeout=2s"]).is_err();
    let mut healed = 0;
    let mut result = Ok(());
    while stopped.elapsed() < AWAY && result.is_ok() {
        let Some((node, pid)) = world.domains().get(&domain).cloned() else { break };
        if world.lab.exec(&node, &["kill", "-9", &pid]).is_err() {
            break;
        }
        result = wait_for("another QEMU", SOON, "", || {
            world.domains().get(&domain).is_some_and(|(_, new)| *new != pid)
        });
        healed += usize::from(result.is_ok());
    }
    let away = stopped.elapsed();
    world.lab.api_start().expect("the API server is started");
    assert!(gone, "the API server did not answer");
    result.unwrap_or_else(|error| panic!("{error}"));
    assert!(healed >= 2 && away >= AWAY, "healed {healed} times in {away:?}");
    world.until_ready("shop");
    world.until_ready("kept");
    assert_eq!(world.one("kept-web-0"), kept, "it ran on");
    world.delete("shop");
    world.delete("kept");
}
