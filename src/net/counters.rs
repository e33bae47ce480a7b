//! What the overlay counts. Read by the admin pages through [`CounterSource`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::agent::snapshot::CounterSource;

/// Declares the counters with their exported names.
macro_rules! counters {
    ($($(#[$doc:meta])* $field:ident = $name:literal,)*) => {
        /// The overlay's counters; all only grow, except those named as gauges.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $field: AtomicU64,)*
        }

        impl CounterSource for Counters {
            fn counters(&self) -> BTreeMap<String, u64> {
                BTreeMap::from([$(($name.to_owned(), self.$field.load(Ordering::Relaxed)),)*])
            }
        }
    };
}

counters! {
    /// Messages handed to QUIC whole.
    sent = "net_messages_sent",
    /// Bytes of those.
    sent_bytes = "net_sent_bytes",
    /// Messages handed to the engine.
    received = "net_messages_received",
    /// Bytes of those.
    received_bytes = "net_received_bytes",
    /// Not sent: nobody of that name is pinned.
    dropped_unknown_peer = "net_dropped_unknown_peer",
    /// Not sent: the queue was full, and newer messages took the place of these oldest ones.
    dropped_queue_full = "net_dropped_queue_full",
    /// Not sent: waited too long for a peer that is away or slow.
    dropped_stale = "net_dropped_stale",
    /// Not sent: longer than a message may be.
    dropped_too_long = "net_dropped_too_long",
    /// Not sent whole: the peer took it too slowly, or the connection broke.
    dropped_write_failed = "net_dropped_write_failed",
    /// Not received whole: the peer sent it too slowly, or the connection broke.
    dropped_read_failed = "net_dropped_read_failed",
    /// Received and no message within bounds.
    decode_errors = "net_decode_errors",
    /// Connections that peers opened.
    accepted = "net_connections_accepted",
    /// Connections that were opened to peers.
    dialled = "net_connections_dialled",
    /// Dials that failed.
    dial_failures = "net_dial_failures",
    /// Handshakes by peers that failed.
    handshake_failures = "net_handshake_failures",
    /// Handshakes that were turned away because too many were under way.
    handshakes_refused = "net_handshakes_refused",
    /// Connections of proven but unpinned keys, closed.
    strangers = "net_strangers",
    /// Pins refused because the key is another node's, or ours.
    pins_refused = "net_pins_refused",
    /// Bytes that tunnels took from sockets here and sent.
    tunnel_bytes_sent = "net_tunnel_bytes_sent",
    /// Bytes that tunnels received and gave to sockets here.
    tunnel_bytes_received = "net_tunnel_bytes_received",
    /// Connections that were let through a tunnel, at either end.
    tunnels_opened = "net_tunnels_opened",
    /// Those of them that have ended; the rest is open.
    tunnels_closed = "net_tunnels_closed",
    /// Tunnels that a peer asked for and was refused.
    tunnel_refusals = "net_tunnel_refusals",
    /// Connections to a tunnel here that the peer did not let through.
    tunnel_failures = "net_tunnel_failures",
}

impl Counters {
    /// One more.
    pub(super) fn add(counter: &AtomicU64, amount: u64) {
        counter.fetch_add(amount, Ordering::Relaxed);
    }
}
