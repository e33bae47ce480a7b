//! The seam between the data centre and whoever schedules it.
//!
//! ```text
//!                     Happening, addressed to one actor
//!     data centre ──────────────────────────────────────> Scheduler::handle(at, ..)
//!      (run.rs)   <──────────────────────────────────────        │
//!                     Desk: look, send, wake, migrate    <───────┘
//! ```
//!
//! A [`Scheduler`] value is *all* the actors of one run: an actor per node, and service actors for the central
//! parts of those baselines that have some. Each happening is addressed to one actor, and the [`Desk`] that comes
//! with it can do only what that actor can:
//!
//! - see its own node ([`Desk::here`]) for nothing;
//! - see any other by asking it ([`Desk::poll`]), if the scheduler says that it does such a thing
//!   ([`Scheduler::POLLS`]). This is counted as a request and an answer, but the baselines have the answer at once:
//!   their published simulations read other nodes' state without messages. What is ours says no, and learns of
//!   others by its own messages only;
//! - send a message, which takes its time or is lost; wake itself; pay for a computation;
//! - start a migration: of a VM of its own node, or of any if it is a service (an order and its confirmation are
//!   counted).
//!
//! **To plug real engines in**: keep one `Engine` per node in a struct, `type Message = wire::Message`, and
//! translate. `Happening::Started` → `Engine::recover`; `LoadChanged` and `MigrationEnded` → hypervisor inputs built
//! from [`Desk::here`]; `Message` → `Input::Message`; `Timer` → `Input::Wakeup`. Of the effects, `Send` →
//! [`Desk::send`] with the encoded length, a migration command → [`Desk::migrate`], and after each input
//! `Engine::next_wakeup` → [`Desk::wake_at`]. `Returned` → an engine without records, or with those of a disk. Names map to indices
//! once, at the start. `dvms.rs` has this very shape: state per node, and nothing but messages between.

use std::time::Duration;

use rand::rngs::ChaCha8Rng;

use super::super::workload::{Load, Sites};
use super::fleet::{Fleet, Refused};
use super::run::World;
use crate::engine::time::Instant;

/// Who acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Actor {
    /// The agent of a node.
    Node(u32),
    /// A service that runs on no node.
    Service(u32),
}

/// Something that an actor learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Happening<M> {
    /// The run begins. Every actor's first, services after nodes.
    Started,
    /// A VM of this node has another load now. (Nodes only.)
    LoadChanged {
        /// Which.
        vm: u32,
    },
    /// The time asked for by [`Desk::wake_at`] has come.
    Timer(u64),
    /// Another actor's message.
    Message {
        /// Whose.
        from: Actor,
        /// What.
        message: M,
    },
    /// A VM has moved: told to who ordered it, to the source and to the target, once each.
    MigrationEnded {
        /// Which.
        vm: u32,
        /// The source.
        from: u32,
        /// The target, where it runs now.
        to: u32,
    },
    /// A migration broke off, and the VM stays: told to its source, and to who ordered it if that is another.
    MigrationFailed {
        /// Which VM.
        vm: u32,
    },
    /// This node was dead and is back: its agent knows nothing any more. (Timers of its former life may still come.)
    Returned,
}

/// All actors of one scheduler.
pub trait Scheduler {
    /// What its actors say to each other.
    type Message;

    /// Whether its actors may look at nodes that are not theirs.
    const POLLS: bool = false;

    /// How many services there are beside this many nodes.
    fn services(&self, nodes: u32) -> u32 {
        let _ = nodes;
        0
    }

    /// Something happened to one of the actors.
    fn handle(
        &mut self,
        at: Actor,
        happening: Happening<Self::Message>,
        desk: &mut Desk<'_, Self::Message>,
    );
}

/// What an actor can do.
pub struct Desk<'a, M> {
    pub(super) at: Actor,
    pub(super) world: &'a mut World<M>,
}

impl<M> Desk<'_, M> {
    /// Now.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.world.now
    }

    /// How many nodes there are. (Not who is loaded how.)
    #[must_use]
    pub fn nodes(&self) -> u32 {
        self.world.fleet.len()
    }

    /// Where the nodes are: what network coordinates tell each of them.
    #[must_use]
    pub fn sites(&self) -> &Sites {
        self.world.network.sites()
    }

    /// The node that comes after this one on the spiral around another, by nearness.
    #[must_use]
    pub fn after_on_spiral(&self, centre: u32, node: u32) -> u32 {
        self.world.network.after_on_spiral(centre, node)
    }

    /// What a node's VMs may load it with.
    #[must_use]
    pub fn capacity(&self) -> Load {
        self.world.fleet.shape().capacity
    }

    /// This run's chance for schedulers: from the seed, and not the workload's.
    pub fn rng(&mut self) -> &mut ChaCha8Rng {
        &mut self.world.rng
    }

    /// This actor's own node.
    ///
    /// # Panics
    /// For a service, which has none.
    #[must_use]
    pub fn here(&self) -> NodeView<'_> {
        let Actor::Node(node) = self.at else { panic!("a service has no node") };
        NodeView { fleet: &self.world.fleet, node }
    }

    /// Another node as it is now, for the price of two messages of `POLL_BYTES`.
    ///
    /// # Panics
    /// For a scheduler that is not said to do this.
    pub fn poll(&mut self, node: u32) -> NodeView<'_> {
        assert!(self.world.polls, "this scheduler's actors see their own nodes only");
        if self.at != Actor::Node(node) {
            self.count_messages(2, POLL_BYTES);
        }
        NodeView { fleet: &self.world.fleet, node }
    }

    /// Sends a message.
    pub fn send(&mut self, to: Actor, bytes: u64, message: M) {
        self.count_messages(1, bytes);
        self.world.deliver_later(self.at, to, message);
    }

    /// Messages whose content is not simulated: heartbeats, confirmations, orders.
    pub fn count_messages(&mut self, count: u64, bytes_each: u64) {
        let now = self.world.now;
        self.world.measures.messages_over_time.add(now, count);
        self.world.measures.message_bytes += count * bytes_each;
    }

    /// This actor is woken then, with this token. Timers cannot be taken back: a stale one must do no harm.
    pub fn wake_at(&mut self, at: Instant, token: u64) {
        self.world.wake(at, self.at, token);
    }

    /// This actor computes for so long and is then woken with this token.
    pub fn compute(&mut self, cost: Duration, token: u64) {
        self.world.measures.compute_us += cost.as_micros() as u64;
        self.wake_at(self.world.now + cost, token);
    }

    /// Starts a live migration.
    pub fn migrate(&mut self, vm: u32, to: u32) -> Result<(), Refused> {
        let from = match self.at {
            Actor::Node(node) => node,
            Actor::Service(_) => {
                self.count_messages(2, ORDER_BYTES);
                self.world.fleet.vm(vm).node
            }
        };
        self.world.begin_migration(self.at, vm, from, to)
    }

    /// For the statistics: this node's scheduler has found that something must be done for it. Of several times, the
    /// first counts, until a migration from it begins or its overload ends.
    pub fn detected(&mut self, node: u32) {
        let now = self.world.now;
        self.world.fleet.detect(now, node);
    }

    /// For the statistics: nothing must be done for it any more.
    pub fn calm(&mut self, node: u32) {
        self.world.fleet.decide(node);
    }

    /// For the statistics: a partition of these nodes came to its end.
    pub fn partition_ended(&mut self, nodes: &[u32], solved: bool) {
        self.world.count_partition(nodes, solved);
    }
}

/// Bytes of one half of a poll: loads and memory of some ten VMs.
pub const POLL_BYTES: u64 = 256;
/// Bytes of an order to migrate, or of its confirmation.
pub const ORDER_BYTES: u64 = 64;

/// A node as seen by its agent.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    fleet: &'a Fleet,
    node: u32,
}

impl<'a> NodeView<'a> {
    /// Sum of the loads of the VMs that run here: of a dead node, none.
    #[must_use]
    pub fn load(&self) -> Load {
        let node = self.fleet.node(self.node);
        if node.dead_since.is_some() { 0 } else { node.load }
    }

    /// Whether it is in violation.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.load() > self.fleet.shape().capacity
    }

    /// Memory that is neither used nor promised to a VM on its way here, MiB: none where no VM is to come.
    #[must_use]
    pub fn memory_free_mib(&self) -> u32 {
        let node = self.fleet.node(self.node);
        let takes = !node.closed && node.dead_since.is_none();
        if takes { self.fleet.shape().memory_mib - node.memory_mib } else { 0 }
    }

    /// The VMs that run here: those on their way elsewhere too, those on their way here not.
    pub fn vms(&self) -> impl Iterator<Item = VmView> + use<'a> {
        let fleet = self.fleet;
        let node = fleet.node(self.node);
        let run: &[u32] = if node.dead_since.is_some() { &[] } else { &node.vms };
        run.iter().map(move |id| {
            let vm = fleet.vm(*id);
            let moving = vm.moving_to.is_some();
            VmView { vm: *id, load: vm.load, memory_mib: vm.shape.memory_mib, moving }
        })
    }
}

/// A VM as seen by the agent of its node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmView {
    /// Which.
    pub vm: u32,
    /// Its load.
    pub load: Load,
    /// Its memory, MiB.
    pub memory_mib: u32,
    /// It is on its way to another node.
    pub moving: bool,
}
