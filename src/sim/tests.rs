//! Properties of agents together, over many seeds: I1 and I3–I5 after every event, and everything whole or
//! waiting whole when the faults are over.

mod constraints;

use std::time::Duration;

use proptest::prelude::*;

use super::network::Quality;
use super::scenario::{self, Scenario};
use super::world::{Event, Setup, World};
use crate::engine::host::StopCause;
use crate::engine::id::{MemberName, NodeName, VeName, VeUid};
use crate::engine::input::Input;
use crate::engine::lrt::solver::Goal;
use crate::engine::report::VmPhase;
use crate::engine::spec::{
    Boot, Constraint, Domain, MemberSpec, Recovery, Resources, RunStrategy, VeSpec, VeState,
};
use crate::engine::vet::status::NO_ROOM_TO_GROW;
use crate::engine::wire::Message;

const GIB: u64 = 1 << 30;
const SOON: Duration = Duration::from_secs(30);

pub(super) fn world(nodes: usize, seed: u64) -> World {
    world_with(nodes, seed, Goal::default())
}

fn world_with(nodes: usize, seed: u64, goal: Goal) -> World {
    let capacity = Resources { cpu_milli: 8_000, memory: 8 * GIB };
    let network = Quality::default();
    let mut world = World::new(&Setup { seed, nodes, capacity, zones: 0, network, goal });
    world.run_for(Duration::from_secs(2));
    world
}

pub(super) fn spec(replicas: u32, gib: u64) -> VeSpec {
    let member = MemberSpec {
        name: MemberName::from("web"),
        replicas,
        cpus: 1,
        memory: gib * GIB,
        boot: Boot::Disk,
        disks: Vec::new(),
        run_strategy: RunStrategy::Always,
        depends_on: Vec::new(),
    };
    let (members, placement, recovery) = (vec![member], Vec::new(), Recovery::default());
    VeSpec { state: VeState::Running, members, placement, recovery }
}

pub(super) fn apply(world: &mut World, name: &str, spec: VeSpec) -> VeUid {
    let uid = VeUid::from(name);
    world.apply(&uid, &VeName::new("default", name), spec);
    uid
}

pub(super) fn is_ready(world: &World, uid: &VeUid) -> bool {
    world.api.get(uid).is_some_and(|object| {
        object.status.as_ref().is_some_and(|status| {
            status.ready.holds && status.observed_generation == object.declared.generation
        })
    })
}

fn reason(world: &World, uid: &VeUid) -> String {
    let status = world.api.get(uid).and_then(|object| object.status.clone());
    status.map(|status| status.ready.reason.to_string()).unwrap_or_default()
}

fn running(world: &World, uid: &VeUid) -> usize {
    world.running().iter().filter(|(id, _)| id.ve == *uid).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn faults_break_no_invariant_and_leave_everything_whole_or_waiting_whole(
        seed in any::<u64>(),
        nodes in 1..7_usize,
        ves in 1..10_usize,
        faults in 0..20_usize,
        loss in 0..20_u32,
    ) {
        let (loss, repeat) = (f64::from(loss) / 100.0, 0.05);
        let report = scenario::run(&Scenario { seed, nodes, ves, faults, loss, repeat, drains: false });
        prop_assert_eq!(&report.broken, &Vec::<String>::new());
        prop_assert_eq!(&report.astray, &Vec::<String>::new());
    }
}

/// Each broke an invariant, or got stuck, before the rule that it taught: a late release does not undo a
/// committed promise; an order given during a placement does not decide it; a handler that was restarted
/// looks at its records; a node's last word about a deleted environment may be lost; what runs is not of
/// the size of a definition that came while it was started; what a former life of the agent had ordered may
/// be started after it was removed, and then something is left.
#[test]
fn seeds_that_once_broke_stay_whole() {
    let five =
        Scenario { seed: 0, nodes: 5, ves: 8, faults: 12, loss: 0.02, repeat: 0.02, drains: false };
    let three = Scenario { nodes: 3, loss: 0.2, repeat: 0.2, ..five };
    let seven = Scenario { nodes: 7, ves: 20, faults: 40, loss: 0.1, ..five };
    let four = Scenario { nodes: 4, ves: 2, faults: 9, loss: 0.12, repeat: 0.05, ..five };
    let runs = [(five, 1206), (three, 1027), (three, 1038), (four, 5_284_649_833_246_487_987)];
    let more = [(seven, 1264), (seven, 1297), (seven, 5054)];
    for (shape, seed) in runs.into_iter().chain(more) {
        let report = scenario::run(&Scenario { seed, ..shape });
        assert!(report.messages[1] > 0, "no message was lost with seed {seed}");
        assert_eq!((report.broken, report.astray), (vec![], vec![]), "seed {seed}");
    }
}

#[test]
fn one_seed_is_one_report() {
    let scenario =
        Scenario { seed: 3, nodes: 5, ves: 6, faults: 10, loss: 0.1, repeat: 0.1, drains: true };
    assert_eq!(scenario::run(&scenario), scenario::run(&scenario));
}

#[test]
fn environments_applied_at_the_same_moment_never_overcommit_a_node() {
    for seed in 0..20 {
        let mut world = world(3, seed);
        // 24 GiB are there; 30 are asked for, in fives of two.
        let uids: Vec<VeUid> =
            (0..5).map(|i| apply(&mut world, &format!("ve{i}"), spec(2, 3))).collect();
        world.run_for(SOON);
        assert_eq!(world.broken, vec![], "seed {seed}");
        let whole = uids.iter().filter(|uid| running(&world, uid) == 2).count();
        let none = uids.iter().filter(|uid| running(&world, uid) == 0).count();
        assert_eq!((whole, none), (3, 2), "two of 3 GiB fit on each of three nodes of 8 GiB");
    }
}

#[test]
fn what_does_not_fit_waits_and_runs_when_room_appears() {
    let mut world = world(2, 1);
    let first = apply(&mut world, "first", spec(2, 7));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &first)));
    let second = apply(&mut world, "second", spec(1, 4));
    assert!(world.run_while_not(SOON, |world| reason(world, &second) == "CannotBePlaced"));
    assert_eq!(running(&world, &second), 0);
    world.delete(&first);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &second)));
    assert!(world.api.get(&first).is_none(), "the deleted one is gone");
}

#[test]
fn what_has_no_room_to_grow_says_so_also_after_its_guest_was_started_again() {
    let mut world = world(1, 1);
    let node = NodeName::from("n1");
    let uid = apply(&mut world, "ve", spec(1, 5));
    let other = apply(&mut world, "other", spec(1, 2));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid) && is_ready(world, &other)));
    apply(&mut world, "ve", spec(1, 7));
    assert!(world.run_while_not(SOON, |world| reason(world, &uid) == NO_ROOM_TO_GROW));
    let vm = world.running().into_iter().map(|(id, _)| id).find(|id| id.ve == uid);
    let vm = vm.expect("it runs at its old size");
    assert!(world.stop_guest(&node, &vm, StopCause::Crashed));
    let restarted = |world: &World| {
        let engine = world.engine(&node);
        let vms = engine.into_iter().flat_map(|engine| engine.view().vms);
        vms.map(|vm| vm.record.restarts).sum::<u32>() == 1 && running(world, &uid) == 1
    };
    assert!(world.run_while_not(SOON, restarted));
    let engine = world.engine(&node).expect("its agent runs");
    let said = engine.view().vms.into_iter().find_map(|vm| vm.reason);
    assert!(
        said.is_some_and(|said| said.contains("keeps its old size")),
        "it runs, and still waits"
    );
    assert!(world.run_while_not(SOON, |world| reason(world, &uid) == NO_ROOM_TO_GROW));
    assert!(!world.run_while_not(SOON, |world| reason(world, &uid) != NO_ROOM_TO_GROW));
    world.delete(&other);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "there is room now");
}

/// Each word of its node put off the order that has it try again (seed 78086 of the fuzz).
#[test]
fn what_has_no_room_to_grow_grows_when_there_is_some_however_often_its_node_speaks() {
    let mut tried = 0;
    for cordoned in ["n1", "n2"].map(NodeName::from) {
        let mut world = world(2, 1);
        world.declare_node(&cordoned, |declared| declared.schedulable = false);
        let uid = apply(&mut world, "ve", spec(1, 5));
        let other = apply(&mut world, "other", spec(1, 2));
        let ready = |world: &World| is_ready(world, &uid) && is_ready(world, &other);
        assert!(world.run_while_not(SOON, ready));
        let node = world.running().pop().expect("it runs").1;
        let replicas = &world.api.get(&uid).expect("it is there").declared.replica_set;
        let (handler, false) = (replicas[0].node.clone(), replicas[0].node == node) else {
            continue;
        };
        tried += 1;
        apply(&mut world, "ve", spec(1, 7));
        assert!(world.run_while_not(SOON, |world| reason(world, &uid) == NO_ROOM_TO_GROW));
        let speaks = |world: &World| {
            world.queue.values().find_map(|event| match event {
                Event::Deliver { message, .. } => match &**message {
                    Message::Observed { ve, .. } if *ve == uid => Some(message.clone()),
                    _ => None,
                },
                _ => None,
            })
        };
        let message = (0..15_000).find_map(|_| {
            world.run_for(Duration::from_millis(1));
            speaks(&world)
        });
        let message = message.expect("it speaks every ten seconds");
        world.delete(&other);
        let mut grown = false;
        for _ in 0..20 {
            let (from, message) = (node.clone(), message.clone());
            world.handle(&handler, Input::Message { from, message });
            grown |= world.run_while_not(Duration::from_secs(3), |world| is_ready(world, &uid));
        }
        assert!(grown, "{}", reason(&world, &uid));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
        assert_eq!(world.broken, vec![]);
    }
    assert!(tried > 0, "somebody else handles it");
}

#[test]
fn a_move_that_fails_ends_though_another_vm_has_no_room_to_grow_where_it_was_to_go() {
    let mut world = world(2, 1);
    let [first, second] = [NodeName::from("n1"), NodeName::from("n2")];
    let cordon = |world: &mut World, node: &NodeName, schedulable| {
        world.declare_node(node, |declared| declared.schedulable = schedulable);
    };
    cordon(&mut world, &first, false);
    let mut ve = spec(1, 1);
    let uid = apply(&mut world, "ve", ve.clone());
    let other = apply(&mut world, "other", spec(1, 5));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid) && is_ready(world, &other)));
    cordon(&mut world, &first, true);
    cordon(&mut world, &second, false);
    ve.members.push(MemberSpec { name: MemberName::from("db"), ..ve.members[0].clone() });
    apply(&mut world, "ve", ve.clone());
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    cordon(&mut world, &second, true);
    ve.members[0].memory = 4 * GIB;
    apply(&mut world, "ve", ve);
    assert!(world.run_while_not(SOON, |world| reason(world, &uid) == NO_ROOM_TO_GROW));

    world.migration_faults = (1.0, 0.0);
    world.declare_node(&first, |declared| declared.maintenance = true);
    let failed = |world: &World| world.happened.iter().any(|(_, _, h)| h.reason == "MoveFailed");
    assert!(world.run_while_not(SOON, failed), "it is known that it stays");
    world.migration_faults = (0.0, 0.0);
    let left = |world: &World| {
        world.running().iter().all(|(_, on)| *on == second) && running(world, &uid) == 2
    };
    assert!(world.run_while_not(SOON, left), "it is tried again");
}

#[test]
fn the_goal_of_the_cluster_chooses_within_the_partition() {
    for (goal, most) in [(Goal::Balance, 5), (Goal::Pack, 8), (Goal::Stay, 8)] {
        let mut world = world_with(2, 1, goal);
        // Nine of 1 GiB, on nodes that hold eight.
        let uid = apply(&mut world, "ve", spec(9, 1));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
        let on = |node: &NodeName| world.running().iter().filter(|(_, on)| on == node).count();
        let fullest = world.names().iter().map(on).max();
        assert_eq!(fullest, Some(most), "{goal:?}");
    }
}

#[test]
fn a_cordoned_node_gets_no_new_vm() {
    let mut world = world(2, 1);
    let cordoned = NodeName::from("n1");
    world.declare_node(&cordoned, |declared| declared.schedulable = false);
    let uid = apply(&mut world, "ve", spec(3, 1));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    assert!(world.running().iter().all(|(_, node)| *node != cordoned));
}

#[test]
fn a_spread_over_too_few_nodes_waits_whole() {
    let mut world = world(2, 1);
    let mut wide = spec(3, 1);
    wide.placement.push(Constraint::Spread {
        members: Vec::new(),
        over: Domain::Node,
        continuous: true,
    });
    let uid = apply(&mut world, "ve", wide);
    assert!(world.run_while_not(SOON, |world| reason(world, &uid) == "CannotBePlaced"));
    assert_eq!(running(&world, &uid), 0);
    let told = world
        .happened
        .iter()
        .any(|(_, _, h)| h.message.contains("spread (all, node) needs 3 nodes"));
    assert!(told, "the event names the constraint: {:?}", world.happened);
}

#[test]
fn a_crashed_guest_is_started_again_without_the_api_server() {
    let mut world = world(3, 1);
    let uid = apply(&mut world, "ve", spec(2, 1));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    world.set_api_away(true);
    let (id, node) = world.running()[0].clone();
    assert!(world.stop_guest(&node, &id, StopCause::Crashed), "the fault fired");
    assert_eq!(running(&world, &uid), 1);
    assert!(world.run_while_not(SOON, |world| running(world, &uid) == 2));
}

/// Whether a guest that stopped for this cause is started again, and whether it is told as completed.
fn after_stop(run_strategy: RunStrategy, cause: StopCause) -> (bool, bool) {
    let mut world = world(1, 1);
    let mut one = spec(1, 1);
    one.members[0].run_strategy = run_strategy;
    let uid = apply(&mut world, "ve", one);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    let (id, node) = world.running()[0].clone();
    assert!(world.stop_guest(&node, &id, cause), "the fault fired");
    world.run_for(SOON);
    let status = world.api.get(&uid).and_then(|object| object.status.clone());
    let completed = status.is_some_and(|status| status.vms[0].phase == VmPhase::Completed);
    (running(&world, &uid) == 1, completed)
}

#[test]
fn a_guest_that_stops_by_itself_is_treated_by_its_run_strategy() {
    const AGAIN: (bool, bool) = (true, false);
    const COMPLETED: (bool, bool) = (false, true);
    use RunStrategy::{Always, Once, RerunOnFailure};
    use StopCause::{Crashed, Destroyed, Failed, Shutdown, Unknown};
    for cause in [Shutdown, Crashed, Destroyed, Failed, Unknown] {
        assert_eq!(after_stop(Always, cause), AGAIN, "always, {cause:?}");
        let rerun = if cause == Shutdown { COMPLETED } else { AGAIN };
        assert_eq!(after_stop(RerunOnFailure, cause), rerun, "on failure, {cause:?}");
        // Only a node that lost its power is no end of the guest's own.
        let once = if cause == Unknown { AGAIN } else { COMPLETED };
        assert_eq!(after_stop(Once, cause), once, "once, {cause:?}");
    }
}

#[test]
fn agents_that_are_killed_and_started_again_touch_no_guest() {
    let mut world = world(3, 1);
    let uid = apply(&mut world, "ve", spec(3, 1));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    let starts = |world: &World| -> u32 {
        let hosts = world.names().into_iter().filter_map(|name| world.host(&name));
        hosts.flat_map(|host| host.disks.values()).sum()
    };
    let before = starts(&world);
    for name in world.names() {
        world.kill_agent(&name);
        assert!(world.engine(&name).is_none(), "the fault fired");
    }
    // For less than a lease lasts.
    world.run_for(Duration::from_secs(3));
    for name in world.names() {
        world.start_agent(&name);
    }
    world.run_for(SOON);
    assert_eq!((running(&world, &uid), starts(&world)), (3, before));
    assert!(is_ready(&world, &uid));
}

/// On nodes that hear of the change at different moments, and of the turns as well.
#[test]
fn members_that_follow_a_change_restart_one_after_the_other() {
    for seed in 0..16 {
        let mut world = world(5, seed);
        let (uid, name) = (VeUid::from("ve"), VeName::new("default", "ve"));
        let spec = |gib: u64| VeSpec {
            placement: vec![Constraint::Spread {
                members: vec![MemberName::from("web")],
                over: Domain::Node,
                continuous: true,
            }],
            ..spec(3, gib)
        };
        world.apply(&uid, &name, spec(1));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "seed {seed}");
        world.network.worsen(1, None, Quality { max_delay_us: 400_000, ..Quality::default() });
        let starts = |world: &World| -> Vec<u64> {
            let nodes = world.running().into_iter();
            let start = |(id, node)| Some(world.host(&node)?.guest(&id)?.start);
            nodes.filter_map(start).collect()
        };
        let before = starts(&world);
        world.apply(&uid, &name, spec(2));
        let is_through = |world: &World| {
            let now = starts(world);
            now.len() == 3 && now.iter().all(|start| !before.contains(start))
        };
        let restarting = |world: &World| {
            let vms = world.names().into_iter().filter_map(|name| world.engine(&name));
            let vms = vms.flat_map(|engine| engine.view().vms);
            vms.filter(|vm| vm.phase != VmPhase::Running).count()
        };
        let (end, mut seen) = (world.now() + SOON, 0);
        while !is_through(&world) {
            assert!(world.now() < end, "seed {seed}");
            world.run_for(Duration::from_millis(5));
            assert!(restarting(&world) < 2, "two are away at once, seed {seed}");
            seen += restarting(&world);
        }
        assert!(seen >= 3, "each is seen on its way, seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn an_environment_is_claimed_once_whatever_its_number_of_vms() {
    let mut world = world(3, 1);
    let uid = apply(&mut world, "ve", spec(12, 1));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    assert_eq!(world.api.writes.get("claim"), Some(&1));
}

#[test]
fn a_deletion_says_what_keeps_it() {
    let mut world = world(3, 1);
    let uid = apply(&mut world, "shop", spec(3, 1));
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    let node = world.running().pop().expect("it runs").1;
    world.command_faults = (1.0, 0.0);
    world.delete(&uid);
    let said = |world: &World| {
        let status = world.api.get(&uid).and_then(|object| object.status.clone());
        status.map(|status| status.ready.message).unwrap_or_default()
    };
    let says = |world: &World| said(world).contains("(web-") && said(world).contains("refuses");
    assert!(world.run_while_not(SOON, says), "{}", said(&world));
    assert!(world.commands_failed > 0, "the hypervisors refused");
    world.power_off(&node);
    let silent = |world: &World| {
        said(world).contains(&format!("{node} (")) && said(world).contains("silent")
    };
    assert!(world.run_while_not(SOON, silent), "{}", said(&world));
    world.command_faults = (0.0, 0.0);
    let gone = |world: &World| world.api.get(&uid).is_none();
    assert!(world.run_while_not(Duration::from_secs(180), gone), "{}", said(&world));
    assert_eq!(world.broken, vec![]);
}
