//! The guard port: one suite, run on the fake, and on the real client and guard with processes that stand in for QEMU; and what
//! only real processes can go through.
//!
//! The guard looks at every process that it sees, so each test of the real one runs in a process namespace of its own, with the
//! guard and the guests in it, made by `unshare` (root). The guard is this very program, started again. One test has real guests, by `hack/libvirt-test` and `virsh`.

#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests wait")]

#[path = "guard/libvirt.rs"]
mod libvirt;
#[path = "guard/node.rs"]
mod node;
#[path = "guard/real.rs"]
mod real;
#[path = "guard/suite.rs"]
mod suite;

use discovery::agent::fake_guard::FakeGuard;
use discovery::agent::ports::INPUT_QUEUE;
use tokio::sync::mpsc;

#[test]
fn the_fake_conforms() {
    let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
    let fake = FakeGuard::start(None);
    let port = fake.attach(sender);
    suite::run(&mut suite::Subject { port, inputs, hands: Box::new(fake) });
}
