//! A VM's directory: its disks over cached images, and what it boots from the cache.
//!
//! A disk is made under a temporary name and renamed: one that exists is whole. An existing disk is
//! never made again, whatever its declaration says now: it holds the guest's data.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::identity::VmFiles;
use super::images::{Pinned, io_failure};
use super::tool;
use crate::engine::host::{Failure, FailureKind};
use crate::engine::spec::DiskSpec;

/// Ends the name of a disk that is being made.
const TEMPORARY: &str = ".tmp";

/// Makes the directory, also readable to a QEMU that runs as its own user.
///
/// # Errors
/// When the system refuses.
pub fn make_dir(files: &VmFiles) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(&files.dir)
        .map_err(|error| io_failure(&files.dir, &error))
}

/// Makes a disk if it is missing, over `image` if it has one.
///
/// # Errors
/// When the image is larger than the disk, there is no room, or qemu-img refuses.
pub fn make(files: &VmFiles, spec: &DiskSpec, image: Option<&Pinned>) -> Result<(), Failure> {
    let path = files.disk(&spec.name)?;
    if path.exists() {
        return Ok(());
    }
    let format = image.map(|image| image.format().map(|info| (image, info))).transpose()?;
    if let Some((_, info)) = &format
        && info.virtual_size > spec.size
    {
        let message = format!(
            "disk {} is {} bytes and its image {}: make the disk larger",
            spec.name, spec.size, info.virtual_size
        );
        return Err(Failure { kind: FailureKind::ImageUnusable, message });
    }
    let temporary = PathBuf::from(format!("{}{TEMPORARY}", path.display()));
    let base = format.as_ref().map(|(image, info)| (image.path(), info.format.as_str()));
    let made = tool::create(&temporary, spec.size, base).and_then(|()| {
        File::open(&temporary)
            .and_then(|file| file.sync_all())
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(&files.dir)?.sync_all())
            .map_err(|error| io_failure(&path, &error))
    });
    if made.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    made
}

/// Notes which images the domain boots, so that the cache keeps them.
///
/// # Errors
/// When the system refuses.
pub fn note_boot_images(files: &VmFiles, images: &[&Pinned]) -> Result<(), Failure> {
    let path = files.boot_images();
    let lines: String = images.iter().map(|image| format!("{}\n", image.digest())).collect();
    if fs::read_to_string(&path).is_ok_and(|old| old == lines) {
        return Ok(());
    }
    let temporary = path.with_extension("tmp");
    let write = || {
        fs::write(&temporary, &lines)?;
        File::open(&temporary)?.sync_all()?;
        fs::rename(&temporary, &path)
    };
    write().map_err(|error| {
        let _ = fs::remove_file(&temporary);
        io_failure(&path, &error)
    })
}

/// Deletes a VM's directory, and its environment's when that was the last.
///
/// # Errors
/// When the system refuses; what is left is deleted by a repetition.
pub fn remove(files: &VmFiles) -> Result<(), Failure> {
    match fs::remove_dir_all(&files.dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io_failure(&files.dir, &error));
        }
        _ => {}
    }
    match fs::remove_dir(&files.ve_dir) {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(io_failure(&files.ve_dir, &error))
        }
        _ => Ok(()),
    }
}

/// Deletes a VM's disks, and nothing else: they are of another placement, or half filled.
///
/// # Errors
/// When the system refuses; a repetition goes on.
pub fn discard(files: &VmFiles) -> Result<(), Failure> {
    let failed = |error: io::Error| io_failure(&files.dir, &error);
    for file in entries(&files.dir).map_err(failed)? {
        if file.file_name().is_some_and(|name| name.to_string_lossy().contains(".qcow2")) {
            fs::remove_file(&file).map_err(|error| io_failure(&file, &error))?;
        }
    }
    Ok(())
}

/// Digests of every cached image that some VM's disk or domain on this node needs.
///
/// # Errors
/// When a directory cannot be read: nothing may be removed then.
pub fn images_in_use(state: &Path) -> io::Result<BTreeSet<String>> {
    let mut used = BTreeSet::new();
    for ve in entries(&state.join("disks"))? {
        for vm in entries(&ve)? {
            for file in entries(&vm)? {
                let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                if name == "boot-images" {
                    used.extend(fs::read_to_string(&file)?.lines().map(str::to_owned));
                } else if name.contains(".qcow2")
                    && let Some(base) = backing_file(&file)?
                    && let Some(digest) =
                        Path::new(&base).file_name().and_then(|name| name.to_str())
                {
                    used.insert(digest.to_owned());
                }
            }
        }
    }
    Ok(used)
}

fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    if dir.is_file() {
        return Ok(Vec::new());
    }
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// The backing file that a qcow2 header names, without a process per disk. A file that is no qcow2
/// has none.
pub fn backing_file(path: &Path) -> io::Result<Option<String>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    // magic, version, backing_file_offset (8 bytes), backing_file_size (4 bytes), big-endian
    let mut header = [0; 20];
    match file.read_exact(&mut header) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (magic, rest) = header.split_at(8);
    let (offset, size) = rest.split_at(8);
    if !magic.starts_with(b"QFI\xfb") {
        return Ok(None);
    }
    let offset = offset.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
    let size = size.iter().fold(0_usize, |value, byte| value << 8 | usize::from(*byte));
    // The format allows 1023 bytes.
    if offset == 0 || size == 0 || size > 1023 {
        return Ok(None);
    }
    let mut name = vec![0; size];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut name)?;
    Ok(Some(String::from_utf8_lossy(&name).into_owned()))
}
