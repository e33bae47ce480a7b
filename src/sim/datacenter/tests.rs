//! Properties of whole runs, and of the seam.

use std::collections::BTreeMap;
use std::time::Duration;

use super::catalogue::{Knob, Name, simulate};
use super::report::RunReport;
use super::run::{Ended, Setup, run as run_with};
use super::scheduler::{Actor, Desk, Happening, Scheduler};
use super::schedulers::discovery::Discovery;
use crate::engine::lrt::relief::protocol::Part;
use crate::engine::time::Instant;
use crate::sim::workload::{LoadEvent, Workload, locality, outages, vmplaces};

fn run(workload: &Workload, scheduler: Name, seed: u64, loss: f64) -> Ended {
    simulate(scheduler, Knob::default(), Setup { workload, seed, loss, progress: &mut |_| {} })
}

/// DVMS's nodes look at themselves once a second: ours need no more than that.
#[test]
fn discovery_does_with_a_look_a_second() {
    let of = |look_every| {
        let run = |seed| {
            let workload = vmplaces::workload(64, 10, seed);
            let setup = Setup { workload: &workload, seed, loss: 0.0, progress: &mut |_| {} };
            let knob = Knob { look_every, ..Knob::default() };
            let ended = simulate(Name::Discovery, knob, setup);
            RunReport::new(&workload, "discovery", seed, &ended)
        };
        mean(&(20..23).map(run).collect::<Vec<_>>(), |run| run.violation_s)
    };
    let [at_once, each_second] = [0, 1].map(|s| of(Duration::from_secs(s)));
    assert!(each_second > at_once && each_second < 1.5 * at_once, "{at_once} {each_second}");
}

fn report(pms: u32, scheduler: Name, seed: u64, loss: f64) -> RunReport {
    let workload = vmplaces::workload(pms, 10, seed);
    let ended = run(&workload, scheduler, seed, loss);
    RunReport::new(&workload, scheduler.as_str(), seed, &ended)
}

fn mean(reports: &[RunReport], of: impl Fn(&RunReport) -> f64) -> f64 {
    reports.iter().map(of).sum::<f64>() / reports.len() as f64
}

/// BENCHMARKS, B1: 5520 ± 873 s and 11082 ± 1975 s of violation over 20 seeds. Those are seeds 100 to 119, and
/// ours are the same to the second.
#[test]
fn nobodys_violation_time_is_the_literatures() {
    for (pms, published) in [(128, 5520.0), (256, 11082.0)] {
        let reports: Vec<RunReport> =
            (100..120).map(|seed| report(pms, Name::None, seed, 0.0)).collect();
        let ours = mean(&reports, |report| report.violation_s);
        assert_eq!(ours.round(), published, "{pms} nodes");
    }
}

/// Shares of nobody's violation time, and DVMS's migrations and partitions (BENCHMARKS, B1). Ours may be better;
/// the literature's table has a deviation of a sixth per run, hence the tenth here.
#[test]
fn no_baseline_is_weaker_than_published() {
    let published = [(128, [0.39, 0.39, 0.20], 78.0), (256, [0.66, 0.43, 0.21], 152.0)];
    for (pms, shares, migrations) in published {
        let runs = |name| -> Vec<RunReport> {
            (100..120).map(|seed| report(pms, name, seed, 0.0)).collect()
        };
        let violation = |runs: &[RunReport]| mean(runs, |report| report.violation_s);
        let none = violation(&runs(Name::None));
        for (name, share) in [Name::Entropy, Name::Snooze, Name::Dvms].into_iter().zip(shares) {
            let ours = violation(&runs(name)) / none;
            assert!(ours < 1.1 * share && ours > 0.6 * share, "{pms}: {name:?} {ours} {share}");
        }
        let dvms = runs(Name::Dvms);
        let moved = mean(&dvms, |report| report.migrations as f64) / migrations;
        assert!((0.8..1.2).contains(&moved), "{pms}: {moved}");
        assert_eq!(mean(&dvms, |report| report.partition_mean).round(), 4.0);
    }
}

#[test]
fn no_vm_is_lost_and_no_memory_is_overcommitted() {
    for scheduler in Name::ALL {
        let mut workload = vmplaces::workload(40, 10, 1);
        // Room for two more VMs per node only.
        workload.node.memory_mib = 12 * 1024;
        let ended = run(&workload, scheduler, 1, 0.05);
        let fleet = &ended.fleet;
        let mut hosted: Vec<u32> = Vec::new();
        for node in 0..fleet.len() {
            let here = fleet.node(node);
            hosted.extend(&here.vms);
            let load: u32 = here.vms.iter().map(|vm| fleet.vm(*vm).load).sum();
            assert_eq!(here.load, load, "{scheduler:?}: node {node}");
            assert!(here.memory_mib <= workload.node.memory_mib, "{scheduler:?}: node {node}");
        }
        hosted.sort_unstable();
        assert_eq!(hosted, (0..400).collect::<Vec<u32>>(), "{scheduler:?}");
        let idle = scheduler == Name::None;
        assert!(idle || ended.measures.migrations > 0, "{scheduler:?} did nothing");
    }
}

#[test]
fn one_seed_is_one_report_to_the_byte() {
    for scheduler in Name::ALL {
        let bytes = || serde_json::to_vec(&report(32, scheduler, 5, 0.02)).expect("serialises");
        assert_eq!(bytes(), bytes(), "{scheduler:?}");
    }
}

#[test]
fn dvms_resolves_what_nobody_does_not_even_when_messages_are_lost() {
    let nobody = report(64, Name::None, 3, 0.0);
    let whole = report(64, Name::Dvms, 3, 0.0);
    let lossy = report(64, Name::Dvms, 3, 0.2);
    assert!(lossy.lost > 0, "the fault fired");
    assert!(whole.violation_s < 0.3 * nobody.violation_s, "{}", whole.violation_s);
    assert!(lossy.violation_s < 0.6 * nobody.violation_s, "{}", lossy.violation_s);
    assert!(whole.partition_mean >= 2.0 && whole.migrations > 0);
}

/// Issue 4, acceptance 3; published for DVMS-LBO: .863 within a site, 1.082 sites per partition, 98.5 ms.
#[test]
fn discovery_stays_within_sites_and_decides_at_once() {
    let runs: Vec<RunReport> = (20..23)
        .map(|seed| {
            let workload = locality::workload(40, seed);
            let ended = run(&workload, Name::Discovery, seed, 0.0);
            RunReport::new(&workload, "discovery", seed, &ended)
        })
        .collect();
    assert!(mean(&runs, |run| run.intra_site) >= 0.95, "{}", mean(&runs, |run| run.intra_site));
    let sites = mean(&runs, |run| run.partition_sites);
    assert!(sites <= 1.03, "{sites}");
    assert!(runs.iter().all(|run| run.decision_p50_ms < 1.0 && run.decision_ms < 98.5));
    assert!(runs.iter().all(|run| run.wait_longest_s < 60.0), "nobody is left alone");
}

/// Loads of 75 on the first node, with eleven VMs, from the first second on, and of 10 on all others: one move resolves it.
fn one_busy_node(nodes: u32) -> Workload {
    let mut workload = locality::workload(nodes, 1);
    let busy = |vm: &u32| workload.placement[*vm as usize] == 0;
    let vms = || 0..workload.vms.len() as u32;
    let event = |at_s: u64, vm: u32, load| LoadEvent {
        at: Instant(at_s * 1_000_000 + u64::from(vm)),
        vm,
        load,
    };
    // Long enough at their first loads that nobody expects them to change in the next moment.
    let first = vms().map(|vm| event(1, vm, if busy(&vm) { 60 } else { 10 }));
    let then = vms().filter(busy).map(|vm| event(600, vm, 75));
    workload.events = first.chain(then).collect();
    workload.end = Instant(660_000_000);
    workload
}

#[test]
fn a_far_peer_is_asked_only_where_no_near_one_helps() {
    for (nodes, within) in [(8, 1.0), (4, 0.0)] {
        let workload = one_busy_node(nodes);
        let ended = run(&workload, Name::Discovery, 1, 0.0);
        let report = RunReport::new(&workload, "discovery", 1, &ended);
        assert!(report.migrations > 0 && report.violation_longest_s < 30.0, "{nodes} {report:?}");
        assert_eq!(report.intra_site, within, "{nodes} nodes on four sites");
    }
}

#[test]
fn by_nearness_partitions_of_dvms_stay_within_sites() {
    let workload = locality::workload(40, 20);
    let [nearest, any] = [Name::DvmsLbo, Name::Dvms]
        .map(|name| RunReport::new(&workload, name.as_str(), 20, &run(&workload, name, 20, 0.0)));
    assert!(nearest.intra_site > 0.863 && nearest.partition_sites < 1.082, "at least as published");
    assert!(any.intra_site < 0.5 && any.partition_sites > 2.0);
}

#[test]
fn a_wait_is_part_of_a_violation_and_dvms_decides_no_faster_than_it_computes() {
    for name in Name::ALL {
        let run = report(64, name, 3, 0.0);
        assert!(run.wait_longest_s <= run.violation_longest_s, "{name:?}");
        let known = name != Name::None;
        assert_eq!((run.wait_longest_s > 0.0, run.decisions > 0), (known, known), "{name:?}");
    }
    let dvms = report(64, Name::Dvms, 3, 0.0);
    assert!(dvms.decision_p50_ms >= 200.0 && dvms.decision_p50_ms < 300.0);
}

/// The goal of issue 4 is a factor of four over DVMS at twice its migrations; here with a margin.
#[test]
fn discovery_beats_dvms_by_a_clear_factor() {
    let violation = |name| {
        let reports: Vec<RunReport> = (20..24).map(|seed| report(128, name, seed, 0.0)).collect();
        (mean(&reports, |report| report.violation_s), mean(&reports, |r| r.migrations as f64))
    };
    let (dvms, ours) = (violation(Name::Dvms), violation(Name::Discovery));
    assert!(ours.0 < 0.5 * dvms.0 && ours.1 < 3.0 * dvms.1, "{ours:?} {dvms:?}");
}

/// Looks after each happening whether anybody takes part in a move for longer than it may.
struct Overseer {
    discovery: Discovery,
    seen: u64,
    latest: Instant,
}

impl Scheduler for &mut Overseer {
    type Message = <Discovery as Scheduler>::Message;

    fn handle(
        &mut self,
        at: Actor,
        happening: Happening<Self::Message>,
        desk: &mut Desk<'_, Self::Message>,
    ) {
        self.discovery.handle(at, happening, desk);
        let now = desk.now();
        // What ends at this very instant may be handled after this.
        let ended = |part: &&Part<u32, u32>| part.ends() < now;
        assert_eq!(self.discovery.parts().filter(ended).count(), 0, "at {now:?}");
        self.seen += self.discovery.parts().count() as u64;
        self.latest = now;
    }
}

#[test]
fn nobody_is_reserved_for_ever_when_messages_are_lost() {
    let workload = vmplaces::workload(24, 10, 4);
    let mut overseer = Overseer { discovery: Discovery::new(3.0), seen: 0, latest: Instant::ZERO };
    let setup = Setup { workload: &workload, seed: 4, loss: 0.2, progress: &mut |_| {} };
    let ended = run_with(setup, &mut overseer);
    assert!(ended.measures.lost > 100 && overseer.seen > 100, "the fault fired");
    assert!(ended.measures.migrations > 10, "and moves went on");
    assert!(overseer.latest > Instant(1_790_000_000));
}

/// Node 0 moves its first VM to node 1 when node 1 has answered; notes all that is told, and when.
#[derive(Debug, Default)]
struct Scribe {
    told: BTreeMap<(Actor, &'static str), Vec<Instant>>,
}

impl Scheduler for &mut Scribe {
    type Message = &'static str;

    fn services(&self, _: u32) -> u32 {
        1
    }

    fn handle(
        &mut self,
        at: Actor,
        happening: Happening<&'static str>,
        desk: &mut Desk<'_, &'static str>,
    ) {
        let [first, second] = [0, 1].map(Actor::Node);
        let what = match happening {
            Happening::Started => "started",
            Happening::LoadChanged { .. } => "load",
            Happening::Timer(7) => "timer",
            Happening::Timer(_) => "wrong timer",
            Happening::Message { message, .. } => message,
            Happening::MigrationEnded { .. } => "migrated",
            Happening::MigrationFailed { .. } => "not migrated",
            Happening::Returned => "returned",
        };
        self.told.entry((at, what)).or_default().push(desk.now());
        match what {
            "started" if at == first => desk.wake_at(Instant(500_000), 7),
            "timer" => desk.send(second, 10, "question"),
            "question" => desk.send(first, 10, "answer"),
            "answer" => {
                let vm = desk.here().vms().next().expect("it has VMs").vm;
                desk.migrate(vm, 1).expect("there is room");
            }
            _ => {}
        }
    }
}

#[test]
fn each_actor_is_told_what_concerns_it_once_and_in_its_time() {
    let workload = vmplaces::workload(3, 10, 1);
    let mut scribe = Scribe::default();
    let setup = Setup { workload: &workload, seed: 1, loss: 0.0, progress: &mut |_| {} };
    let ended = run_with(setup, &mut scribe);
    let told = |at, what| scribe.told.get(&(at, what)).map_or(&[][..], Vec::as_slice);
    let [first, second, third] = [0, 1, 2].map(Actor::Node);
    for actor in [first, second, third, Actor::Service(0)] {
        assert_eq!(told(actor, "started"), [Instant::ZERO], "{actor:?}");
    }
    assert_eq!(told(first, "timer"), [Instant(500_000)]);
    let round_trip = told(first, "answer")[0].since(Instant(500_000));
    assert!((Duration::from_micros(200)..=Duration::from_millis(4)).contains(&round_trip));
    // The source ordered it: still it is told once.
    let arrived = told(first, "migrated");
    assert_eq!((arrived.len(), told(third, "migrated").len()), (1, 0));
    assert_eq!(told(second, "migrated"), arrived);
    assert!(arrived[0].since(told(first, "answer")[0]) > Duration::from_secs(9));
    let loads = [first, second, third].map(|node| told(node, "load").len()).iter().sum::<usize>();
    assert_eq!(loads, workload.events.len());
    assert_eq!((ended.measures.migrations, ended.measures.message_bytes), (1, 20));
}

#[test]
#[should_panic(expected = "see their own nodes only")]
fn who_does_not_say_that_it_polls_cannot() {
    struct Curious;
    impl Scheduler for Curious {
        type Message = ();
        fn handle(&mut self, _: Actor, _: Happening<()>, desk: &mut Desk<'_, ()>) {
            let _ = desk.poll(1).load();
        }
    }
    let workload = vmplaces::workload(2, 10, 1);
    run_with(Setup { workload: &workload, seed: 1, loss: 0.0, progress: &mut |_| {} }, Curious);
}

fn of(workload: &Workload, scheduler: Name, seed: u64) -> (Ended, RunReport) {
    let ended = run(workload, scheduler, seed, 0.02);
    let report = RunReport::new(workload, scheduler.as_str(), seed, &ended);
    (ended, report)
}

#[test]
fn nodes_in_maintenance_become_empty_and_nobody_comes_until_it_is_over() {
    for scheduler in Name::ALL {
        let mut workload = outages::drain(64, 10, 5, 3);
        let (_, whole) = of(&workload, scheduler, 5);
        assert_eq!((whole.maintenances, whole.emptied), (3, 3), "{scheduler:?}");
        // Ten VMs of 9.6 s, two at a time on one link; those on their way here when it began leave too.
        assert!(whole.emptied_s > 40.0 && whole.emptied_longest_s < 200.0, "{}", whole.emptied_s);
        workload.end = Instant(1_190_000_000);
        workload.events.retain(|event| event.at < workload.end);
        let (ended, _) = of(&workload, scheduler, 5);
        for event in workload.incidents.iter().filter(|event| event.at < workload.end) {
            assert!(ended.fleet.node(event.node).vms.is_empty(), "{scheduler:?}");
        }
    }
}

#[test]
fn nodes_die_and_return_and_no_vm_is_lost_or_waits_for_ever() {
    for scheduler in Name::ALL {
        // So many deaths, and so much to migrate for, that some migrations are hit.
        let mut workload = outages::crash(48, 10, 5, 40);
        workload.node.capacity = 620;
        workload.node.memory_mib = 14 * 1024;
        let (ended, report) = of(&workload, scheduler, 5);
        assert_eq!(report.deaths, 40, "{scheduler:?}");
        assert!(report.broken > 0 || scheduler == Name::None, "{scheduler:?}: the fault fired");
        assert!(report.vm_away_s > 40.0 * 7.0 * 180.0, "{scheduler:?}: {}", report.vm_away_s);
        let mut hosted: Vec<u32> = Vec::new();
        for node in 0..ended.fleet.len() {
            let here = ended.fleet.node(node);
            assert!(here.dead_since.is_none() && here.memory_mib <= workload.node.memory_mib);
            hosted.extend(&here.vms);
        }
        hosted.sort_unstable();
        assert_eq!(hosted, (0..480).collect::<Vec<u32>>(), "{scheduler:?}");
        // Whoever moves VMs still does after the last has returned.
        let late = report.series.migrations.0.iter().skip(57).sum::<u64>();
        assert!(late > 0 || scheduler == Name::None, "{scheduler:?}");
    }
}

/// What relief is for goes on while nodes go.
#[test]
fn discovery_relieves_while_nodes_are_emptied_and_die() {
    for workload in [outages::drain(128, 10, 21, 4), outages::crash(128, 10, 21, 4)] {
        let (_, none) = of(&workload, Name::None, 21);
        let (_, ours) = of(&workload, Name::Discovery, 21);
        assert!(none.maintenances + none.deaths == 4);
        assert!(
            ours.violation_s < 0.1 * none.violation_s,
            "{}: {}",
            workload.name,
            ours.violation_s
        );
    }
}
