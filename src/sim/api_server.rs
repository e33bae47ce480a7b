//! The API server: objects with versions, watches, finalizers. It can be away.

use std::collections::{BTreeMap, BTreeSet};

use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::input::{NOT_ITS_HANDLERS, VeDeclared};
use crate::engine::replica::Replica;
use crate::engine::report::{Condition, VeReport};
use crate::engine::spec::VeSpec;

/// One stored environment.
#[derive(Clone, Debug)]
pub struct Object {
    /// As a watch shows it.
    pub declared: VeDeclared,
    /// The finalizer is there.
    pub finalizer: bool,
    /// The status as last written.
    pub status: Option<VeReport>,
}

/// The API server.
#[derive(Debug, Default)]
pub struct ApiServer {
    version: u64,
    objects: BTreeMap<VeUid, Object>,
    /// Agents that watch all environments.
    pub watchers: BTreeSet<NodeName>,
    /// It does not answer.
    pub away: bool,
    /// Agents that it cannot be reached from.
    pub apart: BTreeSet<NodeName>,
    /// Watches show what was, not what is: the list as it was, and what has changed since.
    stale: Option<(Vec<VeDeclared>, BTreeSet<VeUid>)>,
    /// Writes of agents so far, by what they wrote.
    pub writes: BTreeMap<&'static str, u64>,
    /// Claims that lost the compare-and-swap.
    pub lost_claims: u64,
}

impl ApiServer {
    /// Whether it answers an agent.
    #[must_use]
    pub fn answers(&self, to: &NodeName) -> bool {
        !self.away && !self.apart.contains(to)
    }

    /// What a watch that begins is shown.
    #[must_use]
    pub fn list(&self) -> Vec<VeDeclared> {
        match &self.stale {
            Some((list, _)) => list.clone(),
            None => self.objects.values().map(|object| object.declared.clone()).collect(),
        }
    }

    /// From here on watches fall behind. Tells whether they did not already.
    pub fn fall_behind(&mut self) -> bool {
        let fired = self.stale.is_none();
        if fired {
            self.stale = Some((self.list(), BTreeSet::new()));
        }
        fired
    }

    /// Watches are shown everything again: what has changed meanwhile.
    pub fn catch_up(&mut self) -> BTreeSet<VeUid> {
        self.stale.take().map(|(_, changed)| changed).unwrap_or_default()
    }

    /// Something has changed, and watches that have fallen behind do not show it yet.
    pub fn keeps_from_watches(&mut self, uid: &VeUid) -> bool {
        let Some((_, changed)) = &mut self.stale else { return false };
        changed.insert(uid.clone());
        true
    }

    /// Everything that exists.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.values()
    }

    /// One object.
    #[must_use]
    pub fn get(&self, uid: &VeUid) -> Option<&Object> {
        self.objects.get(uid)
    }

    fn next_version(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// A person applies a manifest. Returns what watches see.
    pub fn apply(&mut self, uid: &VeUid, name: &VeName, spec: VeSpec) -> VeDeclared {
        let resource_version = self.next_version();
        let object = self.objects.entry(uid.clone()).or_insert_with(|| Object {
            declared: VeDeclared {
                uid: uid.clone(),
                name: name.clone(),
                generation: 0,
                resource_version: String::new(),
                deleting: false,
                gone: false,
                reported: 0,
                replica_set: Vec::new(),
                spec: spec.clone(),
            },
            finalizer: true,
            status: None,
        });
        object.declared.generation += 1;
        object.declared.resource_version = resource_version;
        object.declared.spec = spec;
        object.declared.clone()
    }

    /// A person deletes it. Returns what watches see.
    pub fn delete(&mut self, uid: &VeUid) -> Option<VeDeclared> {
        let resource_version = self.next_version();
        let object = self.objects.get_mut(uid)?;
        object.declared.deleting = true;
        object.declared.resource_version = resource_version;
        Some(object.declared.clone())
    }

    /// A gateway claims. Returns what watches see, if the swap was won.
    pub fn claim(
        &mut self,
        uid: &VeUid,
        resource_version: &str,
        replicas: Vec<Replica>,
    ) -> Option<VeDeclared> {
        *self.writes.entry("claim").or_default() += 1;
        let next = self.next_version();
        let object = self.objects.get_mut(uid)?;
        if object.declared.resource_version != resource_version {
            self.lost_claims += 1;
            return None;
        }
        object.declared.replica_set = replicas;
        object.declared.resource_version = next;
        Some(object.declared.clone())
    }

    /// A handler writes the status. Returns what watches see.
    pub fn report(&mut self, report: VeReport) -> Option<VeDeclared> {
        *self.writes.entry("status").or_default() += 1;
        let next = self.next_version();
        let newest = |object: &Object| object.status.as_ref().map_or(0, |status| status.round);
        let object = self.objects.get_mut(&report.uid).filter(|o| newest(o) <= report.round)?;
        object.declared.resource_version = next;
        object.declared.reported = report.round;
        object.declared.replica_set.clone_from(&report.replica_set);
        object.status = Some(report);
        Some(object.declared.clone())
    }

    /// An agent says that the status may no longer be so. Returns what watches see.
    pub fn report_no_majority(&mut self, uid: &VeUid, message: String) -> Option<VeDeclared> {
        *self.writes.entry("status").or_default() += 1;
        let next = self.next_version();
        let object = self.objects.get_mut(uid)?;
        object.status.as_mut()?.ready = Condition::no("NoMajority", message);
        object.declared.resource_version = next;
        object.declared.reported = NOT_ITS_HANDLERS;
        Some(object.declared.clone())
    }

    /// The finalizer is removed. Returns whether the object is gone now.
    pub fn release(&mut self, uid: &VeUid) -> bool {
        *self.writes.entry("release").or_default() += 1;
        let Some(object) = self.objects.get_mut(uid) else { return false };
        object.finalizer = false;
        let deleting = object.declared.deleting;
        if deleting {
            self.objects.remove(uid);
        }
        deleting
    }
}
