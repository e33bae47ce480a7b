//! What agents say to each other. Everything is idempotent and may be lost, repeated or reordered.
//!
//! The transport frames and authenticates; [`Message::check`] bounds what a peer may make us hold.

use serde::{Deserialize, Serialize};

use super::dnt::PeerState;
use super::id::{NodeName, ProcedureId, VeUid, VmId};
use super::input::VeDeclared;
use super::lease::message::LeaseMessage;
use super::lease::{Lease, MAX_GUARDIANS};
use super::lrt::{NodeOffer, relief, room};
use super::record::{MoveReason, Start, Transit};
use super::report::VmObserved;
use super::spec::{MAX_VMS, VmDefinition};
use super::time::Instant;
use super::vet::register::message::RegisterMessage;

/// Version of this vocabulary. An agent reads its own version and the one before.
pub const VERSION: u8 = 1;

/// Longest encoded message, bytes. 256 VMs with 16 disks each and long URLs stay under a third of it.
pub const MAX_MESSAGE: usize = 4 << 20;

/// Longest membership packet, bytes: a QUIC datagram would hold it.
pub const MAX_SWIM_PACKET: usize = 1200;

/// Most replicas that a record has.
pub const MAX_REPLICAS: usize = 5;

/// Longest reason that is told, bytes.
pub const MAX_REASON: usize = 4096;

/// One message between agents.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// A membership packet (SWIM), opaque here.
    Swim(Vec<u8>),
    /// Measures the round trip, and tells how the sender is.
    Ping {
        /// Sender's clock; comes back in the pong.
        sent: Instant,
        /// The sender.
        state: PeerState,
    },
    /// Answers a ping.
    Pong {
        /// From the ping.
        sent: Instant,
        /// The answering agent.
        state: PeerState,
    },
    /// A gateway hands a virtual environment to its handler, until it is acknowledged.
    Declare(Box<VeDeclared>),
    /// The handler has it on disk.
    Declared {
        /// Which.
        uid: VeUid,
        /// The generation it has.
        generation: i64,
        /// It knows that it is being deleted.
        deleting: bool,
        /// The handler's round.
        round: u64,
    },
    /// Not I, but that one handles this environment.
    Handler {
        /// Which.
        ve: VeUid,
        /// Who does, as far as the sender knows.
        node: NodeName,
    },
    /// Holders and guardians of leases, and those who ask them.
    Lease(Box<LeaseMessage>),
    /// Proposers and keepers of a register, to each other.
    Register(Box<RegisterMessage>),
    /// Enter my partition: keep your room for me and tell me how much it is.
    Reserve {
        /// For whom.
        procedure: ProcedureId,
        /// What for.
        ve: VeUid,
        /// How often it gave way to others.
        priority: u32,
    },
    /// The answer to a reserve.
    Reserved {
        /// For whom.
        procedure: ProcedureId,
        /// The offer, or why not.
        answer: Reservation,
    },
    /// Keep room for these VMs, durably, until an order decides.
    Prepare {
        /// Under which reservation.
        procedure: ProcedureId,
        /// Who else may decide, should the sender not come to it: the replicas of the environment's record.
        replicas: Vec<NodeName>,
        /// Orders numbered below this one, and those that name these VMs' epoch as open, do not touch them.
        order: u64,
        /// All of them or none.
        vms: Vec<VmDefinition>,
        /// They run elsewhere, and are to arrive by live migration.
        arriving: bool,
    },
    /// The answer to a prepare.
    Prepared {
        /// Under which reservation.
        procedure: ProcedureId,
        /// Kept on disk, under this lease, or why not.
        result: Result<Lease, String>,
    },
    /// Leave my partition.
    Release {
        /// Which.
        procedure: ProcedureId,
        /// The procedure has failed: forget what was prepared under it, too.
        undo: bool,
    },
    /// The whole of what a node is to do for one virtual environment.
    Order(Box<Order>),
    /// What a node does for one virtual environment.
    Observed {
        /// Which.
        ve: VeUid,
        /// The newest order it has on disk, 0 if it has only prepared.
        order: u64,
        /// It empties itself: its VMs are to move.
        leaving: bool,
        /// The lease that its VMs are to be bound to.
        lease: Option<Lease>,
        /// Each VM that it holds.
        vms: Vec<VmObserved>,
    },
    /// A node asks the handler of one of its VMs to have it moved to a node that would take it.
    Move {
        /// Which VM.
        vm: VmId,
        /// Where to.
        to: NodeName,
        /// Why.
        why: MoveReason,
    },
    /// The handler's answer when it cannot: why.
    Stays {
        /// Which VM.
        vm: VmId,
        /// As the end of a sentence that begins with the VM's name.
        why: String,
    },
    /// Two nodes about their loads and a move between them.
    Relief(relief::protocol::Message),
    /// A procedure that finds no room wishes that a VM of this node moves, so that there is some.
    MakeRoom {
        /// Which VM.
        vm: VmId,
        /// Where to.
        to: NodeName,
    },
}

/// The answer to a reserve.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reservation {
    /// Mine for now; this is what I have.
    Granted(Box<NodeOffer>),
    /// I am in another partition.
    Busy {
        /// Whose.
        procedure: ProcedureId,
        /// How often that one gave way to others.
        priority: u32,
    },
    /// I take no new VMs: why.
    Closed(String),
}

/// The whole of what a node is to do for one virtual environment. VMs that it holds and that are not
/// listed are removed with their disks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// Which environment.
    pub ve: VeUid,
    /// Who decides.
    pub handler: NodeName,
    /// Counts up; older ones are ignored.
    pub order: u64,
    /// The epoch of the node's lease that its VMs are bound to.
    pub lease: u64,
    /// The epoch of a placement that is under way, 0 if none: promises of that epoch are not decided by
    /// this order.
    pub open: u64,
    /// What is to be here.
    pub vms: Vec<OrderedVm>,
}

/// One VM of an [`Order`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderedVm {
    /// What it is.
    pub definition: VmDefinition,
    /// Run it, or keep it stopped.
    pub run: bool,
    /// It may be restarted now to follow a changed definition (a rolling change: one VM at a time).
    pub may_restart: bool,
    /// Whether it may be started, if it is to run.
    pub start: Start,
    /// This node's part in its live migration.
    pub transit: Transit,
}

impl Message {
    /// Bounds that an honest peer keeps: nothing grows with what a peer claims.
    ///
    /// # Errors
    /// Names the part that is out of bounds.
    pub fn check(&self) -> Result<(), &'static str> {
        let max = MAX_VMS as usize;
        match self {
            Self::Swim(packet) if packet.len() > 2 * MAX_SWIM_PACKET => Err("swim: too long"),
            Self::Prepare { vms, .. } if vms.len() > max => Err("prepare: too many VMs"),
            Self::Order(order) if order.vms.len() > max => Err("order: too many VMs"),
            // A node may hold VMs that are being removed beside as many new ones.
            Self::Observed { vms, .. } if vms.len() > 2 * max => Err("observed: too many VMs"),
            Self::Declare(ve) if ve.spec.members.len() > max => Err("declare: too many members"),
            Self::Declare(ve)
                if ve.spec.members.iter().map(|m| u64::from(m.replicas)).sum::<u64>()
                    > u64::from(MAX_VMS) =>
            {
                Err("declare: too many VMs")
            }
            Self::Declare(ve) if ve.replica_set.len() > MAX_REPLICAS => {
                Err("declare: replica set too large")
            }
            Self::Prepare { replicas, .. } if replicas.len() > 2 * MAX_REPLICAS => {
                Err("prepare: replica set too large")
            }
            Self::Register(message) => message.check(),
            Self::Prepared { result: Ok(lease), .. }
            | Self::Observed { lease: Some(lease), .. }
                if lease.guardians.len() > MAX_GUARDIANS =>
            {
                Err("lease: too many guardians")
            }
            Self::Reserved { answer: Reservation::Granted(offer), .. }
                if offer.guests.len() > room::MAX_GUESTS =>
            {
                Err("reserved: too many VMs")
            }
            Self::Relief(said) if !said.is_sane() => Err("relief: not a load"),
            Self::Stays { why, .. } if why.len() > MAX_REASON => Err("stays: reason too long"),
            Self::Ping { state, .. } | Self::Pong { state, .. } if !state.is_finite() => {
                Err("ping: coordinate is not a number")
            }
            _ => Ok(()),
        }
    }
}
