//! The smallest set of rules that clash: found by leaving each out in turn, and leaving out for good what is
//! not needed for there to be no answer (deletion-based minimal unsatisfiable subset: Bakker et al., 1993;
//! Marques-Silva, 2010). As many searches as there are rules, each bounded; the same in each run.

use super::board::{Board, Rules};
use super::search::{self, Effort, Outcome};
use super::why::{bytes, cpus, more};
use super::{Goal, Problem, domain_of};
use crate::engine::lrt::NodeOffer;
use crate::engine::spec::{Constraint, Resources};

/// Most nodes more that are tried to say how many `maxNodes` would have to allow.
const MORE_NODES: u32 = 8;

/// Rules that cannot all hold on the offered nodes.
#[derive(Debug)]
pub struct Clash<'a> {
    /// The rules.
    pub rules: Rules<'a>,
    /// Leaving out any one of them is enough, all other rules being kept.
    pub any_would_do: bool,
}

/// One rule, as it is left out.
#[derive(Clone, Copy)]
enum Part {
    Constraint(usize),
    Disks,
}

fn without<'a>(rules: &Rules<'a>, part: Part) -> Rules<'a> {
    let mut rules = rules.clone();
    match part {
        Part::Constraint(index) => drop(rules.constraints.remove(index)),
        Part::Disks => rules.disks = false,
    }
    rules
}

fn parts(rules: &Rules<'_>) -> Vec<Part> {
    let disks = rules.disks.then_some(Part::Disks);
    (0..rules.constraints.len()).map(Part::Constraint).chain(disks).collect()
}

fn check(problem: &Problem, offers: &[NodeOffer], rules: &Rules<'_>) -> search::Searched {
    search::run(Board::new(problem, offers, rules), Goal::Stay, Effort::CHECK)
}

/// Finds what clashes. `None` when no rules do: it is the nodes' room.
pub fn find<'a>(problem: &'a Problem, offers: &[NodeOffer]) -> Option<Clash<'a>> {
    let fits = |rules: &Rules<'_>| check(problem, offers, rules).outcome;
    if !matches!(fits(&Rules::none()), Outcome::Found(_)) {
        return None;
    }
    let mut all = Rules::all(problem);
    all.disks = !problem.pinned.is_empty();
    let mut kept = all.clone();
    // From the last to the first, so that the numbers of those still to be tried stay right.
    for part in parts(&kept).into_iter().rev() {
        let fewer = without(&kept, part);
        // Whoever gave up has not shown that the rule can go.
        if fits(&fewer) == Outcome::Impossible {
            kept = fewer;
        }
    }
    let needed = |part: &Part| match part {
        Part::Constraint(index) => {
            kept.constraints.iter().any(|rule| std::ptr::eq(*rule, all.constraints[*index]))
        }
        Part::Disks => kept.disks,
    };
    let any_would_do = parts(&all)
        .into_iter()
        .filter(needed)
        .all(|part| matches!(fits(&without(&all, part)), Outcome::Found(_)));
    Some(Clash { rules: kept, any_would_do })
}

impl Clash<'_> {
    /// Which rules clash, what would help, and how near it came.
    pub fn words(&self, problem: &Problem, offers: &[NodeOffer]) -> String {
        let mut names: Vec<String> = self.rules.constraints.iter().map(|c| c.to_string()).collect();
        names.extend(self.rules.disks.then(|| disks(problem)));
        let named = match names.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, others)) => format!("{} and {last}", others.join(", ")),
            None => "the rules".into(),
        };
        let clash = match (names.len(), self.any_would_do) {
            (1, true) => format!("{named} cannot hold: without it, it would fit"),
            (1, false) => format!("{named} cannot hold"),
            (2, true) => format!("{named} clash: without either, it would fit"),
            (_, true) => format!("{named} clash: without any one of them, it would fit"),
            (_, false) => format!("{named} clash, and they are not alone"),
        };
        let nearest = self
            .nearest_spread(problem, offers)
            .or_else(|| self.nearest_gather(problem, offers))
            .or_else(|| self.nearest_count(problem, offers))
            .or_else(|| self.nearest_spare())
            .unwrap_or_else(|| at_best(check(problem, offers, &self.rules).most, problem));
        format!("{clash}; {nearest}")
    }

    /// How many domains a spread needs, and how many the other rules leave it.
    fn nearest_spread(&self, problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
        let (spread, over) = self.rules.constraints.iter().find_map(|c| match c {
            Constraint::Spread { over, .. } => Some((*c, *over)),
            _ => None,
        })?;
        let others: Vec<&str> = self
            .rules
            .constraints
            .iter()
            .filter(|c| is_about_single_vms(c))
            .map(|c| c.name())
            .chain(self.rules.disks.then_some("disks"))
            .collect();
        if others.is_empty() {
            return None;
        }
        let need = more::new(problem, spread).count();
        let left = more::domains(problem, offers, spread, over, |vm, offer| {
            self.rules.permit(problem, &vm.id, offer)
        });
        let what = more::noun(over, need);
        let more = if more::taken(problem, spread, over).is_empty() { "" } else { " more" };
        let satisfy = if left == 1 { "satisfies" } else { "satisfy" };
        Some(format!("spread needs {need}{more} {what}, {left} {satisfy} {}", others.join(" and ")))
    }

    /// What a gather needs in one domain, and what the best has.
    fn nearest_gather(&self, problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
        let [Constraint::Gather { over, .. }] = self.rules.constraints[..] else { return None };
        let new = more::new(problem, self.rules.constraints[0]);
        let need =
            new.fold(Resources::default(), |sum, vm| sum.plus(&Resources::of(vm.cpus, vm.memory)));
        let mut rooms = std::collections::BTreeMap::new();
        for offer in offers.iter().filter(|offer| offer.schedulable) {
            let room = rooms
                .entry(domain_of(*over, &offer.node, &offer.zone))
                .or_insert_with(Resources::default);
            *room = room.plus(&offer.free);
        }
        let (best, room) = rooms.iter().max_by_key(|(_, room)| (room.memory, room.cpu_milli))?;
        Some(format!(
            "gather needs {} and {} in one {over}, {} has {} and {}",
            cpus(need.cpu_milli),
            bytes(need.memory),
            best.trim_start_matches('/'),
            cpus(room.cpu_milli),
            bytes(room.memory)
        ))
    }

    /// A full placement that no loss may befall is no near miss of any number.
    fn nearest_spare(&self) -> Option<String> {
        let spare = self.rules.constraints.iter().any(|c| **c == Constraint::Spare);
        spare.then(|| "with one node lost, its VMs find no room on the others".into())
    }

    /// How many nodes `maxNodes` would have to allow.
    fn nearest_count(&self, problem: &Problem, offers: &[NodeOffer]) -> Option<String> {
        let (at, most) = self.rules.constraints.iter().enumerate().find_map(|(at, c)| match c {
            Constraint::MaxNodes(most) => Some((at, *most)),
            _ => None,
        })?;
        (most + 1..=most + MORE_NODES).find_map(|more| {
            let looser = Constraint::MaxNodes(more);
            let mut rules = without(&self.rules, Part::Constraint(at));
            rules.constraints.push(&looser);
            let found = matches!(check(problem, offers, &rules).outcome, Outcome::Found(_));
            found.then(|| format!("it needs {more} nodes"))
        })
    }
}

/// Whether a constraint can be judged node by node, for a spread to count what is left.
fn is_about_single_vms(constraint: &Constraint) -> bool {
    matches!(
        constraint,
        Constraint::Fence { .. }
            | Constraint::Ban { .. }
            | Constraint::Lonely { .. }
            | Constraint::Quarantine { .. }
    )
}

/// How far a search came.
pub fn at_best(most: usize, problem: &Problem) -> String {
    format!("at best {most} of {} VMs find a place", problem.vms.len())
}

fn disks(problem: &Problem) -> String {
    let first = problem.pinned.iter().next();
    let first = first.map(|(vm, node)| format!("{}-{} on {node}", vm.member, vm.index));
    let more = match problem.pinned.len() {
        0 | 1 => String::new(),
        all => format!(" and {} more", all - 1),
    };
    format!("disks ({}{more})", first.unwrap_or_default())
}
