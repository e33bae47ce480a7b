//! The fake of the [`Peers`] port: an overlay in memory. It serialises for real, with the functions it is
//! given (this room does not know the overlay's), and cuts what it is told to cut.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ports::{InputSender, PeerIdentity, Peers, Stranger, StrangerSender};
use crate::engine::id::NodeName;
use crate::engine::input::Input;
use crate::engine::wire::Message;

/// How messages become bytes and back.
#[derive(Clone, Copy)]
pub struct Codec {
    /// A message's bytes, or why it has none.
    pub encode: fn(&Message) -> Result<Vec<u8>, String>,
    /// A message from bytes, or why it is none.
    pub decode: fn(&[u8]) -> Result<Message, String>,
}

/// What has happened on a network.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handed to a receiver.
    pub delivered: u64,
    /// Lost to a cut.
    pub cut: u64,
    /// Not delivered for any other reason.
    pub dropped: u64,
}

/// A network in memory. Clones are the same one.
#[derive(Clone)]
pub struct FakeNetwork {
    codec: Codec,
    wires: Arc<Mutex<Wires>>,
}

#[derive(Default)]
struct Wires {
    /// Who listens where.
    listening: BTreeMap<SocketAddr, Listener>,
    /// Directions in which nothing passes.
    cuts: BTreeSet<([u8; 32], [u8; 32])>,
    tally: Tally,
}

struct Listener {
    key: [u8; 32],
    pins: BTreeMap<NodeName, PeerIdentity>,
    inputs: InputSender,
    strangers: StrangerSender,
}

/// One agent's end of a [`FakeNetwork`]. Dropping it leaves the network.
pub struct FakePeers {
    node: NodeName,
    key: [u8; 32],
    address: SocketAddr,
    network: FakeNetwork,
}

impl FakeNetwork {
    /// An empty network.
    #[must_use]
    pub fn new(codec: Codec) -> Self {
        Self { codec, wires: Arc::default() }
    }

    /// Joins under this identity, listening at its first address. Nobody is pinned.
    ///
    /// # Panics
    /// When the identity has no address: the test's own bug.
    #[must_use]
    pub fn join(
        &self,
        identity: &PeerIdentity,
        inputs: InputSender,
        strangers: StrangerSender,
    ) -> FakePeers {
        let address = *identity.addresses.first().expect("a fake agent listens somewhere");
        let listener = Listener { key: identity.key, pins: BTreeMap::new(), inputs, strangers };
        self.wires().listening.insert(address, listener);
        FakePeers { node: identity.node.clone(), key: identity.key, address, network: self.clone() }
    }

    /// Cuts one direction between two keys, or mends it.
    pub fn cut(&self, from: [u8; 32], to: [u8; 32], cut: bool) {
        let mut wires = self.wires();
        if cut {
            wires.cuts.insert((from, to));
        } else {
            wires.cuts.remove(&(from, to));
        }
    }

    /// What has happened so far. A test of a fault asserts here that it happened.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.wires().tally
    }

    fn wires(&self) -> MutexGuard<'_, Wires> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Peers for FakePeers {
    fn send(&self, to: &NodeName, message: Message) {
        let mut wires = self.network.wires();
        match wires.deliver(self, to, &message) {
            Delivery::Done => wires.tally.delivered += 1,
            Delivery::Cut => wires.tally.cut += 1,
            Delivery::Dropped => wires.tally.dropped += 1,
        }
    }

    fn pin(&self, peer: PeerIdentity) {
        let mut wires = self.network.wires();
        let Some(own) = wires.listening.get_mut(&self.address) else { return };
        let taken = own.pins.values().any(|other| other.key == peer.key && other.node != peer.node);
        if peer.node != self.node && peer.key != self.key && !taken {
            own.pins.insert(peer.node.clone(), peer);
        }
    }

    fn revoke(&self, node: &NodeName) {
        if let Some(own) = self.network.wires().listening.get_mut(&self.address) {
            own.pins.remove(node);
        }
    }
}

impl Drop for FakePeers {
    fn drop(&mut self) {
        self.network.wires().listening.remove(&self.address);
    }
}

enum Delivery {
    Done,
    Cut,
    Dropped,
}

impl Wires {
    fn deliver(&self, sender: &FakePeers, to: &NodeName, message: &Message) -> Delivery {
        let codec = sender.network.codec;
        let target =
            self.listening.get(&sender.address).and_then(|own| own.pins.get(to)).and_then(|pin| {
                let mut there = pin.addresses.iter().filter_map(|at| self.listening.get(at));
                there.find(|listener| listener.key == pin.key)
            });
        let Some(target) = target else { return Delivery::Dropped };
        if self.cuts.contains(&(sender.key, target.key)) {
            return Delivery::Cut;
        }
        let Some(from) = target.pins.values().find(|pin| pin.key == sender.key) else {
            // A full queue loses a report; the stranger knocks again.
            let _ = target.strangers.try_send(Stranger { key: sender.key, from: sender.address });
            return Delivery::Dropped;
        };
        let Ok(bytes) = (codec.encode)(message) else { return Delivery::Dropped };
        let Ok(message) = (codec.decode)(&bytes) else { return Delivery::Dropped };
        let input = Input::Message { from: from.node.clone(), message: Box::new(message) };
        match target.inputs.try_send(input) {
            Ok(()) => Delivery::Done,
            Err(_) => Delivery::Dropped,
        }
    }
}
