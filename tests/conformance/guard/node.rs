//! A node of processes: a guard, and guests that are shells which look like QEMU to it.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use discovery::agent::clock;
use discovery::agent::ours::{XMLNS, uuid_of};
use discovery::agent::ports::INPUT_QUEUE;
use discovery::engine::id::VmId;
use discovery::engine::time::Instant;
use discovery::guard::client::GuardClient;
use discovery::guard::server::{self, GuardConfig};
use discovery::guard::watchdog::WatchdogConfig;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use tokio::sync::mpsc;

use super::suite::{Hands, PATIENCE, Subject};

/// Set in a guard that this file starts: its directory.
const FOLDER: &str = "DISCOVERY_TEST_GUARD";
/// Where that guard looks for libvirt's status files, if not in its own directory.
pub const RUN_DIR: &str = "DISCOVERY_TEST_GUARD_RUN_DIR";
/// Set inside the namespace.
const INSIDE: &str = "DISCOVERY_TEST_GUARD_INSIDE";
/// A watchdog of these seconds, at `watchdog` in the directory.
const WATCHDOG: &str = "DISCOVERY_TEST_GUARD_WATCHDOG";

/// Runs a test of this program in a process namespace of its own. True inside.
pub fn alone(test: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let this = std::env::current_exe().expect("this program has a path");
    let status = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"])
        .arg("--mount-proc")
        .arg(this)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(INSIDE, "yes")
        .status()
        .expect("unshare starts");
    assert!(status.success(), "{test}, alone: {status}");
    false
}

/// The guard's process. Only when it is started by a [`Node`].
#[test]
fn guard_process() {
    let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) else { return };
    let timeout = std::env::var(WATCHDOG).ok().map(|text| text.parse().expect("milliseconds"));
    let config = GuardConfig {
        socket: folder.join("guard.sock"),
        libvirt_run_dir: std::env::var_os(RUN_DIR)
            .map_or_else(|| folder.join("qemu"), PathBuf::from),
        watchdog: timeout.map(|timeout| WatchdogConfig {
            device: folder.join("watchdog"),
            timeout: Some(Duration::from_millis(timeout)),
        }),
        lease: Duration::from_secs(5),
        wait: Duration::from_secs(5),
    };
    server::run(config).expect("a guard");
}

/// Ended with the test.
pub struct Process(pub Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("it is ours");
    }

    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.0)
    }

    pub fn held(&self) -> OwnedFd {
        pidfd_open(self.pid(), PidfdFlags::empty()).expect("it runs, or nobody has waited for it")
    }

    pub fn ended(&mut self) -> bool {
        self.0.try_wait().expect("ours").is_some()
    }
}

/// When it ended, to the kernel's word.
pub fn end_of(held: &OwnedFd) -> Instant {
    let mut fds = [PollFd::new(held, PollFlags::IN)];
    let limit = Timespec::try_from(PATIENCE).expect("short");
    let ready = poll(&mut fds, Some(&limit)).expect("it can be waited for");
    assert_eq!(ready, 1, "it has not ended");
    clock::now()
}

pub struct Node {
    pub folder: tempfile::TempDir,
    pub guard: Option<Process>,
    pub guests: BTreeMap<String, Process>,
    pub watchdog: Option<Duration>,
    /// The guard may not signal other users' processes, and guests are another user's.
    pub powerless: bool,
}

impl Node {
    pub fn new(watchdog: Option<Duration>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("qemu")).expect("empty");
        Self { folder, guard: None, guests: BTreeMap::new(), watchdog, powerless: false }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn start_guard(&mut self) {
        let mut command = this_again("node::guard_process");
        // A test's harness has another thread, which would take the signal for the process.
        command = within("env", &["--block-signal=TERM"], &command);
        if self.powerless {
            command = within("setpriv", &["--bounding-set=-kill", "--inh-caps=-kill"], &command);
        }
        command.env(FOLDER, self.folder.path());
        if let Some(timeout) = self.watchdog {
            command.env(WATCHDOG, timeout.as_millis().to_string());
        }
        self.guard = Some(Process(command.spawn().expect("this program starts")));
    }

    /// A connection as an agent makes it.
    pub fn connect(&self) -> (Arc<GuardClient>, mpsc::Receiver<discovery::engine::input::Input>) {
        let (sender, inputs) = mpsc::channel(INPUT_QUEUE);
        let client = GuardClient::start(self.path("guard.sock"), sender).expect("a thread");
        (Arc::new(client), inputs)
    }

    /// A guest whose process libvirt's status file tells of.
    pub fn run(&mut self, name: &str) {
        self.start(name, &uuid_of(&id(name)).to_string(), &[]);
        self.write_status(name);
    }

    /// A process that QEMU could be.
    pub fn start(&mut self, name: &str, uuid: &str, arguments: &[&str]) {
        let user = if self.powerless { 65534 } else { 0 };
        let shell = Command::new("sh")
            .uid(user)
            .arg0("qemu-system-x86_64")
            .args(["-c", "read line", "-name", &format!("guest={name}"), "-uuid", uuid])
            .args(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .expect("sh");
        self.guests.insert(name.to_owned(), Process(shell));
    }

    pub fn write_status(&self, name: &str) {
        let pid = self.guests[name].pid().as_raw_nonzero();
        let (id, uuid) = (id(name), uuid_of(&id(name)));
        let text = format!(
            "<domstatus state='running' reason='booted' pid='{pid}'>\n<domain type='qemu' id='1'>\n<name>{name}</name>\n\
             <uuid>{uuid}</uuid>\n<metadata>\n<discovery:vm xmlns:discovery=\"{XMLNS}\" namespace=\"default\" name=\"x\" \
             uid=\"{}\" member=\"{}\" index=\"{}\" epoch=\"1\"/>\n</metadata></domain></domstatus>",
            id.ve, id.member, id.index
        );
        write_whole(&self.path("qemu").join(format!("{name}.xml")), &text);
    }
}

/// As libvirt does: nobody sees half a file.
fn write_whole(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).expect("room");
    fs::rename(new, path).expect("the same folder");
}

pub fn id(name: &str) -> VmId {
    VmId { ve: "0b1c".into(), member: name.into(), index: 0 }
}

/// This program, with one of its tests.
pub fn this_again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("this program has a path"));
    command.args(["--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// The command, started by another program.
fn within(program: &str, arguments: &[&str], command: &Command) -> Command {
    let mut outer = Command::new(program);
    outer.args(arguments).arg(command.get_program()).args(command.get_args());
    outer
}

/// The node under the suite.
pub struct RealHands(pub Node);

impl Hands for RealHands {
    fn run(&mut self, guest: &str) {
        self.0.run(guest);
    }

    fn runs(&mut self, guest: &str) -> bool {
        self.0.guests.get_mut(guest).is_some_and(|guest| !guest.ended())
    }

    fn set_away(&mut self, away: bool) {
        if away {
            self.0.guard = None;
        } else {
            self.0.start_guard();
        }
    }
}

/// A node with a guard that an agent is connected to.
pub fn subject(mut node: Node) -> Subject {
    node.start_guard();
    let (port, inputs) = node.connect();
    Subject { port, inputs, hands: Box::new(RealHands(node)) }
}
