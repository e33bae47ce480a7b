//! What must hold for any bytes that reach a decoder: it does not panic, and what it accepts is within
//! bounds and means the same after another round.

use discovery::agent::ports::PeerIdentity;
use discovery::engine::record::{Kept, Record};
use discovery::net::codec as frames;
use discovery::store::codec as records;

/// First byte of an input to [`record`]: the rest is a key (one byte of length, then itself) and a value.
pub const PAIR: u8 = 0;
/// The rest is the payload of an engine's record, without its checksum.
pub const KEPT: u8 = 1;
/// The rest is the payload of a peer, without its checksum.
pub const PEER: u8 = 2;

/// A frame from a peer. Tells whether it was accepted.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(message) = frames::decode(bytes) else { return false };
    assert_eq!(message.check(), Ok(()));
    let again = frames::encode(&message).expect("what was decoded is short enough");
    // Numbers have longer and shorter spellings; we write the shortest.
    assert!(again.len() <= bytes.len());
    let once_more = frames::decode(&again).expect("our own frame");
    assert_eq!(once_more, message);
    true
}

/// A pair of the journal, or the inside of one. Tells whether it was accepted.
pub fn record(bytes: &[u8]) -> bool {
    match bytes.split_first() {
        Some((&PAIR, rest)) => {
            let Some((&length, rest)) = rest.split_first() else { return false };
            let (key, value) = rest.split_at(rest.len().min(length.into()));
            match records::decode_any(key, value) {
                Ok(records::Stored::Engine(kept)) => {
                    assert_eq!(records::encode(&Record::Put(kept)).0, key);
                }
                Ok(records::Stored::Peer(peer)) => {
                    assert_eq!(records::encode_peer(&peer).0, key);
                }
                Err(_) => return false,
            }
            true
        }
        Some((&KEPT, payload)) => {
            let Ok(kept) = records::read_payload::<Kept>(payload) else { return false };
            let (key, value) = records::encode(&Record::Put(Box::new(kept.clone())));
            let value = value.expect("it is put");
            assert_eq!(records::decode(&key, &value), Ok(kept));
            true
        }
        Some((&PEER, payload)) => {
            let Ok(peer) = records::read_payload::<PeerIdentity>(payload) else { return false };
            let (key, value) = records::encode_peer(&peer);
            let value = value.expect("it is put");
            assert_eq!(records::decode_any(&key, &value), Ok(records::Stored::Peer(peer)));
            true
        }
        _ => false,
    }
}
