//! A live migration whose source, target or handler dies at each of its steps: one instance is left in the end, and it is
//! the one that has the memory, wherever that was not lost with its machine.

use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::faults::FaultKind;
use super::moves_tests::{instances, maintain};
use super::tests::{is_ready, spec, world};
use super::world::World;
use crate::engine::dnt::rendezvous;
use crate::engine::id::{NodeName, VeName, VeUid, VmId};
use crate::engine::record::MoveStep;

const SOON: Duration = Duration::from_secs(120);

/// A moment of a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Moment {
    /// The record says that it moves; the target makes itself ready.
    Preparing,
    /// The source has not begun to send it.
    Ordered,
    /// It is being sent.
    UnderWay,
    /// It is at the target, paused; the handler does not know.
    Arrived,
    /// The placement is the target's; it has not been continued.
    Committed,
    /// Called off while it was being sent.
    Halting,
    /// It failed; the target is to forget it.
    Clearing,
}

const MOMENTS: [Moment; 7] = [
    Moment::Preparing,
    Moment::Ordered,
    Moment::UnderWay,
    Moment::Arrived,
    Moment::Committed,
    Moment::Halting,
    Moment::Clearing,
];

/// Whose death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    SourceAgent,
    TargetAgent,
    HandlerAgent,
    AllAgents,
    SourcePower,
    TargetPower,
    /// Not a death: its agent comes back at once and knows nothing.
    TargetRecords,
}

const VICTIMS: [Victim; 7] = [
    Victim::SourceAgent,
    Victim::TargetAgent,
    Victim::HandlerAgent,
    Victim::AllAgents,
    Victim::SourcePower,
    Victim::TargetPower,
    Victim::TargetRecords,
];

struct Case {
    world: World,
    uid: VeUid,
    vm: VmId,
    handler: NodeName,
    source: NodeName,
    target: NodeName,
}

impl Case {
    /// One VM on n2, handled by n1, that has nowhere to go but n3, and n2 about to be emptied.
    fn new(seed: u64) -> Self {
        let mut world = world(3, seed);
        let [handler, source, target] = ["n1", "n2", "n3"].map(NodeName::from);
        let names = world.names();
        let uid = (0..).map(|salt| VeUid::from(format!("one-{salt}")));
        let mut uid = uid
            .filter(|uid| rendezvous::ranked(uid.as_str(), names.iter()).first() == Some(&handler));
        let uid = uid.next().expect("some uid is its");
        for closed in [&handler, &target] {
            world.declare_node(closed, |declared| declared.schedulable = false);
        }
        world.apply(&uid, &VeName::new("default", "one"), spec(1, 1));
        assert!(world.run_while_not(SOON, |world| is_ready(world, &uid)));
        world.declare_node(&target, |declared| declared.schedulable = true);
        world.run_for(Duration::from_secs(1));
        let vm = instances(&world, &uid).into_keys().next().expect("it runs");
        maintain(&mut world, &source, true);
        Self { world, uid, vm, handler, source, target }
    }

    fn step(&self) -> Option<MoveStep> {
        let view = self.world.engine(&self.handler)?.view();
        let ve = view.ves.into_iter().find(|ve| ve.uid == self.uid)?;
        ve.moves.into_iter().map(|(_, _, step)| step).next()
    }

    fn is_placed_on_target(&self) -> bool {
        let view = self.world.engine(&self.handler).map(|engine| engine.view());
        let ve = view.and_then(|view| view.ves.into_iter().find(|ve| ve.uid == self.uid));
        ve.is_some_and(|ve| ve.placements.iter().any(|(_, node, ..)| *node == self.target))
    }

    fn has_arrived(&self) -> bool {
        let host = self.world.host(&self.target).expect("a node");
        host.guest(&self.vm).is_some_and(|guest| guest.arrived)
    }

    fn is_at(&self, moment: Moment) -> bool {
        let flying = !self.world.flights.is_empty();
        match moment {
            Moment::Preparing => self.step() == Some(MoveStep::Preparing),
            Moment::Ordered => self.step() == Some(MoveStep::Going) && !flying,
            Moment::UnderWay => flying,
            Moment::Arrived => self.has_arrived() && !self.is_placed_on_target(),
            Moment::Committed => self.has_arrived() && self.is_placed_on_target(),
            Moment::Halting => self.step() == Some(MoveStep::Halting),
            Moment::Clearing => self.step() == Some(MoveStep::Clearing),
        }
    }

    fn run_to(&mut self, moment: Moment) -> bool {
        if moment == Moment::Clearing {
            self.world.migration_faults = (1.0, 0.0);
        }
        for _ in 0..60_000 {
            if self.is_at(moment) {
                return true;
            }
            if moment == Moment::Halting && self.is_at(Moment::UnderWay) {
                maintain(&mut self.world, &self.source.clone(), false);
            }
            self.world.run_for(Duration::from_micros(500));
        }
        false
    }

    fn kill(&mut self, victim: Victim) {
        let agents = match victim {
            Victim::SourceAgent => vec![self.source.clone()],
            Victim::TargetAgent => vec![self.target.clone()],
            Victim::HandlerAgent => vec![self.handler.clone()],
            Victim::AllAgents => self.world.names(),
            Victim::SourcePower => return self.world.power_off(&self.source.clone()),
            Victim::TargetPower => return self.world.power_off(&self.target.clone()),
            Victim::TargetRecords => {
                let (at_once, mut rng) = (Duration::ZERO, ChaCha8Rng::seed_from_u64(0));
                let lost = (FaultKind::LostRecords, &self.target.clone(), at_once);
                assert!(self.world.inflict(lost, &mut rng), "they are lost");
                return;
            }
        };
        agents.iter().for_each(|agent| self.world.kill_agent(agent));
    }

    /// The machine that has the memory loses its power.
    fn loses_the_memory(&self, victim: Victim) -> bool {
        match victim {
            Victim::SourcePower => !self.has_arrived(),
            Victim::TargetPower => self.has_arrived(),
            _ => false,
        }
    }
}

fn dies_at(moment: Moment, victim: Victim, seed: u64) {
    let mut case = Case::new(seed);
    let before = instances(&case.world, &case.uid);
    let what = format!("{victim:?} dies at {moment:?}, seed {seed}");
    assert!(case.run_to(moment), "the moment comes: {what}");
    let lost = case.loses_the_memory(victim);
    case.kill(victim);
    case.world.migration_faults = (0.0, 0.0);
    // An agent is back before its node's lease has lapsed; power takes as long as it takes.
    let power = matches!(victim, Victim::SourcePower | Victim::TargetPower);
    case.world.run_for(Duration::from_secs(if power { 8 } else { 3 }));
    assert_eq!(case.world.broken, vec![], "while it is dead: {what}");
    let running = instances(&case.world, &case.uid).len();
    assert!(running <= 1, "{what}");
    case.world.names().iter().for_each(|name| case.world.start_agent(name));
    maintain(&mut case.world, &case.source.clone(), true);
    let (source, uid) = (case.source.clone(), case.uid.clone());
    let drained = case.world.run_while_not(SOON, |world| {
        let host = world.host(&source).expect("a node");
        is_ready(world, &uid) && host.list().is_empty() && host.disks.is_empty()
    });
    assert_eq!(case.world.broken, vec![], "{what}");
    assert!(drained, "{what}: {:?}", case.world.happened.iter().rev().take(8).collect::<Vec<_>>());
    if victim == Victim::HandlerAgent && moment != Moment::Halting {
        let aborted = case.world.migrations.get("aborted");
        assert_eq!(aborted, None, "who handles it then does not call it off: {what}");
    }
    let after = instances(&case.world, &case.uid);
    let place =
        |all: &std::collections::BTreeMap<VmId, (NodeName, u64)>| all.values().next().cloned();
    let (was, is) = (place(&before).expect("it ran"), place(&after).expect("it runs"));
    assert_eq!(is.0, case.target, "{what}");
    let sends = !matches!(moment, Moment::Preparing | Moment::Clearing);
    if victim == Victim::TargetRecords && sends {
        // What comes to a node that knows nothing of it is a stray there, which its guard may end.
        assert!(is.1 >= was.1, "{what}");
    } else if lost {
        assert!(is.1 > was.1, "its memory was lost: {what}");
    } else {
        assert_eq!(is.1, was.1, "the one with the memory goes on: {what}");
    }
}

#[test]
fn whoever_dies_at_whichever_step_of_a_migration_the_vm_with_the_memory_goes_on() {
    for moment in MOMENTS {
        for victim in VICTIMS {
            for seed in 0..3 {
                dies_at(moment, victim, seed);
            }
        }
    }
}

/// Its source had been told to remove it, removed it when it had left, and did not notice: it was removed again and again, and the
/// deletion never ended.
#[test]
fn an_environment_is_deleted_though_its_vm_leaves_before_its_move_is_given_up() {
    let mut left = 0;
    for seed in 0..3 {
        let mut dry = Case::new(seed);
        assert!(dry.run_to(Moment::UnderWay), "seed {seed}");
        let began = dry.world.now();
        assert!(dry.run_to(Moment::Arrived), "seed {seed}");
        let takes = dry.world.now().since(began);
        for early in [5, 20, 60, 120, 200] {
            let mut case = Case::new(seed);
            assert!(case.run_to(Moment::UnderWay), "seed {seed}");
            case.world.run_for(takes.saturating_sub(Duration::from_millis(early)));
            let uid = case.uid.clone();
            case.world.delete(&uid);
            let gone = |world: &World| world.api.get(&uid).is_none();
            let what = format!("seed {seed}, deleted {early} ms before it would have left");
            assert!(case.world.run_while_not(SOON, gone), "{what}");
            assert_eq!(case.world.broken, vec![], "{what}");
            left += case.world.migrations.get("arrived").copied().unwrap_or(0);
        }
    }
    assert!(left > 0, "some had left before they were told to stay");
}
