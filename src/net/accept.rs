//! The receiving half: proves who dials, turns strangers away, and reads no more than the engine takes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{Connection, Incoming, ReadError, ReadExactError, RecvStream, VarInt};
use rustls::pki_types::CertificateDer;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::codec::{self, DecodeError};
use super::counters::Counters;
use super::peer::Peer;
use super::{CODE_STRANGER, Shared, tls, tunnel};
use crate::agent::ports::Stranger;
use crate::engine::input::Input;

/// Handshakes that wait to be begun; more are refused by QUIC itself.
pub(super) const MAX_INCOMING: usize = 256;
/// Bytes that one of those may bring: a client hello and a little more.
pub(super) const INCOMING_BYTES: u64 = 16 << 10;
/// Bytes that all of those may bring.
pub(super) const INCOMING_BYTES_TOTAL: u64 = 2 << 20;

/// Handshakes under way.
const HANDSHAKES: usize = 128;
/// From this many on, a caller must prove its address first (a stateless retry): forged ones cost nothing.
const BUSY: usize = 32;
/// One handshake.
const HANDSHAKE: Duration = Duration::from_secs(3);
/// A stranger is reported once in this time per key: it dials again and again.
const REPORT_AGAIN: Duration = Duration::from_secs(3);
/// Strangers remembered for that.
const MAX_STRANGERS: usize = 1024;
/// A message's first bytes, and then the rest of it.
const READ: Duration = Duration::from_secs(10);
/// Answer to a stream that is not read on.
const CODE_UNREADABLE: VarInt = VarInt::from_u32(1);

/// Accepts until the endpoint is closed.
pub(super) async fn run(shared: Arc<Shared>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let reported = Arc::new(Reported::default());
    while let Some(incoming) = shared.endpoint.accept().await {
        let under_way = HANDSHAKES - handshakes.available_permits();
        if under_way >= BUSY && incoming.may_retry() && !incoming.remote_address_validated() {
            // It fails only for those that may not retry.
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = handshakes.clone().try_acquire_owned() else {
            Counters::add(&shared.counters.handshakes_refused, 1);
            incoming.refuse();
            continue;
        };
        tokio::spawn(welcome(shared.clone(), reported.clone(), incoming, permit));
    }
}

/// One handshake, and then the connection if its key is pinned.
async fn welcome(
    shared: Arc<Shared>,
    reported: Arc<Reported>,
    incoming: Incoming,
    permit: OwnedSemaphorePermit,
) {
    let from = incoming.remote_address();
    let connection = match timeout(HANDSHAKE, incoming).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            Counters::add(&shared.counters.handshake_failures, 1);
            tracing::debug!(%from, %error, "handshake failed");
            return;
        }
        Err(_) => {
            Counters::add(&shared.counters.handshake_failures, 1);
            return;
        }
    };
    drop(permit);
    let Some(key) = proven_key(&connection) else {
        connection.close(CODE_STRANGER, b"no ed25519 key");
        return;
    };
    match shared.peer_by_key(&key) {
        Some(peer) if tls::is_tunnel(&connection) => {
            tunnel::serve(&shared, &peer, &connection).await;
        }
        Some(peer) if peer.admit(&connection) => {
            Counters::add(&shared.counters.accepted, 1);
            receive(&shared, &peer, &connection).await;
        }
        _ => {
            connection.close(CODE_STRANGER, b"key not pinned");
            Counters::add(&shared.counters.strangers, 1);
            if key != shared.identity.public() && reported.is_due(key) {
                tracing::info!(%from, "a stranger knocks");
                // A full queue loses a report; the stranger knocks again.
                let _ = shared.strangers.try_send(Stranger { key, from });
            }
        }
    }
}

/// The key that the peer proved to hold in the handshake.
fn proven_key(connection: &Connection) -> Option<[u8; 32]> {
    let chain = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::key_of(chain.first()?)
}

/// Takes messages until the connection ends.
async fn receive(shared: &Arc<Shared>, peer: &Arc<Peer>, connection: &Connection) {
    tracing::debug!(peer = %peer.node, from = %connection.remote_address(), "peer connected");
    loop {
        // No stream is taken before there is room to read it: QUIC holds the peer back.
        let permit = peer.streams.clone().acquire_owned();
        let permit = permit.await.expect("the peers' semaphores are never closed");
        match connection.accept_uni().await {
            Ok(stream) => {
                tokio::spawn(take(shared.clone(), peer.clone(), stream, permit));
            }
            Err(reason) => {
                tracing::debug!(peer = %peer.node, %reason, "peer disconnected");
                return;
            }
        }
    }
}

/// Why a stream brought no message.
enum Unread {
    /// Too slow, reset, or its connection is gone.
    Broken,
    /// It brought something else.
    Undecodable(DecodeError),
}

/// One message, into the engine's queue. `permit` is held until it is there: a full queue stops reading.
async fn take(
    shared: Arc<Shared>,
    peer: Arc<Peer>,
    mut stream: RecvStream,
    permit: OwnedSemaphorePermit,
) {
    let counters = &shared.counters;
    match read(&peer, &mut stream).await {
        Ok((message, bytes, room)) => {
            if peer.has_ended() {
                return;
            }
            let input = Input::Message { from: peer.node.clone(), message: Box::new(message) };
            // An error says that the engine is gone: the agent stops.
            // Counted before it is there: nobody sees a message that is not counted yet.
            if let Ok(place) = shared.inputs.reserve().await {
                Counters::add(&counters.received, 1);
                Counters::add(&counters.received_bytes, bytes as u64);
                place.send(input);
            }
            drop(room);
        }
        Err(unread) => {
            // An error says that the stream has ended: nothing is left to stop.
            let _ = stream.stop(CODE_UNREADABLE);
            match unread {
                Unread::Broken => Counters::add(&counters.dropped_read_failed, 1),
                Unread::Undecodable(error) => {
                    Counters::add(&counters.decode_errors, 1);
                    tracing::debug!(peer = %peer.node, %error, kind = error.kind(), "not a message");
                }
            }
        }
    }
    drop(permit);
}

/// Reads one frame to the stream's end. Also returns its bytes and the room it takes of the peer's.
async fn read(
    peer: &Peer,
    stream: &mut RecvStream,
) -> Result<(crate::engine::wire::Message, usize, OwnedSemaphorePermit), Unread> {
    let mut header = [0; codec::HEADER];
    match timeout(READ, stream.read_exact(&mut header)).await {
        Ok(Ok(())) => {}
        Ok(Err(ReadExactError::FinishedEarly(_))) => {
            return Err(Unread::Undecodable(DecodeError::TooShort));
        }
        Ok(Err(ReadExactError::ReadError(_))) | Err(_) => return Err(Unread::Broken),
    }
    let length = codec::decode_header(header).map_err(Unread::Undecodable)?;
    let wanted = u32::try_from(length.max(1)).unwrap_or(u32::MAX);
    let room = peer.reading.clone().acquire_many_owned(wanted).await;
    let room = room.expect("the peers' semaphores are never closed");
    // Grows with what comes, not with what was claimed. One byte more than claimed is trailing.
    let body = match timeout(READ, stream.read_to_end(length)).await {
        Ok(Ok(body)) => body,
        Ok(Err(quinn::ReadToEndError::TooLong)) => {
            return Err(Unread::Undecodable(DecodeError::Trailing(1)));
        }
        Ok(Err(quinn::ReadToEndError::Read(
            ReadError::Reset(_) | ReadError::ConnectionLost(_),
        )))
        | Err(_) => return Err(Unread::Broken),
        Ok(Err(quinn::ReadToEndError::Read(_))) => return Err(Unread::Broken),
    };
    if body.len() < length {
        return Err(Unread::Undecodable(DecodeError::TooShort));
    }
    let message = codec::decode_body(&body).map_err(Unread::Undecodable)?;
    Ok((message, body.len() + codec::HEADER, room))
}

/// When each stranger was last reported.
#[derive(Default)]
struct Reported(std::sync::Mutex<BTreeMap<[u8; 32], Instant>>);

impl Reported {
    fn is_due(&self, key: [u8; 32]) -> bool {
        let mut last = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        last.retain(|_, at| at.elapsed() < REPORT_AGAIN);
        if last.len() >= MAX_STRANGERS || last.contains_key(&key) {
            return false;
        }
        last.insert(key, Instant::now());
        true
    }
}
