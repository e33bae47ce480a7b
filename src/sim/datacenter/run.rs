//! One run: a workload under a scheduler, from time zero to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use super::super::workload::{Incident, NodeEvent, Workload};
use super::fleet::{Fleet, Refused};
use super::links::{Links, Rate};
use super::measures::Measures;
use super::migration::Transfer;
use super::network::Network;
use super::queue::Queue;
use super::scheduler::{Actor, Desk, Happening, Scheduler};
use crate::engine::time::Instant;

/// Keeps the scheduler's chance apart from the workload's, which uses the seed itself.
const SCHEDULER_SALT: u64 = 0x05c4_ed01_e55d_ea17;

/// Keeps the chance of maintenance apart from both.
const MAINTENANCE_SALT: u64 = 0x0d4a_1000_0000_0001;

/// Something that happens at a time.
#[derive(Debug)]
pub(super) enum Event<M> {
    Timer {
        at: Actor,
        token: u64,
    },
    Deliver {
        from: Actor,
        to: Actor,
        message: M,
    },
    Stage {
        vm: u32,
        generation: u32,
    },
    Incident {
        node: u32,
        incident: Incident,
    },
    /// Time to see whether VMs of a node in maintenance can leave.
    Empty {
        node: u32,
    },
}

/// A migration under way.
#[derive(Debug)]
pub(super) struct Moving {
    transfer: Transfer,
    began: Instant,
    ordered_by: Actor,
    /// Counts what was foreseen of its stage; an event of an earlier forecast is void.
    generation: u32,
}

/// Everything but the scheduler.
#[derive(Debug)]
pub struct World<M> {
    pub(super) now: Instant,
    pub(super) fleet: Fleet,
    pub(super) measures: Measures,
    pub(super) rng: ChaCha8Rng,
    pub(super) polls: bool,
    pub(super) queue: Queue<Event<M>>,
    /// For maintenance: apart from the schedulers', which all have the same then.
    pub(super) chance: ChaCha8Rng,
    links: Links,
    pub(super) moving: BTreeMap<u32, Moving>,
    pub(super) network: Network,
}

/// What a run came to: the fleet as it is at the end, and the measures.
#[derive(Debug)]
pub struct Ended {
    /// Nodes and VMs.
    pub fleet: Fleet,
    /// What was counted.
    pub measures: Measures,
}

/// How a workload is run.
pub struct Setup<'a> {
    /// What happens.
    pub workload: &'a Workload,
    /// Feeds the scheduler's and the network's chance.
    pub seed: u64,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Told the time now and then, for who waits.
    pub progress: &'a mut dyn FnMut(Instant),
}

/// Simulated seconds between two calls of `progress`.
const PROGRESS_S: u64 = 10;

/// Runs a workload under a scheduler.
pub fn run<S: Scheduler>(setup: Setup<'_>, mut scheduler: S) -> Ended {
    let Setup { workload, seed, loss, progress } = setup;
    let mut world = World::new(workload, loss, seed, S::POLLS);
    let mut progress_at = Instant::ZERO;
    let nodes = world.fleet.len();
    let actors = (0..nodes).map(Actor::Node);
    let actors = actors.chain((0..scheduler.services(nodes)).map(Actor::Service));
    for at in actors {
        world.tell(&mut scheduler, at, Happening::Started);
    }
    let mut loads = workload.events.iter().peekable();
    loop {
        let queued = world.queue.next_at();
        // Of a load and another event of the same time, the load comes first.
        if let Some(load) = loads.next_if(|load| queued.is_none_or(|at| load.at <= at)) {
            world.now = load.at;
            world.fleet.set_load(load.at, load.vm, load.load);
            let node = Actor::Node(world.fleet.vm(load.vm).node);
            if world.lives(node) {
                world.tell(&mut scheduler, node, Happening::LoadChanged { vm: load.vm });
            }
        } else {
            match world.queue.pop() {
                Some((at, event)) if at < workload.end => {
                    world.now = at;
                    world.happen(&mut scheduler, event);
                }
                _ => break,
            }
        }
        world.measures.events += 1;
        if world.now >= progress_at {
            progress(world.now);
            progress_at = world.now + Duration::from_secs(PROGRESS_S);
        }
    }
    world.fleet.close(workload.end);
    Ended { fleet: world.fleet, measures: world.measures }
}

impl<M> World<M> {
    fn new(workload: &Workload, loss: f64, seed: u64, polls: bool) -> Self {
        let mut queue = Queue::new();
        for event in &workload.incidents {
            let NodeEvent { at, node, incident } = *event;
            queue.push(at, Event::Incident { node, incident });
        }
        Self {
            now: Instant::ZERO,
            fleet: Fleet::new(workload),
            measures: Measures::default(),
            rng: ChaCha8Rng::seed_from_u64(seed ^ SCHEDULER_SALT),
            queue,
            chance: ChaCha8Rng::seed_from_u64(seed ^ MAINTENANCE_SALT),
            links: Links::new(workload.nodes()),
            moving: BTreeMap::new(),
            network: Network::new(workload.sites.clone(), loss),
            polls,
        }
    }

    pub(super) fn tell<S>(&mut self, scheduler: &mut S, at: Actor, happening: Happening<M>)
    where
        S: Scheduler<Message = M>,
    {
        scheduler.handle(at, happening, &mut Desk { at, world: self });
    }

    fn happen<S: Scheduler<Message = M>>(&mut self, scheduler: &mut S, event: Event<M>) {
        match event {
            Event::Timer { at, .. } | Event::Deliver { to: at, .. } if !self.lives(at) => {}
            Event::Timer { at, token } => self.tell(scheduler, at, Happening::Timer(token)),
            Event::Deliver { from, to, message } => {
                self.tell(scheduler, to, Happening::Message { from, message });
            }
            Event::Incident { node, incident } => self.befall(scheduler, node, incident),
            Event::Empty { node } => self.empty(node),
            Event::Stage { vm, generation } => {
                let Some(moving) = self.moving.get_mut(&vm) else { return };
                if moving.generation != generation {
                    return;
                }
                if moving.transfer.end_stage(self.now) {
                    self.end_migration(scheduler, vm);
                } else {
                    self.foresee(vm);
                }
            }
        }
    }

    pub(super) fn wake(&mut self, when: Instant, at: Actor, token: u64) {
        self.queue.push(when.max(self.now), Event::Timer { at, token });
    }

    pub(super) fn deliver_later(&mut self, from: Actor, to: Actor, message: M) {
        match self.network.carry(from, to, &mut self.rng) {
            Some(delay) => self.queue.push(self.now + delay, Event::Deliver { from, to, message }),
            None => self.measures.lost += 1,
        }
    }

    pub(super) fn begin_migration(
        &mut self,
        ordered_by: Actor,
        vm: u32,
        from: u32,
        to: u32,
    ) -> Result<(), Refused> {
        if let Err(refused) = self.fleet.depart(vm, from, to) {
            self.measures.refused += 1;
            return Err(refused);
        }
        self.measures.migrations_over_time.add(self.now, 1);
        if let Some(since) = self.fleet.decide(from) {
            self.measures.decisions_us.push(self.now.0 - since.0);
        }
        let transfer = Transfer::new(self.now, &self.fleet.vm(vm).shape);
        let began = self.now;
        self.moving.insert(vm, Moving { transfer, began, ordered_by, generation: 0 });
        let rates = self.links.open(vm, from, to);
        self.foresee(vm);
        self.share(&rates);
        Ok(())
    }

    fn end_migration<S: Scheduler<Message = M>>(&mut self, scheduler: &mut S, vm: u32) {
        let Some(moving) = self.moving.remove(&vm) else { return };
        let rates = self.links.close(vm);
        self.share(&rates);
        let Some((from, to)) = self.fleet.arrive(self.now, vm) else { return };
        self.measures.migrations += 1;
        self.measures.migration_us += self.now.0 - moving.began.0;
        let [source, target] = [from, to].map(Actor::Node);
        let within = self.network.site(source) == self.network.site(target);
        self.measures.within_site += u64::from(within);
        let mut told = BTreeSet::new();
        for at in [source, target, moving.ordered_by] {
            if told.insert(at) && self.lives(at) {
                self.tell(scheduler, at, Happening::MigrationEnded { vm, from, to });
            }
        }
    }

    /// A migration breaks off.
    pub(super) fn break_off<S: Scheduler<Message = M>>(&mut self, scheduler: &mut S, vm: u32) {
        let Some(moving) = self.moving.remove(&vm) else { return };
        let rates = self.links.close(vm);
        self.share(&rates);
        self.fleet.stay(vm);
        self.measures.broken += 1;
        let source = Actor::Node(self.fleet.vm(vm).node);
        let told = BTreeSet::from([source, moving.ordered_by]);
        for at in told.into_iter().filter(|at| self.lives(*at)).collect::<Vec<_>>() {
            self.tell(scheduler, at, Happening::MigrationFailed { vm });
        }
    }

    fn share(&mut self, rates: &[Rate]) {
        for (vm, rate) in rates {
            let now = self.now;
            let moving = self.moving.get_mut(vm).expect("a flow is a migration under way");
            if moving.transfer.set_rate(now, *rate) {
                self.foresee(*vm);
            }
        }
    }

    fn foresee(&mut self, vm: u32) {
        let moving = self.moving.get_mut(&vm).expect("it is under way");
        moving.generation += 1;
        let event = Event::Stage { vm, generation: moving.generation };
        self.queue.push(moving.transfer.stage_ends(), event);
    }

    pub(super) fn count_partition(&mut self, nodes: &[u32], solved: bool) {
        let sites: BTreeSet<u8> =
            nodes.iter().map(|node| self.network.site(Actor::Node(*node))).collect();
        *self.measures.partitions.entry(nodes.len() as u32).or_default() += 1;
        self.measures.partition_sites += sites.len() as u64;
        self.measures.unsolved += u64::from(!solved);
    }
}
