//! The exact answer, by Dijkstra's algorithm over every configuration: nothing is left out, nothing is guessed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::engine::lrt::solver::plan::Situation;
use crate::engine::spec::Resources;

/// The least cost of moves, one after the other, that give everybody room; moves at the same time cannot do more.
///
/// Takes four bytes for each of nodes to the power of VMs.
#[must_use]
pub fn least(case: &Situation) -> Option<u64> {
    let hosts = case.hosts.len();
    let runs: Vec<usize> =
        (0..case.tenants.len()).filter(|index| case.tenants[*index].at.is_some()).collect();
    let wants: Vec<usize> =
        (0..case.tenants.len()).filter(|index| case.tenants[*index].at.is_none()).collect();
    let mut limit: Vec<Resources> = case.hosts.iter().map(|host| host.free).collect();
    let mut start = 0;
    for index in runs.iter().rev() {
        let at = case.tenants[*index].at.unwrap_or(0);
        limit[at] = limit[at].plus(&case.tenants[*index].size);
        start = start * hosts + at;
    }
    let mut known = vec![u32::MAX; hosts.pow(runs.len() as u32)];
    known[start] = 0;
    let mut queue = BinaryHeap::from([Reverse((0_u32, start))]);
    while let Some(Reverse((cost, state))) = queue.pop() {
        if known[state] < cost {
            continue;
        }
        let mut free = limit.clone();
        let (mut rest, mut at) = (state, Vec::with_capacity(runs.len()));
        for index in &runs {
            at.push(rest % hosts);
            free[rest % hosts] = free[rest % hosts].minus(&case.tenants[*index].size);
            rest /= hosts;
        }
        let allowed = runs.iter().zip(&at).all(|(index, at)| case.tenants[*index].may[*at]);
        if allowed && house(case, &wants, &mut free) {
            return Some(u64::from(cost));
        }
        let mut weight = 1;
        for (index, from) in runs.iter().zip(&at) {
            let tenant = &case.tenants[*index];
            for to in (0..hosts).filter(|to| to != from && tenant.may[*to]) {
                if !free[to].holds(&tenant.size) {
                    continue;
                }
                let next = state - from * weight + to * weight;
                let cost = cost + tenant.cost as u32;
                if cost < known[next] {
                    known[next] = cost;
                    queue.push(Reverse((cost, next)));
                }
            }
            weight *= hosts;
        }
    }
    None
}

/// Whether all of these find room.
fn house(case: &Situation, wants: &[usize], free: &mut [Resources]) -> bool {
    let Some((first, rest)) = wants.split_first() else { return true };
    let tenant = &case.tenants[*first];
    (0..free.len()).any(|host| {
        if !tenant.may[host] || !free[host].holds(&tenant.size) {
            return false;
        }
        let before = free[host];
        free[host] = before.minus(&tenant.size);
        let housed = house(case, rest, free);
        free[host] = before;
        housed
    })
}
