//! The thread that owns the store, and what is read from it at start.
//!
//! The driver hands over a batch and waits until it is durable; nothing is sent before. A full disk is
//! waited out here, because nothing else helps: the agent keeps running, promises nothing, and says why.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::ports::{PeerIdentity, Store, StoreError};
use crate::engine::id::NodeName;
use crate::engine::record::{Kept, Record};

/// A pair to keep, or (`None`) to forget.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// One pair of the journal, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Loaded {
    /// The engine's.
    Engine(Box<Kept>),
    /// A pinned peer.
    Peer(PeerIdentity),
}

/// How records become bytes and back: the store's room knows, this one does not.
#[derive(Clone, Copy)]
pub struct Codec {
    /// One of the engine's records.
    pub record: fn(&Record) -> Change,
    /// A peer to pin.
    pub peer: fn(&PeerIdentity) -> Change,
    /// A peer to forget.
    pub forget_peer: fn(&NodeName) -> Change,
    /// A pair, or what is wrong with it.
    pub read: fn(&[u8], &[u8]) -> Result<Loaded, String>,
}

/// Why an agent cannot begin or go on. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Another agent of this node runs.
    #[error(
        "{path} is in use by another process: end the other agent of this node (two would both start its VMs)"
    )]
    Busy {
        /// The file.
        path: String,
    },
    /// The file cannot be read.
    #[error(
        "the journal {path} is damaged: {reason}. Keep a copy of it; restore the file from a backup, or move it \
         away: the agent then begins with nothing. It is another one to its peers, and does not run this node's guests: with \
         failover its guard ends them, else they are strays until their environment's handler says what is to become of them"
    )]
    Damaged {
        /// The file.
        path: String,
        /// How.
        reason: String,
    },
    /// One record cannot be read. Going on without it could run a VM twice.
    #[error(
        "a record in the journal cannot be read: {reason}. A newer agent wrote it, or the disk is failing: run \
         the newer agent, or restore the journal from a backup"
    )]
    Record {
        /// What is wrong.
        reason: String,
    },
    /// The disk, before anything could be read.
    #[error("the journal cannot be read: {0}")]
    Store(StoreError),
    /// The journal's thread has ended: a panic in the store, our own bug.
    #[error("the journal's thread has ended")]
    Ended,
    /// The system gives no thread.
    #[error("no thread for the journal: {0}")]
    Thread(std::io::Error),
}

/// What a journal held.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The engine's records.
    pub kept: Vec<Kept>,
    /// Pinned peers.
    pub peers: Vec<PeerIdentity>,
}

/// A batch on its way to the disk.
struct Batch {
    changes: Vec<Change>,
    done: oneshot::Sender<Result<(), (StoreError, Vec<Change>)>>,
}

/// The journal, on its own thread.
pub struct Journal {
    batches: mpsc::Sender<Batch>,
    codec: Codec,
}

impl Journal {
    /// Reads everything, then hands the store to a thread of its own.
    ///
    /// # Errors
    /// When something cannot be read: an agent that forgets what it has promised must not begin.
    pub fn open(mut store: impl Store, codec: Codec) -> Result<(Self, Recovered), JournalError> {
        let pairs = store.load().map_err(cannot_begin)?;
        let mut recovered = Recovered::default();
        for (key, value) in pairs {
            match (codec.read)(&key, &value).map_err(|reason| JournalError::Record { reason })? {
                Loaded::Engine(kept) => recovered.kept.push(*kept),
                Loaded::Peer(peer) => recovered.peers.push(peer),
            }
        }
        let (batches, mut queue) = mpsc::channel::<Batch>(1);
        let work = move || {
            while let Some(Batch { changes, done }) = queue.blocking_recv() {
                let result = store.write(&changes).map_err(|error| (error, changes));
                // The driver was dropped meanwhile: its batch is written, and nobody acts on it.
                let _ = done.send(result);
            }
        };
        let thread = std::thread::Builder::new().name("journal".into());
        thread.spawn(work).map_err(JournalError::Thread)?;
        Ok((Self { batches, codec }, recovered))
    }

    /// How records become bytes.
    #[must_use]
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Makes all changes durable, or says why not and gives them back for another try. An error that no
    /// further try would mend is a [`JournalError`].
    ///
    /// # Errors
    /// When the agent must end.
    pub async fn write(&self, changes: Vec<Change>) -> Result<Written, JournalError> {
        let (done, answer) = oneshot::channel();
        let batch = Batch { changes, done };
        self.batches.send(batch).await.map_err(|_| JournalError::Ended)?;
        match answer.await.map_err(|_| JournalError::Ended)? {
            Ok(()) => Ok(Written::Durable),
            Err((error, changes)) => match fatal(error) {
                Ok(fatal) => Err(fatal),
                Err(error) => Ok(Written::NotYet { error, changes }),
            },
        }
    }
}

/// How a write ended.
#[derive(Debug)]
pub enum Written {
    /// On disk.
    Durable,
    /// Nothing is on disk; worth another try after [`RETRY`].
    NotYet {
        /// Why.
        error: StoreError,
        /// What was to be written.
        changes: Vec<Change>,
    },
}

/// How long after a failed write the next one is tried: people free space in minutes, and a try on a full
/// disk costs next to nothing.
pub const RETRY: Duration = Duration::from_millis(500);

/// What a failure to open or read the store means before the agent has begun.
#[must_use]
pub fn cannot_begin(error: StoreError) -> JournalError {
    fatal(error).unwrap_or_else(JournalError::Store)
}

/// An error after which no try helps; the others are given back.
fn fatal(error: StoreError) -> Result<JournalError, StoreError> {
    match error {
        StoreError::Busy { path } => Ok(JournalError::Busy { path }),
        StoreError::Damaged { path, reason } => Ok(JournalError::Damaged { path, reason }),
        error @ (StoreError::Full { .. } | StoreError::Io { .. }) => Err(error),
    }
}
