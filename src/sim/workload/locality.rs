//! B2: four sites, far apart, and loads high enough that much has to move. Who moves it within a site?
//!
//! J. Pastor, M. Bertier, F. Desprez, A. Lebre, F. Quesnel, C. Tedeschi: *Locality-aware Cooperation for VM
//! Scheduling in Distributed Clouds*, Euro-Par 2014: 40 servers of Grid'5000 in Grenoble, Luxembourg, Nancy and
//! Rennes, 416 VMs, loads of 70 ± 30, an hour. Loads are drawn as in B1.

use super::vmplaces::{self, Loads};
use super::{NodeShape, Sites, Workload, instant};

/// 8 cores, all of them for VMs: with 7 the mean load, 728 a node, would not fit. Memory as in B1.
const NODE: NodeShape = NodeShape { capacity: 800, memory_mib: 32 * 1024 };
const LOADS: Loads = Loads { mean: 70.0, deviation: 30.0, duration_s: 3600.0 };
/// 416 VMs on 40 servers.
const VMS_PER_100_NODES: u64 = 1040;
/// Round trips in microseconds; rows and columns in the order above.
const RTT_US: [[u64; 4]; 4] = [
    [0, 16_550, 14_240, 15_920],
    [16_550, 0, 2_700, 13_820],
    [14_240, 2_700, 0, 11_420],
    [15_920, 13_820, 11_420, 0],
];

/// The workload on this many nodes, a quarter of them per site; 40 as published.
#[must_use]
pub fn workload(nodes: u32, seed: u64) -> Workload {
    let count = (u64::from(nodes) * VMS_PER_100_NODES / 100) as u32;
    let sites = Sites {
        of_node: (0..nodes).map(|node| (u64::from(node) * 4 / u64::from(nodes)) as u8).collect(),
        local_rtt_us: (90, 270),
        remote_rtt_us: RTT_US.map(Vec::from).to_vec(),
    };
    Workload {
        name: "locality",
        node: NODE,
        sites,
        vms: vmplaces::vms(count, seed),
        placement: (0..count).map(|vm| vm % nodes).collect(),
        events: vmplaces::events(count, seed, LOADS),
        incidents: Vec::new(),
        end: instant(LOADS.duration_s),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forty_servers_are_four_sites_of_ten_with_416_vms() {
        let workload = workload(40, 1);
        let of_site = |site| workload.sites.of_node.iter().filter(|s| **s == site).count();
        assert_eq!([0, 1, 2, 3].map(of_site), [10; 4]);
        assert_eq!(workload.vms.len(), 416);
        let mean = workload.events.iter().map(|event| event.load).sum::<u32>() as usize
            / workload.events.len();
        assert!((64..72).contains(&mean), "cut at 100, from 70 ± 30: {mean}");
    }
}
