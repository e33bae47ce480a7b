//! LRT, the Local Resources Tracker: this node's capacity, its one reservation, its VMs, and the
//! procedures that place environments.
//!
//! ```text
//!   a procedure elsewhere ──Reserve──> lock ──Prepare──> promise (durable)       partition.rs
//!                           ──Order──> the goals of VMHs                          orders.rs
//!   a procedure here: asks the nodes, finds the places          initiator.rs, procedure.rs, solver.rs
//!   hypervisor ──domains──> VMH ──Observed──> the environment's handler     hypervisor.rs, vmh.rs, transit.rs
//!   a procedure without room ──MakeRoom──> its VMs' nodes ──Move──> their handlers    room.rs
//!   loads ──> levels ──> two nodes agree on a VM's move   monitor.rs, loads.rs, relief/
//! ```
//!
//! Safety rests on two rules. Room is handed out only under the lock, so two procedures never hand out
//! the same room (I4, I5). A promise is on disk before it is spoken, and ends only by an order or by the
//! procedure's own release, never by time (I3).

mod hypervisor;
mod initiator;
pub mod loads;
pub mod monitor;
mod orders;
pub mod partition;
pub mod procedure;
pub mod relief;
pub mod room;
pub mod solver;
mod terms;
pub mod transit;
pub mod vmh;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::bugs::{Bug, has};
use super::context::Context;
use super::host::{DomainSeen, HostInfo};
use super::id::{NodeName, ProcedureId, VeUid, VmId};
use super::input::NodeDeclared;
use super::lease::Lease;
use super::record::{Transit, VmGoal, VmRecord};
use super::spec::Resources;
use super::time::Instant;
use super::wire::Message;
use monitor::Monitor;
use procedure::{Ended, Procedure, Request};
use relief::{Input, Relief, Rules};
pub use room::Guest;
use room::Making;
use solver::Goal;
use transit::MigrationLimits;
use vmh::Vmh;

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
    /// It takes new VMs. One that does not may still be asked for what it knows of its own.
    pub schedulable: bool,
    /// What VMs use or have been promised.
    pub allocated: Resources,
    /// Its processors for VMs, in thousandths, before any overcommitment.
    pub processors_milli: u64,
    /// VMs here of environments other than the one that asks.
    pub others: u32,
    /// VMs here that run, as far as they may be asked to make room ([`room::MAX_GUESTS`] at most).
    pub guests: Vec<Guest>,
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
    /// A full pass has been seen in this life of the agent. Before, the hypervisor may still do what an earlier one told it, and
    /// nobody knows what is here that no record knows.
    shown: bool,
    orders: BTreeMap<VeUid, u64>,
    dirty: BTreeSet<VeUid>,
    next_request: u64,
    tell_at: Instant,
    ask_at: Instant,
    waiting: VecDeque<Request>,
    /// Environments whose requests wait for their record to be chosen.
    held_back: BTreeSet<VeUid>,
    running: Option<Procedure>,
    procedures: u64,
    incarnation: u64,
    monitor: Monitor,
    /// Seconds of overload that a migration must save; `None` leaves overloads alone.
    threshold_s: Option<f64>,
    relief: Option<Relief<NodeName, VmId>>,
    acquaintances: Vec<NodeName>,
    acquaintances_at: Instant,
    /// Memory for others' VMs as the policy last heard, MiB.
    told_room: u32,
    overloaded_since: Option<Instant>,
    told_overload: bool,
    goal: Goal,
    /// Environments of this agent's procedures for which others are asked to make room.
    making: BTreeMap<VeUid, Making>,
    limits: MigrationLimits,
    permit: Permit,
}

/// What this node's leases allow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    /// The lease that new VMs are bound to.
    pub newest: Option<Lease>,
    /// The epochs under which VMs may be started now.
    pub start: Vec<u64>,
}

impl Lrt {
    /// The tracker as it was when its agent stopped.
    #[must_use]
    pub fn recover(records: Vec<VmRecord>, incarnation: u64, threshold_s: Option<f64>) -> Self {
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
            shown: false,
            orders,
            dirty: BTreeSet::new(),
            next_request: incarnation << 32,
            tell_at: Instant::ZERO,
            ask_at: Instant::ZERO,
            waiting: VecDeque::new(),
            held_back: BTreeSet::new(),
            running: None,
            procedures: 0,
            incarnation,
            monitor: Monitor::default(),
            threshold_s,
            relief: threshold_s
                .map(|threshold_s| Relief::new(Rules { capacity: 0.0, threshold_s })),
            acquaintances: Vec::new(),
            acquaintances_at: Instant::ZERO,
            told_room: 0,
            overloaded_since: None,
            told_overload: false,
            goal: Goal::default(),
            permit: Permit::default(),
            limits: MigrationLimits::default(),
            making: BTreeMap::new(),
        }
    }

    /// What migrations may take of its node.
    #[must_use]
    pub fn with_limits(self, limits: MigrationLimits) -> Self {
        Self { limits, ..self }
    }

    /// What this node's leases allow from now on.
    pub fn set_permit(&mut self, permit: Permit) {
        if self.permit.newest != permit.newest {
            // Their handlers are to bind them to it.
            self.dirty.extend(self.vms.keys().map(|id| id.ve.clone()));
        }
        self.permit = permit;
    }

    /// The oldest epoch of this node's lease that a VM is bound to, which runs, is to run, or is promised; 0 if one has an epoch
    /// that is none of this disk's: its handler may have bound it to any that this node has told since.
    #[must_use]
    pub fn bound(&self, is_own: impl Fn(u64) -> bool) -> Option<u64> {
        let records = self.vms.values().map(|vmh| &vmh.record);
        let vms = records.flat_map(|record| {
            let runs =
                matches!(record.goal, VmGoal::Run | VmGoal::Arrive) || record.running.is_some();
            let promise = record.promise.as_ref().map(|promise| promise.lease);
            [runs.then_some(record.lease), promise]
        });
        vms.flatten().map(|epoch| if is_own(epoch) { epoch } else { 0 }).min()
    }

    /// What its procedures prefer.
    #[must_use]
    pub fn with_goal(self, goal: Goal) -> Self {
        Self { goal, ..self }
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

    /// Its processors for VMs, in thousandths, before any overcommitment.
    #[must_use]
    pub fn processors_milli(&self) -> u64 {
        let (Some(host), Some(declared)) = (&self.host, &self.declared) else { return 0 };
        host.capacity.minus(&declared.reserved).cpu_milli
    }

    /// What VMs use or have been promised.
    #[must_use]
    pub fn allocated(&self) -> Resources {
        let held = self.vms.values().map(|vmh| vmh.record.held());
        // Nobody knows why these run, but they do.
        let strays = self.strays.values().filter(|seen| seen.may_run()).map(|seen| seen.size);
        held.chain(strays).fold(Resources::default(), |sum, part| sum.plus(&part))
    }

    /// What is left for new VMs.
    #[must_use]
    pub fn free(&self) -> Resources {
        let within = terms::limit(self.vms.values(), self.processors_milli());
        let allocatable = self.allocatable();
        let cpu_milli = allocatable.cpu_milli.min(within.unwrap_or(u64::MAX));
        Resources { cpu_milli, ..allocatable }.minus(&self.allocated())
    }

    /// It takes new VMs, or why not.
    ///
    /// # Errors
    /// The reason, as the end of a sentence that begins with the node's name.
    pub fn open(&self) -> Result<(), String> {
        match (&self.declared, self.available && self.synced) {
            (None, _) => Err("has not been declared yet".into()),
            (Some(declared), _) if declared.maintenance => Err("is in maintenance".into()),
            (Some(declared), _) if !declared.schedulable => Err("is cordoned".into()),
            (Some(_), false) => Err("waits for its hypervisor".into()),
            (Some(_), true) if !self.may_start_new() => {
                Err("is not heard by a majority of its guardians".into())
            }
            (Some(_), true) => Ok(()),
        }
    }

    fn may_start_new(&self) -> bool {
        let newest = self.permit.newest.as_ref().map(|lease| lease.epoch);
        newest.is_some_and(|newest| self.permit.start.contains(&newest))
    }

    /// It empties itself.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.declared.as_ref().is_some_and(|declared| declared.maintenance)
    }

    /// The VMs that are to leave and have not, each with what it waits for.
    #[must_use]
    pub fn still_here(&self) -> Vec<String> {
        let here = self.vms.values().filter(|vmh| vmh.record.goal != VmGoal::Absent);
        here.map(|vmh| {
            let definition = &vmh.record.definition;
            let name = definition.ve.domain(&definition.id);
            match &vmh.record.transit {
                Transit::Leaving { to, .. } => format!("{name} moves to {to}"),
                Transit::Halted => format!("{name}, whose move is called off"),
                _ => match &vmh.cannot_leave {
                    Some(why) => format!("{name}, which cannot leave: {why}"),
                    None => name,
                },
            }
        })
        .collect()
    }

    /// The hypervisor has been told to let a VM run, and has not answered; or an earlier life of the agent may have told it.
    #[must_use]
    pub fn is_starting(&self) -> bool {
        !self.shown || self.vms.values().any(Vmh::is_starting)
    }

    /// VMs on their way here.
    fn arriving(&self) -> usize {
        self.vms.values().filter(|vmh| vmh.record.goal == VmGoal::Arrive).count()
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
        let was_leaving = self.is_leaving();
        self.declared = Some(declared);
        if was_leaving != self.is_leaving() {
            let text = if was_leaving {
                "is no longer in maintenance; what has not left stays"
            } else {
                "is in maintenance: its VMs leave it by live migration"
            };
            ctx.node_happened(false, "Maintenance", text.into());
            self.vms.values_mut().for_each(|vmh| vmh.cannot_leave = None);
            self.dirty.extend(self.vms.keys().map(|id| id.ve.clone()));
        }
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
            self.relief.as_ref().and_then(Relief::next_wakeup),
            self.relief.as_ref().map(|_| self.acquaintances_at),
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
        if self.lock.as_ref().is_some_and(|lock| lock.until <= ctx.now && !has(Bug::LockForEver)) {
            self.lock = None;
        }
        if self.tell_at <= ctx.now {
            self.tell_at = ctx.now + TELL_EVERY;
            self.dirty.extend(self.vms.keys().map(|id| id.ve.clone()));
        }
        if self.ask_at <= ctx.now {
            self.ask_at = ctx.now + ASK_AFTER;
            self.ask_all(ctx);
        }
        if self.relief.as_ref().and_then(Relief::next_wakeup).is_some_and(|at| at <= ctx.now) {
            self.relieve(Input::Wakeup, ctx);
        }
        let ended = self.running.as_mut().and_then(|procedure| procedure.wake(ctx));
        self.end(ended, ctx)
    }

    /// At the end of each input: gives commands, and tells handlers what has changed.
    pub fn settle(&mut self, ctx: &mut Context) {
        if self.commands_allowed() {
            let mut leaving = self.vms.values().filter(|vmh| vmh.is_migrating()).count();
            for (id, vmh) in &mut self.vms {
                if vmh.wants_to_leave() {
                    if leaving >= self.limits.out {
                        vmh.lets_others_leave();
                        continue;
                    }
                    leaving += 1;
                }
                let before = (self.next_request, vmh.moved.clone());
                let may_start = self.permit.start.contains(&vmh.record.lease);
                vmh.act(may_start, &mut self.next_request, &self.limits, ctx);
                if before != (self.next_request, vmh.moved.clone()) {
                    self.dirty.insert(id.ve.clone());
                }
            }
        }
        self.tell_room(ctx);
        if self.synced {
            for ve in std::mem::take(&mut self.dirty) {
                self.tell(ve, ctx);
            }
        }
    }

    fn tell(&self, ve: VeUid, ctx: &mut Context) {
        let mut of_ve = self.vms.values().filter(|vmh| vmh.record.definition.id.ve == ve);
        let Some(handler) = of_ve.next().map(|vmh| vmh.record.handler.clone()) else { return };
        let observed = self.observed(&ve, ctx);
        ctx.send(&handler, observed);
    }

    fn observed(&self, ve: &VeUid, ctx: &Context) -> Message {
        let of_ve = self.vms.values().filter(|vmh| vmh.record.definition.id.ve == *ve);
        let vms = of_ve.map(|vmh| vmh.observed(ctx.now)).collect();
        let order = self.orders.get(ve).copied().unwrap_or(0);
        let (leaving, lease) = (self.is_leaving(), self.permit.newest.clone());
        Message::Observed { ve: ve.clone(), order, leaving, lease, vms }
    }

    /// Asks everybody who may know what became of promises: who gave them may be dead.
    fn ask_all(&mut self, ctx: &mut Context) {
        let mut asked: BTreeMap<VeUid, BTreeSet<NodeName>> = BTreeMap::new();
        for vmh in self.vms.values() {
            if let Some(promise) = &vmh.record.promise {
                let who = asked.entry(vmh.record.definition.id.ve.clone()).or_default();
                who.insert(vmh.record.handler.clone());
                who.extend(promise.replicas.iter().cloned());
            }
        }
        for (ve, who) in asked {
            let observed = self.observed(&ve, ctx);
            for node in who {
                ctx.send(&node, observed.clone());
            }
        }
    }

    /// Somebody says that he does not handle an environment, but another does. Believed only of whom was thought to.
    pub fn elsewhere(&mut self, from: &NodeName, ve: &VeUid, node: NodeName, ctx: &mut Context) {
        let of_ve = self.vms.iter_mut().filter(|(id, _)| id.ve == *ve);
        for (_, vmh) in of_ve.filter(|(_, vmh)| vmh.record.handler == *from) {
            vmh.record.handler = node.clone();
            vmh.keep(ctx);
        }
    }
}

/// The well-known label of a node's zone.
pub const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::record::VmRecord;

    fn bound(leases: &[u64]) -> Option<u64> {
        let vm = |(index, lease): (usize, &u64)| {
            let mut record = VmRecord { lease: *lease, ..VmRecord::sample() };
            record.definition.id.index = index as u32;
            record
        };
        let lrt = Lrt::recover(leases.iter().enumerate().map(vm).collect(), 1, None);
        lrt.bound(|epoch| (21..=25).contains(&epoch))
    }

    /// Its handler may have bound it to what this node holds, and the word of that be on its way: nothing may be given up.
    #[test]
    fn what_is_bound_to_a_lease_of_a_former_disk_may_be_bound_to_any() {
        assert_eq!(bound(&[]), None);
        assert_eq!(bound(&[23, 22, 25]), Some(22));
        assert_eq!(bound(&[23, 42]), Some(0), "of another disk, whose number is higher");
        assert_eq!(bound(&[23, 7]), Some(0));
    }
}
