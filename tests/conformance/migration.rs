//! Live migration behind the hypervisor's port: one suite, run on two fakes and on two real libvirtds with QEMU guests.
//!
//! The real pair lives on one host: each libvirtd in a mount namespace of its own, as a node would have it, joined by two
//! overlays (`hack/libvirt-test --pair`, which needs root). `DISCOVERY_TEST_GUEST` names a directory with `vmlinuz` and
//! `initrd.img` of a Linux guest (as `hack/guest` builds it): then one moves too, and is measured.

// Waiting with a deadline is what these tests are made of; the ban is for the engine.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[allow(dead_code, reason = "each suite takes what it needs")]
#[path = "hypervisor/hands.rs"]
mod hands;
#[path = "migration/pair.rs"]
mod pair;
#[path = "migration/real.rs"]
mod real;
#[allow(dead_code, reason = "each suite takes what it needs")]
#[path = "hypervisor/subject.rs"]
mod subject;
#[path = "migration/suite.rs"]
mod suite;

use std::path::Path;
use std::process::Command;

use pair::{Pair, SECOND};

#[test]
fn fakes_conform() {
    suite::run(&mut Pair::of_fakes());
}

#[test]
fn libvirt_conforms() {
    if std::env::var_os(SECOND).is_none() {
        return beside_a_private_pair("libvirt_conforms");
    }
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let mut pair = Pair::of_libvirts();
    suite::run(&mut pair);
    real::run(&mut pair);
}

/// Runs one test of this very program again, inside `hack/libvirt-test --pair`.
fn beside_a_private_pair(test: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("hack/libvirt-test");
    let this = std::env::current_exe().expect("this program has a path");
    let status = Command::new(script)
        .arg("--pair")
        .arg(this)
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("hack/libvirt-test starts");
    assert!(status.success(), "{test} beside a private pair of libvirtds: {status}");
}
