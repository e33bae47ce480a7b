//! Live migration between fakes: at once, unless it is held up.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use super::{Domain, Inner, failed};
use crate::engine::effect::Migration;
use crate::engine::host::{DomainState, Failure, FailureKind, MigrationFigures, PauseCause};
use crate::engine::id::NodeName;
use crate::engine::input::HypervisorInput;

/// What fakes of several nodes reach each other by. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub struct FakeWire(Arc<Mutex<Wire>>);

#[derive(Debug, Default)]
pub(super) struct Wire {
    pub nodes: BTreeMap<NodeName, Weak<Inner>>,
    pub held: bool,
}

impl FakeWire {
    pub(super) fn wire(&self) -> MutexGuard<'_, Wire> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Migrations that begin while it is held do not end by themselves, only by being aborted or let go.
    pub fn hold(&self, held: bool) {
        let nodes = {
            let mut wire = self.wire();
            wire.held = held;
            wire.nodes.values().filter_map(Weak::upgrade).collect::<Vec<_>>()
        };
        if !held {
            for node in nodes {
                let leaving = std::mem::take(&mut node.state().leaving);
                for (request, migration) in leaving.into_values() {
                    node.depart(request, &migration, self);
                }
            }
        }
    }

    fn node(&self, name: &NodeName) -> Option<Arc<Inner>> {
        self.wire().nodes.get(name).and_then(Weak::upgrade)
    }
}

impl Inner {
    /// Moves a domain, and tells so. One node's lock is held at a time: two may move to each other.
    pub(super) fn depart(&self, request: u64, migration: &Migration, wire: &FakeWire) {
        let id = migration.definition.id.clone();
        let domain = self.state().domains.get(&id).cloned();
        let running = domain.filter(|domain| domain.seen.state == DomainState::Running);
        let result = match (running, wire.node(&migration.to)) {
            (None, _) => Err(failed(FailureKind::NotHere, "the VM does not run here")),
            (_, None) => Err(failed(FailureKind::Refused, "there is no such node")),
            (Some(domain), Some(target)) => target.arrive(&self.node, migration, domain),
        };
        let result = result.map(|sent| {
            self.state().domains.remove(&id);
            let figures = MigrationFigures { took_ms: 1, downtime_ms: 1, sent };
            self.tell(HypervisorInput::Migrated { id: id.clone(), figures });
            None
        });
        self.tell(HypervisorInput::Done { request, id, result });
    }

    fn arrive(
        &self,
        from: &NodeName,
        migration: &Migration,
        mut domain: Domain,
    ) -> Result<u64, Failure> {
        let mut state = self.state();
        let definition = &migration.definition;
        let leave = (from.clone(), definition.epoch);
        if !state.available || state.expected.get(&definition.id) != Some(&leave) {
            return Err(failed(FailureKind::Refused, "the target does not expect it"));
        }
        domain.seen.epoch = definition.epoch;
        domain.definition.epoch = definition.epoch;
        // Continued by an order, when its source is gone for sure.
        domain.seen.state = DomainState::Paused(PauseCause::Other);
        self.tell(HypervisorInput::Domain(domain.seen.clone()));
        state.domains.insert(definition.id.clone(), domain);
        Ok(definition.memory)
    }
}
