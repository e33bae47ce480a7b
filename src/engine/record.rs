//! What an engine keeps on disk: a small map of records, each written whole.

use serde::{Deserialize, Serialize};

use super::id::{NodeName, ProcedureId, VeUid, VmId};
use super::input::VeDeclared;
use super::spec::VmDefinition;
use std::collections::BTreeMap;

/// Where a record is kept. Records of the same key replace each other.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum RecordKey {
    /// The agent's incarnation counter.
    Incarnation,
    /// A virtual environment that this agent handles.
    Ve(VeUid),
    /// A VM that this node holds.
    Vm(VmId),
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
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Kept {
    /// See [`RecordKey::Incarnation`]: one more at every start.
    Incarnation(u64),
    /// See [`RecordKey::Ve`].
    Ve(VeRecord),
    /// See [`RecordKey::Vm`].
    Vm(VmRecord),
}

impl Kept {
    /// The key it is kept under.
    #[must_use]
    pub fn key(&self) -> RecordKey {
        match self {
            Self::Incarnation(_) => RecordKey::Incarnation,
            Self::Ve(record) => RecordKey::Ve(record.declared.uid.clone()),
            Self::Vm(record) => RecordKey::Vm(record.definition.id.clone()),
        }
    }
}

/// Where one VM of a virtual environment is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Its node.
    pub node: NodeName,
    /// Counts this VM's placements.
    pub epoch: u64,
}

/// The record of one virtual environment: what the replicated register will hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VeRecord {
    /// The newest declaration seen.
    pub declared: VeDeclared,
    /// For each member, the generation at which its VMs' definition last changed.
    pub revisions: BTreeMap<String, i64>,
    /// Where its VMs are. All of the wanted ones, or (on first placement) none.
    pub placements: BTreeMap<VmId, Placement>,
    /// Orders given so far; nodes ignore older ones.
    pub order: u64,
    /// The highest placement epoch given so far.
    pub epoch: u64,
    /// Nodes that may still hold something of it and have not confirmed that they don't.
    pub owing: Vec<NodeName>,
    /// It was deleted and everything confirmed gone: kept so that late messages find an answer.
    pub tombstone: bool,
}

/// What a VM on this node is meant to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum VmGoal {
    /// Promised to a procedure and not yet decided: its room is kept, nothing runs.
    Prepared,
    /// Run.
    Run,
    /// Be stopped, keep the disks.
    Stop,
    /// Be removed with its disks.
    Remove,
}

/// The record of one VM on this node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmRecord {
    /// What it is.
    pub definition: VmDefinition,
    /// What it is meant to do.
    pub goal: VmGoal,
    /// Who handles its environment.
    pub handler: NodeName,
    /// The order that said so; older ones are ignored.
    pub order: u64,
    /// The procedure that prepared it, while it is only prepared.
    pub procedure: Option<ProcedureId>,
    /// It ended by itself and its run strategy leaves it so.
    pub completed: bool,
    /// How often it was started again.
    pub restarts: u32,
}
