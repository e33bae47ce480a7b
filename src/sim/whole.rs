//! What must be so long after the last fault: every environment is whole or waits whole, is kept and reported as it is, and nothing is
//! left of what was elsewhere, or of what is gone.

use std::collections::{BTreeMap, BTreeSet};

use super::acknowledged::newest;
use super::api_server::Object;
use super::scenario::state_of;
use super::world::World;
use crate::engine::id::{NodeName, VeUid, VmId};
use crate::engine::replica::Replica;
use crate::engine::report::VmPhase;

impl World {
    /// What is not as it must be in the end. Where a record was lost with most of its disks, its VMs stay where they are, bound to
    /// their node's old lease, and hold others back: nothing is promised then but I1 to I5.
    pub(super) fn astray(&self) -> Vec<String> {
        if self.has_lost_some() {
            return Vec::new();
        }
        let mut astray: Vec<String> =
            self.api.objects().filter_map(|object| self.is_astray(object)).collect();
        if astray.is_empty() {
            astray.extend(
                self.left_over().into_iter().chain(self.ill_guarded()).chain(self.ill_met()),
            );
        }
        astray
    }

    fn is_astray(&self, object: &Object) -> Option<String> {
        let declared = &object.declared;
        if state_of(self, &declared.uid).is_none() {
            let status = object.status.as_ref().map(|status| &status.ready);
            return Some(format!(
                "{} (generation {}, deleting {}) is neither whole nor waits whole: {status:?}",
                declared.name, declared.generation, declared.deleting
            ));
        }
        let ill = self.ill_kept(&declared.uid).or_else(|| self.misreported(object));
        ill.map(|ill| format!("{}: {ill}", declared.name))
    }

    /// What is wrong with the copies of an environment's record: there are to be as many as can be, each on a disk that is there, and
    /// all of them new.
    fn ill_kept(&self, uid: &VeUid) -> Option<String> {
        let keepers = self.keepers(uid);
        let (newest, record) = newest(&keepers)?;
        let lacks = |member: &&Replica| {
            let kept = keepers.iter().find(|(replica, _)| replica == *member);
            let accepted = kept.and_then(|(_, kept)| (*kept)?.accepted.as_ref());
            accepted.is_none_or(|(ballot, _)| ballot != newest)
        };
        let set = &record.set;
        let lacking: Vec<&Replica> = set.members.iter().filter(lacks).collect();
        // An even number decides no more than the next smaller one.
        let most = self.replicas.min((self.nodes.len() - 1) | 1);
        if lacking.is_empty() && set.leaving.is_empty() && set.members.len() >= most {
            return None;
        }
        Some(format!(
            "{most} are to keep its record, {set:?} do, and {lacking:?} of them lack the newest"
        ))
    }

    /// Its status says that its VMs run otherwise than they do.
    fn misreported(&self, object: &Object) -> Option<String> {
        let status = object.status.as_ref().filter(|status| status.ready.holds)?;
        let told = status.vms.iter().filter(|vm| vm.phase == VmPhase::Running);
        let told: BTreeMap<&VmId, &NodeName> =
            told.filter_map(|vm| Some((&vm.id, vm.node.as_ref()?))).collect();
        let runs = self.running().into_iter().filter(|(id, _)| id.ve == object.declared.uid);
        let runs: BTreeMap<VmId, NodeName> = runs.collect();
        (!told.into_iter().eq(&runs))
            .then(|| format!("it runs as {runs:?}, and not as {:?}", status.vms))
    }

    /// What a node has that the newest records do not place there: domains, and disks. Where the agent's records were lost, it is left
    /// to people, who are told of the domains.
    fn left_over(&self) -> Option<String> {
        let mut places = BTreeSet::new();
        for object in self.api.objects() {
            let keepers = self.keepers(&object.declared.uid);
            let placed = newest(&keepers).into_iter().flat_map(|(_, record)| &record.placements);
            places.extend(placed.map(|(id, placement)| (id.clone(), placement.node.clone())));
        }
        self.nodes.iter().find_map(|(name, node)| {
            let domains = node.host.list().into_iter().map(|seen| ("a domain", seen.id));
            let disks = node.host.disks.keys().filter(|_| !node.lost_records);
            let disks = disks.map(|id| ("disks", id.clone()));
            let told = node.engine.as_ref().map(|engine| engine.view().strays).unwrap_or_default();
            let stray = |(_, id): &(&str, VmId)| {
                !places.contains(&(id.clone(), name.clone())) && !told.contains(&id.to_string())
            };
            let (what, id) = domains.chain(disks).find(stray)?;
            Some(format!("{name} has {what} of {id}, which is not placed there"))
        })
    }

    /// A node whose lease has lapsed, or has guardians whose disks are gone, or none though there are enough nodes.
    fn ill_guarded(&self) -> Option<String> {
        self.nodes.iter().find_map(|(name, node)| {
            let view = node.engine.as_ref()?.view();
            let (lease, left) = (view.lease.as_ref()?, view.lease_left_ms);
            let guarded = lease.is_guarded() || self.nodes.len() < 3;
            let there = |replica: &Replica| self.has_disk(replica);
            let holds = there(&lease.holder) && left.is_none_or(|left| left > 0);
            let well = guarded && holds && lease.guardians.iter().all(there);
            (!well).then(|| format!("{name} has {lease:?}, and {left:?} ms of it left"))
        })
    }

    /// An agent that does not know all others for its peers.
    fn ill_met(&self) -> Option<String> {
        self.nodes.iter().find_map(|(name, node)| {
            let peers = node.engine.as_ref()?.view().peers;
            let met = |other: &&NodeName| peers.iter().any(|peer| peer.node == **other);
            let missed = self.nodes.keys().filter(|other| *other != name).find(|other| !met(other));
            missed.map(|other| format!("{other} is no peer of {name}"))
        })
    }
}
