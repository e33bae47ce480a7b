//! `run` and `compare` on data centres: all runs, then the output.

use std::io::Write;
use std::ops::Range;
use std::process::ExitCode;

use discovery::sim::datacenter::catalogue::Name;
use discovery::sim::datacenter::report::RunReport;
use serde::{Deserialize, Serialize};

use super::data_centre::DataCentre;
use super::options::{Compare, Format, Output, Run, Shape, Workload};
use super::stopwatch::Stopwatch;
use super::table;

/// What is printed with `--format json`, and read by `report`.
#[derive(Serialize, Deserialize)]
pub struct Runs {
    pub schema: u32,
    pub runs: Vec<RunReport>,
}

/// The present schema.
pub const SCHEMA: u32 = 1;

/// Everything to be run.
struct Grid<'a> {
    workload: Workload,
    pms: &'a [u32],
    schedulers: &'a [Name],
    seeds: Range<u64>,
    loss: f64,
    shape: &'a Shape,
}

/// `run` with one scheduler.
pub fn run(options: &Run) -> Result<ExitCode, String> {
    let grid = Grid {
        workload: options.workload,
        pms: &[options.pms],
        schedulers: &[options.scheduler],
        seeds: options.seeds.clone(),
        loss: options.loss.unwrap_or(0.0),
        shape: &options.shape,
    };
    let runs = grid.run()?;
    print(runs, &options.output, table::per_run)
}

/// `compare`.
pub fn compare(options: &Compare) -> Result<ExitCode, String> {
    let grid = Grid {
        workload: options.workload,
        pms: &options.pms,
        schedulers: &options.schedulers,
        seeds: options.seeds.clone(),
        loss: options.loss,
        shape: &options.shape,
    };
    let runs = grid.run()?;
    print(runs, &options.output, table::per_scheduler)
}

impl Grid<'_> {
    fn run(self) -> Result<Vec<RunReport>, String> {
        let trace = match &self.shape.trace {
            Some(path) => std::fs::read_to_string(path)
                .map_err(|error| format!("{}: {error}", path.display()))?,
            None => String::new(),
        };
        let seeds = (self.seeds.end - self.seeds.start) as usize;
        let total = self.pms.len() * self.schedulers.len() * seeds;
        let mut runs = Vec::new();
        let mut watch = Stopwatch::start();
        for pms in self.pms {
            for scheduler in self.schedulers {
                for seed in self.seeds.clone() {
                    let name = scheduler.as_str();
                    let number = runs.len() + 1;
                    let label =
                        format!("run {number} of {total}: {pms} nodes, {name}, seed {seed}");
                    if watch.should_tell() {
                        eprintln!("{label}");
                    }
                    let data_centre = DataCentre {
                        workload: self.workload,
                        shape: self.shape,
                        trace: &trace,
                        pms: *pms,
                        scheduler: *scheduler,
                        seed,
                        loss: self.loss,
                    };
                    runs.push(data_centre.run(&label)?);
                }
            }
        }
        Ok(runs)
    }
}

fn print(
    mut runs: Vec<RunReport>,
    output: &Output,
    table: fn(&[RunReport], bool) -> String,
) -> Result<ExitCode, String> {
    if output.no_wall {
        runs.iter_mut().for_each(|run| (run.wall_s, run.peak_mib) = (None, None));
    }
    let mut out = std::io::stdout().lock();
    let done = match output.format {
        Format::Table => out.write_all(table(&runs, output.wide).as_bytes()),
        Format::Json => serde_json::to_writer(&mut out, &Runs { schema: SCHEMA, runs })
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out)),
    };
    done.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}
