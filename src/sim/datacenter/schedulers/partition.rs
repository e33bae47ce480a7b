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
    IsValid(Partition),
    /// Its answer.
    Valid {
        /// What was asked.
        partition: Partition,
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
    Order(Move),
    /// To the leader, from a source: that migration is over, or was refused.
    Ended,
}

/// Who is asked next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Next {
    /// Any node: what the published comparison did (`SimpleOverlay` of VMPlaceS).
    #[default]
    Random,
    /// The neighbour on a ring: the first DVMS.
    Ring,
}

impl Next {
    /// The node after this one that is not among these, if there is one.
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
            };
        }
        Some(Actor::Node(next))
    }
}
