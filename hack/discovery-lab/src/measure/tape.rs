//! A recorder of its own process, for as long as something is measured.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use crate::{
    error::Result,
    lab::Lab,
    process::{command, find, kill_and_wait, start_daemon, wait_for},
    record::overlap::Recording,
};

/// As the lab's processes are marked.
const ROLE: &str = "recorder";
/// It listens before it writes its first line.
const BEGINS_WITHIN: Duration = Duration::from_secs(10);
/// It says once a second that it lives.
const LAST_LINE_WITHIN: Duration = Duration::from_secs(10);

/// A recorder that runs.
#[derive(Debug)]
pub struct Tape<'a> {
    lab: &'a Lab,
    path: PathBuf,
}

impl<'a> Tape<'a> {
    /// Starts it, in the place of any that was left.
    pub fn begin(lab: &'a Lab, path: &Path) -> Result<Self> {
        stop(lab)?;
        let _ = std::fs::remove_file(path);
        let mut record = command(lab.keep_program()?, ["record", "--out"]);
        record.arg(path);
        record.env("DISCOVERY_LAB_DIR", &lab.layout.dir).env("DISCOVERY_LAB_NET", &lab.layout.net);
        let log = lab.layout.logs().join("recorder.log");
        let _child = start_daemon(&lab.layout, ROLE, record, &log)?;
        let tape = Self { lab, path: path.to_owned() };
        let hint = format!("see {}", log.display());
        wait_for("the recorder", BEGINS_WITHIN, &hint, || {
            tape.read().is_ok_and(|r| r.from_ns > 0)
        })?;
        Ok(tape)
    }

    /// What it has written so far.
    pub fn read(&self) -> Result<Recording> {
        Recording::read(&self.path)
    }

    /// Lets it see what has just happened, ends it, and reads what concerns this lab: VMs that were once on one of its nodes.
    pub fn end(self) -> Result<Recording> {
        let now = crate::record::boottime_ns();
        wait_for("the recorder's last line", LAST_LINE_WITHIN, "", || {
            self.read().is_ok_and(|recording| recording.to_ns > now)
        })?;
        stop(self.lab)?;
        let mut recording = self.read()?;
        recording.keep_labs();
        Ok(recording)
    }
}

impl Drop for Tape<'_> {
    fn drop(&mut self) {
        // Also after a failure, where there is nobody to tell.
        let _ = stop(self.lab);
    }
}

fn stop(lab: &Lab) -> Result<()> {
    kill_and_wait(&find(&lab.layout, ROLE), Duration::from_secs(10))
}

impl Recording {
    /// Other labs' guests are theirs.
    fn keep_labs(&mut self) {
        let ours: std::collections::BTreeSet<String> = self
            .instances
            .iter()
            .filter(|one| one.node.is_some())
            .map(|one| one.vm.clone())
            .collect();
        self.instances.retain(|one| ours.contains(&one.vm));
    }
}
