//! What becomes of an environment's record as it is declared, placed and taken from nodes, and what is read out of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::register::ballot::ReplicaSet;
use super::veh::Rooms;
use crate::engine::id::{MemberName, NodeName, VmId};
use crate::engine::input::VeDeclared;
use crate::engine::lrt::procedure::Leases;
use crate::engine::lrt::solver::{Place, Problem};
use crate::engine::record::{Placement, VeRecord};
use crate::engine::spec::{MemberSpec, Resources, Terms, VeState, VmDefinition};

/// The record of an environment that has just been declared.
#[must_use]
pub fn first_record(declared: VeDeclared, set: ReplicaSet) -> VeRecord {
    let declared = without_passing(declared);
    let revisions = declared.spec.members.iter();
    let revisions = revisions.map(|m| (m.name.to_string(), declared.generation)).collect();
    VeRecord {
        set,
        declared,
        revisions,
        placements: BTreeMap::new(),
        lost: BTreeSet::new(),
        former: BTreeMap::new(),
        leases: BTreeMap::new(),
        committed: 0,
        order: 0,
        epoch: 0,
        owing: Vec::new(),
        restarting: None,
        tombstone: false,
    }
}

/// A declaration without what says nothing of the environment itself: it would make each write of the status a change.
fn without_passing(declared: VeDeclared) -> VeDeclared {
    let (resource_version, replica_set) = (String::new(), Vec::new());
    VeDeclared { resource_version, reported: 0, replica_set, ..declared }
}

/// Takes a newer declaration into a record. A member's revision moves when its VMs must be restarted to
/// follow; the number of replicas and the run strategy need no restart.
pub fn update_record(record: &mut VeRecord, declared: VeDeclared) {
    let declared = without_passing(declared);
    let machine = |member: &MemberSpec| {
        (member.cpus, member.memory, member.boot.clone(), member.disks.clone())
    };
    let deleting = declared.deleting || record.declared.deleting;
    let gone = declared.gone || record.declared.gone;
    // An older one comes late. That it is to be deleted counts all the same.
    if declared.generation >= record.declared.generation {
        for member in &declared.spec.members {
            let before = record.declared.spec.members.iter().find(|old| old.name == member.name);
            if before.map(machine) != Some(machine(member)) {
                record.revisions.insert(member.name.to_string(), declared.generation);
            }
        }
        record.declared = declared;
    }
    record.declared.deleting = deleting;
    record.declared.gone = gone;
}
/// Whether leases that nodes have promised under can stand in a record beside those that stand there: a node with another disk
/// does not vouch for what its former one let run.
pub(super) fn leases_agree(record: Option<&VeRecord>, new: &Leases) -> bool {
    record.is_some_and(|record| {
        new.iter().all(|(node, lease)| {
            record.leases.get(node).is_none_or(|old| {
                old.holder == lease.holder && old.epoch <= lease.epoch || !old.is_guarded()
            })
        })
    })
}

pub(super) fn owe(record: &mut VeRecord, node: &NodeName) {
    if !record.owing.contains(node) {
        record.owing.push(node.clone());
    }
}

/// Drops placements that are no longer declared; those of a terminated environment keep only their disks.
pub(super) fn trim(record: &mut VeRecord) {
    if record.declared.deleting {
        record.placements.clear();
        record.lost.clear();
        record.former.clear();
        record.restarting = None;
        return;
    }
    let uid = record.declared.uid.clone();
    let wanted: BTreeSet<VmId> = record.declared.spec.vms(&uid).map(|(id, _)| id).collect();
    let unwanted = record.placements.iter().filter(|(id, _)| !wanted.contains(*id));
    let unwanted: Vec<(VmId, Placement)> =
        unwanted.map(|(id, placement)| (id.clone(), placement.clone())).collect();
    for (id, placement) in unwanted {
        leaves(record, &id, &placement.node);
        placement.moving.iter().for_each(|moving| leaves(record, &id, &moving.to));
        record.placements.remove(&id);
    }
    record.lost.retain(|id| wanted.contains(id));
    if record.declared.spec.state == VeState::Terminated {
        record.restarting = None;
        // One that is on its way is halted first: until then nobody knows where it is.
        let still = record.placements.values_mut().filter(|placement| placement.moving.is_none());
        still.for_each(|placement| placement.active = false);
    }
}

/// A VM is taken from a node, which is to end it first.
pub(super) fn leaves(record: &mut VeRecord, id: &VmId, node: &NodeName) {
    record.former.entry(id.clone()).or_default().insert(node.clone());
}

/// A node has ended these of the VMs that were taken from it, for certain.
pub(super) fn has_ended(record: &mut VeRecord, node: &NodeName, ended: impl Fn(&VmId) -> bool) {
    record.former.retain(|id, nodes| {
        if ended(id) {
            nodes.remove(node);
        }
        !nodes.is_empty()
    });
}

/// VMs that are declared and hold no room anywhere.
pub(super) fn missing(record: &VeRecord) -> Vec<VmId> {
    let wanted = record.declared.spec.vms(&record.declared.uid).map(|(id, _)| id);
    wanted.filter(|id| !record.placements.get(id).is_some_and(|p| p.active)).collect()
}

/// The revision that a VM's definition has.
pub(super) fn revision(record: &VeRecord, id: &VmId) -> i64 {
    record.revisions.get(id.member.as_str()).copied().unwrap_or(0)
}

/// A VM's complete definition, if its member is declared.
pub(super) fn definition(record: &VeRecord, id: &VmId, epoch: u64) -> Option<VmDefinition> {
    let declared = &record.declared;
    let member: &MemberSpec = declared.spec.members.iter().find(|m| m.name == id.member)?;
    Some(VmDefinition {
        id: id.clone(),
        ve: declared.name.clone(),
        epoch,
        revision: revision(record, id),
        cpus: member.cpus,
        memory: member.memory,
        boot: member.boot.clone(),
        disks: member.disks.clone(),
        run_strategy: member.run_strategy,
        terms: Terms::of(&declared.spec.placement, &member.name),
        recovery: declared.spec.recovery,
        depends: !member.depends_on.is_empty(),
    })
}

/// The problem of finding places for these VMs. Those with disks that run nowhere are to go where their disks are.
pub(super) fn problem(record: &VeRecord, missing: &[VmId], rooms: &Rooms<'_>) -> Problem {
    let has_disks = |member: &MemberName| {
        record.declared.spec.members.iter().any(|m| m.name == *member && !m.disks.is_empty())
    };
    let pinned = missing
        .iter()
        .filter(|id| has_disks(&id.member))
        .filter_map(|id| Some((id, record.placements.get(id)?)))
        .filter(|(_, placement)| !placement.active)
        .map(|(id, placement)| (id.clone(), placement.node.clone()));
    // Of a node that is silent, what it was when it was chosen.
    let zone_of = |node: &NodeName, recorded: &str| match rooms.dnt.state_of(node) {
        Some(state) => state.zone.clone(),
        None if rooms.registers.own().node == *node => rooms.lrt.zone(),
        None => recorded.to_owned(),
    };
    let existing = record.placements.iter().filter(|(_, placement)| placement.active);
    let existing = existing.filter(|(id, _)| !missing.contains(id));
    let existing = existing.map(|(id, placement)| {
        let zone = zone_of(&placement.node, &placement.zone);
        let size = definition(record, id, placement.epoch)
            .map(|vm| Resources::of(vm.cpus, vm.memory))
            .unwrap_or_default();
        (id.clone(), Place { node: placement.node.clone(), zone, size })
    });
    let moving = record.placements.iter().filter_map(|(id, placement)| {
        let moving = placement.moving.as_ref()?;
        let (node, zone) = (moving.to.clone(), zone_of(&moving.to, &moving.zone));
        Some((id.clone(), Place { node, zone, size: Resources::default() }))
    });
    Problem {
        moving: moving.collect(),
        vms: missing.iter().filter_map(|id| definition(record, id, record.epoch)).collect(),
        pinned: pinned.collect(),
        existing: existing.collect(),
        constraints: record.declared.spec.placement.clone(),
    }
}
