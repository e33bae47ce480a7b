//! The solver against an oracle that tries everything: is there an answer, and what is the cheapest?
//!
//! `cargo test … oracle -- --nocapture` prints the distribution of our cost over the oracle's; with
//! `DISCOVERY_ORACLE=full`, of larger cases.

use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::*;

/// Nodes, VMs, and how many random cases of that size: what a debug build tries in seconds.
const SIZES: [(usize, usize, usize); 4] = [(2, 10, 20), (3, 7, 30), (4, 6, 60), (4, 7, 10)];
/// With `DISCOVERY_ORACLE=full`: minutes.
const FULL: [(usize, usize, usize); 4] = [(2, 12, 60), (3, 9, 40), (4, 8, 40), (4, 9, 10)];
/// How far above the cheapest answer ours may be on average.
const WITHIN: f64 = 1.10;

/// What an assignment costs: written apart from the search, on the whole at once.
fn cost(goal: Goal, problem: &Problem, offers: &[NodeOffer], assignment: &Assignment) -> u64 {
    let share = |all: u64, free: u64| (all - free) * 1000 / all;
    let node = |(rank, offer): (usize, &NodeOffer)| -> u64 {
        let here = problem.vms.iter().filter(|vm| assignment.get(&vm.id) == Some(&offer.node));
        let sizes: Vec<_> = here.map(|vm| Resources::of(vm.cpus, vm.memory)).collect();
        let placed = sizes.iter().fold(Resources::default(), |sum, size| sum.plus(size));
        let (all, free, left) = (offer.allocatable, offer.free, offer.free.minus(&placed));
        let used = |free: Resources| {
            [share(all.cpu_milli, free.cpu_milli), share(all.memory, free.memory)]
        };
        let squares = |shares: [u64; 2]| shares.iter().map(|share| share * share).sum::<u64>();
        let vms = sizes.len() as u64;
        let own = match goal {
            Goal::Balance => squares(used(left)) - squares(used(free)),
            Goal::Pack => {
                let opened = if vms > 0 && free == all { 1000 } else { 0 };
                opened + vms * (1000 - used(free).into_iter().max().unwrap_or(0))
            }
            Goal::Stay => return vms * rank as u64,
        };
        own * 64 + vms * rank as u64
    };
    offers.iter().enumerate().map(node).sum()
}

/// Tries every assignment, but for those that go on from what is broken already or costs too much.
struct Oracle<'a> {
    goal: Goal,
    problem: &'a Problem,
    offers: &'a [NodeOffer],
    best: Option<u64>,
}

impl Oracle<'_> {
    fn go(&mut self, assignment: &mut Assignment) {
        let cost = cost(self.goal, self.problem, self.offers, assignment);
        let too_much = self.best.is_some_and(|best| cost >= best);
        if too_much || !holds(self.problem, self.offers, assignment) {
            return;
        }
        let Some(vm) = self.problem.vms.get(assignment.len()) else {
            self.best = Some(cost);
            return;
        };
        for offer in self.offers {
            assignment.insert(vm.id.clone(), offer.node.clone());
            self.go(assignment);
            assignment.remove(&vm.id);
        }
    }
}

/// Some nodes, each in use already to some degree, and VMs that nearly fill them.
fn cases(nodes: usize, vms: usize) -> impl Strategy<Value = (Problem, Vec<NodeOffer>)> {
    let nodes = prop::collection::vec((0..3_usize, 4..16_u64, 0..3_u64), nodes);
    let vms = prop::collection::vec((prop::bool::ANY, 1..5_u64, 1..3_u32), vms);
    let constraints = prop::collection::vec(constraint(), 0..4);
    (nodes, vms, constraints).prop_map(|(nodes, vms, constraints)| {
        let vms = vms.iter().enumerate().map(|(index, (first, memory, cpus))| {
            let vm = vm(if *first { "a" } else { "b" }, index as u32, *memory);
            VmDefinition { cpus: *cpus, ..vm }
        });
        let offers = nodes.iter().enumerate().map(|(index, (zone, memory, used))| {
            let mut offer = offer(&format!("n{index}"), ["x", "y", "z"][*zone], *memory);
            offer.allocatable.cpu_milli = 12_000;
            offer.free = offer.allocatable.minus(&Resources::of(*used as u32, used * MIB));
            offer.allocated = offer.allocatable.minus(&offer.free);
            (offer.others, offer.processors_milli) = (u32::from(*used == 2), 8_000);
            offer
        });
        (problem(vms.collect(), constraints), offers.collect())
    })
}

#[test]
fn the_oracle_finds_no_answer_that_ours_misses_and_none_much_cheaper() {
    let full = std::env::var("DISCOVERY_ORACLE").is_ok_and(|size| size == "full");
    let sizes = if full { FULL } else { SIZES };
    let cases_in_all: usize = sizes.iter().map(|(_, _, times)| times).sum();
    println!("goal     cases feasible missed   mean    p95    max  exact");
    for goal in [Goal::Balance, Goal::Pack, Goal::Stay] {
        let mut runner = TestRunner::deterministic();
        let mut ratios = Vec::new();
        let mut missed = 0;
        let each = sizes.iter().flat_map(|(nodes, vms, times)| vec![(*nodes, *vms); *times]);
        for (nodes, vms) in each {
            let case = cases(nodes, vms).new_tree(&mut runner);
            let (problem, offers) = case.expect("a case").current();
            let mut oracle = Oracle { goal, problem: &problem, offers: &offers, best: None };
            oracle.go(&mut Assignment::new());
            match (solve(&problem, &offers, goal), oracle.best) {
                (Some(ours), Some(best)) => {
                    assert!(holds(&problem, &offers, &ours), "{problem:?} {offers:?}");
                    let ours = cost(goal, &problem, &offers, &ours);
                    assert!(ours >= best, "the oracle overlooked one: {problem:?} {offers:?}");
                    ratios.push(if ours == best { 1.0 } else { ours as f64 / best as f64 });
                }
                (None, Some(_)) => missed += 1,
                (Some(ours), None) => panic!("{ours:?} is no answer: {problem:?} {offers:?}"),
                (None, None) => {}
            }
        }
        ratios.sort_by(f64::total_cmp);
        let feasible = ratios.len() + missed;
        let mean = ratios.iter().sum::<f64>() / ratios.len() as f64;
        let (p95, max) = (ratios[ratios.len() * 95 / 100], ratios[ratios.len() - 1]);
        let exact = ratios.iter().filter(|ratio| **ratio == 1.0).count() * 100 / ratios.len();
        println!(
            "{:8} {cases_in_all:5} {feasible:8} {missed:6} {mean:6.3} {p95:6.3} {max:6.3} {exact:4} %",
            format!("{goal:?}").to_lowercase()
        );
        assert!(feasible * 4 > cases_in_all, "only {feasible} cases have an answer");
        assert_eq!(missed, 0, "{goal:?}");
        assert!(mean <= WITHIN, "{goal:?}: {mean}");
    }
}
