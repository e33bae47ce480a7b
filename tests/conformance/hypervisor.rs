//! The hypervisor port: one suite, run on the fake, on libvirt's own test driver, and on real QEMU.
//!
//! The real one needs a libvirtd. `DISCOVERY_TEST_LIBVIRT_URI` names one that may be meddled with;
//! without it the test starts a private one by `hack/libvirt-test`, which needs root.
//! `DISCOVERY_TEST_GUEST` names a directory with `vmlinuz` and `initrd.img` of a guest that says hello on
//! its console (as `hack/guest` builds it): then a Linux is booted too.

// Waiting with a deadline is what these tests are made of; the ban is for the engine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

mod hypervisor {
    pub mod hands;
    pub mod qemu;
    pub mod subject;
    pub mod suite;
}

use std::path::Path;
use std::process::Command;

use discovery::agent::fake_hypervisor::FakeHypervisor;
use discovery::agent::ports::INPUT_QUEUE;
use discovery::engine::host::{Acceleration, HostInfo};
use discovery::engine::spec::Resources;
use discovery::libvirt::{Libvirt, LibvirtConfig};
use hypervisor::hands::{FakeHands, LibvirtHands};
use hypervisor::subject::Subject;
use hypervisor::{qemu, suite};
use tokio::sync::mpsc;

/// Where the real part finds its libvirt.
const URI: &str = "DISCOVERY_TEST_LIBVIRT_URI";

#[test]
fn the_fake_conforms() {
    let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
    let host = HostInfo {
        capacity: Resources::of(4, 8 << 30),
        storage: 100 << 30,
        acceleration: Acceleration::Emulation,
        hypervisor: "fake".to_owned(),
        boot_id: "boot-1".to_owned(),
    };
    let fake = std::sync::Arc::new(FakeHypervisor::start(host, sender));
    let mut subject = Subject::new(fake.clone(), inputs, Box::new(FakeHands(fake)));
    suite::run(&mut subject);
    suite::run_losing_the_daemon(&mut subject);
}

#[test]
fn libvirts_test_driver_conforms() {
    // It has no daemon to lose, and makes no files; the rest of the suite applies.
    let (mut subject, _state) = libvirt("test:///default");
    suite::run(&mut subject);
}

#[test]
fn qemu_conforms() {
    let Ok(uri) = std::env::var(URI) else { return beside_a_private_libvirtd("qemu_conforms") };
    let (mut subject, state) = libvirt(&uri);
    suite::run(&mut subject);
    suite::run_losing_the_daemon(&mut subject);
    qemu::run(&mut subject, state.path());
}

fn libvirt(uri: &str) -> (Subject, tempfile::TempDir) {
    let state = tempfile::tempdir().expect("a directory for the state");
    let mut config = LibvirtConfig::new(uri, state.path());
    config.file_roots = vec![state.path().join("import")];
    config.file_roots.extend(std::env::var_os(qemu::GUEST).map(Into::into));
    // Guests of the suite have no operating system that could hear their power button.
    config.call_timeout = std::time::Duration::from_secs(5);
    config.restart_grace = std::time::Duration::from_secs(1);
    let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
    let libvirt = Libvirt::start(config, sender, None).expect("starts without a daemon too");
    let hands = LibvirtHands::new(uri);
    (Subject::new(std::sync::Arc::new(libvirt), inputs, Box::new(hands)), state)
}

/// Runs one test of this very program again, inside `hack/libvirt-test`.
fn beside_a_private_libvirtd(test: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/libvirt-test");
    let this = std::env::current_exe().expect("this program has a path");
    let status = Command::new(script)
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("hack/libvirt-test starts");
    assert!(status.success(), "{test} beside a private libvirtd: {status}");
}
