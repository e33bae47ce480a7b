//! LRT, the Local Resources Tracker: this node's capacity, its one reservation, its VMs, and the
//! procedures that place environments.
//!
//! ```text
//!   a procedure elsewhere ──Reserve──> lock ──Prepare──> promise (durable) ──Order──> VMH: run
//!   a procedure here: procedure.rs asks the nodes, solver.rs finds the places
//!   hypervisor ──domains──> VMH (vmh.rs) ──Observed──> the environment's handler
//! ```
//!
//! Safety rests on two rules. Room is handed out only under the lock, so two procedures never hand out
//! the same room (I4, I5). A promise is on disk before it is spoken, and ends only by an order or by the
//! procedure's own release, never by time (I3).

pub mod procedure;
pub mod solver;
pub mod vmh;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::context::Context;
use super::host::{DomainSeen, HostInfo};
use super::id::{NodeName, ProcedureId, VeUid, VmId};
use super::input::{HypervisorInput, NodeDeclared};
use super::record::{Promise, RecordKey, VmGoal, VmRecord};
use super::spec::{Resources, VmDefinition};
use super::time::Instant;
use super::wire::{Message, Order, OrderedVm, Reservation};
use procedure::{Ended, Procedure, Request};
use vmh::{Outcome, Vmh};

/// A reservation that nothing is heard of ends by itself after this time: its initiator is gone.
pub const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a node tells handlers about their VMs unasked: what was lost is heard then.
const TELL_EVERY: Duration = Duration::from_secs(10);
/// How long a promise stays silent before its node asks what became of it.
const ASK_AFTER: Duration = Duration::from_secs(6);

/// What a node offers to the partition that it has entered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeOffer {
    /// The node.
    pub node: NodeName,
    /// Free for new VMs.
    pub free: Resources,
    /// In all, for people to compare with.
    pub allocatable: Resources,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its zone, empty if it has none.
    pub zone: String,
    /// It takes new VMs.
    pub schedulable: bool,
}

/// This node is in a partition.
#[derive(Clone, Debug)]
pub struct Lock {
    /// Whose.
    pub procedure: ProcedureId,
    /// How often that procedure gave way before.
    pub priority: u32,
    /// When it was entered.
    pub since: Instant,
    /// When it ends if nothing is heard.
    pub until: Instant,
}

/// The LRT of one agent.
#[derive(Debug)]
pub struct Lrt {
    host: Option<HostInfo>,
    available: bool,
    declared: Option<NodeDeclared>,
    lock: Option<Lock>,
    vms: BTreeMap<VmId, Vmh>,
    /// Domains that carry our metadata and that no record knows.
    strays: BTreeMap<VmId, DomainSeen>,
    /// A full pass has been seen since the hypervisor came: what is not shown is not there.
    synced: bool,
    orders: BTreeMap<VeUid, u64>,
    dirty: BTreeSet<VeUid>,
    next_request: u64,
    tell_at: Instant,
    ask_at: Instant,
    waiting: VecDeque<Request>,
    running: Option<Procedure>,
    procedures: u64,
    incarnation: u64,
}

impl Lrt {
    /// The tracker as it was when its agent stopped.
    #[must_use]
    pub fn recover(records: Vec<VmRecord>, incarnation: u64) -> Self {
        let mut orders = BTreeMap::new();
        for record in &records {
            let newest = orders.entry(record.definition.id.ve.clone()).or_insert(0);
            *newest = record.order.max(*newest);
        }
        let vms =
            records.into_iter().map(|record| (record.definition.id.clone(), Vmh::new(record)));
        Self {
            host: None,
            available: false,
            declared: None,
            lock: None,
            vms: vms.collect(),
            strays: BTreeMap::new(),
            synced: false,
            orders,
            dirty: BTreeSet::new(),
            next_request: incarnation << 32,
            tell_at: Instant::ZERO,
            ask_at: Instant::ZERO,
            waiting: VecDeque::new(),
            running: None,
            procedures: 0,
            incarnation,
        }
    }

    // ---- what this node has ------------------------------------------------------------------

    /// What VMs may use in all.
    #[must_use]
    pub fn allocatable(&self) -> Resources {
        let (Some(host), Some(declared)) = (&self.host, &self.declared) else {
            return Resources::default();
        };
        let percent = u64::from(declared.cpu_overcommit_percent);
        let usable = host.capacity.minus(&declared.reserved);
        Resources { cpu_milli: usable.cpu_milli.saturating_mul(percent) / 100, ..usable }
    }

    /// What VMs use or have been promised.
    #[must_use]
    pub fn allocated(&self) -> Resources {
        let held = self.vms.values().map(|vmh| vmh.record.held());
        held.fold(Resources::default(), |sum, part| sum.plus(&part))
    }

    /// What is left for new VMs.
    #[must_use]
    pub fn free(&self) -> Resources {
        self.allocatable().minus(&self.allocated())
    }

    /// It takes new VMs, or why not.
    ///
    /// # Errors
    /// The reason, as the end of a sentence that begins with the node's name.
    pub fn open(&self) -> Result<(), String> {
        match (&self.declared, self.available && self.synced) {
            (None, _) => Err("has not been declared yet".into()),
            (Some(declared), _) if !declared.schedulable => Err("is cordoned".into()),
            (Some(_), false) => Err("waits for its hypervisor".into()),
            (Some(_), true) => Ok(()),
        }
    }

    /// Its zone, empty if it has none.
    #[must_use]
    pub fn zone(&self) -> String {
        let labels = self.declared.as_ref().map(|declared| &declared.labels);
        labels.and_then(|labels| labels.get(ZONE_LABEL)).cloned().unwrap_or_default()
    }

    /// The labels of its `Node`, once they are known.
    #[must_use]
    pub fn labels(&self) -> Option<&BTreeMap<String, String>> {
        self.declared.as_ref().map(|declared| &declared.labels)
    }

    /// The host, if its hypervisor has told.
    #[must_use]
    pub fn host(&self) -> Option<&HostInfo> {
        self.host.as_ref()
    }

    /// The hypervisor answers.
    #[must_use]
    pub fn hypervisor_available(&self) -> bool {
        self.available
    }

    /// The partition that this node is in.
    #[must_use]
    pub fn lock(&self) -> Option<&Lock> {
        self.lock.as_ref()
    }

    /// The procedure that this agent runs.
    #[must_use]
    pub fn procedure(&self) -> Option<&Procedure> {
        self.running.as_ref()
    }

    /// Environments that wait for this agent to run a procedure.
    #[must_use]
    pub fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// This node's VMs.
    pub fn vms(&self) -> impl Iterator<Item = &Vmh> {
        self.vms.values()
    }

    /// Domains of ours that nothing here accounts for.
    pub fn strays(&self) -> impl Iterator<Item = &DomainSeen> {
        self.strays.values()
    }

    /// This node as people and its `Node` describe it.
    pub fn declare(&mut self, declared: NodeDeclared, ctx: &mut Context) {
        let was = self.declared.as_ref().map(|before| before.schedulable);
        if was.is_some_and(|was| was != declared.schedulable) {
            let (reason, text) = if declared.schedulable {
                ("Schedulable", "takes new VMs again")
            } else {
                ("Cordoned", "takes no new VMs; those that it has stay")
            };
            ctx.node_happened(false, reason, text.into());
        }
        self.declared = Some(declared);
    }

    // ---- the partition, seen by a member -----------------------------------------------------

    /// A procedure wants this node.
    pub fn reserve(&mut self, procedure: ProcedureId, priority: u32, ctx: &mut Context) {
        let answer = match (&self.lock, self.open()) {
            (Some(lock), _) if lock.procedure != procedure => {
                Reservation::Busy { procedure: lock.procedure.clone(), priority: lock.priority }
            }
            (_, Err(why)) => Reservation::Closed(why),
            (_, Ok(())) => {
                let since = self.lock.as_ref().map_or(ctx.now, |lock| lock.since);
                let until = since + LOCK_TIMEOUT;
                self.lock = Some(Lock { procedure: procedure.clone(), priority, since, until });
                Reservation::Granted(Box::new(self.offer(ctx)))
            }
        };
        let initiator = procedure.initiator.clone();
        ctx.send(&initiator, Message::Reserved { procedure, answer });
    }

    fn offer(&self, ctx: &Context) -> NodeOffer {
        NodeOffer {
            node: ctx.node.clone(),
            free: self.free(),
            allocatable: self.allocatable(),
            labels: self.declared.as_ref().map(|d| d.labels.clone()).unwrap_or_default(),
            zone: self.zone(),
            schedulable: true,
        }
    }

    /// A procedure wants room for these VMs, durably: all of them or none.
    pub fn prepare(
        &mut self,
        procedure: ProcedureId,
        handler: NodeName,
        order: u64,
        vms: Vec<VmDefinition>,
        ctx: &mut Context,
    ) {
        let result = self.promise(&procedure, &handler, order, vms, ctx);
        let initiator = procedure.initiator.clone();
        ctx.send(&initiator, Message::Prepared { procedure, result });
    }

    fn promise(
        &mut self,
        procedure: &ProcedureId,
        handler: &NodeName,
        order: u64,
        vms: Vec<VmDefinition>,
        ctx: &mut Context,
    ) -> Result<(), String> {
        let given = |vm: &VmDefinition| {
            let record = self.vms.get(&vm.id).map(|vmh| &vmh.record);
            let promise = record.and_then(|record| record.promise.as_ref());
            promise.is_some_and(|promise| promise.procedure == *procedure)
        };
        if vms.iter().all(given) {
            return Ok(());
        }
        if self.lock.as_ref().is_none_or(|lock| lock.procedure != *procedure) {
            return Err("the reservation has ended".into());
        }
        self.open()?;
        // What these VMs hold here already (stopped ones: nothing) is not asked for twice.
        let asked = vms.iter().fold(Resources::default(), |sum, vm| {
            let has = self.vms.get(&vm.id).map(|vmh| vmh.record.held()).unwrap_or_default();
            sum.plus(&Resources::of(vm.cpus, vm.memory).minus(&has))
        });
        if !self.free().holds(&asked) {
            return Err("its room has shrunk".into());
        }
        for definition in vms {
            self.ask_at = ctx.now + ASK_AFTER;
            let promise =
                Promise { procedure: procedure.clone(), order, definition: definition.clone() };
            let vmh = self.vms.entry(definition.id.clone()).or_insert_with(|| {
                Vmh::new(VmRecord {
                    definition,
                    goal: VmGoal::Absent,
                    promise: None,
                    handler: handler.clone(),
                    order: 0,
                    running: None,
                    completed: false,
                    restarts: 0,
                })
            });
            vmh.record.promise = Some(promise);
            vmh.record.handler = handler.clone();
            vmh.keep(ctx);
        }
        // The promises hold the room from here on; the partition may go.
        self.lock = None;
        Ok(())
    }

    /// A procedure gives this node back. If it has failed, promises to it that no order has decided are
    /// void; a late release of one that has committed must not touch them.
    pub fn release(&mut self, procedure: &ProcedureId, undo: bool, ctx: &mut Context) {
        if self.lock.as_ref().is_some_and(|lock| lock.procedure == *procedure) {
            self.lock = None;
        }
        if !undo {
            return;
        }
        let promised = self.vms.iter().filter(|(_, vmh)| {
            vmh.record.promise.as_ref().is_some_and(|promise| promise.procedure == *procedure)
        });
        for id in promised.map(|(id, _)| id.clone()).collect::<Vec<_>>() {
            self.void_promise(&id, ctx);
        }
    }

    fn void_promise(&mut self, id: &VmId, ctx: &mut Context) {
        let Some(vmh) = self.vms.get_mut(id) else { return };
        vmh.record.promise = None;
        if vmh.record.goal == VmGoal::Absent {
            self.drop_vm(id, ctx);
        } else {
            vmh.keep(ctx);
        }
    }

    fn drop_vm(&mut self, id: &VmId, ctx: &mut Context) {
        self.vms.remove(id);
        ctx.forget(RecordKey::Vm(id.clone()));
    }

    // ---- orders ------------------------------------------------------------------------------

    /// The handler of an environment says what is to be here.
    pub fn order(&mut self, order: Order, ctx: &mut Context) {
        let newest = self.orders.get(&order.ve).copied().unwrap_or(0);
        if order.order < newest {
            self.dirty.insert(order.ve);
            return;
        }
        let here = self.vms.keys().filter(|id| id.ve == order.ve).cloned();
        let here: BTreeSet<VmId> = here.collect();
        let listed: BTreeSet<&VmId> = order.vms.iter().map(|vm| &vm.definition.id).collect();
        for id in here.iter().filter(|id| !listed.contains(id)) {
            self.unlisted(id, &order, ctx);
        }
        for vm in &order.vms {
            self.listed(vm, &order, ctx);
        }
        let strays: Vec<_> = self.strays.keys().filter(|id| id.ve == order.ve).cloned().collect();
        for id in strays {
            self.take_in(&id, &order, ctx);
        }
        if self.vms.keys().any(|id| id.ve == order.ve) {
            self.orders.insert(order.ve.clone(), order.order);
            self.dirty.insert(order.ve);
        } else {
            self.orders.remove(&order.ve);
            let (ve, number) = (order.ve, order.order);
            ctx.send(&order.handler, Message::Observed { ve, order: number, vms: Vec::new() });
        }
    }

    fn unlisted(&mut self, id: &VmId, order: &Order, ctx: &mut Context) {
        let Some(vmh) = self.vms.get_mut(id) else { return };
        vmh.record.handler = order.handler.clone();
        if let Some(promise) = &vmh.record.promise {
            if !promise.is_decided_by(order.order, order.open) {
                return;
            }
            vmh.record.promise = None;
        }
        if vmh.record.goal == VmGoal::Absent {
            self.drop_vm(id, ctx);
        } else {
            vmh.record.order = order.order;
            let definition = vmh.record.definition.clone();
            vmh.obey(definition, VmGoal::Remove, ctx);
        }
    }

    fn listed(&mut self, vm: &OrderedVm, order: &Order, ctx: &mut Context) {
        let free = self.free();
        let Some(vmh) = self.vms.get_mut(&vm.definition.id) else { return };
        vmh.record.handler = order.handler.clone();
        vmh.record.order = order.order;
        vmh.may_restart = vm.may_restart;
        let redeems = vmh.record.promise.as_ref().is_some_and(|promise| {
            promise.definition.epoch == vm.definition.epoch
                && promise.is_decided_by(order.order, order.open)
        });
        if redeems && let Some(promise) = vmh.record.promise.take() {
            // Its room becomes the VM's own; what the order asks beyond it is judged below.
            vmh.obey(promise.definition, goal(vm.run), ctx);
        }
        let decided = |promise: &Promise| promise.is_decided_by(order.order, order.open);
        if vmh.record.promise.as_ref().is_some_and(decided) {
            vmh.record.promise = None;
        }
        if vmh.record.goal == VmGoal::Absent || vmh.record.definition.epoch != vm.definition.epoch {
            // Not the VM that is here: only a promise brings a VM to a node.
            return;
        }
        if vmh.record.goal == VmGoal::Stop && vm.run {
            // A stopped VM holds no room: it comes back through a promise too.
            return;
        }
        let size = |vm: &VmDefinition| Resources::of(vm.cpus, vm.memory);
        let more = size(&vm.definition).minus(&vmh.record.held());
        if vm.run && more != Resources::default() && !free.holds(&more) {
            vmh.reason = Some(format!(
                "keeps its old size: {} more memory and {} more cpus are needed on {}, {} is free",
                solver::bytes(more.memory),
                more.cpu_milli / 1000,
                ctx.node,
                solver::bytes(free.memory)
            ));
            return;
        }
        vmh.obey(vm.definition.clone(), goal(vm.run), ctx);
    }

    /// A domain without a record (the journal was lost): it is the VM that the order lists, or it goes.
    fn take_in(&mut self, id: &VmId, order: &Order, ctx: &mut Context) {
        if self.vms.contains_key(id) {
            return;
        }
        let Some(stray) = self.strays.remove(id) else { return };
        let listed = order.vms.iter().find(|vm| vm.definition.id == *id);
        let Some(definition) = listed.or(order.vms.first()).map(|vm| vm.definition.clone()) else {
            // Nothing of this environment is to be here, and its name is not known: the domain is left
            // for people, who see it on the node's page.
            self.strays.insert(id.clone(), stray);
            return;
        };
        let is_it = listed.is_some_and(|vm| vm.definition.epoch == stray.epoch && vm.run);
        let mut vmh = Vmh::new(VmRecord {
            definition: VmDefinition { id: id.clone(), ..definition },
            goal: if is_it { VmGoal::Run } else { VmGoal::Remove },
            promise: None,
            handler: order.handler.clone(),
            order: order.order,
            running: None,
            completed: false,
            restarts: 0,
        });
        vmh.observe(Some(stray), ctx);
        vmh.keep(ctx);
        self.vms.insert(id.clone(), vmh);
    }

    // ---- the hypervisor ----------------------------------------------------------------------

    /// The hypervisor tells.
    pub fn hypervisor(&mut self, input: HypervisorInput, ctx: &mut Context) {
        match input {
            HypervisorInput::Host(host) => self.host = Some(host),
            HypervisorInput::Available(available) => self.set_available(available, ctx),
            HypervisorInput::Domain(seen) => self.seen(seen, ctx),
            HypervisorInput::DomainGone(id) => {
                self.strays.remove(&id);
                if let Some(vmh) = self.vms.get_mut(&id) {
                    self.dirty.insert(id.ve.clone());
                    vmh.observe(None, ctx);
                }
            }
            HypervisorInput::Domains(all) => self.full_pass(all, ctx),
            HypervisorInput::Progress { id, message } => {
                if let Some(vmh) = self.vms.get_mut(&id) {
                    vmh.progress(message);
                    self.dirty.insert(id.ve);
                }
            }
            HypervisorInput::Done { request, id, result } => self.done(request, &id, result, ctx),
        }
    }

    fn set_available(&mut self, available: bool, ctx: &mut Context) {
        if self.available != available {
            let reason = if available { "HypervisorReady" } else { "HypervisorAway" };
            let text = if available {
                "the hypervisor answers again"
            } else {
                "the hypervisor does not answer; VMs that run go on, none can be started"
            };
            ctx.node_happened(!available, reason, text.into());
        }
        self.available = available;
        if available {
            self.vms.values_mut().for_each(Vmh::hurry);
        } else {
            self.synced = false;
        }
    }

    fn seen(&mut self, seen: DomainSeen, ctx: &mut Context) {
        self.dirty.insert(seen.id.ve.clone());
        match self.vms.get_mut(&seen.id) {
            Some(vmh) => vmh.observe(Some(seen), ctx),
            None => {
                if self.strays.insert(seen.id.clone(), seen.clone()).is_none() {
                    let text =
                        format!("domain {} ({}) belongs to nothing known here", seen.uuid, seen.id);
                    ctx.node_happened(true, "StrayDomain", text);
                }
            }
        }
    }

    fn full_pass(&mut self, all: Vec<DomainSeen>, ctx: &mut Context) {
        self.synced = true;
        let shown: BTreeSet<VmId> = all.iter().map(|seen| seen.id.clone()).collect();
        self.strays.retain(|id, _| shown.contains(id));
        for seen in all {
            self.seen(seen, ctx);
        }
        for (id, vmh) in self.vms.iter_mut().filter(|(id, _)| !shown.contains(id)) {
            if vmh.domain.is_some() {
                self.dirty.insert(id.ve.clone());
            }
            vmh.observe(None, ctx);
        }
    }

    fn done(
        &mut self,
        request: u64,
        id: &VmId,
        result: Result<Option<DomainSeen>, super::host::Failure>,
        ctx: &mut Context,
    ) {
        let Some(vmh) = self.vms.get_mut(id) else { return };
        self.dirty.insert(id.ve.clone());
        if vmh.done(request, result, ctx) == Outcome::Gone {
            let (handler, order) = (vmh.record.handler.clone(), vmh.record.order);
            if vmh.record.promise.is_some() || vmh.record.goal != VmGoal::Remove {
                // It was removed, and is promised or ordered to come back as another placement.
                if vmh.record.goal == VmGoal::Remove {
                    vmh.record.goal = VmGoal::Absent;
                }
                vmh.record.running = None;
                vmh.domain = None;
                vmh.keep(ctx);
                return;
            }
            self.drop_vm(id, ctx);
            if !self.vms.keys().any(|other| other.ve == id.ve) {
                self.orders.remove(&id.ve);
                self.dirty.remove(&id.ve);
                let ve = id.ve.clone();
                ctx.send(&handler, Message::Observed { ve, order, vms: Vec::new() });
            }
        }
    }

    // ---- procedures of this agent ------------------------------------------------------------

    /// Queues a request; an older one for the same environment is replaced.
    pub fn place(&mut self, request: Request) {
        self.waiting.retain(|other| other.ve != request.ve);
        self.waiting.push_back(request);
    }

    /// The environment no longer wants to be placed.
    pub fn withdraw(&mut self, ve: &VeUid, ctx: &mut Context) {
        self.waiting.retain(|request| request.ve != *ve);
        if self.running.as_ref().is_some_and(|procedure| procedure.request.ve == *ve)
            && let Some(procedure) = self.running.take()
        {
            procedure.dissolve(None, ctx);
        }
    }

    /// Whether a request of this environment is queued or under way.
    #[must_use]
    pub fn is_placing(&self, ve: &VeUid) -> bool {
        self.waiting.iter().any(|request| request.ve == *ve)
            || self.running.as_ref().is_some_and(|procedure| procedure.request.ve == *ve)
    }

    /// Starts the next procedure if none runs. `nearest` are the live peers, nearest first.
    pub fn start_next(&mut self, nearest: impl FnOnce() -> Vec<NodeName>, ctx: &mut Context) {
        if self.running.is_some() {
            return;
        }
        if let Some(request) = self.waiting.pop_front() {
            self.procedures += 1;
            let id = ProcedureId {
                initiator: ctx.node.clone(),
                incarnation: self.incarnation,
                number: self.procedures,
            };
            self.running = Some(Procedure::start(id, request, nearest(), ctx));
        }
    }

    /// An answer to a reserve of a procedure of this agent (or of one that is over).
    pub fn reserved(
        &mut self,
        from: &NodeName,
        id: &ProcedureId,
        answer: Reservation,
        ctx: &mut Context,
    ) -> Option<(Request, Ended)> {
        match self.running.as_mut().filter(|procedure| procedure.id == *id) {
            Some(procedure) => {
                let ended = procedure.reserved(from, answer, ctx);
                self.end(ended, ctx)
            }
            None => {
                if matches!(answer, Reservation::Granted(_)) {
                    ctx.send(from, Message::Release { procedure: id.clone(), undo: false });
                }
                None
            }
        }
    }

    /// An answer to a prepare.
    pub fn prepared(
        &mut self,
        from: &NodeName,
        id: &ProcedureId,
        result: Result<(), String>,
        ctx: &mut Context,
    ) -> Option<(Request, Ended)> {
        let procedure = self.running.as_mut().filter(|procedure| procedure.id == *id)?;
        let ended = procedure.prepared(from, result);
        self.end(ended, ctx)
    }

    fn end(&mut self, ended: Option<Ended>, ctx: &mut Context) -> Option<(Request, Ended)> {
        let ended = ended?;
        let procedure = self.running.take()?;
        procedure.dissolve(Some(&ended), ctx);
        Some((procedure.request, ended))
    }

    // ---- time --------------------------------------------------------------------------------

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let tell = (!self.vms.is_empty()).then_some(self.tell_at);
        let promised = self.vms.values().any(|vmh| vmh.record.promise.is_some());
        let vms =
            self.commands_allowed().then(|| self.vms.values().filter_map(Vmh::next_wakeup).min());
        [
            self.lock.as_ref().map(|lock| lock.until),
            self.running.as_ref().map(Procedure::next_wakeup),
            tell,
            promised.then_some(self.ask_at),
            vms.flatten(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn commands_allowed(&self) -> bool {
        self.available && self.synced
    }

    /// Does what is due. Returns how this agent's procedure ended, if it did.
    pub fn wake(&mut self, ctx: &mut Context) -> Option<(Request, Ended)> {
        if self.lock.as_ref().is_some_and(|lock| lock.until <= ctx.now) {
            self.lock = None;
        }
        if self.tell_at <= ctx.now {
            self.tell_at = ctx.now + TELL_EVERY;
            self.dirty.extend(self.vms.keys().map(|id| id.ve.clone()));
        }
        if self.ask_at <= ctx.now {
            self.ask_at = ctx.now + ASK_AFTER;
            let promised = self.vms.values().filter(|vmh| vmh.record.promise.is_some());
            self.dirty.extend(promised.map(|vmh| vmh.record.definition.id.ve.clone()));
        }
        let ended = self.running.as_mut().and_then(|procedure| procedure.wake(ctx));
        self.end(ended, ctx)
    }

    /// At the end of each input: gives commands, and tells handlers what has changed.
    pub fn settle(&mut self, ctx: &mut Context) {
        if self.commands_allowed() {
            for (id, vmh) in &mut self.vms {
                let before = self.next_request;
                vmh.act(&mut self.next_request, ctx);
                if before != self.next_request {
                    self.dirty.insert(id.ve.clone());
                }
            }
        }
        if self.synced {
            for ve in std::mem::take(&mut self.dirty) {
                self.tell(ve, ctx);
            }
        }
    }

    fn tell(&self, ve: VeUid, ctx: &mut Context) {
        let mut of_ve =
            self.vms.values().filter(|vmh| vmh.record.definition.id.ve == ve).peekable();
        let Some(handler) = of_ve.peek().map(|vmh| vmh.record.handler.clone()) else { return };
        let order = self.orders.get(&ve).copied().unwrap_or(0);
        let vms = of_ve.map(|vmh| vmh.observed(ctx.now)).collect();
        ctx.send(&handler, Message::Observed { ve, order, vms });
    }
}

/// The well-known label of a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

fn goal(run: bool) -> VmGoal {
    if run { VmGoal::Run } else { VmGoal::Stop }
}
