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
use crate::engine::replica::Replica;
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// Who may keep an environment's record.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// This agent.
    pub own: &'a Replica,
    /// Its zone, empty if it has none.
    pub zone: &'a str,
    /// How many are wanted.
    pub count: usize,
}

/// A claim that the watch does not confirm by then is tried again.
const CLAIM_AGAIN: Duration = Duration::from_secs(3);
/// The second gateway leaves this much time to the first.
const SECOND_WAITS: Duration = Duration::from_secs(2);
/// A declaration that is not acknowledged by then is repeated.
const TELL_AGAIN: Duration = Duration::from_millis(700);
/// A handler that has taken over writes the status within this time, or is asked to.
const STATUS_WITHIN: Duration = Duration::from_secs(10);
/// A handler that knows of a deletion is asked about it this often until the environment is gone from the API server: it may have
/// ended before it could release it, and the one that finds it buried does so only when it is asked.
const ASK_AGAIN: Duration = Duration::from_secs(10);
/// Longest pause between repetitions.
const TELL_AGAIN_MAX: Duration = Duration::from_secs(5);
/// Repetitions after which people are told that the handler is silent.
const SILENT_AFTER: u32 = 8;

#[derive(Debug)]
struct Seen {
    declared: VeDeclared,
    /// What the handler has acknowledged: generation, deleting.
    told: Option<(i64, bool)>,
    /// Who handles it, as far as this gateway was told, and that one's round.
    handler: Option<NodeName>,
    round: u64,
    /// When another was told at once, as it was named.
    followed_at: Instant,
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

    /// Whether this agent is the first of the gateways.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.rank == Some(0)
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
        let handler = self.seen.get(&uid).and_then(|seen| seen.handler.clone());
        // A status of an older handler than another one before was written too late.
        let round = self.seen.get(&uid).map_or(0, |seen| seen.round).max(declared.reported);
        let claimed = !declared.replica_set.is_empty();
        let at = match self.seen.get(&uid) {
            Some(seen) if !claimed && !declared.deleting => seen.at,
            // Its status may be an earlier handler's: that of the present one is on its way, or is asked for.
            Some(Seen { told: Some(told), .. })
                if covers(*told, &declared) && declared.reported < round =>
            {
                ctx.now + STATUS_WITHIN
            }
            _ if claimed || declared.deleting => ctx.now,
            _ => fresh,
        };
        let followed_at = self.seen.get(&uid).map_or(Instant::ZERO, |seen| seen.followed_at);
        let seen = Seen { declared, told, handler, round, followed_at, at, tries: 0 };
        self.seen.insert(uid.clone(), seen);
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
    pub fn acknowledged(
        &mut self,
        from: &NodeName,
        uid: &VeUid,
        (generation, deleting): (i64, bool),
        round: u64,
        ctx: &Context,
    ) {
        let Some(seen) = self.seen.get_mut(uid).filter(|seen| seen.round <= round) else { return };
        seen.handler = Some(from.clone());
        seen.round = round;
        let newest = seen
            .told
            .map_or((generation, deleting), |(old, was)| (generation.max(old), deleting || was));
        seen.told = Some(newest);
        if is_told(seen) {
            if seen.is_outdated() && !seen.declared.deleting {
                seen.at = seen.at.max(ctx.now + STATUS_WITHIN);
                return;
            }
            if seen.declared.deleting && !seen.declared.gone {
                (seen.at, seen.tries) = (ctx.now + ASK_AGAIN, 0);
                return;
            }
            self.pending.remove(uid);
            if seen.declared.gone {
                self.seen.remove(uid);
            }
        }
    }

    /// A replica says that another handles an environment.
    pub fn elsewhere(
        &mut self,
        from: &NodeName,
        uid: &VeUid,
        node: &NodeName,
        dnt: &Dnt,
        ctx: &Context,
    ) {
        if let Some(seen) = self.seen.get_mut(uid)
            && seen.is_for(from)
            && self.pending.contains(uid)
        {
            let news = seen.handler.as_ref() != Some(node);
            seen.handler = Some(node.clone());
            // One that is not alive here is not told, but who has named it, and who would name it again. Two may name each other.
            let is_live = *node == ctx.node || dnt.is_live(node);
            if news && is_live && ctx.now.since(seen.followed_at) >= TELL_AGAIN {
                seen.followed_at = ctx.now;
                seen.at = ctx.now;
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
                && seen.is_for(node)
            {
                seen.at = ctx.now;
            }
        }
    }

    /// Does what is due.
    pub fn wake(&mut self, dnt: &Dnt, candidates: Candidates<'_>, ctx: &mut Context) {
        let due = self
            .pending
            .iter()
            .filter(|uid| self.seen.get(*uid).is_none_or(|seen| seen.at <= ctx.now));
        for uid in due.cloned().collect::<Vec<_>>() {
            let Some(seen) = self.seen.get_mut(&uid) else {
                self.pending.remove(&uid);
                continue;
            };
            if is_told(seen) && !seen.is_outdated() && !seen.declared.deleting {
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
                    claim(seen, dnt, candidates, ctx);
                }
            } else {
                tell(seen, dnt, ctx);
            }
        }
    }
}

fn is_told(seen: &Seen) -> bool {
    seen.told.is_some_and(|told| covers(told, &seen.declared))
}

/// Whether a handler that knows this generation, and whether it is being deleted, knows this declaration.
fn covers((generation, deleting): (i64, bool), declared: &VeDeclared) -> bool {
    generation >= declared.generation && (deleting || !declared.deleting)
}

impl Seen {
    /// Its status was written by a handler that is no longer the one.
    fn is_outdated(&self) -> bool {
        self.declared.reported != 0 && self.declared.reported < self.round
    }

    /// Whether this node may handle it.
    fn is_for(&self, node: &NodeName) -> bool {
        let mut members = self.declared.replica_set.iter();
        self.handler.as_ref() == Some(node) || members.any(|member| member.node == *node)
    }

    /// Who is to be told: who handles it, or the replicas in turn, the live ones first.
    fn addressee(&self, is_live: impl Fn(&NodeName) -> bool) -> Option<NodeName> {
        // Who was named may no longer be the one.
        if let Some(handler) = self.handler.as_ref().filter(|handler| is_live(handler))
            && self.tries % 3 < 2
        {
            return Some(handler.clone());
        }
        let members = self.declared.replica_set.iter().map(|member| &member.node);
        let live: Vec<&NodeName> = members.clone().filter(|node| is_live(node)).collect();
        let all = if live.is_empty() { members.collect() } else { live };
        let turn = self.tries as usize / 2;
        all.get(turn % all.len().max(1)).map(|node| (*node).clone())
    }
}

fn claim(seen: &mut Seen, dnt: &Dnt, candidates: Candidates<'_>, ctx: &mut Context) {
    let own = Some((candidates.own, candidates.zone));
    let mut replicas = dnt.replicas(seen.declared.uid.as_str(), own, candidates.count);
    // An even number decides no more than the next smaller one does, and bears no more of them to be away.
    if replicas.len().is_multiple_of(2) {
        replicas.pop();
    }
    ctx.cluster(ClusterAction::ClaimReplicaSet {
        uid: seen.declared.uid.clone(),
        name: seen.declared.name.clone(),
        resource_version: seen.declared.resource_version.clone(),
        replicas,
    });
    seen.at = ctx.now + CLAIM_AGAIN;
}

fn tell(seen: &mut Seen, dnt: &Dnt, ctx: &mut Context) {
    let own = ctx.node.clone();
    let addressee = seen.addressee(|node| *node == own || dnt.is_live(node));
    let Some(handler) = addressee else { return };
    ctx.send(&handler, Message::Declare(Box::new(seen.declared.clone())));
    let pause = TELL_AGAIN * 2_u32.saturating_pow(seen.tries.min(8));
    seen.at = ctx.now + pause.min(TELL_AGAIN_MAX);
    seen.tries += 1;
    if seen.tries == SILENT_AFTER {
        let name: VeName = seen.declared.name.clone();
        let members = seen.declared.replica_set.iter().map(|member| member.node.as_str());
        let message = format!(
            "{}, which keep this environment's record, do not answer as a majority; \
             what was declared waits for them, VMs that run go on",
            members.collect::<Vec<_>>().join(", ")
        );
        ctx.happened((&seen.declared.uid, &name), true, "HandlerSilent", message);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::replica::DiskId;

    fn at(millis: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(millis)
    }

    /// It was asked again as soon as it had answered, thousands of times a second (seed 43738 of the fuzz).
    #[test]
    fn who_names_one_that_is_silent_or_two_that_name_each_other_are_not_asked_without_a_pause() {
        let [n1, n2, n3] = ["n1", "n2", "n3"].map(NodeName::from);
        let replica = |node: &NodeName| Replica { node: node.clone(), disk: DiskId(1) };
        let replica_set = [&n1, &n2, &n3].map(replica).to_vec();
        let declared = VeDeclared { replica_set, ..VeDeclared::sample() };
        let (uid, dnt) = (declared.uid.clone(), Dnt::new(&n1, 1, 1));
        let (mut gateway, mut ctx) = (Gateway::default(), Context::sample("n1", at(10_000)));
        gateway.set_rank(Some(0), &mut ctx);
        gateway.saw(declared, &mut ctx);
        let own = replica(&n1);
        let candidates = || Candidates { own: &own, zone: "", count: 3 };
        gateway.wake(&dnt, candidates(), &mut ctx);
        let again = at(10_000) + TELL_AGAIN;
        assert_eq!(gateway.next_wakeup(), Some(again));
        gateway.elsewhere(&n3, &uid, &n2, &dnt, &ctx);
        assert_eq!(gateway.next_wakeup(), Some(again), "n2 is silent here");
        gateway.elsewhere(&n3, &uid, &n1, &dnt, &ctx);
        assert_eq!(gateway.next_wakeup(), Some(ctx.now), "this agent is not");
        gateway.wake(&dnt, candidates(), &mut ctx);
        gateway.elsewhere(&n1, &uid, &n2, &dnt, &ctx);
        gateway.elsewhere(&n2, &uid, &n1, &dnt, &ctx);
        assert!(gateway.next_wakeup() > Some(ctx.now), "they name each other");
    }
}
