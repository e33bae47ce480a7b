//! Workloads: which VMs there are, where they start, and how their loads change.
//!
//! ```text
//!   vmplaces (B1, exact) ┐
//!   locality (B2)        │
//!   bursts, day-night    ├──> Workload { shape of nodes, VMs, first placement, load events, incidents }
//!   drain, crash         │                         │
//!   a trace in CSV       ┘                          │
//!                                                   └──> datacenter: runs it under a scheduler
//! ```
//!
//! A workload is drawn before the run and from its seed only, so that every scheduler meets the same one.

pub mod bursts;
pub mod day_night;
pub mod java_random;
pub mod locality;
pub mod outages;
pub mod strict;
pub mod trace;
pub mod vmplaces;

use crate::engine::time::Instant;

/// Load of a VM or a node, in percent of one core: a VM that keeps a core busy has 100.
pub type Load = u32;

/// What one physical node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeShape {
    /// What its VMs may load it with; above this it is in violation.
    pub capacity: Load,
    /// Memory for VMs, MiB.
    pub memory_mib: u32,
}

/// One VM, apart from its load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VmShape {
    /// Virtual processors; its load is at most 100 for each.
    pub vcpus: u32,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// How fast it dirties its memory, as a class: percent, 10 to 80 in the literature's workload.
    pub dirty_class: u32,
}

/// Where nodes are, and how far apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sites {
    /// The site of each node, by index: its length is the number of nodes.
    pub of_node: Vec<u8>,
    /// Round trip within a site, shortest and longest, microseconds.
    pub local_rtt_us: (u64, u64),
    /// Round trip between two sites, microseconds: a row per site.
    pub remote_rtt_us: Vec<Vec<u64>>,
}

impl Sites {
    /// One data centre with switched Ethernet: 0.2 to 4 ms, as `sim::network` has it for agents.
    #[must_use]
    pub fn one(nodes: u32) -> Self {
        let of_node = vec![0; nodes as usize];
        Self { of_node, local_rtt_us: (200, 4_000), remote_rtt_us: vec![vec![0]] }
    }

    /// Whether two nodes are of different sites.
    #[must_use]
    pub fn are_apart(&self, a: u32, b: u32) -> bool {
        self.of_node[a as usize] != self.of_node[b as usize]
    }

    /// The nodes of each site, by index.
    #[must_use]
    pub fn members(&self) -> Vec<Vec<u32>> {
        let mut members = vec![Vec::new(); self.remote_rtt_us.len()];
        for (node, site) in (0..).zip(&self.of_node) {
            members[usize::from(*site)].push(node);
        }
        members
    }
}

/// A VM's load becomes something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoadEvent {
    /// When.
    pub at: Instant,
    /// Which VM, by index.
    pub vm: u32,
    /// What it is from now on.
    pub load: Load,
}

/// What may happen to a node as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// People want it empty: its VMs are to leave it by live migration, and no other is to come.
    MaintenanceBegins,
    /// It may have VMs again.
    MaintenanceEnds,
    /// Its power is lost: its agent is gone, and its VMs do not run.
    Dies,
    /// It is back, with the VMs that it had, and an agent that knows nothing.
    Returns,
}

/// It happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeEvent {
    /// When.
    pub at: Instant,
    /// To which node, by index.
    pub node: u32,
    /// What.
    pub incident: Incident,
}

/// A whole workload. All loads are zero at first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Its name, for reports.
    pub name: &'static str,
    /// Every node's shape.
    pub node: NodeShape,
    /// Where the nodes are.
    pub sites: Sites,
    /// The VMs.
    pub vms: Vec<VmShape>,
    /// The node that each VM starts on.
    pub placement: Vec<u32>,
    /// The loads over time, in order of time.
    pub events: Vec<LoadEvent>,
    /// What happens to nodes, in order of time.
    pub incidents: Vec<NodeEvent>,
    /// When the run ends.
    pub end: Instant,
}

impl Workload {
    /// How many nodes there are.
    #[must_use]
    pub fn nodes(&self) -> usize {
        self.sites.of_node.len()
    }
}

/// A time in seconds as an instant, rounded down to a microsecond.
fn instant(seconds: f64) -> Instant {
    Instant((seconds * 1e6) as u64)
}
