//! How records become bytes in the journal.
//!
//! ```text
//!   key    tag, then each name as u32 length + bytes (no key is a prefix of another's meaning)
//!   value  version | blake3 over (version, key, payload) | payload (postcard)
//! ```
//!
//! The checksum covers the key, so that a value that got under another's key is found out too.

use postcard::Error as PostcardError;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::agent::ports::PeerIdentity;
use crate::engine::id::NodeName;
use crate::engine::record::{Kept, Record, RecordKey};

/// Version of the values' layout.
const VERSION: u8 = 4;
/// Bytes of the checksum.
const CHECKSUM: usize = blake3::OUT_LEN;

/// First byte of an incarnation's key.
const TAG_INCARNATION: u8 = b'i';
/// First byte of a peer's key.
const TAG_PEER: u8 = b'p';
/// First byte of a register's key.
const TAG_VE: u8 = b'e';
/// First byte of a VM's key.
const TAG_VM: u8 = b'v';
/// First byte of the key of this node's leases.
const TAG_LEASE: u8 = b'l';
/// First byte of the key of what this node guards of another's leases.
const TAG_WARD: u8 = b'w';

/// A pair as [`crate::agent::ports::Store::write`] takes it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);

/// One pair of the journal, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Stored {
    /// The engine's.
    Engine(Box<Kept>),
    /// A pinned peer, the agent's own.
    Peer(PeerIdentity),
}

/// Why a pair cannot be read. What is on disk stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Nobody here writes such keys.
    #[error("unknown kind of record")]
    UnknownKind,
    /// Shorter than a version and a checksum.
    #[error("value is cut short")]
    TooShort,
    /// Written by another version of the agent.
    #[error("value has version {0}, this agent knows {VERSION}")]
    Version(u8),
    /// Its bytes are not the ones that were written.
    #[error("value is damaged: its checksum differs")]
    Checksum,
    /// The checksum is right and the layout is not: our own bug, or a version that was not raised.
    #[error("value cannot be read: {0}")]
    Layout(PostcardError),
    /// Something follows the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
    /// The value belongs to another key.
    #[error("value belongs to another key")]
    WrongKey,
}

/// The pair for one of the engine's records; `None` forgets the key.
#[must_use]
pub fn encode(record: &Record) -> Change {
    match record {
        Record::Put(kept) => {
            let key = engine_key(&kept.key());
            let value = seal(&key, &**kept);
            (key, Some(value))
        }
        Record::Forget(key) => (engine_key(key), None),
    }
}

/// The pair that pins a peer.
#[must_use]
pub fn encode_peer(peer: &PeerIdentity) -> Change {
    let key = peer_key(&peer.node);
    let value = seal(&key, peer);
    (key, Some(value))
}

/// The pair that forgets a peer.
#[must_use]
pub fn forget_peer(node: &NodeName) -> Change {
    (peer_key(node), None)
}

/// Reads any pair of the journal.
///
/// # Errors
/// Names what is wrong with it; nothing is half-read.
pub fn decode_any(key: &[u8], value: &[u8]) -> Result<Stored, DecodeError> {
    match key.first() {
        Some(&TAG_PEER) => {
            let peer: PeerIdentity = open(key, value)?;
            if peer_key(&peer.node) != key {
                return Err(DecodeError::WrongKey);
            }
            Ok(Stored::Peer(peer))
        }
        Some(&(TAG_INCARNATION | TAG_VE | TAG_VM | TAG_LEASE | TAG_WARD)) => {
            let kept: Kept = open(key, value)?;
            if engine_key(&kept.key()) != key {
                return Err(DecodeError::WrongKey);
            }
            Ok(Stored::Engine(Box::new(kept)))
        }
        _ => Err(DecodeError::UnknownKind),
    }
}

/// Reads one of the engine's pairs.
///
/// # Errors
/// Names what is wrong with it; a pinned peer is [`DecodeError::UnknownKind`] here.
pub fn decode(key: &[u8], value: &[u8]) -> Result<Kept, DecodeError> {
    match decode_any(key, value)? {
        Stored::Engine(kept) => Ok(*kept),
        Stored::Peer(_) => Err(DecodeError::UnknownKind),
    }
}

fn engine_key(key: &RecordKey) -> Vec<u8> {
    match key {
        RecordKey::Incarnation => vec![TAG_INCARNATION],
        RecordKey::Register(uid) => tagged(TAG_VE, &[uid.as_str()]),
        RecordKey::Lease => vec![TAG_LEASE],
        RecordKey::Ward(holder) => {
            let mut bytes = tagged(TAG_WARD, &[holder.node.as_str()]);
            bytes.extend_from_slice(&holder.disk.0.to_be_bytes());
            bytes
        }
        RecordKey::Vm(vm) => {
            let mut bytes = tagged(TAG_VM, &[vm.ve.as_str(), vm.member.as_str()]);
            bytes.extend_from_slice(&vm.index.to_be_bytes());
            bytes
        }
    }
}

fn peer_key(node: &NodeName) -> Vec<u8> {
    tagged(TAG_PEER, &[node.as_str()])
}

fn tagged(tag: u8, names: &[&str]) -> Vec<u8> {
    let mut bytes = vec![tag];
    for name in names {
        let length = u32::try_from(name.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(name.as_bytes());
    }
    bytes
}

/// Version, checksum, payload.
fn seal<T: Serialize + ?Sized>(key: &[u8], value: &T) -> Vec<u8> {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&[0; CHECKSUM]);
    let mut bytes = postcard::to_extend(value, bytes)
        .expect("our records hold no type that postcard cannot write, and a Vec takes every byte");
    let sum = checksum(key, bytes[0], &bytes[1 + CHECKSUM..]);
    bytes[1..=CHECKSUM].copy_from_slice(sum.as_bytes());
    bytes
}

/// The payload of a sealed value, all of it.
fn open<T: DeserializeOwned>(key: &[u8], value: &[u8]) -> Result<T, DecodeError> {
    let (&version, rest) = value.split_first().ok_or(DecodeError::TooShort)?;
    if version != VERSION {
        return Err(DecodeError::Version(version));
    }
    let (sum, payload) = rest.split_first_chunk::<CHECKSUM>().ok_or(DecodeError::TooShort)?;
    if checksum(key, version, payload) != *sum {
        return Err(DecodeError::Checksum);
    }
    read_payload(payload)
}

/// Reads a payload that has passed its checksum. Public for the fuzz target, which could not guess
/// checksums.
///
/// # Errors
/// Names what is wrong with it.
pub fn read_payload<T: DeserializeOwned>(payload: &[u8]) -> Result<T, DecodeError> {
    let (value, rest) = postcard::take_from_bytes(payload).map_err(DecodeError::Layout)?;
    if rest.is_empty() { Ok(value) } else { Err(DecodeError::Trailing(rest.len())) }
}

fn checksum(key: &[u8], version: u8, payload: &[u8]) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&[version]);
    hasher.update(&(key.len() as u64).to_be_bytes());
    hasher.update(key);
    hasher.update(payload);
    hasher.finalize()
}
