//! `discovery-sim` as people call it: another process each time, so that nothing but the flags is shared.

use std::fs;
use std::process::{Command, Output};

fn simulate(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_discovery-sim"));
    // A flag may come from the environment, and the developer's is not part of the test.
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("DISCOVERY_SIM_")) {
        command.env_remove(name);
    }
    command.args(arguments).output().expect("it starts")
}

fn printed(arguments: &[&str]) -> String {
    let output = simulate(arguments);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {complaint}");
    String::from_utf8(output.stdout).expect("text")
}

fn complaint(arguments: &[&str]) -> String {
    let output = simulate(arguments);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}");
    assert!(output.stdout.is_empty(), "{arguments:?}: half a result is none");
    String::from_utf8(output.stderr).expect("text")
}

#[test]
fn two_processes_print_the_same_bytes() {
    for workload in ["vmplaces", "locality", "bursts", "day-night", "drain", "crash"] {
        let arguments = [
            "compare",
            "--workload",
            workload,
            "--pms",
            "40",
            "--seeds",
            "1..3",
            "--loss",
            "0.05",
            "--schedulers",
            "none,entropy,snooze,dvms,dvms-ring,dvms-lbo,dvms-two,discovery",
            "--no-wall",
            "--format",
            "json",
        ];
        let first = printed(&arguments);
        assert!(first.contains("\"lost\":") && first.contains("\"decision_p50_ms\":"));
        assert!(!first.contains("wall_s") && !first.contains("peak_mib"));
        assert_eq!(first, printed(&arguments), "{workload}");
    }
    let table = ["compare", "--pms", "40", "--seeds", "1..3", "--no-wall", "--wide"];
    assert_eq!(printed(&table), printed(&table));
}

#[test]
fn a_run_says_what_it_was_and_what_came_of_it() {
    let text = printed(&[
        "run",
        "--workload",
        "vmplaces",
        "--pms",
        "128",
        "--scheduler",
        "dvms",
        "--seeds",
        "21..22",
        "--format",
        "json",
    ]);
    let all: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(all["schema"], 1);
    let run = &all["runs"][0];
    let known = ["workload", "pms", "vms", "scheduler", "seed", "load_events"];
    let known = known.map(|field| run[field].to_string());
    assert_eq!(known, ["\"vmplaces\"", "128", "1280", "\"dvms\"", "21", "7678"]);
    for field in
        ["violation_s", "violations", "migrations", "migration_s", "partition_mean", "messages"]
    {
        assert!(run[field].as_f64().is_some_and(|number| number > 0.0), "{field}: {}", run[field]);
    }
    assert!(run["wall_s"].as_f64().is_some());
    let [mean, median] = ["decision_ms", "decision_p50_ms"].map(|field| run[field].as_f64());
    assert!(median > Some(200.0) && mean > median, "{mean:?} {median:?}");
    assert!(run["wait_longest_s"].as_f64() < run["violation_longest_s"].as_f64());
    assert!(run["peak_mib"].as_f64().is_some_and(|mib| mib > 1.0));
}

#[test]
fn a_wide_table_shows_what_the_other_has_no_room_for() {
    let shared = ["--workload", "locality", "--pms", "40", "--seeds", "1..3", "--wide"];
    let per_seed = printed(&[&["run", "--scheduler", "dvms-lbo"], &shared[..]].concat());
    let compared = printed(&[&["compare", "--schedulers", "none,dvms-lbo"], &shared[..]].concat());
    for text in [&per_seed, &compared] {
        for column in ["longest s", "wait s", "p50", "intra-site", "events/s", "peak MiB"] {
            assert!(text.contains(column), "{column}: {text}");
        }
        assert_eq!(text.lines().filter(|line| line.is_empty()).count(), 1, "two tables: {text}");
        assert_eq!(text.lines().count(), 7, "{text}");
    }
}

#[test]
fn a_trace_of_ones_own_is_run_and_a_bad_one_is_refused_by_line() {
    let folder = tempfile::tempdir().expect("a place for files");
    let path = folder.path().join("trace.csv");
    let file = path.to_str().expect("text");
    let run = ["run", "--workload", "trace", "--trace", file, "--pms", "2", "--vms-per-pm", "8"];
    // Eight VMs of 90 on the first node: 720 is above its 700, and one move resolves it.
    let rows: String = (0..8).map(|vm| format!("0,vm-{vm},90\n")).collect();
    fs::write(&path, format!("time_s,vm,load\n{rows}")).expect("writable");
    for scheduler in ["dvms", "entropy", "snooze", "discovery"] {
        let more = ["--scheduler", scheduler, "--seeds", "1", "--format", "json"];
        let text = printed(&[&run[..], &more].concat());
        assert!(text.contains("\"migrations\":1,"), "{text}");
    }
    fs::write(&path, "time_s,vm,load\n0,a,10\n1,b,much\n").expect("writable");
    assert_eq!(
        complaint(&run),
        "line 3, column load: 'much' is not a whole number from 0 to 100\n"
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_the_reason() {
    assert!(
        complaint(&["run", "--workload", "vmplaces", "--scheduler", "chance"]).contains("snooze")
    );
    assert!(complaint(&["compare", "--seeds", "9..2"]).contains("A below B"));
    assert!(complaint(&["compare", "--workload", "arrivals"]).contains("`run` only"));
    assert!(complaint(&["compare", "--pms", "1"]).contains("from 2"));
    assert!(complaint(&["report", "/nowhere/runs.json"]).contains("/nowhere/runs.json"));
}

#[test]
fn the_runs_of_a_comparison_become_a_page() {
    let folder = tempfile::tempdir().expect("a place for files");
    let [runs, page] = ["runs.json", "page.html"].map(|name| folder.path().join(name));
    let text = printed(&["compare", "--pms", "16,32", "--seeds", "1..3", "--format", "json"]);
    fs::write(&runs, text).expect("writable");
    let [runs, out] = [&runs, &page].map(|path| path.to_str().expect("text"));
    printed(&["report", runs, "--out", out]);
    let html = fs::read_to_string(&page).expect("it was written");
    assert_eq!(html.matches("<svg").count(), 8, "four pictures for each of two sizes");
}

#[test]
fn plans_are_compared_with_the_oracles_and_two_processes_print_the_same() {
    let arguments = ["plans", "--seeds", "0..30", "--sizes", "3x6,4x5"];
    let table = printed(&arguments);
    assert_eq!(table.lines().count(), 3, "a line each, and neither missed nor wrong: {table}");
    assert_eq!(table, printed(&arguments));
    assert!(complaint(&["plans", "--sizes", "8x24"]).contains("4x12"));
}
