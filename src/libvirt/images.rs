//! The cache of images: `<state>/images/<sha256>`, each fetched once and whole or not there.
//!
//! ```text
//!   images/<sha256>                an image; its modification time is its last use
//!   images/partial/<key>           a fetch in progress, or one that a crash left to go on from
//!   images/by-url/<sha256 of url>  the digest found at a source that declares none
//! ```
//!
//! An image stays while a disk is backed by it, a domain boots it, or a command holds it ([`Pinned`]);
//! of the others the least recently used go when the cache is over its limit.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::LibvirtConfig;
use super::disks::images_in_use;
use super::error::LibvirtError;
use super::fetch::{Fetcher, Progress};
use super::projection::hex;
use super::tool::{self, ImageInfo};
use crate::engine::host::{Failure, FailureKind};
use crate::engine::spec::ImageSource;

/// A broken fetch that nobody has gone on with for a day is of a declaration that changed.
const PARTIAL_KEPT: Duration = Duration::from_secs(24 * 3600);

/// A fetch that others may wait for.
#[derive(Debug, Default)]
struct Flight {
    result: Mutex<Option<Result<String, Failure>>>,
    over: Condvar,
}

#[derive(Debug, Default)]
struct State {
    flights: BTreeMap<String, Arc<Flight>>,
    /// Commands that hold an image, by digest.
    pins: BTreeMap<String, usize>,
}

/// The cache.
#[derive(Clone, Debug)]
pub struct ImageCache {
    dir: PathBuf,
    state_dir: PathBuf,
    limit: u64,
    fetcher: Arc<Fetcher>,
    state: Arc<Mutex<State>>,
}

/// An image that is not removed while this is held.
#[derive(Debug)]
pub struct Pinned {
    digest: String,
    path: PathBuf,
    state: Arc<Mutex<State>>,
}

impl Pinned {
    /// Its SHA-256, which is also its file's name.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Checks that it may back a disk: a raw image, or a qcow2 that refers to no other file. Anything
    /// else could make QEMU open files of this host on the guest's behalf.
    ///
    /// # Errors
    /// When it may not, or cannot be examined.
    pub fn format(&self) -> Result<ImageInfo, Failure> {
        let unusable = |message| Failure { kind: FailureKind::ImageUnusable, message };
        let found = tool::info(&self.path, None).map_err(|failure| match failure.kind {
            FailureKind::Refused => unusable(failure.message),
            _ => failure,
        })?;
        if found.format != "qcow2" && found.format != "raw" {
            return Err(unusable(format!("the image is {}; qcow2 or raw is needed", found.format)));
        }
        if found.refers_elsewhere {
            return Err(unusable(
                "the image refers to another file (backing or data file); flatten it with \
                 qemu-img convert"
                    .to_owned(),
            ));
        }
        Ok(found)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if let Some(count) = state.pins.get_mut(&self.digest) {
            *count -= 1;
            if *count == 0 {
                state.pins.remove(&self.digest);
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of the file system, as the engine knows it.
pub fn io_failure(path: &Path, error: &io::Error) -> Failure {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    if full {
        let message = format!("no room left for {}: free some space", path.display());
        return Failure { kind: FailureKind::StorageFull, message };
    }
    Failure { kind: FailureKind::Refused, message: format!("{}: {error}", path.display()) }
}

/// Lower-case hexadecimal SHA-256 of a text.
fn digest_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

impl ImageCache {
    /// Over a state directory, which is made if missing.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(config: &LibvirtConfig) -> Result<Self, LibvirtError> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = config.state_dir.join("images");
        for path in [dir.clone(), dir.join("partial"), dir.join("by-url")] {
            let made = fs::DirBuilder::new().recursive(true).mode(0o711).create(&path);
            made.map_err(|source| LibvirtError::StateDir { path, source })?;
        }
        Ok(Self {
            dir,
            state_dir: config.state_dir.clone(),
            limit: config.image_cache_limit_bytes,
            fetcher: Arc::new(Fetcher::new(config)),
            state: Arc::default(),
        })
    }

    /// Hands out an image, fetching it if it is not there. Whoever asks for one that is being fetched
    /// waits for the same fetch.
    ///
    /// # Errors
    /// By kind: unreachable, another digest than declared, too large, no room.
    pub fn get(&self, source: &ImageSource, progress: Progress<'_>) -> Result<Pinned, Failure> {
        let declared = source.sha256.as_deref().map(str::to_ascii_lowercase);
        if let Some(digest) = &declared
            && !(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()))
        {
            let message = format!("{digest:?} is no SHA-256: 64 hexadecimal digits");
            return Err(Failure { kind: FailureKind::ImageUnusable, message });
        }
        let key = declared.clone().unwrap_or_else(|| digest_of(&source.url));
        loop {
            if let Some(digest) = declared.clone().or_else(|| self.indexed(&source.url))
                && let Some(pinned) = self.pin(digest)
            {
                return Ok(pinned);
            }
            let (flight, mine) = {
                let mut state = lock(&self.state);
                match state.flights.get(&key) {
                    Some(flight) => (flight.clone(), false),
                    None => {
                        let flight = Arc::<Flight>::default();
                        state.flights.insert(key.clone(), flight.clone());
                        (flight, true)
                    }
                }
            };
            if mine {
                let landing = Landing { cache: self, key: &key, flight: &flight };
                landing.land(self.fetch(source, &key, declared.as_deref(), progress))?;
            } else {
                progress(format!("waits for {} that another VM fetches", source.url));
                let result = lock(&flight.result);
                let result = flight
                    .over
                    .wait_while(result, |result| result.is_none())
                    .unwrap_or_else(PoisonError::into_inner);
                if let Some(Err(failure)) = &*result {
                    return Err(failure.clone());
                }
            }
            // Round again: pinned under the lock, or fetched anew if it was removed in between.
        }
    }

    fn fetch(
        &self,
        source: &ImageSource,
        key: &str,
        declared: Option<&str>,
        progress: Progress<'_>,
    ) -> Result<String, Failure> {
        let partial = self.dir.join("partial").join(key);
        let room = |bytes| self.make_room(bytes);
        let digest = self.fetcher.fetch(&source.url, declared, &partial, &room, progress)?;
        let path = self.dir.join(&digest);
        let keep = || {
            fs::rename(&partial, &path)?;
            File::open(&self.dir)?.sync_all()
        };
        keep().map_err(|error| io_failure(&path, &error))?;
        if declared.is_none() {
            self.index(&source.url, &digest)?;
        }
        // This one is not pinned yet: it counts, and it is the newest.
        self.make_room(0);
        Ok(digest)
    }

    /// The digest that was found at a source without one.
    fn indexed(&self, url: &str) -> Option<String> {
        let text = fs::read_to_string(self.dir.join("by-url").join(digest_of(url))).ok()?;
        text.lines().next().filter(|digest| digest.len() == 64).map(str::to_owned)
    }

    fn index(&self, url: &str, digest: &str) -> Result<(), Failure> {
        let path = self.dir.join("by-url").join(digest_of(url));
        let temporary = path.with_extension("tmp");
        let write = || {
            fs::write(&temporary, format!("{digest}\n{url}\n"))?;
            File::open(&temporary)?.sync_all()?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|error| {
            let _ = fs::remove_file(&temporary);
            io_failure(&path, &error)
        })
    }

    /// Holds an image that is there, and notes that it was used.
    fn pin(&self, digest: String) -> Option<Pinned> {
        let path = self.dir.join(&digest);
        // Under the lock: removal looks at the pins under the same lock.
        let mut state = lock(&self.state);
        let file = File::open(&path).ok()?;
        // What does not get a new time is only removed earlier than it should be.
        let _ = file.set_modified(SystemTime::now());
        *state.pins.entry(digest.clone()).or_default() += 1;
        drop(state);
        Some(Pinned { digest, path, state: self.state.clone() })
    }

    /// Removes least recently used images until `more` bytes fit under the limit, as far as unused ones
    /// go. What is in use may exceed the limit: declared VMs go before tidiness.
    pub fn make_room(&self, more: u64) {
        // Before the look: a command that lets go of an image has made its disk, and the look sees it.
        let state = lock(&self.state);
        let used = match images_in_use(&self.state_dir) {
            Ok(used) => used,
            Err(error) => {
                tracing::warn!(%error, "cannot tell which images are in use; none is removed");
                return;
            }
        };
        self.drop_old_partials(&state);
        let mut images = Vec::new();
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_file() {
                let name = entry.file_name().to_string_lossy().into_owned();
                images.push((metadata.modified().ok(), name, metadata.len()));
            }
        }
        images.sort();
        let mut total: u64 = images.iter().map(|(_, _, bytes)| bytes).sum();
        for (_, name, bytes) in &images {
            if total.saturating_add(more) <= self.limit {
                return;
            }
            if used.contains(name) || state.pins.contains_key(name) {
                continue;
            }
            match fs::remove_file(self.dir.join(name)) {
                Ok(()) => {
                    tracing::info!(image = name, bytes, "removed from the cache");
                    total -= bytes;
                }
                Err(error) => tracing::warn!(%error, image = name, "cannot remove from the cache"),
            }
        }
    }
}

impl ImageCache {
    /// Removes what fetches left behind that nobody has gone on with.
    fn drop_old_partials(&self, state: &State) {
        for entry in fs::read_dir(self.dir.join("partial")).into_iter().flatten().flatten() {
            let written = entry.metadata().and_then(|metadata| metadata.modified());
            let age = written.ok().and_then(|written| written.elapsed().ok()).unwrap_or_default();
            let name = entry.file_name().to_string_lossy().into_owned();
            if age > PARTIAL_KEPT && !state.flights.contains_key(&name) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Ends a flight for those who wait, also when the fetch panics.
struct Landing<'a> {
    cache: &'a ImageCache,
    key: &'a str,
    flight: &'a Flight,
}

impl Landing<'_> {
    fn land(self, result: Result<String, Failure>) -> Result<(), Failure> {
        *lock(&self.flight.result) = Some(result.clone());
        result.map(drop)
    }
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        lock(&self.cache.state).flights.remove(self.key);
        let mut result = lock(&self.flight.result);
        if result.is_none() {
            let message = "fetching the image failed on our side".to_owned();
            *result = Some(Err(Failure { kind: FailureKind::ImageUnreachable, message }));
        }
        drop(result);
        self.flight.over.notify_all();
    }
}
