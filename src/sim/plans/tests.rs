//! Small sizes, in seconds of a debug build; larger ones: `discovery-sim plans`.

use super::*;

#[test]
fn ours_finds_a_plan_wherever_the_oracle_does_and_none_much_dearer() {
    println!("nodes VMs cases feasible missed  mean   p95   max");
    for (nodes, vms, cases) in [(2, 8, 150), (3, 7, 200), (4, 6, 200), (4, 7, 60)] {
        let all = compare(0..cases, nodes, vms);
        let (mean, p95, max) = (all.mean(), all.percentile(95), all.percentile(100));
        let (feasible, missed) = (all.feasible, &all.missed);
        println!("{nodes:5} {vms:3} {cases:5} {feasible:8} {missed:?} {mean:6} {p95:5} {max:5}");
        assert!(all.wrong.is_empty(), "{:?}", all.wrong);
        assert!(missed.is_empty(), "{nodes} x {vms}: {missed:?}");
        assert!(feasible as u64 * 10 > cases, "only {feasible} cases have a plan");
        assert!(mean <= 1100, "{nodes} x {vms}: {mean}");
    }
}

#[test]
fn the_same_case_has_the_same_plan() {
    for seed in 0..20 {
        let case = cases::case(seed, 4, 9);
        assert_eq!(plan(&case, Effort::FULL), plan(&case, Effort::FULL));
    }
}
