//! Peers come, go, and say what they have: what that means to everything that this agent handles, and what it says of itself.

use super::Engine;
use super::dnt::{Change, News, PeerState};
use super::effect::ClusterAction;
use super::id::{NodeName, VeUid};
use super::lrt;
use super::record::VeRecord;
use super::vet::veh::Veh;

/// So many of the agents that would be chosen first to keep a record are asked where it is.
const LIKELY_KEEPERS: usize = 16;

impl Engine {
    /// Who is dead cannot say so: the first gateway does.
    pub(super) fn tell_silent(&mut self) {
        let silent = if self.gateway.is_first() { self.dnt.silent() } else { Vec::new() };
        if self.silent != silent {
            self.silent.clone_from(&silent);
            self.ctx.cluster(ClusterAction::ReportSilent(silent));
        }
    }

    pub(super) fn choose_acquaintances(&mut self) {
        let peers = lrt::loads::acquaintances(&self.ctx.node, &self.dnt.nearest());
        self.lrt.know_peers(peers, &mut self.ctx);
    }

    pub(super) fn peers_changed(&mut self, news: &News) {
        if !news.changes.is_empty() {
            self.choose_acquaintances();
            let up = news.changes.iter().filter_map(|change| match change {
                Change::Up(node) => Some(node),
                Change::Down(_) => None,
            });
            self.registers.peers_changed(&up.collect::<Vec<_>>(), self.ctx.now);
        }
        for change in &news.changes {
            let (node, up) = match change {
                Change::Up(node) => (node, true),
                Change::Down(node) => (node, false),
            };
            if up {
                self.gateway.hurry(node, &self.ctx);
                self.fences.heard(node);
            }
            let theirs = |record: &&VeRecord| {
                let (owing, bound) = (&record.owing, &record.leases);
                let orders = owing.contains(node) || bound.contains_key(node);
                orders || self.may_keep(node, record)
            };
            let ves: Vec<VeUid> =
                self.registers.all().filter(theirs).map(|r| r.declared.uid.clone()).collect();
            for ve in ves {
                if up && let Some(veh) = self.vehs.get_mut(&ve) {
                    veh.came_back(node, self.ctx.now);
                }
                self.reconcile(&ve);
            }
        }
        if let Some(node) = &news.keeper {
            self.registers.look_soon(self.ctx.now);
            let kept = self.registers.all().filter(|record| self.may_keep(node, record));
            let ves: Vec<VeUid> = kept.map(|record| record.declared.uid.clone()).collect();
            ves.iter().for_each(|ve| self.reconcile(ve));
        }
        if news.room_appeared {
            self.room_appeared();
        }
    }

    /// Whether a node keeps a record that this agent handles, or may come to: too few do.
    fn may_keep(&self, node: &NodeName, record: &VeRecord) -> bool {
        let veh = self.vehs.get(&record.declared.uid);
        record.set.names(node) || veh.is_some_and(Veh::lacks_keepers)
    }

    /// What waits for room is tried again, each at its own moment: all at once would be in each other's way.
    pub(super) fn room_appeared(&mut self) {
        for veh in self.vehs.values_mut().filter(|veh| veh.wait().is_some()) {
            veh.hurry(self.ctx.now + self.ctx.jitter(5, 300));
        }
    }

    /// Who may know more of an environment than this agent, which does not keep its record, or not on this disk: the next after it of
    /// the few that are likely to. Who asks one after the other so asks each of them.
    pub(super) fn who_may_know(&self, ve: &VeUid) -> Option<NodeName> {
        let zone = self.lrt.zone();
        let own = Some((self.registers.own(), zone.as_str()));
        let likely = self.dnt.replicas(ve.as_str(), own, LIKELY_KEEPERS);
        let place = likely.iter().position(|keeper| keeper.node == self.ctx.node);
        let next = place.map_or(0, |place| place + 1) % likely.len().max(1);
        likely.get(next).map(|keeper| keeper.node.clone())
    }

    pub(super) fn own_state(&self) -> PeerState {
        PeerState {
            coordinate: self.dnt.coordinate(),
            api_reachable: self.dnt.api_reachable(),
            zone: self.lrt.zone(),
            free: self.lrt.free(),
            schedulable: self.lrt.open().is_ok(),
            disk: self.registers.own().disk,
            leaving: self.lrt.is_leaving(),
        }
    }
}
