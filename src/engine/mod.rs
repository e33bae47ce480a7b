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

pub mod bugs;
pub mod constraint;
pub mod context;
pub mod dnt;
pub mod effect;
pub mod guard;
pub mod host;
pub mod id;
pub mod input;
pub mod invariants;
pub mod lease;
pub mod lrt;
mod peers;
pub mod record;
pub mod replica;
pub mod report;
pub mod spec;
pub mod time;
pub mod vet;
pub mod view;
pub mod wire;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use context::Context;
use dnt::Dnt;
use effect::{ClusterAction, Effects};
use id::{NodeName, VeUid, VmId};
use input::{ClusterInput, Input, VeDeclared};
use lease::fence::Fences;
use lease::guardian::Guardian;
use lease::message::{LeaseMessage, Said};
use lease::tenant::{self, Protection, Tenant};
use lease::{MAX_GUARDIANS, Times};
use lrt::Lrt;
use lrt::partition::Asked;
use lrt::procedure::{Ended, Request};
use lrt::solver::Goal;
use lrt::transit::MigrationLimits;
use record::{Kept, MoveReason, VeRecord};
use replica::{DiskId, Replica};
use report::NodeReport;
use time::Instant;
use vet::gateway::{Candidates, Gateway};
use vet::ledger;
use vet::register::{Held, Registers, Turn};
use vet::veh::{Rooms, Told, Veh};
use wire::{Message, Order};

/// The order of an environment that was deleted: nothing of it is to be there. A node that has it needs no other, unless it has made
/// a promise since.
const LAST_ORDER: u64 = u64::MAX;

/// Most rounds of messages to itself that follow one input at once.
const MOST_ROUNDS: usize = 1000;

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
    /// This node's VMs may be taken over when it is lost; else its leases have no guardians and never end.
    pub failover: bool,
    /// The times that this node's leases are made of.
    pub times: Times,
    /// What live migrations may take of this node.
    pub limits: MigrationLimits,
    /// How many agents keep each environment's record: 3 or 5.
    pub replicas: usize,
    /// This agent can have peers' machines switched off from outside.
    pub can_switch_off: bool,
}

/// One agent's engine.
pub struct Engine {
    ctx: Context,
    dnt: Dnt,
    lrt: Lrt,
    registers: Registers,
    vehs: BTreeMap<VeUid, Veh>,
    gateway: Gateway,
    tenant: Tenant,
    guardian: Guardian,
    fences: Fences,
    reported: Option<NodeReport>,
    /// Peers that people were told are silent.
    silent: Vec<NodeName>,
    incarnation: u64,
    failover: bool,
}

impl Engine {
    /// An engine as it was when its records were last kept, and what it asks for first.
    #[must_use]
    pub fn recover(config: Config, kept: Vec<Kept>, now: Instant) -> (Self, Effects) {
        let (mut incarnation, mut disk) = (1, None);
        let (mut registers, mut vms) = (Vec::new(), Vec::new());
        let (mut leases, mut wards) = (None, Vec::new());
        for kept in kept {
            match kept {
                Kept::Incarnation { life, disk: known } => {
                    incarnation = life + 1;
                    disk = Some(known);
                }
                Kept::Register(acceptor) => registers.push(acceptor),
                Kept::Vm(record) => vms.push(record),
                Kept::Lease(own) => leases = Some(own),
                Kept::Ward(ward) => wards.push(ward),
            }
        }
        let mut ctx = Context {
            node: config.node.clone(),
            now,
            rng: ChaCha8Rng::seed_from_u64(config.seed),
            out: Effects::default(),
            loopback: Vec::new(),
            lapsed: false,
        };
        let disk = disk.unwrap_or_else(|| DiskId(ctx.rng.random()));
        ctx.keep(Kept::Incarnation { life: incarnation, disk });
        let own = Replica { node: config.node.clone(), disk };
        let out = std::mem::take(&mut ctx.out);
        let engine = Self {
            dnt: Dnt::new(&config.node, incarnation, config.seed.wrapping_add(1)),
            lrt: Lrt::recover(vms, incarnation, config.threshold_s)
                .with_goal(config.goal)
                .with_limits(config.limits),
            tenant: Tenant::recover(own.clone(), incarnation, config.times, leases),
            guardian: Guardian::recover(wards, now),
            fences: Fences::new(config.can_switch_off),
            registers: Registers::recover(own, registers, now).with_count(config.replicas),
            vehs: BTreeMap::new(),
            gateway: Gateway::default(),
            reported: None,
            silent: Vec::new(),
            incarnation,
            failover: config.failover,
            ctx,
        };
        (engine, out)
    }

    /// Handles one input. `now` never goes backwards.
    pub fn handle(&mut self, now: Instant, input: Input) -> Effects {
        self.ctx.now = now.max(self.ctx.now);
        self.ctx.lapsed = self.tenant.has_lapsed(self.ctx.now);
        match input {
            Input::Wakeup => self.wake(),
            Input::PeerKnown(node) => {
                let own = self.own_state();
                let news = self.dnt.know(node, &own, &mut self.ctx);
                self.peers_changed(&news);
            }
            Input::PeerRevoked(node) => {
                let news = self.dnt.revoke(&node);
                self.peers_changed(&news);
            }
            Input::Message { from, message } => self.message(&from, *message),
            Input::Cluster(input) => self.cluster(input),
            Input::Guard(input) => {
                let starting = self.lrt.is_starting();
                self.tenant.guard(&input, starting, &mut self.ctx);
            }
            Input::Switched { holder, epoch, result } => {
                if self.fences.switched(&holder, epoch, result, &mut self.ctx) {
                    self.node_is_gone(&holder.node);
                }
            }
            Input::GoAway(lasts) => self.go_away(lasts),
            Input::Hypervisor(input) => {
                let free = self.lrt.free();
                self.lrt.hypervisor(input, &mut self.ctx);
                if self.lrt.free() != free {
                    self.room_appeared();
                }
            }
        }
        self.settle();
        std::mem::take(&mut self.ctx.out)
    }

    /// When the engine wants an [`Input::Wakeup`] at the latest.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.wakeups().into_iter().filter_map(|(_, at)| at).min()
    }

    /// When each room has something to do.
    #[must_use]
    pub fn wakeups(&self) -> [(&'static str, Option<Instant>); 8] {
        [
            ("itself", self.tells_itself().then_some(self.ctx.now)),
            ("dnt", self.dnt.next_wakeup()),
            ("lrt", self.lrt.next_wakeup()),
            ("gateway", self.gateway.next_wakeup()),
            ("registers", self.registers.next_wakeup()),
            ("tenant", self.tenant.next_wakeup()),
            ("fences", self.fences.next_wakeup()),
            ("handlers", self.vehs.values().filter_map(Veh::next_wakeup).min()),
        ]
    }

    /// Whether it has more to tell itself than it should ever have after one input.
    #[must_use]
    pub fn tells_itself(&self) -> bool {
        !self.ctx.loopback.is_empty()
    }

    /// Whether an absence that [`Input::GoAway`] announced is agreed on: the agent may end, and its VMs run on.
    #[must_use]
    pub fn may_go(&self) -> bool {
        self.tenant.may_go()
    }

    fn go_away(&mut self, lasts: Duration) {
        self.tenant.go_away(lasts, &mut self.ctx);
        self.wake();
    }

    fn wake(&mut self) {
        let own = self.own_state();
        let news = self.dnt.wake(&own, &mut self.ctx);
        self.peers_changed(&news);
        if self.lrt.wants_peers(self.ctx.now) {
            self.choose_acquaintances();
        }
        if self.tenant.is_due(self.ctx.now) {
            let key = format!("guardians of {}", self.ctx.node);
            let peers = self.dnt.replicas(&key, None, MAX_GUARDIANS);
            let wanted = tenant::guardians(self.registers.own(), peers);
            let wanted = self.failover.then_some(wanted.as_slice());
            let bound = self.lrt.bound(|epoch| self.tenant.is_own(epoch));
            let starting = self.lrt.is_starting();
            self.tenant.wake(wanted, bound, starting, &mut self.ctx);
        }
        self.tell_silent();
        self.fences.wake(&mut self.ctx);
        let ended = self.lrt.wake(&mut self.ctx);
        self.procedure_ended(ended);
        let (own, dnt) = (&self.registers.own().clone(), &self.dnt);
        self.registers.wake(&|replica| replica == own || dnt.is_there(replica), &mut self.ctx);
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
        if !self.lrt.is_starting() {
            self.tenant.nothing_starts(&mut self.ctx);
        }
        // Each round may cause more messages to itself; a placement on this node alone takes six. Should there ever be no end of them,
        // the rest waits for the next input: the agent goes on to hear its peers.
        for _ in 0..MOST_ROUNDS {
            self.lrt.set_permit(self.tenant.permit(self.ctx.now));
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
        let goes_on = self.tells_itself();
        let rank = self.dnt.gateway_rank(&self.ctx.node, self.ctx.now);
        self.gateway.set_rank(rank, &mut self.ctx);
        let zone = self.lrt.zone();
        let (own, count) = (self.registers.own(), self.registers.count());
        let candidates = Candidates { own, zone: &zone, count };
        self.gateway.wake(&self.dnt, candidates, &mut self.ctx);
        if !goes_on && self.tells_itself() {
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
            Message::Declared { uid, generation, deleting, round } => {
                let told = (generation, deleting);
                self.gateway.acknowledged(from, &uid, told, round, &self.ctx);
            }
            Message::Handler { ve, node } => {
                self.gateway.elsewhere(from, &ve, &node, &self.dnt, &self.ctx);
                self.lrt.elsewhere(from, &ve, node, &mut self.ctx);
            }
            Message::Lease(message) => self.lease(from, *message),
            Message::Register(message) => {
                let turn = self.registers.message(from, *message, &mut self.ctx);
                self.turned(turn);
            }
            Message::Reserve { procedure, ve, priority } if procedure.initiator == *from => {
                self.lrt.reserve(procedure, &ve, priority, &mut self.ctx);
            }
            Message::Prepare { procedure, replicas, order, vms, arriving }
                if procedure.initiator == *from =>
            {
                let asked = Asked { handler: from.clone(), replicas, order, vms, arriving };
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
            Message::Prepared { result: Ok(lease), .. } if lease.holder.node != *from => {}
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
            Message::Observed { ve, order, leaving, lease, vms } => {
                let lease = lease.filter(|lease| lease.holder.node == *from);
                self.observed(from, ve, Told { order, leaving, lease, vms });
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
                let was_leaving = self.lrt.is_leaving();
                self.lrt.declare(declared, &mut self.ctx);
                if was_leaving != self.lrt.is_leaving() {
                    // It keeps the records that it handles for not much longer, or goes on to.
                    let handled: Vec<VeUid> = self.vehs.keys().cloned().collect();
                    handled.iter().for_each(|ve| self.reconcile(ve));
                }
                self.room_appeared();
            }
            ClusterInput::Ve(declared) => self.gateway.saw(*declared, &mut self.ctx),
            ClusterInput::VeGone { uid, .. } => self.gateway.gone(&uid, &mut self.ctx),
            ClusterInput::VesListed { live } => self.gateway.listed(&live, &mut self.ctx),
        }
    }

    /// A gateway hands over an environment.
    fn declare(&mut self, from: &NodeName, declared: VeDeclared) {
        let uid = declared.uid.clone();
        if self.registers.read(&uid).is_none() {
            let (own, dnt) = (&self.registers.own().clone(), &self.dnt);
            let live = |replica: &Replica| replica == own || dnt.is_there(replica);
            let elsewhere = self.registers.declare(from, declared, &live, &mut self.ctx);
            if let Some(node) = elsewhere {
                self.ctx.send(from, Message::Handler { ve: uid, node });
            }
            return;
        }
        self.held_back(&uid, |engine| {
            let buried = engine.registers.read(&uid).is_some_and(|record| record.tombstone);
            if buried {
                if declared.deleting && !declared.gone {
                    let name = declared.name.clone();
                    engine.ctx.cluster(ClusterAction::ReleaseVe { uid: uid.clone(), name });
                }
            } else {
                let stale =
                    declared.reported != 0 && declared.reported < engine.registers.round(&uid);
                if let Some(veh) = engine.vehs.get_mut(&uid).filter(|_| stale) {
                    veh.report_again();
                }
                let update = |record: &mut VeRecord| ledger::update_record(record, declared);
                engine.registers.change(&uid, update);
            }
            if let Some(record) = engine.registers.read(&uid) {
                let (generation, deleting) = (record.declared.generation, record.declared.deleting);
                let round = engine.registers.round(&uid);
                let answer = Message::Declared { uid: uid.clone(), generation, deleting, round };
                engine.ctx.send(from, answer);
            }
            engine.act(&uid, |veh, rooms, ctx| veh.reconcile(rooms, ctx));
        });
    }

    /// A register that this agent proposes to has come further.
    fn turned(&mut self, turn: Option<Turn>) {
        match turn {
            Some(Turn::Leads(ve)) => {
                let buried = self.registers.read(&ve).is_some_and(|record| record.tombstone);
                if !buried {
                    self.vehs.insert(ve.clone(), Veh::new(ve.clone()));
                }
                for (from, declared) in self.registers.take_declared(&ve) {
                    self.declare(&from, declared);
                }
                self.reconcile(&ve);
            }
            Some(Turn::Chosen(ve)) => self.reconcile(&ve),
            Some(Turn::Deposed(ve)) => {
                self.vehs.remove(&ve);
                self.lrt.withdraw(&ve, &mut self.ctx);
                self.lrt.hold_back(&ve, false);
            }
            Some(Turn::LostDisk(ve, node)) => {
                if let Some(veh) = self.vehs.get_mut(&ve) {
                    veh.lost_disk(node);
                }
                self.reconcile(&ve);
            }
            Some(Turn::Answers(ve, by)) => {
                let now = self.ctx.now;
                if self.vehs.get_mut(&ve).is_some_and(|veh| veh.answered(&by, now)) {
                    self.reconcile(&ve);
                }
            }
            None => {}
        }
    }

    /// Lets an environment's handler act: what it does follows from its record as it has changed it, and is held back
    /// until that is chosen. Where nothing is changed, nothing waits.
    fn held_back(&mut self, ve: &VeUid, act: impl FnOnce(&mut Self)) {
        let actions = std::mem::take(&mut self.ctx.out.actions);
        let loopback = std::mem::take(&mut self.ctx.loopback);
        act(self);
        let acts = std::mem::replace(&mut self.ctx.out.actions, actions);
        let says = std::mem::replace(&mut self.ctx.loopback, loopback);
        for held in acts.into_iter().map(Held::Act).chain(says.into_iter().map(Held::Say)) {
            self.registers.hold(ve, held);
        }
        self.registers.propose(ve, &mut self.ctx);
        for held in self.registers.release(ve) {
            match held {
                Held::Act(action) => self.ctx.out.actions.push(action),
                Held::Say(message) => self.ctx.loopback.push(message),
            }
        }
        let settled = self.registers.is_settled(ve);
        self.lrt.hold_back(ve, !settled);
        if settled && self.registers.read(ve).is_some_and(|record| record.tombstone) {
            self.vehs.remove(ve);
        }
    }

    fn act(&mut self, ve: &VeUid, act: impl FnOnce(&mut Veh, &mut Rooms<'_>, &mut Context)) {
        if let Some(veh) = self.vehs.get_mut(ve) {
            let (registers, lrt, dnt) = (&mut self.registers, &mut self.lrt, &self.dnt);
            let fences = &mut self.fences;
            act(veh, &mut Rooms { registers, lrt, dnt, fences }, &mut self.ctx);
        }
    }

    fn reconcile(&mut self, ve: &VeUid) {
        self.held_back(ve, |engine| engine.act(ve, |veh, rooms, ctx| veh.reconcile(rooms, ctx)));
    }

    /// Something is said to an environment's handler, which then does what follows.
    fn tell_veh(&mut self, ve: &VeUid, tell: impl FnOnce(&mut Veh, &mut Rooms<'_>, &mut Context)) {
        self.held_back(ve, |engine| {
            engine.act(ve, |veh, rooms, ctx| {
                tell(veh, rooms, ctx);
                veh.reconcile(rooms, ctx);
            });
        });
    }

    /// A holder, a guardian, or one who wants to know.
    fn lease(&mut self, from: &NodeName, message: LeaseMessage) {
        let own = self.registers.own().clone();
        let LeaseMessage { guardian, holder, epoch, said } = &message;
        let asks = matches!(said, Said::Renew { .. } | Said::Fence);
        if asks && *guardian != own.disk {
            if matches!(said, Said::Renew { .. }) && holder.node == *from {
                // Who has lost its disk does not know what it has promised: it never acknowledges as that guardian again.
                let said = Said::Dead;
                self.ctx.send(from, Message::Lease(Box::new(LeaseMessage { said, ..message })));
            }
            return;
        }
        let (answer, news) = match said {
            Said::Renew { life, sent, times, released, absence } if holder.node == *from => {
                let terms = ((*life, *sent), *times, *released, *absence);
                self.guardian.renew(holder, *epoch, terms, self.ctx.now)
            }
            Said::Fence => self.guardian.fence(holder, *epoch, self.ctx.now),
            Said::Renewed { .. } | Said::Dead if *holder == own => {
                return self.tenant.hear(from, &message, &mut self.ctx);
            }
            Said::Alive(_) | Said::Away(_) | Said::Fencing(_) | Said::Fenced => {
                if self.fences.hear(from, &message, &mut self.ctx) {
                    self.node_is_gone(&message.holder.node);
                }
                return;
            }
            _ => return,
        };
        if let Some(ward) = news {
            self.ctx.keep(Kept::Ward(ward));
        }
        let (guardian, holder, epoch) = (own.disk, holder.clone(), *epoch);
        let answer = LeaseMessage { guardian, holder, epoch, said: answer };
        self.ctx.send(from, Message::Lease(Box::new(answer)));
    }

    /// A node's lease is over for certain: whoever has something there takes it over.
    fn node_is_gone(&mut self, node: &NodeName) {
        let there = |record: &&VeRecord| record.leases.contains_key(node);
        let ves: Vec<VeUid> =
            self.registers.all().filter(there).map(|r| r.declared.uid.clone()).collect();
        for ve in ves {
            self.reconcile(&ve);
        }
    }

    fn asked_to_move(&mut self, from: &NodeName, vm: &VmId, to: (NodeName, MoveReason)) {
        self.tell_veh(&vm.ve, |veh, rooms, ctx| veh.asked_to_move(from, vm, to, rooms, ctx));
    }

    fn observed(&mut self, from: &NodeName, ve: VeUid, told: Told) {
        if self.vehs.contains_key(&ve) {
            return self.tell_veh(&ve, |veh, rooms, ctx| veh.hear(from, told, rooms, ctx));
        }
        if self.registers.is_buried(&ve) {
            let obeys = told.order == LAST_ORDER && told.vms.iter().all(|vm| !vm.promised);
            if !told.vms.is_empty() && !obeys {
                // A late message raised something from the dead: nothing of it is to be there.
                let handler = self.ctx.node.clone();
                let (order, vms) = (LAST_ORDER, Vec::new());
                let order = Order { ve, handler, order, lease: 0, open: 0, vms };
                self.ctx.send(from, Message::Order(Box::new(order)));
            }
            return;
        }
        let node = if self.registers.keeps(&ve) {
            self.registers.handler(&ve).filter(|handler| self.dnt.is_live(handler)).cloned()
        } else {
            self.who_may_know(&ve)
        };
        if let Some(node) = node.filter(|node| *node != self.ctx.node) {
            self.ctx.send(from, Message::Handler { ve, node });
        }
    }

    fn procedure_ended(&mut self, ended: Option<(Request, Ended)>) {
        let Some((request, ended)) = ended else { return };
        let ve = request.ve.clone();
        self.tell_veh(&ve, |veh, rooms, ctx| veh.placed(&request, ended, rooms, ctx));
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
            lease: self.tenant.report(self.ctx.now),
            protection: if self.failover {
                self.tenant.protection()
            } else {
                Protection::None("failover is off".into())
            },
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
