//! DVMS: an overloaded node reserves others, one after the other, until the overload can be resolved.
//!
//! F. Quesnel, A. Lèbre, M. Südholt: *Cooperative and Reactive Scheduling in Large-Scale Virtualized Platforms
//! with DVMS*, Concurrency and Computation 25(12), 2013. The protocol and its constants are those of the runs of
//! 2015: `DvmsActor.scala` of VMPlaceS. A node that finds itself overloaded makes a partition of itself and
//! passes it to another; that one joins, becomes its leader, and solves over all members; without a solution it
//! passes the partition on. With the first solution the VMs migrate, and the partition is dissolved when they
//! have. Reserved nodes pass on what reaches them.
//!
//! Left out: partitions that block each other are not merged. One that finds no free node goes from reserved node to
//! reserved node until its time-out; its initiator tries again within a second.

#[cfg(test)]
mod tests;

use std::time::Duration;

use rand::RngExt;

use super::super::scheduler::{Actor, Desk, Happening, ORDER_BYTES, Scheduler};
use super::partition::{Message, Partition, tell};
pub use super::partition::{Next, Rules};
use super::repair::{self, Plan, Seen};
use crate::engine::time::Instant;

/// Between two looks of a node at itself.
const MONITORING: Duration = Duration::from_secs(1);
/// A partition that a member has heard nothing of for so long is over (`partitionUpdateTimeout`).
const TIMEOUT: Duration = Duration::from_millis(4_500);
/// Between two signs of life of a partition at work (`TimeoutSnoozerActor`).
const KEEP_ALIVE: Duration = Duration::from_secs(2);
/// One try to solve: published as 0.14 to 0.29 s.
const COMPUTING: Duration = Duration::from_millis(200);
/// The leader looks once a second whether the migrations are over (`ongoingMigrations`).
const LOOKS_FOR_END: Duration = Duration::from_secs(1);

/// A leader that has not heard of the end of its migrations by then holds the partition no longer: the word of it
/// was lost. (The published simulation has no messages for this.) Several on one link take so long.
const MIGRATIONS_AT_MOST: Duration = Duration::from_secs(60);
/// Smaller partitions are not tried (`minimum_partition_size`, a setting whose value in the published runs is not
/// stated). With four, the mean partition and the number of migrations are the published ones; with two, most
/// overloads are resolved by two nodes, with a sixth more migrations and time in violation.
pub const MINIMUM: usize = 4;

/// Timers; the low bits say which, the rest a number of the partition.
const MONITOR: u64 = 0;
const TIMED_OUT: u64 = 1;
const COMPUTED: u64 = 2;
const SIGN_OF_LIFE: u64 = 3;
const LOOK_FOR_END: u64 = 4;

/// All agents.
#[derive(Debug)]
pub struct Dvms {
    rules: Rules,
    agents: Vec<Agent>,
}

/// A node's agent.
#[derive(Debug, Default)]
struct Agent {
    /// Where in the second it looks at itself.
    phase_us: u64,
    monitoring: bool,
    begun: u32,
    partition: Option<Partition>,
    /// It has heard of its partition then.
    heard: Instant,
    /// Counts partitions joined, so that timers of earlier ones are void.
    generation: u64,
    /// It leads: what it has found, and how many migrations are still under way.
    work: Option<Work>,
    /// Migrations that it was ordered to make: of which VM, by whom, for which partition.
    orders: Vec<(u32, Actor, (u32, u32))>,
}

#[derive(Debug)]
struct Work {
    plan: Plan,
    under_way: usize,
    /// When the migrations were ordered.
    ordered: Option<Instant>,
}

type Desks<'a> = Desk<'a, Message>;

impl Dvms {
    /// Agents that go by these rules.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self { rules, agents: Vec::new() }
    }
}

impl Scheduler for Dvms {
    type Message = Message;

    const POLLS: bool = true;

    fn handle(&mut self, at: Actor, happening: Happening<Message>, desk: &mut Desks<'_>) {
        let Actor::Node(me) = at else { return };
        if happening == Happening::Started {
            // Nodes start in their order.
            let phase_us = desk.rng().random_range(0..MONITORING.as_micros() as u64);
            self.agents.push(Agent { phase_us, ..Agent::default() });
            return;
        }
        let agent = &mut self.agents[me as usize];
        match happening {
            Happening::Started => {}
            Happening::Returned => {
                // Timers of its former life are void, and nobody takes its next partition for an old one.
                let (begun, generation) = (agent.begun, agent.generation + 1);
                let phase_us = agent.phase_us;
                *agent = Agent { phase_us, begun, generation, ..Agent::default() };
                agent.watch(desk);
            }
            Happening::MigrationFailed { vm } => {
                agent.watch(desk);
                agent.report(vm, desk);
            }
            Happening::LoadChanged { .. } => agent.watch(desk),
            Happening::MigrationEnded { vm, .. } => {
                agent.watch(desk);
                agent.report(vm, desk);
            }
            Happening::Timer(token) => agent.timer(me, token, self.rules, desk),
            Happening::Message { from, message } => {
                agent.message(me, from, message, self.rules, desk);
            }
        }
    }
}

impl Agent {
    /// Looks at itself each second. As nothing comes of it while the node is not overloaded, those looks are not
    /// simulated: the next is, whenever something has changed for the worse.
    fn watch(&mut self, desk: &mut Desks<'_>) {
        if self.monitoring || !desk.here().is_overloaded() {
            return;
        }
        self.monitoring = true;
        let second = MONITORING.as_micros() as u64;
        let since = (desk.now().0 + second - self.phase_us) % second;
        desk.wake_at(desk.now() + Duration::from_micros(second - since), MONITOR);
    }

    fn timer(&mut self, me: u32, token: u64, rules: Rules, desk: &mut Desks<'_>) {
        let (kind, generation) = (token & 7, token >> 3);
        if kind == MONITOR {
            self.monitoring = false;
            self.monitor(me, rules, desk);
            self.watch(desk);
        } else if generation == self.generation {
            match kind {
                TIMED_OUT => self.time_out(me, desk),
                COMPUTED => self.computed(me, rules, desk),
                SIGN_OF_LIFE => self.sign_of_life(me, desk),
                _ => self.look_for_end(me, desk),
            }
        }
    }

    fn wake(&self, after: Duration, kind: u64, desk: &mut Desks<'_>) {
        desk.wake_at(desk.now() + after, self.generation << 3 | kind);
    }

    fn monitor(&mut self, me: u32, rules: Rules, desk: &mut Desks<'_>) {
        let here = desk.here();
        if !here.is_overloaded() {
            return;
        }
        let moving = here.vms().any(|vm| vm.moving);
        desk.detected(me);
        if moving {
            return desk.calm(me);
        }
        if self.partition.is_some() {
            return;
        }
        self.begun += 1;
        let partition = Partition { id: (me, self.begun), version: 0, nodes: vec![me] };
        self.belong(partition.clone(), desk);
        self.pass_on(me, partition, rules, desk);
    }

    /// This node is in that partition from now on.
    fn belong(&mut self, partition: Partition, desk: &mut Desks<'_>) {
        let other = self.partition.as_ref().is_none_or(|own| own.id != partition.id);
        self.heard = desk.now();
        self.partition = Some(partition);
        if other {
            self.generation += 1;
            self.wake(TIMEOUT, TIMED_OUT, desk);
        }
    }

    /// It is over for this node. Of all its nodes, the initiator counts it.
    fn leave(&mut self, me: u32, solved: bool, desk: &mut Desks<'_>) {
        if let Some(partition) = self.partition.take().filter(|own| own.initiator() == me) {
            desk.partition_ended(&partition.nodes, solved);
        }
        self.work = None;
        self.generation += 1;
    }

    fn is_in(&self, id: (u32, u32)) -> bool {
        self.partition.as_ref().is_some_and(|own| own.id == id)
    }

    fn time_out(&mut self, me: u32, desk: &mut Desks<'_>) {
        if desk.now().since(self.heard) < TIMEOUT {
            let after = TIMEOUT - desk.now().since(self.heard);
            return self.wake(after, TIMED_OUT, desk);
        }
        self.dissolve(me, false, desk);
    }

    /// Ends the partition, for all.
    fn dissolve(&mut self, me: u32, solved: bool, desk: &mut Desks<'_>) {
        if let Some(partition) = self.partition.clone() {
            let over = Message::Dissolve { id: partition.id, solved };
            tell(&partition, me, over, ORDER_BYTES, desk);
        }
        self.leave(me, solved, desk);
    }

    /// The partition goes to another node, to join it.
    fn pass_on(&mut self, me: u32, partition: Partition, rules: Rules, desk: &mut Desks<'_>) {
        let members = partition.nodes.clone();
        let Some(to) = rules.next.after(me, &members, desk) else { return };
        let (bytes, sent) = (partition.bytes(), desk.now());
        desk.send(to, bytes, Message::Join { partition, sent });
    }

    fn message(
        &mut self,
        me: u32,
        from: Actor,
        message: Message,
        rules: Rules,
        desk: &mut Desks<'_>,
    ) {
        match message {
            Message::Join { partition, sent } => {
                self.asked_to_join(me, partition, sent, rules, desk)
            }
            Message::IsValid { partition, sent } => {
                let holds = self
                    .partition
                    .as_ref()
                    .is_some_and(|own| own.id == partition.id && own.version <= partition.version);
                desk.send(from, ORDER_BYTES, Message::Valid { partition, sent, holds });
            }
            Message::Valid { holds: false, .. } => {}
            // It has joined another meanwhile.
            Message::Valid { partition, sent, .. } if self.partition.is_some() => {
                self.asked_to_join(me, partition, sent, rules, desk);
            }
            Message::Valid { partition, .. } => {
                if !desk.here().vms().any(|vm| vm.moving) {
                    self.lead(me, partition, rules, desk);
                }
            }
            Message::Update(partition) => {
                let newer = self
                    .partition
                    .as_ref()
                    .is_none_or(|own| own.id == partition.id && own.version < partition.version);
                if newer {
                    self.belong(partition, desk);
                }
            }
            Message::KeepAlive(id) if self.is_in(id) => self.heard = desk.now(),
            Message::Dissolve { id, solved } if self.is_in(id) => self.leave(me, solved, desk),
            Message::KeepAlive(_) | Message::Dissolve { .. } => {}
            Message::Order { id, chosen } => {
                self.orders.push((chosen.vm, from, id));
                if desk.migrate(chosen.vm, chosen.to).is_err() {
                    self.report(chosen.vm, desk);
                }
            }
            Message::Ended(id) if self.is_in(id) => {
                if let Some(work) = &mut self.work {
                    work.under_way = work.under_way.saturating_sub(1);
                }
            }
            Message::Ended(_) => {}
        }
    }

    fn asked_to_join(
        &mut self,
        me: u32,
        partition: Partition,
        sent: Instant,
        rules: Rules,
        desk: &mut Desks<'_>,
    ) {
        match &self.partition {
            None => {
                let initiator = Actor::Node(partition.initiator());
                desk.send(initiator, partition.bytes(), Message::IsValid { partition, sent });
            }
            Some(own) if desk.now().since(sent) < TIMEOUT => {
                let mut members = partition.nodes.clone();
                members.extend(&own.nodes);
                let Some(to) = rules.next.after(me, &members, desk) else { return };
                desk.send(to, partition.bytes(), Message::Join { partition, sent });
            }
            Some(_) => {}
        }
    }

    /// Joins, leads, and tries to solve.
    fn lead(&mut self, me: u32, mut partition: Partition, rules: Rules, desk: &mut Desks<'_>) {
        partition.version += 1;
        partition.nodes.push(me);
        self.belong(partition.clone(), desk);
        tell(&partition, me, Message::Update(partition.clone()), partition.bytes(), desk);
        if partition.nodes.len() < rules.minimum.min(desk.nodes() as usize) {
            return self.pass_on(me, partition, rules, desk);
        }
        let seen = partition.nodes.iter().map(|node| Seen::new(*node, desk.poll(*node))).collect();
        let plan = repair::repair(seen, desk.capacity());
        self.work = Some(Work { plan, under_way: 0, ordered: None });
        desk.compute(COMPUTING, self.generation << 3 | COMPUTED);
        self.wake(KEEP_ALIVE, SIGN_OF_LIFE, desk);
    }

    fn computed(&mut self, me: u32, rules: Rules, desk: &mut Desks<'_>) {
        let (Some(partition), Some(work)) = (self.partition.clone(), &mut self.work) else {
            return;
        };
        if work.plan.unsolved > 0 {
            self.work = None;
            return self.pass_on(me, partition, rules, desk);
        }
        work.ordered = Some(desk.now());
        work.under_way = work.plan.moves.len();
        for chosen in std::mem::take(&mut work.plan.moves) {
            let order = Message::Order { id: partition.id, chosen };
            desk.send(Actor::Node(chosen.from), ORDER_BYTES, order);
        }
        self.wake(LOOKS_FOR_END, LOOK_FOR_END, desk);
    }

    /// A source tells the leader that ordered a migration that it is over.
    fn report(&mut self, vm: u32, desk: &mut Desks<'_>) {
        let Some(place) = self.orders.iter().position(|(ordered, ..)| *ordered == vm) else {
            return;
        };
        let (_, leader, id) = self.orders.swap_remove(place);
        desk.send(leader, ORDER_BYTES, Message::Ended(id));
    }

    fn sign_of_life(&mut self, me: u32, desk: &mut Desks<'_>) {
        let (Some(partition), Some(_)) = (&self.partition, &self.work) else { return };
        self.heard = desk.now();
        tell(partition, me, Message::KeepAlive(partition.id), ORDER_BYTES, desk);
        self.wake(KEEP_ALIVE, SIGN_OF_LIFE, desk);
    }

    fn look_for_end(&mut self, me: u32, desk: &mut Desks<'_>) {
        let Some(work) = &self.work else { return };
        let late = work.ordered.is_some_and(|at| desk.now().since(at) >= MIGRATIONS_AT_MOST);
        if work.under_way > 0 && !late {
            return self.wake(LOOKS_FOR_END, LOOK_FOR_END, desk);
        }
        self.dissolve(me, true, desk);
    }
}
