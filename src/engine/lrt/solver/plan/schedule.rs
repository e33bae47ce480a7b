//! The moves of a plan, which come one after the other, at the same time as far as there is room for it.

use super::search::Found;
use super::{Move, Plan, Situation};
use crate::engine::spec::Resources;

/// VMs that leave a node in one step.
pub const DEPARTURES: usize = 2;
/// VMs that arrive at a node in one step.
pub const ARRIVALS: usize = 2;

/// The plan that these moves come to.
pub fn plan(situation: &Situation, found: Found) -> Plan {
    let mut steps: Vec<Vec<Move>> = Vec::new();
    for next in found.moves {
        // Not before its own move before; a step of its own, last, is always possible.
        let own = steps.iter().rposition(|step| step.iter().any(|m| m.tenant == next.tenant));
        let first = own.map_or(0, |index| index + 1);
        let fits = (first..steps.len()).find(|index| {
            steps[*index].push(next);
            let holds = is_possible(situation, &steps);
            if !holds {
                steps[*index].pop();
            }
            holds
        });
        if fits.is_none() {
            steps.push(vec![next]);
        }
    }
    let cost = |m: &Move| situation.tenants[m.tenant].cost;
    Plan {
        cost: steps.iter().flatten().map(cost).sum(),
        makespan: steps.iter().map(|step| step.iter().map(cost).max().unwrap_or(0)).sum(),
        steps,
        places: found.places,
        cheapest: found.cheapest,
    }
}

/// Whether every state in between fits, each VM that is on its way counted at both ends, and no node has more to do than it
/// does at once.
fn is_possible(situation: &Situation, steps: &[Vec<Move>]) -> bool {
    let mut free: Vec<Resources> = situation.hosts.iter().map(|host| host.free).collect();
    let size = |m: &Move| situation.tenants[m.tenant].size;
    steps.iter().all(|step| {
        for (host, free) in free.iter().enumerate() {
            let (comes, goes) = (|m: &&Move| m.to == host, |m: &&Move| m.from == host);
            let (arrivals, departures) = (step.iter().filter(comes), step.iter().filter(goes));
            if arrivals.clone().count() > ARRIVALS || departures.count() > DEPARTURES {
                return false;
            }
            let arrives = arrivals.fold(Resources::default(), |sum, m| sum.plus(&size(m)));
            if !free.holds(&arrives) {
                return false;
            }
        }
        for m in step {
            free[m.to] = free[m.to].minus(&size(m));
            free[m.from] = free[m.from].plus(&size(m));
        }
        true
    })
}
