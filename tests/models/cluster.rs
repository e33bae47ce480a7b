//! The world around one environment's register: nodes with their disks, a network that loses, repeats and reorders, gateways
//! that declare changes to anybody, and handlers each of which believes that all others are dead.
//!
//! ```text
//!   Event ──> one node's Registers (the engine's own) ──> written to its disk ──> said (never taken back: whatever was said
//!                                                                                 may arrive, again, late or never)
//! ```
//!
//! A change is a name that is added to a list in the record, so that each value shows all changes that it stands on. What the
//! engine does around its registers (`Engine::declare`, `turned`, `held_back`) is done here as it does it. Time stands still
//! but for an hour that passes at a node before it takes something over, so that nothing waits for a timer.

use std::sync::Arc;

use discovery::engine::effect::Action;
use discovery::engine::id::{NodeName, VeName};
use discovery::engine::input::VeDeclared;
use discovery::engine::replica::{DiskId, Replica};
use discovery::engine::spec::{Recovery, VeSpec, VeState};
use discovery::engine::time::Instant;
use discovery::engine::vet::register::Registers;
use discovery::engine::vet::register::ballot::Ballot;
use discovery::engine::wire::Message;
use stateright::{Model, Property};

use super::history::{History, Value, Verdict};
use super::keeper::{Agent, Letter, Node, change, name, ve};
use super::table::{Memo, Number, Numbers, Table};

/// What is never to be, and what is to be possible.
pub const ONE_HISTORY: &str = "each chosen value has in it all that was chosen before";
pub const NOTHING_LOST: &str = "what was acknowledged is in the newest chosen value";
pub const IN_ORDER: &str = "what was acknowledged comes before whatever was declared after that";
const ONE_TURN: &str = "no two handlers have a value chosen in one round";
const ACKNOWLEDGED: &str = "sometimes: everything that was declared is acknowledged";
const GOES_ON: &str = "sometimes: another handler goes on with what the first had chosen";
const FINISHES: &str = "sometimes: a handler has a value chosen that another has only proposed";
const ARRIVED: &str =
    "sometimes: the set has changed, and the next change is chosen by the new set";
const TAKEN_BACK: &str =
    "sometimes: a change of the set was taken back, and the next change is chosen by the old set";

/// How much can happen.
#[derive(Clone, Default)]
pub struct Plan {
    /// How many nodes there are; the first three are the first replica set.
    pub nodes: usize,
    /// Which change is declared to which node, once each, in any order.
    pub declared: Vec<(usize, u8)>,
    /// How often a node comes to believe that it is to take over.
    pub take_overs: u8,
    /// How often an agent restarts, with what is on its disk.
    pub restarts: u8,
    /// How often a node comes back with an empty disk.
    pub lost_disks: u8,
    /// Nodes to which nothing of the three happens.
    pub spared: Vec<usize>,
    /// The first change was chosen and taken by all before the world begins.
    pub settled: bool,
    /// Pairs of nodes that never hear each other.
    pub cut: Vec<(usize, usize)>,
    /// The sets that a handler may change to, once each.
    pub sets: Vec<[usize; 3]>,
    /// How often a handler may take back a change of the set that is not chosen.
    pub take_backs: u8,
    /// What is wrong with this world.
    pub flaw: Option<Flaw>,
}

/// What can be wrong with a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Answers leave before what they say is on the disk: a restart loses the last write.
    WritesLate,
    /// A node that comes back with an empty disk goes by the old one's id.
    SameDisk,
    /// A change is acknowledged when it is made, not when it is chosen.
    AnswersEarly,
    /// The new set decides alone, at once.
    NoJointSet,
}

/// Numbers of what is in the cluster's tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    nodes: [Number; 4],
    said: Numbers,
    happened: Happened,
    history: Number,
}

/// How much of the plan has happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Happened {
    declared: u8,
    sets: u8,
    take_backs: u8,
    take_overs: u8,
    restarts: u8,
    lost_disks: u8,
}

/// Something that happens to one node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Hears { node: usize, letter: Number },
    Declared { node: usize, number: usize },
    TakesOver(usize),
    Restarts(usize),
    LosesDisk(usize),
    ChangesSet { node: usize, number: usize },
    TakesSetBack(usize),
}

/// What an event has led to.
struct Outcome {
    node: Number,
    said: Vec<Number>,
    chosen: Vec<(Ballot, Value)>,
    acknowledged: Vec<NodeName>,
}

/// The model.
pub struct Cluster {
    plan: Plan,
    nodes: Table<Node>,
    letters: Table<Letter>,
    histories: Table<History>,
    heard: Memo<(Number, Number), Outcome>,
    verdicts: Memo<Number, Verdict>,
}

impl Cluster {
    pub fn new(plan: Plan) -> Self {
        let (nodes, letters, histories) = (Table::default(), Table::default(), Table::default());
        let (heard, verdicts) = (Memo::default(), Memo::default());
        Self { plan, nodes, letters, histories, heard, verdicts }
    }

    fn first_set() -> Vec<Replica> {
        (0..3).map(|node| Replica { node: name(node), disk: DiskId(1) }).collect()
    }

    fn declaration(number: u8) -> VeDeclared {
        VeDeclared {
            uid: ve(),
            name: VeName::new("ns", "ve"),
            generation: number.into(),
            resource_version: String::new(),
            deleting: false,
            gone: false,
            reported: 0,
            replica_set: Self::first_set(),
            spec: VeSpec {
                state: VeState::Running,
                members: Vec::new(),
                placement: Vec::new(),
                recovery: Recovery::default(),
            },
        }
    }

    /// A node's event is over: everything is written, and then said.
    fn done(&self, mut agent: Agent) -> Outcome {
        agent.settle();
        let from = agent.node.own().node.clone();
        let said = std::mem::take(&mut agent.ctx.out.actions).into_iter().filter_map(|action| {
            let Action::Send { to, message } = action else { return None };
            let Message::Register(message) = *message else { return None };
            Some(self.letters.number(Letter { from: from.clone(), to, message: *message }))
        });
        let said = said.collect();
        let (chosen, acknowledged) = (agent.chosen, agent.acknowledged);
        Outcome { said, node: self.nodes.number(agent.node), chosen, acknowledged }
    }

    fn under_way(&self, state: &State) -> impl Iterator<Item = (Arc<Letter>, Event)> {
        state.said.iter().filter_map(|number| {
            let letter = self.letters.get(number);
            let node = (0..self.plan.nodes).find(|node| name(*node) == letter.to)?;
            Some((letter, Event::Hears { node, letter: number }))
        })
    }

    fn is_cut(&self, letter: &Letter) -> bool {
        let between = |a: usize, b: usize| letter.from == name(a) && letter.to == name(b);
        self.plan.cut.iter().any(|(a, b)| between(*a, *b) || between(*b, *a))
    }

    fn outcome(&self, state: &State, at: usize, event: Event) -> Arc<Outcome> {
        let node = state.nodes[at];
        let agent = || Agent::of(&self.nodes.get(node), self.plan.flaw);
        let mut agent = match event {
            Event::Hears { letter, .. } => {
                return self.heard.get_or((node, letter), || {
                    let (mut agent, letter) = (agent(), self.letters.get(letter));
                    agent.hear(&letter.from, letter.message.clone());
                    self.done(agent)
                });
            }
            _ => agent(),
        };
        match event {
            Event::Hears { .. } => {}
            Event::Declared { number, .. } => {
                agent.wait();
                agent.declare(Self::declaration(self.plan.declared[number].1));
            }
            Event::TakesOver(_) => {
                agent.wait();
                agent.take_over();
            }
            Event::Restarts(_) => {
                let own = agent.node.own().clone();
                agent.restart(own);
            }
            Event::LosesDisk(_) => {
                let mut own = agent.node.own().clone();
                if self.plan.flaw != Some(Flaw::SameDisk) {
                    own.disk.0 += 1;
                }
                agent.node.durable = None;
                agent.restart(own);
            }
            Event::ChangesSet { number, .. } => {
                let members = self.plan.sets[number].iter();
                let own = |member: &usize| self.nodes.get(state.nodes[*member]).own().clone();
                agent.change_set(members.map(own).collect());
            }
            Event::TakesSetBack(_) => agent.take_back_set(),
        }
        Arc::new(self.done(agent))
    }

    fn verdict(&self, state: &State) -> Arc<Verdict> {
        self.verdicts.get_or(state.history, || self.histories.get(state.history).judge(&self.plan))
    }
}

impl Model for Cluster {
    type State = State;
    type Action = Event;

    fn init_states(&self) -> Vec<State> {
        let node = |node| {
            let own = Replica { node: name(node), disk: DiskId(1) };
            let registers = Registers::recover(own, Vec::new(), Instant::ZERO);
            self.nodes.number(Node {
                registers,
                disk: None,
                durable: None,
                hours: 0,
                proposed: None,
            })
        };
        let mut state = State {
            nodes: [0, 1, 2, 3].map(node),
            said: Numbers::default(),
            happened: Happened::default(),
            history: self.histories.number(History::default()),
        };
        if self.plan.settled {
            let (node, number) = (self.plan.declared[0].0, 0);
            let mut next = self.next_state(&state, Event::Declared { node, number });
            while let Some(now) = next {
                next = self.under_way(&now).find_map(|(_, event)| self.next_state(&now, event));
                state = now;
            }
            state.said = Numbers::default();
        }
        vec![state]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        let heard = self.under_way(state);
        events.extend(heard.filter(|(letter, _)| !self.is_cut(letter)).map(|(_, event)| event));
        let (plan, happened) = (&self.plan, &state.happened);
        let open = |done: u8, of: usize| (0..of).filter(move |i| done >> i & 1 == 0);
        events.extend(open(happened.declared, plan.declared.len()).map(|number| {
            let node = plan.declared[number].0;
            Event::Declared { node, number }
        }));
        for node in 0..plan.nodes {
            let here = self.nodes.get(state.nodes[node]);
            if here.registers.read(&ve()).is_some() {
                let sets = open(happened.sets, plan.sets.len());
                events.extend(sets.map(|number| Event::ChangesSet { node, number }));
                if happened.take_backs < plan.take_backs {
                    events.push(Event::TakesSetBack(node));
                }
            }
            if plan.spared.contains(&node) {
                continue;
            }
            if happened.take_overs < plan.take_overs {
                events.push(Event::TakesOver(node));
            }
            if happened.restarts < plan.restarts {
                events.push(Event::Restarts(node));
            }
            if happened.lost_disks < plan.lost_disks && here.disk.is_some() {
                events.push(Event::LosesDisk(node));
            }
        }
    }

    fn next_state(&self, before: &State, event: Event) -> Option<State> {
        let (Event::Hears { node, .. }
        | Event::Declared { node, .. }
        | Event::ChangesSet { node, .. }
        | Event::TakesOver(node)
        | Event::Restarts(node)
        | Event::LosesDisk(node)
        | Event::TakesSetBack(node)) = event;
        let outcome = self.outcome(before, node, event);
        let changes = outcome.node != before.nodes[node];
        let says = outcome.said.iter().any(|letter| !before.said.has(*letter));
        let mut state = before.clone();
        let happened = &mut state.happened;
        match event {
            // One that has nothing new to say does not take over.
            Event::TakesOver(_) if !says => return None,
            Event::Hears { .. } if !changes && !says => return None,
            Event::Restarts(_) | Event::TakesSetBack(_) if !changes => return None,
            Event::Hears { .. } => {}
            Event::Declared { number, .. } => happened.declared |= 1 << number,
            Event::TakesOver(_) => happened.take_overs += 1,
            Event::Restarts(_) => happened.restarts += 1,
            Event::LosesDisk(_) => happened.lost_disks += 1,
            Event::TakesSetBack(_) => happened.take_backs += 1,
            Event::ChangesSet { number, .. } => happened.sets |= 1 << number,
        }
        outcome.said.iter().for_each(|letter| state.said.add(*letter));
        state.nodes[node] = outcome.node;
        let declared = matches!(event, Event::Declared { .. });
        if declared || !outcome.chosen.is_empty() || !outcome.acknowledged.is_empty() {
            let mut history = History::clone(&self.histories.get(before.history));
            if let Event::Declared { number, .. } = event {
                let number = change(self.plan.declared[number].1);
                history.declared.entry(number).or_insert(history.acknowledged.clone());
            }
            for (ballot, value) in &outcome.chosen {
                history.choose(ballot.clone(), value.clone());
            }
            history.acknowledged.extend(outcome.acknowledged.iter().cloned());
            state.history = self.histories.number(history);
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(ONE_HISTORY, |model: &Self, s| model.verdict(s).one_history),
            Property::always(NOTHING_LOST, |model: &Self, s| model.verdict(s).nothing_lost),
            Property::always(IN_ORDER, |model: &Self, s| model.verdict(s).in_order),
        ];
        if self.plan.flaw.is_none() {
            properties.extend([
                Property::always(ONE_TURN, |model: &Self, s| model.verdict(s).one_turn),
                Property::sometimes(ACKNOWLEDGED, |model: &Self, s| model.verdict(s).acknowledged),
                Property::sometimes(GOES_ON, |model: &Self, s| model.verdict(s).goes_on),
            ]);
        }
        if self.plan.flaw.is_none() && self.plan.take_overs > 0 {
            let finishes = |model: &Self, s: &State| model.verdict(s).finishes;
            properties.push(Property::sometimes(FINISHES, finishes));
        }
        if self.plan.flaw.is_none() && !self.plan.sets.is_empty() {
            let arrived = |model: &Self, s: &State| model.verdict(s).arrived;
            properties.push(Property::sometimes(ARRIVED, arrived));
        }
        if self.plan.flaw.is_none() && self.plan.take_backs > 0 {
            let taken_back = |model: &Self, s: &State| model.verdict(s).taken_back;
            properties.push(Property::sometimes(TAKEN_BACK, taken_back));
        }
        properties
    }

    fn format_action(&self, event: &Event) -> String {
        match event {
            Event::Hears { letter, .. } => self.letters.get(*letter).to_string(),
            Event::Declared { node, number } => {
                let number = self.plan.declared[*number].1;
                format!("{}: a gateway declares {} to it", name(*node), change(number))
            }
            Event::TakesOver(node) => format!("{}: takes over", name(*node)),
            Event::Restarts(node) => format!("{}: restarts", name(*node)),
            Event::LosesDisk(node) => format!("{}: comes back with an empty disk", name(*node)),
            Event::TakesSetBack(node) => format!("{}: takes the new set back", name(*node)),
            Event::ChangesSet { node, number } => {
                let members = self.plan.sets[*number].map(name);
                format!("{}: changes the set to {members:?}", name(*node))
            }
        }
    }
}
