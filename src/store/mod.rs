//! The store rim: the durable journal, one redb file under the agent's state directory.
//!
//! ```text
//!   driver -- batch of changes --> Journal::write -- one transaction, synced --> journal.redb
//!          <-- all pairs, in key order -- Journal::load
//! ```
//!
//! A batch is one transaction of redb: after a crash at any point all of it is there or none of it.
//! Values carry their own checksum (see [`codec`]), so that a damaged one is named, not half-read.

use std::any::Any;
use std::fs::File;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadableDatabase, ReadableTable,
    StorageError, TableDefinition, TableError, TransactionError,
};

use crate::agent::ports::{Store, StoreError};

pub mod codec;

/// The pairs that the driver keeps.
const RECORDS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("records");
/// What the file says of itself.
const ABOUT: TableDefinition<&str, u64> = TableDefinition::new("about");
/// The row of [`ABOUT`] that holds the version of the file's layout.
const FORMAT_ROW: &str = "format";
/// Version of the file's layout. A file of a newer one is refused: reading half of it would lose VMs.
const FORMAT: u64 = 1;
/// redb's page cache, bytes. Its default is 1 GiB; a node's records are a few hundred KiB and are read
/// once, at start.
const CACHE: usize = 2 << 20;

/// The durable journal. One process at a time holds it.
pub struct Journal {
    path: PathBuf,
    /// `None` after a failure of the disk: redb takes no more then, and the next call opens it again.
    database: Option<Database>,
}

impl Journal {
    /// Opens the journal, or makes an empty one. What an interrupted write left half-done is undone.
    ///
    /// # Errors
    /// [`StoreError::Busy`] while another process holds it, [`StoreError::Damaged`] when it is no
    /// journal, or one of a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let mut journal = Self { path: path.as_ref().to_owned(), database: None };
        journal.attempt(|_| Ok(()))?;
        Ok(journal)
    }

    /// Runs one use of the database, opening it where it is not open. A failed use closes it: after an
    /// error of the disk redb refuses everything until it is opened anew. Some kinds of damage make redb
    /// panic; that is an answer about the file, and no reason for the agent to die.
    fn attempt<T>(
        &mut self,
        run: impl FnOnce(&Database) -> Result<T, Fault>,
    ) -> Result<T, StoreError> {
        let (path, open) = (&self.path, self.database.take());
        // Nothing that a panic leaves half-changed is seen again: the database is dropped with it.
        let result = catch_unwind(AssertUnwindSafe(|| {
            let database = open.map_or_else(|| open_database(path), Ok)?;
            let result = run(&database)?;
            Ok((database, result))
        }));
        match result {
            Ok(Ok((database, result))) => {
                self.database = Some(database);
                Ok(result)
            }
            Ok(Err(fault)) => Err(Fault::name(fault, path)),
            Err(panic) => Err(Fault::Damaged(words(&*panic)).name(path)),
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref().copied()).unwrap_or("it makes no sense").to_owned()
}

impl Store for Journal {
    fn load(&mut self) -> Result<Vec<(Vec<u8>, Vec<u8>)>, StoreError> {
        self.attempt(|database| {
            let table = database.begin_read()?.open_table(RECORDS)?;
            let mut pairs = Vec::new();
            for pair in table.iter()? {
                let (key, value) = pair?;
                pairs.push((key.value().to_vec(), value.value().to_vec()));
            }
            Ok(pairs)
        })
    }

    fn write(&mut self, changes: &[(Vec<u8>, Option<Vec<u8>>)]) -> Result<(), StoreError> {
        self.attempt(|database| {
            let mut transaction = database.begin_write()?;
            transaction
                .set_durability(Durability::Immediate)
                .map_err(|e| Fault::Damaged(e.to_string()))?;
            {
                let mut table = transaction.open_table(RECORDS)?;
                for (key, value) in changes {
                    match value {
                        Some(value) => drop(table.insert(key.as_slice(), value.as_slice())?),
                        None => drop(table.remove(key.as_slice())?),
                    }
                }
            }
            transaction.commit()?;
            Ok(())
        })
    }
}

/// Opens the file, makes its tables, and checks the version of its layout.
fn open_database(path: &Path) -> Result<Database, Fault> {
    let fresh = !path.exists();
    let database = Builder::new().set_cache_size(CACHE).create(path)?;
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate).map_err(|e| Fault::Damaged(e.to_string()))?;
    {
        let mut about = transaction.open_table(ABOUT)?;
        let format = about.get(FORMAT_ROW)?.map(|row| row.value());
        match format {
            None => drop(about.insert(FORMAT_ROW, FORMAT)?),
            Some(FORMAT) => {}
            Some(other) => {
                return Err(Fault::Damaged(format!(
                    "its layout has version {other}, this agent knows {FORMAT}: it was written by a newer agent"
                )));
            }
        }
        transaction.open_table(RECORDS)?;
    }
    transaction.commit()?;
    if fresh {
        // The file's name must survive a power cut as well as its bytes.
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    Ok(database)
}

/// What went wrong, before it is known for which file.
enum Fault {
    Busy,
    Damaged(String),
    Io(io::Error),
}

impl Fault {
    fn name(self, path: &Path) -> StoreError {
        let path = path.display().to_string();
        match self {
            Self::Busy => StoreError::Busy { path },
            Self::Damaged(reason) => StoreError::Damaged { path, reason },
            Self::Io(source) => match source.kind() {
                io::ErrorKind::StorageFull
                | io::ErrorKind::QuotaExceeded
                | io::ErrorKind::FileTooLarge => StoreError::Full { path },
                // redb's word for a file that holds something else.
                io::ErrorKind::InvalidData => {
                    StoreError::Damaged { path, reason: source.to_string() }
                }
                _ => StoreError::Io { path, source },
            },
        }
    }
}

impl From<io::Error> for Fault {
    fn from(source: io::Error) -> Self {
        Self::Io(source)
    }
}

impl From<StorageError> for Fault {
    fn from(error: StorageError) -> Self {
        match error {
            StorageError::Io(source) => Self::Io(source),
            StorageError::Corrupted(reason) => Self::Damaged(reason),
            other => Self::Io(io::Error::other(other)),
        }
    }
}

impl From<DatabaseError> for Fault {
    fn from(error: DatabaseError) -> Self {
        match error {
            DatabaseError::DatabaseAlreadyOpen => Self::Busy,
            DatabaseError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TransactionError> for Fault {
    fn from(error: TransactionError) -> Self {
        match error {
            TransactionError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<TableError> for Fault {
    fn from(error: TableError) -> Self {
        match error {
            TableError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}

impl From<CommitError> for Fault {
    fn from(error: CommitError) -> Self {
        match error {
            CommitError::Storage(error) => error.into(),
            other => Self::Damaged(other.to_string()),
        }
    }
}
