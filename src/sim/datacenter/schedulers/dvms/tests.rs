//! One real agent among nodes that follow a script.

use super::super::super::run::{Setup, run};
use super::super::repair::Move;
use super::*;
use crate::sim::workload::vmplaces;

/// The agent of one node, what it is told and when, and what the others get to hear.
struct Stage {
    dvms: Dvms,
    agent: u32,
    script: Vec<(u64, u32, Message)>,
    heard: Vec<(u32, Message)>,
}

impl Stage {
    fn new(agent: u32, script: Vec<(u64, u32, Message)>) -> Self {
        let dvms = Dvms::new(Rules { next: Next::Random, minimum: MINIMUM });
        Self { dvms, agent, script, heard: Vec::new() }
    }

    /// Plays it on six nodes for two minutes.
    fn play(mut self) -> Vec<(u32, Message)> {
        let mut workload = vmplaces::workload(6, 10, 1);
        workload.events.clear();
        workload.end = Instant(120_000_000);
        let setup = Setup { workload: &workload, seed: 1, loss: 0.0, progress: &mut |_| {} };
        run(setup, &mut self);
        self.heard
    }
}

impl Scheduler for &mut Stage {
    type Message = Message;

    const POLLS: bool = true;

    fn handle(&mut self, at: Actor, happening: Happening<Message>, desk: &mut Desks<'_>) {
        let Actor::Node(me) = at else { return };
        match happening {
            Happening::Started => {
                self.dvms.handle(at, Happening::Started, desk);
                let mine = self.script.iter().enumerate().filter(|(_, (_, from, _))| *from == me);
                for (line, (at_s, ..)) in mine {
                    desk.wake_at(Instant(at_s * 1_000_000), line as u64);
                }
            }
            happening if me == self.agent => self.dvms.handle(at, happening, desk),
            Happening::Timer(line) => {
                let message = self.script[line as usize].2.clone();
                desk.send(Actor::Node(self.agent), 0, message);
            }
            Happening::Message { from, message } => {
                if let Message::IsValid { partition, sent } = message.clone() {
                    desk.send(from, 0, Message::Valid { partition, sent, holds: true });
                }
                self.heard.push((me, message));
            }
            _ => {}
        }
    }
}

fn partition(initiator: u32, nodes: &[u32]) -> Partition {
    Partition { id: (initiator, 1), version: 0, nodes: nodes.to_vec() }
}

/// The published agent handles one message at a time, and so meets the second partition when it is in the first.
/// Here the answer of an initiator takes its time: the second was once forgotten, and stood still until its time-out.
#[test]
fn of_two_partitions_that_ask_at_once_one_is_joined_and_the_other_goes_on() {
    let join = |initiator| {
        let partition = partition(initiator, &[initiator]);
        (1, initiator, Message::Join { partition, sent: Instant(1_000_000) })
    };
    let heard = Stage::new(2, vec![join(0), join(1)]).play();
    let asked = heard.iter().filter(|(_, message)| matches!(message, Message::IsValid { .. }));
    assert_eq!(asked.count(), 2, "both asked while it was free");
    let mut passed_on: Vec<Vec<u32>> = Vec::new();
    for (_, message) in &heard {
        if let Message::Join { partition, .. } = message {
            passed_on.push(partition.nodes.clone());
        }
    }
    passed_on.sort_by_key(Vec::len);
    assert_eq!(passed_on.len(), 2, "{passed_on:?}");
    let (other, joined) = (passed_on[0][0], passed_on[1][0]);
    assert_eq!(passed_on, [vec![other], vec![joined, 2]], "{heard:?}");
}

/// A source may be in another partition by the time that its migration ends; that one's leader once heard of it.
#[test]
fn the_end_of_a_migration_is_told_to_who_ordered_it_for_the_partition_it_was_for() {
    let first = partition(0, &[0, 1]);
    let chosen = Move { vm: 3, from: 0, to: 1 };
    let script = vec![
        (1, 1, Message::Update(first.clone())),
        (2, 1, Message::Order { id: first.id, chosen }),
        (3, 1, Message::Dissolve { id: first.id, solved: true }),
        (9, 2, Message::Update(partition(2, &[2, 0, 3]))),
    ];
    let heard = Stage::new(0, script).play();
    let ends: Vec<&(u32, Message)> =
        heard.iter().filter(|(_, message)| matches!(message, Message::Ended(_))).collect();
    assert_eq!(ends, [&(1, Message::Ended(first.id))]);
}
