//! Two nodes that talk to each other, without a network between.

use rand::SeedableRng;

use super::*;

const RULES: Rules = Rules { capacity: 700.0, threshold_s: 3.0 };
const ROOM: u32 = 4096;

type Node = Relief<&'static str, u32>;

fn give(
    node: &mut Node,
    at_s: u64,
    free_mib: u32,
    input: Input<&'static str, u32>,
) -> Vec<Effect<&'static str, u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let now = Now { at: Instant(at_s * 1_000_000), free_mib, rng: &mut rng };
    node.handle(input, now)
}

/// A node with ten VMs, numbered from `first`, that have had this load since the fifth second.
fn node(peers: &[&'static str], first: u32, load: f64) -> (Node, Vec<Effect<&'static str, u32>>) {
    let mut node = Node::new(RULES);
    give(&mut node, 0, ROOM, Input::Peers(peers.to_vec()));
    for vm in first..first + 10 {
        give(&mut node, 0, ROOM, Input::Here { vm, memory_mib: 1024, load: 50.0 });
    }
    let load = |vm| Input::Load { vm, load };
    let effects = (first..first + 10).flat_map(|vm| give(&mut node, 5, ROOM, load(vm))).collect();
    (node, effects)
}

fn summary(load: f64, busy: bool) -> Summary {
    let outline = Outline { vms: 8.0, load, mean: load, noise: 1_600.0, gap: 0.0, rate: 0.03 };
    Summary { outline, lore: Lore::default(), free_mib: ROOM, busy }
}

/// An overloaded node that has heard of an idle peer, and its question.
fn asking() -> (Node, u64) {
    let (mut node, _) = node(&["b"], 0, 74.0);
    let effects =
        give(&mut node, 6, ROOM, Input::Message("b", Message::Tell(summary(300.0, false))));
    let number = effects.iter().find_map(|effect| match effect {
        Effect::Send("b", Message::Ask { number, .. }) => Some(*number),
        _ => None,
    });
    (node, number.expect("it asks"))
}

fn ask(number: u64) -> Message {
    Message::Ask { number, memory_mib: 1024, watched: Watched::new(80.0) }
}

#[test]
fn an_overloaded_node_asks_and_migrates_when_granted() {
    let (mut node, number) = asking();
    let granted = Message::Granted { number, summary: summary(300.0, false) };
    let effects = give(&mut node, 6, ROOM, Input::Message("b", granted));
    let migrated = effects.iter().find_map(|effect| match effect {
        Effect::Migrate(vm, "b") => Some(*vm),
        _ => None,
    });
    let effects = give(&mut node, 16, ROOM, Input::Left(migrated.expect("it migrates")));
    assert!(effects.contains(&Effect::Ended("b", true)));
}

#[test]
fn a_vm_that_has_moved_for_another_reason_is_not_taken_up_at_once() {
    let (mut node, _) = node(&["b"], 0, 60.0);
    (0..10).for_each(|vm| node.leave_alone(&vm, Instant(60_000_000)));
    let loads = |node: &mut Node, at| {
        (0..10).for_each(|vm| drop(give(node, at, ROOM, Input::Load { vm, load: 90.0 })));
        let told = Message::Tell(summary(300.0, false));
        give(node, at, ROOM, Input::Message("b", told))
    };
    let asks = |effects: &[Effect<&'static str, u32>]| {
        effects.iter().any(|e| matches!(e, Effect::Send(_, Message::Ask { .. })))
    };
    let early = loads(&mut node, 10);
    assert!(!asks(&early) && node.part().is_none());
    let late = loads(&mut node, 61);
    assert!(asks(&late) || node.part().is_some());
}

#[test]
fn what_is_no_longer_worth_it_by_fresh_knowledge_is_released() {
    let (mut node, number) = asking();
    let granted = Message::Granted { number, summary: summary(720.0, false) };
    let effects = give(&mut node, 6, ROOM, Input::Message("b", granted));
    assert!(effects.contains(&Effect::Send("b", Message::Release { number })), "{effects:?}");
    assert!(node.part().is_none());
}

#[test]
fn a_node_takes_part_in_one_move_at_a_time_and_is_free_again_when_nothing_is_heard() {
    let (mut node, _) = node(&["a", "c"], 0, 30.0);
    let grants = |effects: &[Effect<&'static str, u32>]| {
        effects.iter().any(|e| matches!(e, Effect::Send(_, Message::Granted { .. })))
    };
    assert!(grants(&give(&mut node, 10, ROOM, Input::Message("a", ask(1)))));
    assert!(!grants(&give(&mut node, 11, ROOM, Input::Message("c", ask(1)))));
    // A sign of life of another question than the one that holds it does nothing.
    give(&mut node, 12, ROOM, Input::Message("a", Message::Moving { number: 7 }));
    assert_eq!(node.part().map(Part::ends), Some(Instant(15_000_000)));
    give(&mut node, 15, ROOM, Input::Wakeup);
    assert!(grants(&give(&mut node, 15, ROOM, Input::Message("c", ask(2)))));
}

#[test]
fn a_node_without_memory_refuses_and_a_cluster_without_any_is_not_asked() {
    let (mut target, _) = node(&["a"], 0, 30.0);
    let effects = give(&mut target, 10, 512, Input::Message("a", ask(1)));
    assert!(matches!(effects[0], Effect::Send("a", Message::Refused { number: 1, .. })));
    assert!(target.part().is_none());
    let (mut source, _) = node(&["b"], 20, 74.0);
    let full = Summary { free_mib: 512, ..summary(300.0, false) };
    let effects = give(&mut source, 6, 0, Input::Message("b", Message::Tell(full)));
    let asks = |e: &Effect<&'static str, u32>| matches!(e, Effect::Send(_, Message::Ask { .. }));
    assert!(!effects.iter().any(asks) && source.part().is_none());
}

#[test]
fn an_answer_that_does_not_come_is_not_waited_for_and_a_late_one_is_released() {
    let (mut node, number) = asking();
    let effects = give(&mut node, 7, ROOM, Input::Wakeup);
    assert!(effects.contains(&Effect::Ended("b", false)) && node.part().is_none());
    let late = Message::Granted { number, summary: summary(300.0, false) };
    let effects = give(&mut node, 8, ROOM, Input::Message("b", late));
    assert!(effects.contains(&Effect::Send("b", Message::Release { number })));
}

#[test]
fn peers_are_told_of_a_change_at_most_once_a_second_and_of_none_now_and_then() {
    let (mut node, early) = node(&["a"], 0, 60.0);
    let tells = |effects: &[Effect<&'static str, u32>]| {
        effects.iter().filter(|e| matches!(e, Effect::Send(_, Message::Tell(_)))).count()
    };
    assert_eq!(tells(&early), 1);
    assert_eq!(node.next_wakeup(), Some(Instant(6_000_000)));
    assert_eq!(tells(&give(&mut node, 6, ROOM, Input::Wakeup)), 1);
    assert_eq!(node.next_wakeup(), Some(Instant(6_000_000) + TELL_ANYWAY));
}

/// A node that thinks of nothing but what is overloaded already: its threshold is above what any outlook can be.
fn reluctant(load: f64) -> Node {
    let mut node = Node::new(Rules { threshold_s: 1_000.0, ..RULES });
    give(&mut node, 0, ROOM, Input::Peers(vec!["b"]));
    for vm in 0..10 {
        give(&mut node, 0, ROOM, Input::Here { vm, memory_mib: 1024, load });
    }
    node
}

fn asks(effects: &[Effect<&'static str, u32>]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Send(_, Message::Ask { .. })))
}

#[test]
fn an_overload_that_lasts_is_worth_a_migration_whatever_the_threshold() {
    // Also where it takes several moves to end it, none of which would end it alone.
    for load in [75.0, 140.0] {
        let mut node = reluctant(load);
        let idle = Input::Message("b", Message::Tell(summary(300.0, false)));
        assert!(!asks(&give(&mut node, 1, ROOM, idle)), "{load}: it has only begun");
        assert!(asks(&give(&mut node, 250, ROOM, Input::Wakeup)), "{load}");
    }
    let mut calm = reluctant(69.0);
    let idle = Input::Message("b", Message::Tell(summary(300.0, false)));
    give(&mut calm, 1, ROOM, idle);
    assert!(!asks(&give(&mut calm, 250, ROOM, Input::Wakeup)), "nothing is overloaded");
}

#[test]
fn what_makes_no_sense_is_not_listened_to() {
    let (mut node, _) = node(&["b"], 0, 74.0);
    for nonsense in [f64::NAN, f64::INFINITY, -1.0, 1e300] {
        let mut summary = summary(300.0, false);
        summary.outline.noise = nonsense;
        let tell = Message::Tell(summary);
        assert!(!tell.is_sane());
        assert!(!asks(&give(&mut node, 6, ROOM, Input::Message("b", tell))));
    }
    assert!(Message::Tell(summary(300.0, false)).is_sane());
    assert!(asks(&give(
        &mut node,
        6,
        ROOM,
        Input::Message("b", Message::Tell(summary(300.0, false)))
    )));
}
