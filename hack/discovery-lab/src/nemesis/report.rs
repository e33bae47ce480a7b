//! What a run has seen, for people and for programs.

use std::{collections::BTreeMap, fmt::Write as _};

use serde::Serialize;

use super::Kind;

/// One fault that fired.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// Its kind.
    pub kind: Kind,
    /// What it was.
    pub fault: String,
    /// What it did.
    pub did: String,
    /// Whether another one was there at the same time.
    pub with_another: bool,
    /// When it fired, nanoseconds of CLOCK_BOOTTIME.
    pub fired_ns: u64,
    /// Until the VMs of a node that was taken away ran elsewhere, seconds; where that was waited for.
    pub replaced_s: Option<f64>,
    /// How long it was held, seconds.
    pub held_s: f64,
    /// From its end until everything was whole, seconds; none if that never came.
    pub whole_s: Option<f64>,
}

/// A whole run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// What it was planned from.
    pub seed: u64,
    /// How many faults were asked for.
    pub wanted: usize,
    /// Every fault that fired.
    pub rows: Vec<Row>,
    /// Instances of VMs that were recorded.
    pub instances: usize,
    /// Time in which a VM ran twice, ms.
    pub overlap_ms: f64,
    /// The longest of it, ms.
    pub overlap_max_ms: f64,
    /// Why it failed; empty when it has not.
    pub failures: Vec<String>,
}

impl Report {
    /// Whether all is as it should be.
    pub fn passed(&self) -> bool {
        self.failures.is_empty() && self.overlap_ms == 0.0 && self.rows.len() >= self.wanted
    }

    /// By kind: how often it fired, how often all was whole again, and after how long.
    pub fn table(&self) -> String {
        let mut by_kind: BTreeMap<Kind, Vec<&Row>> = BTreeMap::new();
        for row in &self.rows {
            by_kind.entry(row.kind).or_default().push(row);
        }
        let mut text = format!(
            "{:<14} {:>5} {:>6} {:>11} {:>11} {:>14} {:>14}\n",
            "fault",
            "fired",
            "healed",
            "whole p50 s",
            "whole max s",
            "replaced p50 s",
            "replaced max s"
        );
        for (kind, rows) in by_kind {
            let whole: Vec<f64> = rows.iter().filter_map(|row| row.whole_s).collect();
            let replaced: Vec<f64> = rows.iter().filter_map(|row| row.replaced_s).collect();
            // Writing into a string does not fail.
            let _ = writeln!(
                text,
                "{kind:<14} {:>5} {:>6} {:>11} {:>11} {:>14} {:>14}",
                rows.len(),
                whole.len(),
                shown(percentile(&whole, 50)),
                shown(percentile(&whole, 100)),
                shown(percentile(&replaced, 50)),
                shown(percentile(&replaced, 100)),
            );
        }
        let _ = writeln!(
            text,
            "seed {}: {} of {} faults fired; {} instances, overlap {:.3} ms in all, {:.3} ms at most",
            self.seed,
            self.rows.len(),
            self.wanted,
            self.instances,
            self.overlap_ms,
            self.overlap_max_ms
        );
        for failure in &self.failures {
            let _ = writeln!(text, "FAILED: {failure}");
        }
        text
    }
}

fn shown(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |seconds| format!("{seconds:.1}"))
}

/// The smallest of the values that is not below so many percent of them.
pub(crate) fn percentile(values: &[f64], percent: usize) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(kind: Kind, whole_s: Option<f64>) -> Row {
        Row {
            kind,
            fault: String::new(),
            did: String::new(),
            with_another: false,
            fired_ns: 0,
            replaced_s: None,
            held_s: 1.0,
            whole_s,
        }
    }

    fn report(rows: Vec<Row>) -> Report {
        Report {
            seed: 1,
            wanted: rows.len(),
            rows,
            instances: 3,
            overlap_ms: 0.0,
            overlap_max_ms: 0.0,
            failures: vec![],
        }
    }

    #[test]
    fn percentiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        assert_eq!(percentile(&values, 50), Some(15.0));
        assert_eq!(percentile(&values, 95), Some(29.0));
        assert_eq!(percentile(&values, 100), Some(30.0));
        assert_eq!(percentile(&[], 50), None);
        assert_eq!(percentile(&[4.0], 95), Some(4.0));
    }

    #[test]
    fn a_table_has_a_line_for_each_kind() {
        let report = report(vec![
            row(Kind::Cut, Some(2.0)),
            row(Kind::Cut, Some(8.0)),
            row(Kind::Guest, None),
        ]);
        let table = report.table();
        assert!(
            table.lines().any(|line| {
                line.split_whitespace().collect::<Vec<_>>()
                    == ["cut", "2", "2", "2.0", "8.0", "-", "-"]
            }),
            "{table}"
        );
        assert!(
            table.lines().any(|line| line.starts_with("guest ") && line.contains(" 1      0 "))
        );
    }

    #[test]
    fn an_overlap_a_failure_or_a_missing_fault_is_no_pass() {
        let good = report(vec![row(Kind::Cut, Some(1.0))]);
        assert!(good.passed());
        assert!(!Report { overlap_ms: 0.001, ..good.clone() }.passed());
        assert!(!Report { wanted: 2, ..good.clone() }.passed());
        assert!(!Report { failures: vec!["x".into()], ..good }.passed());
    }
}
