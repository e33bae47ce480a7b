//! A world: nodes, network, API server, and the queue of what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::acknowledged::Acknowledged;
use super::api_server::ApiServer;
use super::clock::Clock;
use super::driver::Driver;
use super::faults::Over;
use super::guard::Guard;
use super::host::Host;
use super::migration::Flight;
use super::network::{Network, Quality};
use crate::engine::Engine;
use crate::engine::effect::{ClusterAction, Effects, HypervisorCommand};
use crate::engine::guard::{Allowance, GuardInput};
use crate::engine::id::{NodeName, VeName, VeUid, VmId};
use crate::engine::input::{ClusterInput, Input, NodeDeclared, VeDeclared};
use crate::engine::invariants::{Broken, held_and_wanted, taken_away};
use crate::engine::lease::Times;
use crate::engine::lrt::ZONE_LABEL;
use crate::engine::lrt::solver::Goal;
use crate::engine::record::{Kept, RecordKey};
use crate::engine::replica::Replica;
use crate::engine::report::{Happening, VeReport};
use crate::engine::spec::Resources;
use crate::engine::time::Instant;
use crate::engine::vet::register::REPLICAS;
use crate::engine::wire::Message;

/// What a world is made with.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Feeds everything that is chance.
    pub seed: u64,
    /// How many nodes; `n1` is the first.
    pub nodes: usize,
    /// What each has.
    pub capacity: Resources,
    /// The nodes are dealt to this many zones in turn; 0: no zones.
    pub zones: usize,
    /// The network between them.
    pub network: Quality,
    /// What placements prefer.
    pub goal: Goal,
}

/// Between two samples of what guests use.
pub(super) const SAMPLE_EVERY: Duration = Duration::from_secs(1);

/// What is about to happen at any time; more is a storm that feeds itself.
const MOST_PENDING: usize = 100_000;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event {
    Wake {
        node: NodeName,
        life: u64,
    },
    Deliver {
        from: NodeName,
        to: NodeName,
        message: Box<Message>,
    },
    Input {
        node: NodeName,
        life: u64,
        input: Box<Input>,
    },
    /// The hypervisor answers an agent that has begun while it did not.
    Shows {
        node: NodeName,
        life: u64,
    },
    Command {
        node: NodeName,
        boot: u64,
        request: u64,
        command: Box<HypervisorCommand>,
        life: u64,
    },
    Api {
        from: NodeName,
        action: Box<ClusterAction>,
    },
    MigrationEnds {
        flight: u64,
    },
    Allowance {
        node: NodeName,
        boot: u64,
        allowance: Allowance,
    },
    Lapse {
        node: NodeName,
        boot: u64,
        until: Instant,
    },
    /// What an agent has written is on its disk.
    Written {
        node: NodeName,
        life: u64,
    },
    /// A node's watchdog resets it, unless its guard has been well again.
    Watchdog {
        node: NodeName,
        boot: u64,
        hold: u64,
    },
    /// What manages a machine does what it was asked to do.
    SwitchOff {
        by: NodeName,
        life: u64,
        holder: Box<Replica>,
        epoch: u64,
    },
    /// A fault ends.
    Over(Box<Over>),
    Sample,
}

impl Event {
    /// The machine that does it itself: while all of it stands still, it does not happen.
    fn machine(&self) -> Option<&NodeName> {
        match self {
            Self::Command { node, .. }
            | Self::Shows { node, .. }
            | Self::Allowance { node, .. }
            | Self::Lapse { node, .. }
            | Self::Written { node, .. } => Some(node),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Node {
    pub(super) engine: Option<Engine>,
    /// Counts the agent's lives; events of an earlier one are void.
    pub(super) life: u64,
    /// Counts the machine's boots; commands of an earlier one are void.
    pub(super) boot: u64,
    pub(super) disk: BTreeMap<RecordKey, Kept>,
    /// Its agent's records were lost once, and its VMs and their disks were not.
    pub(super) lost_records: bool,
    pub(super) host: Host,
    pub(super) guard: Guard,
    pub(super) declared: NodeDeclared,
    pub(super) wake_at: Option<Instant>,
    /// How often in a row its engine has been woken up, and had something to do at once again.
    pub(super) restless: u32,
    pub(super) clock: Clock,
    pub(super) driver: Driver,
    /// All of it stands still: agent, guard and guests.
    pub(super) frozen: bool,
    /// What it would have done meanwhile.
    pub(super) deferred: Vec<Event>,
    /// What its hypervisor was told while that stood still.
    pub(super) commands: Vec<Event>,
}

/// A world of agents.
#[derive(Debug)]
pub struct World {
    pub(super) now: Instant,
    number: u64,
    pub(super) queue: BTreeMap<(Instant, u64), Event>,
    /// When each hypervisor does what it was last told to do with a VM, and by which life of its agent.
    pub(super) commanded: BTreeMap<(NodeName, VmId), (u64, Instant)>,
    /// When each agent has seen all that its watches have shown.
    shown: BTreeMap<NodeName, Instant>,
    pub(super) nodes: BTreeMap<NodeName, Node>,
    pub(super) reports: BTreeMap<(NodeName, VeUid), VeReport>,
    /// Which peers each agent has said to be silent last.
    pub silent: BTreeMap<NodeName, Vec<NodeName>>,
    pub(super) rng: ChaCha8Rng,
    pub(super) seed: u64,
    pub(super) flights: BTreeMap<u64, Flight>,
    pub(super) flights_so_far: u64,
    /// Starts of VMs so far, in all.
    pub(super) starts: u64,
    /// How often guards have ended VMs.
    pub lapses: u64,
    /// How often watchdogs have reset nodes.
    pub resets: u64,
    /// What guests use, thousandths of a processor; those that are not named use nothing.
    pub(super) loads: BTreeMap<VmId, u64>,
    /// How likely it is that a migration fails, and that its last answer is lost: then both ends have the VM, and the
    /// target's is paused.
    pub migration_faults: (f64, f64),
    /// How likely it is that a hypervisor refuses a command, and that it does it and says that it has not.
    pub command_faults: (f64, f64),
    /// How many commands failed for that.
    pub commands_failed: u64,
    /// How migrations ended: arrived, failed, aborted, answer lost.
    pub migrations: BTreeMap<&'static str, u64>,
    pub(super) goal: Goal,
    /// The network; its counts tell which faults fired.
    pub network: Network,
    /// The API server.
    pub api: ApiServer,
    /// Every broken invariant, with its time.
    pub broken: Vec<(Instant, Broken)>,
    /// Everything people were told.
    pub happened: Vec<(Instant, NodeName, Happening)>,
    /// Events handled so far.
    pub events: u64,
    /// What the leases of agents are made of that are started from now on.
    pub times: Times,
    /// The hardware watchdog of each node: within this time after it was last fed it resets the node.
    pub watchdog: Option<Duration>,
    /// Each node's clock begins anew when it boots, as CLOCK_BOOTTIME does.
    pub boot_clocks: bool,
    /// What manages machines from outside, if anything does: how long it takes to switch one off, or why it cannot. It counts for
    /// agents that are started from now on.
    pub power_switch: Option<Result<Duration, &'static str>>,
    /// How often it has switched one off.
    pub switched_off: u64,
    /// Whether agents that are started from now on let their nodes be taken over.
    pub failover: bool,
    /// How many agents are to keep each environment's record.
    pub(super) replicas: usize,
    /// Of what people are told only the last is kept.
    pub keeps_little: bool,
    /// Faults that have not ended.
    pub under_way: usize,
    /// When each running VM came to run, if lives are to be remembered, and those that are over.
    pub lives: Option<Lives>,
    pub(super) acknowledged: Acknowledged,
    /// A machine has changed since I1 was last checked.
    pub(super) machines_changed: bool,
    /// Agents, each with a node that it does not take for one of them for now.
    pub(super) shut_out: BTreeSet<(NodeName, NodeName)>,
}

/// One run of a VM on a node: from when until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Which VM.
    pub vm: VmId,
    /// Where.
    pub node: NodeName,
    /// Since when.
    pub from: Instant,
    /// Until when, if it is over.
    pub until: Option<Instant>,
}

/// Every run of every VM.
pub type Lives = Vec<Life>;

impl Node {
    /// A machine that is on, and whose agent has never begun.
    fn new(setup: &Setup, index: usize) -> Self {
        let mut labels = BTreeMap::new();
        if setup.zones > 0 {
            let zone = format!("zone-{}", index % setup.zones);
            labels.insert(ZONE_LABEL.to_owned(), zone);
        }
        let declared = NodeDeclared {
            labels,
            schedulable: true,
            reserved: Resources::default(),
            cpu_overcommit_percent: 100,
            maintenance: false,
        };
        Self {
            engine: None,
            life: 0,
            boot: 1,
            disk: BTreeMap::new(),
            lost_records: false,
            host: Host::new(setup.capacity),
            guard: Guard::default(),
            declared,
            wake_at: None,
            restless: 0,
            clock: Clock::default(),
            driver: Driver::default(),
            frozen: false,
            deferred: Vec::new(),
            commands: Vec::new(),
        }
    }
}

impl World {
    /// A world at time zero, its agents about to start.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let mut world = Self {
            now: Instant::ZERO,
            number: 0,
            queue: BTreeMap::new(),
            commanded: BTreeMap::new(),
            shown: BTreeMap::new(),
            nodes: BTreeMap::new(),
            reports: BTreeMap::new(),
            silent: BTreeMap::new(),
            flights: BTreeMap::new(),
            flights_so_far: 0,
            starts: 0,
            lapses: 0,
            resets: 0,
            loads: BTreeMap::new(),
            migration_faults: (0.0, 0.0),
            command_faults: (0.0, 0.0),
            commands_failed: 0,
            migrations: BTreeMap::new(),
            rng: ChaCha8Rng::seed_from_u64(setup.seed),
            seed: setup.seed,
            goal: setup.goal,
            network: Network::new(setup.network),
            api: ApiServer::default(),
            broken: Vec::new(),
            happened: Vec::new(),
            events: 0,
            times: Times::default(),
            watchdog: None,
            boot_clocks: false,
            power_switch: None,
            switched_off: 0,
            failover: true,
            replicas: REPLICAS,
            keeps_little: false,
            under_way: 0,
            lives: None,
            acknowledged: Acknowledged::default(),
            machines_changed: false,
            shut_out: BTreeSet::new(),
        };
        for index in 0..setup.nodes {
            let name = NodeName::from(format!("n{}", index + 1));
            world.nodes.insert(name, Node::new(setup, index));
        }
        for name in world.names() {
            world.start_agent(&name);
        }
        world
    }

    /// Every node's name.
    #[must_use]
    pub fn names(&self) -> Vec<NodeName> {
        self.nodes.keys().cloned().collect()
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// A node's engine, if its agent runs.
    #[must_use]
    pub fn engine(&self, node: &NodeName) -> Option<&Engine> {
        self.nodes.get(node)?.engine.as_ref()
    }

    /// A node's machine.
    #[must_use]
    pub fn host(&self, node: &NodeName) -> Option<&Host> {
        Some(&self.nodes.get(node)?.host)
    }

    pub(super) fn host_mut(&mut self, node: &NodeName) -> Option<&mut Host> {
        self.machines_changed = true;
        Some(&mut self.nodes.get_mut(node)?.host)
    }

    /// Which boot of a node this is, and which life of its agent.
    pub(super) fn lives(&self, node: &NodeName) -> Option<(u64, u64)> {
        self.nodes.get(node).map(|node| (node.boot, node.life))
    }

    /// The guard of this boot of a node, and which life of its agent this is.
    pub(super) fn guard_mut(&mut self, node: &NodeName, boot: u64) -> Option<(&mut Guard, u64)> {
        let node = self.nodes.get_mut(node).filter(|node| node.boot == boot)?;
        Some((&mut node.guard, node.life))
    }

    pub(super) fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.rng
    }

    /// Gives every node a hardware watchdog.
    pub fn set_watchdog(&mut self, timeout: Duration) {
        self.watchdog = Some(timeout);
        for name in self.names() {
            let connected = GuardInput::Connected { watchdog: Some(timeout) };
            self.handle(&name, Input::Guard(connected));
        }
    }

    /// Machines are managed from outside: that is known to agents that start anew, now.
    pub fn set_power_switch(&mut self, switch: Result<Duration, &'static str>) {
        self.power_switch = Some(switch);
        self.start_all_anew();
    }

    /// Leases are made of these times by agents that start anew, now.
    pub fn set_times(&mut self, times: Times) {
        self.times = times;
        self.start_all_anew();
    }

    /// So many agents are to keep each environment's record.
    pub fn set_replicas(&mut self, count: usize) {
        self.replicas = count;
        self.start_all_anew();
    }

    fn start_all_anew(&mut self) {
        for name in self.names() {
            self.kill_agent(&name);
            self.start_agent(&name);
        }
    }

    /// A majority of the disks that kept some environment's record is gone, or of those that could prove what its VMs wait for.
    #[must_use]
    pub fn has_lost_some(&self) -> bool {
        self.acknowledged.has_lost_some()
            || self.has_lost_a_record()
            || self.has_lease_beyond_proof()
    }

    /// Every VM that runs, with its node.
    #[must_use]
    pub fn running(&self) -> Vec<(VmId, NodeName)> {
        let mut all = Vec::new();
        for (name, node) in &self.nodes {
            all.extend(node.host.running().map(|(id, _)| (id.clone(), name.clone())));
        }
        all.sort();
        all
    }

    pub(super) fn push(&mut self, after: Duration, event: Event) {
        self.number += 1;
        self.queue.insert((self.now + after, self.number), event);
    }

    /// Every watcher sees an object, each at its own time.
    pub(super) fn show(&mut self, seen: VeDeclared) {
        if self.api.keeps_from_watches(&seen.uid) || self.api.away {
            return;
        }
        for watcher in self.api.watchers.clone() {
            self.watched(&watcher, ClusterInput::Ve(Box::new(seen.clone())));
        }
    }

    /// Every watcher sees that an object is gone.
    pub(super) fn show_gone(&mut self, uid: &VeUid) {
        let name = VeName::new("default", uid.as_str());
        for watcher in self.api.watchers.clone() {
            self.watched(&watcher, ClusterInput::VeGone { uid: uid.clone(), name: name.clone() });
        }
    }

    /// A watch shows an agent something: after all that it has shown before, the list that it began with first, as those of `k8s` do.
    pub(super) fn watched(&mut self, watcher: &NodeName, seen: ClusterInput) {
        let delay = Duration::from_micros(self.rng.random_range(500..5_000));
        let before = self.shown.get(watcher).map_or(Duration::ZERO, |at| at.since(self.now));
        let delay = delay.max(before);
        self.shown.insert(watcher.clone(), self.now + delay);
        self.tell(watcher, delay, Input::Cluster(seen));
    }

    pub(super) fn tell(&mut self, node: &NodeName, delay: Duration, input: Input) {
        let life = self.nodes.get(node).map_or(0, |node| node.life);
        let input = Box::new(input);
        self.push(delay, Event::Input { node: node.clone(), life, input });
    }

    /// Runs until `until`; stops at the first broken invariant.
    pub fn run_until(&mut self, until: Instant) {
        while let Some((&(at, number), _)) = self.queue.first_key_value() {
            if at > until || !self.broken.is_empty() {
                break;
            }
            let Some(event) = self.queue.remove(&(at, number)) else { break };
            self.now = at;
            if self.queue.len() > MOST_PENDING {
                let what = format!("{} things are about to happen: {event:?}", self.queue.len());
                self.broken.push((at, Broken { invariant: "settles", what }));
            }
            self.happen(event);
        }
        if self.broken.is_empty() {
            self.now = self.now.max(until);
        }
    }

    /// Runs for a while.
    pub fn run_for(&mut self, time: Duration) {
        self.run_until(self.now + time);
    }

    /// Runs until something holds, for `limit` at most. Tells whether it does.
    pub fn run_while_not(&mut self, limit: Duration, holds: impl Fn(&Self) -> bool) -> bool {
        let end = self.now + limit;
        while !holds(self) {
            if self.now >= end || !self.broken.is_empty() {
                return false;
            }
            self.run_until((self.now + Duration::from_millis(50)).min(end));
        }
        true
    }

    fn happen(&mut self, event: Event) {
        let frozen = event.machine().and_then(|machine| self.nodes.get_mut(machine));
        if let Some(node) = frozen.filter(|node| node.frozen) {
            node.deferred.push(event);
            return;
        }
        match event {
            Event::Wake { node, life } => {
                let now = self.now;
                let Some(state) = self.nodes.get_mut(&node).filter(|n| n.life == life) else {
                    return;
                };
                if state.wake_at == Some(now) {
                    state.wake_at = None;
                    self.handle(&node, Input::Wakeup);
                    self.check_rests(&node);
                }
            }
            Event::Deliver { from, to, message } => {
                self.handle(&to, Input::Message { from, message });
            }
            Event::Input { node, life, input } => {
                if self.nodes.get(&node).is_some_and(|n| n.life == life) {
                    self.handle(&node, *input);
                }
            }
            Event::Shows { node, life } => {
                if self.nodes.get(&node).is_some_and(|n| n.life == life && !n.host.stalled) {
                    self.show_hypervisor(&node);
                }
            }
            Event::Command { node, boot, request, command, life } => {
                let Some(state) = self.nodes.get_mut(&node).filter(|n| n.boot == boot) else {
                    return;
                };
                if state.host.stalled {
                    state.commands.push(Event::Command { node, boot, request, command, life });
                    return;
                }
                match *command {
                    HypervisorCommand::Migrate(migration) => {
                        self.migrate((node, boot, life, request), *migration);
                    }
                    HypervisorCommand::AbortMigration(id) => self.abort_migration(&node, &id),
                    command => {
                        self.command((node, life, request), &command);
                    }
                }
            }
            Event::MigrationEnds { flight } => self.migration_ends(flight),
            Event::Sample => self.sample(),
            Event::Allowance { node, boot, allowance } => self.allow(&node, boot, allowance),
            Event::Lapse { node, boot, until } => self.lapse_if_due(&node, boot, until),
            Event::Api { from, action } => self.api_call(&from, *action),
            Event::Written { node, life } => self.written(&node, life),
            Event::Watchdog { node, boot, hold } => self.watchdog_barks(&node, boot, hold),
            Event::SwitchOff { by, life, holder, epoch } => {
                self.switch_off((&by, life), *holder, epoch);
            }
            Event::Over(over) => self.fault_over(*over),
        }
        self.check_machines();
    }

    /// Something reaches an agent. What it does not come to take waits.
    pub(super) fn handle(&mut self, name: &NodeName, input: Input) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.engine.is_some()) else {
            return;
        };
        if node.frozen || node.driver.is_busy() {
            return node.driver.queue(input);
        }
        self.turn(name, [input]);
    }

    /// An agent handles some inputs, and what they lead to is written once.
    pub(super) fn turn(&mut self, name: &NodeName, inputs: impl IntoIterator<Item = Input>) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(engine) = node.engine.as_mut() else { return };
        let at = node.clock.local(now);
        let mut effects = Effects::default();
        let mut broken = Vec::new();
        for input in inputs {
            let wanted = held_and_wanted(engine, &input);
            let more = engine.handle(at, input);
            self.events += 1;
            broken.extend(wanted.and_then(|(held, wanted)| taken_away(engine, &held, &wanted)));
            effects.persist.extend(more.persist);
            effects.actions.extend(more.actions);
        }
        self.find(broken);
        self.commit(name, effects);
        self.plan_wakeup(name);
        self.check_engine(name);
    }

    pub(super) fn plan_wakeup(&mut self, name: &NodeName) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        if node.frozen || node.driver.is_busy() {
            return;
        }
        let Some(at) = node.engine.as_ref().and_then(Engine::next_wakeup) else { return };
        let at = node.clock.world(at).max(now + Duration::from_micros(1));
        if node.wake_at.is_none_or(|planned| planned > at) {
            node.wake_at = Some(at);
            let life = node.life;
            self.push(at.since(now), Event::Wake { node: name.clone(), life });
        }
    }
}
