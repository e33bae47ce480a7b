//! `run --workload arrivals`: agents under faults, a line or an object per seed.

use std::io::Write;
use std::process::ExitCode;

use discovery::sim::scenario::{self, Report, Scenario};

use super::options::{Format, Run};

/// Messages lost unless the flag says otherwise.
const LOSS: f64 = 0.02;

/// Runs each seed; fails if one has a finding.
pub fn run(options: &Run) -> Result<ExitCode, String> {
    let Run { nodes, ves, faults, repeat, drains, .. } = *options;
    if nodes == 0 {
        return Err("--nodes must be at least 1".to_owned());
    }
    let loss = options.loss.unwrap_or(LOSS);
    let format = options.output.format;
    let runs = options.seeds.clone().map(|seed| {
        let report = scenario::run(&Scenario { seed, nodes, ves, faults, loss, repeat, drains });
        if format == Format::Table {
            line(&report);
        }
        report
    });
    let runs: Vec<Report> = runs.collect();
    let bad = runs.iter().filter(|run| !run.broken.is_empty() || !run.astray.is_empty()).count();
    match format {
        Format::Table => println!("{} runs, {bad} with a finding", runs.len()),
        Format::Json => {
            let all = serde_json::json!({ "schema": 1, "runs": runs });
            let mut out = std::io::stdout().lock();
            serde_json::to_writer(&mut out, &all).map_err(|error| error.to_string())?;
            writeln!(out).map_err(|error| error.to_string())?;
        }
    }
    Ok(if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn line(run: &Report) {
    println!(
        "seed {:>6}  {:>7} events  {:>5.0} s  whole {:>3}  waiting {:>2}  VMs {:>3}  lost {:>4}",
        run.seed,
        run.events,
        run.simulated_ms as f64 / 1000.0,
        run.whole,
        run.waiting,
        run.running,
        run.messages[1]
    );
    for broken in &run.broken {
        println!("    {broken}");
    }
    for astray in &run.astray {
        println!("    neither whole nor waiting whole: {astray}");
    }
}
