//! Tables for people.

use std::fmt::Write;

use discovery::sim::datacenter::report::RunReport;

/// Seconds that a migration is worth in J (BENCHMARKS, B1).
const MIGRATION_S: f64 = 2.0;

/// Runs of one scheduler on data centres of one size, over seeds.
pub struct Row<'a> {
    pub pms: u32,
    pub scheduler: &'a str,
    pub runs: Vec<&'a RunReport>,
}

impl Row<'_> {
    /// Mean over seeds.
    pub fn mean(&self, of: impl Fn(&RunReport) -> f64) -> f64 {
        self.runs.iter().map(|run| of(run)).sum::<f64>() / self.runs.len() as f64
    }

    /// Standard deviation over seeds, of this sample.
    pub fn deviation(&self, of: impl Fn(&RunReport) -> f64) -> f64 {
        let mean = self.mean(&of);
        let squares: f64 = self.runs.iter().map(|run| (of(run) - mean).powi(2)).sum();
        (squares / (self.runs.len().max(2) - 1) as f64).sqrt()
    }

    /// Mean over all events of all seeds: of a quantity, for each of a count.
    pub fn each(&self, of: impl Fn(&RunReport) -> f64, count: impl Fn(&RunReport) -> u64) -> f64 {
        let total: f64 = self.runs.iter().map(|run| of(run)).sum();
        let count: u64 = self.runs.iter().map(|run| count(run)).sum();
        if count == 0 { 0.0 } else { total / count as f64 }
    }
}

/// Groups runs by size and scheduler, in their order.
pub fn rows(runs: &[RunReport]) -> Vec<Row<'_>> {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for run in runs {
        let same = |row: &&mut Row<'_>| row.pms == run.pms && row.scheduler == run.scheduler;
        match rows.iter_mut().find(same) {
            Some(row) => row.runs.push(run),
            None => {
                rows.push(Row { pms: run.pms, scheduler: &run.scheduler, runs: vec![run] });
            }
        }
    }
    rows
}

/// A line per run, and another if more is wanted.
pub fn per_run(runs: &[RunReport], wide: bool) -> String {
    let mut text = String::from(
        "  seed  violation s  count  migrations  each s  partition  messages     events  wall s\n",
    );
    for run in runs {
        let _ = writeln!(
            text,
            "{:>6}  {:>11.0}  {:>5}  {:>10}  {:>6.2}  {:>9.2}  {:>8}  {:>9}  {:>6.3}",
            run.seed,
            run.violation_s,
            run.violations,
            run.migrations,
            run.migration_s,
            run.partition_mean,
            run.messages,
            run.events,
            run.wall_s.unwrap_or_default(),
        );
    }
    let row = |run| Row { pms: 0, scheduler: "", runs: vec![run] };
    let lines = || runs.iter().map(|run| (format!("{:>6}", run.seed), row(run)));
    outages(&mut text, "  seed", lines());
    if wide {
        more(&mut text, "  seed", lines());
    }
    text
}

/// What came of nodes that went, if some did.
fn outages<'a>(text: &mut String, head: &str, lines: impl Iterator<Item = (String, Row<'a>)>) {
    let went = |row: &Row<'_>| row.runs.iter().any(|run| run.maintenances + run.deaths > 0);
    let lines: Vec<(String, Row<'_>)> = lines.filter(|(_, row)| went(row)).collect();
    if lines.is_empty() {
        return;
    }
    let _ = writeln!(
        text,
        "\n{head}  maintenances  emptied  each s  longest s  deaths  broken  VMs away s"
    );
    for (name, row) in lines {
        let longest = row.runs.iter().map(|run| run.emptied_longest_s).fold(0.0, f64::max);
        let _ = writeln!(
            text,
            "{name}  {:>12.1}  {:>7.1}  {:>6.1}  {:>9.1}  {:>6.1}  {:>6.1}  {:>11.0}",
            row.mean(|run| run.maintenances as f64),
            row.mean(|run| run.emptied as f64),
            row.each(|run| run.emptied_s * run.emptied as f64, |run| run.emptied),
            longest,
            row.mean(|run| run.deaths as f64),
            row.mean(|run| run.broken as f64),
            row.mean(|run| run.vm_away_s),
        );
    }
}

/// What the first table has no room for.
fn more<'a>(text: &mut String, head: &str, lines: impl Iterator<Item = (String, Row<'a>)>) {
    let _ = writeln!(
        text,
        "\n{head}  longest s  wait s  decision ms     p50  intra-site  sites  bytes/node/s    events/s  peak MiB"
    );
    for (name, row) in lines {
        let longest =
            |of: fn(&RunReport) -> f64| row.runs.iter().map(|run| of(run)).fold(0.0, f64::max);
        let wall_s = row.mean(|run| run.wall_s.unwrap_or_default());
        let per_s = row.mean(|run| run.events as f64) / wall_s;
        let _ = writeln!(
            text,
            "{name}  {:>9.1}  {:>6.1}  {:>11.2}  {:>6.2}  {:>10.3}  {:>5.3}  {:>12.2}  {:>10}  {:>8.0}",
            longest(|run| run.violation_longest_s),
            longest(|run| run.wait_longest_s),
            row.each(|run| run.decision_ms * run.decisions as f64, |run| run.decisions),
            row.mean(|run| run.decision_p50_ms),
            row.each(|run| run.intra_site * run.migrations as f64, |run| run.migrations),
            row.each(|run| run.partition_sites * run.partitions as f64, |run| run.partitions),
            row.mean(|run| run.bytes_per_node_s),
            if per_s.is_finite() { format!("{per_s:.0}") } else { "-".to_owned() },
            longest(|run| run.peak_mib.unwrap_or_default()),
        );
    }
}

/// A line per size and scheduler, and another if more is wanted: means over seeds.
pub fn per_scheduler(runs: &[RunReport], wide: bool) -> String {
    let mut text = String::from(
        "nodes  scheduler  violation s      ±  /none  count  each s  migrations  each s  partition  \
         msg/node/s      J  wall s\n",
    );
    let rows = rows(runs);
    for row in &rows {
        let none = rows.iter().find(|other| other.pms == row.pms && other.scheduler == "none");
        let violation = row.mean(|run| run.violation_s);
        let migrations = row.mean(|run| run.migrations as f64);
        let share = |amount: f64| match none.map(|none| none.mean(|run| run.violation_s)) {
            Some(none) if none > 0.0 => format!("{:.3}", amount / none),
            _ => "-".to_owned(),
        };
        let _ = writeln!(
            text,
            "{:>5}  {:<9}  {:>11.0}  {:>5.0}  {:>5}  {:>5.0}  {:>6.1}  {:>10.1}  {:>6.2}  {:>9.2}  \
             {:>10.3}  {:>5}  {:>6.3}",
            row.pms,
            row.scheduler,
            violation,
            row.deviation(|run| run.violation_s),
            share(violation),
            row.mean(|run| run.violations as f64),
            row.each(|run| run.violation_s, |run| run.violations),
            migrations,
            row.each(|run| run.migration_s * run.migrations as f64, |run| run.migrations),
            row.each(|run| run.partition_mean * run.partitions as f64, |run| run.partitions),
            row.mean(|run| run.messages_per_node_s),
            share(violation + MIGRATION_S * migrations),
            row.mean(|run| run.wall_s.unwrap_or_default()),
        );
    }
    let name = |row: &Row<'_>| format!("{:>5}  {:<9}", row.pms, row.scheduler);
    let lines = || self::rows(runs).into_iter().map(|row| (name(&row), row));
    outages(&mut text, "nodes  scheduler", lines());
    if wide {
        more(&mut text, "nodes  scheduler", lines());
    }
    text
}
