//! What only real guests show: that it is the same guest, with the same disk, whatever fails on the way.

use std::path::{Path, PathBuf};
use std::time::Duration;

use discovery::agent::snapshot::CounterSource;
use discovery::engine::effect::{HypervisorCommand, Migration};
use discovery::engine::host::{DomainState, FailureKind};
use discovery::engine::spec::{Boot, DiskSpec, ImageSource, VmDefinition};
use sha2::{Digest, Sha256};

use crate::hands::kill;
use crate::pair::{IMPORT, Pair, dir, names, qemu_io};
use crate::subject::vm;
use crate::suite::{arrives, expect, migrate, migration, moves, next, runs_on};

/// Copies itself to its disk's second sector, says `B` once, and then the alphabet, a letter every 220 ms, for ever.
const COUNTS: &[u8] = &[
    0x31,
    0xc0,
    0x8e,
    0xc0, // xor ax, ax; mov es, ax
    0xbb,
    0x00,
    0x7c,
    0xb8,
    0x01,
    0x03,
    0xb9,
    0x02,
    0x00,
    0xba,
    0x80,
    0x00,
    0xcd,
    0x13, // int 13h: write
    0xba,
    0xf8,
    0x03,
    0xb0,
    b'B',
    0xee,
    0xb3,
    b'a', // say B; mov bl, 'a'
    0x88,
    0xd8,
    0xee,
    0xb9,
    0x04,
    0x00, // mov al, bl; out dx, al; mov cx, 4
    0xfb,
    0xf4,
    0xe2,
    0xfc, // sti; hlt; loop
    0xfe,
    0xc3,
    0x80,
    0xfb,
    b'z' + 1,
    0x75,
    0xef, // inc bl; until z
    0xb3,
    b'a',
    0xeb,
    0xeb, // from a again
];

pub fn run(pair: &mut Pair) {
    a_tunnel_that_breaks_leaves_the_vm_at_its_source(pair);
    the_guest_goes_on_with_its_disks(pair);
    a_target_that_dies_leaves_the_vm_at_its_source(pair);
    a_migration_that_takes_too_long_is_given_up(pair);
    half_filled_disks_are_never_used(pair);
    if let Some(guest) = std::env::var_os("DISCOVERY_TEST_GUEST") {
        a_linux_moves(pair, Path::new(&guest));
    }
}

/// An image on both nodes, as a source with its digest.
fn image(pair: &Pair, name: &str, bytes: &[u8]) -> ImageSource {
    let path = Path::new(IMPORT).join(name);
    for path in [path.clone(), pair.there(&path)] {
        std::fs::write(path, bytes).expect("an image to fetch");
    }
    let digest: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    ImageSource { url: format!("file://{}", path.display()), sha256: Some(digest) }
}

/// A guest that counts, with a root disk over an image and a data disk.
fn counting(pair: &Pair, name: &str) -> VmDefinition {
    let mut bytes = COUNTS.to_vec();
    bytes.resize(510, 0);
    bytes.extend([0x55, 0xaa]);
    bytes.resize(1 << 20, 0x11);
    let root = image(pair, "counts.img", &bytes);
    let disks = vec![
        DiskSpec { name: "root".into(), size: 4 << 20, image: Some(root) },
        DiskSpec { name: "data".into(), size: 256 << 20, image: None },
    ];
    VmDefinition { disks, ..vm(name) }
}

/// What a guest has said, on one node.
fn said(console: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(console).unwrap_or_default()).into_owned()
}

/// Waits until a guest has said something.
fn says(console: &Path, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let heard = said(console);
        if wanted(&heard) {
            return heard;
        }
        assert!(std::time::Instant::now() < deadline, "waited for {what}: {heard:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Only letters, in order, and none left out.
fn goes_on(text: &str) {
    for (one, next) in text.bytes().zip(text.bytes().skip(1)) {
        let follows = if one == b'z' { b'a' } else { one + 1 };
        assert_eq!(next, follows, "it counts on: {text:?}");
    }
}

fn here_and_there(pair: &Pair, path: &Path) -> [PathBuf; 2] {
    [path.to_owned(), pair.there(path)]
}

fn the_guest_goes_on_with_its_disks(pair: &mut Pair) {
    let [a, b] = names();
    let vm = counting(pair, "counts");
    pair.a.run(&vm);
    pair.stop(&vm);
    let data = dir(&vm).join("data.qcow2");
    qemu_io(&data, "write -P 0x5a 8M 4M");
    qemu_io(&dir(&vm).join("root.qcow2"), "write -P 0x33 2M 1M");
    std::fs::remove_file(dir(&vm).join("console.log")).expect("it has spoken");
    pair.a.run(&vm);
    let [here, there] = here_and_there(pair, &dir(&vm).join("console.log"));
    says(&here, "some letters", |said| said.matches('B').count() == 1 && said.len() > 5);
    let moved = next(&vm);
    assert_eq!(expect(&mut pair.b, &moved, &a), Ok(None));
    let figures = moves(&mut pair.a, &moved, &b);
    println!("a guest that counts, with 5 MiB of disks: {figures:?}");
    // That the disks arrive is compared below; how much of them was sent is seen in passing, and may be missed.
    assert!(figures.sent > 0 && figures.downtime_ms > 0, "{figures:?}");
    assert!(figures.took_ms >= figures.downtime_ms, "{figures:?}");
    arrives(&mut pair.b, &moved);
    let after = says(&there, "more letters", |said| said.len() > 5);
    let (_, before) = said(&here).split_once('B').map(|(a, b)| (a.len(), b.to_owned())).expect("B");
    goes_on(&(before.clone() + &after));
    runs_on(&mut pair.b, &moved);
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    pair.b.command(stop).expect("stopped");
    for name in ["root.qcow2", "data.qcow2"] {
        let [here, there] = here_and_there(pair, &dir(&vm).join(name));
        same_bytes(&here, &there);
    }
    qemu_io(&pair.there(&data), "read -P 0x5a 8M 4M");
    qemu_io(&pair.there(&data), "read -P 0 20M 4M");
    pair.a.remove(&vm);
    pair.b.remove(&moved);
    assert!(!here.exists() && !there.exists());
}

/// Both disks hold the same; the first one's base is seen by both.
fn same_bytes(one: &Path, other: &Path) {
    let output = std::process::Command::new("qemu-img")
        .args(["compare", "-f", "qcow2", "-F", "qcow2"])
        .args([one, other])
        .output()
        .expect("qemu-img runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
}

/// A migration that does not end by itself is under way, at 1 MiB a second.
fn begins_slowly(pair: &mut Pair, vm: &VmDefinition) -> u64 {
    let [a, b] = names();
    let there = next(vm);
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    let slow = Migration { bandwidth: Some(1 << 20), ..migration(&there, &b) };
    let request = pair.a.submit(HypervisorCommand::Migrate(Box::new(slow)));
    pair.under_way(vm);
    request
}

/// It runs at its source as it was, and can be moved afterwards.
fn stays_and_can_move(pair: &mut Pair, vm: &VmDefinition, instance: &str) {
    let [a, b] = names();
    assert_eq!(pair.a.hands.instance(vm), instance, "the same guest");
    runs_on(&mut pair.a, vm);
    let there = next(vm);
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    moves(&mut pair.a, &there, &b);
    arrives(&mut pair.b, &there);
    qemu_io_after(pair, &there);
    pair.a.remove(vm);
}

/// What was to be moved is there, unbroken.
fn qemu_io_after(pair: &mut Pair, vm: &VmDefinition) {
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    pair.b.command(stop).expect("stopped");
    qemu_io(&pair.there(&dir(vm).join("data.qcow2")), "read -P 0x5a 0 48M");
    pair.b.remove(vm);
}

fn a_target_that_dies_leaves_the_vm_at_its_source(pair: &mut Pair) {
    let vm = counting(pair, "survives");
    pair.run_with_much_to_move(&vm);
    let instance = pair.a.hands.instance(&vm);
    let request = begins_slowly(pair, &vm);
    let file = |name: &str| std::env::var(name).expect("set by hack/libvirt-test");
    let pid = std::fs::read_to_string(file("DISCOVERY_TEST_SECOND_LIBVIRTD_PID_FILE"));
    kill(pid.expect("the second libvirtd runs").trim(), "KILL");
    let failure = pair.a.done(request).expect_err("its target is dead");
    println!("a dead target: {:?}: {failure}", failure.kind);
    pair.b.expect("the second libvirtd's return", |input| {
        use discovery::engine::input::HypervisorInput::Available;
        matches!(input, Available(true)).then_some(())
    });
    stays_and_can_move(pair, &vm, &instance);
}

fn a_tunnel_that_breaks_leaves_the_vm_at_its_source(pair: &mut Pair) {
    let vm = counting(pair, "untunnelled");
    pair.run_with_much_to_move(&vm);
    let instance = pair.a.hands.instance(&vm);
    let request = begins_slowly(pair, &vm);
    let carried = pair.overlays()[0].counters().counters()["net_tunnel_bytes_sent"];
    assert!(carried > 0, "it goes through tunnels");
    // The next other command withdraws the leave.
    pair.b.remove(&vm);
    let failure = pair.a.done(request).expect_err("its way is gone");
    println!("a broken tunnel: {:?}: {failure}", failure.kind);
    stays_and_can_move(pair, &vm, &instance);
}

fn a_migration_that_takes_too_long_is_given_up(pair: &mut Pair) {
    let [a, b] = names();
    let vm = counting(pair, "toolong");
    pair.run_with_much_to_move(&vm);
    let instance = pair.a.hands.instance(&vm);
    let there = next(&vm);
    assert_eq!(expect(&mut pair.b, &there, &a), Ok(None));
    let mut slow = Migration { bandwidth: Some(1 << 20), ..migration(&there, &b) };
    slow.limit = Duration::from_secs(3);
    let failure = migrate(&mut pair.a, slow).expect_err("it takes longer");
    assert_eq!(failure.kind, FailureKind::TimedOut, "{failure}");
    stays_and_can_move(pair, &vm, &instance);
}

fn half_filled_disks_are_never_used(pair: &mut Pair) {
    let vm = counting(pair, "halffilled");
    pair.run_with_much_to_move(&vm);
    let request = begins_slowly(pair, &vm);
    pair.a.tell(HypervisorCommand::AbortMigration(vm.id.clone()));
    pair.a.done(request).expect_err("given up");
    pair.a.remove(&vm);
    // Its handler thinks it lost, and has it made anew where it should have arrived.
    let seen = pair.b.run(&next(&vm));
    assert_eq!((seen.state, seen.edited), (DomainState::Running, None));
    let stop = HypervisorCommand::Stop { id: vm.id.clone(), grace: Duration::ZERO };
    pair.b.command(stop).expect("stopped");
    qemu_io(&pair.there(&dir(&vm).join("data.qcow2")), "read -P 0 0 64M");
    pair.b.remove(&vm);
}

fn a_linux_moves(pair: &mut Pair, guest: &Path) {
    let [a, b] = names();
    let mut vm = counting(pair, "linux");
    let file = |name: &str| image(pair, name, &std::fs::read(guest.join(name)).expect("built"));
    let cmdline = "console=ttyS0 name=linux".to_owned();
    vm.boot = Boot::Kernel { kernel: file("vmlinuz"), initrd: Some(file("initrd.img")), cmdline };
    vm.memory = 256 << 20;
    pair.a.run(&vm);
    let [here, there] = here_and_there(pair, &dir(&vm).join("console.log"));
    says(&here, "its ticks", |said| said.contains("linux ticks at"));
    let moved = next(&vm);
    assert_eq!(expect(&mut pair.b, &moved, &a), Ok(None));
    let figures = moves(&mut pair.a, &moved, &b);
    println!("a Linux of 256 MiB: {figures:?}");
    arrives(&mut pair.b, &moved);
    let after = says(&there, "its ticks", |said| said.contains("linux ticks at"));
    assert!(!after.contains("hello from"), "it did not boot again: {after}");
    runs_on(&mut pair.b, &moved);
    pair.a.remove(&vm);
    pair.b.remove(&moved);
}
