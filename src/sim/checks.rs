//! What must hold after every event: I1 and I5 on the machines themselves, I3–I5 on the agents. (I2 is in `acknowledged.rs`; I6 is
//! that all of it holds while the API server is away.)

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Life, World};
use crate::engine::Engine;
use crate::engine::id::{NodeName, VmId};
use crate::engine::invariants::{self, Broken};
use crate::engine::spec::Resources;

/// An engine that has something to do at once, so often in a row, spins.
const RESTLESS: u32 = 20;

impl World {
    pub(super) fn find(&mut self, broken: impl IntoIterator<Item = Broken>) {
        let now = self.now;
        self.broken.extend(broken.into_iter().map(|broken| (now, broken)));
    }

    /// Once an engine has handled something.
    pub(super) fn check_engine(&mut self, name: &NodeName) {
        let engines: Vec<&Engine> =
            self.nodes.values().filter_map(|node| node.engine.as_ref()).collect();
        let broken = invariants::check(&engines);
        self.find(broken);
        if self.engine(name).is_some_and(Engine::tells_itself) {
            let what = format!("{name} tells itself something without an end");
            self.find([Broken { invariant: "settles", what }]);
        }
    }

    /// Once an engine has been woken up: what was due is done then, or put off.
    pub(super) fn check_rests(&mut self, name: &NodeName) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(name) else { return };
        let Some(engine) = node.engine.as_ref().filter(|_| !node.driver.is_busy()) else { return };
        let local = node.clock.local(now);
        if engine.next_wakeup().is_none_or(|at| at > local) {
            node.restless = 0;
            return;
        }
        node.restless += 1;
        if node.restless >= RESTLESS {
            let due =
                engine.wakeups().into_iter().filter(|(_, at)| at.is_some_and(|at| at <= local));
            let rooms: Vec<&str> = due.map(|(room, _)| room).collect();
            let what = format!("{name} is woken up again and again, and does nothing: {rooms:?}");
            self.find([Broken { invariant: "settles", what }]);
        }
    }

    /// Once a machine may have changed. A VM runs where its processors do: not on a machine that stands still.
    pub(super) fn check_machines(&mut self) {
        if !std::mem::take(&mut self.machines_changed) {
            return;
        }
        let mut broken = Vec::new();
        let mut seen: BTreeMap<&VmId, &NodeName> = BTreeMap::new();
        for (name, node) in self.nodes.iter().filter(|(_, node)| !node.frozen) {
            let mut used = Resources::default();
            for (id, size) in node.host.running() {
                used = used.plus(size);
                if let Some(other) = seen.insert(id, name) {
                    let what = format!("{id} runs on {other} and on {name}");
                    broken.push(Broken { invariant: "I1", what });
                }
            }
            let has = node.host.info().capacity;
            if used.memory > has.memory {
                let what = format!("{name} has {} bytes and its VMs {}", has.memory, used.memory);
                broken.push(Broken { invariant: "I5", what });
            }
        }
        self.find(broken);
        self.remember_lives();
    }

    fn remember_lives(&mut self) {
        let now = self.now;
        let frozen = |node: &NodeName| self.nodes.get(node).is_some_and(|node| node.frozen);
        let mut running: BTreeSet<(VmId, NodeName)> = self.running().into_iter().collect();
        running.retain(|(_, node)| !frozen(node));
        let Some(lives) = &mut self.lives else { return };
        for life in lives.iter_mut().filter(|life| life.until.is_none()) {
            if !running.remove(&(life.vm.clone(), life.node.clone())) {
                life.until = Some(now);
            }
        }
        let begun = running.into_iter();
        lives.extend(begun.map(|(vm, node)| Life { vm, node, from: now, until: None }));
    }
}
