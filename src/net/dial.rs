//! The sending half: one task per pinned peer dials it when something waits for it, and gives each message
//! a stream of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::{ClientConfig, Connection, VarInt};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::counters::Counters;
use super::peer::Peer;
use super::{CODE_UNUSED, Shared};

/// One handshake at one address. Three lost packets fit into it.
const DIAL: Duration = Duration::from_secs(2);
/// First pause after a failure; a restarted peer is back within a second.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause. A peer that comes back and dials us ends it early.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// A connection that lived this long was a success: the next pause is the first one again. A peer that
/// does not know our key closes at once, and would otherwise be dialled ten times in a second.
pub(super) const STEADY: Duration = Duration::from_secs(2);
/// Messages being written at a time; beyond it the rest waits in the queue, where it may be replaced.
const WRITING: usize = 32;
/// One message, from its stream's opening to its last byte given to QUIC.
const WRITE: Duration = Duration::from_secs(10);
/// A connection that carried nothing for this long is closed; the next message dials again.
const UNUSED: Duration = Duration::from_secs(60);
/// Longer frames yield to shorter ones, bytes.
const LONG: usize = 64 << 10;
/// Close code of a stream that was given up.
const CODE_GIVEN_UP: VarInt = VarInt::from_u32(1);
/// TLS wants a name to dial. Keys are pinned; the name means nothing and is not sent.
const SERVER_NAME: &str = "discovery-agent";

/// Serves one peer until its task is aborted (revoked, replaced, the agent stops).
pub(super) async fn run(shared: Arc<Shared>, peer: Arc<Peer>, config: ClientConfig) {
    let mut pauses = Pauses::new(shared.identity.public(), peer.key);
    loop {
        Counters::add(&shared.counters.dropped_stale, peer.queue.expire());
        peer.queue.filled().await;
        if let Some(connection) = dial(&shared, &peer, &config).await {
            let since = Instant::now();
            if !peer.opened(&connection) {
                return;
            }
            Counters::add(&shared.counters.dialled, 1);
            pump(&shared, &peer, &connection).await;
            tracing::debug!(peer = %peer.node, reason = ?connection.close_reason(), "connection ended");
            if since.elapsed() >= STEADY {
                pauses.reset();
                continue;
            }
        }
        tokio::select! {
            () = sleep(pauses.next()) => {}
            () = peer.news.notified() => {}
        }
    }
}

/// Tries the addresses in order.
pub(super) async fn dial(
    shared: &Shared,
    peer: &Peer,
    config: &ClientConfig,
) -> Option<Connection> {
    for address in peer.addresses() {
        let result = match shared.endpoint.connect_with(config.clone(), address, SERVER_NAME) {
            Ok(connecting) => match timeout(DIAL, connecting).await {
                Ok(Ok(connection)) => return Some(connection),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            },
            Err(error) => error.to_string(),
        };
        Counters::add(&shared.counters.dial_failures, 1);
        tracing::debug!(peer = %peer.node, %address, error = result, "dial failed");
    }
    None
}

/// Sends what waits until the connection ends or is not needed any more.
async fn pump(shared: &Arc<Shared>, peer: &Peer, connection: &Connection) {
    let mut writing = JoinSet::new();
    loop {
        tokio::select! {
            _ = connection.closed() => return,
            Some(_) = writing.join_next(), if !writing.is_empty() => {}
            frame = peer.queue.pop(), if writing.len() < WRITING => {
                writing.spawn(write(shared.clone(), connection.clone(), frame));
            }
            () = sleep(UNUSED), if writing.is_empty() => {
                connection.close(CODE_UNUSED, b"unused");
                return;
            }
        }
    }
}

/// One message on one stream. A given-up stream is reset: half a message is never taken for a whole one.
async fn write(shared: Arc<Shared>, connection: Connection, frame: Vec<u8>) {
    let deadline = tokio::time::Instant::now() + WRITE;
    let counters = &shared.counters;
    let Ok(Ok(mut stream)) = tokio::time::timeout_at(deadline, connection.open_uni()).await else {
        Counters::add(&counters.dropped_write_failed, 1);
        return;
    };
    if frame.len() > LONG {
        // An error says that the stream is closed; writing finds that too.
        let _ = stream.set_priority(-1);
    }
    match tokio::time::timeout_at(deadline, stream.write_all(&frame)).await {
        Ok(Ok(())) if stream.finish().is_ok() => {
            Counters::add(&counters.sent, 1);
            Counters::add(&counters.sent_bytes, frame.len() as u64);
        }
        _ => {
            Counters::add(&counters.dropped_write_failed, 1);
            // An error says that the connection is gone, and the stream with it.
            let _ = stream.reset(CODE_GIVEN_UP);
        }
    }
}

/// Pauses between dials: doubling, capped, and unlike on every node, so that a cell that lost its network
/// does not dial in step when it is back.
struct Pauses {
    rng: ChaCha8Rng,
    next: Duration,
}

impl Pauses {
    fn new(ours: [u8; 32], theirs: [u8; 32]) -> Self {
        let mut seed = ours;
        for (byte, other) in seed.iter_mut().zip(theirs) {
            *byte = byte.wrapping_mul(3) ^ other;
        }
        Self { rng: ChaCha8Rng::from_seed(seed), next: FIRST_PAUSE }
    }

    /// Between half of the current pause and all of it.
    fn next(&mut self) -> Duration {
        let pause = self.next.mul_f64(self.rng.random_range(0.5..1.0));
        self.next = (self.next * 2).min(LONGEST_PAUSE);
        pause
    }

    fn reset(&mut self) {
        self.next = FIRST_PAUSE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_begin_below_a_second_grow_to_the_cap_and_differ_between_nodes() {
        let mut one = Pauses::new([1; 32], [9; 32]);
        let mut other = Pauses::new([2; 32], [9; 32]);
        let ones: Vec<_> = (0..12).map(|_| one.next()).collect();
        let others: Vec<_> = (0..12).map(|_| other.next()).collect();
        assert!(ones[0] < Duration::from_millis(101));
        assert!(ones.iter().all(|pause| *pause <= LONGEST_PAUSE));
        assert!(ones[11] >= LONGEST_PAUSE / 2);
        assert_ne!(ones, others);
        one.reset();
        assert!(one.next() < Duration::from_millis(101));
    }
}
