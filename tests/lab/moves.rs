//! Live migration of real guests: a node in maintenance, one that is no longer, one that is overloaded, and a VM that
//! cannot leave. Every guest says five times a second which boot it is, so that a test sees that it is the same one, and
//! how long it stood still. (More often, and emulated guests are busy with nothing else.)
#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "how long guests stand still is measured, and asserted of none"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::world::{Domains, Member, World};

/// Six guests are moved within this, also by a busy machine; and one that is judged by its load, a minute after its start.
const LONG: Duration = Duration::from_secs(300);
/// A guest that beats.
const BEATS: &str = "guest.beat=200";

/// What a guest has said on its consoles, on whichever node.
#[derive(Debug, Default)]
struct Heard {
    /// Which boots it said it was.
    boots: BTreeSet<String>,
    /// The last number, and when it was heard.
    last: Option<(u64, Instant)>,
    /// The longest time between two numbers.
    longest: Duration,
}

/// Reads the consoles of an environment's VMs on all nodes, as they are written.
struct Consoles {
    roots: Vec<String>,
    read: BTreeMap<String, usize>,
    vms: BTreeMap<String, Heard>,
}

impl Consoles {
    fn of(world: &World, name: &str) -> Self {
        let uid = world.uid(name);
        let root = |node: String| {
            let init = world.lab.node(&node).ok().and_then(|node| node.init());
            // The node's own file system, from outside: nothing has to run on the node.
            format!("/proc/{}/root/var/lib/discovery/disks/{uid}", init.expect("the node is on"))
        };
        let roots = world.lab.nodes().into_iter().map(root).collect();
        Self { roots, read: BTreeMap::new(), vms: BTreeMap::new() }
    }

    /// Reads what is new.
    fn listen(&mut self) {
        for root in &self.roots {
            let Ok(entries) = std::fs::read_dir(root) else { continue };
            for entry in entries.flatten() {
                let file = entry.path().join("console.log");
                let Ok(text) = std::fs::read(&file) else { continue };
                let read = self.read.entry(file.to_string_lossy().into_owned()).or_default();
                let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
                let new = String::from_utf8_lossy(&text[(*read).min(whole)..whole]).into_owned();
                *read = whole;
                let vm = entry.file_name().to_string_lossy().into_owned();
                self.vms.entry(vm).or_default().take(&new);
            }
        }
    }

    /// Listens until something holds.
    fn listen_until(&mut self, world: &World, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut asked = Instant::now();
        world.until_within(LONG, what, || {
            // Often, for the times to be true; what is waited for costs a kubectl.
            while asked.elapsed() < Duration::from_secs(1) {
                self.listen();
                std::thread::yield_now();
            }
            asked = Instant::now();
            holds(self)
        });
    }

    fn number(&self, vm: &str) -> u64 {
        self.vms.get(vm).and_then(|heard| heard.last).map_or(0, |(number, _)| number)
    }

    fn numbers(&self) -> BTreeMap<String, u64> {
        self.vms.keys().map(|vm| (vm.clone(), self.number(vm))).collect()
    }

    /// Every guest goes on after these numbers.
    fn all_go_on(&mut self, world: &World) {
        let before = self.numbers();
        self.listen_until(world, "every guest to go on", |now| {
            before.iter().all(|(vm, number)| now.number(vm) > *number + 5)
        });
    }
}

impl Heard {
    fn take(&mut self, lines: &str) {
        for line in lines.lines() {
            let mut words = line.split_whitespace();
            let (Some("beat"), Some(number), Some(boot)) =
                (words.next(), words.next(), words.next())
            else {
                continue;
            };
            let Ok(number) = number.parse() else { continue };
            let now = Instant::now();
            if let Some((_, last)) = self.last {
                self.longest = self.longest.max(now - last);
            }
            self.last = Some((number, now));
            self.boots.insert(boot.to_owned());
        }
    }
}

/// However a test ends, the next one finds the nodes open.
struct Calm<'a>(&'a World);

impl Drop for Calm<'_> {
    fn drop(&mut self) {
        for node in self.0.lab.nodes() {
            // In a test that fails there is nobody to tell.
            let _ = self.0.cluster.kubectl(&["uncordon", &node], "");
            let patch = r#"{"spec":{"maintenance":false}}"#;
            let _ =
                self.0.cluster.kubectl(&["patch", "pn", &node, "--type=merge", "-p", patch], "");
        }
    }
}

fn maintain(world: &World, node: &str, maintenance: bool) {
    let patch = format!(r#"{{"spec":{{"maintenance":{maintenance}}}}}"#);
    world.cluster.must(&["patch", "pn", node, "--type=merge", "-p", &patch], "");
}

/// The status and the message of a node's condition.
fn condition(world: &World, node: &str, name: &str) -> (String, String) {
    let path =
        |field: &str| format!("jsonpath={{.status.conditions[?(@.type==\"{name}\")].{field}}}");
    let ask = |field: &str| world.cluster.must(&["get", "pn", node, "-o", &path(field)], "");
    (ask("status"), ask("message"))
}

/// All of an environment's VMs on n1, by cordoning the others meanwhile.
fn all_on_n1(world: &World, name: &str, member: Member<'_>) -> Domains {
    for node in ["n2", "n3"] {
        world.cluster.must(&["cordon", node], "");
        world.until("the node to know", || condition(world, node, "Schedulable").0 == "False");
    }
    world.apply_members(name, &[member], "");
    world.until_ready(name);
    for node in ["n2", "n3"] {
        world.cluster.must(&["uncordon", node], "");
        world.until("the node to know", || condition(world, node, "Schedulable").0 == "True");
    }
    let domains = world.domains();
    assert!(domains.values().all(|(node, _)| node == "n1"), "{domains:?}");
    domains
}

/// A guest is elsewhere than on n1, by its handler: while it moves there is a process of it at both ends.
fn has_left(world: &World, name: &str) -> bool {
    let vms = world.ve(name).unwrap_or_default()["status"]["vms"].clone();
    let elsewhere = |vm: &Value| vm["node"].is_string() && vm["node"] != "n1";
    vms.as_array().is_some_and(|vms| vms.iter().any(elsewhere))
}

fn on(domains: &Domains, node: &str) -> usize {
    domains.values().filter(|(on, _)| on == node).count()
}

fn tell(what: &str, consoles: &Consoles) {
    let still: Vec<String> = consoles
        .vms
        .iter()
        .map(|(vm, heard)| format!("{vm} {} ms", heard.longest.as_millis()))
        .collect();
    eprintln!("{what}: longest silence of each guest: {}", still.join(", "));
}

#[test]
fn a_node_in_maintenance_is_emptied_by_live_migration_of_its_six_guests() {
    let world = World::new("drain");
    let _calm = Calm(&world);
    let six = Member { replicas: 6, does: BEATS, ..Member::default() };
    all_on_n1(&world, "six", six);
    let mut consoles = Consoles::of(&world, "six");
    consoles.listen_until(&world, "six guests to beat", |now| {
        now.vms.len() == 6 && now.vms.values().all(|heard| heard.last.is_some_and(|(n, _)| n > 5))
    });
    let began = Instant::now();
    maintain(&world, "n1", true);
    consoles
        .listen_until(&world, "n1 to be empty", |_| condition(&world, "n1", "Drained").0 == "True");
    eprintln!("drain of six guests: {:.1} s", began.elapsed().as_secs_f64());
    consoles.all_go_on(&world);
    let after = world.domains();
    let ready = world.ready("six");
    let uid = world.uid("six");
    // One of the other nodes may be relieved just then: on its way a VM has two.
    world.until("each guest's disk where it is, and nowhere else", || world.disks(&uid) == 6);
    world.until("an Event to tell of a move", || world.was_told("six", "moved from n1 to"));
    maintain(&world, "n1", false);
    tell("drain of six guests", &consoles);
    assert_eq!((after.len(), on(&after, "n1")), (6, 0), "{after:?}");
    assert!(ready.is_some_and(|(status, _, _)| status == "True"));
    for (vm, heard) in &consoles.vms {
        assert_eq!(heard.boots.len(), 1, "{vm} is the boot that it was: {heard:?}");
    }
    world.delete("six");
}

#[test]
fn a_maintenance_that_is_called_off_leaves_the_guests_that_have_not_left() {
    let world = World::new("calledoff");
    let _calm = Calm(&world);
    let six = Member { replicas: 6, does: BEATS, ..Member::default() };
    let before = all_on_n1(&world, "half", six);
    let mut consoles = Consoles::of(&world, "half");
    consoles.listen_until(&world, "six guests to beat", |now| {
        now.vms.len() == 6 && now.vms.values().all(|heard| heard.last.is_some_and(|(n, _)| n > 5))
    });
    maintain(&world, "n1", true);
    consoles.listen_until(&world, "a guest to have left", |_| has_left(&world, "half"));
    maintain(&world, "n1", false);
    let settled = || {
        let vms = world.ve("half").unwrap_or_default()["status"]["vms"].clone();
        let run = vms.as_array().is_some_and(|vms| vms.iter().all(|vm| vm["state"] == "Running"));
        run && condition(&world, "n1", "Drained").0.is_empty()
    };
    consoles.listen_until(&world, "what moves to be called off", |_| settled());
    consoles.all_go_on(&world);
    let after = world.domains();
    tell("drain called off", &consoles);
    let stayed = on(&after, "n1");
    assert!((1..6).contains(&stayed), "some left and some stayed: {after:?}");
    for (domain, place) in after.iter().filter(|(_, (node, _))| node == "n1") {
        assert_eq!(before.get(domain), Some(place), "what stayed was not touched");
    }
    for (vm, heard) in &consoles.vms {
        assert_eq!(heard.boots.len(), 1, "{vm} is the boot that it was: {heard:?}");
    }
    world.delete("half");
}

#[test]
fn a_guest_that_may_not_leave_stays_and_both_pages_say_why() {
    let world = World::new("bound");
    let _calm = Calm(&world);
    world.apply("bound", 1, "  placement:\n  - fence: {members: [web], nodes: {names: [n1]}}\n");
    world.until_ready("bound");
    let (domain, node, pid) = world.one("bound-web-0");
    assert_eq!(node, "n1");
    maintain(&world, "n1", true);
    let told = || {
        let (drained, why) = condition(&world, "n1", "Drained");
        drained == "False" && why.contains(&domain) && why.contains("cannot leave")
    };
    world.until("the node to say what it waits for", told);
    let reason = || world.vm("bound", "bound-web-0")["message"].to_string();
    world.until("the environment to say it too", || reason().contains("cannot leave"));
    let after = world.one("bound-web-0");
    maintain(&world, "n1", false);
    assert_eq!(after, (domain, "n1".to_owned(), pid));
    world.until("the reason to go", || !reason().contains("cannot leave"));
    world.delete("bound");
}

#[test]
fn a_node_made_busy_by_its_guests_is_relieved_by_live_migration() {
    let world = World::new("busy");
    let _calm = Calm(&world);
    // Three guests that each want a processor, on a node of two.
    let burn = format!("guest.burn=1 {BEATS}");
    let three = Member { replicas: 3, does: &burn, ..Member::default() };
    all_on_n1(&world, "busy", three);
    let mut consoles = Consoles::of(&world, "busy");
    let began = Instant::now();
    consoles.listen_until(&world, "a guest to leave", |_| has_left(&world, "busy"));
    eprintln!("overload relieved after {:.1} s", began.elapsed().as_secs_f64());
    consoles.all_go_on(&world);
    tell("overload", &consoles);
    world.until("an Event to tell of the move, and why", || world.was_told("busy", "(load)"));
    for (vm, heard) in &consoles.vms {
        assert_eq!(heard.boots.len(), 1, "{vm} is the boot that it was: {heard:?}");
    }
    world.delete("busy");
}
