//! The keeper's side of a register: what it has promised and what it has taken, both on disk before it answers, and never
//! forgotten by time.

use serde::{Deserialize, Serialize};

use super::ballot::Ballot;
use super::message::Said;
use crate::engine::id::VeUid;
use crate::engine::record::VeRecord;

/// What one replica keeps of one register.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acceptor {
    /// Of which environment.
    pub ve: VeUid,
    /// Nothing below this ballot is taken any more.
    pub promised: Ballot,
    /// What was taken last.
    pub accepted: Option<(Ballot, VeRecord)>,
}

impl Acceptor {
    /// A keeper of nothing yet.
    #[must_use]
    pub fn new(ve: VeUid) -> Self {
        Self { ve, promised: Ballot::default(), accepted: None }
    }

    /// Somebody wants to propose: the answer, and whether this must be written before it is given.
    pub fn ask(&mut self, ballot: Ballot) -> (Said, bool) {
        if ballot < self.promised {
            return (Said::Refused { ballot, promised: self.promised.clone() }, false);
        }
        let news = ballot > self.promised;
        self.promised = ballot.clone();
        let accepted = self.accepted.clone().map(Box::new);
        (Said::Promise { ballot, accepted }, news)
    }

    /// Somebody proposes: the answer, and whether this must be written before it is given.
    pub fn propose(&mut self, ballot: Ballot, record: VeRecord) -> (Said, bool) {
        if let Some((newest, _)) = &self.accepted
            && newest.is_turn_of(&ballot)
            && *newest >= ballot
        {
            // Said twice, or overtaken by a later step of the same proposer, which has it in.
            return (Said::Accepted { ballot: newest.clone() }, false);
        }
        if ballot < self.promised {
            return (Said::Refused { ballot, promised: self.promised.clone() }, false);
        }
        self.promised = ballot.clone();
        self.accepted = Some((ballot.clone(), record));
        (Said::Accepted { ballot }, true)
    }
}
