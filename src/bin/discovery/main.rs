//! `discovery`: the agent of a node, and what people and charts need beside it.
//!
//! `cli.rs` says what can be asked for; each subcommand has a file of its own. Nothing else in the crate
//! names concrete rims together: here they are made and handed to the driver.

mod agent;
mod cli;
mod counters;
mod crds;
mod doctor;
mod guard;
mod logs;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let cli::Cli { command, logs } = cli::Cli::parse();
    let result = match command {
        cli::Command::Agent(flags) => logs::start(&logs).and_then(|()| agent::run(*flags)),
        cli::Command::Guard(flags) => logs::start(&logs).and_then(|()| guard::run(flags)),
        cli::Command::Crds => crds::run(),
        cli::Command::Doctor(flags) => logs::start(&logs).and_then(|()| doctor::run(&flags)),
    };
    result.unwrap_or_else(|error| {
        // Also when no log has begun.
        eprintln!("discovery: {error}");
        ExitCode::FAILURE
    })
}
