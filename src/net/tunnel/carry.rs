//! Bytes between a unix socket and a QUIC stream, both ways, until both have ended or one has failed.
//!
//! An end passes through as an end (half-close), a failure as a failure: a stream that is dropped in the middle is
//! reset, so that half of a guest's memory is never taken for all of it.

use quinn::{RecvStream, SendStream, VarInt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::net::counters::Counters;

/// Bytes read from the unix socket at a time, and taken from the stream at most.
const CHUNK: usize = 256 << 10;
/// Code of a stream that ended in the middle.
const CODE_BROKEN: VarInt = VarInt::from_u32(1);

/// A stream's two halves; reset when dropped before their end.
pub(super) struct Ends {
    pub send: SendStream,
    pub receive: RecvStream,
}

impl Drop for Ends {
    fn drop(&mut self) {
        // Errors say that they have ended already, as they should.
        let _ = self.send.reset(CODE_BROKEN);
        let _ = self.receive.stop(CODE_BROKEN);
    }
}

/// One direction broke.
struct Broken;

/// Carries until both directions have ended, or one broke.
pub(super) async fn carry(mut ends: Ends, socket: UnixStream, counters: &Counters) {
    let (from, to) = socket.into_split();
    let Ends { send, receive } = &mut ends;
    // The first failure drops the other direction, and with it both ends.
    let _ = tokio::try_join!(outward(from, send, counters), inward(receive, to, counters));
}

async fn outward(
    mut from: OwnedReadHalf,
    to: &mut SendStream,
    counters: &Counters,
) -> Result<(), Broken> {
    let mut chunk = vec![0; CHUNK];
    loop {
        match from.read(&mut chunk).await {
            Ok(0) => break,
            Ok(read) => {
                to.write_all(&chunk[..read]).await.map_err(|_| Broken)?;
                Counters::add(&counters.tunnel_bytes_sent, read as u64);
            }
            Err(_) => return Err(Broken),
        }
    }
    to.finish().map_err(|_| Broken)?;
    // Until the other end has it all: a reset afterwards would take back what is on its way.
    match to.stopped().await {
        Ok(None) => Ok(()),
        _ => Err(Broken),
    }
}

async fn inward(
    from: &mut RecvStream,
    mut to: OwnedWriteHalf,
    counters: &Counters,
) -> Result<(), Broken> {
    while let Some(chunk) = from.read_chunk(CHUNK, true).await.map_err(|_| Broken)? {
        to.write_all(&chunk.bytes).await.map_err(|_| Broken)?;
        Counters::add(&counters.tunnel_bytes_received, chunk.bytes.len() as u64);
    }
    to.shutdown().await.map_err(|_| Broken)
}
