//! What is done of a fuzz, in a file: a line for what it is, then one per seed.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;

use discovery::sim::fuzz::Outcome;

/// The sums of one seed, without what broke.
pub type Done = BTreeMap<u64, [u64; 3]>;

/// The file.
pub struct Resume(File);

impl Resume {
    /// Opens it, or makes it. Returns what is done already.
    pub fn open(path: &Path, what: &str) -> Result<(Self, Done), String> {
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let mut done = Done::new();
        let mut fresh = true;
        if let Ok(file) = File::open(path) {
            for (number, line) in BufReader::new(file).lines().enumerate() {
                let line = line.map_err(told)?;
                fresh = false;
                if number == 0 {
                    if line != what {
                        let path = path.display();
                        return Err(format!(
                            "{path} is of another command ('{line}', not '{what}')"
                        ));
                    }
                    continue;
                }
                // The last line may be half a line: its seed is run again.
                let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
                if let ([seed, events, fault_events, ms], true) =
                    (&numbers[..], line.ends_with(" ."))
                {
                    done.insert(*seed, [*events, *fault_events, *ms]);
                }
            }
        }
        let mut file = OpenOptions::new().create(true).append(true).open(path).map_err(told)?;
        if fresh {
            writeln!(file, "{what}").map_err(told)?;
        } else {
            writeln!(file).map_err(told)?;
        }
        Ok((Self(file), done))
    }

    /// A seed that broke nothing is done. One that did is run again, so that it shows again.
    pub fn note(&mut self, outcome: &Outcome) -> Result<(), String> {
        if outcome.broken.is_some() {
            return Ok(());
        }
        let Outcome { seed, events, fault_events, simulated_ms, .. } = outcome;
        let line = format!("{seed} {events} {fault_events} {simulated_ms} .\n");
        self.0.write_all(line.as_bytes()).map_err(|error| error.to_string())
    }
}
