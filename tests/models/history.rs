//! What those outside see of a register, and what must be true of it.

use std::collections::{BTreeMap, BTreeSet};

use discovery::engine::id::NodeName;
use discovery::engine::vet::register::ballot::Ballot;

use super::cluster::Plan;
use super::keeper::{change, name};

/// What is known of a value that was chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Value {
    pub changes: Vec<NodeName>,
    pub epoch: u64,
    pub joint: bool,
    pub members: Vec<NodeName>,
}

/// What those outside have seen.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub chosen: BTreeMap<Ballot, Value>,
    /// Two values were chosen under one ballot.
    pub forked: bool,
    /// For each change that was declared, what had been acknowledged before.
    pub declared: BTreeMap<NodeName, BTreeSet<NodeName>>,
    pub acknowledged: BTreeSet<NodeName>,
}

/// What a history shows.
pub struct Verdict {
    pub one_history: bool,
    pub nothing_lost: bool,
    pub in_order: bool,
    pub one_turn: bool,
    pub acknowledged: bool,
    pub goes_on: bool,
    pub finishes: bool,
    pub arrived: bool,
    pub taken_back: bool,
}

impl History {
    pub fn choose(&mut self, ballot: Ballot, value: Value) {
        let before = self.chosen.insert(ballot, value.clone());
        self.forked |= before.is_some_and(|before| before != value);
    }

    pub fn judge(&self, plan: &Plan) -> Verdict {
        let values: Vec<&Value> = self.chosen.values().collect();
        let grows = |pair: &[&Value]| {
            pair[1].changes.starts_with(&pair[0].changes) && pair[0].epoch <= pair[1].epoch
        };
        let newest = values.last();
        let has = |change| newest.is_some_and(|newest| newest.changes.contains(change));
        let in_order = |value: &&Value| {
            value.changes.iter().enumerate().all(|(at, change)| {
                let earlier = self.declared.get(change).into_iter().flatten();
                earlier.into_iter().all(|earlier| value.changes[..at].contains(earlier))
            })
        };
        let ballots: Vec<&Ballot> = self.chosen.keys().collect();
        let is_shared =
            |pair: &[&Ballot]| pair[0].round == pair[1].round && pair[0].node != pair[1].node;
        let all = plan.declared.iter().map(|(_, number)| change(*number));
        let with = self.chosen.iter().filter(|(_, value)| !value.changes.is_empty());
        let handlers: BTreeSet<_> = with.map(|(ballot, _)| &ballot.node).collect();
        let (handler, number) = plan.declared[plan.declared.len() - 1];
        let mut with =
            self.chosen.iter().filter(|(_, value)| value.changes.contains(&change(number)));
        let first = with.next();
        let mut later = values.iter().skip_while(|value| value.epoch < 2 || value.joint);
        let arrived = later.next();
        let same = |value: &&&Value| value.members == values[0].members && !value.joint;
        let mut back = values.iter().filter(|value| value.epoch >= 2).filter(same);
        let taken_back =
            back.next().is_some_and(|at| back.any(|value| value.changes.len() > at.changes.len()));
        Verdict {
            taken_back,
            one_history: !self.forked && values.windows(2).all(grows),
            nothing_lost: self.acknowledged.iter().all(has),
            in_order: values.iter().all(in_order),
            one_turn: ballots.windows(2).all(|pair| !is_shared(pair)),
            acknowledged: all.collect::<BTreeSet<_>>() == self.acknowledged,
            goes_on: handlers.len() > 1,
            finishes: first.is_some_and(|(ballot, _)| ballot.node != Some(name(handler))),
            arrived: arrived
                .is_some_and(|at| later.any(|value| value.changes.len() > at.changes.len())),
        }
    }
}
