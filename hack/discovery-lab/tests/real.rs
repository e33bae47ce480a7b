//! A real lab, beside any other on this host: its own directory and network. Each test first sees to it that
//! what it does to the lab has happened. One at a time: they share the host's two or so cores.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use discovery_lab::{GUESTS_IN_NODE, Lab, Layout, wait_for};
use rustix::fs::{FlockOperation, flock};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
/// Nothing here takes longer, even beside a build.
const SOON: Duration = Duration::from_secs(60);

struct Real {
    layout: Layout,
    _alone: MutexGuard<'static, ()>,
}

impl Real {
    fn new() -> Self {
        // A failed test must not fail the others.
        let alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
        let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("real-lab");
        let layout = Layout { dir, net: "10.79".into(), ..Layout::from_env() };
        let real = Self { layout, _alone: alone };
        real.must(&["down"]);
        real
    }

    fn lab(&self) -> Lab {
        Lab::at(self.layout.clone())
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_discovery-lab"));
        command.args(words).env("DISCOVERY_LAB_DIR", &self.layout.dir);
        command.env("DISCOVERY_LAB_NET", &self.layout.net).stdin(Stdio::null());
        command
    }

    fn run(&self, words: &[&str]) -> Output {
        self.command(words).output().expect("cargo has built the program")
    }

    fn must(&self, words: &[&str]) -> String {
        let output = self.run(words);
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn ready_nodes(&self) -> Vec<String> {
        let status: serde_json::Value =
            serde_json::from_str(&self.must(&["status", "--json"])).expect("--json prints JSON");
        let nodes = status["nodes"].as_array().expect("status lists nodes");
        nodes
            .iter()
            .filter(|node| node["ready"] == true)
            .filter_map(|node| node["name"].as_str().map(str::to_owned))
            .collect()
    }

    /// Processes with this lab's mark, links with its name, directories of its state.
    fn left_behind(&self) -> Vec<String> {
        let mark = format!("DISCOVERY_LAB_PROCESS={} ", self.layout.dir.display());
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").expect("proc is mounted").flatten() {
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            if String::from_utf8_lossy(&environment).contains(&mark) {
                left.push(format!("process {}", entry.file_name().display()));
            }
        }
        for entry in fs::read_dir("/sys/class/net").expect("sys is mounted").flatten() {
            let name = entry.file_name().display().to_string();
            if name.starts_with(&self.layout.bridge()) {
                left.push(format!("link {name}"));
            }
        }
        // Of the packet filter and of the loop devices.
        for words in [["nft", "list", "tables"], ["losetup", "--list", "--noheadings"]] {
            let listed =
                Command::new(words[0]).args(&words[1..]).output().expect("it is installed");
            let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
            let (bridge, dir) = (self.layout.bridge(), self.layout.dir.display().to_string());
            let ours = |line: &&str| line.contains(&bridge) || line.contains(&dir);
            left.extend(listed.lines().filter(ours).map(str::to_owned));
        }
        let mounts = fs::read_to_string("/proc/self/mounts").expect("proc is mounted");
        let own = self.layout.dir.display().to_string();
        left.extend(
            mounts.lines().filter(|line| line.contains(&own)).map(|line| format!("mount {line}")),
        );
        left.extend(
            self.layout
                .state()
                .into_iter()
                .filter(|path| path.exists())
                .map(|path| path.display().to_string()),
        );
        left
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        // Also after a failed assertion, so that it must not panic.
        let _ = self.command(&["down"]).output();
    }
}

#[test]
fn nodes_lose_power_and_come_back_with_another_boot() {
    let lab = Real::new();
    lab.must(&["up", "--nodes", "2"]);
    assert_eq!(lab.ready_nodes(), ["n1", "n2"]);
    let boot = |node| lab.must(&["exec", node, "cat", "/proc/sys/kernel/random/boot_id"]);
    let before = boot("n2");
    assert_ne!(before, boot("n1"), "each node is another machine");
    lab.must(&[
        "exec",
        "n2",
        "sh",
        "-c",
        "echo kept > /var/lib/discovery/disk; echo lost > /run/memory",
    ]);

    lab.must(&["node", "stop", "n2"]);
    assert!(
        !lab.run(&["exec", "n2", "true"]).status.success(),
        "a node without power runs nothing"
    );
    assert_eq!(lab.ready_nodes(), ["n1"]);

    lab.must(&["node", "start", "n2"]);
    assert_eq!(lab.ready_nodes(), ["n1", "n2"]);
    assert_ne!(before, boot("n2"));
    assert_eq!(lab.must(&["exec", "n2", "cat", "/var/lib/discovery/disk"]), "kept\n");
    assert!(!lab.run(&["exec", "n2", "cat", "/run/memory"]).status.success());

    lab.must(&["node", "add", "n3"]);
    assert_eq!(lab.ready_nodes(), ["n1", "n2", "n3"]);
    lab.must(&["node", "remove", "n3"]);
    assert_eq!(lab.ready_nodes(), ["n1", "n2"]);
    lab.must(&["down"]);
    assert_eq!(lab.left_behind(), Vec::<String>::new());
}

#[test]
fn the_api_server_and_libvirtd_stop_and_start_alone() {
    let lab = Real::new();
    lab.must(&["up", "--nodes", "1"]);
    let virsh = ["exec", "n1", "virsh", "--connect", "qemu:///system", "uri"];

    lab.must(&["api", "stop"]);
    assert!(lab.must(&["status"]).contains("not ready"));
    assert!(lab.run(&virsh).status.success(), "libvirtd does not care");
    lab.must(&["api", "start"]);
    assert_eq!(lab.ready_nodes(), ["n1"]);

    let (api, creates) = (lab.lab(), |all: &[discovery_lab::Request]| {
        let ours = |one: &&discovery_lab::Request| one.user == "admin" && one.verb == "create";
        all.iter()
            .filter(ours)
            .map(|one| format!("{} {} {}", one.resource, one.name, one.code))
            .collect::<Vec<_>>()
    });
    api.kubectl(&["create", "namespace", "audited"]).expect("the API server is back");
    assert_eq!(creates(&api.audit().expect("the log is there")), ["namespaces audited 201"]);

    lab.must(&["libvirtd", "stop", "n1"]);
    assert!(!lab.run(&virsh).status.success());
    lab.must(&["libvirtd", "start", "n1"]);
    assert!(lab.run(&virsh).status.success());
}

#[test]
fn a_guest_says_hello_finds_its_disk_and_obeys_the_power_button() {
    let real = Real::new();
    real.must(&["up", "--nodes", "1"]);
    let lab = real.lab();
    let node = lab.node("n1").expect("it is up");
    lab.exec(
        "n1",
        &["cp", &format!("{GUESTS_IN_NODE}/disk.qcow2"), "/var/lib/discovery/disk.qcow2"],
    )
    .expect("hack/guest has made the images");
    let xml = format!(
        "<domain type='qemu'><name>guest</name><memory unit='MiB'>96</memory><vcpu>1</vcpu>\
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{GUESTS_IN_NODE}/vmlinuz</kernel>\
         <initrd>{GUESTS_IN_NODE}/initrd.img</initrd><cmdline>console=ttyS0 quiet name=tester</cmdline></os>\
         <features><acpi/></features><devices><disk type='file' device='disk'><driver name='qemu' type='qcow2'/>\
         <source file='/var/lib/discovery/disk.qcow2'/><target dev='vda' bus='virtio'/></disk>\
         <serial type='pty'><log file='/var/log/libvirt/qemu/guest.console'/></serial></devices></domain>"
    );
    let file = node.path("/run/guest.xml").expect("it is on");
    fs::write(file, xml).expect("the node's /run");
    node.virsh(&["create", "/run/guest.xml"]).expect("a sound domain");

    let console = lab.console_log("guest").expect("its XML names the file");
    let says = |what: &str| {
        wait_for(what, SOON, "the guest is silent", || {
            fs::read(&console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(what))
        })
        .unwrap_or_else(|error| {
            panic!("{error}: {}", fs::read_to_string(&console).unwrap_or_default())
        });
    };
    says("hello from tester");
    says("disk vda says: hello from the data disk; boot 1");
    // A slow boot is past the first tick when it comes to it.
    says("tester ticks at");
    node.virsh(&["shutdown", "guest"]).expect("it runs");
    says("tester powers off: power button");
}

#[test]
fn every_fault_proves_that_it_fired_and_is_undone() {
    let lab = Real::new();
    lab.must(&["up", "--nodes", "2", "--disk-mib", "64"]);
    let nemesis = |words: &[&str]| {
        let output = lab.run(&[&["nemesis"], words].concat());
        let said = format!("{}{}", shown(&output.stdout), shown(&output.stderr));
        assert!(output.status.success(), "{words:?}: {said}");
        said
    };
    let says = |words: &[&str], what: &str| {
        let said = nemesis(words);
        assert!(said.contains(what), "{words:?}: {said}");
    };
    says(&["libvirtd", "--node", "n1", "--kill"], "the node has started");
    says(&["libvirtd", "--node", "n1", "--for", "500ms"], "libvirtd runs on n1");
    says(&["cut", "--node", "n2", "--for", "1s"], "packets were dropped");
    says(&["cut", "--node", "n2", "--from", "api", "--one-way", "out", "--for", "1s"], "packets");
    says(&["api-server", "--for", "500ms"], "answers again");
    says(&["reboot", "--node", "n2"], "its /run is gone");

    // What lasts: the same again is no other, and no second one.
    says(&["stall", "--node", "n1", "--all-but-guests"], "stopped");
    says(&["stall", "--node", "n1", "--all-but-guests"], "already so");
    let other = lab.run(&["nemesis", "stall", "--node", "n1"]);
    assert!(!other.status.success(), "there is one of its kind");
    says(&["disk-full", "--node", "n2"], "writing fails");
    let write = ["exec", "n2", "sh", "-c", "echo full > /var/lib/discovery/more"];
    assert!(!lab.run(&write).status.success(), "the disk is full");
    says(&["heal"], "processes go on");
    lab.must(&write);
    says(&["power", "--node", "n2"], "killed");
    says(&["power-on", "--node", "n2"], "is on again");
    assert_eq!(lab.must(&["exec", "n2", "cat", "/var/lib/discovery/more"]), "full\n");
    says(&["heal"], "nothing to heal");

    // Without the product on it, and without guests, some cannot fire.
    for words in [&["stall", "--node", "n1"][..], &["guest", "--node", "n1"], &["upgrade"]] {
        assert!(!lab.run(&[&["nemesis"], words].concat()).status.success(), "{words:?}");
    }
    says(&["heal"], "nothing to heal");
    wait_for("both nodes", SOON, "", || lab.ready_nodes() == ["n1", "n2"]).expect("all is undone");
    nemesis(&["cut", "--node", "n1"]);
    lab.must(&["down"]);
    assert_eq!(lab.left_behind(), Vec::<String>::new());
}

#[test]
fn a_node_that_does_not_feed_its_watchdog_is_reset() {
    let lab = Real::new();
    lab.must(&["up", "--nodes", "2"]);
    let boot = |node: &str| {
        let read = lab.run(&["exec", node, "cat", "/proc/sys/kernel/random/boot_id"]);
        shown(&read.stdout)
    };
    let before = [boot("n1"), boot("n2")];
    let write = |node: &str, bytes: &str| {
        let script = format!("printf {bytes} > /run/discovery/watchdog");
        lab.must(&["exec", node, "sh", "-c", &script]);
    };
    write("n1", "1");
    write("n2", "1V");
    // It works however still the node stands.
    lab.must(&["nemesis", "stall", "--node", "n1", "--all-but-guests"]);
    // Nor does it wait for a command that is changing the lab.
    let held = fs::File::create(lab.layout.dir.join("lock")).expect("the lab has made it");
    flock(&held, FlockOperation::LockExclusive).expect("nobody changes the lab now");
    wait_for("n1 to be off", SOON, "", || boot("n1").is_empty()).expect("it was armed");
    drop(held);
    wait_for("n1 to be reset", SOON, "", || !["", &*before[0]].contains(&&*boot("n1")))
        .expect("its power is back");
    assert_eq!(boot("n2"), before[1], "it was disarmed");
    wait_for("n1", SOON, "", || lab.ready_nodes() == ["n1", "n2"]).expect("it boots again");
}

fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(text).into_owned()
}

#[test]
fn after_a_killed_up_both_up_and_down_work() {
    let lab = Real::new();
    // What `up` says just before it is killed: at the start, with the API server, in the middle of the nodes.
    for moment in ["bridge", "starting nodes", "n1 is on"] {
        kill_up_at(&lab, moment);
        assert!(
            !lab.left_behind().is_empty(),
            "a killed up leaves something, or this tests nothing"
        );
        lab.must(&["down"]);
        assert_eq!(lab.left_behind(), Vec::<String>::new(), "after a kill at {moment:?}");

        kill_up_at(&lab, moment);
        lab.must(&["up", "--nodes", "2"]);
        assert_eq!(lab.ready_nodes(), ["n1", "n2"], "after a kill at {moment:?}");
        lab.must(&["down"]);
    }
}

fn kill_up_at(lab: &Real, moment: &str) {
    let log = lab.layout.dir.with_extension("up.log");
    let out = fs::File::create(&log).expect("cargo's directory for tests");
    let mut up = lab
        .command(&["up", "--nodes", "2"])
        .stderr(out)
        .spawn()
        .expect("cargo has built the program");
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_for(moment, SOON, "see its output", || said().contains(moment))
        .unwrap_or_else(|error| panic!("{error}: {}", said()));
    up.kill().expect("it is our child");
    up.wait().expect("it is our child");
    assert!(!said().contains("nodes are Ready"), "it was killed too late");
}

// Nodes of all labs mount over the same directories of the host, and a directory that is removed takes the
// mounts of every namespace with it.
#[test]
fn a_lab_that_goes_takes_nothing_from_another() {
    let first = Real::new();
    let other = |words: &[&str]| {
        let mut command = first.command(words);
        command.env("DISCOVERY_LAB_DIR", first.layout.dir.with_file_name("other-lab"));
        command.env("DISCOVERY_LAB_NET", "10.80").output().expect("cargo has built the program")
    };
    let up = other(&["up", "--nodes", "1"]);
    first.must(&["up", "--nodes", "1"]);
    let mounts = || first.must(&["exec", "n1", "cat", "/proc/self/mountinfo"]).lines().count();
    let before = mounts();
    let down = other(&["down"]);
    assert!(up.status.success() && down.status.success(), "{up:?} {down:?}");
    assert_eq!(mounts(), before, "its directories were under this lab's mounts");
}
