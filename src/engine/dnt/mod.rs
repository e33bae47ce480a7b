//! DNT, the Discovery Network Tracker: who the peers are, which are alive, how far away they are, and
//! which of them are gateways.
//!
//! ```text
//!   PeerKnown ──> Membership (SWIM) ──> who is alive
//!   Ping/Pong ──> Vivaldi           ──> who is near
//!            └──> PeerState         ──> who reaches the API server ──> gateways (rendezvous)
//! ```

pub mod membership;
pub mod rendezvous;
pub mod vivaldi;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use serde::{Deserialize, Serialize};

use super::context::Context;
use super::id::NodeName;
use super::replica::{DiskId, Replica};
use super::spec::Resources;
use super::time::Instant;
use super::wire::Message;
pub use membership::Change;
use membership::Membership;
use vivaldi::Coordinate;

/// How often a few peers are pinged.
const PING_EVERY: Duration = Duration::from_secs(1);
/// How many peers are pinged each time: the traffic of a node does not grow with the cell.
const PINGS: usize = 4;
/// How many gateways there are.
const GATEWAYS: usize = 2;
/// The key that ranks gateways.
const GATEWAY_KEY: &str = "gateway";
/// A peer that was not heard of for this long is not counted on to reach the API server.
const STATE_AGE: Duration = Duration::from_secs(30);

/// What an agent tells its peers about itself with every ping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PeerState {
    /// Where it is.
    pub coordinate: Coordinate,
    /// It reaches the API server.
    pub api_reachable: bool,
    /// Its failure domain, empty if it has none.
    pub zone: String,
    /// Free for new VMs, as of this ping: a hint, never a promise.
    pub free: Resources,
    /// It takes new VMs.
    pub schedulable: bool,
    /// Its disk.
    pub disk: DiskId,
    /// It empties itself.
    pub leaving: bool,
}

impl PeerState {
    /// Whether its numbers are numbers.
    #[must_use]
    pub fn is_finite(&self) -> bool {
        self.coordinate.is_finite()
    }
}

#[derive(Debug)]
struct Heard {
    state: PeerState,
    at: Instant,
}

/// The DNT of one agent.
#[derive(Debug)]
pub struct Dnt {
    membership: Membership,
    heard: BTreeMap<NodeName, Heard>,
    coordinate: Coordinate,
    api_reachable: bool,
    ping_at: Instant,
    /// Which peer is pinged next: everyone has a turn.
    ping_after: Option<NodeName>,
}

/// What an input changed for the other rooms.
#[derive(Debug, Default)]
pub struct News {
    /// Who came or went.
    pub changes: Vec<Change>,
    /// A peer has more room than it last said, or takes VMs again.
    pub room_appeared: bool,
    /// A peer that is alive has said for the first time since it came which disk it has and whether it leaves, or says otherwise than
    /// before: it may not be the one that was meant.
    pub keeper: Option<NodeName>,
}

impl Dnt {
    /// A tracker that knows nobody, in this node's `boot`th life.
    #[must_use]
    pub fn new(node: &NodeName, boot: u64, seed: u64) -> Self {
        Self {
            membership: Membership::new(node, boot, seed),
            heard: BTreeMap::new(),
            coordinate: Coordinate::default(),
            api_reachable: false,
            ping_at: Instant::ZERO,
            ping_after: None,
        }
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let ping = self.membership.live().next().map(|_| self.ping_at);
        [self.membership.next_wakeup(), ping].into_iter().flatten().min()
    }

    /// Does what is due. `own` is what peers are told about this node.
    pub fn wake(&mut self, own: &PeerState, ctx: &mut Context) -> News {
        let changes = self.membership.wake(ctx);
        if self.ping_at <= ctx.now {
            self.ping_at = ctx.now + PING_EVERY;
            for peer in self.next_to_ping() {
                ctx.send(&peer, Message::Ping { sent: ctx.now, state: own.clone() });
            }
        }
        self.greet(changes, own, ctx)
    }

    /// A peer exists.
    pub fn know(&mut self, node: NodeName, own: &PeerState, ctx: &mut Context) -> News {
        let changes = self.membership.know(node, ctx);
        self.greet(changes, own, ctx)
    }

    /// A peer is no longer one of us.
    pub fn revoke(&mut self, node: &NodeName) -> News {
        self.heard.remove(node);
        News { changes: self.membership.revoke(node), ..News::default() }
    }

    /// A membership packet.
    pub fn swim(
        &mut self,
        from: &NodeName,
        packet: &[u8],
        own: &PeerState,
        ctx: &mut Context,
    ) -> News {
        let changes = self.membership.packet(from, packet, ctx);
        self.greet(changes, own, ctx)
    }

    /// New peers are pinged at once, so that their state is known before it is needed.
    fn greet(&mut self, changes: Vec<Change>, own: &PeerState, ctx: &mut Context) -> News {
        for change in &changes {
            match change {
                Change::Up(peer) => {
                    ctx.send(peer, Message::Ping { sent: ctx.now, state: own.clone() });
                }
                Change::Down(peer) => {
                    self.heard.remove(peer);
                }
            }
        }
        let room_appeared = changes.iter().any(|change| matches!(change, Change::Up(_)));
        News { changes, room_appeared, keeper: None }
    }

    /// A peer pinged.
    pub fn ping(
        &mut self,
        from: &NodeName,
        sent: Instant,
        state: PeerState,
        own: &PeerState,
        ctx: &mut Context,
    ) -> News {
        ctx.send(from, Message::Pong { sent, state: own.clone() });
        self.hear(from, state, ctx)
    }

    /// A peer answered a ping that left at `sent` by this node's clock.
    pub fn pong(
        &mut self,
        from: &NodeName,
        sent: Instant,
        state: PeerState,
        ctx: &mut Context,
    ) -> News {
        if sent <= ctx.now {
            let direction = [0; 3].map(|_: i32| ctx.rng.random::<f64>());
            self.coordinate.observe(&state.coordinate, ctx.now.since(sent), direction);
        }
        self.hear(from, state, ctx)
    }

    fn hear(&mut self, from: &NodeName, state: PeerState, ctx: &mut Context) -> News {
        let room_appeared = match self.heard.get(from) {
            Some(before) => {
                state.schedulable && !before.state.schedulable
                    || state.free.memory > before.state.free.memory
                    || state.free.cpu_milli > before.state.free.cpu_milli
            }
            None => true,
        };
        let (disk, leaving) = (state.disk, state.leaving);
        let before = self.heard.insert(from.clone(), Heard { state, at: ctx.now });
        let before = before.map(|before| (before.state.disk, before.state.leaving));
        let keeper = before != Some((disk, leaving)) && self.is_live(from);
        // A node with another disk is another peer, though it was not missed meanwhile.
        let other = keeper && before.is_some_and(|(before, _)| before != disk);
        let changes = if other { vec![Change::Up(from.clone())] } else { Vec::new() };
        News { changes, room_appeared, keeper: keeper.then(|| from.clone()) }
    }

    fn next_to_ping(&mut self) -> Vec<NodeName> {
        let live: Vec<_> = self.membership.live().cloned().collect();
        let start = live.iter().position(|n| Some(n) > self.ping_after.as_ref()).unwrap_or(0);
        let turn: Vec<_> =
            live.iter().cycle().skip(start).take(PINGS.min(live.len())).cloned().collect();
        self.ping_after = turn.last().cloned();
        turn
    }

    /// Whether the API server answers this agent.
    pub fn set_api_reachable(&mut self, reachable: bool) {
        self.api_reachable = reachable;
    }

    /// Whether the API server answers this agent.
    #[must_use]
    pub fn api_reachable(&self) -> bool {
        self.api_reachable
    }

    /// This node's coordinate.
    #[must_use]
    pub fn coordinate(&self) -> Coordinate {
        self.coordinate
    }

    /// Whether this peer is believed alive.
    #[must_use]
    pub fn is_live(&self, node: &NodeName) -> bool {
        self.membership.is_live(node)
    }

    /// Whether this peer is believed alive, and has this disk as far as it has said.
    #[must_use]
    pub fn is_there(&self, replica: &Replica) -> bool {
        let other = self.state_of(&replica.node).is_some_and(|state| state.disk != replica.disk);
        self.is_live(&replica.node) && !other
    }

    /// Whether this peer is one of us, alive or not.
    #[must_use]
    pub fn knows(&self, node: &NodeName) -> bool {
        self.membership.knows(node)
    }

    /// Peers that are not heard: none if fewer than a third of all are heard, this node among them, as then this node is rather the
    /// one that is cut off.
    #[must_use]
    pub fn silent(&self) -> Vec<NodeName> {
        let silent: Vec<NodeName> = self.membership.silent().cloned().collect();
        let heard = self.membership.live().count() + 1;
        if heard * 2 < silent.len() { Vec::new() } else { silent }
    }

    /// Live peers, without this node.
    pub fn live(&self) -> impl Iterator<Item = &NodeName> {
        self.membership.live()
    }

    /// What a peer last said of itself.
    #[must_use]
    pub fn state_of(&self, node: &NodeName) -> Option<&PeerState> {
        self.heard.get(node).map(|heard| &heard.state)
    }

    /// Live peers, nearest first; peers of unknown distance last.
    #[must_use]
    pub fn nearest(&self) -> Vec<NodeName> {
        let mut peers: Vec<(u64, &NodeName)> = self
            .membership
            .live()
            .map(|peer| {
                let distance = self.state_of(peer).map_or(u64::MAX, |state| {
                    // Whole microseconds: an order that no rounding of the last bit can turn.
                    (self.coordinate.distance(&state.coordinate) * 1000.0) as u64
                });
                (distance, peer)
            })
            .collect();
        peers.sort();
        peers.into_iter().map(|(_, peer)| peer.clone()).collect()
    }

    /// This node's rank among the agents that reach the API server, if it is a gateway: 0 is the first.
    #[must_use]
    pub fn gateway_rank(&self, node: &NodeName, now: Instant) -> Option<usize> {
        if !self.api_reachable {
            return None;
        }
        let reaching = self.membership.live().filter(|peer| {
            self.heard
                .get(*peer)
                .is_some_and(|heard| heard.state.api_reachable && now.since(heard.at) < STATE_AGE)
        });
        let order = rendezvous::ranked(GATEWAY_KEY, reaching.chain([node]));
        order.iter().take(GATEWAYS).position(|other| other == node)
    }

    /// The replicas that an environment is to have, best first: live agents in different zones, that stay. `own` is this
    /// node, unless it leaves, and its zone.
    #[must_use]
    pub fn replicas(&self, key: &str, own: Option<(&Replica, &str)>, count: usize) -> Vec<Replica> {
        let stays = |peer: &&NodeName| self.state_of(peer).is_some_and(|state| !state.leaving);
        let live: BTreeMap<&NodeName, (DiskId, &str)> = self
            .membership
            .live()
            .filter(stays)
            .filter_map(|peer| self.state_of(peer).map(|state| (peer, (state.disk, &*state.zone))))
            .chain(own.map(|(own, zone)| (&own.node, (own.disk, zone))))
            .collect();
        let zones = live.iter().map(|(node, (_, zone))| (*node, *zone));
        let chosen = rendezvous::spread(key, zones, count);
        let with_disk = |node: NodeName| {
            live.get(&node).map(|(disk, _)| Replica { node: node.clone(), disk: *disk })
        };
        chosen.into_iter().filter_map(with_disk).collect()
    }
}
