//! What an engine believes, for `/debug/engine`, for the invariants, and for tests.

use serde::Serialize;

use super::Engine;
use super::id::{NodeName, VeUid};
use super::lease::Lease;
use super::lease::tenant::Protection;
use super::record::{MoveStep, VeRecord, VmRecord};
use super::report::VmPhase;
use super::spec::Resources;
use super::vet::register::ballot::ReplicaSet;

/// One agent's beliefs.
#[derive(Clone, Debug, Serialize)]
pub struct EngineView {
    /// This node.
    pub node: NodeName,
    /// Lives of this agent so far.
    pub incarnation: u64,
    /// Live peers, nearest first.
    pub peers: Vec<PeerView>,
    /// It is one of the gateways.
    pub gateway: bool,
    /// Environments that this gateway has seen.
    pub seen: usize,
    /// What VMs may use in all.
    pub allocatable: Resources,
    /// What VMs use or were promised.
    pub allocated: Resources,
    /// What its VMs load it with, percent of a processor.
    pub load: f64,
    /// More than that and it is overloaded, percent of a processor.
    pub load_capacity: f64,
    /// The partition that this node is in: whose, and for how long, milliseconds.
    pub partition: Option<(String, u64)>,
    /// The partition that this agent's procedure has reserved.
    pub procedure: Option<ProcedureView>,
    /// Environments that wait for this agent's next procedure.
    pub queued: usize,
    /// Environments that this agent handles.
    pub ves: Vec<VeView>,
    /// VMs on this node.
    pub vms: Vec<VmView>,
    /// Domains of ours that nothing accounts for.
    pub strays: Vec<String>,
    /// The lease that this node's new VMs are bound to, and how it is protected.
    pub lease: Option<Lease>,
    /// What keeps its VMs from running on when others take them over.
    pub protection: Protection,
    /// How long its leases last if nobody answers any more, milliseconds; without: for ever.
    pub lease_left_ms: Option<u64>,
    /// Registers that this node keeps, changes of them that this agent has had chosen, and rounds that it lost to others.
    pub registers: [u64; 3],
}

/// A peer.
#[derive(Clone, Debug, Serialize)]
pub struct PeerView {
    /// Its name.
    pub node: NodeName,
    /// It reaches the API server.
    pub api_reachable: bool,
    /// Predicted round trip, milliseconds.
    pub distance_ms: Option<f64>,
    /// What it last said was free.
    pub free: Option<Resources>,
}

/// A procedure under way.
#[derive(Clone, Debug, Serialize)]
pub struct ProcedureView {
    /// Its name.
    pub id: String,
    /// For which environment.
    pub ve: VeUid,
    /// Nodes reserved so far.
    pub members: Vec<NodeName>,
}

/// An environment, by its handler.
#[derive(Clone, Debug, Serialize)]
pub struct VeView {
    /// Identity.
    pub uid: VeUid,
    /// `namespace/name`.
    pub name: String,
    /// The newest generation of its spec on disk here.
    pub generation: i64,
    /// Who keeps its record.
    pub set: ReplicaSet,
    /// It is being deleted.
    pub deleting: bool,
    /// It was deleted.
    pub tombstone: bool,
    /// `member-index`, node, epoch, and whether its memory is promised there.
    pub placements: Vec<(String, NodeName, u64, bool)>,
    /// VMs on their way: `member-index`, where to, and how far.
    pub moves: Vec<(String, NodeName, MoveStep)>,
    /// Orders given so far.
    pub order: u64,
    /// Placement epochs given so far.
    pub epoch: u64,
    /// Nodes that may hold something of it.
    pub owing: Vec<NodeName>,
    /// Why it waits.
    pub waits: Option<String>,
}

/// A VM, by its node.
#[derive(Clone, Debug, Serialize)]
pub struct VmView {
    /// The record on disk.
    pub record: VmRecord,
    /// What it is doing.
    pub phase: VmPhase,
    /// Why.
    pub reason: Option<String>,
    /// What it loads its node with, percent of a processor, once that is known.
    pub load: Option<f64>,
}

impl Engine {
    /// What this engine believes now.
    #[must_use]
    pub fn view(&self) -> EngineView {
        let now = self.ctx.now;
        let peers = self.dnt.nearest().into_iter().map(|node| {
            let state = self.dnt.state_of(&node);
            PeerView {
                api_reachable: state.is_some_and(|state| state.api_reachable),
                distance_ms: state.map(|s| self.dnt.coordinate().distance(&s.coordinate)),
                free: state.map(|state| state.free),
                node,
            }
        });
        let ves = self.registers.all().map(|record| self.ve_view(record));
        let vms = self.lrt.vms().map(|vmh| VmView {
            record: vmh.record.clone(),
            phase: vmh.phase(now),
            reason: vmh.why(now),
            load: self.lrt.load_of(&vmh.record.definition.id),
        });
        EngineView {
            node: self.ctx.node.clone(),
            incarnation: self.incarnation,
            peers: peers.collect(),
            gateway: self.gateway.is_active(),
            seen: self.gateway.seen(),
            allocatable: self.lrt.allocatable(),
            allocated: self.lrt.allocated(),
            load: self.lrt.load(),
            load_capacity: self.lrt.load_capacity(),
            partition: self
                .lrt
                .lock()
                .map(|lock| (lock.procedure.to_string(), now.since(lock.since).as_millis() as u64)),
            procedure: self.lrt.procedure().map(|procedure| ProcedureView {
                id: procedure.id.to_string(),
                ve: procedure.request.ve.clone(),
                members: procedure.members().cloned().collect(),
            }),
            queued: self.lrt.queued(),
            ves: ves.collect(),
            vms: vms.collect(),
            lease: self.tenant.newest(),
            protection: self.tenant.protection(),
            lease_left_ms: self.tenant.until().map(|until| until.since(now).as_millis() as u64),
            registers: [
                self.registers.kept().count() as u64,
                self.registers.chosen,
                self.registers.lost,
            ],
            strays: self.lrt.strays().map(|seen| seen.id.to_string()).collect(),
        }
    }

    fn ve_view(&self, record: &VeRecord) -> VeView {
        let placements = record.placements.iter().map(|(id, placement)| {
            let name = format!("{}-{}", id.member, id.index);
            (name, placement.node.clone(), placement.epoch, placement.active)
        });
        let moves = record.placements.iter().filter_map(|(id, placement)| {
            let moving = placement.moving.as_ref()?;
            Some((format!("{}-{}", id.member, id.index), moving.to.clone(), moving.step))
        });
        let wait = self.vehs.get(&record.declared.uid).and_then(|veh| veh.wait());
        VeView {
            uid: record.declared.uid.clone(),
            name: record.declared.name.to_string(),
            generation: record.declared.generation,
            set: record.set.clone(),
            deleting: record.declared.deleting,
            tombstone: record.tombstone,
            placements: placements.collect(),
            moves: moves.collect(),
            order: record.order,
            epoch: record.epoch,
            owing: record.owing.clone(),
            waits: wait.map(|wait| format!("{wait:?}")),
        }
    }
}
