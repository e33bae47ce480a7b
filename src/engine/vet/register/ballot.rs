//! Ballots, and the sets that decide them.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::engine::bugs::{Bug, has};
use crate::engine::id::NodeName;
use crate::engine::replica::{Replica, is_majority};

/// The number of a proposal. Whoever has won a round goes on in it step by step, without asking again: nobody else can propose
/// between two of its steps (CASPaxos' one-round-trip optimisation, arXiv 1802.07000, section 2.2).
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ballot {
    /// Grows with each that wants to propose.
    pub round: u64,
    /// Who does; nobody yet in round 0.
    pub node: Option<NodeName>,
    /// Grows with each change that it makes.
    pub step: u64,
}

impl Ballot {
    /// The first of a round.
    #[must_use]
    pub fn of(round: u64, node: &NodeName) -> Self {
        Self { round, node: Some(node.clone()), step: 0 }
    }

    /// Whether both are steps of one proposer's one round.
    #[must_use]
    pub fn is_turn_of(&self, other: &Self) -> bool {
        (self.round, &self.node) == (other.round, &other.node)
    }

    /// This round's given step.
    #[must_use]
    pub fn at(&self, step: u64) -> Self {
        Self { step, ..self.clone() }
    }
}

/// Who keeps a register. It is a part of the value that they keep, so that there is one truth about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaSet {
    /// Counts the changes of the set.
    pub epoch: u64,
    /// The replicas. The first was the first handler.
    pub members: Vec<Replica>,
    /// The members before, until the change of the set is known to be chosen: while there are any, a majority of both is
    /// needed for everything (a joint set, as in Raft, section 6).
    pub leaving: Vec<Replica>,
}

impl ReplicaSet {
    /// A first set.
    #[must_use]
    pub fn of(members: Vec<Replica>) -> Self {
        Self { epoch: 0, members, leaving: Vec::new() }
    }

    /// Whether these replicas decide.
    #[must_use]
    pub fn is_decided_by(&self, by: &BTreeSet<Replica>) -> bool {
        if has(Bug::OneDecides) {
            return !by.is_empty();
        }
        let majority = |of: &[Replica]| is_majority(of, |replica| by.contains(replica));
        majority(&self.members) && (self.leaving.is_empty() || majority(&self.leaving))
    }

    /// Everybody who has a voice.
    pub fn voices(&self) -> impl Iterator<Item = &Replica> {
        let leaving = self.leaving.iter().filter(|replica| !self.members.contains(replica));
        self.members.iter().chain(leaving)
    }

    /// Whether a replica on this node has a voice, whichever disk it has.
    #[must_use]
    pub fn names(&self, node: &NodeName) -> bool {
        self.voices().any(|voice| voice.node == *node)
    }

    /// Whether this replica has a voice.
    #[must_use]
    pub fn has(&self, replica: &Replica) -> bool {
        self.voices().any(|voice| voice == replica)
    }

    /// The set on its way to other members. Nothing changes if it is on its way already.
    pub fn change_to(&mut self, members: Vec<Replica>) {
        if self.leaving.is_empty() && self.members != members {
            self.epoch += 1;
            self.leaving = std::mem::replace(&mut self.members, members);
            if has(Bug::SetJumps) {
                self.leaving.clear();
            }
        }
    }

    /// The members before are the members again. Safe only for the one who has proposed the change, in the same turn, and before it
    /// was chosen: nobody has proposed a value yet that the new members decide alone.
    pub fn take_back(&mut self) {
        self.epoch += 1;
        self.members = std::mem::take(&mut self.leaving);
    }

    /// The change is chosen.
    pub fn arrive(&mut self) {
        self.epoch += 1;
        self.leaving.clear();
    }
}
