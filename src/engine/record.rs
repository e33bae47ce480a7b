//! What an engine keeps on disk: a small map of records, each written whole.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::id::{NodeName, ProcedureId, VeUid, VmId};
use super::input::VeDeclared;
use super::lease::Lease;
use super::lease::guardian::Ward;
use super::lease::tenant::OwnLeases;
use super::replica::{DiskId, Replica};
use super::spec::{Resources, VmDefinition};
use super::vet::register::acceptor::Acceptor;
use super::vet::register::ballot::ReplicaSet;

/// Where a record is kept. Records of the same key replace each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordKey {
    /// The agent's incarnation counter.
    Incarnation,
    /// The register of a virtual environment, of which this node is a replica.
    Register(VeUid),
    /// A VM that this node holds.
    Vm(VmId),
    /// This node's own leases.
    Lease,
    /// What this node guards of another's leases.
    Ward(Replica),
}

/// One change of what is kept.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Keep this under its key.
    Put(Box<Kept>),
    /// Forget the key.
    Forget(RecordKey),
}

/// One kept record.
#[expect(
    clippy::large_enum_variant,
    reason = "it is boxed where it travels, and read once at a start"
)]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kept {
    /// See [`RecordKey::Incarnation`].
    Incarnation {
        /// One more at every start.
        life: u64,
        /// What this journal is known by.
        disk: DiskId,
    },
    /// See [`RecordKey::Register`].
    Register(Acceptor),
    /// See [`RecordKey::Vm`].
    Vm(VmRecord),
    /// See [`RecordKey::Lease`].
    Lease(OwnLeases),
    /// See [`RecordKey::Ward`].
    Ward(Ward),
}

impl Kept {
    /// The key it is kept under.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Incarnation { .. } => RecordKey::Incarnation,
            Self::Register(acceptor) => RecordKey::Register(acceptor.ve.clone()),
            Self::Vm(record) => RecordKey::Vm(record.definition.id.clone()),
            Self::Lease(_) => RecordKey::Lease,
            Self::Ward(ward) => RecordKey::Ward(ward.holder.clone()),
        }
    }
}

/// Where one VM of a virtual environment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Its node.
    pub node: NodeName,
    /// Its node's zone when it was placed, empty if it had none: a node that is silent cannot be asked.
    pub zone: String,
    /// Counts this VM's placements.
    pub epoch: u64,
    /// Its memory is promised there. Not so while the environment is terminated: then only its disks are.
    pub active: bool,
    /// It is on its way to another node.
    pub moving: Option<Moving>,
}

/// A VM's live migration, as its environment's record has it. Until it is over, the VM is where its placement says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moving {
    /// Where to.
    pub to: NodeName,
    /// That node's zone, empty if it has none.
    pub zone: String,
    /// The placement that it will be there.
    pub epoch: u64,
    /// How far it is.
    pub step: MoveStep,
    /// Why it moves.
    pub why: MoveReason,
}

/// How far a migration is. Each step is on disk before the orders that belong to it are sent.
///
/// ```text
///   Preparing ──target is ready──> Going ──source: it is gone──> the placement is the target's
///       │                            │ called off └──source: failed──────────┐
///       └──called off──> no move     └──> Halting ──source: it is here──> Clearing ──target: nothing here──> no move
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveStep {
    /// The target fetches images and makes disks. The source knows of nothing.
    Preparing,
    /// The source has the order to send it, and may have done so.
    Going,
    /// Called off: the source is to say whether it still has it.
    Halting,
    /// It is at the source: the target is to forget it. Only when it has may the source do anything with it again.
    Clearing,
}

/// Why a VM moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveReason {
    /// Its node empties itself.
    Maintenance,
    /// Its node is overloaded, or about to be.
    Load,
    /// Its room is wanted for an environment that waits.
    Room,
}

impl MoveReason {
    /// In a word, for people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Maintenance => "maintenance",
            Self::Load => "load",
            Self::Room => "room",
        }
    }
}

/// The record of one virtual environment: the value of its register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeRecord {
    /// Who keeps it.
    pub set: ReplicaSet,
    /// The newest declaration seen.
    pub declared: VeDeclared,
    /// For each member, the generation at which its VMs' definition last changed.
    pub revisions: BTreeMap<String, i64>,
    /// Where its VMs are. All of the wanted ones, or (on first placement) none.
    pub placements: BTreeMap<VmId, Placement>,
    /// VMs whose place was lost with a node: they are placed anew, all of them or none.
    pub lost: BTreeSet<VmId>,
    /// Nodes that a VM was taken from, and that have not said yet that they have ended it: until then it is placed nowhere.
    pub former: BTreeMap<VmId, BTreeSet<NodeName>>,
    /// The leases that VMs on these nodes are bound to. A node that is used and has none here is gone for certain, with all
    /// that ran there, or has never said.
    pub leases: BTreeMap<NodeName, Lease>,
    /// The generation at which the environment was last placed whole, 0 if never.
    pub committed: i64,
    /// Orders given so far; nodes ignore older ones.
    pub order: u64,
    /// The highest placement epoch given so far.
    pub epoch: u64,
    /// Nodes that may still hold something of it and have not confirmed that they don't.
    pub owing: Vec<NodeName>,
    /// It is being restarted whole, and why: none of its VMs is started before all are down.
    pub restarting: Option<String>,
    /// It was deleted and everything confirmed gone: kept so that late messages find an answer.
    pub tombstone: bool,
}

/// What a VM on this node is meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmGoal {
    /// Nothing is here yet: there is only a promise.
    Absent,
    /// Be ready for it: it arrives by live migration. Nothing is started.
    Arrive,
    /// Run.
    Run,
    /// Be stopped, keep the disks.
    Stop,
    /// Be removed with its disks.
    Remove,
}

/// Whether a VM that is to run may be started. Its room is its own whether or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Start {
    /// It may.
    #[default]
    Free,
    /// Not before others are up, unless it was free to since this agent started: it is not stopped for that.
    Waits,
    /// Its environment is being restarted: it is stopped, and stays so until it is free.
    Down,
}

/// Room that is kept for a VM until the handler of its environment decides. It has no end by time: only
/// an order, or the procedure's own release, undoes a promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promise {
    /// The procedure that it was given to.
    pub procedure: ProcedureId,
    /// The replicas of its environment's record: who is asked what became of it.
    pub replicas: Vec<NodeName>,
    /// Orders numbered below this one know nothing of it.
    pub order: u64,
    /// What would run.
    pub definition: VmDefinition,
    /// The epoch of this node's lease that it was promised under.
    pub lease: u64,
}

/// The record of one VM on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// What it is.
    pub definition: VmDefinition,
    /// What it is meant to do.
    pub goal: VmGoal,
    /// Room that is kept for it until its handler decides.
    pub promise: Option<Promise>,
    /// Who handles its environment.
    pub handler: NodeName,
    /// The epoch of this node's lease that it is bound to: it runs under no other.
    pub lease: u64,
    /// The newest order; older ones are ignored.
    pub order: u64,
    /// What the domain that may be running takes, written before it is started.
    pub running: Option<Resources>,
    /// It ended by itself and its run strategy, or its environment's recovery, leaves it so.
    pub completed: bool,
    /// It ended, and its environment is to be restarted for that.
    pub crashed: bool,
    /// Whether it may be started.
    pub start: Start,
    /// How often it was started again.
    pub restarts: u32,
    /// Its part in a live migration, written before anything of it is done.
    pub transit: Transit,
}

/// What a node is to do about a VM's live migration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Transit {
    /// There is none.
    #[default]
    None,
    /// It arrives from that node.
    Arriving {
        /// Where it is.
        from: NodeName,
    },
    /// Send it there. Whatever becomes of it, it is not started or continued here until the next order.
    Leaving {
        /// Where to.
        to: NodeName,
        /// The placement that it will be there.
        epoch: u64,
        /// Why.
        why: MoveReason,
    },
    /// Stop sending it, and tell whether it is still here. It is not started or continued here until the next order.
    Halted,
}

impl Promise {
    /// Whether an order with this number, naming this epoch as open, decides the promise.
    #[must_use]
    pub fn is_decided_by(&self, order: u64, open: u64) -> bool {
        self.order <= order && self.definition.epoch != open
    }
}

impl VmRecord {
    /// What is kept for it: for the largest of what runs, what is to run, and what is promised.
    #[must_use]
    pub fn held(&self) -> Resources {
        let size = |vm: &VmDefinition| Resources::of(vm.cpus, vm.memory);
        let stays = matches!(self.goal, VmGoal::Run | VmGoal::Arrive);
        let goal = stays.then(|| size(&self.definition));
        let promised = self.promise.as_ref().map(|promise| size(&promise.definition));
        let parts = [goal, self.running, promised].into_iter().flatten();
        parts.fold(Resources::default(), |held, part| held.largest(&part))
    }
}

#[cfg(test)]
impl VmRecord {
    /// A VM that is to run, for tests.
    pub fn sample() -> Self {
        use super::id::VeName;
        use super::spec::{Boot, Recovery, RunStrategy, Terms};
        let definition = VmDefinition {
            id: VmId { ve: "u".into(), member: "web".into(), index: 0 },
            ve: VeName::new("ns", "ve"),
            epoch: 1,
            revision: 1,
            cpus: 1,
            memory: 1 << 30,
            boot: Boot::Disk,
            disks: Vec::new(),
            run_strategy: RunStrategy::Always,
            terms: Terms::default(),
            recovery: Recovery::default(),
            depends: false,
        };
        Self {
            definition,
            goal: VmGoal::Run,
            promise: None,
            handler: "n2".into(),
            lease: 1,
            order: 1,
            running: None,
            completed: false,
            crashed: false,
            start: Start::Free,
            restarts: 0,
            transit: Transit::None,
        }
    }
}
