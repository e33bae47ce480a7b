//! The keeper's side of a register: what it has promised and what it has taken, both on disk before it answers, and never
//! forgotten by time.

use serde::{Deserialize, Serialize};

use super::ballot::Ballot;
use super::message::Said;
use crate::engine::bugs::{Bug, has};
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
        let again = self.promised.is_turn_of(&ballot);
        if ballot < self.promised && !again {
            return (Said::Refused { ballot, promised: self.promised.clone() }, false);
        }
        // Asked twice, the second time perhaps after it has proposed already: nobody else's turn has come.
        let news = ballot > self.promised;
        self.promised = ballot.clone().max(self.promised.clone());
        let taken = self.accepted.clone().filter(|_| !has(Bug::ValueForgotten));
        let accepted = taken.map(Box::new);
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
        if ballot < self.promised && !has(Bug::OldBallotTaken) {
            return (Said::Refused { ballot, promised: self.promised.clone() }, false);
        }
        self.promised = ballot.clone();
        self.accepted = Some((ballot.clone(), record));
        (Said::Accepted { ballot }, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::input::VeDeclared;
    use crate::engine::replica::{DiskId, Replica};
    use crate::engine::vet::ledger::first_record;
    use crate::engine::vet::register::ballot::ReplicaSet;

    fn record(generation: i64) -> VeRecord {
        let member = Replica { node: "n1".into(), disk: DiskId(1) };
        let declared = VeDeclared { generation, ..VeDeclared::sample() };
        first_record(declared, ReplicaSet::of(vec![member]))
    }

    #[test]
    fn a_keeper_takes_nothing_older_than_it_has_promised() {
        let mut kept = Acceptor::new("u".into());
        let (first, second) = (Ballot::of(1, &"n1".into()), Ballot::of(2, &"n2".into()));
        assert_eq!(
            kept.ask(first.clone()).0,
            Said::Promise { ballot: first.clone(), accepted: None }
        );
        let (said, news) = kept.propose(first.at(1), record(1));
        assert_eq!((said, news), (Said::Accepted { ballot: first.at(1) }, true));
        let (said, news) = kept.ask(second.clone());
        assert!(
            matches!(&said, Said::Promise { accepted: Some(a), .. } if a.0 == first.at(1)),
            "{said:?}"
        );
        assert!(news, "the promise is written");
        let (said, news) = kept.propose(first.at(2), record(2));
        assert_eq!((said, news), (Said::Refused { ballot: first.at(2), promised: second }, false));
        assert_eq!(kept.accepted.map(|(_, record)| record.declared.generation), Some(1));
    }

    #[test]
    fn what_comes_late_or_twice_deposes_nobody_and_undoes_nothing() {
        let mut kept = Acceptor::new("u".into());
        let ballot = Ballot::of(1, &"n1".into());
        kept.ask(ballot.clone());
        kept.propose(ballot.at(1), record(1));
        kept.propose(ballot.at(2), record(2));
        let (said, news) = kept.ask(ballot.clone());
        assert!(matches!(said, Said::Promise { .. }) && !news, "{said:?}");
        let (said, news) = kept.propose(ballot.at(1), record(1));
        assert_eq!((said, news), (Said::Accepted { ballot: ballot.at(2) }, false));
        let newest =
            kept.accepted.as_ref().map(|(at, record)| (at.step, record.declared.generation));
        assert_eq!((newest, kept.promised), (Some((2, 2)), ballot.at(2)));
    }
}
