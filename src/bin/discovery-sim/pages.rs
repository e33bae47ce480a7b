//! `report`: one HTML page that needs nothing else, of runs that were printed as JSON.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;

use discovery::sim::datacenter::measures::Series;
use discovery::sim::datacenter::report::RunReport;

use super::compare::{Runs, SCHEMA};
use super::options::{METRICS, Report};
use super::pictures::{self, Curve};
use super::table::{self, Row};

/// Partitions of more nodes are counted together.
const LARGE: u32 = 12;

/// Reads the runs, writes the page, and says where it is.
pub fn write(options: &Report) -> Result<ExitCode, String> {
    let runs = read(&options.file)?;
    let page = page(&runs)?;
    std::fs::write(&options.out, page)
        .map_err(|error| format!("{}: {error}", options.out.display()))?;
    println!("{}", options.out.display());
    Ok(ExitCode::SUCCESS)
}

fn read(file: &Path) -> Result<Vec<RunReport>, String> {
    let wrong = |problem: String| format!("{}: {problem}", file.display());
    let text = std::fs::read_to_string(file).map_err(|error| wrong(error.to_string()))?;
    let Runs { schema, runs } = serde_json::from_str(&text).map_err(|error| {
        wrong(format!("not the JSON of data centre runs (`--format json`): {error}"))
    })?;
    if schema != SCHEMA {
        return Err(wrong(format!("schema {schema}; this program reads {SCHEMA}")));
    }
    if runs.is_empty() {
        return Err(wrong("no runs".to_owned()));
    }
    Ok(runs)
}

fn page(runs: &[RunReport]) -> Result<String, String> {
    let mut page = String::from(HEAD);
    let mut workloads: Vec<&str> = runs.iter().map(|run| run.workload.as_str()).collect();
    workloads.dedup();
    for workload in workloads {
        let of_it: Vec<RunReport> =
            runs.iter().filter(|run| run.workload == workload).cloned().collect();
        let _ = write!(
            page,
            "<h2>{}</h2>\n<pre>{}</pre>\n",
            escaped(workload),
            escaped(&table::per_scheduler(&of_it, true))
        );
        let rows = table::rows(&of_it);
        for size in rows.chunk_by(|a, b| a.pms == b.pms) {
            section(&mut page, size)?;
        }
    }
    let _ = write!(page, "<h2>What the numbers mean</h2>\n<pre>{METRICS}</pre>\n</body></html>\n");
    Ok(page)
}

/// The pictures of one size.
fn section(page: &mut String, rows: &[Row<'_>]) -> Result<(), String> {
    let (pms, seeds) = (rows[0].pms, rows[0].runs.len());
    let step_s = rows[0].runs[0].series.step_s;
    let of_nodes = f64::from(pms) * step_s as f64;
    let _ = writeln!(page, "<h3>{pms} nodes, mean of {seeds} seeds</h3>\n<div>");
    let mut curves = |caption: &str, unit: &str, of: fn(&RunReport) -> &Series, scale: f64| {
        let curve = |row| Curve { name: row_name(row), values: mean_series(row, of, scale) };
        let curves: Vec<Curve<'_>> = rows.iter().map(curve).collect();
        pictures::over_time(unit, step_s, &curves).map(|svg| figure(page, caption, &svg))
    };
    // Milliseconds of a step, over node-seconds of a step, in percent.
    curves("Nodes in violation", "% of nodes", |run| &run.series.violation_ms, 0.1 / of_nodes)?;
    curves("Migrations begun", "per second", |run| &run.series.migrations, 1.0 / step_s as f64)?;
    curves("Messages", "per node and second", |run| &run.series.messages, 1.0 / of_nodes)?;
    figure(page, "Sizes of partitions", &sizes(rows)?);
    let _ = writeln!(page, "</div>");
    Ok(())
}

fn row_name<'a>(row: &Row<'a>) -> &'a str {
    row.scheduler
}

/// Mean over seeds, step by step.
fn mean_series(row: &Row<'_>, of: fn(&RunReport) -> &Series, scale: f64) -> Vec<f64> {
    let steps = row.runs.iter().map(|run| run.series.violation_ms.0.len()).max();
    let steps = row.runs.iter().map(|run| of(run).0.len()).max().max(steps).unwrap_or(0);
    let at = |run: &RunReport, step| of(run).0.get(step).copied().unwrap_or(0) as f64;
    let mean = |step| row.runs.iter().map(|run| at(run, step)).sum::<f64>() / row.runs.len() as f64;
    (0..steps).map(|step| mean(step) * scale).collect()
}

/// Shares of partitions by size; those with none have no bars.
fn sizes(rows: &[Row<'_>]) -> Result<String, String> {
    let mut labels: Vec<String> = (1..=LARGE).map(|size| size.to_string()).collect();
    labels.push(format!(">{LARGE}"));
    let curve = |row: &Row<'_>| {
        let mut counts = vec![0.0; labels.len()];
        for (size, count) in row.runs.iter().flat_map(|run| &run.partition_sizes) {
            counts[(*size).clamp(1, LARGE + 1) as usize - 1] += *count as f64;
        }
        let total: f64 = counts.iter().sum();
        counts.iter().map(|count| if total > 0.0 { 100.0 * count / total } else { 0.0 }).collect()
    };
    let curves: Vec<Curve<'_>> =
        rows.iter().map(|row| Curve { name: row_name(row), values: curve(row) }).collect();
    pictures::bars("nodes in a partition", "% of partitions", &labels, &curves)
}

fn figure(page: &mut String, caption: &str, svg: &str) {
    let _ = writeln!(page, "<figure><figcaption>{caption}</figcaption>{svg}</figure>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

const HEAD: &str = "<!doctype html>
<html lang=\"en\"><head><meta charset=\"utf-8\"><title>discovery-sim</title><style>
body { font: 15px/1.5 sans-serif; margin: 2em auto; max-width: 1360px; padding: 0 1em; }
div { display: flex; flex-wrap: wrap; gap: 1em; }
figure { margin: 0; } figcaption { font-weight: bold; } svg { max-width: 100%; height: auto; }
pre { overflow-x: auto; background: #f4f4f4; padding: 1em; }
</style></head><body>
<h1>discovery-sim: schedulers compared</h1>
";

#[cfg(test)]
mod tests {
    use discovery::sim::datacenter::catalogue::Name;

    use super::super::data_centre::DataCentre;
    use super::super::options::{Shape, Workload};
    use super::*;

    fn run(scheduler: Name) -> RunReport {
        let shape =
            Shape { vms_per_pm: 10, threshold: 6.0, look_every: 0.0, away: None, trace: None };
        let (pms, seed, loss) = (16, 1, 0.0);
        let workload = Workload::Vmplaces;
        DataCentre { workload, shape: &shape, trace: "", pms, scheduler, seed, loss }
            .run("test")
            .expect("it runs")
    }

    #[test]
    fn a_page_has_four_pictures_per_size_and_needs_nothing_else() {
        let page = page(&[run(Name::None), run(Name::Dvms)]).expect("it is made");
        assert_eq!(page.matches("<svg").count(), 4);
        assert!(page.contains("<h3>16 nodes, mean of 1 seeds</h3>"));
        assert!(!page.contains("<script") && !page.contains("<link"));
    }

    #[test]
    fn a_file_that_is_not_ours_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a place for files");
        let file = folder.path().join("runs.json");
        let refused = |text: &str| {
            std::fs::write(&file, text).expect("writable");
            read(&file).expect_err(text)
        };
        assert!(refused("{\"schema\":1,\"runs\":[]}").ends_with("runs.json: no runs"));
        assert!(refused("{\"schema\":2,\"runs\":[]}").contains("schema 2"));
        assert!(refused("seed 1").contains("not the JSON"));
        assert!(read(&folder.path().join("absent")).is_err_and(|text| text.contains("absent")));
    }
}
