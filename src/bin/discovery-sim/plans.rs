//! `plans`: plans that make room, against the exact oracle.

use std::process::ExitCode;

use discovery::sim::plans::compare;

use super::options::Plans;

/// Compares, size by size; fails if a plan is missed or wrong.
pub fn run(options: &Plans) -> Result<ExitCode, String> {
    println!(
        "nodes VMs  cases trivial feasible missed   mean    p50    p95    p99    max  cheapest certain  moves bypasses makespan/cost"
    );
    let mut good = true;
    for size in &options.sizes {
        let (nodes, vms) = *size;
        let all = compare(options.seeds.clone(), nodes, vms);
        let of = |ratio: u64| format!("{}.{:03}", ratio / 1000, ratio % 1000);
        let found = all.ratios.len().max(1);
        let cheapest = all.ratios.iter().filter(|ratio| **ratio == 1000).count() * 100 / found;
        println!(
            "{nodes:5} {vms:3} {:6} {:7} {:8} {:6} {:>6} {:>6} {:>6} {:>6} {:>6} {cheapest:7} % {:5} % {:6} {:8} {:>13}",
            all.cases,
            all.trivial,
            all.feasible,
            all.missed.len(),
            of(all.mean()),
            of(all.percentile(50)),
            of(all.percentile(95)),
            of(all.percentile(99)),
            of(all.percentile(100)),
            all.certain * 100 / found,
            all.moves,
            all.bypasses,
            of(all.overlap / found as u64),
        );
        for wrong in &all.wrong {
            println!("    wrong: {wrong}");
        }
        if !all.missed.is_empty() {
            println!("    missed: seeds {:?}", all.missed);
        }
        good &= all.wrong.is_empty() && all.missed.is_empty();
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
