//! The partition, seen by a member: this node is reserved by one procedure at a time, promises room to it on
//! disk, and is given back. What the procedure itself does is in [`super::procedure`].

use super::vmh::Vmh;
use super::{ASK_AFTER, LOCK_TIMEOUT, Lock, Lrt, NodeOffer, terms};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, ProcedureId, VeUid, VmId};
use crate::engine::lease::Lease;
use crate::engine::record::{Promise, RecordKey, Start, Transit, VmGoal, VmRecord};
use crate::engine::spec::{Resources, VmDefinition};
use crate::engine::wire::{Message, Reservation};

/// What a procedure wants to be promised.
#[derive(Debug)]
pub struct Asked {
    /// Who will decide.
    pub handler: NodeName,
    /// Who else may.
    pub replicas: Vec<NodeName>,
    /// Orders below this one know nothing of it.
    pub order: u64,
    /// All of them or none.
    pub vms: Vec<VmDefinition>,
    /// They run elsewhere, and are to arrive by live migration.
    pub arriving: bool,
}

impl Lrt {
    /// A procedure wants this node.
    pub fn reserve(
        &mut self,
        procedure: ProcedureId,
        ve: &VeUid,
        priority: u32,
        ctx: &mut Context,
    ) {
        let answer = match (&self.lock, self.open_to(ve)) {
            (Some(lock), _) if lock.procedure != procedure && !has(Bug::LockShared) => {
                Reservation::Busy { procedure: lock.procedure.clone(), priority: lock.priority }
            }
            (_, Err(why)) => Reservation::Closed(why),
            (_, Ok(schedulable)) => {
                let since = self.lock.as_ref().map_or(ctx.now, |lock| lock.since);
                let until = since + LOCK_TIMEOUT;
                self.lock = Some(Lock { procedure: procedure.clone(), priority, since, until });
                Reservation::Granted(Box::new(self.offer(ve, schedulable, ctx)))
            }
        };
        let initiator = procedure.initiator.clone();
        ctx.send(&initiator, Message::Reserved { procedure, answer });
    }

    /// Whether it takes new VMs of this environment. One that does not, but holds some of it, may be asked
    /// all the same: where those are counts.
    fn open_to(&self, ve: &VeUid) -> Result<bool, String> {
        let holds =
            self.vms.values().any(|vmh| terms::is_held(vmh) && vmh.record.definition.id.ve == *ve);
        match self.open() {
            Ok(()) => terms::keeps_out(self.vms.values(), ve).map_or(Ok(true), Err),
            Err(_) if holds && self.declared.is_some() => Ok(false),
            Err(why) => Err(why),
        }
    }

    fn offer(&self, ve: &VeUid, schedulable: bool, ctx: &Context) -> NodeOffer {
        NodeOffer {
            node: ctx.node.clone(),
            free: self.free(),
            allocatable: self.allocatable(),
            labels: self.declared.as_ref().map(|d| d.labels.clone()).unwrap_or_default(),
            zone: self.zone(),
            schedulable,
            allocated: self.allocated(),
            processors_milli: self.processors_milli(),
            others: terms::others(self.vms.values(), ve),
            guests: self.guests(ctx.now),
        }
    }

    /// A procedure wants room for these VMs, durably: all of them or none.
    pub fn prepare(&mut self, procedure: ProcedureId, asked: Asked, ctx: &mut Context) {
        let result = self.promise(&procedure, asked, ctx);
        let initiator = procedure.initiator.clone();
        ctx.send(&initiator, Message::Prepared { procedure, result });
    }

    fn promise(
        &mut self,
        procedure: &ProcedureId,
        Asked { handler, replicas, order, vms, arriving }: Asked,
        ctx: &mut Context,
    ) -> Result<Lease, String> {
        let lease = self.permit.newest.clone().ok_or("has no lease yet")?;
        let given = |vm: &VmDefinition| {
            let record = self.vms.get(&vm.id).map(|vmh| &vmh.record);
            let promise = record.and_then(|record| record.promise.as_ref());
            promise.is_some_and(|promise| {
                promise.procedure == *procedure && promise.lease == lease.epoch
            })
        };
        if vms.iter().all(given) {
            return Ok(lease);
        }
        let reserved = self.lock.as_ref().is_some_and(|lock| lock.procedure == *procedure);
        if !reserved && !has(Bug::LockShared) {
            return Err("the reservation has ended".into());
        }
        self.open()?;
        if arriving && self.arriving() >= self.limits.into {
            return Err("as many VMs as it takes at once are on their way to it".into());
        }
        terms::admit(self.vms.values(), &vms)?;
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
            let (procedure, replicas) = (procedure.clone(), replicas.clone());
            let (definition, lease) = (definition, lease.epoch);
            let promise =
                Promise { procedure, replicas, order, definition: definition.clone(), lease };
            let vmh = self.vms.entry(definition.id.clone()).or_insert_with(|| {
                Vmh::new(VmRecord {
                    definition,
                    goal: VmGoal::Absent,
                    promise: None,
                    handler: handler.clone(),
                    lease,
                    order: 0,
                    running: None,
                    completed: false,
                    crashed: false,
                    start: Start::Free,
                    restarts: 0,
                    transit: Transit::None,
                })
            });
            vmh.record.promise = Some(promise);
            vmh.record.handler = handler.clone();
            vmh.keep(ctx);
        }
        // The promises hold the room from here on; the partition may go.
        self.lock = None;
        Ok(lease)
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

    pub(super) fn drop_vm(&mut self, id: &VmId, ctx: &mut Context) {
        self.vms.remove(id);
        self.unwatch(id, ctx);
        ctx.forget(RecordKey::Vm(id.clone()));
    }
}
