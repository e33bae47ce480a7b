//! The gateway: it watches the API server for everybody and hands each environment to its handler, until
//! the handler has it on disk. It decides nothing but the first replica set, and that by compare-and-swap.
//! It keeps nothing: another gateway that starts from nothing does the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::engine::context::Context;
use crate::engine::dnt::Dnt;
use crate::engine::effect::ClusterAction;
use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::input::VeDeclared;
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// How many agents are named in a replica set.
pub const REPLICAS: usize = 3;
/// A claim that the watch does not confirm by then is tried again.
const CLAIM_AGAIN: Duration = Duration::from_secs(3);
/// The second gateway leaves this much time to the first.
const SECOND_WAITS: Duration = Duration::from_secs(2);
/// A declaration that is not acknowledged by then is repeated.
const TELL_AGAIN: Duration = Duration::from_millis(700);
/// Longest pause between repetitions.
const TELL_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Repetitions after which people are told that the handler is silent.
const SILENT_AFTER: u32 = 8;

#[derive(Debug)]
struct Seen {
    declared: VeDeclared,
    /// What the handler has acknowledged: generation, deleting.
    told: Option<(i64, bool)>,
    at: Instant,
    tries: u32,
}

/// The gateway part of an agent. Idle while the agent is no gateway.
#[derive(Debug, Default)]
pub struct Gateway {
    rank: Option<usize>,
    seen: BTreeMap<VeUid, Seen>,
    pending: BTreeSet<VeUid>,
}

impl Gateway {
    /// Whether this agent is a gateway.
    #[must_use]
    pub fn is_active(&self) -> bool {
        self.rank.is_some()
    }

    /// Environments that this gateway has seen.
    #[must_use]
    pub fn seen(&self) -> usize {
        self.seen.len()
    }

    /// The membership has spoken: this agent is the `rank`th gateway, or none.
    pub fn set_rank(&mut self, rank: Option<usize>, ctx: &mut Context) {
        if self.rank.is_some() != rank.is_some() {
            ctx.cluster(ClusterAction::WatchVes(rank.is_some()));
            self.seen.clear();
            self.pending.clear();
        }
        self.rank = rank;
    }

    /// An environment was seen at the API server.
    pub fn saw(&mut self, declared: VeDeclared, ctx: &mut Context) {
        if self.rank.is_none() {
            return;
        }
        let uid = declared.uid.clone();
        let fresh = if self.rank == Some(0) { ctx.now } else { ctx.now + SECOND_WAITS };
        let told = self.seen.get(&uid).and_then(|seen| seen.told);
        let claimed = !declared.replica_set.is_empty();
        let at = match self.seen.get(&uid) {
            Some(seen) if !claimed && !declared.deleting => seen.at,
            _ if claimed || declared.deleting => ctx.now,
            _ => fresh,
        };
        self.seen.insert(uid.clone(), Seen { declared, told, at, tries: 0 });
        self.pending.insert(uid);
    }

    /// An environment no longer exists at the API server.
    pub fn gone(&mut self, uid: &VeUid, ctx: &mut Context) {
        if let Some(seen) = self.seen.get_mut(uid) {
            seen.declared.gone = true;
            seen.declared.deleting = true;
            seen.at = ctx.now;
            seen.tries = 0;
            self.pending.insert(uid.clone());
        }
    }

    /// These are all that exist: whatever else was seen is gone.
    pub fn listed(&mut self, live: &[VeUid], ctx: &mut Context) {
        let live: BTreeSet<&VeUid> = live.iter().collect();
        let gone = self.seen.keys().filter(|uid| !live.contains(uid)).cloned();
        for uid in gone.collect::<Vec<_>>() {
            self.gone(&uid, ctx);
        }
    }

    /// The handler has it on disk.
    pub fn acknowledged(&mut self, from: &NodeName, uid: &VeUid, generation: i64, deleting: bool) {
        let Some(seen) = self.seen.get_mut(uid) else { return };
        if seen.declared.replica_set.first() != Some(from) {
            return;
        }
        let newest = seen
            .told
            .map_or((generation, deleting), |(old, was)| (generation.max(old), deleting || was));
        seen.told = Some(newest);
        if is_told(seen) {
            self.pending.remove(uid);
            if seen.declared.gone {
                self.seen.remove(uid);
            }
        }
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.pending.iter().filter_map(|uid| self.seen.get(uid)).map(|seen| seen.at).min()
    }

    /// A peer came back: what waits for it is repeated now.
    pub fn hurry(&mut self, node: &NodeName, ctx: &Context) {
        for uid in &self.pending {
            if let Some(seen) = self.seen.get_mut(uid)
                && seen.declared.replica_set.first() == Some(node)
            {
                seen.at = ctx.now;
            }
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, dnt: &Dnt, zone: &str, ctx: &mut Context) {
        let due = self
            .pending
            .iter()
            .filter(|uid| self.seen.get(*uid).is_none_or(|seen| seen.at <= ctx.now));
        for uid in due.cloned().collect::<Vec<_>>() {
            let Some(seen) = self.seen.get_mut(&uid) else {
                self.pending.remove(&uid);
                continue;
            };
            if is_told(seen) {
                self.pending.remove(&uid);
            } else if seen.declared.replica_set.is_empty() {
                if seen.declared.deleting {
                    // Nobody ever handled it, so nothing of it exists.
                    let (uid, name) = (uid.clone(), seen.declared.name.clone());
                    if !seen.declared.gone {
                        ctx.cluster(ClusterAction::ReleaseVe { uid: uid.clone(), name });
                    }
                    self.pending.remove(&uid);
                } else {
                    claim(seen, dnt, zone, ctx);
                }
            } else {
                tell(seen, ctx);
            }
        }
    }
}

fn is_told(seen: &Seen) -> bool {
    seen.told.is_some_and(|(generation, deleting)| {
        generation >= seen.declared.generation && (deleting || !seen.declared.deleting)
    })
}

fn claim(seen: &mut Seen, dnt: &Dnt, zone: &str, ctx: &mut Context) {
    let own = ctx.node.clone();
    let replicas = dnt.replica_set(seen.declared.uid.as_str(), (&own, zone), REPLICAS);
    ctx.cluster(ClusterAction::ClaimReplicaSet {
        uid: seen.declared.uid.clone(),
        name: seen.declared.name.clone(),
        resource_version: seen.declared.resource_version.clone(),
        replicas,
    });
    seen.at = ctx.now + CLAIM_AGAIN;
}

fn tell(seen: &mut Seen, ctx: &mut Context) {
    let Some(handler) = seen.declared.replica_set.first().cloned() else { return };
    ctx.send(&handler, Message::Declare(Box::new(seen.declared.clone())));
    let pause = TELL_AGAIN * 2_u32.saturating_pow(seen.tries.min(8));
    seen.at = ctx.now + pause.min(TELL_AGAIN_MAX);
    seen.tries += 1;
    if seen.tries == SILENT_AFTER {
        let name: VeName = seen.declared.name.clone();
        let message = format!(
            "{handler}, which keeps this environment's record, does not answer; \
             what was declared waits for it, VMs on other nodes go on"
        );
        ctx.happened((&seen.declared.uid, &name), true, "HandlerSilent", message);
    }
}
