//! Room for an environment that found none: which VMs of the partition's nodes would have to move first.
//!
//! The plan itself is `plan/`'s, which knows rooms and nodes but no constraints. Those of the VMs that want room, and of their
//! environment's others, are put to it as the nodes that each may have, and judged on what it comes to; those of foreign VMs are known
//! to their handlers only, who may refuse.

use super::board::Rules;
use super::plan::{Effort, Host, Move, Plan, Situation, Tenant, plan};
use super::{Goal, Problem, solve};
use crate::engine::id::{NodeName, VmId};
use crate::engine::lrt::{Guest, NodeOffer};
use crate::engine::spec::Resources;

/// Bytes a second that a migration is reckoned to make: only how costs compare matters.
const BYTES_PER_MS: u64 = 100 << 10;
/// What a migration takes beside that, milliseconds.
const SETUP_MS: u64 = 2_000;
/// Where more nodes than these are in the partition, VMs of an environment with constraints are not moved for its own sake:
/// each would have to be judged for each node.
const JUDGED: usize = 16;

/// A VM that is wished elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    /// Which.
    pub vm: VmId,
    /// Its name, for people.
    pub name: String,
    /// Where it is.
    pub from: NodeName,
    /// Where it is to go.
    pub to: NodeName,
}

/// The first step of a plan after which the problem has an answer; `None` if none was found, or nothing needs to move.
#[must_use]
pub fn make_room(problem: &Problem, offers: &[NodeOffer], goal: Goal) -> Option<Vec<Wish>> {
    let offers: Vec<NodeOffer> = offers.iter().filter(|o| o.schedulable).cloned().collect();
    let guests = movable(&offers);
    let rules = Rules::all(problem);
    let wherever: Vec<Vec<bool>> = problem
        .vms
        .iter()
        .map(|vm| offers.iter().map(|offer| rules.permit(problem, &vm.id, offer)).collect())
        .collect();
    let attempt = |may: &[Vec<bool>]| {
        let plan = plan(&situation(problem, &offers, &guests, may), Effort::FULL)?;
        helps(problem, &offers, &guests, &plan, goal).then_some(plan)
    };
    // If constraints between the VMs stand against the cheapest plan: one for places that they allow.
    let plan =
        attempt(&wherever).or_else(|| attempt(&allowed(problem, &offers, &guests, goal)?))?;
    let wish = |m: &Move| {
        let (_, guest) = guests[m.tenant];
        Wish {
            vm: guest.id.clone(),
            name: guest.ve.domain(&guest.id),
            from: offers[m.from].node.clone(),
            to: offers[m.to].node.clone(),
        }
    };
    Some(plan.steps.first()?.iter().map(wish).collect())
}

/// The VMs that may be moved, with their nodes' numbers.
fn movable(offers: &[NodeOffer]) -> Vec<(usize, &Guest)> {
    let numbered = offers.iter().enumerate();
    let guests = numbered.flat_map(|(host, offer)| offer.guests.iter().map(move |g| (host, g)));
    guests.filter(|(_, guest)| guest.movable).collect()
}

/// Guests first, in their order; then the VMs that want room, each with the nodes that it may have.
fn situation(
    problem: &Problem,
    offers: &[NodeOffer],
    guests: &[(usize, &Guest)],
    may: &[Vec<bool>],
) -> Situation {
    let moves = guests.iter().map(|(host, guest)| Tenant {
        size: guest.size,
        at: Some(*host),
        may: may_go(problem, offers, *host, guest),
        cost: SETUP_MS + guest.bytes / BYTES_PER_MS,
    });
    let wants = problem.vms.iter().zip(may).map(|(vm, may)| Tenant {
        size: Resources::of(vm.cpus, vm.memory),
        at: None,
        may: may.clone(),
        cost: 0,
    });
    Situation {
        hosts: offers.iter().map(|offer| Host { free: offer.free }).collect(),
        tenants: moves.chain(wants).collect(),
    }
}

/// The nodes that a guest may go to, as far as is known here.
fn may_go(problem: &Problem, offers: &[NodeOffer], host: usize, guest: &Guest) -> Vec<bool> {
    let own = problem.existing.contains_key(&guest.id) && !problem.constraints.is_empty();
    let may = |(to, offer): (usize, &NodeOffer)| {
        let from = &offers[host].node;
        let judge = || problem.holds_during_move(&guest.id, from, &offer.node, offers).is_ok();
        to == host || !own || (offers.len() <= JUDGED && judge())
    };
    offers.iter().enumerate().map(may).collect()
}

/// Whether the problem has an answer when a plan has been carried out.
fn helps(
    problem: &Problem,
    offers: &[NodeOffer],
    guests: &[(usize, &Guest)],
    plan: &Plan,
    goal: Goal,
) -> bool {
    let (mut problem, mut offers) = (problem.clone(), offers.to_vec());
    for m in plan.steps.iter().flatten() {
        let (_, guest) = guests[m.tenant];
        offers[m.from].free = offers[m.from].free.plus(&guest.size);
        offers[m.to].free = offers[m.to].free.minus(&guest.size);
        if let Some(place) = problem.existing.get_mut(&guest.id) {
            (place.node, place.zone) = (offers[m.to].node.clone(), offers[m.to].zone.clone());
        }
    }
    !plan.steps.is_empty() && solve(&problem, &offers, goal).is_some()
}

/// Of each VM the one node that it gets if all that may move were away.
fn allowed(
    problem: &Problem,
    offers: &[NodeOffer],
    guests: &[(usize, &Guest)],
    goal: Goal,
) -> Option<Vec<Vec<bool>>> {
    let mut empty = offers.to_vec();
    for (host, guest) in guests {
        empty[*host].free = empty[*host].free.plus(&guest.size);
    }
    let assignment = solve(problem, &empty, goal)?;
    let only = |vm: &VmId| offers.iter().map(|o| assignment.get(vm) == Some(&o.node)).collect();
    Some(problem.vms.iter().map(|vm| only(&vm.id)).collect())
}
