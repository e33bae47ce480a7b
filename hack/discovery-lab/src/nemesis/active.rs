//! The faults that last, a file for each in the lab's directory: whoever fired them may be gone when they are to end.

use std::{fs, path::PathBuf};

use super::Fault;
use crate::{
    error::{AtPath, LabError, Result},
    lab::Lab,
};

impl Lab {
    fn active_path(&self, fault: &Fault) -> PathBuf {
        self.layout.nemesis().join(fault.file_name()).with_extension("json")
    }

    /// The fault of this kind that is there.
    pub(super) fn active(&self, fault: &Fault) -> Result<Option<Fault>> {
        let path = self.active_path(fault);
        if path.exists() { read(path).map(Some) } else { Ok(None) }
    }

    pub(super) fn note_active(&self, fault: &Fault) -> Result<()> {
        let path = self.active_path(fault);
        fs::create_dir_all(self.layout.nemesis()).at(self.layout.nemesis())?;
        // Plain fields are always JSON.
        fs::write(&path, serde_json::to_vec(fault).unwrap_or_default()).at(path)
    }

    pub(super) fn forget_active(&self, fault: &Fault) -> Result<()> {
        let path = self.active_path(fault);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).at(path),
            _ => Ok(()),
        }
    }

    /// All that are there, in the order in which they are undone: what others need comes first.
    pub fn all_active(&self) -> Result<Vec<Fault>> {
        let entries = fs::read_dir(self.layout.nemesis()).into_iter().flatten().flatten();
        let mut faults: Vec<Fault> =
            entries.map(|entry| read(entry.path())).collect::<Result<_>>()?;
        faults.sort_by_key(|fault| (rank(fault), fault.file_name()));
        Ok(faults)
    }
}

/// Less is undone earlier.
pub fn rank(fault: &Fault) -> u8 {
    match fault {
        Fault::ApiServer => 0,
        Fault::Power { .. } | Fault::Reboot { .. } => 1,
        _ => 2,
    }
}

fn read(path: PathBuf) -> Result<Fault> {
    let text = fs::read(&path).at(&path)?;
    serde_json::from_slice(&text).map_err(|error| LabError::Unexpected {
        what: path.display().to_string(),
        detail: error.to_string(),
    })
}
