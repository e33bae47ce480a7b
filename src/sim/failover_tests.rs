//! Nodes that die, or are cut off, and what becomes of their VMs.

use std::time::Duration;

use super::tests::{is_ready, spec, world};
use super::world::World;
use crate::engine::effect::Action;
use crate::engine::id::{NodeName, VeName, VeUid, VmId};
use crate::engine::input::Input;
use crate::engine::lease::message::{LeaseMessage, Said};
use crate::engine::lease::{Absence, Lease, Times};
use crate::engine::record::Kept;
use crate::engine::replica::{DiskId, Replica};
use crate::engine::report::{FailoverStep, Phase};
use crate::engine::spec::{Constraint, DiskSpec, Domain};
use crate::engine::wire::Message;

/// A dead node's VMs run elsewhere within this time, boot apart.
const FAILOVER: Duration = Duration::from_secs(15);
const SOON: Duration = Duration::from_secs(60);

/// An environment of so many VMs on as many nodes, which runs.
fn running(world: &mut World, vms: u32) -> VeUid {
    let uid = VeUid::from("uid");
    let mut spec = spec(vms, 1);
    let members = vec![spec.members[0].name.clone()];
    let over = Domain::Node;
    spec.placement = vec![Constraint::Spread { members, over, continuous: true }];
    world.apply(&uid, &VeName::new("default", "ve"), spec);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    // Every node has peers, and so a lease that others guard.
    world.run_for(Duration::from_secs(5));
    uid
}

fn victim(world: &World) -> (VmId, NodeName) {
    world.running().first().cloned().expect("a VM runs")
}

fn place(world: &World, vm: &VmId) -> Option<NodeName> {
    world.running().into_iter().find(|(id, _)| id == vm).map(|(_, node)| node)
}

fn cut_off(world: &mut World, node: &NodeName) {
    for other in world.names().iter().filter(|other| *other != node) {
        world.network.cut(node, other);
        world.network.cut(other, node);
    }
}

#[test]
fn the_vms_of_a_node_without_power_run_elsewhere_with_the_api_server_up_or_away() {
    for (seed, away) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut world = world(5, seed);
        running(&mut world, 2);
        let (vm, node) = victim(&world);
        world.set_api_away(away);
        world.power_off(&node);
        assert_eq!(place(&world, &vm), None, "the fault fired");
        let elsewhere = world.run_while_not(FAILOVER, |world| place(world, &vm).is_some());
        assert_eq!(world.broken, vec![], "seed {seed}");
        assert!(elsewhere, "seed {seed}, API server away: {away}");
        assert_ne!(place(&world, &vm), Some(node.clone()));
        world.set_api_away(false);
        world.start_agent(&node);
        world.run_for(SOON);
        assert_eq!(world.broken, vec![], "after its return, seed {seed}");
        let host = world.host(&node).expect("a node");
        assert!(host.guest(&vm).is_none(), "nothing of it is left there, seed {seed}");
    }
}

#[test]
fn a_node_that_is_cut_off_ends_its_vms_before_they_run_elsewhere() {
    for seed in 1..4 {
        let mut world = world(5, seed);
        let uid = running(&mut world, 2);
        let (vm, node) = victim(&world);
        let cut_at = world.now();
        cut_off(&mut world, &node);
        assert!(world.run_while_not(FAILOVER, |world| place(world, &vm).is_none()), "it is ended");
        let ended = world.now().since(cut_at);
        assert!(ended <= Duration::from_millis(5_100), "{ended:?}, seed {seed}");
        assert!(world.run_while_not(FAILOVER, |world| place(world, &vm).is_some()), "seed {seed}");
        let gap = world.now().since(cut_at) - ended;
        assert!(gap >= Duration::from_secs(4), "{gap:?}, seed {seed}");
        assert_ne!(place(&world, &vm), Some(node.clone()));
        world.network.mend();
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "seed {seed}");
        world.run_for(SOON);
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn an_agent_that_is_away_for_longer_than_a_lease_loses_its_vms_and_a_shorter_absence_touches_none()
{
    for (away, loses) in [(3, false), (8, true)] {
        let mut world = world(5, 7);
        let uid = running(&mut world, 2);
        let (vm, node) = victim(&world);
        let start = world.host(&node).and_then(|h| h.guest(&vm)).map(|guest| guest.start);
        world.kill_agent(&node);
        world.run_for(Duration::from_secs(away));
        assert_eq!(place(&world, &vm).is_none(), loses, "after {away} s");
        world.start_agent(&node);
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "after {away} s");
        let now = place(&world, &vm).expect("it runs");
        let again = world.host(&now).and_then(|h| h.guest(&vm)).map(|guest| guest.start);
        assert_eq!(again != start, loses, "after {away} s");
        assert_eq!(world.broken, vec![], "after {away} s");
    }
}

#[test]
fn without_a_majority_of_the_guardians_nothing_is_started_elsewhere_until_one_is_back() {
    // Of three nodes, each is guarded by all.
    let mut world = world(3, 1);
    let uid = running(&mut world, 1);
    let (vm, node) = victim(&world);
    let others: Vec<NodeName> = world.names().into_iter().filter(|n| *n != node).collect();
    world.power_off(&node);
    world.power_off(&others[0]);
    world.run_for(SOON * 2);
    assert_eq!(place(&world, &vm), None, "nobody can prove that it has ended");
    // Two of its record's three replicas are gone as well: the third says so in its status, which is what the last handler wrote.
    assert!(told(&world, "NoMajority") > 0, "people are told why");
    let why = |world: &World| {
        let status = world.api.get(&uid).and_then(|object| object.status.clone());
        status.map(|status| status.ready).expect("a status")
    };
    assert_eq!((why(&world).holds, why(&world).reason.as_ref()), (false, "NoMajority"));
    assert!(why(&world).message.contains("do not answer"), "{:?}", why(&world));
    world.start_agent(&others[0]);
    let elsewhere = world.run_while_not(SOON, |world| place(world, &vm).is_some());
    assert_eq!(world.broken, vec![]);
    assert!(elsewhere, "goes on by itself");
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "{:?}", why(&world));
}

fn told(world: &World, reason: &str) -> usize {
    world.happened.iter().filter(|(_, _, happening)| happening.reason == reason).count()
}

/// What its environment's status says of a VM.
fn said_of(world: &World, uid: &VeUid, vm: &VmId) -> String {
    let status = world.api.get(uid).and_then(|object| object.status.clone());
    let vms = status.map(|status| status.vms).unwrap_or_default();
    let vm = vms.into_iter().find(|told| told.id == *vm).and_then(|told| told.reason);
    vm.unwrap_or_default()
}

#[test]
fn each_step_of_a_failover_is_told() {
    let mut world = world(5, 1);
    let uid = running(&mut world, 2);
    let (vm, node) = victim(&world);
    world.power_off(&node);
    let says = |text: &'static str| {
        let (uid, vm) = (uid.clone(), vm.clone());
        move |world: &World| said_of(world, &uid, &vm).contains(text)
    };
    assert!(world.run_while_not(FAILOVER, says("silent")), "{}", said_of(&world, &uid, &vm));
    let taken = world.run_while_not(FAILOVER, says("may be taken over in"));
    assert!(taken, "{}", said_of(&world, &uid, &vm));
    let phase = |world: &World| {
        let status = world.api.get(&uid).and_then(|object| object.status.clone());
        status.expect("a status").phase
    };
    assert_eq!(phase(&world), Phase::FailingOver);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    assert_eq!(phase(&world), Phase::Running);
    let steps = world.happened.iter().filter_map(|(_, _, told)| told.failover.as_ref());
    let steps: Vec<_> = steps.map(|failover| (failover.step, failover.vms.clone())).collect();
    let about = vec![(format!("default/ve-{}-{}", vm.member, vm.index), node)];
    let all = [
        FailoverStep::Suspected,
        FailoverStep::Proven,
        FailoverStep::Placed,
        FailoverStep::Started,
    ];
    assert_eq!(steps, all.map(|step| (step, about.clone())));
    assert_eq!(world.broken, vec![]);
}

#[test]
fn that_too_few_guardians_answer_is_said_with_their_names() {
    for seed in 1..4 {
        let mut world = world(7, seed);
        let uid = running(&mut world, 1);
        let (vm, node) = victim(&world);
        let view = world.engine(&node).expect("it runs").view();
        let guardians = view.lease.expect("it has one").guardians;
        let handler =
            world.api.get(&uid).and_then(|object| object.declared.replica_set.first().cloned());
        let handler = handler.expect("a handler").node;
        let (majority, rest): (Vec<_>, Vec<_>) =
            guardians.iter().map(|guardian| &guardian.node).partition(|name| **name != handler);
        world.power_off(&node);
        // The record's replicas are not among those that are cut off from the handler one way: its messages reach nobody.
        for guardian in &majority {
            world.network.cut(guardian, &handler);
        }
        assert!(majority.len() > rest.len(), "the fault fired");
        if handler == node {
            continue;
        }
        let says = |world: &World| said_of(world, &uid, &vm).contains("no majority");
        world.run_while_not(SOON, says);
        assert_eq!(place(&world, &vm), None, "seed {seed}");
        world.network.mend();
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn a_node_that_answers_again_before_it_is_over_loses_nothing() {
    let mut world = world(5, 2);
    let uid = running(&mut world, 2);
    let (vm, node) = victim(&world);
    cut_off(&mut world, &node);
    world.run_for(Duration::from_millis(4_000));
    world.network.mend();
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    world.run_for(SOON);
    assert_eq!(place(&world, &vm), Some(node));
    assert_eq!(told(&world, "FailedOver"), 0);
    assert_eq!(said_of(&world, &uid, &vm), "", "nothing is left in the status");
}

/// Who is dead cannot say so.
#[test]
fn the_first_gateway_says_which_nodes_are_silent() {
    for seed in 0..4 {
        let mut world = world(5, seed);
        running(&mut world, 2);
        let (_, node) = victim(&world);
        let said = |world: &World| -> Vec<Vec<NodeName>> {
            let others = world.silent.iter().filter(|(name, _)| **name != node);
            others.map(|(_, silent)| silent.clone()).filter(|silent| !silent.is_empty()).collect()
        };
        assert_eq!(said(&world), Vec::<Vec<NodeName>>::new());
        world.power_off(&node);
        let told = world.run_while_not(SOON, |world| said(world) == [vec![node.clone()]]);
        assert!(told, "one says it, seed {seed}: {:?}", world.silent);
        world.start_agent(&node);
        assert!(world.run_while_not(SOON, |world| said(world).is_empty()), "seed {seed}");
        // Cut off, it knows that it is the one.
        cut_off(&mut world, &node);
        assert!(world.run_while_not(SOON, |world| !said(world).is_empty()), "the fault fired");
        world.run_for(SOON);
        assert_eq!(said(&world), [vec![node.clone()]], "seed {seed}");
        assert!(world.silent.get(&node).is_none_or(Vec::is_empty), "seed {seed}");
    }
}

#[test]
fn another_replica_handles_what_a_dead_node_did_and_changes_are_taken() {
    let mut world = world(5, 3);
    let uid = running(&mut world, 2);
    let set = world.api.get(&uid).expect("it is there").declared.replica_set.clone();
    let handler = set.first().expect("a first replica").node.clone();
    let reported = |world: &World| world.api.get(&uid).map(|object| object.declared.reported);
    let before = reported(&world);
    world.power_off(&handler);
    world.run_for(Duration::from_secs(20));
    world.apply(&uid, &VeName::new("default", "ve"), spec(3, 1));
    let grown = world.run_while_not(SOON, |world| {
        let running = world.running().len();
        running == 3 && is_ready(world, &uid)
    });
    assert_eq!(world.broken, vec![]);
    assert!(grown, "{:?}", world.happened.iter().rev().take(8).collect::<Vec<_>>());
    assert!(reported(&world) > before, "another handler's round");
}

#[test]
fn a_vm_whose_disk_was_made_empty_waits_for_its_node() {
    let mut world = world(5, 5);
    let uid = VeUid::from("uid");
    let mut spec = spec(1, 1);
    spec.members[0].disks = vec![DiskSpec { name: "data".into(), size: 1 << 30, image: None }];
    world.apply(&uid, &VeName::new("default", "ve"), spec);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    world.run_for(Duration::from_secs(5));
    let (vm, node) = victim(&world);
    world.power_off(&node);
    world.run_for(SOON);
    assert_eq!(place(&world, &vm), None, "what is on its disk is nowhere else");
    assert!(world.happened.iter().any(|(_, _, told)| told.reason == "WaitsForDisks"));
    world.start_agent(&node);
    assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
    assert_eq!(place(&world, &vm), Some(node));
    assert_eq!(world.broken, vec![]);
}

/// The VM, its node and when it started, in a world where its agent has just ended in order.
fn left(seed: u64, absence: u64) -> (World, VmId, NodeName, u64) {
    let mut world = world(5, seed);
    running(&mut world, 2);
    let (vm, node) = victim(&world);
    let start = start(&world, &node, &vm).expect("it runs");
    assert!(world.end_agent(&node, Duration::from_secs(absence)), "all agree, seed {seed}");
    assert!(world.engine(&node).is_none(), "its agent is away");
    (world, vm, node, start)
}

fn start(world: &World, node: &NodeName, vm: &VmId) -> Option<u64> {
    world.host(node).and_then(|host| host.guest(vm)).map(|guest| guest.start)
}

#[test]
fn an_agent_that_ends_in_order_may_be_away_for_as_long_as_it_has_said() {
    for seed in 1..4 {
        let (mut world, vm, node, began) = left(seed, 60);
        world.run_for(Duration::from_secs(55));
        assert_eq!(start(&world, &node, &vm), Some(began), "it runs on, seed {seed}");
        world.start_agent(&node);
        world.run_for(SOON * 2);
        assert_eq!(place(&world, &vm), Some(node.clone()), "seed {seed}");
        assert_eq!(start(&world, &node, &vm), Some(began), "also when that is over, seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
}

#[test]
fn a_node_that_is_lost_in_an_absence_is_taken_over_after_its_end() {
    for (seed, guardian_restarts) in [(1, false), (2, true), (3, true)] {
        let (mut world, vm, node, _) = left(seed, 60);
        world.power_off(&node);
        if guardian_restarts {
            for other in world.names().into_iter().filter(|other| *other != node) {
                world.kill_agent(&other);
                world.start_agent(&other);
            }
        }
        world.run_for(Duration::from_secs(58));
        assert_eq!(place(&world, &vm), None, "its peers count on it still, seed {seed}");
        let elsewhere = world.run_while_not(SOON, |world| place(world, &vm).is_some());
        assert_eq!(world.broken, vec![], "seed {seed}");
        assert!(elsewhere, "seed {seed}");
    }
}

#[test]
fn an_agent_that_does_not_come_back_loses_its_vms_when_its_absence_ends() {
    let (mut world, vm, node, _) = left(4, 20);
    world.run_for(Duration::from_secs(19));
    assert_eq!(place(&world, &vm), Some(node.clone()));
    world.run_for(Duration::from_secs(2));
    assert_eq!(place(&world, &vm), None, "its guard has ended it");
    assert!(world.run_while_not(SOON, |world| place(world, &vm).is_some()));
    assert_ne!(place(&world, &vm), Some(node));
    assert_eq!(world.broken, vec![]);
}

#[test]
fn an_absence_is_over_when_the_agent_is_back() {
    let (mut world, vm, node, _) = left(5, 600);
    world.run_for(Duration::from_secs(10));
    world.start_agent(&node);
    world.run_for(Duration::from_secs(10));
    cut_off(&mut world, &node);
    world.run_for(Duration::from_secs(6));
    assert_eq!(place(&world, &vm), None, "its guard keeps to what the agent of now says");
    assert!(world.run_while_not(FAILOVER, |world| place(world, &vm).is_some()));
    assert_eq!(world.broken, vec![]);
}

#[test]
fn failover_is_switched_off_and_on_again_without_touching_a_vm() {
    let mut world = world(5, 3);
    let uid = running(&mut world, 2);
    let guarded = |world: &World| {
        let engines = world.names().into_iter().filter_map(|name| world.engine(&name));
        let leases = engines.filter_map(|engine| engine.view().lease);
        leases.filter(Lease::is_guarded).count()
    };
    assert_eq!(guarded(&world), 5);
    let (vm, node) = victim(&world);
    let began = start(&world, &node, &vm);
    for failover in [false, true] {
        world.failover = failover;
        for name in world.names() {
            assert!(world.end_agent(&name, Duration::from_secs(60)), "all agree, {failover}");
            world.start_agent(&name);
            world.run_for(Duration::from_secs(2));
        }
        world.run_for(SOON * 2);
        assert_eq!(guarded(&world), if failover { 5 } else { 0 });
        assert_eq!(start(&world, &node, &vm), began, "failover: {failover}");
        assert!(is_ready(&world, &uid));
        if !failover {
            // Nobody takes anything over, and nothing is ended.
            cut_off(&mut world, &node);
            world.run_for(SOON);
            assert_eq!(start(&world, &node, &vm), began);
            assert_eq!(place(&world, &vm), Some(node.clone()));
            world.network.mend();
            assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
        }
    }
    world.power_off(&node);
    assert!(world.run_while_not(FAILOVER, |world| place(world, &vm).is_some()));
    assert_eq!(world.broken, vec![]);
}

#[test]
fn a_machine_that_can_be_switched_off_is_and_its_vms_run_elsewhere_before_their_lease_has_ended() {
    for seed in 0..8 {
        let mut world = world(5, seed);
        world.set_power_switch(Ok(Duration::from_secs(1)));
        let uid = running(&mut world, 2);
        let (vm, node) = victim(&world);
        let cut_at = world.now();
        cut_off(&mut world, &node);
        let elsewhere = |world: &World| place(world, &vm).is_some_and(|now| now != node);
        assert!(world.run_while_not(FAILOVER, elsewhere), "seed {seed}");
        // F has passed, W and the margin have not.
        let took = world.now().since(cut_at);
        assert!(took < Duration::from_secs(9), "{took:?}, seed {seed}");
        assert_eq!(world.switched_off, 1, "seed {seed}");
        assert!(told(&world, "SwitchedOff") > 0, "seed {seed}");
        world.network.mend();
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)), "seed {seed}");
        world.run_for(SOON);
        assert_eq!((world.broken, world.switched_off), (vec![], 1), "seed {seed}");
    }
}

#[test]
fn a_machine_that_cannot_be_switched_off_is_waited_for_and_people_are_told_why() {
    let mut world = world(5, 1);
    world.set_power_switch(Err("its controller does not answer"));
    running(&mut world, 2);
    let (vm, node) = victim(&world);
    world.power_off(&node);
    let at = world.now();
    assert!(world.run_while_not(FAILOVER, |world| place(world, &vm).is_some()));
    assert!(world.now().since(at) > Duration::from_secs(9), "by its guardians' proof");
    let why = "n1 is silent, and cannot be switched off: its controller does not answer";
    let why = why.replace("n1", node.as_str());
    assert!(world.happened.iter().any(|(_, _, told)| told.message.starts_with(&why)));
    assert_eq!((world.broken, world.switched_off), (vec![], 0));
}

#[test]
fn an_environment_is_released_though_its_handler_dies_as_it_buries_it() {
    let mut interrupted = 0;
    for seed in 0..16 {
        let mut world = world(5, seed);
        let uid = running(&mut world, 1);
        let status =
            world.api.get(&uid).and_then(|object| object.status.clone()).expect("a status");
        let handler = status.replica_set[0].node.clone();
        world.delete(&uid);
        let buried = |world: &World| {
            let others = world.nodes.iter().filter(|(name, _)| **name != handler);
            others.flat_map(|(_, node)| node.disk.values()).any(|kept| match kept {
                Kept::Register(kept) => kept.accepted.as_ref().is_some_and(|(_, r)| r.tombstone),
                _ => false,
            })
        };
        let deadline = world.now() + SOON;
        while !buried(&world) && world.now() < deadline {
            world.run_for(Duration::from_micros(20));
        }
        assert!(buried(&world), "seed {seed}");
        world.power_off(&handler);
        interrupted += u32::from(world.api.get(&uid).is_some());
        let released = |world: &World| world.api.get(&uid).is_none();
        assert!(world.run_while_not(SOON, released), "seed {seed}");
        assert_eq!(world.broken, vec![], "seed {seed}");
    }
    assert!(interrupted > 0, "never before it was released");
}

/// Else a holder would count on it for ever: a lease that is neither renewed nor lost.
#[test]
fn a_guardian_that_has_lost_its_disk_says_that_it_renews_nothing() {
    let mut world = world(2, 1);
    let (now, guardian) = (world.now(), NodeName::from("n1"));
    let holder = Replica { node: NodeName::from("n2"), disk: DiskId(7) };
    let (sent, times) = (now, Times::default());
    let mut ask = |disk: u32, from: &str| {
        let said = Said::Renew { life: 1, sent, times, released: 0, absence: Absence::default() };
        let (guardian_disk, holder) = (DiskId(disk), holder.clone());
        let message = LeaseMessage { guardian: guardian_disk, holder, epoch: 1, said };
        let input = Input::Message {
            from: NodeName::from(from),
            message: Box::new(Message::Lease(Box::new(message))),
        };
        let engine = world.nodes.get_mut(&guardian).and_then(|node| node.engine.as_mut());
        let effects = engine.expect("it runs").handle(now, input);
        let said = effects.actions.into_iter().filter_map(|action| match action {
            Action::Send { to, message } if to == holder_name() => match *message {
                Message::Lease(message) => Some((message.guardian, message.said)),
                _ => None,
            },
            _ => None,
        });
        said.collect::<Vec<_>>()
    };
    assert_eq!(ask(13, "n2"), [(DiskId(13), Said::Dead)], "not that disk");
    assert_eq!(ask(13, "n3"), [], "to nobody who speaks for others");
}

fn holder_name() -> NodeName {
    NodeName::from("n2")
}
