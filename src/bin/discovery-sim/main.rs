//! The simulator's command line.

use std::io::Write;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use discovery::sim::scenario::{self, Report, Scenario};

/// Runs many agents of DISCOVERY under virtual time, with faults, and checks what must always hold.
///
/// The agents are those that run on nodes. The same seed gives the same bytes.
#[derive(Parser)]
#[command(version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("DISCOVERY_COMMIT"), ")"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Environments come, change and go while faults happen; ends with a line or an object per seed.
    Run {
        /// Seeds, `A..B` (B excluded) or one.
        #[arg(long, env = "DISCOVERY_SIM_SEEDS", default_value = "0..10")]
        seeds: String,
        /// Physical nodes.
        #[arg(long, env = "DISCOVERY_SIM_NODES", default_value_t = 5)]
        nodes: usize,
        /// Virtual environments that are applied.
        #[arg(long, env = "DISCOVERY_SIM_VES", default_value_t = 8)]
        ves: usize,
        /// Faults: killed agents, lost power, cuts, an API server that goes, crashed guests, changes.
        #[arg(long, env = "DISCOVERY_SIM_FAULTS", default_value_t = 12)]
        faults: usize,
        /// Probability that a message is lost.
        #[arg(long, env = "DISCOVERY_SIM_LOSS", default_value_t = 0.02)]
        loss: f64,
        /// Probability that a message arrives twice.
        #[arg(long, env = "DISCOVERY_SIM_REPEAT", default_value_t = 0.02)]
        repeat: f64,
        /// How to print.
        #[arg(long, env = "DISCOVERY_SIM_FORMAT", value_enum, default_value_t = Format::Table)]
        format: Format,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// A line per seed.
    Table,
    /// One JSON object: `{"schema":1,"runs":[…]}`.
    Json,
}

fn main() -> ExitCode {
    let Command::Run { seeds, nodes, ves, faults, loss, repeat, format } = Cli::parse().command;
    let Some(seeds) = range(&seeds) else {
        eprintln!("--seeds: '{seeds}' is neither a number nor A..B with A below B");
        return ExitCode::from(2);
    };
    if nodes == 0 || !(0.0..1.0).contains(&loss) || !(0.0..1.0).contains(&repeat) {
        eprintln!("--nodes must be at least 1, --loss and --repeat from 0 to below 1");
        return ExitCode::from(2);
    }
    let runs = seeds.map(|seed| {
        let report = scenario::run(&Scenario { seed, nodes, ves, faults, loss, repeat });
        if matches!(format, Format::Table) {
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
            if serde_json::to_writer(&mut out, &all).is_err() || writeln!(out).is_err() {
                return ExitCode::FAILURE;
            }
        }
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn range(text: &str) -> Option<std::ops::Range<u64>> {
    let Some((from, to)) = text.split_once("..") else {
        let seed = text.parse().ok()?;
        return Some(seed..seed + 1);
    };
    let (from, to) = (from.parse().ok()?, to.parse().ok()?);
    (from < to).then_some(from..to)
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
