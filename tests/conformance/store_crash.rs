//! What only a journal on a disk can go through: its process is killed, its disk is full, its file is
//! damaged, two processes want it.
//!
//! The processes that are killed are this test binary itself, started again with one test's name and
//! [`FOLDER`] set.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use discovery::agent::ports::{Store, StoreError};
use discovery::engine::record::Record;
use discovery::store::{Journal, codec};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

#[allow(dead_code, reason = "each suite takes what it needs")]
#[path = "samples.rs"]
mod samples;

/// Set in a process that this file starts: where its journal is.
const FOLDER: &str = "DISCOVERY_TEST_JOURNAL";
/// The journal's file.
const FILE: &str = "journal.redb";
/// Keys that each batch of the writer sets to the batch's number.
const KEYS: u32 = 24;
/// Numbers of batches that are kept beside; older ones are forgotten by the same batch.
const KEPT: u32 = 10;
/// How often the writer is killed.
const KILLS: u32 = 40;

/// Starts this binary with one test of it, in a folder.
fn start(test: &str, folder: &Path, wrapper: &[&str]) -> Child {
    let exe = std::env::current_exe().expect("this binary");
    let mut words: Vec<&std::ffi::OsStr> = wrapper.iter().map(AsRef::as_ref).collect();
    words.push(exe.as_os_str());
    Command::new(words[0])
        .args(&words[1..])
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(FOLDER, folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Writes batches for ever and says which are acknowledged. Only when it is started by the test below.
#[test]
fn writer() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let mut journal = Journal::open(Path::new(&folder).join(FILE)).expect("it opens");
    let begin = number(&journal.load().expect("it loads").into_iter().collect());
    for n in begin + 1.. {
        let value = n.to_be_bytes().repeat(500);
        let mut batch: Vec<_> =
            (0..KEYS).map(|key| (format!("key {key}").into_bytes(), Some(value.clone()))).collect();
        batch.push((format!("batch {n}").into_bytes(), Some(Vec::new())));
        if let Some(old) = n.checked_sub(KEPT) {
            batch.push((format!("batch {old}").into_bytes(), None));
        }
        journal.write(&batch).expect("it writes");
        println!("\nacknowledged {n}");
    }
}

/// The number of the batch that the pairs are of, checked to be whole; 0 for none.
fn number(pairs: &BTreeMap<Vec<u8>, Vec<u8>>) -> u32 {
    let Some(first) = pairs.get(b"key 0".as_slice()) else {
        assert!(pairs.is_empty(), "half a batch: {:?}", pairs.keys());
        return 0;
    };
    let n = u32::from_be_bytes(first[..4].try_into().expect("four bytes"));
    let mut wanted: BTreeMap<_, _> = (0..KEYS)
        .map(|key| (format!("key {key}").into_bytes(), n.to_be_bytes().repeat(500)))
        .collect();
    for kept in (n + 1).saturating_sub(KEPT).max(1)..=n {
        wanted.insert(format!("batch {kept}").into_bytes(), Vec::new());
    }
    assert!(*pairs == wanted, "half a batch {n}: {:?}", pairs.keys());
    n
}

#[test]
fn what_was_acknowledged_survives_a_kill_at_any_point_and_no_batch_is_half() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let mut rng = ChaCha8Rng::seed_from_u64(4);
    let mut unacknowledged = 0;
    for kill in 0..KILLS {
        let mut child = start("writer", folder.path(), &[]);
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut acknowledged = 0;
        let mut read = |line: String| {
            if let Some(n) = line.strip_prefix("acknowledged ") {
                acknowledged = n.parse().expect("a number");
                return true;
            }
            false
        };
        let mut waits = rng.random_range(1..30);
        while waits > 0 {
            let line = lines.next().expect("it writes on").expect("text");
            waits -= u32::from(read(line));
        }
        // Somewhere within the next batches, not always at an acknowledgement.
        for _ in 0..rng.random_range(0..200_000) {
            std::hint::spin_loop();
        }
        child.kill().expect("it runs");
        let status = child.wait().expect("it ends");
        assert_eq!(status.signal(), Some(9), "kill {kill} came too late: {status}");
        for line in lines {
            // The last line may be cut.
            line.map(&mut read).ok();
        }
        let mut journal = Journal::open(folder.path().join(FILE)).expect("it opens after a kill");
        let kept = number(&journal.load().expect("it loads").into_iter().collect());
        assert!(
            kept == acknowledged || kept == acknowledged + 1,
            "kill {kill}: {acknowledged} acknowledged, {kept} kept"
        );
        unacknowledged += kept - acknowledged;
    }
    println!("{KILLS} kills, {unacknowledged} of them between a commit and its acknowledgement");
}

/// Fills a small disk, finds it full, makes room. Only when it is started by the test below.
#[test]
fn filler() {
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let folder = Path::new(&folder);
    let mut journal = Journal::open(folder.join(FILE)).expect("it opens");
    let ballast = folder.join("ballast");
    std::fs::write(&ballast, vec![1; 1 << 20]).expect("room");
    let mut written = 0_u32;
    let full = loop {
        assert!(written < 10_000, "the disk is small");
        let change = (written.to_be_bytes().to_vec(), Some(vec![7; 20_000]));
        match journal.write(&[change]) {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, StoreError::Full { .. }), "{full}");
    let keys = |journal: &mut Journal| journal.load().map(|pairs| pairs.len());
    // Still full: nothing is lost, nothing is half-written, and it says so each time.
    let again = journal.write(&[(b"again".to_vec(), Some(vec![7; 200_000]))]);
    assert!(matches!(again, Err(StoreError::Full { .. })), "{again:?}");
    std::fs::remove_file(&ballast).expect("it is there");
    assert_eq!(keys(&mut journal).expect("readable"), written as usize);
    journal.write(&[(b"again".to_vec(), Some(vec![7; 200_000]))]).expect("room again");
    assert_eq!(keys(&mut journal).expect("readable"), written as usize + 1);
    println!("\nfull after {written}");
}

#[test]
fn a_full_disk_loses_nothing_and_writing_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    // A disk of our own: a small tmpfs, seen by the child only.
    let script = format!("mount -t tmpfs -o size=4m tmpfs ${FOLDER} && exec \"$@\"");
    let wrapper = ["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "sh"];
    let mut child = start("filler", folder.path(), &wrapper);
    let mut output = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut output).expect("text");
    assert!(child.wait().expect("it ends").success(), "{output}");
    assert!(output.contains("full after "), "the disk was never full: {output}");
}

#[test]
fn a_second_holder_is_refused_and_the_file_is_free_afterwards() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(FILE);
    let mut child = start("writer", folder.path(), &[]);
    let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
    while !lines.next().expect("it writes").expect("text").starts_with("acknowledged") {}
    let refused = Journal::open(&path).err();
    assert!(matches!(refused, Some(StoreError::Busy { .. })), "{refused:?}");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    let first = Journal::open(&path).expect("free");
    assert!(matches!(Journal::open(&path), Err(StoreError::Busy { .. })), "the same process");
    drop(first);
}

#[test]
fn a_file_that_is_no_journal_is_named_and_left_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(FILE);
    let text = "somebody's shopping list\n".repeat(1000);
    std::fs::write(&path, &text).expect("room");
    let error = Journal::open(&path).err().expect("refused");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error:?}");
    assert!(error.to_string().contains(FILE), "{error}");
    assert_eq!(std::fs::read_to_string(&path).expect("still there"), text);
}

#[test]
fn a_damaged_file_never_yields_another_record_than_was_written() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join(FILE);
    let written: Vec<_> = samples::kept()
        .into_iter()
        .map(|kept| codec::encode(&Record::Put(Box::new(kept))))
        .chain([codec::encode_peer(&samples::peer())])
        .collect();
    Journal::open(&path).expect("it opens").write(&written).expect("it writes");
    let whole = std::fs::read(&path).expect("readable");
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    // Most of the file is empty pages: aim at bytes that hold something.
    let used: Vec<usize> =
        whole.iter().enumerate().filter(|(_, byte)| **byte != 0).map(|(at, _)| at).collect();
    let (mut refused, mut found, mut unharmed, mut older) = (0, 0, 0, 0);
    for _ in 0..300 {
        let mut bytes = whole.clone();
        bytes[used[rng.random_range(0..used.len())]] ^= 1 << rng.random_range(0..8);
        std::fs::write(&path, bytes).expect("room");
        let pairs = match Journal::open(&path).and_then(|mut journal| journal.load()) {
            Ok(pairs) => pairs,
            Err(StoreError::Damaged { .. } | StoreError::Io { .. }) => {
                refused += 1;
                continue;
            }
            Err(other) => panic!("{other}"),
        };
        let mut intact = 0;
        for (key, value) in &pairs {
            if codec::decode_any(key, value).is_ok() {
                let written = written.iter().find(|(other, _)| other == key);
                assert_eq!(written.and_then(|(_, value)| value.as_ref()), Some(value));
                intact += 1;
            }
        }
        match (pairs.len(), intact) {
            // The damaged commit is not taken for one: redb goes back to the one before it, a whole one.
            (0, _) => older += 1,
            (all, intact) if all == written.len() && intact == all => unharmed += 1,
            (all, intact) => {
                assert!(all == written.len() && intact < all, "{all} pairs, {intact} intact");
                found += 1;
            }
        }
    }
    println!(
        "300 flipped bits: {refused} refused, {found} found by checksum, {older} went back by a commit, {unharmed} unharmed"
    );
    assert!(refused + found > 0, "the damage had no effect");
}
