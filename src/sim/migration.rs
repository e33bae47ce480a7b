//! Live migrations between the world's hosts, carried by the two agents: each end's death, and a cut between them, ends one.

use std::time::Duration;

use rand::RngExt;

use super::world::{Event, World};
use crate::engine::effect::Migration;
use crate::engine::host::{DomainState, Failure, FailureKind, MigrationFigures};
use crate::engine::id::{NodeName, VmId};
use crate::engine::input::{HypervisorInput, Input};

/// One under way.
#[derive(Debug)]
pub struct Flight {
    /// The source, its boot and its agent's life.
    from: (NodeName, u64, u64),
    /// The target's boot and its agent's life.
    to: (u64, u64),
    request: u64,
    migration: Migration,
    aborted: bool,
    took: Duration,
}

/// How one ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Arrived,
    Failed,
    Aborted,
    /// Both ends have it; the target's is paused.
    AnswerLost,
}

impl World {
    pub(super) fn migrate(
        &mut self,
        (node, boot, life, request): (NodeName, u64, u64, u64),
        migration: Migration,
    ) {
        let id = migration.definition.id.clone();
        let guest = self.host(&node).and_then(|host| host.guest(&id));
        if guest.is_none_or(|guest| guest.seen.state != DomainState::Running) {
            let message = "it does not run here".to_owned();
            let failure = Failure { kind: FailureKind::NotHere, message };
            return self.command_done(&node, (life, request), id, Err(failure));
        }
        let Some(to) = self.lives(&migration.to) else { return };
        let took = Duration::from_millis(self.rng().random_range(800..8_000));
        let from = (node, boot, life);
        self.flights_so_far += 1;
        let flight = self.flights_so_far;
        let under_way = Flight { from, to, request, migration, aborted: false, took };
        self.flights.insert(flight, under_way);
        self.push(took, Event::MigrationEnds { flight });
    }

    pub(super) fn abort_migration(&mut self, node: &NodeName, id: &VmId) {
        let found = self.flights.iter_mut().find(|(_, flight)| {
            flight.from.0 == *node && flight.migration.definition.id == *id && !flight.aborted
        });
        if let Some((&number, flight)) = found {
            flight.aborted = true;
            self.push(Duration::from_millis(50), Event::MigrationEnds { flight: number });
        }
    }

    pub(super) fn migration_ends(&mut self, number: u64) {
        // It goes on when both machines do.
        let ends = self.flights.get(&number).map(|flight| [&flight.from.0, &flight.migration.to]);
        if ends.is_some_and(|ends| {
            ends.iter().any(|end| self.nodes.get(*end).is_some_and(|node| node.frozen))
        }) {
            return self.push(Duration::from_secs(1), Event::MigrationEnds { flight: number });
        }
        // It may have ended before, by having been aborted.
        let Some(flight) = self.flights.remove(&number) else { return };
        let end = self.end_of(&flight);
        let word = match end {
            End::Arrived => "arrived",
            End::Failed => "failed",
            End::Aborted => "aborted",
            End::AnswerLost => "answer lost",
        };
        *self.migrations.entry(word).or_default() += 1;
        let Flight { from: (node, boot, life), request, migration, took, .. } = flight;
        let id = migration.definition.id.clone();
        if matches!(end, End::Arrived | End::AnswerLost) {
            let guest = self.host(&node).and_then(|host| host.guest(&id)).cloned();
            let arrived = guest.and_then(|guest| {
                Some(self.host_mut(&migration.to)?.arrive(&guest, &migration.definition))
            });
            if let Some(seen) = arrived {
                let to = migration.to.clone();
                if self.has_lapsed(&to) {
                    self.end_all(&to);
                }
                self.handle(&to, Input::Hypervisor(HypervisorInput::Domain(seen)));
            }
        }
        if end == End::Arrived
            && let Some(host) = self.host_mut(&node)
        {
            host.depart(&id);
            let figures = MigrationFigures {
                took_ms: took.as_millis() as u64,
                downtime_ms: 30,
                sent: migration.definition.memory,
            };
            let told = HypervisorInput::Migrated { id: id.clone(), figures };
            self.handle(&node, Input::Hypervisor(told));
        }
        if self.lives(&node).is_none_or(|(boots, _)| boots != boot) {
            return;
        }
        let result = match end {
            End::Arrived => Ok(None),
            End::Aborted => Err((FailureKind::Aborted, "was given up")),
            End::Failed | End::AnswerLost => Err((FailureKind::Refused, "the connection broke")),
        };
        let result = result.map_err(|(kind, text)| Failure { kind, message: text.to_owned() });
        self.command_done(&node, (life, request), id, result);
    }

    fn end_of(&mut self, flight: &Flight) -> End {
        let (node, boot, life) = &flight.from;
        let (id, to) = (&flight.migration.definition.id, &flight.migration.to);
        let same = self.lives(node) == Some((*boot, *life)) && self.lives(to) == Some(flight.to);
        let runs = self.host(node).and_then(|host| host.guest(id));
        let runs = runs.is_some_and(|guest| guest.seen.state == DomainState::Running);
        let expected = self.host(to).and_then(|host| host.expects(id, node));
        let expected = expected.is_some_and(|d| d.epoch == flight.migration.definition.epoch);
        let joined = self.network.joins(node, to);
        let (fails, loses) = self.migration_faults;
        let (fails, loses) = (self.rng().random_bool(fails), self.rng().random_bool(loses));
        if flight.aborted {
            End::Aborted
        } else if !(same && runs && expected && joined) || fails {
            End::Failed
        } else if loses {
            End::AnswerLost
        } else {
            End::Arrived
        }
    }
}
