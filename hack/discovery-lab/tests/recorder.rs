//! The recorder bites: two processes that it takes for one VM are told, whatever state they are in. The "QEMUs" are
//! shells with a QEMU's command line.

use std::{
    fs::File,
    io::{BufRead as _, BufReader},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use discovery_lab::wait_for;

/// Of no lab that there is.
const LAB: &str = "/nowhere/recorded-lab";
const SOON: Duration = Duration::from_secs(20);

/// A recorder in a process of its own, and where it writes.
struct Recorder {
    child: Child,
    file: PathBuf,
}

impl Recorder {
    fn start(name: &str) -> Self {
        let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.jsonl"));
        let _ = std::fs::remove_file(&file);
        let mut record = Command::new(env!("CARGO_BIN_EXE_discovery-lab"));
        record.env("DISCOVERY_LAB_DIR", LAB);
        record.args(["record", "--out"]).arg(&file).stderr(Stdio::null());
        let child = record.spawn().expect("cargo has built the program");
        let recorder = Self { child, file };
        recorder.until("the recorder", |text| text.contains("\"recorder\""));
        recorder
    }

    fn until(&self, what: &str, mut holds: impl FnMut(&str) -> bool) {
        let read = || std::fs::read_to_string(&self.file).unwrap_or_default();
        wait_for(what, SOON, "", || holds(&read()))
            .unwrap_or_else(|error| panic!("{error}: {}", read()));
    }

    /// Waits until it has seen this many starts or ends of a VM's processes.
    fn until_seen(&self, event: &str, count: usize, vm: &str) {
        self.until(event, |text| {
            let lines: Vec<serde_json::Value> =
                text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
            let of_vm = |line: &&serde_json::Value| line["event"] == "start" && line["vm"] == vm;
            let ours: Vec<&serde_json::Value> =
                lines.iter().filter(of_vm).map(|line| &line["process"]).collect();
            let seen = lines.iter().filter(|line| {
                line["event"] == event && ours.iter().any(|process| **process == line["process"])
            });
            seen.count() >= count
        });
    }

    fn overlap(mut self) -> Output {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
        let mut overlap = Command::new(env!("CARGO_BIN_EXE_discovery-lab"));
        overlap.arg("overlap").arg(&self.file).output().expect("cargo has built the program")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Also after a failed assertion, so that it must not panic.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process with the command line of a QEMU, which ends with its input.
struct Fake(Child);

impl Fake {
    fn start(vm: &str, more: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.arg0("/usr/bin/qemu-system-x86_64").args(["-c", "echo up; read line", "sh"]);
        shell.args(["-name", &format!("guest=shop.{vm},debug-threads=on"), "-uuid", vm]).args(more);
        Self::up(&mut shell)
    }

    /// The same on a node: in a pid namespace whose first process has the lab's mark.
    fn on_node(node: &str, vm: &str) -> Self {
        let qemu = format!(
            "exec -a qemu-system-x86_64 sh -c 'echo up; read line' sh -name guest=shop.{vm} -uuid {vm}"
        );
        let mut unshare = Command::new("unshare");
        unshare.args(["--pid", "--fork", "--kill-child", "bash", "-c", &format!("({qemu}); true")]);
        Self::up(unshare.env("DISCOVERY_LAB_PROCESS", format!("{LAB} node/{node}")))
    }

    fn up(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.expect("every system has a shell");
        let mut line = String::new();
        let output = child.stdout.as_mut().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says so");
        assert_eq!(line, "up\n");
        Self(child)
    }

    fn signal(&self, signal: &str) {
        let pid = self.0.id().to_string();
        let sent = Command::new("kill").args([signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{signal}");
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn shown(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn two_processes_of_one_vm_are_told() {
    let recorder = Recorder::start("twice");
    let first = Fake::start("twice", &[]);
    let second = Fake::start("twice", &[]);
    recorder.until_seen("start", 2, "twice");
    drop(first);
    drop(second);
    recorder.until_seen("end", 2, "twice");
    let output = recorder.overlap();
    assert!(!output.status.success(), "{}", shown(&output));
    assert!(shown(&output).contains("TWICE for"), "{}", shown(&output));
}

#[test]
fn one_process_after_the_other_is_clean() {
    let recorder = Recorder::start("clean");
    for count in [1, 2] {
        let fake = Fake::start("clean", &[]);
        recorder.until_seen("start", count, "clean");
        drop(fake);
        recorder.until_seen("end", count, "clean");
    }
    let output = recorder.overlap();
    assert!(output.status.success(), "{output:?}");
    assert!(shown(&output).contains("shop.clean"), "{}", shown(&output));
}

#[test]
fn a_guest_is_told_with_its_node() {
    let recorder = Recorder::start("node");
    let fake = Fake::on_node("n7", "node");
    recorder.until_seen("start", 1, "node");
    let text = std::fs::read_to_string(&recorder.file).expect("it is there");
    assert!(text.contains("\"name\":\"shop.node\"") && text.contains("\"node\":\"n7\""), "{text}");
    drop(fake);
    // Its namespace goes with its first process, and it with that.
    recorder.until_seen("end", 1, "node");
}

/// It could be continued at any time.
#[test]
fn a_stopped_process_is_an_instance_until_it_has_ended() {
    let recorder = Recorder::start("stopped");
    let first = Fake::start("stopped", &[]);
    first.signal("-STOP");
    recorder.until_seen("start", 1, "stopped");
    let second = Fake::start("stopped", &[]);
    recorder.until_seen("start", 2, "stopped");
    drop(second);
    drop(first);
    recorder.until_seen("end", 2, "stopped");
    assert!(!recorder.overlap().status.success());
}

/// Nobody has seen its processors for 10 s, which a QEMU of libvirt's shows: it counts, to be on the safe side.
#[test]
fn a_waiting_target_is_no_instance_and_one_that_cannot_be_looked_into_is() {
    let recorder = Recorder::start("target");
    let source = Fake::start("target", &[]);
    let target = Fake::start("target", &["-incoming", "defer"]);
    recorder.until_seen("start", 2, "target");
    let so_far = File::open(&recorder.file).expect("it is there");
    let lines: Vec<String> = BufReader::new(so_far).lines().map_while(Result::ok).collect();
    assert!(lines.iter().any(|line| line.contains("\"incoming\":true")), "{lines:?}");
    recorder.until_seen("runs", 1, "target");
    drop(target);
    drop(source);
    recorder.until_seen("end", 2, "target");
    assert!(!recorder.overlap().status.success());

    let recorder = Recorder::start("waiting");
    let source = Fake::start("waiting", &[]);
    let target = Fake::start("waiting", &["-incoming", "defer"]);
    recorder.until_seen("start", 2, "waiting");
    drop(target);
    recorder.until_seen("end", 1, "waiting");
    drop(source);
    let output = recorder.overlap();
    assert!(output.status.success(), "{}", shown(&output));
}
