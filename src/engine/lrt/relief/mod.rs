//! Relief: nodes hand VMs to each other so that fewer are overloaded, each by what it sees and what its peers tell.
//!
//! ```text
//!   loads of this node's VMs ──> habit.rs: what they are like ──> outlook.rs: what they will cost here
//!                                                                          │
//!   peers' summaries (told when they have changed) ──────────────> decide.rs: a move that saves enough?
//!                                                                          │
//!                                       protocol.rs: Ask, Granted, migrate <┘
//! ```
//!
//! There is no other party than the two nodes of a move, and no other knowledge than what they have seen and heard.
//! DVMS (Quesnel et al. 2013) acts when a node *is* overloaded, on whoever comes next; here a node acts when a move is
//! worth more than it costs, mostly before. The value function is the idea of BENCHMARKS, B1.
//!
//! Pure: [`Relief::handle`] is the one door; time and chance are handed in. It says nothing of where peers come
//! from: the cell's DNT will give them, near ones and some far ones. (I4: [`Part`] is what a node takes part in, one
//! at a time, and each kind of it ends by time.)

pub mod decide;
pub mod habit;
pub mod outlook;
pub mod protocol;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::super::time::Instant;
use decide::{Movable, Target};
use habit::{House, Lodger, Lore, Prior, Watched};
use outlook::{Outline, outlook};
use protocol::{ANSWER_WITHIN, HELD_FOR, MOVED_WITHIN, Message, Part, SIGN_EVERY, Summary};

/// Seconds of overload that a migration must save, unless the cluster says otherwise: about what a migration takes, and
/// about twice the migrations of DVMS as published (the curve is in docs/benchmarks.md).
pub const THRESHOLD_S: f64 = 9.2;
/// Between two tellings of a node.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Peers are told at the latest after this time: a word may have been lost, and an idle node has nothing to say.
const TELL_ANYWAY: Duration = Duration::from_secs(300);
/// Peers are told when the load has changed by this share of the capacity: less does not change what they decide.
const MATERIAL: f64 = 0.02;
/// A node that did not find anybody looks again after about so long, if nothing happens before.
const LOOK_AGAIN_MS: u64 = 1_000;
/// A peer that was taken up, or did not answer, is passed over for so long: a good half of a migration.
const PASSED_OVER: Duration = Duration::from_secs(6);

/// While a node is overloaded a migration need save only this part of the threshold, less for each second that it lasts:
/// what it saves is certain then, and who has paid the price of a move by waiting had better have moved.
const URGENCY: f64 = 0.2;
/// But not less than this, seconds: what saves nothing is never worth it.
const LEAST_S: f64 = 1.0;
/// An overload that has lasted for longer than this speaks against what was thought of its loads, that they would soon be
/// others: from then on the least falls with the square of how long.
const DOUBTED_AFTER_S: f64 = 12.0;

/// A VM that could not be moved is left alone for so long: constraints and full nodes do not change every second.
const STAYS_FOR: Duration = Duration::from_secs(30);

/// What is set for the cluster, and what this node is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rules {
    /// What this node's VMs may load it with, percent of a core.
    pub capacity: f64,
    /// How many seconds of overload a migration must save.
    pub threshold_s: f64,
}

/// Something that a node learns.
#[derive(Clone, Debug, PartialEq)]
pub enum Input<N, V> {
    /// These are the peers it knows.
    Peers(Vec<N>),
    /// A VM is here.
    Here {
        /// Which.
        vm: V,
        /// Its memory, MiB.
        memory_mib: u32,
        /// Its load, percent of a core.
        load: f64,
    },
    /// A VM has another load.
    Load {
        /// Which.
        vm: V,
        /// Its load, percent of a core.
        load: f64,
    },
    /// A VM is no longer here.
    Left(V),
    /// The migration that was ordered does not take place.
    NotMoved(V),
    /// A peer says something.
    Message(N, Message),
    /// It is time ([`Relief::next_wakeup`]).
    Wakeup,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect<N, V> {
    /// Send this.
    Send(N, Message),
    /// Migrate this VM there.
    Migrate(V, N),
    /// The partition of this source and that target is over; whether the VM moved. For the statistics.
    Ended(N, bool),
}

#[derive(Clone, Debug)]
struct Vm {
    memory_mib: u32,
    lodger: Lodger,
    /// It could not be moved: it is not tried again before.
    stays_until: Instant,
}

/// What was last heard of a peer.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    told: Option<(Summary, Instant)>,
    passed_over_until: Instant,
}

/// What peers were told: they decide by no more.
#[derive(Clone, Copy, Debug)]
struct Told {
    load: f64,
    vms: usize,
    free_mib: u32,
    at: Instant,
}

impl Told {
    /// Whether what there is now would make peers decide otherwise.
    fn is_outdated(&self, now: &Self, capacity: f64) -> bool {
        let (more, less) = (now.free_mib.max(self.free_mib), now.free_mib.min(self.free_mib));
        (now.load - self.load).abs() >= MATERIAL * capacity
            || now.vms != self.vms
            // Room has come or gone: not each VM's worth of it, which the number of VMs says.
            || more / 2 > less
    }
}

/// One node's part.
#[derive(Debug)]
pub struct Relief<N, V> {
    rules: Rules,
    house: House,
    vms: BTreeMap<V, Vm>,
    peers: BTreeMap<N, Peer>,
    part: Option<Part<N, V>>,
    /// Free memory as its owner last said, MiB.
    free_mib: u32,
    asked: u64,
    /// What peers were last told, and when.
    told: Option<Told>,
    tell_at: Option<Instant>,
    look_at: Option<Instant>,
    /// Since when it is overloaded, if it is.
    overloaded_since: Option<Instant>,
}

/// What comes with each input.
pub struct Now<'a> {
    /// The time.
    pub at: Instant,
    /// Memory of this node that is free for VMs, without what is promised to one on its way here, MiB.
    pub free_mib: u32,
    /// Chance.
    pub rng: &'a mut ChaCha8Rng,
}

type Effects<N, V> = Vec<Effect<N, V>>;

impl<N: Clone + Ord, V: Clone + Ord> Relief<N, V> {
    /// A node without VMs that knows nobody.
    #[must_use]
    pub fn new(rules: Rules) -> Self {
        Self {
            rules,
            house: House::default(),
            vms: BTreeMap::new(),
            peers: BTreeMap::new(),
            part: None,
            free_mib: 0,
            asked: 0,
            told: None,
            tell_at: None,
            look_at: None,
            overloaded_since: None,
        }
    }

    /// What is set for the cluster, or what this node is, may have changed.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
    }

    /// A VM moves, or has moved, for another reason than its load: it is not taken before.
    pub fn leave_alone(&mut self, vm: &V, until: Instant) {
        if let Some(vm) = self.vms.get_mut(vm) {
            vm.stays_until = until.max(vm.stays_until);
        }
    }

    /// The one move that it takes part in.
    #[must_use]
    pub fn part(&self) -> Option<&Part<N, V>> {
        self.part.as_ref()
    }

    /// When it wants [`Input::Wakeup`].
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Instant> {
        let due = self.part.as_ref().map(Part::due);
        [due, self.tell_at, self.look_at].into_iter().flatten().min()
    }

    /// The one door.
    pub fn handle(&mut self, input: Input<N, V>, mut now: Now<'_>) -> Effects<N, V> {
        self.free_mib = now.free_mib;
        let mut effects = Vec::new();
        match input {
            Input::Peers(peers) => {
                let mut known = std::mem::take(&mut self.peers);
                let kept = |peer: N| {
                    let told = known.remove(&peer).unwrap_or_default();
                    (peer, told)
                };
                self.peers = peers.into_iter().map(kept).collect();
                // The new ones are to hear how it is here.
                self.told = None;
            }
            Input::Here { vm, memory_mib, load } => {
                self.take_in(vm, memory_mib, load, now.at);
                self.look(&mut now, &mut effects);
            }
            Input::Load { vm, load } => {
                if self.note(&vm, load, now.at) {
                    self.look(&mut now, &mut effects);
                }
            }
            Input::Left(vm) => {
                if let Some(gone) = self.vms.remove(&vm) {
                    self.house.part_with(&gone.lodger, now.at);
                }
                self.sent(&vm, true, &mut effects);
                self.look(&mut now, &mut effects);
            }
            Input::NotMoved(vm) => self.not_moved(&vm, &mut now, &mut effects),
            Input::Message(from, message) if message.is_sane() => {
                self.hear(from, message, &mut now, &mut effects);
            }
            Input::Message(..) => {}
            Input::Wakeup => self.wake(&mut now, &mut effects),
        }
        self.tell(now.at, &mut effects);
        effects
    }

    /// A VM has another load. Returns whether it is one of this node's.
    fn note(&mut self, vm: &V, load: f64, now: Instant) -> bool {
        let prior = self.prior(now);
        let Some(here) = self.vms.get_mut(vm) else { return false };
        self.house.note(&mut here.lodger, load, now, &prior);
        true
    }

    /// A VM runs here now. If this node was held for one, it is that, and what is known of it came before it.
    fn take_in(&mut self, vm: V, memory_mib: u32, load: f64, now: Instant) {
        let mut watched = Watched::new(load);
        if let Some(Part::Held { watched: known, .. }) = &self.part {
            watched = *known;
            self.part = None;
        }
        let lodger = Lodger::arrived(watched, load, now);
        self.vms.insert(vm, Vm { memory_mib, lodger, stays_until: Instant::ZERO });
    }

    /// The move is over for this source.
    fn sent(&mut self, gone: &V, moved: bool, effects: &mut Effects<N, V>) {
        if let Some(Part::Sending { target, vm, .. }) = &self.part
            && vm == gone
        {
            effects.push(Effect::Ended(target.clone(), moved));
            self.part = None;
        }
    }

    fn not_moved(&mut self, gone: &V, now: &mut Now<'_>, effects: &mut Effects<N, V>) {
        if let Some(Part::Sending { target, vm, number, .. }) = &self.part
            && vm == gone
        {
            let (target, number) = (target.clone(), *number);
            if let Some(vm) = self.vms.get_mut(gone) {
                vm.stays_until = now.at + STAYS_FOR;
            }
            effects.push(Effect::Send(target.clone(), Message::Release { number }));
            self.pass_over(&target, now.at);
            self.sent(gone, false, effects);
            self.look_later(now);
        }
    }

    fn wake(&mut self, now: &mut Now<'_>, effects: &mut Effects<N, V>) {
        if self.part.as_ref().is_some_and(|part| part.ends() <= now.at) {
            match self.part.take() {
                Some(Part::Asking { target, .. }) => {
                    effects.push(Effect::Ended(target.clone(), false));
                    self.pass_over(&target, now.at);
                }
                Some(Part::Sending { target, .. }) => effects.push(Effect::Ended(target, false)),
                Some(Part::Held { .. }) | None => {}
            }
            self.look(now, effects);
        }
        if let Some(Part::Sending { target, number, sign_at, .. }) = &mut self.part
            && *sign_at <= now.at
        {
            *sign_at = now.at + SIGN_EVERY;
            let moving = Message::Moving { number: *number };
            effects.push(Effect::Send(target.clone(), moving));
        }
        if self.look_at.is_some_and(|at| at <= now.at) {
            self.look(now, effects);
        }
    }

    fn hear(&mut self, from: N, message: Message, now: &mut Now<'_>, effects: &mut Effects<N, V>) {
        match message {
            Message::Tell(summary) => {
                self.learn(&from, summary, now.at);
                if !summary.busy {
                    self.look_at_peers(Some(&from), now, effects);
                }
            }
            Message::Ask { number, memory_mib, watched } => {
                let answer = self.answer(&from, number, memory_mib, watched, now.at);
                effects.push(Effect::Send(from, answer));
            }
            Message::Granted { number, summary } => {
                self.learn(&from, summary, now.at);
                self.granted(from, number, now, effects);
            }
            Message::Refused { number, summary } => {
                self.learn(&from, summary, now.at);
                if self.is_asking(&from, number) {
                    self.pass_over(&from, now.at);
                    self.part = None;
                    effects.push(Effect::Ended(from, false));
                    self.look(now, effects);
                }
            }
            Message::Moving { number } => {
                if let Some(Part::Held { source, number: held, until, .. }) = &mut self.part
                    && (&*source, *held) == (&from, number)
                {
                    *until = now.at + HELD_FOR;
                }
            }
            Message::Release { number } => {
                if let Some(Part::Held { source, number: held, .. }) = &self.part
                    && (source, *held) == (&from, number)
                {
                    self.part = None;
                    self.look(now, effects);
                }
            }
        }
    }

    fn learn(&mut self, peer: &N, summary: Summary, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.told = Some((summary, now));
            if !summary.busy {
                peer.passed_over_until = Instant::ZERO;
            }
        }
    }

    fn pass_over(&mut self, peer: &N, now: Instant) {
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.passed_over_until = now + PASSED_OVER;
        }
    }

    fn is_asking(&self, whom: &N, which: u64) -> bool {
        matches!(&self.part, Some(Part::Asking { target, number, .. })
            if target == whom && *number == which)
    }

    /// A node asks whether this one would take a VM.
    fn answer(
        &mut self,
        source: &N,
        number: u64,
        memory_mib: u32,
        watched: Watched,
        now: Instant,
    ) -> Message {
        let summary = self.summary(now);
        if self.part.is_some() || memory_mib > self.free_mib {
            return Message::Refused { number, summary };
        }
        let until = now + HELD_FOR;
        self.part = Some(Part::Held { source: source.clone(), number, watched, until });
        Message::Granted { number, summary }
    }

    /// The target is reserved: with what it is like now, is it still worth it?
    fn granted(&mut self, from: N, number: u64, now: &mut Now<'_>, effects: &mut Effects<N, V>) {
        let asked = match &self.part {
            Some(Part::Asking { target, vm, number: ours, .. })
                if *target == from && *ours == number =>
            {
                vm.clone()
            }
            // Given up long ago.
            _ => return effects.push(Effect::Send(from, Message::Release { number })),
        };
        let needed_s = self.needed_s(now.at);
        if self.gain(&asked, &from, now.at).is_some_and(|gain| gain > needed_s) {
            let (until, sign_at) = (now.at + MOVED_WITHIN, now.at + SIGN_EVERY);
            let (target, vm) = (from.clone(), asked.clone());
            self.part = Some(Part::Sending { target, vm, number, until, sign_at });
            effects.push(Effect::Migrate(asked, from));
        } else {
            self.part = None;
            effects.push(Effect::Send(from.clone(), Message::Release { number }));
            effects.push(Effect::Ended(from, false));
            self.look(now, effects);
        }
    }

    fn gain(&self, vm: &V, peer: &N, now: Instant) -> Option<f64> {
        let movable = movable(vm, self.vms.get(vm)?, &self.prior(now), now);
        let (node, known) = self.peers.get_key_value(peer)?;
        let target = target(node, known, now)?;
        Some(decide::gain(&self.outline(now), &movable, &target, self.rules.capacity))
    }

    /// Looks for the best move to any peer.
    fn look(&mut self, now: &mut Now<'_>, effects: &mut Effects<N, V>) {
        self.look_at = None;
        self.look_at_peers(None, now, effects);
    }

    /// Asks for the best move, if there is one that is worth it and this node is free; to a peer that has just told
    /// something, or to any.
    fn look_at_peers(&mut self, only: Option<&N>, now: &mut Now<'_>, effects: &mut Effects<N, V>) {
        let capacity = self.rules.capacity;
        let needed_s = self.needed_s(now.at);
        let here = self.outline(now.at);
        if self.part.is_some() {
            return;
        }
        if outlook(&here, capacity, 0.0) <= needed_s {
            // The longer it is overloaded the less is needed.
            if here.load > capacity && only.is_none() {
                self.look_later(now);
            }
            return;
        }
        let prior = self.prior(now.at);
        let free = self.vms.iter().filter(|(_, vm)| vm.stays_until <= now.at);
        let vms: Vec<Movable<V>> =
            free.map(|(name, vm)| movable(name, vm, &prior, now.at)).collect();
        let free = self.peers.iter().filter(|(node, peer)| {
            peer.passed_over_until <= now.at && only.is_none_or(|only| only == *node)
        });
        let targets: Vec<Target<'_, N>> =
            free.filter_map(|(node, peer)| target(node, peer, now.at)).collect();
        let Some(found) = decide::best(&here, &vms, &targets, capacity, needed_s) else {
            return if only.is_none() {
                self.look_later(now)
            };
        };
        let vm = &self.vms[&found.vm];
        let (memory_mib, watched) = (vm.memory_mib, vm.lodger.packed(now.at));
        self.asked += 1;
        let number = self.asked;
        let until = now.at + ANSWER_WITHIN;
        effects.push(Effect::Send(found.to.clone(), Message::Ask { number, memory_mib, watched }));
        self.part = Some(Part::Asking { target: found.to, vm: found.vm, number, until });
    }

    /// Overloaded, or soon: what peers are like may change without a word that came through.
    fn look_later(&mut self, now: &mut Now<'_>) {
        let after = now.rng.random_range(LOOK_AGAIN_MS / 2..=LOOK_AGAIN_MS * 3 / 2);
        self.look_at = Some(now.at + Duration::from_millis(after));
    }

    /// Seconds of overload that a migration must save at this moment.
    fn needed_s(&mut self, now: Instant) -> f64 {
        if self.load() <= self.rules.capacity {
            self.overloaded_since = None;
            return self.rules.threshold_s;
        }
        let lasted = now.since(*self.overloaded_since.get_or_insert(now));
        let lasted_s = lasted.as_secs_f64();
        let doubt = DOUBTED_AFTER_S / lasted_s.max(DOUBTED_AFTER_S);
        let least_s = LEAST_S.min(self.rules.threshold_s) * doubt * doubt;
        (URGENCY * self.rules.threshold_s - lasted_s).max(least_s)
    }

    fn load(&self) -> f64 {
        self.vms.values().fold(0.0, |sum, vm| sum + vm.lodger.load())
    }

    /// What VMs are like in general, by all that was seen here and that peers have told.
    fn prior(&self, now: Instant) -> Prior {
        let told = self.peers.values().filter_map(|peer| peer.told.as_ref());
        // A peer that has said nothing since has seen nothing change since.
        let lores = told.map(|(summary, heard)| {
            let silent_s = now.since(*heard).as_secs_f64();
            summary.lore.unchanged_for(silent_s * summary.outline.vms)
        });
        Prior::of(&lores.fold(self.lore(now), |all, lore| all.with(&lore)))
    }

    fn lore(&self, now: Instant) -> Lore {
        self.house.lore(self.vms.values().map(|vm| &vm.lodger), now)
    }

    fn outline(&self, now: Instant) -> Outline {
        let prior = self.prior(now);
        let vms = self.vms.values();
        vms.fold(Outline::default(), |sum, vm| sum.with(&prior.habit(&vm.lodger, now)))
    }

    fn summary(&self, now: Instant) -> Summary {
        let (outline, lore) = (self.outline(now), self.lore(now));
        Summary { outline, lore, free_mib: self.free_mib, busy: self.part.is_some() }
    }

    /// Tells the peers what this node is like, when that has changed enough and not too often.
    fn tell(&mut self, now: Instant, effects: &mut Effects<N, V>) {
        let (load, vms, free_mib) = (self.load(), self.vms.len(), self.free_mib);
        let is = Told { load, vms, free_mib, at: now };
        if let Some(told) = self.told {
            let outdated = told.is_outdated(&is, self.rules.capacity);
            let after = if outdated { TELL_EVERY } else { TELL_ANYWAY };
            if now < told.at + after {
                self.tell_at = Some(told.at + after);
                return;
            }
        }
        self.told = Some(is);
        self.tell_at = Some(now + TELL_ANYWAY);
        let summary = self.summary(now);
        let tell = |peer: &N| Effect::Send(peer.clone(), Message::Tell(summary));
        effects.extend(self.peers.keys().map(tell));
    }
}

fn movable<V: Clone>(name: &V, vm: &Vm, prior: &Prior, now: Instant) -> Movable<V> {
    let habit = prior.habit(&vm.lodger, now);
    Movable { vm: name.clone(), memory_mib: vm.memory_mib, habit }
}

fn target<'a, N>(node: &'a N, peer: &Peer, now: Instant) -> Option<Target<'a, N>> {
    let (summary, heard) = peer.told?;
    let age_s = now.since(heard).as_secs_f64();
    Some(Target { node, outline: summary.outline, free_mib: summary.free_mib, age_s })
}
