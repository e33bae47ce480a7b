//! The nodes and VMs of a run: who is where, how loaded, and for how long too much.
//!
//! A node is in violation while the sum of its VMs' loads is strictly above its capacity. That time is
//! integrated exactly, in whole microseconds, from its true start: not from when somebody noticed. A VM that
//! is being migrated counts at its source until the switch; its memory counts at both ends.

use super::super::workload::{Load, NodeShape, VmShape, Workload};
use super::measures::{Outages, Overload};
use crate::engine::time::Instant;

/// Nodes and VMs.
#[derive(Debug)]
pub struct Fleet {
    shape: NodeShape,
    nodes: Vec<Node>,
    vms: Vec<Vm>,
    /// Violations so far.
    pub overload: Overload,
    /// What came of nodes that went.
    pub outages: Outages,
}

/// One physical node.
#[derive(Clone, Debug, Default)]
pub struct Node {
    /// Sum of its VMs' loads.
    pub load: Load,
    /// Memory of its VMs and of those on their way to it, MiB.
    pub memory_mib: u32,
    /// Its VMs, in no particular (but repeatable) order.
    pub vms: Vec<u32>,
    /// It is dead since then: its VMs do not run, and load nobody.
    pub dead_since: Option<Instant>,
    /// It is in maintenance.
    pub closed: bool,
    /// It is to be empty, as was said then, and has not been yet.
    to_empty_since: Option<Instant>,
    over_since: Option<Instant>,
    /// Its scheduler knows of the violation since then.
    known_since: Option<Instant>,
    /// Its scheduler looks for a migration since then, and has ordered none.
    undecided_since: Option<Instant>,
}

/// One VM.
#[derive(Clone, Debug)]
pub struct Vm {
    /// What does not change.
    pub shape: VmShape,
    /// Its load now.
    pub load: Load,
    /// Where it runs.
    pub node: u32,
    /// Where it is on its way to.
    pub moving_to: Option<u32>,
}

/// Why a migration does not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The VM does not run on the node that would send it (any more).
    NotHere,
    /// It is being migrated already.
    Moving,
    /// The target is where it is.
    SameNode,
    /// The target has no memory for it.
    NoMemory,
    /// The target takes no VMs: it is dead, or in maintenance.
    Closed,
}

impl Fleet {
    /// The fleet of a workload, at time zero.
    #[must_use]
    pub fn new(workload: &Workload) -> Self {
        let mut nodes = vec![Node::default(); workload.nodes()];
        let mut vms = Vec::with_capacity(workload.vms.len());
        for (index, (shape, node)) in workload.vms.iter().zip(&workload.placement).enumerate() {
            let home = &mut nodes[*node as usize];
            home.vms.push(index as u32);
            home.memory_mib += shape.memory_mib;
            vms.push(Vm { shape: *shape, load: 0, node: *node, moving_to: None });
        }
        Self {
            shape: workload.node,
            nodes,
            vms,
            overload: Overload::default(),
            outages: Outages::default(),
        }
    }

    /// Every node's shape.
    #[must_use]
    pub fn shape(&self) -> NodeShape {
        self.shape
    }

    /// How many nodes there are.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.nodes.len() as u32
    }

    /// A fleet has nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: u32) -> &Node {
        &self.nodes[node as usize]
    }

    /// A VM.
    #[must_use]
    pub fn vm(&self, vm: u32) -> &Vm {
        &self.vms[vm as usize]
    }

    /// A VM's load becomes something else.
    pub fn set_load(&mut self, now: Instant, vm: u32, load: Load) {
        let vm = &mut self.vms[vm as usize];
        let node = &mut self.nodes[vm.node as usize];
        node.load = node.load - vm.load + load;
        vm.load = load;
        let node = vm.node;
        self.weigh(now, node);
    }

    /// The VM is on its way from one node to another: memory is reserved there.
    pub fn depart(&mut self, vm: u32, from: u32, to: u32) -> Result<(), Refused> {
        let traveller = &mut self.vms[vm as usize];
        let target = &mut self.nodes[to as usize];
        if traveller.node != from {
            return Err(Refused::NotHere);
        }
        if traveller.moving_to.is_some() {
            return Err(Refused::Moving);
        }
        if from == to {
            return Err(Refused::SameNode);
        }
        if target.closed || target.dead_since.is_some() {
            return Err(Refused::Closed);
        }
        if target.memory_mib + traveller.shape.memory_mib > self.shape.memory_mib {
            return Err(Refused::NoMemory);
        }
        target.memory_mib += traveller.shape.memory_mib;
        traveller.moving_to = Some(to);
        Ok(())
    }

    /// The VM has arrived. Returns where it came from and where it is, if it was on its way.
    pub fn arrive(&mut self, now: Instant, vm: u32) -> Option<(u32, u32)> {
        let traveller = &mut self.vms[vm as usize];
        let to = traveller.moving_to.take()?;
        let from = std::mem::replace(&mut traveller.node, to);
        let (load, memory_mib) = (traveller.load, traveller.shape.memory_mib);
        let source = &mut self.nodes[from as usize];
        source.load -= load;
        source.memory_mib -= memory_mib;
        source.vms.retain(|other| *other != vm);
        let target = &mut self.nodes[to as usize];
        target.load += load;
        target.vms.push(vm);
        self.weigh(now, from);
        self.weigh(now, to);
        self.note_empty(now, from);
        Some((from, to))
    }

    /// The migration of a VM breaks off: it stays where it is.
    pub fn stay(&mut self, vm: u32) {
        let traveller = &mut self.vms[vm as usize];
        if let Some(to) = traveller.moving_to.take() {
            self.nodes[to as usize].memory_mib -= traveller.shape.memory_mib;
        }
    }

    /// Maintenance of a node begins.
    pub fn close_node(&mut self, now: Instant, node: u32) {
        let closed = &mut self.nodes[node as usize];
        (closed.closed, closed.to_empty_since) = (true, Some(now));
        self.outages.maintenances += 1;
        self.note_empty(now, node);
    }

    /// Maintenance of a node ends.
    pub fn open_node(&mut self, node: u32) {
        let open = &mut self.nodes[node as usize];
        (open.closed, open.to_empty_since) = (false, None);
    }

    /// A node dies.
    pub fn kill(&mut self, now: Instant, node: u32) {
        let dead = &mut self.nodes[node as usize];
        relieve(dead, now, &mut self.overload);
        dead.dead_since = Some(now);
        self.outages.deaths += 1;
    }

    /// A dead node is back.
    pub fn revive(&mut self, now: Instant, node: u32) {
        mourn(&mut self.nodes[node as usize], now, &mut self.outages);
        self.weigh(now, node);
    }

    fn note_empty(&mut self, now: Instant, node: u32) {
        let node = &mut self.nodes[node as usize];
        if node.vms.is_empty()
            && let Some(since) = node.to_empty_since.take()
        {
            self.outages.emptied_us.push(now.0 - since.0);
        }
    }

    /// This node's scheduler finds that something must be done for it.
    pub fn detect(&mut self, now: Instant, node: u32) {
        let node = &mut self.nodes[node as usize];
        node.undecided_since.get_or_insert(now);
        if node.over_since.is_some() {
            node.known_since.get_or_insert(now);
        }
    }

    /// Its scheduler does something for it, or no longer wants to. Returns since when it wanted to.
    pub fn decide(&mut self, node: u32) -> Option<Instant> {
        self.nodes[node as usize].undecided_since.take()
    }

    /// The run is over: what is in violation now was so until now.
    pub fn close(&mut self, now: Instant) {
        for node in &mut self.nodes {
            relieve(node, now, &mut self.overload);
            mourn(node, now, &mut self.outages);
        }
    }

    fn weigh(&mut self, now: Instant, node: u32) {
        let node = &mut self.nodes[node as usize];
        let over = node.load > self.shape.capacity && node.dead_since.is_none();
        match node.over_since {
            None if over => node.over_since = Some(now),
            Some(_) if !over => relieve(node, now, &mut self.overload),
            _ => {}
        }
    }
}

/// A violation ends, if there is one, and with it who waits for that.
fn relieve(node: &mut Node, now: Instant, overload: &mut Overload) {
    if let Some(since) = node.over_since.take() {
        node.undecided_since = None;
        overload.add(since, now);
    }
    if let Some(since) = node.known_since.take() {
        overload.longest_wait_us = overload.longest_wait_us.max(now.0 - since.0);
    }
}

/// A death ends: its VMs were away for so long.
fn mourn(node: &mut Node, now: Instant, outages: &mut Outages) {
    if let Some(since) = node.dead_since.take() {
        outages.away_us += (now.0 - since.0) * node.vms.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::workload::vmplaces;
    use super::*;

    fn fleet() -> Fleet {
        let mut workload = vmplaces::workload(2, 10, 1);
        workload.node.memory_mib = 11 * 1024;
        Fleet::new(&workload)
    }

    fn load_all(fleet: &mut Fleet, now: u64, load: Load) {
        for vm in 0..10 {
            fleet.set_load(Instant(now), vm, load);
        }
    }

    #[test]
    fn exactly_the_capacity_is_no_violation_and_a_tenth_above_is() {
        let mut fleet = fleet();
        load_all(&mut fleet, 1, 70);
        fleet.set_load(Instant(10), 0, 80);
        fleet.set_load(Instant(25), 0, 70);
        fleet.set_load(Instant(30), 1, 90);
        fleet.close(Instant(32));
        let overload = &fleet.overload;
        assert_eq!((overload.total_us, overload.count, overload.longest_us), (17, 2, 15));
        assert_eq!(overload.longest_wait_us, 0, "nobody knew");
    }

    #[test]
    fn a_wait_lasts_from_when_a_violation_is_known_until_it_ends() {
        let mut fleet = fleet();
        load_all(&mut fleet, 1, 70);
        fleet.detect(Instant(5), 0);
        assert_eq!(fleet.decide(0), Some(Instant(5)), "it may look before there is one");
        fleet.set_load(Instant(10), 0, 80);
        fleet.detect(Instant(12), 0);
        fleet.detect(Instant(14), 0);
        fleet.set_load(Instant(20), 0, 70);
        assert_eq!(fleet.overload.longest_wait_us, 8);
        assert_eq!(fleet.decide(0), None, "nothing more to decide");
        fleet.set_load(Instant(30), 0, 80);
        fleet.detect(Instant(31), 0);
        fleet.close(Instant(50));
        assert_eq!((fleet.overload.longest_us, fleet.overload.longest_wait_us), (20, 19));
    }

    #[test]
    fn a_vm_on_its_way_counts_at_its_source_and_its_memory_at_both() {
        let mut fleet = fleet();
        load_all(&mut fleet, 0, 80);
        assert_eq!(fleet.depart(3, 0, 1), Ok(()));
        assert_eq!((fleet.node(0).load, fleet.node(1).load), (800, 0));
        assert_eq!((fleet.node(0).memory_mib, fleet.node(1).memory_mib), (10_240, 11_264));
        assert_eq!(fleet.arrive(Instant(9), 3), Some((0, 1)));
        assert_eq!((fleet.node(0).load, fleet.node(1).load), (720, 80));
        assert_eq!((fleet.node(0).memory_mib, fleet.node(1).memory_mib), (9_216, 11_264));
        assert_eq!(fleet.arrive(Instant(9), 3), None);
    }

    #[test]
    fn what_cannot_move_is_refused_with_the_reason() {
        let mut fleet = fleet();
        assert_eq!(fleet.depart(3, 1, 0), Err(Refused::NotHere));
        assert_eq!(fleet.depart(3, 0, 0), Err(Refused::SameNode));
        assert_eq!(fleet.depart(3, 0, 1), Ok(()));
        assert_eq!(fleet.depart(3, 0, 1), Err(Refused::Moving));
        assert_eq!(fleet.depart(4, 0, 1), Err(Refused::NoMemory));
    }
}
