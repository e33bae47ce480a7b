//! What environments declare about crashes, and about who starts before whom.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::faults::FaultKind;
use super::tests::{apply, is_ready, spec, world};
use super::world::World;
use crate::engine::host::{DomainState, StopCause};
use crate::engine::id::{MemberName, NodeName, VeUid, VmId};
use crate::engine::input::Input;
use crate::engine::report::VmPhase;
use crate::engine::spec::{
    BackOff, Constraint, Domain, MemberSpec, OnNodeCrash, OnVmCrash, Recovery, VeSpec, VeState,
};
use crate::engine::wire::Message;

const SOON: Duration = Duration::from_secs(60);
const STEP: Duration = Duration::from_millis(10);

/// Two of `web`, which wait for one `db`, each on a node of its own.
fn shop(recovery: Recovery) -> VeSpec {
    let mut shop = spec(2, 1);
    let db = MemberSpec { name: MemberName::from("db"), replicas: 1, ..shop.members[0].clone() };
    shop.members[0].depends_on = vec![db.name.clone()];
    shop.members.push(db);
    let apart = Constraint::Spread { members: Vec::new(), over: Domain::Node, continuous: true };
    VeSpec { placement: vec![apart], recovery, ..shop }
}

fn applied(world: &mut World, recovery: Recovery) -> VeUid {
    let uid = apply(world, "shop", shop(recovery));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    // Nodes have leases that others guard.
    world.run_for(Duration::from_secs(5));
    uid
}

/// Each VM's start that runs.
fn starts(world: &World) -> BTreeMap<VmId, u64> {
    let running = world.running().into_iter();
    let start =
        |(id, node): (VmId, NodeName)| Some((id.clone(), world.host(&node)?.guest(&id)?.start));
    running.filter_map(start).collect()
}

fn member(world: &World, name: &str) -> Option<(VmId, NodeName)> {
    world.running().into_iter().find(|(id, _)| id.member.as_str() == name)
}

fn crash(world: &mut World, name: &str) -> VmId {
    let (id, node) = member(world, name).expect("it runs");
    assert!(world.stop_guest(&node, &id, StopCause::Crashed), "the fault fired");
    id
}

/// Until the environment is ready; `web` never runs before `db` does.
fn comes_up_in_order(world: &mut World, uid: &VeUid, case: &str) {
    let mut db_ran = false;
    for _ in 0..SOON.as_millis() / STEP.as_millis() {
        db_ran |= member(world, "db").is_some();
        assert!(db_ran || member(world, "web").is_none(), "{case}: before what it depends on");
        if is_ready(world, uid) && starts(world).len() == 3 {
            return;
        }
        world.run_for(STEP);
    }
    panic!("{case}: not ready in time");
}

fn phase(world: &World, uid: &VeUid, id: &VmId) -> Option<VmPhase> {
    let status = world.api.get(uid)?.status.as_ref()?;
    status.vms.iter().find(|vm| vm.id == *id).map(|vm| vm.phase)
}

#[test]
fn vms_start_after_those_that_they_depend_on_at_first_and_after_the_power_of_all_nodes_failed() {
    for seed in 0..8 {
        let mut world = world(4, seed);
        let uid = apply(&mut world, "shop", shop(Recovery::default()));
        comes_up_in_order(&mut world, &uid, &format!("at first, seed {seed}"));
        let nodes = world.names();
        nodes.iter().for_each(|node| world.power_off(node));
        assert_eq!(starts(&world).len(), 0, "the fault fired");
        for node in &nodes {
            world.start_agent(node);
            world.run_for(Duration::from_millis(300));
        }
        comes_up_in_order(&mut world, &uid, &format!("after the power failure, seed {seed}"));
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn a_pause_before_a_restart_is_over_when_nothing_is_to_run_any_more() {
    let mut world = world(4, 1);
    let pause = Duration::from_secs(20);
    let back_off = BackOff { first: pause, longest: pause };
    let recovery = Recovery { on_vm_crash: OnVmCrash::RestartVe, back_off, ..Recovery::default() };
    let uid = applied(&mut world, recovery);
    crash(&mut world, "db");
    assert!(world.run_while_not(SOON, |world| starts(world).is_empty()), "all are stopped");
    comes_up_in_order(&mut world, &uid, "the first time they are started at once");
    crash(&mut world, "db");
    world.run_for(Duration::from_secs(10));
    assert_eq!(starts(&world).len(), 0, "the second time they are not");
    apply(&mut world, "shop", VeSpec { state: VeState::Terminated, ..shop(recovery) });
    // Whoever were woken up by the end of that pause, and had nothing to do, would be so again and again.
    world.run_for(SOON);
    assert_eq!(world.broken, vec![]);
    apply(&mut world, "shop", shop(recovery));
    assert!(world.run_while_not(SOON, |world| starts(world).len() == 3 && is_ready(world, &uid)));
}

#[test]
fn a_vm_that_runs_is_not_stopped_when_what_it_depends_on_ends() {
    let mut world = world(4, 1);
    applied(&mut world, Recovery::default());
    let before = starts(&world);
    let db = crash(&mut world, "db");
    assert!(world.run_while_not(SOON, |world| member(world, "db").is_some()));
    let after = starts(&world);
    let changed: Vec<&VmId> = before.keys().filter(|id| before.get(id) != after.get(id)).collect();
    assert_eq!(changed, [&db]);
}

/// As on a disk that is full: whoever continues it at once, again and again, does nothing else.
#[test]
fn a_guest_that_pauses_again_and_again_is_continued_later_each_time_and_goes_on_when_it_can() {
    let mut world = world(3, 5);
    let uid = applied(&mut world, Recovery::default());
    let (id, node) = member(&world, "db").expect("it runs");
    let start = starts(&world).remove(&id);
    let mut pauses = 0;
    for _ in 0..30_000 / STEP.as_millis() {
        pauses += u32::from(world.pause_guest(&node, &id));
        world.run_for(STEP);
    }
    // At 0, 0.5, 1.5, 3.5, 7.5, 15.5, 25.5 s, and what commands take.
    assert!((5..=8).contains(&pauses), "{pauses} pauses in 30 s");
    let runs = |world: &World| {
        world.host(&node).and_then(|host| host.guest(&id)).map(|guest| guest.seen.state)
            == Some(DomainState::Running)
    };
    assert!(!runs(&world), "the fault fired last");
    assert!(
        world.run_while_not(Duration::from_secs(11), runs),
        "it goes on, and is not away for long"
    );
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    assert_eq!(starts(&world).remove(&id), start, "it is the same guest");
    // That is forgotten in time: the next one is put right at once.
    world.run_for(Duration::from_secs(61));
    assert!(world.pause_guest(&node, &id), "the fault fired");
    assert!(world.run_while_not(Duration::from_millis(400), runs), "at once");
    assert_eq!(world.broken, vec![]);
}

/// libvirt may lose track of a guest, and answer nothing about it.
#[test]
fn a_status_says_why_a_guest_is_paused_and_that_the_hypervisor_does_not_answer() {
    let mut world = world(3, 5);
    let uid = applied(&mut world, Recovery::default());
    let (id, node) = member(&world, "db").expect("it runs");
    assert!(world.pause_guest(&node, &id), "the fault fired");
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let stalls = (FaultKind::Hypervisor, &node, Duration::from_secs(70));
    assert!(world.inflict(stalls, &mut rng), "the fault fired");
    let told = |world: &World| {
        let status = world.api.get(&uid).and_then(|ve| ve.status.clone());
        let vm = status.and_then(|status| status.vms.into_iter().find(|vm| vm.id == id));
        vm.and_then(|vm| vm.reason).unwrap_or_default()
    };
    let paused = "was paused, as its disk cannot be read or written (is the node's disk full?)";
    assert!(world.run_while_not(Duration::from_secs(5), |world| told(world) == paused));
    world.run_for(Duration::from_secs(24));
    assert_eq!(told(&world), paused, "it may be slow");
    let silent = format!(
        "the hypervisor was told to continue it, and has not answered for 30 s (before: {paused})"
    );
    assert!(world.run_while_not(Duration::from_secs(20), |world| told(world) == silent));
    assert!(world.run_while_not(SOON, |world| told(world).is_empty()), "it answers again");
    assert!(is_ready(&world, &uid));
    assert_eq!(world.broken, vec![]);
}

#[test]
fn one_that_crashed_is_started_again_while_what_it_depends_on_is_down() {
    let mut world = world(4, 1);
    applied(&mut world, Recovery { on_vm_crash: OnVmCrash::Restart, ..Recovery::default() });
    let (db, db_node) = member(&world, "db").expect("it runs");
    for _ in 0..6 {
        // It comes to wait for some seconds.
        world.run_while_not(SOON, |world| member(world, "db").is_some());
        assert!(world.stop_guest(&db_node, &db, StopCause::Crashed), "the fault fired");
    }
    world.run_for(Duration::from_secs(2));
    crash(&mut world, "web");
    let both = |world: &World| starts(world).len() == 2;
    assert!(world.run_while_not(Duration::from_secs(5), both), "web is back");
    assert_eq!(member(&world, "db"), None, "db is still down");
}

#[test]
fn an_environment_is_restarted_whole_when_a_vm_crashes_if_it_is_declared_so() {
    for seed in 0..8 {
        let mut world = world(4, seed);
        let recovery = Recovery { on_vm_crash: OnVmCrash::RestartVe, ..Recovery::default() };
        let uid = applied(&mut world, recovery);
        let before = starts(&world);
        crash(&mut world, "web");
        let all_down = world.run_while_not(SOON, |world| starts(world).is_empty());
        assert!(all_down, "seed {seed}: none is started before all are down");
        comes_up_in_order(&mut world, &uid, &format!("seed {seed}"));
        let after = starts(&world);
        assert!(before.iter().all(|(id, start)| after[id] > *start), "{before:?} {after:?}");
        let told = world.happened.iter().filter(|(_, _, told)| told.reason == "Restarting");
        assert_eq!(told.count(), 1, "seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
        world.run_for(SOON);
        assert_eq!(starts(&world), after, "seed {seed}: once is enough");
    }
}

#[test]
fn a_whole_restart_is_ended_by_the_next_handler_when_the_first_one_dies() {
    let mut interrupted = 0;
    for seed in 0..12 {
        let mut world = world(5, seed);
        let recovery = Recovery { on_vm_crash: OnVmCrash::RestartVe, ..Recovery::default() };
        let uid = applied(&mut world, recovery);
        let status =
            world.api.get(&uid).and_then(|object| object.status.clone()).expect("a status");
        let handler = status.replica_set[0].node.clone();
        crash(&mut world, "web");
        world.run_for(Duration::from_millis(20 * seed));
        interrupted += u32::from(starts(&world).len() < 3);
        world.power_off(&handler);
        let whole = |world: &World| starts(world).len() == 3;
        assert!(world.run_while_not(SOON * 2, whole), "seed {seed}");
        world.start_agent(&handler);
        assert!(world.run_while_not(SOON * 2, |w| is_ready(w, &uid) && whole(w)), "seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
    assert!(interrupted >= 6, "in the midst of it {interrupted} times");
}

#[test]
fn a_vm_that_crashed_is_left_so_until_it_is_declared_anew_if_it_is_declared_so() {
    let mut world = world(4, 1);
    let recovery = Recovery { on_vm_crash: OnVmCrash::Leave, ..Recovery::default() };
    let uid = applied(&mut world, recovery);
    let id = crash(&mut world, "web");
    world.run_for(SOON);
    assert_eq!(starts(&world).len(), 2);
    assert_eq!(phase(&world, &uid, &id), Some(VmPhase::Completed));
    let terminated = VeSpec { state: VeState::Terminated, ..shop(recovery) };
    apply(&mut world, "shop", terminated);
    assert!(world.run_while_not(SOON, |world| starts(world).is_empty()));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    apply(&mut world, "shop", shop(recovery));
    comes_up_in_order(&mut world, &uid, "declared anew");
}

#[test]
fn vms_wait_for_their_node_if_it_is_declared_so() {
    let mut world = world(5, 1);
    let recovery = Recovery { on_node_crash: OnNodeCrash::Leave, ..Recovery::default() };
    let uid = applied(&mut world, recovery);
    let (id, node) = member(&world, "web").expect("it runs");
    world.power_off(&node);
    world.run_for(SOON);
    assert_eq!(starts(&world).len(), 2, "the fault fired, and nothing is started elsewhere");
    assert_eq!(phase(&world, &uid, &id), Some(VmPhase::Unknown));
    world.start_agent(&node);
    assert!(world.run_while_not(SOON, |world| starts(world).len() == 3));
    assert!(world.running().contains(&(id, node)), "where it was");
    assert_eq!(world.broken, vec![]);
}

/// Its node spoke before it was believed to be back: it was bound to the same lease again, and taken over again, hundreds of times a
/// second (seed 75386 of the fuzz).
#[test]
fn a_lease_that_is_proven_to_be_over_binds_nothing_any_more() {
    let mut world = world(5, 1);
    let recovery = Recovery { on_node_crash: OnNodeCrash::Leave, ..Recovery::default() };
    let uid = applied(&mut world, recovery);
    let (_, node) = member(&world, "web").expect("it runs");
    let lease = world.engine(&node).expect("its agent runs").view().lease;
    world.power_off(&node);
    let told = |world: &World| {
        let waits = |told: &&str| *told == "WaitsForNode";
        world.happened.iter().map(|(_, _, told)| told.reason).filter(waits).count()
    };
    assert!(world.run_while_not(SOON, |world| told(world) > 0), "its lease is over");
    let before = told(&world);
    let handles = |name: &NodeName| {
        let ves = world.engine(name).map(|engine| engine.view().ves);
        ves.is_some_and(|ves| ves.iter().any(|ve| ve.uid == uid))
    };
    let handler = world.names().into_iter().find(handles).expect("one handles it");
    for order in [0, u64::MAX] {
        let (ve, lease) = (uid.clone(), lease.clone());
        let late = Message::Observed { ve, order, leaving: false, lease, vms: Vec::new() };
        let input = Input::Message { from: node.clone(), message: Box::new(late) };
        world.handle(&handler, input);
        world.run_for(Duration::from_secs(1));
    }
    assert_eq!(told(&world), before);
    assert_eq!(world.broken, vec![]);
}

#[test]
fn vms_that_wait_for_their_node_wait_no_longer_when_that_is_not_declared_any_more() {
    for seed in 0..4 {
        let mut world = world(5, seed);
        let waits = Recovery { on_node_crash: OnNodeCrash::Leave, ..Recovery::default() };
        let uid = applied(&mut world, waits);
        let (id, node) = member(&world, "web").expect("it runs");
        world.power_off(&node);
        world.run_for(SOON);
        assert_eq!(phase(&world, &uid, &id), Some(VmPhase::Unknown), "the fault fired");
        apply(&mut world, "shop", shop(Recovery::default()));
        assert!(world.run_while_not(SOON, |world| starts(world).len() == 3), "seed {seed}");
        assert!(!world.running().contains(&(id.clone(), node.clone())), "elsewhere");
        world.start_agent(&node);
        world.run_for(SOON);
        assert!(is_ready(&world, &uid) && world.running().len() == 3, "seed {seed}");
        assert!(world.host(&node).is_some_and(|host| host.guest(&id).is_none()), "no copy is left");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn an_environment_is_restarted_whole_when_a_node_is_gone_or_was_if_it_is_declared_so() {
    for (seed, away) in
        [(1, SOON), (2, SOON), (3, Duration::from_secs(1)), (4, Duration::from_secs(1))]
    {
        let mut world = world(5, seed);
        let recovery = Recovery { on_node_crash: OnNodeCrash::RestartVe, ..Recovery::default() };
        let uid = applied(&mut world, recovery);
        let before = starts(&world);
        let (_, node) = member(&world, "web").expect("it runs");
        world.power_off(&node);
        assert_eq!(starts(&world).len(), 2, "the fault fired");
        let back = world.now() + away;
        let all_down = world.run_while_not(away, |world| starts(world).is_empty());
        assert_eq!(all_down, away == SOON, "seed {seed}");
        while world.now() < back {
            world.run_for(STEP);
        }
        world.start_agent(&node);
        let anew = |world: &World| {
            let now = starts(world);
            before.iter().all(|(id, start)| now.get(id).is_some_and(|now| now > start))
        };
        assert!(world.run_while_not(SOON, |w| is_ready(w, &uid) && anew(w)), "seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn what_crashes_again_and_again_waits_longer_and_longer_and_says_so() {
    for whole in [false, true] {
        let mut world = world(4, 1);
        let seconds = Duration::from_secs;
        let back_off = BackOff { first: seconds(4), longest: seconds(10) };
        let on_vm_crash = if whole { OnVmCrash::RestartVe } else { OnVmCrash::Restart };
        let uid = applied(&mut world, Recovery { on_vm_crash, back_off, ..Recovery::default() });
        let mut pauses = Vec::new();
        for _ in 0..5 {
            crash(&mut world, "db");
            let at = world.now();
            assert!(world.run_while_not(SOON, |world| starts(world).len() < 3), "whole: {whole}");
            let up = |world: &World| is_ready(world, &uid) && starts(world).len() == 3;
            assert!(world.run_while_not(SOON, up), "whole: {whole}");
            pauses.push(world.now().since(at).as_secs());
        }
        let about = [(0, 2), (4, 6), (8, 10), (10, 12), (10, 12)];
        let within =
            pauses.iter().zip(about).all(|(pause, (low, high))| (low..=high).contains(pause));
        assert!(within, "{pauses:?}, whole: {whole}");
        let said = |words: &str| world.happened.iter().any(|(_, _, h)| h.message.contains(words));
        assert!(said(if whole { "10 s from now" } else { "5 times in a row" }), "whole: {whole}");
        assert_eq!(world.broken, vec![], "whole: {whole}");
    }
}
