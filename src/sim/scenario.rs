//! Scenarios: environments come, change and go while faults happen. One seed is one scenario, to the byte.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::network::Quality;
use super::world::{Setup, World};
use crate::engine::host::StopCause;
use crate::engine::id::{MemberName, NodeName, VeName, VeUid};
use crate::engine::lrt::solver::Goal;
use crate::engine::report::Phase;
use crate::engine::spec::{
    BackOff, Boot, Constraint, DiskSpec, Domain, ImageSource, MemberSpec, NodeSelector,
    OnNodeCrash, OnVmCrash, Recovery, Resources, RunStrategy, VeSpec, VeState,
};
use crate::engine::vet::status::NO_ROOM_TO_GROW;

const GIB: u64 = 1 << 30;

/// What a scenario is made of.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Scenario {
    /// Feeds everything that is chance.
    pub seed: u64,
    /// How many nodes.
    pub nodes: usize,
    /// How many environments are applied.
    pub ves: usize,
    /// How many faults happen.
    pub faults: usize,
    /// Probability that a message is lost.
    pub loss: f64,
    /// Probability that a message arrives twice.
    pub repeat: f64,
    /// Nodes are put into maintenance too, and VMs leave them by live migrations, some of which fail.
    pub drains: bool,
}

/// How likely a migration fails, and that its last answer is lost, where nodes are drained.
const MIGRATION_FAULTS: (f64, f64) = (0.15, 0.15);

/// What came of it. Ordered maps and whole numbers only: equal scenarios give equal bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Version of this report's shape.
    pub schema: u32,
    /// As stated.
    pub seed: u64,
    /// As stated.
    pub nodes: usize,
    /// As stated.
    pub ves: usize,
    /// Events handled by engines.
    pub events: u64,
    /// Virtual time it took, milliseconds.
    pub simulated_ms: u64,
    /// Environments that ended whole.
    pub whole: usize,
    /// Environments that ended waiting whole.
    pub waiting: usize,
    /// Environments that ended as neither: their names.
    pub astray: Vec<String>,
    /// VMs that run at the end.
    pub running: usize,
    /// Faults that fired, by kind.
    pub fired: BTreeMap<&'static str, u64>,
    /// Messages sent, lost, repeated, cut.
    pub messages: [u64; 4],
    /// API writes by kind.
    pub writes: BTreeMap<&'static str, u64>,
    /// How migrations ended.
    pub migrations: BTreeMap<&'static str, u64>,
    /// What people were told, by reason.
    pub told: BTreeMap<&'static str, u64>,
    /// Broken invariants.
    pub broken: Vec<String>,
}

/// Runs one scenario to its end: faults over, everything settled.
#[must_use]
pub fn run(scenario: &Scenario) -> Report {
    let mut rng = ChaCha8Rng::seed_from_u64(scenario.seed ^ 0x5ce7_a210);
    let network = Quality { loss: scenario.loss, repeat: scenario.repeat, ..Quality::default() };
    let mut world = World::new(&Setup {
        seed: scenario.seed,
        nodes: scenario.nodes,
        capacity: Resources { cpu_milli: 16_000, memory: 16 * GIB },
        zones: if scenario.nodes >= 3 { 3 } else { 0 },
        network,
        goal: Goal::default(),
    });
    if scenario.drains {
        world.migration_faults = MIGRATION_FAULTS;
    }
    let kinds = if scenario.drains { 15 } else { 11 };
    let mut fired: BTreeMap<&'static str, u64> = BTreeMap::new();
    world.run_for(Duration::from_secs(2));
    let steps = scenario.ves + scenario.faults;
    let (mut ves, mut faults) = (0, 0);
    for step in 0..steps {
        let more_ves = ves < scenario.ves;
        let fault = faults < scenario.faults && (!more_ves || rng.random_bool(0.5));
        if fault {
            faults += 1;
            *fired.entry(disturb(&mut world, kinds, &mut rng)).or_default() += 1;
        } else {
            let uid = VeUid::from(format!("uid-{ves}"));
            let name = VeName::new("default", &format!("ve-{ves}"));
            ves += 1;
            world.apply(&uid, &name, spec(&mut rng, scenario.nodes));
        }
        // Often several at the same moment.
        if step % 3 == 0 {
            world.run_for(Duration::from_millis(rng.random_range(0..3_000)));
        }
    }
    calm(&mut world);
    world.run_while_not(Duration::from_secs(180), is_settled);
    report(scenario, &world, fired)
}

/// Every fault ends.
fn calm(world: &mut World) {
    world.network.mend();
    if world.api.away {
        world.set_api_away(false);
    }
    for name in world.names() {
        world.start_agent(&name);
        world.declare_node(&name, |declared| {
            declared.schedulable = true;
            declared.maintenance = false;
        });
    }
    world.migration_faults = (0.0, 0.0);
}

/// Something goes wrong, or somebody changes something. Returns what.
fn disturb(world: &mut World, kinds: u32, rng: &mut ChaCha8Rng) -> &'static str {
    let names = world.names();
    let node = names[rng.random_range(0..names.len())].clone();
    match rng.random_range(0..kinds) {
        0 => {
            world.kill_agent(&node);
            "agent killed"
        }
        1 => {
            world.power_off(&node);
            "power lost"
        }
        2 | 3 => {
            for name in names {
                world.start_agent(&name);
            }
            "agents started"
        }
        4 => {
            for other in names.iter().filter(|other| **other != node) {
                world.network.cut(&node, other);
                if rng.random_bool(0.7) {
                    world.network.cut(other, &node);
                }
            }
            "network cut"
        }
        5 => {
            world.network.mend();
            "network mended"
        }
        6 => {
            let away = !world.api.away;
            world.set_api_away(away);
            "API server toggled"
        }
        7 => {
            let schedulable = rng.random_bool(0.5);
            world.declare_node(&node, |declared| declared.schedulable = schedulable);
            "cordon changed"
        }
        8 => {
            let running = world.running();
            let Some((id, on)) = pick(&running, rng) else { return "no guest to crash" };
            world.stop_guest(&on, &id, StopCause::Crashed);
            "guest crashed"
        }
        9 => {
            let running = world.running();
            let Some((id, on)) = pick(&running, rng) else { return "no domain to undefine" };
            world.undefine(&on, &id);
            "domain undefined"
        }
        10 => change_ve(world, rng, names.len()),
        _ => {
            let maintenance = rng.random_bool(0.6);
            world.declare_node(&node, |declared| declared.maintenance = maintenance);
            "maintenance changed"
        }
    }
}

fn pick<T: Clone>(items: &[T], rng: &mut ChaCha8Rng) -> Option<T> {
    if items.is_empty() { None } else { items.get(rng.random_range(0..items.len())).cloned() }
}

pub(super) fn change_ve(world: &mut World, rng: &mut ChaCha8Rng, nodes: usize) -> &'static str {
    let all: Vec<_> = world.api.objects().map(|object| object.declared.clone()).collect();
    let Some(declared) = pick(&all, rng).filter(|declared| !declared.deleting) else {
        return "no environment to change";
    };
    let mut spec = declared.spec.clone();
    match rng.random_range(0..4) {
        0 => {
            world.delete(&declared.uid);
            return "environment deleted";
        }
        1 => {
            let running = spec.state == VeState::Running;
            spec.state = if running { VeState::Terminated } else { VeState::Running };
        }
        2 => spec.members[0].replicas = rng.random_range(0..=(nodes as u32)),
        _ => spec.members[0].memory = rng.random_range(1..4) * GIB,
    }
    world.apply(&declared.uid, &declared.name, spec);
    "environment changed"
}

/// An environment of one to three members, with constraints now and then.
pub(super) fn spec(rng: &mut ChaCha8Rng, nodes: usize) -> VeSpec {
    let mut members: Vec<MemberSpec> = (0..rng.random_range(1..=3_usize))
        .map(|index| MemberSpec {
            name: MemberName::from(["web", "db", "cache"][index]),
            replicas: rng.random_range(1..=3),
            cpus: rng.random_range(1..=2),
            memory: rng.random_range(1..=4) * GIB / 2,
            boot: Boot::Disk,
            disks: if rng.random_bool(0.5) { vec![disk()] } else { Vec::new() },
            run_strategy: RunStrategy::Always,
            depends_on: Vec::new(),
        })
        .collect();
    let mut placement = Vec::new();
    if rng.random_bool(0.4) {
        let over = if rng.random_bool(0.7) { Domain::Node } else { Domain::Zone };
        placement.push(Constraint::Spread {
            members: vec![MemberName::from("web")],
            over,
            continuous: true,
        });
    }
    if rng.random_bool(0.2) {
        let node = NodeName::from(format!("n{}", rng.random_range(1..=nodes)));
        let nodes = NodeSelector { names: vec![node], labels: BTreeMap::new() };
        placement.push(Constraint::Ban { members: Vec::new(), nodes, continuous: true });
    }
    if rng.random_bool(0.2) {
        placement.push(Constraint::MaxNodes(rng.random_range(1..=3)));
    }
    let recovery = recovery(&mut members);
    VeSpec { state: VeState::Running, members, placement, recovery }
}

/// What is done about crashes, and who waits for whom: by what was drawn already, so that a seed stays what it was.
fn recovery(members: &mut [MemberSpec]) -> Recovery {
    let sizes = members.iter().map(|member| member.memory / (GIB / 2)).sum::<u64>();
    let waits = sizes.is_multiple_of(2);
    let (first, others) = members.split_at_mut(1);
    others.iter_mut().filter(|_| waits).for_each(|other| {
        other.depends_on = first.iter().map(|member| member.name.clone()).collect();
    });
    let on_vm_crash = if sizes % 3 == 1 { OnVmCrash::RestartVe } else { OnVmCrash::Restart };
    let on_node_crash = match sizes % 5 {
        1 => OnNodeCrash::RestartVe,
        2 => OnNodeCrash::Leave,
        _ => OnNodeCrash::RestartVm,
    };
    Recovery { on_vm_crash, on_node_crash, back_off: BackOff::default() }
}

fn disk() -> DiskSpec {
    let url = "file:///images/root.qcow2".to_owned();
    let image = ImageSource { url, sha256: Some("0".repeat(64)) };
    DiskSpec { name: "root".into(), size: GIB, image: Some(image) }
}

pub(super) fn state_of(world: &World, uid: &VeUid) -> Option<State> {
    let object = world.api.get(uid)?;
    let status = object.status.as_ref()?;
    if status.observed_generation != object.declared.generation || object.declared.deleting {
        return None;
    }
    let wanted = object.declared.spec.vms(uid).count();
    let up = world.running().iter().filter(|(id, _)| id.ve == *uid).count();
    if status.ready.holds {
        let terminated = object.declared.spec.state == VeState::Terminated;
        return (up == if terminated { 0 } else { wanted }).then_some(State::Whole);
    }
    let reason = &*status.ready.reason;
    let waits = reason == "CannotBePlaced" || reason == NO_ROOM_TO_GROW;
    // What is added to a running environment may wait while the rest runs.
    (waits && (status.phase != Phase::Waiting || up == 0)).then_some(State::Waiting)
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// All that is to run runs.
    Whole,
    /// None of what waits runs.
    Waiting,
}

pub(super) fn is_settled(world: &World) -> bool {
    world.api.objects().all(|object| state_of(world, &object.declared.uid).is_some())
}

fn report(scenario: &Scenario, world: &World, fired: BTreeMap<&'static str, u64>) -> Report {
    let mut told: BTreeMap<&'static str, u64> = BTreeMap::new();
    for (_, _, happening) in &world.happened {
        *told.entry(happening.reason).or_default() += 1;
    }
    let states: Vec<(String, Option<State>)> = world
        .api
        .objects()
        .map(|object| {
            let status = object.status.as_ref().map(|s| (s.observed_generation, s.ready.clone()));
            let text = format!(
                "{} generation {} deleting {}: {status:?}",
                object.declared.name, object.declared.generation, object.declared.deleting
            );
            (text, state_of(world, &object.declared.uid))
        })
        .collect();
    let count = |wanted| states.iter().filter(|(_, state)| *state == Some(wanted)).count();
    let counts = world.network.counts;
    Report {
        schema: 1,
        seed: scenario.seed,
        nodes: scenario.nodes,
        ves: scenario.ves,
        events: world.events,
        simulated_ms: world.now().0 / 1000,
        whole: count(State::Whole),
        waiting: count(State::Waiting),
        astray: states.iter().filter(|(_, s)| s.is_none()).map(|(name, _)| name.clone()).collect(),
        running: world.running().len(),
        fired,
        messages: [counts.sent, counts.lost, counts.repeated, counts.cut],
        writes: world.api.writes.clone(),
        migrations: world.migrations.clone(),
        told,
        broken: world.broken.iter().map(|(at, broken)| format!("{} us: {broken}", at.0)).collect(),
    }
}
