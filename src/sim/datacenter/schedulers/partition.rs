//! DVMS's partition, what its agents say of it to each other, and who comes next.

use rand::RngExt;

use super::super::scheduler::{Actor, Desk};
use super::repair::Move;
use crate::engine::time::Instant;

/// Some nodes that are reserved for one overload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its initiator, and the how-manieth of that.
    pub id: (u32, u32),
    /// Grows with each change.
    pub version: u32,
    /// Its nodes: the newest last. That one leads.
    pub nodes: Vec<u32>,
}

impl Partition {
    /// The overloaded node.
    #[must_use]
    pub fn initiator(&self) -> u32 {
        self.id.0
    }

    /// Bytes of a message that carries it: a header, and a name and an address per node.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        64 + 32 * self.nodes.len() as u64
    }
}

/// What agents say.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// Join this partition and lead it, if you are free; otherwise pass it on. (The iterative scheduling
    /// procedure goes from node to node.)
    Join {
        /// The partition as it was sent.
        partition: Partition,
        /// When. Older than the time-out, it is void.
        sent: Instant,
    },
    /// To the initiator: does this still hold?
    IsValid {
        /// The partition as it was sent.
        partition: Partition,
        /// When it was.
        sent: Instant,
    },
    /// Its answer.
    Valid {
        /// What was asked.
        partition: Partition,
        /// When it was sent.
        sent: Instant,
        /// Whether it holds.
        holds: bool,
    },
    /// To members: the partition as it is now.
    Update(Partition),
    /// To members: it is still at work. Keeps their time-outs away.
    KeepAlive((u32, u32)),
    /// To members: it is over.
    Dissolve {
        /// Which.
        id: (u32, u32),
        /// Whether the overload was resolved.
        solved: bool,
    },
    /// To a source, from the leader: migrate.
    Order {
        /// For which partition.
        id: (u32, u32),
        /// What and where to.
        chosen: Move,
    },
    /// To the leader, from a source: a migration for this partition is over, or was refused.
    Ended((u32, u32)),
}

/// The same to every other member.
pub fn tell(
    partition: &Partition,
    me: u32,
    message: Message,
    bytes: u64,
    desk: &mut Desk<'_, Message>,
) {
    for member in partition.nodes.iter().filter(|member| **member != me) {
        desk.send(Actor::Node(*member), bytes, message.clone());
    }
}

/// What there is to choose.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Who is asked next.
    pub next: Next,
    /// Smaller partitions are not tried.
    pub minimum: usize,
}

/// Who is asked next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// Any node: what the published comparison did (`SimpleOverlay` of VMPlaceS).
    #[default]
    Random,
    /// The neighbour on a ring: the first DVMS.
    Ring,
    /// The nearest, on a spiral around the initiator: the overlay of DVMS-LBO (J. Pastor et al.: *Locality-aware
    /// Cooperation for VM Scheduling in Distributed Clouds*, Euro-Par 2014). It finds its way by Vivaldi coordinates;
    /// here the distances are known.
    Nearest,
}

impl Next {
    /// The node after this one that is not among these (the initiator first), if there is one.
    pub fn after(self, node: u32, among: &[u32], desk: &mut Desk<'_, Message>) -> Option<Actor> {
        let count = desk.nodes();
        let is_member = |node: u32| among.contains(&node);
        if (0..count).take(among.len() + 2).all(|other| other == node || is_member(other)) {
            return None;
        }
        let mut next = node;
        while next == node || is_member(next) {
            next = match self {
                Self::Random => desk.rng().random_range(0..count),
                Self::Ring => (next + 1) % count,
                Self::Nearest => desk.after_on_spiral(among.first().copied().unwrap_or(node), next),
            };
        }
        Some(Actor::Node(next))
    }
}
