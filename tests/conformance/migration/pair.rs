//! Two nodes with a hypervisor each, that can reach one another.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use discovery::agent::fake_hypervisor::{FakeHypervisor, FakeWire};
use discovery::agent::ports::{Hypervisor, INPUT_QUEUE, PeerIdentity, Peers};
use discovery::engine::effect::HypervisorCommand;
use discovery::engine::host::{Acceleration, HostInfo};
use discovery::engine::id::NodeName;
use discovery::engine::input::{HypervisorInput, Input};
use discovery::engine::spec::{Resources, VmDefinition};
use discovery::libvirt::{Libvirt, LibvirtConfig};
use discovery::net::identity::Identity;
use discovery::net::{Overlay, OverlayConfig};
use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use crate::hands::{FakeHands, LibvirtHands};
use crate::subject::Subject;

/// Names the file with a process of the second node.
pub const SECOND: &str = "DISCOVERY_TEST_SECOND_PID_FILE";
/// The state directory of each node.
pub const STATE: &str = "/run/node/state";
/// Where each node's images for tests are.
pub const IMPORT: &str = "/run/node/import";

/// See the head of this file.
pub struct Pair {
    pub a: Subject,
    pub b: Subject,
    /// What holds migrations up, in fakes.
    pub wire: Option<FakeWire>,
    /// The second node's root, as seen from the first.
    pub second: PathBuf,
    overlays: Vec<Arc<Overlay>>,
    _runtimes: Vec<Runtime>,
}

impl Drop for Pair {
    fn drop(&mut self) {
        // Hypervisors end with their subjects; overlays are told, so that nothing is carried any more.
        for overlay in self.overlays.drain(..) {
            drop(overlay);
        }
    }
}

pub fn names() -> [NodeName; 2] {
    [NodeName::from("a"), NodeName::from("b")]
}

impl Pair {
    pub fn of_fakes() -> Self {
        let wire = FakeWire::default();
        let [a, b] = names().map(|name| {
            let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
            let host = HostInfo {
                capacity: Resources::of(4, 8 << 30),
                storage: 100 << 30,
                acceleration: Acceleration::Emulation,
                hypervisor: "fake".to_owned(),
                boot_id: format!("boot-{name}"),
            };
            let fake = Arc::new(FakeHypervisor::start_on(&wire, name, host, sender));
            Subject::new(fake.clone(), inputs, Box::new(FakeHands(fake)))
        });
        let (overlays, runtimes) = (Vec::new(), Vec::new());
        Self { a, b, wire: Some(wire), second: PathBuf::new(), overlays, _runtimes: runtimes }
    }

    pub fn of_libvirts() -> Self {
        let pid_file = PathBuf::from(std::env::var_os(SECOND).expect("set by hack/libvirt-test"));
        let pid = std::fs::read_to_string(&pid_file).expect("the second node runs");
        let namespace = PathBuf::from(format!("/proc/{}/ns/mnt", pid.trim()));
        let second = pid_file.parent().expect("a directory").to_owned();
        let [name_a, name_b] = names();
        let a = Node::start(&name_a, "qemu:///system");
        let b = inside(&namespace, move || Node::start(&name_b, "qemu:///system"));
        a.overlay.pin(b.identity.clone());
        b.overlay.pin(a.identity.clone());
        let uri_b = format!(
            "qemu+unix:///system?socket={}",
            second.join("run/libvirt/libvirt-sock").display()
        );
        let overlays = vec![a.overlay, b.overlay];
        let runtimes = vec![a.runtime, b.runtime];
        let a = Subject::new(a.libvirt, a.inputs, Box::new(LibvirtHands::new("qemu:///system")));
        let b = Subject::new(b.libvirt, b.inputs, Box::new(LibvirtHands::new(&uri_b)));
        let mut pair = Self { a, b, wire: None, second, overlays, _runtimes: runtimes };
        for node in [&mut pair.a, &mut pair.b] {
            node.expect("a full pass", |input| {
                matches!(input, HypervisorInput::Domains(_)).then_some(())
            });
        }
        pair
    }

    /// A file of the second node, as this process sees it.
    pub fn there(&self, path: &Path) -> PathBuf {
        self.second.join(path.strip_prefix("/").expect("absolute"))
    }
}

/// Where a VM's files are, on whichever node.
pub fn dir(vm: &VmDefinition) -> PathBuf {
    Path::new(STATE).join("disks").join(vm.id.ve.as_str()).join("web-0")
}

/// Hands commands on from a thread of a node's own: what they start is where that thread is.
struct Resident(Mutex<Sender<(u64, HypervisorCommand)>>);

impl Resident {
    fn new(libvirt: Libvirt) -> Self {
        let (sender, commands) = channel::<(u64, HypervisorCommand)>();
        std::thread::spawn(move || {
            for (request, command) in commands {
                libvirt.submit(request, command);
            }
        });
        Self(Mutex::new(sender))
    }
}

impl Hypervisor for Resident {
    fn submit(&self, request: u64, command: HypervisorCommand) {
        let sender = self.0.lock().expect("nobody panics with it");
        sender.send((request, command)).expect("its thread lives as long");
    }
}

/// A node's rims.
struct Node {
    libvirt: Arc<Resident>,
    overlay: Arc<Overlay>,
    identity: PeerIdentity,
    inputs: mpsc::Receiver<Input>,
    runtime: Runtime,
}

impl Node {
    /// All its threads are in the mount namespace of the one that calls.
    fn start(name: &NodeName, uri: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
        let (strangers, _) = mpsc::channel(8);
        let config = OverlayConfig {
            node: name.clone(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            identity: Identity::ephemeral().expect("a key"),
        };
        let overlay = {
            let _inside = runtime.enter();
            Overlay::start(config, sender.clone(), strangers).expect("it starts")
        };
        let overlay = Arc::new(overlay);
        let identity = PeerIdentity {
            node: name.clone(),
            key: overlay.public_key(),
            addresses: vec![overlay.local_addr().expect("an address")],
        };
        let mut config = LibvirtConfig::new(uri, STATE);
        config.file_roots = vec![IMPORT.into()];
        config.call_timeout = std::time::Duration::from_secs(10);
        config.restart_grace = std::time::Duration::from_secs(1);
        std::fs::create_dir_all(IMPORT).expect("a directory for images");
        let libvirt = Libvirt::start(config, sender, Some(overlay.clone())).expect("starts");
        Self { libvirt: Arc::new(Resident::new(libvirt)), overlay, identity, inputs, runtime }
    }
}

/// Runs something on a thread in another mount namespace; threads that it starts stay there.
pub fn inside<T: Send + 'static>(namespace: &Path, act: impl FnOnce() -> T + Send + 'static) -> T {
    let namespace = File::open(namespace).expect("the second node's namespace");
    let thread = std::thread::spawn(move || {
        // A thread that shares its directory with others may not leave them.
        unshare(CloneFlags::CLONE_FS).expect("a directory of its own");
        setns(&namespace, CloneFlags::CLONE_NEWNS).expect("enters the second node");
        act()
    });
    thread.join().expect("the second node starts")
}

impl Pair {
    /// Holds migrations between fakes up; real ones are slow by what they have to move.
    pub fn hold(&self, hold: bool) {
        if let Some(wire) = &self.wire {
            wire.hold(hold);
        }
    }

    /// Runs a VM at `a` whose data disk takes long to move, where disks are real.
    pub fn run_with_much_to_move(&mut self, vm: &VmDefinition) {
        self.a.run(vm);
        if self.wire.is_some() {
            return;
        }
        self.stop(vm);
        qemu_io(&dir(vm).join("data.qcow2"), "write -P 0x5a 0 48M");
        self.a.run(vm);
    }

    pub fn stop(&mut self, vm: &VmDefinition) {
        let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
        self.a.command(stop).expect("stopped");
    }

    /// Waits until a migration from `a` is under way.
    pub fn under_way(&mut self, vm: &VmDefinition) {
        if self.wire.is_none() {
            self.a.expect("news of the migration", |input| match input {
                HypervisorInput::Progress { id, message } if *id == vm.id => {
                    assert!(message.starts_with("moving to b: "), "{message}");
                    Some(())
                }
                _ => None,
            });
        }
    }
}

/// Reads or writes a disk that no guest has open.
pub fn qemu_io(disk: &Path, command: &str) {
    let output = std::process::Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", command])
        .arg(disk)
        .output()
        .expect("qemu-io runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && !said.contains("failed"), "{command}: {said}");
}
