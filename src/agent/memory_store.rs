//! The fake of the [`Store`] port: a map in memory that outlives its handles, so that tests can "restart"
//! an agent, and that fails when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::ports::{Store, StoreError};

/// What the store calls itself in errors.
const NAME: &str = "memory";

#[derive(Default)]
struct Disk {
    pairs: BTreeMap<Vec<u8>, Vec<u8>>,
    full: bool,
    writes: u64,
}

/// A store in memory. Clones share the same disk.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Mutex<Disk>>);

impl MemoryStore {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes every write fail as a full disk does, or work again.
    pub fn set_full(&self, full: bool) {
        self.disk().full = full;
    }

    /// Batches written so far.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.disk().writes
    }

    fn disk(&self) -> std::sync::MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        Ok(self.disk().pairs.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
    }

    fn write(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        let mut disk = self.disk();
        if disk.full {
            return Err(StoreError::Full { path: NAME.to_owned() });
        }
        for (key, value) in changes {
            match value {
                Some(value) => drop(disk.pairs.insert(key.clone(), value.clone())),
                None => drop(disk.pairs.remove(key)),
            }
        }
        disk.writes += 1;
        Ok(())
    }
}
