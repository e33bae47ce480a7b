//! One suite for the `Peers` port, run on the network in memory and on QUIC.

use std::net::SocketAddr;
use std::time::Duration;

use discovery::agent::fake_peers::{Codec, FakeNetwork};
use discovery::agent::ports::{PeerIdentity, Peers, Stranger};
use discovery::engine::id::{NodeName, ProcedureId};
use discovery::engine::input::Input;
use discovery::engine::wire::{MAX_MESSAGE, Message};
use discovery::net::identity::Identity;
use discovery::net::{Overlay, OverlayConfig, codec};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout, timeout_at};

#[allow(dead_code, reason = "each suite takes what it needs")]
#[path = "samples.rs"]
mod samples;

/// Until when something must have happened. Longer than the longest pause between dials.
const DEADLINE: Duration = Duration::from_secs(20);
/// A message may be lost: it is sent again this often.
const AGAIN: Duration = Duration::from_millis(50);
/// What must not arrive has not arrived within this.
const SILENCE: Duration = Duration::from_millis(600);

/// A network to join: in memory, or QUIC on the loopback with keys in a folder.
enum World {
    Fake(FakeNetwork),
    Quic(tempfile::TempDir),
}

/// One agent's end.
struct Member {
    identity: PeerIdentity,
    peers: Box<dyn Peers>,
    inputs: mpsc::Receiver<Input>,
    strangers: mpsc::Receiver<Stranger>,
}

impl World {
    fn fake() -> Self {
        Self::Fake(FakeNetwork::new(Codec {
            encode: |message| codec::encode(message).map_err(|e| e.to_string()),
            decode: |bytes| codec::decode(bytes).map_err(|e| e.to_string()),
        }))
    }

    fn quic() -> Self {
        Self::Quic(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Joins at a free address.
    fn join(&self, name: &str) -> Member {
        self.join_at(name, None)
    }

    /// Joins at `address`; a name keeps its key.
    fn join_at(&self, name: &str, address: Option<SocketAddr>) -> Member {
        let (input_sender, inputs) = mpsc::channel(64);
        let (stranger_sender, strangers) = mpsc::channel(64);
        let node = NodeName::from(name);
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        match self {
            Self::Fake(network) => {
                let mut key = [0; 32];
                key[..name.len()].copy_from_slice(name.as_bytes());
                let seat = name.bytes().fold(0, |sum, byte| sum * 31 + u32::from(byte));
                let seat = SocketAddr::from((seat.to_be_bytes(), 7946));
                let addresses = vec![address.unwrap_or(seat)];
                let identity = PeerIdentity { node, key, addresses };
                let peers = Box::new(network.join(&identity, input_sender, stranger_sender));
                Member { identity, peers, inputs, strangers }
            }
            Self::Quic(folder) => {
                let key = Identity::open(&folder.path().join(name)).expect("a key");
                let config = OverlayConfig {
                    node: node.clone(),
                    listen: address.unwrap_or(free),
                    identity: key,
                };
                let overlay =
                    Overlay::start(config, input_sender, stranger_sender).expect("it starts");
                let addresses = vec![overlay.local_addr().expect("an address")];
                let identity = PeerIdentity { node, key: overlay.public_key(), addresses };
                Member { identity, peers: Box::new(overlay), inputs, strangers }
            }
        }
    }
}

impl Member {
    fn pin(&self, other: &Self) {
        self.peers.pin(other.identity.clone());
    }

    fn send(&self, to: &Self, message: &Message) {
        self.peers.send(&to.identity.node, message.clone());
    }

    /// The next message, and who sent it.
    async fn receive(&mut self) -> (NodeName, Message) {
        match self.inputs.recv().await {
            Some(Input::Message { from, message }) => (from, *message),
            other => panic!("no message: {other:?}"),
        }
    }

    /// Asserts that nothing comes.
    async fn is_silent(&mut self) {
        if let Ok(input) = timeout(SILENCE, self.inputs.recv()).await {
            panic!("{} received {input:?}", self.identity.node);
        }
    }
}

fn procedure() -> ProcedureId {
    ProcedureId { initiator: NodeName::from("a"), incarnation: 1, number: 1 }
}

/// A message that no other test run has sent.
fn note(text: &str) -> Message {
    Message::Swim(text.as_bytes().to_vec())
}

/// Does something until it has had its effect.
async fn until<T>(what: &str, mut act: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match timeout_at(deadline, act()).await {
            Ok(Some(result)) => return result,
            // What never waits would never meet its deadline.
            Ok(None) if Instant::now() < deadline => {}
            _ => panic!("not within {DEADLINE:?}: {what}"),
        }
    }
}

/// Sends until it arrives, and drops what came before; returns who sent it.
async fn deliver(from: &Member, to: &mut Member, message: &Message) -> NodeName {
    until("a message arrives", async || {
        from.send(to, message);
        match timeout(AGAIN, to.receive()).await {
            Ok((sender, received)) if received == *message => Some(sender),
            _ => None,
        }
    })
    .await
}

/// Two members that know each other.
fn pair(world: &World) -> (Member, Member) {
    let (a, b) = (world.join("a"), world.join("b"));
    a.pin(&b);
    b.pin(&a);
    (a, b)
}

/// Runs one suite on both worlds.
macro_rules! on_both {
    ($($suite:ident),* $(,)?) => {$(
        mod $suite {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                super::suite::$suite(super::World::fake()).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn over_quic() {
                super::suite::$suite(super::World::quic()).await;
            }
        }
    )*};
}

on_both! {
    every_kind_of_message_arrives_as_it_was_sent,
    the_sender_is_the_holder_of_the_key,
    a_stranger_is_not_heard_and_is_told_once_until_it_is_pinned,
    a_message_to_nobody_is_dropped,
    only_the_holder_of_the_pinned_key_gets_the_message,
    a_message_that_is_too_long_is_dropped_and_the_next_one_arrives,
    the_longest_message_arrives,
    a_revoked_peer_is_a_stranger_until_it_is_pinned_again,
    a_new_key_for_a_name_shuts_out_the_old_one,
    a_key_is_one_nodes_only,
    a_restarted_peer_is_reached_at_the_same_address,
    a_peer_that_moved_is_reached_at_its_new_address,
    addresses_are_tried_in_order,
    a_receiver_that_reads_nothing_loses_messages_and_recovers,
    peers_behind_one_ip_are_told_apart_by_port,
}

mod suite {
    use super::*;

    pub async fn every_kind_of_message_arrives_as_it_was_sent(world: World) {
        let (a, mut b) = pair(&world);
        for message in samples::messages() {
            assert_eq!(deliver(&a, &mut b, &message).await, a.identity.node);
        }
    }

    pub async fn the_sender_is_the_holder_of_the_key(world: World) {
        let (a, mut b) = pair(&world);
        let c = world.join("c");
        b.pin(&c);
        c.pin(&b);
        assert_eq!(deliver(&a, &mut b, &note("from a")).await.as_str(), "a");
        assert_eq!(deliver(&c, &mut b, &note("from c")).await.as_str(), "c");
    }

    pub async fn a_stranger_is_not_heard_and_is_told_once_until_it_is_pinned(world: World) {
        let (a, mut b) = (world.join("a"), world.join("b"));
        a.pin(&b);
        let stranger = until("a stranger is told", async || {
            a.send(&b, &note("let me in"));
            timeout(AGAIN, b.strangers.recv()).await.ok().flatten()
        })
        .await;
        assert_eq!(stranger, Stranger { key: a.identity.key, from: a.identity.addresses[0] });
        b.is_silent().await;
        b.pin(&a);
        deliver(&a, &mut b, &note("thank you")).await;
    }

    pub async fn a_message_to_nobody_is_dropped(world: World) {
        let (a, mut b) = pair(&world);
        a.peers.send(&NodeName::from("nobody"), note("hello"));
        a.peers.send(&a.identity.node, note("hello, me"));
        deliver(&a, &mut b, &note("still alive")).await;
    }

    pub async fn only_the_holder_of_the_pinned_key_gets_the_message(world: World) {
        let (a, mut b) = (world.join("a"), world.join("b"));
        let mut c = world.join("c");
        b.pin(&a);
        c.pin(&a);
        // The address is b's, the key is c's: nobody is both.
        a.peers.pin(PeerIdentity { key: c.identity.key, ..b.identity.clone() });
        for _ in 0..5 {
            a.send(&b, &note("for c only"));
        }
        b.is_silent().await;
        c.is_silent().await;
    }

    pub async fn a_message_that_is_too_long_is_dropped_and_the_next_one_arrives(world: World) {
        let (a, mut b) = pair(&world);
        deliver(&a, &mut b, &note("before")).await;
        a.send(&b, &Message::Swim(vec![1; MAX_MESSAGE + 1]));
        deliver(&a, &mut b, &note("after")).await;
    }

    pub async fn the_longest_message_arrives(world: World) {
        let (a, mut b) = pair(&world);
        // An order with command lines so long that it is just within the limit.
        let mut message = samples::messages()
            .into_iter()
            .find(|message| matches!(message, Message::Order(order) if !order.vms.is_empty()));
        let Some(Message::Order(order)) = &mut message else {
            panic!("no order among the samples")
        };
        let cmdline = "x".repeat((MAX_MESSAGE - 10_000) / order.vms.len());
        for vm in &mut order.vms {
            if let discovery::engine::spec::Boot::Kernel { cmdline: line, .. } =
                &mut vm.definition.boot
            {
                line.clone_from(&cmdline);
            }
        }
        let message = message.expect("it was there");
        a.send(&b, &message);
        let (_, received) = timeout(DEADLINE, b.receive()).await.expect("the longest arrives");
        assert!(received == message);
    }

    pub async fn a_revoked_peer_is_a_stranger_until_it_is_pinned_again(world: World) {
        let (a, mut b) = pair(&world);
        deliver(&a, &mut b, &note("known")).await;
        b.peers.revoke(&a.identity.node);
        // What was already on its way may still arrive; what is sent from now on does not.
        let stranger = until("the revoked peer is a stranger", async || {
            a.send(&b, &note("revoked"));
            timeout(AGAIN, b.strangers.recv()).await.ok().flatten()
        })
        .await;
        assert_eq!(stranger.key, a.identity.key);
        while b.inputs.try_recv().is_ok() {}
        a.send(&b, &note("revoked"));
        b.is_silent().await;
        // And it is sent nothing.
        let mut a = a;
        b.send(&a, &note("not for you"));
        a.is_silent().await;
        b.pin(&a);
        deliver(&a, &mut b, &note("known again")).await;
        deliver(&b, &mut a, &note("both ways")).await;
    }

    pub async fn a_new_key_for_a_name_shuts_out_the_old_one(world: World) {
        let (a, mut b) = pair(&world);
        let c = world.join("c");
        c.pin(&b);
        deliver(&a, &mut b, &note("old key")).await;
        // The node was installed anew: the same name, another key and address.
        b.peers.pin(PeerIdentity { node: a.identity.node.clone(), ..c.identity.clone() });
        let sender = deliver(&c, &mut b, &note("new key")).await;
        assert_eq!(sender, a.identity.node);
        until("the old key is a stranger", async || {
            a.send(&b, &note("old key"));
            timeout(AGAIN, b.strangers.recv()).await.ok().flatten()
        })
        .await;
        while b.inputs.try_recv().is_ok() {}
        a.send(&b, &note("old key"));
        b.is_silent().await;
    }

    pub async fn a_key_is_one_nodes_only(world: World) {
        let (a, mut b) = pair(&world);
        // Somebody publishes a's key as its own, and somebody b's own.
        b.peers.pin(PeerIdentity { node: NodeName::from("thief"), ..a.identity.clone() });
        b.peers.pin(PeerIdentity { node: NodeName::from("mirror"), ..b.identity.clone() });
        assert_eq!(deliver(&a, &mut b, &note("mine")).await, a.identity.node);
        b.peers.revoke(&NodeName::from("thief"));
        assert_eq!(deliver(&a, &mut b, &note("still mine")).await, a.identity.node);
    }

    pub async fn a_restarted_peer_is_reached_at_the_same_address(world: World) {
        let (a, mut b) = pair(&world);
        deliver(&a, &mut b, &note("before")).await;
        let address = b.identity.addresses[0];
        drop(b);
        let mut b = until("the address is free again", async || {
            tokio::task::yield_now().await;
            if let World::Quic(_) = &world {
                std::net::UdpSocket::bind(address).ok()?;
            }
            Some(world.join_at("b", Some(address)))
        })
        .await;
        b.pin(&a);
        deliver(&a, &mut b, &note("after")).await;
        let mut a = a;
        deliver(&b, &mut a, &note("and back")).await;
    }

    pub async fn a_peer_that_moved_is_reached_at_its_new_address(world: World) {
        let (a, mut b) = pair(&world);
        deliver(&a, &mut b, &note("here")).await;
        drop(b);
        let mut b = world.join_at("b", Some(free_address(&world)));
        b.pin(&a);
        a.pin(&b);
        deliver(&a, &mut b, &note("there")).await;
    }

    pub async fn addresses_are_tried_in_order(world: World) {
        let (a, mut b) = (world.join("a"), world.join("b"));
        b.pin(&a);
        let addresses = vec![free_address(&world), b.identity.addresses[0]];
        a.peers.pin(PeerIdentity { addresses, ..b.identity.clone() });
        deliver(&a, &mut b, &note("at the second")).await;
    }

    pub async fn a_receiver_that_reads_nothing_loses_messages_and_recovers(world: World) {
        let (a, mut b) = pair(&world);
        deliver(&a, &mut b, &note("before")).await;
        // Text is copied whole, which a debug build does faster than bytes.
        let long = Message::Prepared { procedure: procedure(), result: Err("x".repeat(20_000)) };
        for _ in 0..2_000 {
            a.send(&b, &long);
            tokio::task::yield_now().await;
        }
        let mut arrived = 0;
        while timeout(SILENCE, b.receive()).await.is_ok() {
            arrived += 1;
        }
        assert!(arrived > 0 && arrived < 2_000, "{arrived} of 2000 arrived");
        deliver(&a, &mut b, &note("after")).await;
    }

    pub async fn peers_behind_one_ip_are_told_apart_by_port(world: World) {
        let hub = world.join("hub");
        let mut others: Vec<_> = (0..5).map(|i| world.join(&format!("n{i}"))).collect();
        for other in &mut others {
            hub.pin(other);
            other.pin(&hub);
            let text = format!("for {}", other.identity.node);
            deliver(&hub, other, &note(&text)).await;
        }
        let mut hub = hub;
        for other in &others {
            // Each its own word: a late repetition of another's is none of it.
            let hello = note(&format!("hello from {}", other.identity.node));
            let sender = deliver(other, &mut hub, &hello).await;
            assert_eq!(sender, other.identity.node);
        }
    }

    /// An address that nobody listens on.
    fn free_address(world: &World) -> SocketAddr {
        match world {
            World::Fake(_) => SocketAddr::from(([192, 0, 2, 99], 7946)),
            World::Quic(_) => {
                let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a free port");
                socket.local_addr().expect("an address")
            }
        }
    }
}
