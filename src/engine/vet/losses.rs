//! What a handler knows of nodes that are silent, and of VMs that were lost with one: for people, and for the next look.

use std::collections::BTreeMap;
use std::time::Duration;

use super::status;
use super::veh::{Rooms, Veh};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, VeName, VmId};
use crate::engine::lease::Lease;
use crate::engine::lease::fence::Progress;
use crate::engine::record::VeRecord;
use crate::engine::report::{Failover, FailoverStep, VmPhase};
use crate::engine::time::Instant;

/// How often a silent node is looked at, at first; less and less often then.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The longest pause between two looks.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(60);

#[derive(Debug)]
struct Silent {
    since: Instant,
    /// What stands in the status was written when the proof was this far: numbers in it are those of then, as each change of it
    /// would be a write.
    progress: Progress,
    words: String,
    look_at: Instant,
}

/// Silent nodes, and VMs of lost ones.
#[derive(Debug, Default)]
pub struct Losses {
    silent: BTreeMap<NodeName, Silent>,
    /// VMs that were lost and do not run yet: with which node, and since when that was silent.
    lost: BTreeMap<VmId, (NodeName, Instant)>,
}

impl Losses {
    /// When a silent node is to be looked at.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        self.silent.values().map(|silent| silent.look_at).min()
    }

    /// What is known of a silent node.
    #[must_use]
    pub fn words(&self, node: &NodeName) -> Option<&str> {
        self.silent.get(node).map(|silent| silent.words.as_str())
    }

    /// A silent node's guardians are to prove that its VMs have ended.
    #[must_use]
    pub fn is_to_be_proven(&self, node: &NodeName) -> bool {
        let silent = self.silent.get(node);
        silent.is_some_and(|silent| !matches!(silent.progress, Progress::Unguarded))
    }

    /// Some VM was lost with its node, and does not run yet.
    #[must_use]
    pub fn has_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// This step, of those of these VMs that were lost.
    #[must_use]
    pub fn step<'a>(
        &self,
        step: FailoverStep,
        name: &VeName,
        ids: impl Iterator<Item = &'a VmId>,
    ) -> Option<Failover> {
        let lost = ids.filter_map(|id| {
            let (node, _) = self.lost.get(id)?;
            Some((format!("{}/{}", name.namespace, name.vm(id)), node.clone()))
        });
        let vms: Vec<(String, NodeName)> = lost.collect();
        (!vms.is_empty()).then_some(Failover { step, vms })
    }
}

impl Veh {
    /// These nodes are silent, and their leases are not known to be over.
    pub(super) fn note_silent(
        &mut self,
        silent: &[(NodeName, Lease)],
        rooms: &Rooms<'_>,
        ctx: &mut Context,
    ) {
        self.losses.silent.retain(|node, _| silent.iter().any(|(name, _)| name == node));
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        let now = ctx.now;
        for (node, lease) in silent {
            let progress = rooms.fences.progress(lease, now);
            if !self.losses.silent.contains_key(node) {
                self.tell_silent(node, lease, record, ctx);
            }
            let entry = self.losses.silent.entry(node.clone());
            let known = entry.or_insert_with(|| Silent {
                since: now,
                progress: Progress::Asked,
                words: words(node, &Progress::Asked, Duration::ZERO, now),
                look_at: now,
            });
            let lasts = now.since(known.since);
            let same = std::mem::discriminant(&known.progress) == std::mem::discriminant(&progress)
                && !matches!(progress, Progress::NoMajority(_))
                || known.progress == progress;
            if !same {
                known.words = words(node, &progress, lasts, now);
                known.progress = progress;
            }
            if known.look_at <= now {
                known.look_at = now + (lasts / 8).clamp(LOOK_EVERY, LOOK_EVERY_MAX);
            }
        }
    }

    fn tell_silent(&self, node: &NodeName, lease: &Lease, record: &VeRecord, ctx: &mut Context) {
        let name = &record.declared.name;
        let here = record.placements.iter().filter(|(_, placement)| placement.node == *node);
        let vms: Vec<String> = here.map(|(id, _)| name.vm(id)).collect();
        if vms.is_empty() {
            return;
        }
        let told = |vm: &String| (format!("{}/{vm}", name.namespace), node.clone());
        let steps = Failover { step: FailoverStep::Suspected, vms: vms.iter().map(told).collect() };
        let guardians: Vec<String> =
            lease.guardians.iter().map(|guardian| guardian.node.to_string()).collect();
        let message = if lease.is_guarded() {
            format!(
                "{node} does not answer: {} may run elsewhere once a majority of its guardians ({}) has proven that it has \
                 ended there",
                status::some(&vms),
                guardians.join(", ")
            )
        } else {
            format!(
                "{node} does not answer, and nobody guards its lease: {} waits for it to come back",
                status::some(&vms)
            )
        };
        ctx.happened_in((&self.ve, name), true, "NodeSilent", message, Some(steps));
    }

    /// A node is lost, and these VMs with it.
    pub(super) fn note_lost(&mut self, node: &NodeName, ids: &[VmId], now: Instant) {
        let since = self.losses.silent.remove(node).map_or(now, |silent| silent.since);
        self.losses.lost.extend(ids.iter().map(|id| (id.clone(), (node.clone(), since))));
    }

    /// A node has spoken: of what was lost, some may run there by now.
    pub(super) fn note_recovered(&mut self, on: &NodeName, rooms: &Rooms<'_>, ctx: &mut Context) {
        let Some(record) = rooms.registers.read(&self.ve) else { return };
        self.losses
            .lost
            .retain(|id, _| record.lost.contains(id) || record.placements.contains_key(id));
        let runs = |id: &&VmId| {
            let placement = record.placements.get(*id).filter(|placement| placement.node == *on);
            let seen = self.observed(on, id);
            placement.zip(seen).is_some_and(|(placement, seen)| {
                seen.epoch == placement.epoch && seen.phase == VmPhase::Running
            })
        };
        let again: Vec<VmId> = self.losses.lost.keys().filter(runs).cloned().collect();
        let Some((node, since)) = again.first().and_then(|id| self.losses.lost.get(id)) else {
            return;
        };
        let name = &record.declared.name;
        let names: Vec<String> = again.iter().map(|id| name.vm(id)).collect();
        let message = format!(
            "{} on {on}, {:.1} s after {node} had fallen silent",
            if names.len() == 1 {
                format!("{} runs", names[0])
            } else {
                format!("{} run", status::some(&names))
            },
            ctx.now.since(*since).as_secs_f64()
        );
        let step = self.losses.step(FailoverStep::Started, name, again.iter());
        ctx.happened_in((&self.ve, name), false, "Recovered", message, step);
        for id in &again {
            self.losses.lost.remove(id);
        }
    }
}

fn words(node: &NodeName, progress: &Progress, lasts: Duration, now: Instant) -> String {
    let seconds = |time: Duration| time.as_millis().div_ceil(1000);
    let since = format!("node {node} silent for {} s", seconds(lasts));
    match progress {
        Progress::Unguarded => {
            format!("node {node} is silent, and nobody guards its lease: it is waited for")
        }
        Progress::Asked => format!("node {node} is silent: its guardians are asked"),
        Progress::Ends(end) => {
            format!("{since}; may be taken over in {} s at the latest", seconds(end.since(now)))
        }
        Progress::NoMajority(silent) => {
            let silent: Vec<String> = silent.iter().map(ToString::to_string).collect();
            format!(
                "{since}; cannot be taken over, as no majority of its guardians answers ({} do not)",
                status::some(&silent)
            )
        }
    }
}
