//! The lease: a VM is started elsewhere only when its node has ended it, whatever the network, the clocks and restarts do.
//!
//! ```text
//!   n1: holds a lease, guards itself, runs the VM under it          n2, n3: its other guardians
//!       │ allowance          ^ ended                                n4: handles the environment; its record binds the VM to
//!       v                    │                                          a lease, and when that is proven to be over, the VM
//!       guard: outlives the agent, ends the VM at its deadline          runs elsewhere
//! ```
//!
//! The rooms are the engine's: `Tenant`, `Guardian`, `Fences`; what `Engine::lease` and `wake` do around them is done here as they
//! do it. Time goes in steps of a second, which is how often a lease is renewed; what happens within one has no order.

use std::sync::Arc;
use std::time::Duration;

use discovery::engine::context::Context;
use discovery::engine::effect::Effects;
use discovery::engine::guard::Allowance;
use discovery::engine::lease::fence::Fences;
use discovery::engine::lease::guardian::Guardian;
use discovery::engine::lease::message::Said;
use discovery::engine::lease::tenant::Tenant;
use discovery::engine::lease::{Lease, Times};
use discovery::engine::time::Instant;
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use stateright::{Model, Property};

use super::table::{Memo, Number, Numbers, Table};
use super::tenancy::{Agent, BEGAN, Disk, Letter, Machine, Node, Vm, name, replica};

pub const NEVER_TWICE: &str = "the VM does not run at its node once it runs elsewhere";
const TAKEN_OVER: &str = "sometimes: a lease is proven to be over, and the VM runs elsewhere";
const ENDED: &str = "sometimes: the guard has ended the VM";
const BACK: &str = "sometimes: the lease was renewed in time, and the VM runs again where it was";
const ANEW: &str = "sometimes: a lease was lost, and the VM runs again under the next one";
const CHANGED: &str = "sometimes: the VM has gone over to the next lease, and runs on";
const IN_TIME: &str =
    "sometimes: what is started as its lease is lost is ended before the next one";

/// The holder, its guardians beside itself, and who handles the environment.
pub const HOLDER: usize = 0;
pub const HANDLER: usize = 3;

/// How much can happen.
#[derive(Clone)]
pub struct Plan {
    pub times: Times,
    /// Steps of time.
    pub ends: u8,
    /// By how many steps the holder's clock may fall behind the others'.
    pub drift: u8,
    /// By how many steps the guard may miss a deadline.
    pub late: u8,
    pub begins: Begins,
    pub renewals: u8,
    pub starts: u8,
    /// How often an agent restarts, with what is on its disk; the guard stays, and what it was told.
    pub restarts: u8,
    /// Whose agents do.
    pub restarting: Vec<usize>,
    /// Renewals and answers come again and again.
    pub repeats: bool,
    /// Pairs of nodes that never hear each other.
    pub cut: Vec<(usize, usize)>,
    /// An agent and its guard hear each other at once.
    pub prompt: bool,
    pub flaw: Option<Flaw>,
}

/// How the world is when it begins. Its VM is bound to the holder's first lease, and its handler asks whether that is over.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Begins {
    /// The VM may be started.
    Placed,
    /// It runs.
    Running,
    /// It runs, and the holder has opened a second lease: a change of guardians, and its agent was restarted in it.
    Changing,
    /// It is being started, and the lease is over: the guard has ended everything, and the guardians have promised.
    Lost,
}

/// What can be wrong with a world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// Guardians forget at a restart.
    Forgets,
    /// Answers leave before what they say is on the disk: a restart loses the last write.
    WritesLate,
    /// What is being started is not told of.
    HidesStarts,
    /// What an agent has asked for is done after it has restarted, which does not know of it.
    StartsOutlive,
}

/// Numbers of what is in the tables, and the world's own.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    nodes: [Number; 4],
    said: Numbers,
    time: u8,
    lag: u8,
    renewals: u8,
    starts: u8,
    restarts: u8,
    /// Leases that the holder has told of, and those that the VM was bound to in the record.
    told: Numbers,
    ordered: Numbers,
    /// The lease in the record; once it is over, the VM runs elsewhere.
    record: Option<Number>,
    /// It was taken over.
    elsewhere: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Event {
    Hears { node: usize, letter: Number },
    Second { slow: bool },
    Renews,
    Asks,
    GuardHears,
    AgentHears,
    Lapses,
    Starts,
    HasStarted,
    Binds(Number),
    Obeys(Number),
    Restarts(usize),
}

struct Outcome {
    node: Number,
    said: Vec<Number>,
}

pub struct Leases {
    plan: Plan,
    nodes: Table<Node>,
    letters: Table<Letter>,
    leases: Table<Lease>,
    heard: Memo<(Number, Number, Instant), Outcome>,
}

impl Leases {
    pub fn new(plan: Plan) -> Self {
        let (nodes, letters, leases) = (Table::default(), Table::default(), Table::default());
        Self { plan, nodes, letters, leases, heard: Memo::default() }
    }

    fn now(&self, state: &State, node: usize) -> Instant {
        let lag = if node == HOLDER { state.lag } else { 0 };
        Instant::ZERO + Duration::from_secs(BEGAN + u64::from(state.time) - u64::from(lag))
    }

    fn agent(&self, state: &State, at: usize) -> Agent {
        let node = Node::clone(&self.nodes.get(state.nodes[at]));
        let ctx = Context {
            node: node.own.node.clone(),
            now: self.now(state, at),
            rng: ChaCha8Rng::seed_from_u64(0),
            out: Effects::default(),
            loopback: Vec::new(),
            lapsed: false,
        };
        Agent { node, ctx, times: self.plan.times, flaw: self.plan.flaw }
    }

    /// What was said and is not cut off is under way.
    fn done(&self, agent: Agent) -> Outcome {
        let (node, said) = agent.done();
        let cut =
            |a: usize, b: usize| self.plan.cut.contains(&(a, b)) || self.plan.cut.contains(&(b, a));
        let said = said.into_iter().filter(|letter| !cut(letter.from, letter.to));
        let said = said.map(|letter| self.letters.number(letter)).collect();
        Outcome { node: self.nodes.number(node), said }
    }

    fn holder(&self, state: &State) -> Arc<Node> {
        self.nodes.get(state.nodes[HOLDER])
    }

    /// The lease that the VM is bound to is over for certain: whoever handles it takes it over at once.
    fn is_over(&self, state: &State) -> bool {
        let Some(record) = state.record else { return false };
        let handler = self.nodes.get(state.nodes[HANDLER]);
        let lease = self.leases.get(record);
        handler.fences.clone().is_over(&lease, self.now(state, HANDLER))
    }

    /// A node's event is over.
    fn put(&self, state: &mut State, at: usize, outcome: &Outcome) {
        state.nodes[at] = outcome.node;
        outcome.said.iter().for_each(|letter| state.said.add(*letter));
        if at == HANDLER && !state.elsewhere {
            state.elsewhere = self.is_over(state);
        }
        if at == HOLDER
            && let Some(lease) = self.holder(state).tenant.newest()
        {
            state.told.add(self.leases.number(lease));
        }
    }

    fn go(&self, state: &mut State, event: Event) {
        if let Some(next) = self.next_state(state, event) {
            *state = next;
        }
    }

    /// Everything that was said is heard.
    fn hear_all(&self, state: &mut State) {
        loop {
            let mut events = Vec::new();
            self.actions(state, &mut events);
            let heard = |event: &Event| {
                matches!(event, Event::Hears { .. } | Event::GuardHears | Event::AgentHears)
            };
            let mut next =
                events.into_iter().filter(heard).map(|event| self.next_state(state, event));
            let Some(next) = next.find_map(|next| next) else { return };
            *state = next;
        }
    }

    /// The holder's agent comes back with one more lease on its disk, which nobody has heard of.
    fn open_another(&self, state: &mut State) {
        let mut node = Node::clone(&self.holder(state));
        let leases = node.disk.leases.as_mut().expect("it has a lease");
        let (_, guardians) = leases.held.last().expect("it has a lease").clone();
        leases.newest += 1;
        leases.held.push((leases.newest, guardians));
        node.durable = node.disk.clone();
        state.nodes[HOLDER] = self.nodes.number(node);
        self.go(state, Event::Restarts(HOLDER));
    }

    fn first(&self) -> State {
        let began = Instant::ZERO + Duration::from_secs(BEGAN);
        let nodes = [0, 1, 2, 3].map(|at| {
            let own = replica(at);
            self.nodes.number(Node {
                life: 1,
                tenant: Tenant::recover(own.clone(), 1, self.plan.times, None),
                guardian: Guardian::recover(Vec::new(), began),
                fences: Fences::default(),
                disk: Disk::default(),
                durable: Disk::default(),
                machine: Machine::new(),
                own,
            })
        });
        State {
            nodes,
            said: Numbers::default(),
            time: 0,
            lag: 0,
            renewals: 0,
            starts: 0,
            restarts: 0,
            told: Numbers::default(),
            ordered: Numbers::default(),
            record: None,
            elsewhere: false,
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Event;

    /// The holder has a lease that its guardians know, the VM runs under it, and its handler asks already whether it is over:
    /// that is heard whenever it may be.
    fn init_states(&self) -> Vec<State> {
        let mut state = self.first();
        self.go(&mut state, Event::AgentHears);
        self.go(&mut state, Event::Renews);
        self.hear_all(&mut state);
        let lease = state.told.iter().next().expect("the holder has a lease");
        for event in [Event::Binds(lease), Event::Obeys(lease)] {
            self.go(&mut state, event);
        }
        let begins = match self.plan.begins {
            Begins::Placed => vec![],
            Begins::Running | Begins::Changing => vec![Event::Starts, Event::HasStarted],
            Begins::Lost => {
                let second = Event::Second { slow: false };
                vec![second, Event::Starts, second, Event::Lapses]
            }
        };
        begins.into_iter().for_each(|event| self.go(&mut state, event));
        if self.plan.begins == Begins::Changing {
            self.open_another(&mut state);
        }
        self.go(&mut state, Event::Asks);
        self.hear_all(&mut state);
        (state.renewals, state.starts, state.restarts) = (0, 0, 0);
        vec![state]
    }

    fn actions(&self, state: &State, events: &mut Vec<Event>) {
        let node = self.holder(state);
        let (machine, now) = (&node.machine, self.now(state, HOLDER));
        if self.plan.prompt && !machine.to_guard.is_empty() {
            return events.push(Event::GuardHears);
        }
        if self.plan.prompt && !machine.to_agent.is_empty() {
            return events.push(Event::AgentHears);
        }
        let patient = |allowance: &Allowance| {
            let late = Duration::from_secs(self.plan.late.into());
            allowance.until.is_none_or(|until| until + late > now)
        };
        // A guard that is due acts before more time passes than it may be late by.
        let waits = machine.is_over(now) && !machine.allowance.as_ref().is_some_and(patient);
        if state.time < self.plan.ends && !waits {
            events.push(Event::Second { slow: false });
            if state.lag < self.plan.drift {
                events.push(Event::Second { slow: true });
            }
        }
        for letter in state.said.iter() {
            events.push(Event::Hears { node: self.letters.get(letter).to, letter });
        }
        if state.renewals < self.plan.renewals && node.tenant.is_due(now) {
            events.push(Event::Renews);
        }
        if !machine.to_guard.is_empty() {
            events.push(Event::GuardHears);
        }
        if !machine.to_agent.is_empty() {
            events.push(Event::AgentHears);
        }
        if machine.is_over(now) {
            events.push(Event::Lapses);
        }
        if state.starts < self.plan.starts
            && machine.vm == Vm::Off
            && node.tenant.permit(now).start.contains(&machine.bound)
        {
            events.push(Event::Starts);
        }
        if machine.vm == Vm::Starting {
            events.push(Event::HasStarted);
        }
        if !state.elsewhere {
            events.push(Event::Asks);
            let bound = state.record.map_or(0, |record| self.leases.get(record).epoch);
            let newer = state.told.iter().filter(|lease| self.leases.get(*lease).epoch > bound);
            events.extend(newer.map(Event::Binds));
        }
        let newer = |lease: &Number| self.leases.get(*lease).epoch > machine.bound;
        events.extend(state.ordered.iter().filter(newer).map(Event::Obeys));
        if state.restarts < self.plan.restarts {
            let outlives = self.plan.flaw == Some(Flaw::StartsOutlive);
            let may = |node: &usize| *node != HOLDER || machine.vm != Vm::Starting || outlives;
            let restarting = self.plan.restarting.iter().copied().filter(may);
            events.extend(restarting.map(Event::Restarts));
        }
    }

    fn next_state(&self, before: &State, event: Event) -> Option<State> {
        let mut state = before.clone();
        let at = match event {
            Event::Hears { node, .. } | Event::Restarts(node) => node,
            Event::Asks => HANDLER,
            _ => HOLDER,
        };
        let now = self.now(before, at);
        match event {
            Event::Hears { node, letter } => {
                let key = (before.nodes[node], letter, now);
                let outcome = self.heard.get_or(key, || {
                    let (mut agent, letter) = (self.agent(before, node), self.letters.get(letter));
                    agent.lease(&name(letter.from), letter.message.clone());
                    self.done(agent)
                });
                // Who asks does so each second.
                let said = &self.letters.get(letter).message.said;
                let asks = matches!(said, Said::Fence | Said::Fenced);
                if !self.plan.repeats && !asks {
                    state.said.remove(letter);
                }
                self.put(&mut state, at, &outcome);
                return (state != *before).then_some(state);
            }
            Event::Second { slow } => {
                state.time += 1;
                state.lag += u8::from(slow);
                return Some(state);
            }
            Event::Binds(lease) => {
                state.record = Some(lease);
                state.ordered.add(lease);
                state.elsewhere = self.is_over(&state);
                return Some(state);
            }
            _ => {}
        }
        let mut agent = self.agent(before, at);
        let machine = &mut agent.node.machine;
        match event {
            Event::Renews => {
                state.renewals += 1;
                agent.renew();
            }
            Event::Asks => {
                let lease = self.leases.get(before.record?);
                agent.node.fences.is_over(&lease, now);
                agent.node.fences.wake(&mut agent.ctx);
            }
            Event::GuardHears => machine.allow(now),
            Event::AgentHears => {
                let input = machine.to_agent.remove(0);
                agent.guard(&input);
            }
            Event::Lapses => machine.lapse(now),
            Event::Starts => {
                state.starts += 1;
                (machine.vm, machine.asked) = (Vm::Starting, true);
            }
            // A guard that has ended everything ends what starts, too.
            Event::HasStarted if machine.lapsed => {
                (machine.vm, machine.cut_short) = (Vm::Off, true);
            }
            Event::HasStarted => machine.vm = Vm::On,
            Event::Obeys(lease) => machine.bound = self.leases.get(lease).epoch,
            Event::Restarts(_) => {
                state.restarts += 1;
                agent.restart();
            }
            Event::Hears { .. } | Event::Second { .. } | Event::Binds(_) => {}
        }
        let outcome = self.done(agent);
        let says = outcome.said.iter().any(|letter| !before.said.has(*letter));
        if event == Event::Asks && !says {
            return None;
        }
        self.put(&mut state, at, &outcome);
        (state != *before).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![Property::always(NEVER_TWICE, |model: &Self, s: &State| {
            model.holder(s).machine.vm != Vm::On || !s.elsewhere
        })];
        if self.plan.flaw.is_none() {
            properties.extend([
                Property::sometimes(TAKEN_OVER, |_, s: &State| s.elsewhere),
                Property::sometimes(ENDED, |model: &Self, s| model.holder(s).machine.lapsed),
            ]);
            properties.push(match self.plan.begins {
                Begins::Running => Property::sometimes(BACK, |model: &Self, s| {
                    let machine = &model.holder(s).machine;
                    machine.vm == Vm::On && nth(machine.bound) == 1 && s.starts > 0
                }),
                Begins::Changing => Property::sometimes(CHANGED, runs_under_the_next),
                Begins::Placed | Begins::Lost => Property::sometimes(ANEW, runs_under_the_next),
            });
        }
        if self.plan.flaw.is_none() && matches!(self.plan.begins, Begins::Placed | Begins::Lost) {
            properties.push(Property::sometimes(IN_TIME, |model: &Self, s| {
                let node = model.holder(s);
                node.machine.cut_short
                    && node.tenant.newest().is_some_and(|lease| nth(lease.epoch) > 1)
            }));
        }
        properties
    }

    fn format_action(&self, event: &Event) -> String {
        match event {
            Event::Hears { letter, .. } => self.letters.get(*letter).to_string(),
            Event::Second { slow: false } => "-- a second passes".into(),
            Event::Second { slow: true } => "-- a second passes, but not on n1's clock".into(),
            Event::Renews => "n1: renews".into(),
            Event::Asks => "n4: asks the guardians whether the lease is over".into(),
            Event::GuardHears => "n1's guard: hears its agent".into(),
            Event::AgentHears => "n1: hears its guard".into(),
            Event::Lapses => "n1's guard: the time is over, it ends everything".into(),
            Event::Starts => "n1: starts the VM".into(),
            Event::HasStarted => "n1's hypervisor: has started the VM".into(),
            Event::Binds(lease) => {
                format!("n4: the VM is bound to lease {}", self.leases.get(*lease).epoch)
            }
            Event::Obeys(lease) => {
                let lease = self.leases.get(*lease).epoch;
                format!("n1: hears that its VM is bound to lease {lease}")
            }
            Event::Restarts(node) => format!("{}: restarts", name(*node)),
        }
    }
}

fn runs_under_the_next(model: &Leases, state: &State) -> bool {
    let machine = &model.holder(state).machine;
    machine.vm == Vm::On && nth(machine.bound) > 1
}

/// Which of its disk's epochs it is.
fn nth(epoch: u64) -> u64 {
    epoch & u64::from(u32::MAX)
}
