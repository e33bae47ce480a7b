//! What this agent believes, as plain data: the driver fills it, the admin pages read it, and nobody locks
//! the engine for it.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "a heartbeat has an age")]

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use serde::Serialize;

use crate::engine::id::{NodeName, ProcedureId, VeUid, VmId};
use crate::engine::record::{MoveStep, VmGoal};
use crate::engine::report::{NodeReport, VeReport, VmPhase};
use crate::engine::spec::Resources;
use crate::engine::time::Instant;

/// One peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerBelief {
    /// Its name.
    pub node: NodeName,
    /// `alive`, or `silent`: pinned, and membership does not count it as alive.
    pub state: String,
    /// Predicted round trip, milliseconds; nothing before it has answered once.
    pub round_trip_ms: Option<f64>,
    /// It reaches the API server.
    pub api_reachable: bool,
    /// What it last said was free.
    pub free: Option<Resources>,
}

/// One scheduling partition that this node is in.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PartitionBelief {
    /// Whose, as `<node>#<incarnation>.<number>`.
    pub procedure: String,
    /// What for: the initiator knows.
    pub ve: Option<VeUid>,
    /// Its nodes as far as this agent knows them: all for the initiator, itself for a member.
    pub nodes: Vec<NodeName>,
    /// For how long this node has been reserved, milliseconds.
    pub reserved_ms: Option<u64>,
}

/// Room that is kept for a VM that does not run yet.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReservationBelief {
    /// For which procedure.
    pub procedure: ProcedureId,
    /// Which VM.
    pub vm: VmId,
    /// Thousandths of a processor.
    pub cpu_milli: u64,
    /// Bytes.
    pub memory: u64,
}

/// One virtual environment that this agent handles.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VeBelief {
    /// Identity.
    pub uid: VeUid,
    /// `namespace/name`.
    pub name: String,
    /// The newest generation on disk here.
    pub generation: i64,
    /// It is being deleted.
    pub deleting: bool,
    /// It was deleted: kept so that late messages find an answer.
    pub tombstone: bool,
    /// Orders given so far.
    pub order: u64,
    /// Where its VMs are: `member-index`, node, epoch, and whether memory is promised there.
    pub placements: Vec<(String, NodeName, u64, bool)>,
    /// VMs on their way: `member-index`, where to, and how far.
    pub moves: Vec<(String, NodeName, MoveStep)>,
    /// Nodes that may still hold something of it.
    pub owing: Vec<NodeName>,
    /// Why it waits.
    pub waits: Option<String>,
    /// What people were told last.
    pub report: Option<VeReport>,
}

/// One VM that this node holds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct VmBelief {
    /// Which.
    pub id: VmId,
    /// Its domain's name.
    pub domain_name: String,
    /// What it is meant to do.
    pub goal: VmGoal,
    /// Placement epoch.
    pub epoch: u64,
    /// What it is doing.
    pub phase: VmPhase,
    /// How often it was started again.
    pub restarts: u32,
    /// What is being done about it, or why not.
    pub doing: Option<String>,
    /// Virtual processors.
    pub cpus: u32,
    /// Memory, bytes.
    pub memory: u64,
    /// What it loads its node with, percent of a processor, once that is known.
    pub load_percent: Option<f64>,
}

/// One part that must work for the agent to be ready.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Part {
    /// It works.
    pub ready: bool,
    /// What is missing, for people; empty when it is ready.
    pub message: String,
}

/// What this agent believes, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Snapshot {
    /// This node.
    pub node: String,
    /// The agent's version and commit.
    pub version: String,
    /// The engine's clock when this was taken.
    pub taken: Instant,
    /// The parts by name: `hypervisor`, `kubernetes`, `overlay`, `store` …
    pub parts: BTreeMap<String, Part>,
    /// This node as people are told.
    pub host: Option<NodeReport>,
    /// Peers, by name.
    pub peers: Vec<PeerBelief>,
    /// Partitions that this node is in.
    pub partitions: Vec<PartitionBelief>,
    /// Virtual environments that this agent handles.
    pub ves: Vec<VeBelief>,
    /// VMs on this node.
    pub vms: Vec<VmBelief>,
    /// Room kept on this node.
    pub reservations: Vec<ReservationBelief>,
    /// What only grows: exported as `discovery_<name>_total`.
    pub counters: BTreeMap<String, u64>,
    /// What goes up and down: exported as `discovery_<name>`; a name ends in its unit (`_bytes`,
    /// `_seconds`) where it has one.
    pub gauges: BTreeMap<String, f64>,
}

/// Something that counts. The admin pages ask it each time they are read.
pub trait CounterSource: Send + Sync {
    /// Names (without prefix and `_total`) and values; the values never shrink.
    fn counters(&self) -> BTreeMap<String, u64>;
}

/// Where the driver leaves its newest [`Snapshot`] and its loop's heartbeat, for others to read at any time.
/// Clones are the same board.
#[derive(Clone, Default)]
pub struct Board(Arc<RwLock<Posted>>);

#[derive(Clone, Default)]
struct Posted {
    snapshot: Arc<Snapshot>,
    /// A board that nobody has beaten on yet is as old as its making: see [`Board::new`].
    beat: Option<std::time::Instant>,
}

impl Board {
    /// An empty board; its heart has beaten now.
    #[must_use]
    pub fn new() -> Self {
        let board = Self::default();
        board.beat();
        board
    }

    /// The driver's loop went round.
    pub fn beat(&self) {
        self.posted_mut().beat = Some(std::time::Instant::now());
    }

    /// Leaves a newer snapshot; also a heartbeat.
    pub fn post(&self, snapshot: Snapshot) {
        let snapshot = Arc::new(snapshot);
        let mut posted = self.posted_mut();
        posted.snapshot = snapshot;
        posted.beat = Some(std::time::Instant::now());
    }

    /// The newest snapshot.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).snapshot.clone()
    }

    /// How long ago the driver's loop went round; nothing on a board that never beat.
    #[must_use]
    pub fn heartbeat_age(&self) -> Option<Duration> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).beat.map(|beat| beat.elapsed())
    }

    fn posted_mut(&self) -> std::sync::RwLockWriteGuard<'_, Posted> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}
