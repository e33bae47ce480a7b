//! The centre: pure, synchronous, deterministic. One door: [`Engine::handle`].
//!
//! ```text
//!                 Input                               Effects
//!   timers, peers, Kubernetes,      +--------+      records to keep, then
//!   hypervisor            ────────> | Engine | ───> messages, commands, reports
//!                                   +--------+
//!        dnt: who is there      vet: life of environments      lrt: this node's room and VMs
//! ```
//!
//! No clock, no IO, no thread's rng, no `async`, no unordered iteration: the same inputs give the same
//! effects, on a node and in the simulator.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod constraint;
pub mod context;
pub mod dnt;
pub mod effect;
pub mod guard;
pub mod host;
pub mod id;
pub mod input;
pub mod invariants;
pub mod lrt;
pub mod record;
pub mod report;
pub mod spec;
pub mod time;
pub mod vet;
pub mod view;
pub mod wire;

use std::collections::BTreeMap;

use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;

use context::Context;
use dnt::{Change, Dnt, News, PeerState};
use effect::{ClusterAction, Effects};
use id::{NodeName, VeUid, VmId};
use input::{ClusterInput, Input, VeDeclared};
use lrt::Lrt;
use lrt::partition::Asked;
use lrt::procedure::{Ended, Request};
use lrt::solver::Goal;
use lrt::transit::MigrationLimits;
use record::{Kept, MoveReason};
use report::NodeReport;
use time::Instant;
use vet::gateway::Gateway;
use vet::register::Registers;
use vet::veh::{self, Rooms, Told, Veh};
use wire::{Message, Order};

/// What an engine is made with.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node.
    pub node: NodeName,
    /// Feeds the generator. On nodes: chosen anew at each start. In the simulator: stated.
    pub seed: u64,
    /// Seconds of overload that a migration must save; without, overloads are left alone.
    pub threshold_s: Option<f64>,
    /// What this cluster wants of its placements, where constraints leave a choice.
    pub goal: Goal,
    /// What live migrations may take of this node.
    pub limits: MigrationLimits,
}

/// One agent's engine.
pub struct Engine {
    ctx: Context,
    dnt: Dnt,
    lrt: Lrt,
    registers: Registers,
    vehs: BTreeMap<VeUid, Veh>,
    gateway: Gateway,
    reported: Option<NodeReport>,
    incarnation: u64,
}

impl Engine {
    /// An engine as it was when its records were last kept, and what it asks for first.
    #[must_use]
    pub fn recover(config: Config, kept: Vec<Kept>, now: Instant) -> (Self, Effects) {
        let mut incarnation = 1;
        let (mut ves, mut vms) = (Vec::new(), Vec::new());
        for kept in kept {
            match kept {
                Kept::Incarnation(last) => incarnation = last + 1,
                Kept::Ve(record) => ves.push(record),
                Kept::Vm(record) => vms.push(record),
            }
        }
        let mut ctx = Context {
            node: config.node.clone(),
            now,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            out: Effects::default(),
            loopback: Vec::new(),
        };
        ctx.keep(Kept::Incarnation(incarnation));
        let vehs = ves.iter().filter(|record| !record.tombstone);
        let vehs =
            vehs.map(|record| (record.declared.uid.clone(), Veh::new(record.declared.uid.clone())));
        let vehs = vehs.collect();
        let out = std::mem::take(&mut ctx.out);
        let engine = Self {
            dnt: Dnt::new(&config.node, incarnation, config.seed.wrapping_add(1)),
            lrt: Lrt::recover(vms, incarnation, config.threshold_s)
                .with_goal(config.goal)
                .with_limits(config.limits),
            registers: Registers::recover(ves),
            vehs,
            gateway: Gateway::default(),
            reported: None,
            incarnation,
            ctx,
        };
        (engine, out)
    }

    /// Handles one input. `now` never goes backwards.
    pub fn handle(&mut self, now: Instant, input: Input) -> Effects {
        self.ctx.now = now.max(self.ctx.now);
        match input {
            Input::Wakeup => self.wake(),
            Input::PeerKnown(node) => self.dnt.know(node, &mut self.ctx),
            Input::PeerRevoked(node) => {
                let news = self.dnt.revoke(&node);
                self.peers_changed(&news);
            }
            Input::Message { from, message } => self.message(&from, *message),
            Input::Cluster(input) => self.cluster(input),
            Input::Hypervisor(input) => {
                let free = self.lrt.free();
                self.lrt.hypervisor(input, &mut self.ctx);
                if self.lrt.free() != free {
                    self.room_appeared();
                }
            }
            Input::Guard(_) => {}
        }
        self.settle();
        std::mem::take(&mut self.ctx.out)
    }

    /// When the engine wants an [`Input::Wakeup`] at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let vehs = self.vehs.values().filter_map(Veh::next_wakeup).min();
        let rooms =
            [self.dnt.next_wakeup(), self.lrt.next_wakeup(), self.gateway.next_wakeup(), vehs];
        rooms.into_iter().flatten().min()
    }

    fn wake(&mut self) {
        let own = self.own_state();
        let news = self.dnt.wake(&own, &mut self.ctx);
        self.peers_changed(&news);
        if self.lrt.wants_peers(self.ctx.now) {
            self.choose_acquaintances();
        }
        let ended = self.lrt.wake(&mut self.ctx);
        self.procedure_ended(ended);
        let due: Vec<VeUid> = self
            .vehs
            .iter()
            .filter(|(_, veh)| veh.next_wakeup().is_some_and(|at| at <= self.ctx.now))
            .map(|(uid, _)| uid.clone())
            .collect();
        for uid in due {
            self.reconcile(&uid);
        }
    }

    /// What every input ends with: the engine's own messages, the gateway, commands, this node's status.
    fn settle(&mut self) {
        // Each round may cause more messages to itself; a placement on this node alone takes six.
        loop {
            self.lrt.start_next(|| self.dnt.nearest(), &mut self.ctx);
            self.lrt.settle(&mut self.ctx);
            let messages = std::mem::take(&mut self.ctx.loopback);
            if messages.is_empty() {
                break;
            }
            let own = self.ctx.node.clone();
            for message in messages {
                self.message(&own, message);
            }
        }
        let rank = self.dnt.gateway_rank(&self.ctx.node, self.ctx.now);
        self.gateway.set_rank(rank, &mut self.ctx);
        let zone = self.lrt.zone();
        self.gateway.wake(&self.dnt, &zone, &mut self.ctx);
        if !self.ctx.loopback.is_empty() {
            return self.settle();
        }
        let report = self.node_report();
        if self.reported.as_ref() != Some(&report) {
            self.ctx.cluster(ClusterAction::ReportNode(Box::new(report.clone())));
            self.reported = Some(report);
        }
    }

    fn message(&mut self, from: &NodeName, message: Message) {
        match message {
            Message::Swim(packet) => {
                let own = self.own_state();
                let news = self.dnt.swim(from, &packet, &own, &mut self.ctx);
                self.peers_changed(&news);
            }
            Message::Ping { sent, state } => {
                let own = self.own_state();
                let news = self.dnt.ping(from, sent, state, &own, &mut self.ctx);
                self.peers_changed(&news);
            }
            Message::Pong { sent, state } => {
                let news = self.dnt.pong(from, sent, state, &mut self.ctx);
                self.peers_changed(&news);
            }
            Message::Declare(declared) => self.declare(from, *declared),
            Message::Declared { uid, generation, deleting } => {
                self.gateway.acknowledged(from, &uid, generation, deleting);
            }
            Message::Reserve { procedure, ve, priority } if procedure.initiator == *from => {
                self.lrt.reserve(procedure, &ve, priority, &mut self.ctx);
            }
            Message::Prepare { procedure, handler, order, vms, arriving }
                if procedure.initiator == *from && handler == *from =>
            {
                let asked = Asked { handler, order, vms, arriving };
                self.lrt.prepare(procedure, asked, &mut self.ctx);
            }
            Message::Release { procedure, undo } if procedure.initiator == *from => {
                let before = self.lrt.free();
                self.lrt.release(&procedure, undo, &mut self.ctx);
                if self.lrt.free() != before {
                    self.room_appeared();
                }
            }
            Message::Reserved { procedure, answer } => {
                let ended = self.lrt.reserved(from, &procedure, answer, &mut self.ctx);
                self.procedure_ended(ended);
            }
            Message::Prepared { procedure, result } => {
                let ended = self.lrt.prepared(from, &procedure, result, &mut self.ctx);
                self.procedure_ended(ended);
            }
            Message::Order(order) if order.handler == *from => {
                let before = self.lrt.free();
                self.lrt.order(*order, &mut self.ctx);
                if self.lrt.free() != before {
                    self.room_appeared();
                }
            }
            Message::Observed { ve, order, leaving, vms } => {
                self.observed(from, ve, Told { order, leaving, vms });
            }
            Message::Move { vm, to, why } => self.asked_to_move(from, &vm, (to, why)),
            Message::MakeRoom { vm, to } => self.lrt.asked_to_make_room(&vm, to, &mut self.ctx),
            Message::Stays { vm, why } => self.lrt.stays(from, &vm, why, &mut self.ctx),
            Message::Relief(said) => self.lrt.relief_said(from, said, &mut self.ctx),
            // Somebody speaks in another's name.
            Message::Reserve { .. }
            | Message::Prepare { .. }
            | Message::Release { .. }
            | Message::Order(_) => {}
        }
    }

    fn cluster(&mut self, input: ClusterInput) {
        match input {
            ClusterInput::Reachable(reachable) => self.dnt.set_api_reachable(reachable),
            ClusterInput::ThisNode(declared) => {
                self.lrt.declare(declared, &mut self.ctx);
                self.room_appeared();
            }
            ClusterInput::Ve(declared) => self.gateway.saw(*declared, &mut self.ctx),
            ClusterInput::VeGone { uid, .. } => self.gateway.gone(&uid, &mut self.ctx),
            ClusterInput::VesListed { live } => self.gateway.listed(&live, &mut self.ctx),
        }
    }

    /// A gateway hands over an environment that this agent handles.
    fn declare(&mut self, from: &NodeName, declared: VeDeclared) {
        if declared.replica_set.first() != Some(&self.ctx.node) {
            return;
        }
        let uid = declared.uid.clone();
        match self.registers.read(&uid) {
            Some(record) if record.tombstone => {
                if declared.deleting && !declared.gone {
                    let name = declared.name.clone();
                    self.ctx.cluster(ClusterAction::ReleaseVe { uid: uid.clone(), name });
                }
            }
            Some(_) => {
                let update = |record: &mut record::VeRecord| veh::update_record(record, declared);
                self.registers.change(&uid, update, &mut self.ctx);
            }
            None => {
                self.registers.create(veh::first_record(declared), &mut self.ctx);
                self.vehs.insert(uid.clone(), Veh::new(uid.clone()));
            }
        }
        if let Some(record) = self.registers.read(&uid) {
            let (generation, deleting) = (record.declared.generation, record.declared.deleting);
            let answer = Message::Declared { uid: uid.clone(), generation, deleting };
            self.ctx.send(from, answer);
        }
        self.reconcile(&uid);
    }

    fn asked_to_move(&mut self, from: &NodeName, vm: &VmId, to: (NodeName, MoveReason)) {
        if let Some(veh) = self.vehs.get_mut(&vm.ve) {
            let (registers, lrt, dnt) = (&mut self.registers, &mut self.lrt, &self.dnt);
            let rooms = &mut Rooms { registers, lrt, dnt };
            veh.asked_to_move(from, vm, to, rooms, &mut self.ctx);
            self.reconcile(&vm.ve);
        }
    }

    fn observed(&mut self, from: &NodeName, ve: VeUid, told: Told) {
        let buried = self.registers.read(&ve).is_some_and(|record| record.tombstone);
        if buried {
            if !told.vms.is_empty() {
                // A late message raised something from the dead: nothing of it is to be there.
                let handler = self.ctx.node.clone();
                let order = Order { ve, handler, order: u64::MAX, open: 0, vms: Vec::new() };
                self.ctx.send(from, Message::Order(Box::new(order)));
            }
            return;
        }
        if let Some(veh) = self.vehs.get_mut(&ve) {
            let (registers, lrt, dnt) = (&mut self.registers, &mut self.lrt, &self.dnt);
            veh.hear(from, told, &mut Rooms { registers, lrt, dnt }, &mut self.ctx);
            self.reconcile(&ve);
        }
    }

    fn procedure_ended(&mut self, ended: Option<(Request, Ended)>) {
        let Some((request, ended)) = ended else { return };
        let ve = request.ve.clone();
        if let Some(veh) = self.vehs.get_mut(&ve) {
            let (registers, lrt, dnt) = (&mut self.registers, &mut self.lrt, &self.dnt);
            veh.placed(&request, ended, &mut Rooms { registers, lrt, dnt }, &mut self.ctx);
            self.reconcile(&ve);
        }
    }

    fn reconcile(&mut self, ve: &VeUid) {
        if let Some(veh) = self.vehs.get_mut(ve) {
            let (registers, lrt, dnt) = (&mut self.registers, &mut self.lrt, &self.dnt);
            veh.reconcile(&mut Rooms { registers, lrt, dnt }, &mut self.ctx);
        }
        if self.registers.read(ve).is_some_and(|record| record.tombstone) {
            self.vehs.remove(ve);
        }
    }

    fn choose_acquaintances(&mut self) {
        let peers = lrt::loads::acquaintances(&self.ctx.node, &self.dnt.nearest());
        self.lrt.know_peers(peers, &mut self.ctx);
    }

    fn peers_changed(&mut self, news: &News) {
        if !news.changes.is_empty() {
            self.choose_acquaintances();
        }
        for change in &news.changes {
            let (node, up) = match change {
                Change::Up(node) => (node, true),
                Change::Down(node) => (node, false),
            };
            if up {
                self.gateway.hurry(node, &self.ctx);
            }
            let theirs = |record: &&record::VeRecord| record.owing.contains(node);
            let ves: Vec<VeUid> =
                self.registers.all().filter(theirs).map(|r| r.declared.uid.clone()).collect();
            for ve in ves {
                if up && let Some(veh) = self.vehs.get_mut(&ve) {
                    veh.came_back(node, self.ctx.now);
                }
                self.reconcile(&ve);
            }
        }
        if news.room_appeared {
            self.room_appeared();
        }
    }

    /// What waits for room is tried again, each at its own moment: all at once would be in each other's way.
    fn room_appeared(&mut self) {
        for veh in self.vehs.values_mut().filter(|veh| veh.wait().is_some()) {
            veh.hurry(self.ctx.now + self.ctx.jitter(5, 300));
        }
    }

    fn own_state(&self) -> PeerState {
        PeerState {
            coordinate: self.dnt.coordinate(),
            api_reachable: self.dnt.api_reachable(),
            zone: self.lrt.zone(),
            free: self.lrt.free(),
            schedulable: self.lrt.open().is_ok(),
        }
    }

    fn node_report(&self) -> NodeReport {
        let coordinate = self.dnt.coordinate();
        let [x, y, z] = coordinate.position;
        // Tenths of a millisecond: a coordinate that trembles is not news.
        let round = |ms: f64| (ms * 10.0).round() / 10.0;
        let running = |vmh: &&lrt::vmh::Vmh| vmh.phase(self.ctx.now) == report::VmPhase::Running;
        NodeReport {
            host: self.lrt.host().cloned(),
            hypervisor_available: self.lrt.hypervisor_available(),
            allocatable: self.lrt.allocatable(),
            allocated: self.lrt.allocated(),
            vms: self.lrt.vms().count() as u32,
            running: self.lrt.vms().filter(running).count() as u32,
            schedulable: self.lrt.open().is_ok(),
            leaving: self.lrt.is_leaving().then(|| self.lrt.still_here()),
            peers: self.dnt.live().count() as u32,
            gateway: self.gateway.is_active(),
            coordinate: [x, y, z, coordinate.height].map(round),
            coordinate_error: round(coordinate.error),
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("node", &self.ctx.node).finish_non_exhaustive()
    }
}
