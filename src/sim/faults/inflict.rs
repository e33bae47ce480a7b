//! How each fault is done to a world, and how it ends.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::FaultKind;
use crate::engine::host::StopCause;
use crate::engine::id::NodeName;
use crate::engine::input::{ClusterInput, Input};
use crate::sim::clock::MOST_DRIFT_PPM;
use crate::sim::driver::Torn;
use crate::sim::guard::Away;
use crate::sim::network::Quality;
use crate::sim::world::{Event, World};

/// How long an agent that ends in order asks to be away, and how long it takes for that.
const ABSENCE: Duration = Duration::from_secs(60);
pub(in crate::sim) const AGREE_WITHIN: Duration = Duration::from_secs(2);

/// What ends.
#[derive(Debug)]
pub enum Over {
    /// An agent is away.
    Away(NodeName),
    /// The goodbye of an agent of this life: it is away then.
    Leaving {
        /// Its node.
        node: NodeName,
        /// Its life.
        life: u64,
        /// For how long.
        away: Duration,
    },
    /// An agent of this life stands still.
    Stall(NodeName, u64),
    /// A machine of this boot stands still.
    Freeze(NodeName, u64),
    /// The guard of this boot is away.
    Guard(NodeName, u64),
    /// Ways are cut.
    Cut(Vec<(NodeName, NodeName)>),
    /// The network is bad.
    Network(u64),
    /// A disk is slow.
    SlowDisk(NodeName),
    /// A disk is full.
    FullDisk(NodeName),
    /// The hypervisor of this boot stands still.
    Hypervisor(NodeName, u64),
    /// A write was to tear, and there was none.
    Torn(NodeName),
    /// The API server is away.
    ApiAway,
    /// Its watches are behind.
    ApiStale,
    /// It is away for some.
    ApiSplit(Vec<NodeName>),
    /// A node's page is back: these may list it again.
    Page(NodeName, Vec<NodeName>),
}

impl World {
    /// Something goes wrong. Tells whether it did.
    pub fn inflict(
        &mut self,
        (kind, node, lasts): (FaultKind, &NodeName, Duration),
        rng: &mut ChaCha8Rng,
    ) -> bool {
        let over = match kind {
            FaultKind::Crash => {
                if self.engine(node).is_none() {
                    return false;
                }
                self.kill_agent(node);
                Some(Over::Away(node.clone()))
            }
            FaultKind::Leave => {
                let life = self.lives(node).map_or(0, |(_, life)| life);
                if self.engine(node).is_none() {
                    return false;
                }
                self.handle(node, Input::GoAway(ABSENCE));
                self.under_way += 1;
                let over = Over::Leaving { node: node.clone(), life, away: lasts };
                self.push(AGREE_WITHIN, Event::Over(Box::new(over)));
                return true;
            }
            FaultKind::Power => {
                self.power_off(node);
                Some(Over::Away(node.clone()))
            }
            FaultKind::LostDisk => {
                self.lose_disk(node);
                Some(Over::Away(node.clone()))
            }
            FaultKind::LostRecords => self.lose_records(node),
            FaultKind::Torn => self.will_tear(node, lasts, rng),
            FaultKind::Stall => self.stall(node),
            FaultKind::Freeze => {
                let boot = self.lives(node).map_or(0, |(boot, _)| boot);
                self.freeze(node).then(|| Over::Freeze(node.clone(), boot))
            }
            FaultKind::Guard | FaultKind::GuardStall => {
                let boot = self.lives(node).map_or(0, |(boot, _)| boot);
                let away = if kind == FaultKind::Guard { Away::Gone } else { Away::Stalled };
                self.take_guard(node, away).then(|| Over::Guard(node.clone(), boot))
            }
            FaultKind::Cut | FaultKind::OneWay | FaultKind::Partial => self.cut(kind, node, rng),
            FaultKind::Loss
            | FaultKind::Repeat
            | FaultKind::Reorder
            | FaultKind::Delay
            | FaultKind::Late => Some(self.worsen(kind, node, rng)),
            FaultKind::Clock => return self.set_clock(node, rng),
            FaultKind::SlowDisk | FaultKind::FullDisk => self.spoil_disk(kind, node, rng),
            FaultKind::Hypervisor => self.stall_hypervisor(node),
            FaultKind::ApiAway => {
                if self.api.away {
                    return false;
                }
                self.set_api_away(true);
                Some(Over::ApiAway)
            }
            FaultKind::ApiStale => self.api.fall_behind().then_some(Over::ApiStale),
            FaultKind::ApiSplit => self.split_api(rng),
            FaultKind::Guest | FaultKind::Domain => return self.hurt_guest(kind, rng),
            FaultKind::Page => self.shut_out(node, rng),
            FaultKind::Migration => return false,
        };
        let Some(over) = over else { return false };
        self.under_way += 1;
        self.push(lasts, Event::Over(Box::new(over)));
        true
    }

    /// An agent is started after a while.
    pub(in crate::sim) fn start_after(&mut self, node: &NodeName, after: Duration) {
        self.under_way += 1;
        self.push(after, Event::Over(Box::new(Over::Away(node.clone()))));
    }

    /// A fault ends.
    pub(in crate::sim) fn fault_over(&mut self, over: Over) {
        self.under_way -= 1;
        match over {
            Over::Away(node) => {
                if self.nodes.get(&node).is_some_and(|node| node.frozen) {
                    return self.start_after(&node, Duration::from_secs(1));
                }
                self.start_agent(&node);
            }
            Over::Leaving { node, life, away } => {
                if self.lives(&node).is_some_and(|(_, now)| now == life) {
                    self.kill_agent(&node);
                    self.start_after(&node, away);
                }
            }
            Over::Stall(name, life) => {
                if let Some(node) = self.nodes.get_mut(&name).filter(|node| node.life == life) {
                    node.driver.stalled = false;
                    self.go_on(&name);
                }
            }
            Over::Freeze(node, boot) => self.thaw(&node, boot),
            Over::Guard(node, boot) => self.give_guard_back(&node, boot),
            Over::Cut(ways) => ways.iter().for_each(|(from, to)| self.network.join(from, to)),
            Over::Network(number) => self.network.better(number),
            Over::SlowDisk(name) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.driver.slow = Duration::ZERO;
                }
            }
            Over::FullDisk(name) => self.disk_has_room(&name),
            Over::Hypervisor(name, boot) => {
                let node = self.nodes.get_mut(&name).filter(|node| node.boot == boot);
                let Some(node) = node else { return };
                node.host.stalled = false;
                let life = node.life;
                for command in std::mem::take(&mut node.commands) {
                    self.push(Duration::ZERO, command);
                }
                self.push(Duration::ZERO, Event::Shows { node: name, life });
            }
            Over::Torn(name) => {
                if let Some(node) = self.nodes.get_mut(&name) {
                    node.driver.torn = None;
                }
            }
            Over::Page(node, by) => self.let_in(&node, by),
            Over::ApiAway => self.set_api_away(false),
            Over::ApiStale => {
                for ve in self.api.catch_up() {
                    match self.api.get(&ve).map(|object| object.declared.clone()) {
                        Some(declared) => self.show(declared),
                        None => self.show_gone(&ve),
                    }
                }
            }
            Over::ApiSplit(nodes) => {
                for name in nodes {
                    self.api.apart.remove(&name);
                    let reachable = self.api.answers(&name);
                    self.handle(&name, Input::Cluster(ClusterInput::Reachable(reachable)));
                }
            }
        }
    }

    fn shut_out(&mut self, node: &NodeName, rng: &mut ChaCha8Rng) -> Option<Over> {
        let mut by = self.names();
        by.retain(|other| {
            let pins = other != node && !self.shut_out.contains(&(other.clone(), node.clone()));
            pins && self.engine(other).is_some() && rng.random_bool(0.5)
        });
        for other in &by {
            self.shut_out.insert((other.clone(), node.clone()));
            self.network.cut(other, node);
            self.network.cut(node, other);
            self.handle(other, Input::PeerRevoked(node.clone()));
        }
        (!by.is_empty()).then(|| Over::Page(node.clone(), by))
    }

    fn let_in(&mut self, node: &NodeName, by: Vec<NodeName>) {
        for other in by {
            self.network.join(&other, node);
            self.network.join(node, &other);
            self.handle(&other, Input::PeerKnown(node.clone()));
            self.shut_out.remove(&(other, node.clone()));
        }
    }

    fn lose_disk(&mut self, name: &NodeName) {
        self.power_off(name);
        if let Some(node) = self.nodes.get_mut(name) {
            node.disk.clear();
            node.host.wipe();
        }
        self.check_all_remembered();
    }

    fn lose_records(&mut self, name: &NodeName) -> Option<Over> {
        self.engine(name)?;
        self.kill_agent(name);
        let node = self.nodes.get_mut(name)?;
        node.disk.clear();
        node.lost_records = true;
        self.check_all_remembered();
        Some(Over::Away(name.clone()))
    }

    fn stall_hypervisor(&mut self, name: &NodeName) -> Option<Over> {
        let node = self.nodes.get_mut(name).filter(|node| !node.host.stalled)?;
        node.host.stalled = true;
        Some(Over::Hypervisor(name.clone(), node.boot))
    }

    fn will_tear(
        &mut self,
        name: &NodeName,
        lasts: Duration,
        rng: &mut ChaCha8Rng,
    ) -> Option<Over> {
        let node = self.nodes.get_mut(name).filter(|node| node.driver.torn.is_none())?;
        let (after, written) = (rng.random_range(0..20), rng.random_bool(0.5));
        let away = lasts.min(Duration::from_secs(20));
        node.driver.torn = Some(Torn { after, written, away });
        Some(Over::Torn(name.clone()))
    }

    fn stall(&mut self, name: &NodeName) -> Option<Over> {
        let node = self.nodes.get_mut(name).filter(|node| node.engine.is_some())?;
        if node.frozen || node.driver.stalled {
            return None;
        }
        node.driver.stalled = true;
        Some(Over::Stall(name.clone(), node.life))
    }

    fn cut(&mut self, kind: FaultKind, node: &NodeName, rng: &mut ChaCha8Rng) -> Option<Over> {
        let names = self.names();
        let (out, back) = match kind {
            FaultKind::OneWay if rng.random_bool(0.5) => (true, false),
            FaultKind::OneWay => (false, true),
            FaultKind::Partial => (true, rng.random_bool(0.7)),
            _ => (true, true),
        };
        // One side of a partial cut is any set of nodes, the other any of the rest; of the other kinds, the node and all others.
        let side = |_: &&NodeName| rng.random_bool(0.5);
        let (here, there): (Vec<&NodeName>, Vec<&NodeName>) = match kind {
            FaultKind::Partial => names.iter().partition(side),
            _ => names.iter().partition(|name| *name == node),
        };
        let few = kind == FaultKind::Partial && rng.random_bool(0.4);
        let mut ways = Vec::new();
        for (a, b) in here.iter().flat_map(|a| there.iter().map(move |b| (*a, *b))) {
            if few && rng.random_bool(0.5) {
                continue;
            }
            ways.extend(out.then(|| (a.clone(), b.clone())));
            ways.extend(back.then(|| (b.clone(), a.clone())));
        }
        ways.iter().for_each(|(from, to)| self.network.cut(from, to));
        (!ways.is_empty()).then_some(Over::Cut(ways))
    }

    fn worsen(&mut self, kind: FaultKind, node: &NodeName, rng: &mut ChaCha8Rng) -> Over {
        let good = Quality { max_delay_us: 0, min_delay_us: 0, ..Quality::default() };
        let worse = match kind {
            FaultKind::Loss => Quality { loss: rng.random_range(0.05..0.6), ..good },
            FaultKind::Repeat => Quality { repeat: rng.random_range(0.05..0.9), ..good },
            FaultKind::Reorder => {
                Quality { max_delay_us: rng.random_range(20_000..1_000_000), ..good }
            }
            FaultKind::Delay => {
                let min_delay_us = rng.random_range(100_000..4_000_000);
                Quality { min_delay_us, max_delay_us: min_delay_us + 500_000, ..good }
            }
            _ => Quality { late: rng.random_range(0.02..0.3), ..good },
        };
        let number = rng.random();
        let one = matches!(kind, FaultKind::Loss | FaultKind::Delay) && rng.random_bool(0.5);
        self.network.worsen(number, one.then(|| node.clone()), worse);
        Over::Network(number)
    }

    fn set_clock(&mut self, name: &NodeName, rng: &mut ChaCha8Rng) -> bool {
        let now = self.now();
        let Some(node) = self.nodes.get_mut(name) else { return false };
        node.clock.set_rate(now, rng.random_range(-MOST_DRIFT_PPM..=MOST_DRIFT_PPM));
        node.wake_at = None;
        self.plan_wakeup(name);
        true
    }

    fn spoil_disk(
        &mut self,
        kind: FaultKind,
        name: &NodeName,
        rng: &mut ChaCha8Rng,
    ) -> Option<Over> {
        let node = self.nodes.get_mut(name)?;
        if node.driver.full || node.driver.slow > Duration::ZERO {
            return None;
        }
        if kind == FaultKind::FullDisk {
            node.driver.full = true;
            return Some(Over::FullDisk(name.clone()));
        }
        node.driver.slow = Duration::from_millis(rng.random_range(2..2_500));
        Some(Over::SlowDisk(name.clone()))
    }

    fn split_api(&mut self, rng: &mut ChaCha8Rng) -> Option<Over> {
        let names = self.names().into_iter();
        let apart: Vec<NodeName> =
            names.filter(|name| !self.api.apart.contains(name) && rng.random_bool(0.4)).collect();
        for name in &apart {
            self.api.apart.insert(name.clone());
            self.api.watchers.remove(name);
            self.handle(name, Input::Cluster(ClusterInput::Reachable(false)));
        }
        (!apart.is_empty()).then_some(Over::ApiSplit(apart))
    }

    fn hurt_guest(&mut self, kind: FaultKind, rng: &mut ChaCha8Rng) -> bool {
        let mut running = self.running();
        running.retain(|(_, node)| self.nodes.get(node).is_some_and(|node| !node.frozen));
        if running.is_empty() {
            return false;
        }
        let (id, node) = running.swap_remove(rng.random_range(0..running.len()));
        match kind {
            FaultKind::Guest => self.stop_guest(&node, &id, StopCause::Crashed),
            _ => self.undefine(&node, &id),
        }
    }
}
