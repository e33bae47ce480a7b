//! Random cases: nodes that are nearly full of unlike VMs, and somebody who wants room or must leave.

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use crate::engine::lrt::solver::plan::{Host, Situation, Tenant};
use crate::engine::spec::Resources;

const GIB: u64 = 1 << 30;
/// Memory of each node, GiB.
const ROOM: u64 = 16;
/// Processors of each node.
const PROCESSORS: u64 = 24;
/// Beside its memory, in GiB, each migration costs so much.
const SETUP: u64 = 1;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// One VM wants more room than any node has.
    One,
    /// Several want room.
    Several,
    /// One VM, or all, must leave a node.
    Leave,
    /// VMs of two nodes are each to go where the other is, and one that wants room is to have that of a third node.
    Swap,
}

/// One case; `vms` with those that want room.
#[must_use]
pub fn case(seed: u64, nodes: usize, vms: usize) -> Situation {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ 0x9_1a75);
    let (kind, wanting) = match rng.random_range(0..6) {
        0 | 1 => (Kind::One, 1),
        2 | 3 => (Kind::Several, rng.random_range(2..4).min(vms - 1)),
        4 => (Kind::Leave, 0),
        _ => (Kind::Swap, usize::from(nodes > 2)),
    };
    let mut free = vec![Resources { cpu_milli: PROCESSORS * 1000, memory: ROOM * GIB }; nodes];
    // What cannot move is only less room.
    for host in &mut free {
        host.memory -= rng.random_range(0..4) * GIB;
    }
    let mut tenants = Vec::new();
    let per_node = (vms - wanting).div_ceil(nodes) as u64;
    while tenants.len() < vms - wanting {
        let at = tenants.len() % nodes;
        let left = per_node - (tenants.len() / nodes) as u64;
        // So large that the node is about full in the end.
        let about = (free[at].memory / GIB / left).max(1);
        let gib = rng.random_range(about.div_ceil(2)..=about + about / 2).clamp(1, 8);
        tenants.push(tenant(gib.min(free[at].memory / GIB).max(1), Some(at), nodes, &mut rng));
        let size = tenants[tenants.len() - 1].size;
        free[at] = free[at].minus(&size);
    }
    match kind {
        Kind::Leave => leave(&mut tenants, nodes, &mut rng),
        Kind::Swap => swap(&mut tenants, nodes, &mut rng),
        Kind::One | Kind::Several => {}
    }
    let gibs = free.iter().map(|free| free.memory / GIB);
    let (most, all) = (gibs.clone().max().unwrap_or(0), gibs.sum::<u64>());
    for _ in 0..wanting as u64 {
        let gib = match kind {
            Kind::One => rng.random_range(most + 1..=all.max(most + 1)).min(ROOM - 3),
            _ => rng.random_range((most / 2).max(1)..=most.max(all / wanting as u64).max(1)),
        };
        tenants.push(tenant(gib, None, nodes, &mut rng));
    }
    if let (Kind::Swap, Some(wants)) = (kind, tenants.last_mut().filter(|t| t.at.is_none())) {
        let roomiest = (0..nodes).max_by_key(|host| free[*host].memory).unwrap_or(0);
        wants.size.memory = free[roomiest].memory.max(GIB);
        wants.may = (0..nodes).map(|host| host == roomiest).collect();
    }
    Situation { hosts: free.into_iter().map(|free| Host { free }).collect(), tenants }
}

fn tenant(gib: u64, at: Option<usize>, nodes: usize, rng: &mut ChaCha8Rng) -> Tenant {
    let cpu_milli = rng.random_range(1..=4) * 1000;
    let mut may: Vec<bool> = (0..nodes).map(|_| rng.random_bool(0.9)).collect();
    if let Some(at) = at {
        may[at] = true;
    }
    Tenant { size: Resources { cpu_milli, memory: gib * GIB }, at, may, cost: gib + SETUP }
}

/// One VM must leave its node, or all of a node.
fn leave(tenants: &mut [Tenant], nodes: usize, rng: &mut ChaCha8Rng) {
    let node = rng.random_range(0..nodes);
    let all = rng.random_bool(0.3);
    let one = tenants.iter().position(|tenant| tenant.at == Some(node));
    for (index, tenant) in tenants.iter_mut().enumerate() {
        if all {
            tenant.may[node] = tenant.may[node] && tenant.at == Some(node);
        }
        if tenant.at == Some(node) && (all || Some(index) == one) {
            tenant.may[node] = false;
        }
    }
}

/// On two nodes a VM is to go where the other is.
fn swap(tenants: &mut [Tenant], nodes: usize, rng: &mut ChaCha8Rng) {
    let first = rng.random_range(0..nodes);
    let second = (first + rng.random_range(1..nodes)) % nodes;
    for (node, other) in [(first, second), (second, first)] {
        let large = tenants.iter_mut().filter(|tenant| tenant.at == Some(node));
        if let Some(tenant) = large.max_by_key(|tenant| tenant.size.memory) {
            (tenant.may[node], tenant.may[other]) = (false, true);
        }
    }
}
