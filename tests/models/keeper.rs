//! One node of the register's world: the engine's `Registers`, its disk, and what the engine does around them
//! (`Engine::declare`, `turned`, `held_back`), done as it does it.

use std::fmt;
use std::time::Duration;

use discovery::engine::context::Context;
use discovery::engine::effect::{Action, Effects};
use discovery::engine::id::{NodeName, VeUid};
use discovery::engine::input::VeDeclared;
use discovery::engine::record::{Kept, Record, VeRecord};
use discovery::engine::replica::Replica;
use discovery::engine::time::Instant;
use discovery::engine::vet::register::acceptor::Acceptor;
use discovery::engine::vet::register::ballot::Ballot;
use discovery::engine::vet::register::message::{RegisterMessage, Said};
use discovery::engine::vet::register::{Held, Registers, Turn};
use discovery::engine::wire::Message;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::cluster::Flaw;
use super::history::Value;

/// One node: the engine's room, and what is on its disk.
#[derive(Clone, Debug)]
pub struct Node {
    pub registers: Registers,
    pub disk: Option<Acceptor>,
    /// What a restart would find there.
    pub durable: Option<Acceptor>,
    pub hours: u64,
    /// What it has proposed last in this life.
    pub proposed: Option<(Ballot, Value)>,
}

/// A message under way.
#[derive(Clone, Debug)]
pub struct Letter {
    pub from: NodeName,
    pub to: NodeName,
    pub message: RegisterMessage,
}

pub fn ve() -> VeUid {
    "ve".into()
}

pub fn name(node: usize) -> NodeName {
    format!("n{}", node + 1).into()
}

pub fn change(number: u8) -> NodeName {
    format!("c{number}").into()
}

/// The changes that a record stands on: it has a list of names, which nothing else here uses.
fn changes(record: &VeRecord) -> &Vec<NodeName> {
    &record.owing
}

impl Node {
    pub fn own(&self) -> &Replica {
        self.registers.own()
    }

    fn now(&self) -> Instant {
        Instant::ZERO + Duration::from_secs(3_600 * self.hours)
    }
}

/// One agent while it handles one event.
pub struct Agent {
    pub node: Node,
    pub ctx: Context,
    pub flaw: Option<Flaw>,
    pub chosen: Vec<(Ballot, Value)>,
    pub acknowledged: Vec<NodeName>,
}

impl Agent {
    pub fn of(node: &Node, flaw: Option<Flaw>) -> Self {
        let ctx = Context {
            node: node.own().node.clone(),
            now: node.now(),
            rng: ChaCha8Rng::seed_from_u64(0),
            out: Effects::default(),
            loopback: Vec::new(),
            lapsed: false,
        };
        Self { node: node.clone(), ctx, flaw, chosen: Vec::new(), acknowledged: Vec::new() }
    }

    /// A gateway declares a change; it is made, and acknowledged once it is chosen.
    pub fn declare(&mut self, declared: VeDeclared) {
        let gateway = NodeName::from("gateway");
        if self.node.registers.read(&ve()).is_none() {
            let own = self.node.own().clone();
            let alone = |replica: &Replica| *replica == own;
            self.node.registers.declare(&gateway, declared, &alone, &mut self.ctx);
            return;
        }
        let number = declared.generation as u8;
        self.held_back(|registers| {
            registers.change(&ve(), |record| {
                if !record.owing.contains(&change(number)) {
                    record.owing.push(change(number));
                }
            });
            let (uid, generation) = (ve(), declared.generation);
            let done = Message::Declared { uid, generation, deleting: false, round: 0 };
            registers.hold(&ve(), Held::Say(done));
        });
        if self.flaw == Some(Flaw::AnswersEarly) {
            self.acknowledged.push(change(number));
        }
    }

    pub fn change_set(&mut self, members: Vec<Replica>) {
        let direct = self.flaw == Some(Flaw::NoJointSet);
        self.held_back(|registers| {
            registers.change(&ve(), |record| {
                record.set.change_to(members);
                if direct {
                    record.set.leaving.clear();
                }
            });
        });
    }

    pub fn take_back_set(&mut self) {
        self.held_back(|registers| registers.take_back_set(&ve()));
    }

    fn held_back(&mut self, act: impl FnOnce(&mut Registers)) {
        act(&mut self.node.registers);
        self.node.registers.propose(&ve(), &mut self.ctx);
        self.node.proposed = self.proposed().or(self.node.proposed.take());
        for held in self.node.registers.release(&ve()) {
            let Held::Say(Message::Declared { generation, .. }) = held else { continue };
            self.acknowledged.push(change(generation as u8));
        }
    }

    /// What it is about to propose to its peers.
    fn proposed(&self) -> Option<(Ballot, Value)> {
        self.ctx.out.actions.iter().rev().find_map(|action| {
            let Action::Send { message, .. } = action else { return None };
            let Message::Register(message) = &**message else { return None };
            let Said::Propose { ballot, record } = &message.said else { return None };
            let (epoch, joint) = (record.set.epoch, !record.set.leaving.is_empty());
            let members = record.set.members.iter().map(|member| member.node.clone()).collect();
            let changes = changes(record).clone();
            Some((ballot.clone(), Value { changes, epoch, joint, members }))
        })
    }

    pub fn hear(&mut self, from: &NodeName, message: RegisterMessage) {
        let proposed = self.node.proposed.clone();
        match self.node.registers.message(from, message, &mut self.ctx) {
            Some(Turn::Leads(_)) => {
                for (_, declared) in self.node.registers.take_declared(&ve()) {
                    self.declare(declared);
                }
                self.held_back(|_| ());
            }
            Some(Turn::Chosen(_)) => {
                self.chosen.extend(proposed);
                self.held_back(|_| ());
            }
            Some(Turn::Deposed(_) | Turn::LostDisk(..) | Turn::Answers(..)) | None => {}
        }
    }

    pub fn take_over(&mut self) {
        let own = self.node.own().clone();
        self.node.registers.peers_changed(&[], self.ctx.now);
        self.node.registers.wake(&|replica| *replica == own, &mut self.ctx);
    }

    /// An hour passes.
    pub fn wait(&mut self) {
        self.node.hours += 1;
        self.ctx.now = self.node.now();
    }

    pub fn restart(&mut self, own: Replica) {
        self.node.disk.clone_from(&self.node.durable);
        let kept = self.node.disk.iter().cloned().collect();
        self.node.registers = Registers::recover(own, kept, self.ctx.now);
        self.node.proposed = None;
    }

    /// What it has said to itself is heard, what is to be kept is written, and then everything is said.
    pub fn settle(&mut self) {
        let own = self.node.own().node.clone();
        while !self.ctx.loopback.is_empty() {
            for message in std::mem::take(&mut self.ctx.loopback) {
                if let Message::Register(message) = message {
                    self.hear(&own, *message);
                }
            }
        }
        let before = self.node.disk.clone();
        for record in std::mem::take(&mut self.ctx.out.persist) {
            if let Record::Put(kept) = record
                && let Kept::Register(acceptor) = *kept
            {
                self.node.disk = Some(acceptor);
            }
        }
        let late = self.flaw == Some(Flaw::WritesLate) && before != self.node.disk;
        self.node.durable = if late { before } else { self.node.disk.clone() };
    }
}

struct Short<'a>(&'a Ballot);

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ballot { round, node, step } = self.0;
        let node = node.as_ref().map_or("nobody", NodeName::as_str);
        write!(f, "{round}.{node}.{step}")
    }
}

fn value(record: &VeRecord) -> String {
    let set = &record.set;
    let names = |of: &[Replica]| {
        let names = of.iter().map(|r| format!("{}#{}", r.node, r.disk.0)).collect::<Vec<_>>();
        names.join(" ")
    };
    let leaving = match set.leaving.as_slice() {
        [] => String::new(),
        leaving => format!(" leaving {}", names(leaving)),
    };
    format!("{:?} kept by {}{leaving}", changes(record), names(&set.members))
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: hears {}: ", self.to, self.from)?;
        match &self.message.said {
            Said::Ask { ballot } => write!(f, "may I have {}?", Short(ballot)),
            Said::Promise { ballot, accepted: None } => write!(f, "{} is yours", Short(ballot)),
            Said::Promise { ballot, accepted: Some(taken) } => {
                let (at, record) = &**taken;
                write!(f, "{} is yours, I have {} {}", Short(ballot), Short(at), value(record))
            }
            Said::Propose { ballot, record } => {
                write!(f, "take {} {}", Short(ballot), value(record))
            }
            Said::Accepted { ballot } => write!(f, "{} is on my disk", Short(ballot)),
            Said::Refused { ballot, promised } => {
                write!(f, "not {}: I have promised {}", Short(ballot), Short(promised))
            }
            Said::OtherDisk { .. } => write!(f, "I have another disk now"),
        }
    }
}
