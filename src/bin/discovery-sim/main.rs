//! The simulator's command line.

mod arrivals;
#[cfg(feature = "deliberate-bugs")]
mod bugs;
mod compare;
mod data_centre;
mod fuzz;
mod lanes;
mod memory;
mod options;
mod pages;
mod pictures;
mod plans;
mod replay;
mod resume;
mod stopwatch;
mod table;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs DISCOVERY, or the literature's schedulers, under virtual time.
///
/// The same seed gives the same bytes, apart from wall_s and peak_mib. Flags are also environment variables.
#[derive(Parser)]
#[command(version = concat!(env!("CARGO_PKG_VERSION"), " (", env!("DISCOVERY_COMMIT"), ")"))]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs one workload, seed by seed.
    ///
    /// With the workload `arrivals`, the agents of DISCOVERY as they run on nodes: environments come, change and
    /// go while faults happen, and what must always hold is checked. With any other, a data centre whose VMs' loads
    /// change, under a scheduler.
    #[command(after_long_help = options::METRICS)]
    Run(Box<options::Run>),
    /// Runs several schedulers side by side on the same data centres.
    #[command(after_long_help = options::METRICS)]
    Compare(Box<options::Compare>),
    /// Breaks agents, nodes, disks, networks and the API server, seed after seed, and checks what must always hold after every event.
    ///
    /// On a break: the seed, the few steps that it takes, what people were told, and with --picture a picture. Exits with 1 then.
    #[command(after_long_help = options::faults())]
    Fuzz(Box<options::Fuzz>),
    /// Puts deliberate bugs into the engine, one at a time, and tells which seed of `fuzz` finds each.
    #[cfg(feature = "deliberate-bugs")]
    Bugs(options::Bugs),
    /// Shows what agents would decide next, from what they believe now.
    ///
    /// Reads what `/debug/engine` of each node's agent serves, one file for each node, and runs the agents' policy on these nodes
    /// and VMs with the loads that they have now. What the agents have learnt of the past is not in the files.
    Replay(options::Replay),
    /// Compares the plans that make room with those of an oracle that tries everything.
    ///
    /// Random cases: nodes nearly full of unlike VMs, and some that want room or must leave. Printed are the ratios of our cost over
    /// the least. Takes memory for each of nodes to the power of VMs: 67 MB for 4x12.
    Plans(options::Plans),
    /// Makes one HTML page, with pictures, of what `run` or `compare` printed with `--format json`.
    Report(options::Report),
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(options) => match options.workload {
            options::Workload::Arrivals => arrivals::run(&options),
            _ => compare::run(&options),
        },
        Command::Fuzz(options) => fuzz::run(&options),
        #[cfg(feature = "deliberate-bugs")]
        Command::Bugs(options) => bugs::run(&options),
        Command::Compare(options) => compare::compare(&options),
        Command::Replay(options) => replay::run(&options),
        Command::Plans(options) => plans::run(&options),
        Command::Report(options) => pages::write(&options),
    };
    done.unwrap_or_else(|problem| {
        eprintln!("{problem}");
        ExitCode::from(2)
    })
}
