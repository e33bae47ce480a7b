//! What only real guests show: how they end, what they say, and what becomes of their files.
//!
//! The guests are boot sectors of a few bytes, given as raw images by `file:` URLs: enough to power off,
//! to panic, or to say something, without an operating system.

use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery::engine::effect::HypervisorCommand;
use discovery::engine::host::{DomainState, FailureKind, StopCause};
use discovery::engine::input::HypervisorInput;
use discovery::engine::spec::{Boot, DiskSpec, ImageSource, VmDefinition};
use sha2::{Digest, Sha256};

use super::hands::kill;
use super::subject::{Subject, vm};

/// APM's "power off", which SeaBIOS turns into ACPI's: `mov ax, 5307; mov bx, 1; mov cx, 3; int 15`.
const POWER_OFF: &[u8] =
    &[0xb8, 0x07, 0x53, 0xbb, 0x01, 0x00, 0xb9, 0x03, 0x00, 0xcd, 0x15, 0xf4, 0xeb, 0xfd];
/// Tells the panic device that the guest panicked: `mov dx, 505; mov al, 1; out dx, al`.
const PANIC: &[u8] = &[0xba, 0x05, 0x05, 0xb0, 0x01, 0xee, 0xf4, 0xeb, 0xfd];
/// Says "D" on the serial console and waits: `mov dx, 3f8; mov al, 'D'; out dx, al; cli; hlt`.
const SPEAK: &[u8] = &[0xba, 0xf8, 0x03, 0xb0, b'D', 0xee, 0xfa, 0xf4, 0xeb, 0xfd];

/// Does nothing, as fast as it can: `nop`, and again.
const BURN: &[u8] = &[0x90, 0xeb, 0xfd];

/// Where a real guest's kernel and initial RAM disk are.
pub const GUEST: &str = "DISCOVERY_TEST_GUEST";

pub fn run(subject: &mut Subject, state: &Path) {
    std::fs::create_dir_all(state.join("import")).expect("a directory for images");
    a_daemon_that_hangs_is_left_and_found_again(subject);
    a_guest_that_powers_itself_off_is_a_shutdown(subject, state);
    a_guest_that_panics_has_crashed(subject, state);
    a_killed_process_is_never_a_shutdown(subject, state);
    a_guest_has_its_own_disk_and_its_words_are_kept(subject, state);
    what_a_guest_uses_and_waits_for_is_told(subject, state);
    an_image_that_is_not_as_declared_makes_no_domain(subject, state);
    a_hostile_image_reads_no_file_of_the_host(subject, state);
    a_full_disk_leaves_nothing_half_written(subject, state);
    if let Some(guest) = std::env::var_os(GUEST) {
        a_linux_boots_from_its_kernel(subject, state, Path::new(&guest));
    }
}

fn a_daemon_that_hangs_is_left_and_found_again(subject: &mut Subject) {
    let vm = vm("hangs");
    subject.run(&vm);
    let pid = std::env::var("DISCOVERY_TEST_LIBVIRTD_PID_FILE").expect("set by hack/libvirt-test");
    let pid = std::fs::read_to_string(pid).expect("a libvirtd runs");
    kill(pid.trim(), "STOP");
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    let failed = subject.command(stop).expect_err("nobody answers");
    kill(pid.trim(), "CONT");
    assert_eq!(failed.kind, FailureKind::TimedOut, "{failed}");
    let seen = subject.seen(&vm.id, "a full pass after the return", |_| true);
    assert_eq!(seen.state, DomainState::Running, "it was never stopped");
    subject.remove(&vm);
}

/// A raw image of 1 MiB that boots `code`, as a source with its digest.
fn image(state: &Path, name: &str, code: &[u8]) -> ImageSource {
    let mut bytes = code.to_vec();
    bytes.resize(510, 0);
    bytes.extend([0x55, 0xaa]);
    bytes.resize(1 << 20, 0);
    source(state, name, &bytes)
}

fn source(state: &Path, name: &str, bytes: &[u8]) -> ImageSource {
    let path = state.join("import").join(name);
    std::fs::write(&path, bytes).expect("an image to fetch");
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ImageSource { url: format!("file://{}", path.display()), sha256: Some(digest) }
}

fn with_disk(name: &str, image: ImageSource) -> VmDefinition {
    let disk = DiskSpec { name: "root".into(), size: 4 << 20, image: Some(image) };
    VmDefinition { disks: vec![disk], ..vm(name) }
}

fn dir(state: &Path, vm: &VmDefinition) -> PathBuf {
    state.join("disks").join(vm.id.ve.as_str()).join("web-0")
}

fn ends_as(subject: &mut Subject, vm: &VmDefinition, cause: StopCause) {
    let ended = subject.command(HypervisorCommand::Run(Box::new(vm.clone())));
    let stopped = DomainState::Stopped(cause);
    if ended.expect("started").expect("exists").state != stopped {
        let id = vm.id.clone();
        let seen =
            subject.seen(&id, "its end", |seen| matches!(seen.state, DomainState::Stopped(_)));
        assert_eq!(seen.state, stopped);
    }
    subject.remove(vm);
}

fn a_guest_that_powers_itself_off_is_a_shutdown(subject: &mut Subject, state: &Path) {
    let vm = with_disk("off", image(state, "off.img", POWER_OFF));
    ends_as(subject, &vm, StopCause::Shutdown);
}

fn a_guest_that_panics_has_crashed(subject: &mut Subject, state: &Path) {
    let vm = with_disk("panics", image(state, "panic.img", PANIC));
    ends_as(subject, &vm, StopCause::Crashed);
}

fn what_a_guest_uses_and_waits_for_is_told(subject: &mut Subject, state: &Path) {
    let vm = with_disk("burns", image(state, "burn.img", BURN));
    subject.run(&vm);
    // On a crowded host it gets less than a processor and waits for the rest: it wants one all the same.
    let load = subject.expect("a processor's worth", |input| match input {
        HypervisorInput::Loads(all) => {
            let ours = all.iter().find(|load| load.id == vm.id);
            ours.filter(|load| load.cpu_milli > 800).cloned()
        }
        _ => None,
    });
    assert!(load.cpu_milli < 2500 && load.memory > 1 << 20, "{load:?}");
    subject.remove(&vm);
}

fn a_killed_process_is_never_a_shutdown(subject: &mut Subject, _: &Path) {
    for (signal, cause) in [("KILL", StopCause::Crashed), ("TERM", StopCause::Destroyed)] {
        let vm = vm("killed");
        subject.run(&vm);
        let pid = format!("/run/libvirt/qemu/{}.pid", vm.domain_name());
        kill(std::fs::read_to_string(pid).expect("QEMU's pid").trim(), signal);
        let seen =
            subject.seen(&vm.id, "its end", |seen| matches!(seen.state, DomainState::Stopped(_)));
        assert_eq!(seen.state, DomainState::Stopped(cause), "{signal}");
        subject.remove(&vm);
    }
}

fn a_guest_has_its_own_disk_and_its_words_are_kept(subject: &mut Subject, state: &Path) {
    let mut vm = with_disk("speaks", image(state, "speak.img", SPEAK));
    vm.disks.push(DiskSpec { name: "data".into(), size: 8 << 20, image: None });
    subject.run(&vm);
    let dir = dir(state, &vm);
    for disk in ["root.qcow2", "data.qcow2"] {
        assert!(dir.join(disk).is_file(), "{disk}");
    }
    says(&dir, b"D");
    assert_eq!(subject.run(&vm).edited, None, "what libvirt holds is as declared");
    subject.remove(&vm);
    assert!(!state.join("disks").join(vm.id.ve.as_str()).exists(), "no file is left");
}

/// Waits until the guest has said this on its console.
fn says(dir: &Path, word: &[u8]) {
    let deadline = std::time::Instant::now() + Duration::from_secs(90);
    let said = || {
        let console = std::fs::read(dir.join("console.log"));
        console.is_ok_and(|said| said.windows(word.len()).any(|part| part == word))
    };
    while !said() {
        assert!(std::time::Instant::now() < deadline, "the guest says nothing");
        // The guest needs this processor more than we do.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn a_linux_boots_from_its_kernel(subject: &mut Subject, state: &Path, guest: &Path) {
    let file = |name: &str| ImageSource {
        url: format!("file://{}", guest.join(name).display()),
        sha256: None,
    };
    let mut vm = vm("linux");
    vm.memory = 128 << 20;
    vm.boot = Boot::Kernel {
        kernel: file("vmlinuz"),
        initrd: Some(file("initrd.img")),
        cmdline: "console=ttyS0 quiet name=<\"&'>".into(),
    };
    assert_eq!(subject.run(&vm).edited, None, "what libvirt holds is as declared");
    says(&dir(state, &vm), b"hello");
    assert_eq!(subject.run(&vm).edited, None, "nor has booting changed it");
    subject.remove(&vm);
}

fn fails(subject: &mut Subject, vm: &VmDefinition) -> (FailureKind, String) {
    let ended = subject.command(HypervisorCommand::Run(Box::new(vm.clone())));
    let failure = ended.expect_err("refused");
    subject.remove(vm);
    (failure.kind, failure.message)
}

fn an_image_that_is_not_as_declared_makes_no_domain(subject: &mut Subject, state: &Path) {
    let mut other = image(state, "other.img", SPEAK);
    other.sha256 = Some("0".repeat(64));
    let (kind, message) = fails(subject, &with_disk("mismatch", other));
    assert_eq!(kind, FailureKind::ImageMismatch, "{message}");
    let mut small = with_disk("small", image(state, "small.img", POWER_OFF));
    small.disks[0].size = 512 << 10;
    let (kind, message) = fails(subject, &small);
    assert_eq!(kind, FailureKind::ImageUnusable, "{message}");
}

fn a_hostile_image_reads_no_file_of_the_host(subject: &mut Subject, state: &Path) {
    let path = state.join("import/hostile.qcow2");
    let create = |arguments: &[&str]| {
        let status = std::process::Command::new("qemu-img")
            .args(["create", "-q", "-u", "-f", "qcow2"])
            .args(arguments)
            .arg(&path)
            .arg("1M")
            .status();
        assert!(status.expect("qemu-img runs").success());
    };
    let secret = state.join("import/secret");
    std::fs::write(&secret, vec![b's'; 1 << 20]).expect("a secret");
    let data_file = format!("data_file={},data_file_raw=on", secret.display());
    for arguments in [vec!["-b", "/etc/hostname", "-F", "raw"], vec!["-o", data_file.as_str()]] {
        create(&arguments);
        let bytes = std::fs::read(&path).expect("made");
        let (kind, message) = fails(subject, &with_disk("hostile", source(state, "h", &bytes)));
        assert_eq!(kind, FailureKind::ImageUnusable, "{arguments:?}: {message}");
    }
    let outside = ImageSource { url: "file:///etc/passwd".into(), sha256: None };
    let (kind, message) = fails(subject, &with_disk("outside", outside));
    assert_eq!(kind, FailureKind::ImageUnusable, "{message}");
}

fn a_full_disk_leaves_nothing_half_written(subject: &mut Subject, state: &Path) {
    let partial = state.join("images/partial");
    let mount = |arguments: &[&str]| {
        let mut command = std::process::Command::new(arguments[0]);
        let status = command.args(&arguments[1..]).arg(&partial).status();
        assert!(status.expect("it runs").success(), "{arguments:?}");
    };
    // Cannot be made by asking nicely: a file system of 512 KiB where images are being fetched.
    mount(&["mount", "-t", "tmpfs", "-o", "size=512k", "none"]);
    let vm = with_disk("full", image(state, "full.img", &[0xeb, 0xfe]));
    let (kind, message) = fails(subject, &vm);
    let left = std::fs::read_dir(&partial).expect("readable").count();
    mount(&["umount"]);
    assert_eq!(kind, FailureKind::StorageFull, "{message}");
    assert_eq!(left, 0, "nothing half-written");
}
