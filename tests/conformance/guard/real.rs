//! What only a real guard can go through. Each test is alone in a process namespace.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use discovery::agent::clock;
use discovery::agent::ours::uuid_of;
use discovery::agent::ports::Guard;
use discovery::engine::time::Instant;
use discovery::guard::wire::{Inbox, Reply};
use rustix::process::Signal;

use super::node::{Node, Process, alone, end_of, id, subject, this_again};
use super::suite::{self, Subject, allowance, until};

/// How long a lapse may take here: the machine that tests run on is shared. What it takes is printed.
const IN_TIME: Duration = Duration::from_secs(2);
/// Set in an agent that a test starts: the folder of its guard.
const AGENT: &str = "DISCOVERY_TEST_GUARD_AGENT";
/// How long that agent allows.
const AGENT_ALLOWS: Duration = Duration::from_secs(3);
/// Set in a caller that is not root.
const STRANGER: &str = "DISCOVERY_TEST_GUARD_STRANGER";

#[test]
fn the_guard_conforms() {
    if alone("real::the_guard_conforms") {
        suite::run(&mut subject(Node::new(None)));
    }
}

/// Arms the guard, says so, and waits for its end. Only when a test starts it.
#[test]
fn agent_process() {
    let Some(folder) = std::env::var_os(AGENT).map(PathBuf::from) else { return };
    let (sender, inputs) = tokio::sync::mpsc::channel(64);
    let socket = folder.join("guard.sock");
    let client = discovery::guard::client::GuardClient::start(socket, sender).expect("a thread");
    let until = clock::now() + AGENT_ALLOWS;
    let hands = Box::new(discovery::agent::fake_guard::FakeGuard::start(None));
    let port = std::sync::Arc::new(client);
    let mut subject = Subject { port: port.clone(), inputs, hands };
    port.allow(allowance(7, until));
    subject.hears_armed(&allowance(7, until));
    fs::write(folder.join("armed.new"), until.0.to_string()).expect("room");
    fs::rename(folder.join("armed.new"), folder.join("armed")).expect("the same folder");
    loop {
        std::thread::park();
    }
}

fn armed_by_an_agent(node: &Node) -> (Process, Instant) {
    let mut agent = this_again("real::agent_process");
    let agent = agent.env(AGENT, node.folder.path()).spawn().expect("it starts");
    until("the agent has armed the guard", || node.path("armed").exists());
    let text = fs::read_to_string(node.path("armed")).expect("whole");
    (Process(agent), Instant(text.parse().expect("microseconds")))
}

fn in_time(what: &str, ended: Instant, deadline: Instant) {
    assert!(ended >= deadline, "{what}: before its time");
    let late = ended.since(deadline);
    println!("{what}: ended {:.1} ms after the deadline", late.as_secs_f64() * 1e3);
    assert!(late < IN_TIME, "{what}: {late:?} after the deadline");
}

#[test]
fn vms_end_at_the_deadline_of_an_agent_that_hangs_and_nobody_elses() {
    if !alone("real::vms_end_at_the_deadline_of_an_agent_that_hangs_and_nobody_elses") {
        return;
    }
    let mut node = Node::new(None);
    for number in 0..10 {
        node.run(&format!("vm{number}"));
    }
    // Its process runs, and libvirt has written nothing of it yet: its disk's place says whose it is.
    let starting = uuid_of(&id("starting")).to_string();
    node.start("starting", &starting, &["-drive", "file=/state/disks/0b1c/starting-0/root.qcow2"]);
    // Somebody's own: another uuid; and one that our metadata was copied to, and our disk's place.
    node.start("foreign", "01020304-0506-4708-890a-0b0c0d0e0f10", &[]);
    let copied = ["-drive", "file=/state/disks/0b1c/starting-0/root.qcow2"];
    node.start("copy", "01020304-0506-4708-890a-0b0c0d0e0f11", &copied);
    node.write_status("copy");
    let text = fs::read_to_string(node.path("qemu/copy.xml")).expect("written");
    let text =
        text.replace(&uuid_of(&id("copy")).to_string(), "01020304-0506-4708-890a-0b0c0d0e0f11");
    fs::write(node.path("qemu/copy.xml"), text).expect("room");
    // A status file of a VM of ours that has ended, and whose pid somebody else has now.
    let pid = node.guests["foreign"].pid().as_raw_nonzero().to_string();
    node.write_status("vm0");
    let text = fs::read_to_string(node.path("qemu/vm0.xml")).expect("written");
    let own = node.guests["vm0"].pid().as_raw_nonzero().to_string();
    let stale = text.replace(&format!("pid='{own}'"), &format!("pid='{pid}'"));
    fs::write(node.path("qemu/stale.xml"), stale).expect("room");

    node.start_guard();
    let (agent, deadline) = armed_by_an_agent(&node);
    agent.signal(Signal::STOP);
    let ours = node.guests.iter().filter(|(name, _)| !["foreign", "copy"].contains(&name.as_str()));
    let held: Vec<_> = ours.map(|(name, guest)| (name.clone(), guest.held())).collect();
    assert!(clock::now() < deadline, "the machine is too slow for this test");
    let last = held.iter().map(|(_, held)| end_of(held)).max().expect("there are some");
    assert_eq!(held.len(), 11);
    in_time("11 guests of an agent that hangs", last, deadline);

    // What starts during the lapse ends, whatever libvirt has written.
    for name in ["late", "later"] {
        match name {
            "late" => node.run(name),
            _ => node.start(name, &starting, &copied),
        }
        let began = clock::now();
        let lived = end_of(&node.guests[name].held()).since(began);
        println!(
            "a guest that started during the lapse lived for {:.1} ms",
            lived.as_secs_f64() * 1e3
        );
        assert!(lived < IN_TIME, "{name} lived for {lived:?}");
    }
    for name in ["foreign", "copy"] {
        assert!(!node.guests.get_mut(name).expect("started").ended(), "{name} is not ours to end");
    }
}

#[test]
fn a_guard_that_is_killed_keeps_the_deadline_when_it_begins_anew() {
    if !alone("real::a_guard_that_is_killed_keeps_the_deadline_when_it_begins_anew") {
        return;
    }
    let mut node = Node::new(None);
    node.run("a");
    node.run("b");
    node.start_guard();
    let (agent, deadline) = armed_by_an_agent(&node);
    drop(agent);
    let held = [node.guests["a"].held(), node.guests["b"].held()];
    // SIGKILL, and anew before the deadline.
    node.guard = None;
    node.start_guard();
    assert!(clock::now() < deadline, "the machine is too slow for this test");
    in_time(
        "guests of a guard that was restarted",
        end_of(&held[0]).max(end_of(&held[1])),
        deadline,
    );
    // And anew after it.
    node.guard = None;
    node.run("c");
    let held = node.guests["c"].held();
    assert!(!node.guests.get_mut("c").expect("started").ended());
    let began = clock::now();
    node.start_guard();
    println!("a lapsed guard that begins anew: ended after {:?}", end_of(&held).since(began));
}

#[test]
fn a_guard_that_hung_ends_an_old_leases_vms_before_a_new_one_counts() {
    if !alone("real::a_guard_that_hung_ends_an_old_leases_vms_before_a_new_one_counts") {
        return;
    }
    let mut node = Node::new(None);
    node.start_guard();
    let (port, inputs) = node.connect();
    let hands = Box::new(discovery::agent::fake_guard::FakeGuard::start(None));
    let mut subject = Subject { port: port.clone(), inputs, hands };
    for round in 0..3 {
        let name = format!("vm{round}");
        let old = allowance(2 * round, clock::now() + Duration::from_secs(1));
        port.allow(old.clone());
        subject.hears_armed(&old);
        node.run(&name);
        node.guard.as_ref().expect("started").signal(Signal::STOP);
        until("the deadline", || old.is_over(clock::now()));
        assert!(!node.guests.get_mut(&name).expect("started").ended(), "it did not hang");
        let new = allowance(2 * round + 1, clock::now() + Duration::from_secs(600));
        port.allow(new.clone());
        node.guard.as_ref().expect("started").signal(Signal::CONT);
        subject.hears_armed(&new);
        until("the old lease's VM has ended", || {
            node.guests.get_mut(&name).expect("started").ended()
        });
    }
}

#[test]
fn the_watchdog_starves_while_a_lapsed_vm_is_left() {
    if !alone("real::the_watchdog_starves_while_a_lapsed_vm_is_left") {
        return;
    }
    let timeout = Duration::from_secs(2);
    let mut node = Node::new(Some(timeout));
    let fifo = node.path("watchdog");
    let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO");
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let open = fs::OpenOptions::new().read(true).custom_flags(nonblock).open(&fifo);
    let mut device = open.expect("it is there");
    let mut fed = move || {
        let mut bytes = [0; 4096];
        match device.read(&mut bytes) {
            Ok(read) => bytes[..read].to_vec(),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Vec::new(),
            Err(error) => panic!("{error}"),
        }
    };
    node.powerless = true;
    node.run("a");
    node.start_guard();
    let (port, inputs) = node.connect();
    let hands = Box::new(discovery::agent::fake_guard::FakeGuard::start(None));
    let mut subject = Subject { port: port.clone(), inputs, hands };
    assert_eq!(subject.hears_connected(), Some(timeout));
    until("it is fed", || fed().contains(&0));

    // The guest is another user's, and the guard may not signal those: a VM that cannot be ended.
    let deadline = clock::now() + Duration::from_secs(1);
    port.allow(allowance(1, deadline));
    subject.hears_armed(&allowance(1, deadline));
    until("the deadline", || clock::now() > deadline + Duration::from_millis(200));
    fed();
    until("longer than the time-out", || {
        assert!(fed().is_empty(), "a VM of ours is left");
        clock::now().since(deadline) > timeout + Duration::from_millis(500)
    });
    assert!(!node.guests.get_mut("a").expect("started").ended(), "the fault had no effect");
    node.guests.clear();
    subject.hears_lapsed(1);
    until("it is fed again", || fed().contains(&0));
    let guard = node.guard.as_ref().expect("started");

    // An orderly end without a VM stops the device, and with one does not.
    guard.signal(Signal::TERM);
    until("it has ended", || node.guard.as_mut().expect("started").ended());
    let mut all = Vec::new();
    until("the device is stopped", || {
        all.extend(fed());
        all.contains(&b'V')
    });
    node.start_guard();
    port.allow(allowance(2, None));
    subject.hears_armed(&allowance(2, None));
    node.run("b");
    until("it is fed", || fed().contains(&0));
    node.guard.as_ref().expect("started").signal(Signal::TERM);
    until("it has ended", || node.guard.as_mut().expect("started").ended());
    assert!(!fed().contains(&b'V'), "a VM of ours runs: the device is left on");
    drop(port);
}

fn refusal(mut stream: UnixStream) -> String {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("an answer, and the end");
    let mut inbox = Inbox::default();
    inbox.push(&bytes);
    while let Some(reply) = inbox.take::<Reply>().expect("frames") {
        if let Reply::Refused(why) = reply {
            return why;
        }
    }
    panic!("closed without a word");
}

#[test]
fn what_is_no_request_is_answered_and_closed() {
    if !alone("real::what_is_no_request_is_answered_and_closed") {
        return;
    }
    let mut node = Node::new(None);
    node.start_guard();
    until("the guard listens", || UnixStream::connect(node.path("guard.sock")).is_ok());
    let mode = fs::metadata(node.path("guard.sock")).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for (bytes, word) in [(&[0xff; 8][..], "4096"), (&[3, 0, 0, 0, 9, 9, 9], "version 9")] {
        let mut stream = UnixStream::connect(node.path("guard.sock")).expect("it listens");
        stream.write_all(bytes).expect("it reads");
        let why = refusal(stream);
        assert!(why.contains(word), "{why}");
    }
}

/// Calls as somebody else. Only when a test starts it.
#[test]
fn stranger_process() {
    let Some(folder) = std::env::var_os(STRANGER).map(PathBuf::from) else { return };
    let socket = folder.join("guard.sock");
    println!("\nrefusal: {}", refusal(UnixStream::connect(socket).expect("anybody may connect")));
}

#[test]
fn a_caller_that_is_not_root_is_refused() {
    if !alone("real::a_caller_that_is_not_root_is_refused") {
        return;
    }
    let mut node = Node::new(None);
    let open = |path: PathBuf, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("ours");
    };
    open(node.folder.path().to_owned(), 0o755);
    node.start_guard();
    until("the guard listens", || UnixStream::connect(node.path("guard.sock")).is_ok());
    let call = |node: &Node| {
        let mut stranger = this_again("real::stranger_process");
        stranger.env(STRANGER, node.folder.path()).uid(65534).gid(65534).current_dir("/");
        let output = stranger.stderr(Stdio::null()).output().expect("it starts");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (connected, _) = call(&node);
    assert!(!connected, "the socket's mode keeps others out");
    // Even if somebody opens the socket to all.
    open(node.path("guard.sock"), 0o666);
    let (connected, said) = call(&node);
    assert!(connected && said.contains("refusal: only root"), "{said}");
}
