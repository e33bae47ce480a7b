//! A full disk: what is left of the product's disk on a node is taken by one file.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, fallocate, statvfs},
    io::Errno,
};

use super::Fired;
use crate::{
    error::{AtPath, LabError, Result},
    lab::Lab,
};

/// Where the product keeps its journal, images and disks.
const DISK: &str = "/var/lib/discovery";
const FILLER: &str = "nemesis-filler";
const PROBE: &str = "nemesis-probe";
/// Reserved in pieces of as much at first, then of half as much, and so on, bytes.
const LARGEST: u64 = 1 << 30;
/// The smallest piece: a block.
const SMALLEST: u64 = 4096;

impl Lab {
    pub(super) fn fire_disk_full(&self, name: &str) -> Result<Fired> {
        let disk = self.product_disk(name)?;
        let already = disk.join(FILLER).exists();
        let before = free(&disk)?;
        fill(&disk.join(FILLER))?;
        // A block that somebody writes all the same would mean that it is not full.
        let probe = write_probe(&disk.join(PROBE));
        if probe != Err(Some(Errno::NOSPC.raw_os_error())) {
            return Err(LabError::NotFired {
                fault: format!("full disk on {name}"),
                detail: format!("writing to it gives {probe:?}"),
            });
        }
        let did = format!("took the last {} MiB; writing fails", before >> 20);
        Ok(if already { Fired::already(did) } else { Fired::new(did) })
    }

    pub(super) fn undo_disk_full(&self, name: &str) -> Result<String> {
        let disk = self.product_disk(name)?;
        for file in [PROBE, FILLER] {
            match fs::remove_file(disk.join(file)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).at(disk.join(file));
                }
                _ => {}
            }
        }
        Ok(format!("{name} has {} MiB of disk again", free(&disk)? >> 20))
    }

    // Only a disk of its own can be filled without filling the host's.
    fn product_disk(&self, name: &str) -> Result<PathBuf> {
        let disk = self.node(name)?.path(DISK)?;
        let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).at(path);
        if device(&disk)? == device(&self.layout.node_dir(name))? {
            return Err(LabError::NoOwnDisk(name.into()));
        }
        Ok(disk)
    }
}

fn free(disk: &Path) -> Result<u64> {
    let found = statvfs(disk).map_err(std::io::Error::from).at(disk)?;
    Ok(found.f_bavail * found.f_frsize)
}

fn fill(path: &Path) -> Result<()> {
    let file = File::options().create(true).append(true).open(path).at(path)?;
    let mut piece = LARGEST;
    while piece >= SMALLEST {
        let end = file.metadata().at(path)?.len();
        match fallocate(&file, FallocateFlags::empty(), end, piece) {
            Ok(()) | Err(Errno::INTR) => {}
            Err(Errno::NOSPC) => piece /= 2,
            Err(error) => return Err(std::io::Error::from(error)).at(path),
        }
    }
    file.sync_all().at(path)
}

// Ok, or the number of the error.
fn write_probe(path: &Path) -> Result<(), Option<i32>> {
    let written = File::create(path).and_then(|mut file| {
        file.write_all(&[1; SMALLEST as usize])?;
        file.sync_all()
    });
    written.map_err(|error| error.raw_os_error())
}
