//! Plans that make room (`engine/lrt/solver/plan`), compared with an exact oracle on random cases.
//!
//! ```text
//!   cases.rs: nodes nearly full, somebody who wants room ──> plan(): ours ──> check(): is it one?
//!                                                       └──> oracle.rs: the least that any plan costs
//! ```
//!
//! `discovery-sim plans` prints the distribution of our cost over the oracle's.

pub mod cases;
pub mod oracle;
#[cfg(test)]
mod tests;

use serde::Serialize;

use crate::engine::lrt::solver::plan::{ARRIVALS, DEPARTURES, Effort, Plan, Situation, plan};
use crate::engine::spec::Resources;

/// What came of the cases of one kind and size.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Comparison {
    /// How many cases there were.
    pub cases: usize,
    /// The oracle found a plan that has at least one move.
    pub feasible: usize,
    /// Nothing had to be moved.
    pub trivial: usize,
    /// The oracle found one where ours did not.
    pub missed: Vec<u64>,
    /// Plans that are none: a state in between does not fit, or the end is not what was asked for.
    pub wrong: Vec<String>,
    /// Ours said that none is cheaper.
    pub certain: usize,
    /// Our cost over the least, in thousandths, ascending.
    pub ratios: Vec<u64>,
    /// Moves of our plans, in all.
    pub moves: usize,
    /// Plans in which a VM moves more than once: it makes way and goes on, or comes back.
    pub bypasses: usize,
    /// Makespan over cost, in thousandths, summed: what moves at the same time bring.
    pub overlap: u64,
}

impl Comparison {
    /// The mean ratio, in thousandths.
    #[must_use]
    pub fn mean(&self) -> u64 {
        self.ratios.iter().sum::<u64>() / (self.ratios.len() as u64).max(1)
    }

    /// The ratio that so many percent of the cases do not exceed, in thousandths.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u64 {
        let last = self.ratios.len().saturating_sub(1);
        self.ratios.get(last * percent / 100).copied().unwrap_or(0)
    }
}

/// Compares on the cases of these seeds, all of one size.
#[must_use]
pub fn compare(seeds: std::ops::Range<u64>, nodes: usize, vms: usize) -> Comparison {
    let mut all = Comparison::default();
    for seed in seeds {
        let case = cases::case(seed, nodes, vms);
        all.cases += 1;
        let least = oracle::least(&case);
        let ours = plan(&case, Effort::FULL);
        if let Some(Err(why)) = ours.as_ref().map(|plan| check(&case, plan)) {
            all.wrong.push(format!("seed {seed}: {why}"));
        }
        match (ours, least) {
            (None, None) => {}
            (Some(_), None) => all.wrong.push(format!("seed {seed}: the oracle has none")),
            (None, Some(_)) => all.missed.push(seed),
            (Some(_), Some(0)) => all.trivial += 1,
            (Some(plan), Some(least)) => {
                if plan.cost < least {
                    all.wrong.push(format!("seed {seed}: cheaper than the oracle's"));
                }
                let moves: Vec<usize> = plan.steps.iter().flatten().map(|m| m.tenant).collect();
                let again = |tenant: &usize| moves.iter().filter(|t| *t == tenant).count() > 1;
                all.bypasses += usize::from(moves.iter().any(again));
                all.moves += moves.len();
                all.certain += usize::from(plan.cheapest);
                all.overlap += plan.makespan * 1000 / plan.cost;
                all.ratios.push(plan.cost * 1000 / least);
            }
        }
    }
    all.feasible = all.ratios.len() + all.missed.len();
    all.ratios.sort_unstable();
    all
}

/// Whether a plan does what was asked, with room at every moment. Written apart from the planner.
///
/// # Errors
/// What is wrong with it.
pub fn check(case: &Situation, plan: &Plan) -> Result<(), String> {
    let mut at: Vec<Option<usize>> = case.tenants.iter().map(|tenant| tenant.at).collect();
    let mut limit: Vec<Resources> = case.hosts.iter().map(|host| host.free).collect();
    for tenant in &case.tenants {
        if let Some(at) = tenant.at {
            limit[at] = limit[at].plus(&tenant.size);
        }
    }
    let used = |counts: &dyn Fn(usize, usize) -> bool, host: usize| {
        let here = (0..case.tenants.len()).filter(|tenant| counts(*tenant, host));
        here.fold(Resources::default(), |sum, tenant| sum.plus(&case.tenants[tenant].size))
    };
    for (number, step) in plan.steps.iter().enumerate() {
        for m in step {
            if at[m.tenant] != Some(m.from) || !case.tenants[m.tenant].may[m.to] {
                return Err(format!("step {number}: {m:?} cannot be"));
            }
        }
        for (host, limit) in limit.iter().enumerate() {
            let arrivals = step.iter().filter(|m| m.to == host).count();
            let departures = step.iter().filter(|m| m.from == host).count();
            if arrivals > ARRIVALS || departures > DEPARTURES {
                return Err(format!("step {number}: too much at once on {host}"));
            }
            let counts = |tenant: usize, host: usize| {
                at[tenant] == Some(host) || step.iter().any(|m| (m.tenant, m.to) == (tenant, host))
            };
            if arrivals > 0 && !limit.holds(&used(&counts, host)) {
                return Err(format!("step {number}: {host} is too full"));
            }
        }
        let mut moved: Vec<usize> = step.iter().map(|m| m.tenant).collect();
        moved.sort_unstable();
        moved.dedup();
        if moved.len() != step.len() {
            return Err(format!("step {number}: one VM twice"));
        }
        step.iter().for_each(|m| at[m.tenant] = Some(m.to));
    }
    for (tenant, host) in &plan.places {
        at[*tenant] = Some(*host);
    }
    let placed = |tenant: usize| at[tenant].is_some_and(|host| case.tenants[tenant].may[host]);
    if !(0..case.tenants.len()).all(placed) {
        return Err("somebody is not where it may be".into());
    }
    let counts = |tenant: usize, host: usize| at[tenant] == Some(host);
    let fits = |host: usize| limit[host].holds(&used(&counts, host));
    if (0..limit.len()).all(fits) { Ok(()) } else { Err("the end does not fit".into()) }
}
