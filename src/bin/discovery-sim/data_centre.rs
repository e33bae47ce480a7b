//! One data centre run: makes the workload, runs it, takes the time, shows how far it is.

use std::time::Duration;

use discovery::engine::time::Instant;
use discovery::sim::datacenter::catalogue::{Knob, Name, simulate};
use discovery::sim::datacenter::report::RunReport;
use discovery::sim::datacenter::run::Setup;
use discovery::sim::workload::{self, bursts, day_night, locality, outages, trace, vmplaces};

use super::memory;
use super::options::{Shape, Workload};
use super::stopwatch::Stopwatch;

/// A data centre to be run.
pub struct DataCentre<'a> {
    pub workload: Workload,
    pub shape: &'a Shape,
    /// What is in the trace's file, if that is the workload.
    pub trace: &'a str,
    pub pms: u32,
    pub scheduler: Name,
    pub seed: u64,
    pub loss: f64,
}

impl DataCentre<'_> {
    /// Runs it. `label` goes before its progress.
    pub fn run(&self, label: &str) -> Result<RunReport, String> {
        memory::forget();
        let workload = self.workload()?;
        let mut watch = Stopwatch::start();
        let end = workload.end;
        let mut progress = |now: Instant| {
            if watch.should_tell() {
                let percent = 100.0 * now.0 as f64 / end.0 as f64;
                eprintln!("{label}: {percent:.0} % after {:.0} s", watch.seconds());
            }
        };
        let setup = Setup {
            workload: &workload,
            seed: self.seed,
            loss: self.loss,
            progress: &mut progress,
        };
        let look_every = Duration::from_secs_f64(self.shape.look_every);
        let knob = Knob { threshold_s: self.shape.threshold, look_every };
        let ended = simulate(self.scheduler, knob, setup);
        let mut report = RunReport::new(&workload, self.scheduler.as_str(), self.seed, &ended);
        report.wall_s = Some((watch.seconds() * 1e3).round() / 1e3);
        report.peak_mib = memory::peak_mib();
        Ok(report)
    }

    fn workload(&self) -> Result<workload::Workload, String> {
        let (pms, per_pm, seed) = (self.pms, self.shape.vms_per_pm, self.seed);
        let away = self.shape.away.unwrap_or(outages::usual(pms));
        match self.workload {
            Workload::Arrivals => Err("the workload arrivals is for `run` only".to_owned()),
            Workload::Vmplaces => Ok(vmplaces::workload(pms, per_pm, seed)),
            Workload::Locality => Ok(locality::workload(pms, seed)),
            Workload::Bursts => Ok(bursts::workload(pms, per_pm, seed)),
            Workload::DayNight => Ok(day_night::workload(pms, per_pm, seed)),
            Workload::Drain => Ok(outages::drain(pms, per_pm, seed, away)),
            Workload::Crash => Ok(outages::crash(pms, per_pm, seed, away)),
            Workload::Trace => {
                trace::workload(self.trace, pms, per_pm, seed).map_err(|error| error.to_string())
            }
        }
    }
}
