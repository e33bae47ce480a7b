//! A workload read from a file, for people who bring their own.
//!
//! CSV with a header, one change of load per line, in order of time:
//!
//! ```text
//! time_s,vm,load
//! 0,shop-web-0,35
//! 0.5,shop-db-0,80
//! 12.25,shop-web-0,90
//! ```
//!
//! `time_s` is seconds since the start; `vm` any name without a comma, of a VM of one processor and 1 GiB, placed
//! in order of first mention, so many to a node; `load` a whole percentage of a core, 0 to 100. Empty lines and lines
//! that start with `#` are passed over. The run ends a minute after the last change.

use std::collections::BTreeMap;
use std::fmt;

use super::{Load, LoadEvent, Sites, Workload, instant, vmplaces};

const HEADER: &str = "time_s,vm,load";
/// How long the run goes on after the last change, seconds: several migrations.
const AFTER_S: f64 = 60.0;
/// A year: a time beyond is a mistake, as milliseconds taken for seconds would be.
const LONGEST_S: f64 = 366.0 * 86_400.0;

/// What is wrong with a trace, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceError {
    /// The line, from 1.
    pub line: usize,
    /// The column's name, or `line` if it is the whole.
    pub column: &'static str,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The first line is not the header.
    Header,
    /// There are not three columns.
    Columns(usize),
    /// Not a number of seconds from 0 to a year.
    Time(String),
    /// Earlier than the line before.
    Backwards,
    /// No name.
    NoName,
    /// Not a whole number from 0 to 100.
    Load(String),
    /// There is no change at all.
    Empty,
}

impl fmt::Display for TraceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: ", self.line, self.column)?;
        match &self.problem {
            Problem::Header => write!(f, "the first line must be '{HEADER}'"),
            Problem::Columns(found) => write!(f, "{found} columns instead of 3 ({HEADER})"),
            Problem::Time(found) => {
                write!(f, "'{found}' is not a number of seconds from 0 to a year")
            }
            Problem::Backwards => write!(f, "earlier than the line before: sort by time"),
            Problem::NoName => write!(f, "a VM needs a name"),
            Problem::Load(found) => write!(f, "'{found}' is not a whole number from 0 to 100"),
            Problem::Empty => write!(f, "the trace has no change of load"),
        }
    }
}

impl std::error::Error for TraceError {}

/// Reads a trace. There are as many nodes as its VMs need, but no fewer than `nodes`.
pub fn workload(
    text: &str,
    nodes: u32,
    vms_per_node: u32,
    seed: u64,
) -> Result<Workload, TraceError> {
    let mut names: BTreeMap<&str, u32> = BTreeMap::new();
    let mut events: Vec<LoadEvent> = Vec::new();
    let mut last_s = 0.0;
    let mut last_line = 1;
    for (line, row) in rows(text)? {
        let event = |column: &'static str, problem| TraceError { line, column, problem };
        let (time_s, name, load) = columns(row).map_err(|(at, problem)| event(at, problem))?;
        if time_s < last_s {
            return Err(event("time_s", Problem::Backwards));
        }
        (last_s, last_line) = (time_s, line);
        let next = names.len() as u32;
        let vm = *names.entry(name).or_insert(next);
        events.push(LoadEvent { at: instant(time_s), vm, load });
    }
    if events.is_empty() {
        return Err(TraceError { line: last_line, column: "line", problem: Problem::Empty });
    }
    let count = names.len() as u32;
    let nodes = nodes.max(count.div_ceil(vms_per_node));
    Ok(Workload {
        name: "trace",
        node: vmplaces::NODE,
        sites: Sites::one(nodes),
        vms: vmplaces::vms(count, seed),
        placement: (0..count).map(|vm| vm / vms_per_node).collect(),
        events,
        incidents: Vec::new(),
        end: instant(last_s + AFTER_S),
    })
}

/// The lines with something on them, after the header, by number.
fn rows(text: &str) -> Result<impl Iterator<Item = (usize, &str)>, TraceError> {
    let numbered = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
    let mut rows = numbered.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
    match rows.next() {
        Some((_, HEADER)) => Ok(rows),
        other => {
            let line = other.map_or(1, |(line, _)| line);
            Err(TraceError { line, column: "line", problem: Problem::Header })
        }
    }
}

fn columns(row: &str) -> Result<(f64, &str, Load), (&'static str, Problem)> {
    let cells: Vec<&str> = row.split(',').map(str::trim).collect();
    let [time, name, load] = cells[..] else {
        return Err(("line", Problem::Columns(cells.len())));
    };
    let time_s = time.parse::<f64>().ok().filter(|time_s| (0.0..=LONGEST_S).contains(time_s));
    let time_s = time_s.ok_or_else(|| ("time_s", Problem::Time(time.to_owned())))?;
    if name.is_empty() {
        return Err(("vm", Problem::NoName));
    }
    let percent = load.parse::<Load>().ok().filter(|percent| *percent <= 100);
    let percent = percent.ok_or_else(|| ("load", Problem::Load(load.to_owned())))?;
    Ok((time_s, name, percent))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: &str) -> Result<Workload, TraceError> {
        workload(&format!("{HEADER}\n{body}"), 1, 2, 1)
    }

    #[test]
    fn vms_are_numbered_as_they_come_and_fill_node_by_node() {
        let workload = read("0,b,35\n# noon\n\n0.5, a ,80\n12.25,b,90\n12.25,c,1").expect("valid");
        assert_eq!(workload.placement, [0, 0, 1]);
        assert_eq!(workload.nodes(), 2);
        let third = LoadEvent { at: crate::engine::time::Instant(12_250_000), vm: 0, load: 90 };
        assert_eq!(workload.events[2], third);
        assert_eq!(workload.end.0, 72_250_000);
    }

    #[test]
    fn what_is_wrong_is_named_by_line_and_column() {
        let cases = [
            ("1,a", "line 2, column line: 2 columns instead of 3 (time_s,vm,load)"),
            (
                "0,a,1\nsoon,a,1",
                "line 3, column time_s: 'soon' is not a number of seconds from 0 to a year",
            ),
            ("-1,a,1", "line 2, column time_s: '-1' is not a number of seconds from 0 to a year"),
            ("NaN,a,1", "line 2, column time_s: 'NaN' is not a number of seconds from 0 to a year"),
            ("5,a,1\n\n4,a,1", "line 4, column time_s: earlier than the line before: sort by time"),
            ("1, ,1", "line 2, column vm: a VM needs a name"),
            ("1,a,101", "line 2, column load: '101' is not a whole number from 0 to 100"),
            ("1,a,4.5", "line 2, column load: '4.5' is not a whole number from 0 to 100"),
            ("", "line 1, column line: the trace has no change of load"),
        ];
        for (body, wanted) in cases {
            assert_eq!(read(body).expect_err(body).to_string(), wanted, "{body}");
        }
        let headless = workload("0,a,1", 1, 1, 1).expect_err("no header");
        assert_eq!(
            headless.to_string(),
            "line 1, column line: the first line must be 'time_s,vm,load'"
        );
    }
}
