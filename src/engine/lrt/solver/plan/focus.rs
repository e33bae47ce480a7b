//! The few nodes that a plan is looked for on: where those who want room are let in at the least cost, where VMs must leave,
//! and where there is most room for what is moved.

use std::collections::BTreeSet;

use super::bound::{Item, cover};
use super::{Situation, Tenant};

/// Nodes that a search looks at, at most: each VM more may go to each.
const HOSTS: usize = 8;
/// For each who wants room (those that are alike are one), so many nodes that cost least to be cleared for it.
const DOORS: usize = 3;

/// Part of a situation.
pub struct Focus {
    /// That part, in numbers of its own.
    pub situation: Situation,
    /// Its nodes' numbers in the whole.
    pub hosts: Vec<usize>,
    /// Its tenants' numbers in the whole.
    pub tenants: Vec<usize>,
}

/// The part of a situation that matters.
pub fn on(whole: &Situation) -> Focus {
    let hosts: Vec<usize> = chosen(whole).into_iter().collect();
    let is_in = |host: usize| hosts.binary_search(&host).is_ok();
    let own = |host: usize| hosts.binary_search(&host).ok();
    let tenants: Vec<usize> = (0..whole.tenants.len())
        .filter(|index| whole.tenants[*index].at.is_none_or(is_in))
        .collect();
    let part = |index: &usize| {
        let tenant = &whole.tenants[*index];
        let may = hosts.iter().map(|host| tenant.may.get(*host) == Some(&true)).collect();
        Tenant { at: tenant.at.and_then(own), may, ..tenant.clone() }
    };
    let situation = Situation {
        hosts: hosts.iter().map(|host| whole.hosts[*host].clone()).collect(),
        tenants: tenants.iter().map(part).collect(),
    };
    Focus { situation, hosts, tenants }
}

fn chosen(whole: &Situation) -> BTreeSet<usize> {
    let all = 0..whole.hosts.len();
    if all.len() <= HOSTS {
        return all.collect();
    }
    let mut chosen = BTreeSet::new();
    let may = |tenant: &Tenant, host: usize| tenant.may.get(host) == Some(&true);
    let leavers = whole.tenants.iter().filter_map(|t| t.at.filter(|at| !may(t, *at)));
    chosen.extend(leavers.take(HOSTS / 2));
    let mut seen: Vec<&Tenant> = Vec::new();
    for wants in whole.tenants.iter().filter(|tenant| tenant.at.is_none()) {
        if chosen.len() >= HOSTS - DOORS || seen.contains(&wants) {
            continue;
        }
        seen.push(wants);
        let mut doors: Vec<(u64, usize)> = all
            .clone()
            .filter(|host| may(wants, *host))
            .filter_map(|host| Some((clearing(whole, wants, host)?, host)))
            .collect();
        doors.sort_unstable();
        chosen.extend(doors.into_iter().take(DOORS).map(|(_, host)| host));
    }
    // The roomiest, nearest first where they are alike.
    let mut roomy: Vec<usize> = all.collect();
    roomy.sort_by_key(|host| std::cmp::Reverse(whole.hosts[*host].free.memory));
    for host in roomy {
        if chosen.len() < HOSTS {
            chosen.insert(host);
        }
    }
    chosen
}

/// What it costs at least to clear a node for this one.
fn clearing(whole: &Situation, wants: &Tenant, host: usize) -> Option<u64> {
    let here = whole.tenants.iter().filter(|tenant| tenant.at == Some(host));
    let mut items = here.map(|t| Item { size: t.size, cost: t.cost }).collect();
    cover(&mut items, wants.size.minus(&whole.hosts[host].free))
}
