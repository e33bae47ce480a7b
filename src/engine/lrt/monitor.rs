//! Monitoring: what each of this node's VMs loads it with, without the noise.
//!
//! ```text
//!   a sample a second ──> near the level that is known? nothing has changed
//!                              │ no, and so was the one before, on the same side
//!                              v
//!                         a new level: the mean of the two
//! ```
//!
//! A level is what the policy learns from ([`super::relief::habit`]): it counts how often loads change and by how much, and
//! a smoothed line that creeps from one load to the next would teach it a hundred small changes. Two samples in a row: a
//! single one is often the host's own doing (a timer that came late).

use std::collections::BTreeMap;

use crate::engine::host::VmLoad;
use crate::engine::id::VmId;

/// A sample within this of the level is the level, percent of a processor for each of the VM's.
const NOISE: f64 = 8.0;

/// The levels of one node's VMs.
#[derive(Debug, Default)]
pub struct Monitor {
    levels: BTreeMap<VmId, Level>,
}

#[derive(Clone, Copy, Debug)]
struct Level {
    /// Percent of a processor.
    known: f64,
    /// The last sample, if it was off the level.
    off: Option<f64>,
    /// Percent of a processor that is noise.
    noise: f64,
}

/// What a sample says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum News {
    /// The VM was not known: its first level, percent of a processor.
    First(f64),
    /// Its new level, percent of a processor.
    Changed(f64),
    /// Nothing.
    Same,
}

impl Monitor {
    /// Takes a sample of a VM with so many processors.
    pub fn sample(&mut self, load: &VmLoad, cpus: u32) -> News {
        let percent = load.cpu_milli as f64 / 10.0;
        let Some(level) = self.levels.get_mut(&load.id) else {
            let noise = NOISE * f64::from(cpus.max(1));
            self.levels.insert(load.id.clone(), Level { known: percent, off: None, noise });
            return News::First(percent);
        };
        let differs = |other: f64| other - level.known;
        if differs(percent).abs() <= level.noise {
            level.off = None;
            return News::Same;
        }
        match level.off {
            Some(before)
                if differs(before).is_sign_positive() == differs(percent).is_sign_positive() =>
            {
                *level = Level { known: (before + percent) / 2.0, off: None, ..*level };
                News::Changed(level.known)
            }
            _ => {
                level.off = Some(percent);
                News::Same
            }
        }
    }

    /// Forgets a VM. Tells whether it was known.
    pub fn forget(&mut self, id: &VmId) -> bool {
        self.levels.remove(id).is_some()
    }

    /// The VMs that are known.
    pub fn known(&self) -> impl Iterator<Item = &VmId> {
        self.levels.keys()
    }

    /// What all of them load their node with, percent of a processor.
    #[must_use]
    pub fn total(&self) -> f64 {
        self.levels.values().fold(0.0, |sum, level| sum + level.known)
    }

    /// What one of them does, percent of a processor.
    #[must_use]
    pub fn of(&self, id: &VmId) -> Option<f64> {
        self.levels.get(id).map(|level| level.known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(percent: u64) -> VmLoad {
        let id = VmId { ve: "uid".into(), member: "web".into(), index: 0 };
        VmLoad { id, cpu_milli: percent * 10, memory: 1 << 20, dirty: None }
    }

    fn levels(samples: &[u64]) -> Vec<News> {
        let mut monitor = Monitor::default();
        let news = samples.iter().map(|percent| monitor.sample(&load(*percent), 1));
        news.filter(|news| *news != News::Same).collect()
    }

    #[test]
    fn noise_is_no_news_and_a_lasting_change_is_one() {
        assert_eq!(levels(&[50, 53, 47, 55, 45]), [News::First(50.0)]);
        let step = levels(&[10, 12, 90, 94, 92, 93, 91]);
        assert_eq!(step, [News::First(10.0), News::Changed(92.0)]);
    }

    #[test]
    fn a_single_sample_that_is_off_is_forgotten() {
        assert_eq!(levels(&[50, 100, 50, 0, 50, 100, 0, 50]), [News::First(50.0)]);
    }
}
