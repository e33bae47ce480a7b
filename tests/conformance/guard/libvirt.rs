//! Real guests of a real libvirtd, which hangs when it matters.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use discovery::agent::clock;
use discovery::agent::fake_guard::FakeGuard;
use discovery::agent::ours::{XMLNS, uuid_of};
use discovery::agent::ports::Guard;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};

use super::node::{Node, RUN_DIR, end_of, id};
use super::suite::{Subject, allowance, until};

/// Set by `hack/libvirt-test`.
const URI: &str = "DISCOVERY_TEST_LIBVIRT_URI";
/// The same.
const DAEMON: &str = "DISCOVERY_TEST_LIBVIRTD_PID_FILE";
const STATUS: &str = "/run/libvirt/qemu";
const FOREIGN: &str = "01020304-0506-4708-890a-0b0c0d0e0f10";

fn virsh(arguments: &[&str]) -> String {
    let output = Command::new("virsh").args(arguments).output().expect("virsh is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{arguments:?}: {said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    said.trim().to_owned()
}

/// A guest that finds nothing to boot, and runs.
fn start(node: &Node, name: &str, uuid: &str) -> Pid {
    let VmIdText { ve, member, index } = VmIdText::of(name);
    let text = format!(
        "<domain type='qemu'><name>{name}</name><uuid>{uuid}</uuid><metadata><discovery:vm xmlns:discovery='{XMLNS}' \
         namespace='default' name='x' uid='{ve}' member='{member}' index='{index}' epoch='1'/></metadata>\
         <memory unit='MiB'>64</memory><vcpu>1</vcpu><os><type>hvm</type></os><devices/></domain>"
    );
    let file = node.path(&format!("{name}.xml"));
    fs::write(&file, text).expect("room");
    virsh(&["define", &file.display().to_string()]);
    virsh(&["start", name]);
    let pid = fs::read_to_string(Path::new(STATUS).join(format!("{name}.pid"))).expect("it runs");
    Pid::from_raw(pid.trim().parse().expect("a number")).expect("not zero")
}

struct VmIdText {
    ve: String,
    member: String,
    index: String,
}

impl VmIdText {
    fn of(name: &str) -> Self {
        let id = id(name);
        Self { ve: id.ve.to_string(), member: id.member.to_string(), index: id.index.to_string() }
    }
}

#[test]
fn real_guests_end_while_libvirtd_hangs() {
    if std::env::var_os(URI).is_none() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/libvirt-test");
        let this = std::env::current_exe().expect("this program has a path");
        let test = ["--exact", "libvirt::real_guests_end_while_libvirtd_hangs", "--nocapture"];
        let status = Command::new(script).arg(this).args(test).env(RUN_DIR, STATUS).status();
        assert!(status.expect("hack/libvirt-test starts").success());
        return;
    }
    let mut node = Node::new(None);
    let hold = |pid| pidfd_open(pid, PidfdFlags::empty()).expect("it runs");
    let ours: Vec<_> =
        ["one", "two"].map(|name| hold(start(&node, name, &uuid_of(&id(name)).to_string()))).into();
    // A copy of one of ours: somebody's own.
    let copy = start(&node, "copy", FOREIGN);

    node.start_guard();
    let (port, inputs) = node.connect();
    let hands = Box::new(FakeGuard::start(None));
    let mut subject = Subject { port: port.clone(), inputs, hands };
    subject.hears_connected();
    let daemon = fs::read_to_string(std::env::var_os(DAEMON).expect("told")).expect("it runs");
    let daemon = Pid::from_raw(daemon.trim().parse().expect("a number")).expect("not zero");
    kill_process(daemon, Signal::STOP).expect("ours");
    let deadline = clock::now() + Duration::from_secs(2);
    port.allow(allowance(1, deadline));
    let ended = ours.iter().map(end_of).max().expect("two");
    let at = subject.hears_lapsed(2);
    assert!(ended >= deadline);
    println!(
        "2 real guests ended {:.1} ms after the deadline, told as {:.1} ms",
        ended.since(deadline).as_secs_f64() * 1e3,
        at.since(deadline).as_secs_f64() * 1e3
    );
    let state =
        fs::read_to_string(format!("/proc/{daemon}/stat", daemon = daemon.as_raw_nonzero()));
    let state = state.expect("it is there");
    assert!(state.contains(") T "), "libvirtd did not hang: {state}");
    kill_process(daemon, Signal::CONT).expect("ours");
    for name in ["one", "two"] {
        until("libvirt has noticed", || virsh(&["domstate", name]) == "shut off");
    }
    assert_eq!(virsh(&["domstate", "copy"]), "running");
    assert!(rustix::process::test_kill_process(copy).is_ok(), "not ours to end");

    // libvirtd is back, and somebody starts one: it does not live.
    let started = Command::new("virsh").args(["start", "one"]).status().expect("virsh");
    println!("a start while lapsed: {started}");
    until("it is ended", || virsh(&["domstate", "one"]) == "shut off");
    let ended = subject.hears("more ended", |report| match report {
        discovery::engine::guard::GuardInput::Lapsed { ended, .. } if *ended > 2 => Some(*ended),
        _ => None,
    });
    assert_eq!(ended, 3);
    virsh(&["destroy", "copy"]);
}
