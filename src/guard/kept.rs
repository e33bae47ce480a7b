//! What the guard was told last, in a file beside its socket: a guard that is killed and begins anew enforces at once what was
//! promised. The directory is lost at a boot (tmpfs), and the file names its boot in case it is not: no VM outlives a boot.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::GuardError;
use crate::engine::guard::{Allowance, Teller};
use crate::engine::replica::DiskId;
use crate::engine::time::Instant;

/// The kernel's name for this boot.
const BOOT: &str = "/proc/sys/kernel/random/boot_id";
/// First line of the file.
const HEADER: &str = "discovery guard 2";
/// First line of what is not read any more: guards of then were never given a time.
const FORMER: &str = "discovery guard 1";

/// The file.
#[derive(Debug)]
pub struct Kept {
    path: PathBuf,
    written: PathBuf,
    boot: String,
}

impl Kept {
    /// `guard.state` beside the socket.
    pub fn beside(socket: &Path) -> Result<Self, GuardError> {
        let boot = fs::read_to_string(BOOT).map_err(GuardError::file("read", BOOT))?;
        let (path, written) = (socket.with_extension("state"), socket.with_extension("state.new"));
        Ok(Self { path, written, boot: boot.trim().to_owned() })
    }

    /// What was kept in this boot.
    pub fn load(&self) -> Result<Option<Allowance>, GuardError> {
        let text = match fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(GuardError::file("read", &self.path)(error)),
        };
        self.parse(&text).map_err(|reason| {
            let (path, reason) = (self.path.clone(), reason.to_owned());
            GuardError::Damaged { path, reason }
        })
    }

    fn parse(&self, text: &str) -> Result<Option<Allowance>, &'static str> {
        let mut lines = text.lines();
        match lines.next() {
            Some(HEADER) => {}
            Some(FORMER) => return Ok(None),
            _ => return Err("its first line is another"),
        }
        if lines.next().ok_or("it names no boot")? != self.boot {
            return Ok(None);
        }
        let (disk, life) = lines
            .next()
            .and_then(|line| line.split_once(' '))
            .and_then(|(disk, life)| Some((disk.parse().ok()?, life.parse().ok()?)))
            .ok_or("it names no agent")?;
        let by = Teller { disk: DiskId(disk), life };
        let lease = lines.next().and_then(|line| line.parse().ok()).ok_or("it names no lease")?;
        let until = match lines.next().ok_or("it names no time")? {
            "none" => None,
            micros => Some(Instant(micros.parse().map_err(|_| "its time is none")?)),
        };
        Ok(Some(Allowance { by, lease, until }))
    }

    /// Replaces the file. Memory only: there is nothing to wait for.
    pub fn store(&self, held: &Allowance) -> io::Result<()> {
        let until = held.until.map_or_else(|| "none".to_owned(), |until| until.0.to_string());
        let (Teller { disk, life }, lease) = (held.by, held.lease);
        let text = format!("{HEADER}\n{}\n{} {life}\n{lease}\n{until}\n", self.boot, disk.0);
        fs::write(&self.written, text)?;
        fs::rename(&self.written, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_found_again_in_the_same_boot_only() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut kept = Kept::beside(&folder.path().join("guard.sock")).expect("a boot");
        assert_eq!(kept.load().expect("nothing yet"), None);
        for until in [None, Some(Instant(12))] {
            let by = Teller { disk: DiskId(7), life: 2 };
            let held = Allowance { by, lease: 3, until };
            kept.store(&held).expect("room");
            assert_eq!(kept.load().expect("readable"), Some(held));
        }
        kept.boot = "another".to_owned();
        assert_eq!(kept.load().expect("readable"), None);
        fs::write(&kept.path, "x").expect("room");
        assert!(matches!(kept.load(), Err(GuardError::Damaged { .. })));
    }
}
