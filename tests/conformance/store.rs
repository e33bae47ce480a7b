//! One suite for the `Store` port, run on the fake and on the real thing; and what only a file can do:
//! lose its process, be damaged, be full.

use discovery::agent::memory_store::MemoryStore;
use discovery::agent::ports::{Store, StoreError};
use discovery::store::Journal;

type Pair = (Vec<u8>, Vec<u8>);
type Batch = Vec<(Vec<u8>, Option<Vec<u8>>)>;

/// What the suite needs of a store: to be opened again and again on the same content.
trait Disk {
    fn open(&self) -> Box<dyn Store>;
}

struct Memory(MemoryStore);

impl Disk for Memory {
    fn open(&self) -> Box<dyn Store> {
        Box::new(self.0.clone())
    }
}

struct Folder(tempfile::TempDir);

impl Disk for Folder {
    fn open(&self) -> Box<dyn Store> {
        Box::new(Journal::open(self.0.path().join("journal.redb")).expect("the journal opens"))
    }
}

fn disks() -> Vec<(&'static str, Box<dyn Disk>)> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    vec![("memory", Box::new(Memory(MemoryStore::new()))), ("redb", Box::new(Folder(folder)))]
}

fn put(key: &str, value: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), Some(value.into()))
}

fn forget(key: &str) -> (Vec<u8>, Option<Vec<u8>>) {
    (key.into(), None)
}

fn pair(key: &str, value: &str) -> Pair {
    (key.into(), value.into())
}

#[test]
fn a_new_store_is_empty() {
    for (name, disk) in disks() {
        assert_eq!(disk.open().load().expect(name), [], "{name}");
    }
}

#[test]
fn what_was_written_is_there_after_reopening_in_key_order() {
    for (name, disk) in disks() {
        let mut store = disk.open();
        store.write(&[put("b", "2"), put("c", "3")]).expect(name);
        store.write(&[put("a", "1"), put("", "empty key"), put("e", "")]).expect(name);
        drop(store);
        let wanted =
            [pair("", "empty key"), pair("a", "1"), pair("b", "2"), pair("c", "3"), pair("e", "")];
        assert_eq!(disk.open().load().expect(name), wanted, "{name}");
    }
}

#[test]
fn a_later_value_replaces_an_earlier_one_also_within_a_batch() {
    for (name, disk) in disks() {
        let mut store = disk.open();
        store.write(&[put("a", "1"), put("b", "1")]).expect(name);
        store.write(&[put("a", "2"), put("a", "3"), forget("b"), put("b", "4")]).expect(name);
        assert_eq!(store.load().expect(name), [pair("a", "3"), pair("b", "4")], "{name}");
    }
}

#[test]
fn a_forgotten_key_is_gone_and_forgetting_an_unknown_one_is_no_error() {
    for (name, disk) in disks() {
        let mut store = disk.open();
        store.write(&[put("a", "1"), put("b", "2")]).expect(name);
        store.write(&[forget("a"), forget("never")]).expect(name);
        drop(store);
        assert_eq!(disk.open().load().expect(name), [pair("b", "2")], "{name}");
    }
}

#[test]
fn an_empty_batch_changes_nothing() {
    for (name, disk) in disks() {
        let mut store = disk.open();
        store.write(&[put("a", "1")]).expect(name);
        store.write(&[]).expect(name);
        assert_eq!(store.load().expect(name), [pair("a", "1")], "{name}");
    }
}

#[test]
fn a_batch_of_thousands_of_records_and_a_long_value_fit() {
    for (name, disk) in disks() {
        let mut batch: Batch = (0..5_000_u32)
            .map(|i| (i.to_be_bytes().to_vec(), Some(vec![(i % 251) as u8; 300])))
            .collect();
        batch.push((b"long".to_vec(), Some(vec![7; 3 << 20])));
        let mut store = disk.open();
        store.write(&batch).expect(name);
        drop(store);
        let kept = disk.open().load().expect(name);
        let mut wanted: Vec<Pair> =
            batch.into_iter().map(|(k, v)| (k, v.expect("only puts"))).collect();
        wanted.sort();
        assert!(kept == wanted, "{name}");
    }
}

#[test]
fn a_full_memory_store_changes_nothing_and_works_again() {
    let disk = MemoryStore::new();
    let mut store = disk.clone();
    store.write(&[put("a", "1")]).expect("room");
    disk.set_full(true);
    assert!(matches!(store.write(&[put("a", "2")]), Err(StoreError::Full { .. })));
    assert_eq!(store.load().expect("readable"), [pair("a", "1")]);
    disk.set_full(false);
    store.write(&[put("a", "2")]).expect("room again");
    assert_eq!(store.load().expect("readable"), [pair("a", "2")]);
}
