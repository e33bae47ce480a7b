//! Fuzz: environments come, change and go under a plan of faults, one seed after the other; what breaks something is shrunk to the
//! few steps that it takes.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::faults::FaultKind;
use super::faults::plan::{Conditions, Shape, Step, What, draw};
use super::network::Quality;
use super::scenario::{change_ve, spec};
use super::world::{Lives, Setup, World};
use crate::engine::id::{NodeName, VeName, VeUid};
use crate::engine::input::{NodeDeclared, VeDeclared};
use crate::engine::lrt::solver::Goal;
use crate::engine::spec::Resources;
use crate::engine::time::Instant;

const GIB: u64 = 1 << 30;

/// In one world of so many machines can be switched off from outside, which takes this time.
const SWITCHES: u64 = 4;
const SWITCHES_IN: Duration = Duration::from_millis(1500);
/// In one world of so many hypervisors fail: how likely they refuse a command, and do one and say that they have not.
const FAILING: (u64, f64, f64) = (4, 0.1, 0.05);
/// In one world of so many guests are busy, and change how busy they are with each change that people make: up to so much of a
/// processor each, thousandths.
const BUSY: (u64, u64) = (4, 5_000);
/// How likely a migration fails, and that its last answer is lost.
const MIGRATION_FAULTS: (f64, f64) = (0.15, 0.15);
/// How likely people take back what they have just changed.
const TAKEN_BACK: f64 = 0.3;
/// The longest fault is over after this time.
const ALL_OVER: Duration = Duration::from_secs(3 * 3600);
/// After the last fault everything is whole, or waits whole, within this time.
const SETTLED: Duration = Duration::from_secs(400);
/// It is looked whether that is so each time after so long.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// What people were told last, in a trace.
const LAST: usize = 40;

/// What came of one seed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Which.
    pub seed: u64,
    /// Events that engines handled.
    pub events: u64,
    /// Of these, while faults were on.
    pub fault_events: u64,
    /// Virtual time, milliseconds.
    pub simulated_ms: u64,
    /// Faults that fired, by word.
    pub fired: BTreeMap<&'static str, u64>,
    /// What broke first: the invariant, or "settles" if something was neither whole nor waiting whole long after.
    pub broken: Option<Finding>,
}

/// Something that must not be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// "I1" to "I5", or "settles".
    pub invariant: &'static str,
    /// When.
    pub at: Instant,
    /// What was seen.
    pub what: String,
}

/// A run with all that there is to show of it.
pub struct Played {
    /// What came of it.
    pub outcome: Outcome,
    /// Every run of every VM.
    pub lives: Lives,
    /// When it ended.
    pub end: Instant,
    /// What people were told last.
    pub told: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, shape: &Shape) -> Outcome {
    play(seed, shape, &draw(seed, shape), false).outcome
}

/// Runs a plan.
#[must_use]
pub fn play(seed: u64, shape: &Shape, steps: &[Step], remember: bool) -> Played {
    let conditions = Conditions::draw(seed, shape);
    let mut world = begin(seed, &conditions);
    world.lives = remember.then(Vec::new);
    world.keeps_little = !remember;
    let mut outcome = Outcome { seed, ..Outcome::default() };
    let first = steps.iter().find(|step| matches!(step.what, What::Fault(..)));
    let mut before = None;
    for step in steps {
        world.run_until(Instant::ZERO + step.at);
        if !world.broken.is_empty() {
            break;
        }
        if first == Some(step) {
            before = Some(world.events);
        }
        if let Some(word) = take(&mut world, conditions.nodes, step) {
            *outcome.fired.entry(word).or_default() += 1;
        }
        if seed % BUSY.0 == 1 && matches!(step.what, What::Change) {
            make_busy(&mut world, step.chance);
        }
    }
    let calm = world.run_while_not(ALL_OVER, |world| world.under_way == 0);
    outcome.fault_events = before.map_or(0, |before| world.events - before);
    if conditions.kinds.contains(&FaultKind::Migration) {
        let broke = |(word, count): (&&str, &u64)| (*word != "arrived").then_some(*count);
        outcome.fired.insert("migration", world.migrations.iter().filter_map(broke).sum());
    }
    world.migration_faults = (0.0, 0.0);
    world.command_faults = (0.0, 0.0);
    if world.commands_failed > 0 {
        outcome.fired.insert("command", world.commands_failed);
    }
    for name in world.names() {
        world.declare_node(&name, |declared| {
            declared.schedulable = true;
            declared.maintenance = false;
        });
    }
    let settled = calm && settles(&mut world);
    outcome.events = world.events;
    outcome.simulated_ms = world.now().0 / 1000;
    outcome.broken = finding(&world, calm, settled);
    let last = world.happened.iter().rev().take(LAST).rev();
    let told = last.map(|(at, node, told)| {
        format!("{:>9.3} s  {node} says {}: {}", seconds(*at), told.reason, told.message)
    });
    let told = told.collect();
    Played { outcome, end: world.now(), told, lives: world.lives.take().unwrap_or_default() }
}

/// Runs until everything is as it must be in the end. Tells whether it is.
fn settles(world: &mut World) -> bool {
    let end = world.now() + SETTLED;
    while !world.astray().is_empty() {
        if world.now() >= end || !world.broken.is_empty() {
            return false;
        }
        world.run_for(LOOK_EVERY);
    }
    true
}

/// The world of a seed, before anything happens in it.
fn begin(seed: u64, conditions: &Conditions) -> World {
    let mut world = World::new(&Setup {
        seed,
        nodes: conditions.nodes,
        capacity: Resources { cpu_milli: 16_000, memory: memory(seed) },
        zones: if conditions.nodes >= 3 { 3 } else { 0 },
        network: Quality::default(),
        goal: Goal::default(),
    });
    let there = |kind| conditions.kinds.contains(&kind);
    world.set_times(conditions.times);
    if let Some(timeout) = conditions.watchdog {
        world.set_watchdog(timeout);
    }
    if seed.is_multiple_of(SWITCHES) {
        world.set_power_switch(Ok(SWITCHES_IN));
    }
    world.boot_clocks = there(FaultKind::Clock);
    if there(FaultKind::Migration) {
        world.migration_faults = MIGRATION_FAULTS;
    }
    if seed % FAILING.0 == 2 {
        world.command_faults = (FAILING.1, FAILING.2);
    }
    world
}

/// What broke first, or is astray in the end.
fn finding(world: &World, calm: bool, settled: bool) -> Option<Finding> {
    if let Some((at, broken)) = world.broken.first() {
        return Some(Finding { invariant: broken.invariant, at: *at, what: broken.what.clone() });
    }
    if settled {
        return None;
    }
    let what = if calm {
        world.astray().join("; ")
    } else {
        format!("{} faults have no end", world.under_way)
    };
    Some(Finding { invariant: "settles", at: world.now(), what })
}

/// What each node has: in two of three seeds so little that environments wait for each other.
fn memory(seed: u64) -> u64 {
    [16, 8, 5][(seed % 3) as usize] * GIB
}

fn seconds(at: Instant) -> f64 {
    at.0 as f64 / 1e6
}

/// Does one step. Returns the word of a fault that fired.
fn take(world: &mut World, nodes: usize, step: &Step) -> Option<&'static str> {
    let mut rng = ChaCha8Rng::seed_from_u64(step.chance);
    let toggle = |world: &mut World, node: &NodeName, change: fn(&mut NodeDeclared)| {
        world.declare_node(node, change);
    };
    match &step.what {
        What::Apply(number) => {
            let uid = VeUid::from(format!("uid-{number}"));
            let name = VeName::new("default", &format!("ve-{number}"));
            world.apply(&uid, &name, spec(&mut rng, nodes));
        }
        What::Change => {
            let before: Vec<VeDeclared> =
                world.api.objects().map(|object| object.declared.clone()).collect();
            change_ve(world, &mut rng, nodes);
            if rng.random_bool(TAKEN_BACK) {
                // As likely at once as after seconds.
                let most = [10, 100, 1_000, 10_000][rng.random_range(0..4)];
                world.run_for(Duration::from_millis(rng.random_range(0..most)));
                take_back(world, before);
            }
        }
        What::Cordon(node) => toggle(world, node, |d| d.schedulable = !d.schedulable),
        What::Maintenance(node) => toggle(world, node, |d| d.maintenance = !d.maintenance),
        What::Fault(kind, node, lasts) => {
            return world.inflict((*kind, node, *lasts), &mut rng).then_some(kind.word());
        }
    }
    None
}

/// Guests are more or less busy than before.
fn make_busy(world: &mut World, chance: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(!chance);
    for (id, _) in world.running() {
        let load = if rng.random_bool(0.5) { rng.random_range(0..BUSY.1) } else { 0 };
        world.set_load(&id, load);
    }
}

/// People take back what they have changed, unless it is deleted.
fn take_back(world: &mut World, before: Vec<VeDeclared>) {
    for old in before {
        let differs = world
            .api
            .get(&old.uid)
            .is_some_and(|object| !object.declared.deleting && object.declared.spec != old.spec);
        if differs {
            world.apply(&old.uid, &old.name, old.spec);
        }
    }
}

/// The fewest steps of a plan that still break the same invariant, as far as taking out some of them shows (Zeller and
/// Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, 2002). At most `tries` runs.
#[must_use]
pub fn shrink(seed: u64, shape: &Shape, finding: &Finding, tries: usize) -> Vec<Step> {
    let mut steps = draw(seed, shape);
    let mut left = tries;
    let mut still_breaks = |steps: &[Step]| {
        if left == 0 {
            return false;
        }
        left -= 1;
        let broken = play(seed, shape, steps, false).outcome.broken;
        broken.is_some_and(|broken| broken.invariant == finding.invariant)
    };
    // What comes after the break has no part in it.
    let before: Vec<Step> =
        steps.iter().filter(|step| Instant::ZERO + step.at <= finding.at).cloned().collect();
    if still_breaks(&before) {
        steps = before;
    }
    let mut size = steps.len() / 2;
    while size > 0 {
        let mut at = 0;
        let mut shrunk = false;
        while at < steps.len() {
            let end = (at + size).min(steps.len());
            let fewer: Vec<Step> = steps[..at].iter().chain(&steps[end..]).cloned().collect();
            if still_breaks(&fewer) {
                steps = fewer;
                shrunk = true;
            } else {
                at = end;
            }
        }
        if size > 1 || !shrunk {
            size /= 2;
        }
    }
    steps
}

/// A shrunk plan, what was told last, and what broke, for people.
#[must_use]
pub fn trace(steps: &[Step], played: &Played) -> String {
    let mut text = String::new();
    for step in steps {
        let _ = writeln!(text, "  {step}");
    }
    let _ = writeln!(text, "  what people were told last:");
    for told in &played.told {
        let _ = writeln!(text, "  {told}");
    }
    match &played.outcome.broken {
        Some(Finding { invariant, at, what }) => {
            let _ = writeln!(text, "  {:>9.3} s  {invariant}: {what}", seconds(*at));
        }
        None => text.push_str("  nothing is broken\n"),
    }
    text
}
