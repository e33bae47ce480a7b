//! Nodes that die and return, and nodes that are emptied for maintenance.
//!
//! Emptying is the same under every scheduler here. In agents it is no part of relief either: the handlers of the VMs'
//! environments find room for each VM, by procedures, and relief neither counts the VMs of a leaving node nor sends it others. A
//! data centre has no handlers; so the node's VMs leave two at a time, as agents have it, each to the least loaded of a few
//! nodes, which is what a procedure comes to. What a scheduler has to do with it is the load that this makes elsewhere.

use std::time::Duration;

use rand::RngExt;

use super::super::workload::Incident;
use super::run::{Event, World};
use super::scheduler::{Actor, Happening, Scheduler};

/// VMs that leave a node in maintenance at a time.
const AT_A_TIME: usize = 2;
/// Nodes that are looked at for one of them, any.
const LOOKED_AT: u32 = 16;
/// Between two looks whether another can leave.
const EVERY: Duration = Duration::from_secs(1);

impl<M> World<M> {
    /// Whether there is somebody who could act.
    pub(super) fn lives(&self, at: Actor) -> bool {
        match at {
            Actor::Node(node) => self.fleet.node(node).dead_since.is_none(),
            Actor::Service(_) => true,
        }
    }

    pub(super) fn befall<S>(&mut self, scheduler: &mut S, node: u32, incident: Incident)
    where
        S: Scheduler<Message = M>,
    {
        match incident {
            Incident::MaintenanceBegins => {
                self.fleet.close_node(self.now, node);
                self.empty(node);
            }
            Incident::MaintenanceEnds => self.fleet.open_node(node),
            Incident::Dies => {
                self.fleet.kill(self.now, node);
                let concerned = |vm: &&u32| {
                    let vm = self.fleet.vm(**vm);
                    vm.node == node || vm.moving_to == Some(node)
                };
                let broken: Vec<u32> = self.moving.keys().filter(concerned).copied().collect();
                broken.into_iter().for_each(|vm| self.break_off(scheduler, vm));
            }
            Incident::Returns => {
                self.fleet.revive(self.now, node);
                self.tell(scheduler, Actor::Node(node), Happening::Returned);
            }
        }
    }

    /// VMs leave a node in maintenance, until nobody is left or it is over.
    pub(super) fn empty(&mut self, node: u32) {
        let home = self.fleet.node(node);
        if !home.closed || home.vms.is_empty() {
            return;
        }
        let (leaving, staying): (Vec<u32>, Vec<u32>) =
            home.vms.iter().partition(|vm| self.fleet.vm(**vm).moving_to.is_some());
        for vm in staying.into_iter().take(AT_A_TIME.saturating_sub(leaving.len())) {
            if let Some(to) = self.room_for(vm) {
                let ordered = self.begin_migration(Actor::Node(node), vm, node, to);
                debug_assert!(ordered.is_ok(), "{ordered:?}: it was looked whether it can");
            }
        }
        self.queue.push(self.now + EVERY, Event::Empty { node });
    }

    /// The least loaded of some nodes that can take the VM.
    fn room_for(&mut self, vm: u32) -> Option<u32> {
        let nodes = self.fleet.len();
        let memory_mib = self.fleet.vm(vm).shape.memory_mib;
        let some: Vec<u32> = (0..LOOKED_AT).map(|_| self.chance.random_range(0..nodes)).collect();
        let takes = |node: &u32| {
            let node = self.fleet.node(*node);
            let free_mib = self.fleet.shape().memory_mib - node.memory_mib;
            !node.closed && node.dead_since.is_none() && free_mib >= memory_mib
        };
        some.into_iter().filter(takes).min_by_key(|node| (self.fleet.node(*node).load, *node))
    }
}
