//! DISCOVERY: the engine's own decisions and protocol, [`relief`](crate::engine::lrt::relief), on each node.
//!
//! A thin adapter: happenings in, effects out. Nodes know 16 peers each (fewer where there are fewer), which the cell's DNT
//! will give them: near ones, of the same site, and any, so that no part of the data centre is cut off from the rest.

use std::collections::BTreeSet;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::super::super::workload::Sites;
use super::super::scheduler::{Actor, Desk, Happening, Scheduler};
use crate::engine::lrt::relief::protocol::{Message, Part};
use crate::engine::lrt::relief::{Effect, Input, Now, Relief, Rules};
use crate::engine::time::Instant;

/// Peers on each side of a node that it knows: 8 near ones.
const NEAR: usize = 4;
/// Rings through all nodes in random order; on each a node knows the one before it and the one after: 8 far ones.
const FAR_RINGS: u32 = 4;

/// All agents.
#[derive(Debug)]
pub struct Discovery {
    threshold_s: f64,
    agents: Vec<Agent>,
    peers: Vec<BTreeSet<u32>>,
}

#[derive(Debug)]
struct Agent {
    relief: Relief<u32, u32>,
    /// The earliest wake-up that has been asked for and has not come.
    armed: Option<Instant>,
}

impl Discovery {
    /// Agents that move a VM when that saves more than so many seconds of overload.
    #[must_use]
    pub fn new(threshold_s: f64) -> Self {
        Self { threshold_s, agents: Vec::new(), peers: Vec::new() }
    }

    /// The move that each node takes part in, if it does: for tests.
    #[cfg(test)]
    pub(in crate::sim::datacenter) fn parts(&self) -> impl Iterator<Item = &Part<u32, u32>> {
        self.agents.iter().filter_map(|agent| agent.relief.part())
    }

    /// What move this node takes part in.
    pub(super) fn part(&self, node: u32) -> Option<&Part<u32, u32>> {
        self.agents[node as usize].relief.part()
    }

    fn start(&mut self, me: u32, desk: &mut Desk<'_, Message>) {
        if self.peers.is_empty() {
            let sites = desk.sites().clone();
            self.peers = peers(&sites, desk.rng());
        }
        // Nodes start in their order.
        self.agents.push(self.newcomer(desk));
        self.meet(me, desk);
    }

    /// An agent that knows nothing.
    fn newcomer(&self, desk: &Desk<'_, Message>) -> Agent {
        let capacity = f64::from(desk.capacity());
        let relief = Relief::new(Rules { capacity, threshold_s: self.threshold_s });
        Agent { relief, armed: None }
    }

    /// It learns who its peers are, and what is on its node.
    fn meet(&mut self, me: u32, desk: &mut Desk<'_, Message>) {
        let agent = &mut self.agents[me as usize];
        let peers = self.peers[me as usize].iter().copied().collect();
        agent.give(me, Input::Peers(peers), desk);
        let vms: Vec<u32> = desk.here().vms().map(|vm| vm.vm).collect();
        for vm in vms {
            agent.arrived(me, vm, desk);
        }
    }
}

impl Scheduler for Discovery {
    type Message = Message;

    fn handle(&mut self, at: Actor, happening: Happening<Message>, desk: &mut Desk<'_, Message>) {
        let Actor::Node(me) = at else { return };
        if happening == Happening::Started {
            return self.start(me, desk);
        }
        if happening == Happening::Returned {
            self.agents[me as usize] = self.newcomer(desk);
            return self.meet(me, desk);
        }
        let agent = &mut self.agents[me as usize];
        match happening {
            Happening::Started | Happening::Returned => {}
            Happening::LoadChanged { vm } => {
                let load = desk.here().vms().find(|here| here.vm == vm).map(|here| here.load);
                let Some(load) = load.map(f64::from) else { return };
                agent.give(me, Input::Load { vm, load }, desk);
            }
            Happening::Timer(_) => {
                if agent.armed.is_some_and(|armed| armed <= desk.now()) {
                    agent.armed = None;
                }
                agent.give(me, Input::Wakeup, desk);
            }
            Happening::Message { from: Actor::Node(from), message } => {
                agent.give(me, Input::Message(from, message), desk);
            }
            Happening::Message { .. } => {}
            Happening::MigrationFailed { vm } => agent.give(me, Input::NotMoved(vm), desk),
            Happening::MigrationEnded { vm, from, to: _ } if from == me => {
                agent.give(me, Input::Left(vm), desk);
            }
            Happening::MigrationEnded { vm, .. } => agent.arrived(me, vm, desk),
        }
    }
}

impl Agent {
    fn arrived(&mut self, me: u32, vm: u32, desk: &mut Desk<'_, Message>) {
        let Some(view) = desk.here().vms().find(|here| here.vm == vm) else { return };
        let load = f64::from(view.load);
        self.give(me, Input::Here { vm, memory_mib: view.memory_mib, load }, desk);
    }

    /// An input goes in, and what comes out is done.
    fn give(&mut self, me: u32, input: Input<u32, u32>, desk: &mut Desk<'_, Message>) {
        let (at, free_mib) = (desk.now(), desk.here().memory_free_mib());
        for effect in self.relief.handle(input, Now { at, free_mib, rng: desk.rng() }) {
            match effect {
                Effect::Send(to, message) => desk.send(Actor::Node(to), message.bytes(), message),
                Effect::Migrate(vm, to) => {
                    if desk.migrate(vm, to).is_err() {
                        self.give(me, Input::NotMoved(vm), desk);
                    }
                }
                Effect::Ended(target, moved) => desk.partition_ended(&[me, target], moved),
            }
        }
        if let Some(at) = self.relief.next_wakeup()
            && self.armed.is_none_or(|armed| at < armed)
        {
            self.armed = Some(at);
            desk.wake_at(at, 0);
        }
    }
}

/// Who knows whom: always each other. Near ones are of the same site.
fn peers(sites: &Sites, rng: &mut ChaCha8Rng) -> Vec<BTreeSet<u32>> {
    let mut peers = vec![BTreeSet::new(); sites.of_node.len()];
    let mut meet = |a: u32, b: u32| {
        if a != b {
            peers[a as usize].insert(b);
            peers[b as usize].insert(a);
        }
    };
    for site in sites.members() {
        for (index, node) in site.iter().enumerate() {
            (1..=NEAR).for_each(|step| meet(*node, site[(index + step) % site.len()]));
        }
    }
    let mut ring: Vec<u32> = (0..sites.of_node.len() as u32).collect();
    for _ in 0..FAR_RINGS {
        for last in (1..ring.len()).rev() {
            ring.swap(last, rng.random_range(0..=last));
        }
        for (index, node) in ring.iter().enumerate() {
            meet(*node, ring[(index + 1) % ring.len()]);
        }
    }
    peers
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::super::super::super::workload::locality;
    use super::*;

    #[test]
    fn nodes_know_at_most_sixteen_peers_and_each_other() {
        let one = [2, 3, 9, 40, 500].map(Sites::one);
        let several = [4, 40, 500].map(|nodes| locality::workload(nodes, 1).sites);
        for sites in one.into_iter().chain(several) {
            let peers = peers(&sites, &mut ChaCha8Rng::seed_from_u64(7));
            for (node, known) in (0..).zip(&peers) {
                assert!((1..=16).contains(&known.len()) && !known.contains(&node), "{known:?}");
                assert!(known.iter().all(|other| peers[*other as usize].contains(&node)));
            }
        }
    }
}
