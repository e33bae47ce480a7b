//! The loads of this node's VMs, and relief from them: [`super::relief`] decides, the handlers of the VMs' environments
//! have the last word (they know the constraints), and carry it out as any other move.

use super::Lrt;
use std::time::Duration;

use super::monitor::News;
use super::relief::protocol;
use super::relief::{Effect, Input, Now, Relief, Rules};
use super::room::LEFT_ALONE;
use super::vmh::Vmh;
use crate::engine::context::Context;
use crate::engine::dnt::rendezvous;
use crate::engine::host::VmLoad;
use crate::engine::id::{NodeName, VmId};
use crate::engine::record::{MoveReason, VmGoal};
use crate::engine::report::MoveProgress;
use crate::engine::time::Instant;
use crate::engine::wire::Message;

/// Near peers that a node tells of its load and hears of theirs.
const NEAR: usize = 8;
/// And far ones, so that no part of a cell is cut off from the rest.
const FAR: usize = 8;

/// Distances change: between two looks at who is near.
const LOOK_AROUND_EVERY: Duration = Duration::from_secs(60);

/// Whom a node tells of its load: the nearest, and some of the others, by rendezvous hash, so that they stay the same.
#[must_use]
pub fn acquaintances(own: &NodeName, nearest: &[NodeName]) -> Vec<NodeName> {
    let (near, rest) = nearest.split_at(nearest.len().min(NEAR));
    let far = rendezvous::ranked(own.as_str(), rest.iter()).into_iter().take(FAR);
    let mut all: Vec<NodeName> = near.iter().cloned().chain(far).collect();
    all.sort();
    all
}

impl Lrt {
    /// What this node's VMs may load it with before it is overloaded, percent of a processor: what it has, without what is
    /// kept for the host. (Promises may be more than that: overcommitment counts on VMs that idle.)
    #[must_use]
    pub fn load_capacity(&self) -> f64 {
        self.processors_milli() as f64 / 10.0
    }

    /// What this node's VMs load it with, percent of a processor.
    #[must_use]
    pub fn load(&self) -> f64 {
        self.monitor.total()
    }

    /// What one VM does, percent of a processor.
    #[must_use]
    pub fn load_of(&self, id: &VmId) -> Option<f64> {
        self.monitor.of(id)
    }

    /// The hypervisor tells what VMs have used.
    pub(super) fn loads(&mut self, samples: Vec<VmLoad>, ctx: &mut Context) {
        let known = self.monitor.known();
        let gone: Vec<VmId> = known.filter(|id| !self.counts(id, ctx.now)).cloned().collect();
        for id in gone {
            self.unwatch(&id, ctx);
        }
        for sample in samples {
            if !self.counts(&sample.id, ctx.now) {
                continue;
            }
            let Some(vmh) = self.vms.get(&sample.id) else { continue };
            let vm = sample.id.clone();
            let definition = &vmh.record.definition;
            let memory_mib = u32::try_from(definition.memory >> 20).unwrap_or(u32::MAX);
            match self.monitor.sample(&sample, definition.cpus) {
                News::First(load) => self.relieve_arrival(vm, memory_mib, load, ctx),
                News::Changed(load) => self.relieve(Input::Load { vm, load }, ctx),
                News::Same => {}
            }
        }
        self.tell_overload(ctx);
    }

    /// A VM counts from now on. One that has moved here for another reason than loads is not taken up at once.
    fn relieve_arrival(&mut self, vm: VmId, memory_mib: u32, load: f64, ctx: &mut Context) {
        let part = self.relief.as_ref().and_then(Relief::part);
        let by_relief = matches!(part, Some(protocol::Part::Held { .. }));
        let came = self.vms.get(&vm).is_some_and(Vmh::came);
        self.relieve(Input::Here { vm: vm.clone(), memory_mib, load }, ctx);
        if let Some(relief) = self.relief.as_mut().filter(|_| came && !by_relief) {
            relief.leave_alone(&vm, ctx.now + LEFT_ALONE);
        }
    }

    /// A VM whose load is this node's: it runs here, and is to stay unless relief moves it.
    fn counts(&self, id: &VmId, now: Instant) -> bool {
        self.vms.get(id).is_some_and(|vmh| {
            vmh.record.goal == VmGoal::Run
                && vmh.has_booted(now)
                && vmh.moved != MoveProgress::Left
                && !self.is_leaving()
        })
    }

    /// A VM is no longer here.
    pub(super) fn unwatch(&mut self, id: &VmId, ctx: &mut Context) {
        if self.monitor.forget(id) {
            self.relieve(Input::Left(id.clone()), ctx);
        }
    }

    /// A peer says something about loads.
    pub fn relief_said(&mut self, from: &NodeName, said: protocol::Message, ctx: &mut Context) {
        self.relieve(Input::Message(from.clone(), said), ctx);
    }

    /// It is time to look again who is near.
    #[must_use]
    pub fn wants_peers(&self, now: Instant) -> bool {
        self.relief.is_some() && self.acquaintances_at <= now
    }

    /// These are the peers that this node tells of its load.
    pub fn know_peers(&mut self, peers: Vec<NodeName>, ctx: &mut Context) {
        self.acquaintances_at = ctx.now + LOOK_AROUND_EVERY;
        if self.acquaintances != peers {
            self.acquaintances.clone_from(&peers);
            self.relieve(Input::Peers(peers), ctx);
        }
    }

    /// The one move that this node takes part in for its load's sake.
    #[must_use]
    pub fn relief(&self) -> Option<&Relief<NodeName, VmId>> {
        self.relief.as_ref()
    }

    /// An input goes to the policy, and what comes of it is done.
    pub(super) fn relieve(&mut self, input: Input<NodeName, VmId>, ctx: &mut Context) {
        let rules = self
            .threshold_s
            .map(|threshold_s| Rules { capacity: self.load_capacity(), threshold_s });
        let free_mib = self.room_for_others();
        self.told_room = free_mib;
        let (Some(relief), Some(rules)) = (&mut self.relief, rules) else { return };
        relief.set_rules(rules);
        let now = Now { at: ctx.now, free_mib, rng: &mut ctx.rng };
        for effect in relief.handle(input, now) {
            match effect {
                Effect::Send(to, message) => ctx.send(&to, Message::Relief(message)),
                Effect::Migrate(vm, to) => {
                    if let Some(vmh) = self.vms.get(&vm) {
                        let handler = vmh.record.handler.clone();
                        let why = MoveReason::Load;
                        ctx.send(&handler, Message::Move { vm, to, why });
                    }
                }
                Effect::Ended(..) => {}
            }
        }
    }

    /// Memory for VMs that relief brings, MiB. A node that is in a partition, or takes no VMs, has none.
    fn room_for_others(&self) -> u32 {
        let takes = self.lock.is_none() && self.open().is_ok() && self.arriving() == 0;
        let free = if takes { self.free().memory >> 20 } else { 0 };
        u32::try_from(free).unwrap_or(u32::MAX)
    }

    /// Peers are told of room that has come or gone, also by a node where nothing else happens.
    pub(super) fn tell_room(&mut self, ctx: &mut Context) {
        if self.relief.is_some() && self.told_room != self.room_for_others() {
            self.relieve(Input::Wakeup, ctx);
        }
    }

    /// Tells people when the node becomes overloaded and when it no longer is: not of every moment.
    fn tell_overload(&mut self, ctx: &mut Context) {
        let (load, capacity) = (self.load(), self.load_capacity());
        let over = capacity > 0.0 && load > capacity;
        if !over {
            if self.overloaded_since.take().is_some() && self.told_overload {
                ctx.node_happened(false, "Relieved", "is no longer overloaded".into());
                self.told_overload = false;
            }
            return;
        }
        let since = *self.overloaded_since.get_or_insert(ctx.now);
        if !self.told_overload && ctx.now.since(since) >= OVERLOADED_FOR {
            self.told_overload = true;
            let text = format!(
                "is overloaded: its VMs want {:.1} processors, and {:.1} are there for them",
                load / 100.0,
                capacity / 100.0
            );
            ctx.node_happened(true, "Overloaded", text);
        }
    }
}

/// An overload is told of when it has lasted for so long: most are over before, by a move.
const OVERLOADED_FOR: Duration = Duration::from_secs(15);
