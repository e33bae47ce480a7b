//! Tunnels: the sockets of two hypervisors joined over the overlay's mutual TLS, for a migration.
//!
//! ```text
//!   unix socket <- forward.rs == QUIC connection of its own, a stream per connection ==> admit.rs -> unix socket
//!   (of this node)                                                                      (of the peer)
//! ```
//!
//! Another protocol name (ALPN) than messages have, so another connection with its own flow control: bulk does not
//! starve messages. The direction of dialling is the migration's: only who has been admitted for a pass, under its
//! proven key, gets beyond its first words (`hello.rs`).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use quinn::{Connection, VarInt};

use super::Overlay;
use crate::agent::ports::{Channel, Pass, TunnelGuard, Tunnels};
use crate::engine::id::NodeName;

mod admit;
mod carry;
mod forward;
mod hello;

pub(super) use admit::{Admitted, serve};

/// Connections through one tunnel at a time. QEMU opens one for memory and one for each disk.
const STREAMS: u32 = 64;
/// Unread bytes that one tunnel's connection may bring: a round trip of 40 ms at 400 MB/s.
const WINDOW: u32 = 16 << 20;

/// Lets a connection carry a tunnel's streams, and no messages.
fn widen(connection: &Connection) {
    connection.set_max_concurrent_uni_streams(VarInt::from_u32(0));
    connection.set_max_concurrent_bi_streams(STREAMS.into());
    connection.set_receive_window(WINDOW.into());
    connection.set_send_window(u64::from(WINDOW));
}

impl Tunnels for Overlay {
    fn forward(
        &self,
        to: &NodeName,
        pass: &Pass,
        channel: Channel,
        socket: &Path,
    ) -> io::Result<TunnelGuard> {
        if self.shared.peer(to).is_none() {
            let message = format!("{to} is no peer of this node");
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        let hello = hello::Hello { pass: pass.clone(), channel };
        Ok(Box::new(forward::start(&self.shared, to, hello, socket)?))
    }

    fn admit(
        &self,
        from: &NodeName,
        pass: &Pass,
        sockets: BTreeMap<Channel, PathBuf>,
    ) -> TunnelGuard {
        Box::new(admit::Leave::give(&self.shared, from, pass, sockets))
    }
}
