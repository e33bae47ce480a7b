//! Membership by SWIM (Das, Gupta, Motivala, 2002), through foca.
//!
//! foca has no clock and no IO; this gives it both as data: its timers wait in an ordered queue until the
//! engine is woken, its packets leave as [`Message::Swim`].

use std::collections::{BTreeMap, BTreeSet};
use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

use foca::{Foca, Identity, NoCustomBroadcast, OwnedNotification, PeriodicParams, PostcardCodec};
use rand::SeedableRng;
use rand::rngs::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::super::context::Context;
use super::super::id::NodeName;
use super::super::time::Instant;
use super::super::wire::{MAX_SWIM_PACKET, Message};

/// How often an agent that misses peers calls one of them.
const REJOIN_EVERY: Duration = Duration::from_secs(2);

/// A member as foca knows it: a node's agent in one of its lives.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Debug)]
struct MemberId {
    node: NodeName,
    /// Grows with every start of the agent (by 2^16) and every time it was declared down (see [`MemberId::renew`]).
    incarnation: u64,
}

/// Bits of an incarnation that count how often a life was declared down.
const RENEWALS: u32 = 16;
/// Who is declared down so often in one life has lost its records, and begins below what its peers remember of it.
const PATIENCE: u64 = 8;
/// Then it skips as many lives at a time as two to the power of how often it was declared down beyond that, at most this.
const MOST_SKIPPED: u64 = 12;

impl Identity for MemberId {
    type Addr = NodeName;

    /// By one; but in few steps past what peers remember of a former disk, as each step costs a round of messages.
    fn renew(&self) -> Option<Self> {
        let renewals = self.incarnation & ((1 << RENEWALS) - 1);
        let beyond = renewals.checked_sub(PATIENCE).map(|beyond| beyond.min(MOST_SKIPPED));
        let skipped = beyond.map_or(0, |beyond| 1 << (RENEWALS as u64 + beyond));
        let incarnation = self.incarnation.saturating_add(skipped + 1);
        Some(Self { node: self.node.clone(), incarnation })
    }

    fn addr(&self) -> NodeName {
        self.node.clone()
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        self.incarnation > adversary.incarnation
    }
}

/// A change of who is alive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A peer is alive.
    Up(NodeName),
    /// A peer is suspected dead: a hint, never a proof.
    Down(NodeName),
}

/// The membership of this cell as this agent sees it.
pub struct Membership {
    foca: Foca<MemberId, PostcardCodec, ChaCha8Rng, NoCustomBroadcast>,
    runtime: foca::AccumulatingRuntime<MemberId>,
    timers: BTreeMap<(Instant, u64), foca::Timer<MemberId>>,
    timer_number: u64,
    known: BTreeSet<NodeName>,
    /// Not one of us any more, whatever others say of it.
    revoked: BTreeSet<NodeName>,
    live: BTreeSet<NodeName>,
    rejoin_at: Instant,
    /// Packets that foca refused.
    pub malformed: u64,
}

fn config() -> foca::Config {
    let mut config = foca::Config::simple();
    let one = NonZeroUsize::MIN;
    config.probe_period = Duration::from_secs(1);
    config.probe_rtt = Duration::from_millis(400);
    // About three seconds from the first missed probe to "down"; the LAN preset takes thirteen.
    config.suspect_to_down_after = Duration::from_secs(2);
    config.max_transmissions = NonZeroU8::new(10).unwrap_or(NonZeroU8::MIN);
    config.max_packet_size = NonZeroUsize::new(MAX_SWIM_PACKET).unwrap_or(one);
    // A node that was wrongly declared down should hear of it from the first one it talks to.
    config.notify_down_members = true;
    // A restarted agent has a new identity, so remembering the old one costs little and blocks nothing.
    config.remove_down_after = Some(Duration::from_secs(60));
    config.periodic_gossip =
        Some(PeriodicParams { frequency: Duration::from_millis(500), num_members: one });
    config.periodic_announce_to_down_members =
        Some(PeriodicParams { frequency: Duration::from_secs(5), num_members: one });
    config
}

impl Membership {
    /// This node's membership in its `boot`th life, alone so far.
    #[must_use]
    pub fn new(node: &NodeName, boot: u64, seed: u64) -> Self {
        let identity = MemberId { node: node.clone(), incarnation: boot << RENEWALS };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Self {
            foca: Foca::new(identity, config(), rng, PostcardCodec),
            runtime: foca::AccumulatingRuntime::new(),
            timers: BTreeMap::new(),
            timer_number: 0,
            known: BTreeSet::new(),
            revoked: BTreeSet::new(),
            live: BTreeSet::new(),
            rejoin_at: Instant::ZERO,
            malformed: 0,
        }
    }

    /// Live peers, without this node.
    pub fn live(&self) -> impl Iterator<Item = &NodeName> {
        self.live.iter()
    }

    /// Whether this peer is believed alive.
    #[must_use]
    pub fn is_live(&self, node: &NodeName) -> bool {
        self.live.contains(node)
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let timer = self.timers.keys().next().map(|(at, _)| *at);
        let rejoin = (self.known.len() > self.live.len()).then_some(self.rejoin_at);
        [timer, rejoin].into_iter().flatten().min()
    }

    /// A peer exists; it will be called until it answers. One that had been revoked may have been heard by others all the while:
    /// foca then has no news of it.
    pub fn know(&mut self, node: NodeName, ctx: &mut Context) -> Vec<Change> {
        if node == ctx.node {
            return Vec::new();
        }
        self.revoked.remove(&node);
        if self.foca.iter_members().any(|member| member.id().node == node) {
            self.known.insert(node.clone());
            return self.up(node).into_iter().collect();
        }
        if self.known.insert(node.clone()) {
            self.announce(node, ctx);
        }
        Vec::new()
    }

    /// A peer is heard, by this agent or by others.
    fn up(&mut self, node: NodeName) -> Option<Change> {
        let counts = !self.revoked.contains(&node);
        (counts && self.live.insert(node.clone())).then_some(Change::Up(node))
    }

    /// Whether this peer is one of us, alive or not.
    #[must_use]
    pub fn knows(&self, node: &NodeName) -> bool {
        self.known.contains(node)
    }

    /// Peers that are believed dead, or have never been heard.
    pub fn silent(&self) -> impl Iterator<Item = &NodeName> {
        self.known.difference(&self.live)
    }

    /// A peer is no longer one of us.
    pub fn revoke(&mut self, node: &NodeName) -> Vec<Change> {
        self.known.remove(node);
        self.revoked.insert(node.clone());
        if self.live.remove(node) { vec![Change::Down(node.clone())] } else { Vec::new() }
    }

    /// A packet from a verified peer.
    pub fn packet(&mut self, from: &NodeName, packet: &[u8], ctx: &mut Context) -> Vec<Change> {
        if self.revoked.contains(from) {
            return Vec::new();
        }
        self.known.insert(from.clone());
        if self.foca.handle_data(packet, &mut self.runtime).is_err() {
            self.malformed += 1;
        }
        self.drain(ctx)
    }

    /// Does what is due.
    pub fn wake(&mut self, ctx: &mut Context) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some(entry) = self.timers.first_entry() {
            if entry.key().0 > ctx.now {
                break;
            }
            let timer = entry.remove();
            // foca refuses timers of an earlier life of its own; nothing else can go wrong here.
            if self.foca.handle_timer(timer, &mut self.runtime).is_err() {
                self.malformed += 1;
            }
            changes.extend(self.drain(ctx));
        }
        if self.known.len() > self.live.len() && self.rejoin_at <= ctx.now {
            self.rejoin_at = ctx.now + REJOIN_EVERY + ctx.jitter(0, 500);
            let missing: Vec<_> = self.known.difference(&self.live).cloned().collect();
            let chosen = ctx.jitter(0, missing.len() as u64).as_millis() as usize;
            if let Some(node) = missing.get(chosen) {
                self.announce(node.clone(), ctx);
            }
        }
        changes
    }

    fn announce(&mut self, node: NodeName, ctx: &mut Context) {
        // The incarnation is unknown: an announcement is accepted by whichever life of the node hears it.
        let member = MemberId { node, incarnation: 0 };
        if self.foca.announce(member, &mut self.runtime).is_err() {
            self.malformed += 1;
        }
        self.drain(ctx);
    }

    fn drain(&mut self, ctx: &mut Context) -> Vec<Change> {
        while let Some((to, data)) = self.runtime.to_send() {
            ctx.send(&to.node, Message::Swim(data.to_vec()));
        }
        while let Some((after, timer)) = self.runtime.to_schedule() {
            self.timer_number += 1;
            self.timers.insert((ctx.now + after, self.timer_number), timer);
        }
        let mut changes = Vec::new();
        while let Some(notification) = self.runtime.to_notify() {
            match notification {
                OwnedNotification::MemberUp(member) => {
                    let up = self.up(member.node.clone());
                    self.known.extend(up.is_some().then_some(member.node));
                    changes.extend(up);
                }
                OwnedNotification::MemberDown(member) if self.live.remove(&member.node) => {
                    changes.push(Change::Down(member.node));
                }
                _ => {}
            }
        }
        changes
    }
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership").field("live", &self.live).field("known", &self.known).finish()
    }
}
