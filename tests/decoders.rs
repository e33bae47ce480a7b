//! The decoders of what others wrote: the seeds of the fuzz targets, and a bounded run of the targets'
//! checks over mutations of them, the same in each run.
//!
//! After a change of what is sent or kept, `DISCOVERY_UPDATE_SEEDS=1 cargo test --test decoders` writes the
//! seeds anew.

use std::path::PathBuf;

use discovery::engine::record::Record;
use discovery::engine::wire::{MAX_MESSAGE, Message, VERSION};
use discovery::net::codec as frames;
use discovery::net::codec::{DecodeError, EncodeError};
use discovery::store::codec as records;
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

#[path = "fuzz/oracles.rs"]
mod oracles;
#[allow(dead_code, reason = "each suite takes what it needs")]
#[path = "conformance/samples.rs"]
mod samples;

/// Mutated inputs per target; some seconds in a debug build.
const MUTATIONS: usize = 60_000;
/// How postcard tells [`Message::Observed`].
const OBSERVED: u8 = 14;
/// Longest mutated input, bytes.
const LONGEST: usize = 4096;

fn message_seeds() -> Vec<Vec<u8>> {
    samples::messages().iter().map(|m| frames::encode(m).expect("a frame")).collect()
}

fn record_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    let mut add = |kind: u8, (key, value): records::Change| {
        let value = value.expect("it is put");
        let length = u8::try_from(key.len()).expect("a short key");
        seeds.push([&[oracles::PAIR, length], &key[..], &value].concat());
        // Behind version and checksum.
        seeds.push([&[kind], &value[33..]].concat());
    };
    for kept in samples::kept() {
        add(oracles::KEPT, records::encode(&Record::Put(Box::new(kept))));
    }
    add(oracles::PEER, records::encode_peer(&samples::peer()));
    seeds
}

/// Compares the seeds on disk with what they should be, or writes them.
fn check_seeds(target: &str, seeds: &[Vec<u8>]) {
    let folder: PathBuf =
        [env!("CARGO_MANIFEST_DIR"), "tests/fuzz/corpus", target].iter().collect();
    let update = std::env::var_os("DISCOVERY_UPDATE_SEEDS").is_some();
    std::fs::create_dir_all(&folder).expect("a folder");
    for (index, seed) in seeds.iter().enumerate() {
        let file = folder.join(format!("seed-{index:02}"));
        if update {
            std::fs::write(&file, seed).expect("room");
        }
        let kept = std::fs::read(&file).unwrap_or_default();
        assert!(kept == *seed, "{} is not the seed: see the head of this test", file.display());
    }
}

#[test]
fn the_seeds_on_disk_are_what_real_values_encode_to() {
    check_seeds("decode_message", &message_seeds());
    check_seeds("decode_record", &record_seeds());
}

/// One random change, of the kinds that find bugs in decoders.
fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
    let at = rng.random_range(0..=bytes.len());
    match rng.random_range(0..7) {
        0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
        1 if at < bytes.len() => bytes[at] = rng.random_range(0..=255),
        2 => bytes.truncate(at),
        3 => bytes.insert(at, rng.random_range(0..=255)),
        // A long number where a short one was.
        4 => drop(bytes.splice(at..at, [0xff; 9].into_iter().chain([1]))),
        5 if at < bytes.len() => drop(bytes.remove(at)),
        _ => {
            let other = &others[rng.random_range(0..others.len())];
            let from = rng.random_range(0..=other.len());
            bytes.truncate(at);
            bytes.extend_from_slice(&other[from..]);
        }
    }
    bytes.truncate(LONGEST);
}

/// Gives an oracle the seeds and mutations of them; returns how many mutations it accepted.
fn hammer(seed: u64, seeds: &[Vec<u8>], repair: fn(&mut [u8]), oracle: fn(&[u8]) -> bool) -> usize {
    for bytes in seeds {
        assert!(oracle(bytes), "a seed is not accepted");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut accepted = 0;
    for _ in 0..MUTATIONS {
        let mut bytes = seeds[rng.random_range(0..seeds.len())].clone();
        for _ in 0..rng.random_range(1..4) {
            mutate(&mut rng, &mut bytes, seeds);
        }
        // Mostly with an honest length: otherwise little gets past the header.
        if rng.random_range(0..8) > 0 {
            repair(&mut bytes);
        }
        accepted += usize::from(oracle(&bytes));
    }
    accepted
}

fn repair_frame(bytes: &mut [u8]) {
    if bytes.len() >= frames::HEADER {
        let length = u32::try_from(bytes.len() - 4).expect("short");
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        bytes[4] = VERSION;
    }
}

#[test]
fn mutated_frames_end_in_a_message_within_bounds_or_in_an_error() {
    let accepted = hammer(1, &message_seeds(), repair_frame, oracles::message);
    assert!((1000..MUTATIONS - 1000).contains(&accepted), "{accepted} of {MUTATIONS} accepted");
}

#[test]
fn mutated_records_end_in_a_record_or_in_an_error() {
    let accepted = hammer(2, &record_seeds(), |_| {}, oracles::record);
    assert!((1000..MUTATIONS - 1000).contains(&accepted), "{accepted} of {MUTATIONS} accepted");
}

/// A frame around a body.
fn framed(body: &[u8]) -> Vec<u8> {
    let mut frame = vec![0; frames::HEADER];
    frame.extend_from_slice(body);
    repair_frame(&mut frame);
    frame
}

#[test]
fn a_frame_says_what_is_wrong_with_it() {
    let good = frames::encode(&Message::Swim(vec![1, 2, 3])).expect("a frame");
    assert_eq!(frames::decode(&good), Ok(Message::Swim(vec![1, 2, 3])));
    let wrong = |bytes: &[u8]| frames::decode(bytes).expect_err("no message");
    assert_eq!(wrong(&[]), DecodeError::TooShort);
    assert_eq!(wrong(&good[..4]), DecodeError::TooShort);
    assert_eq!(wrong(&good[..good.len() - 1]), DecodeError::TooShort);
    assert_eq!(wrong(&[&good[..], &[0]].concat()), DecodeError::Trailing(1));
    assert_eq!(wrong(&[0, 0, 0, 0, VERSION]), DecodeError::TooShort);
    assert_eq!(wrong(&[0xff; 5]), DecodeError::TooLong(u32::MAX as usize - 1));
    let mut newer = good.clone();
    newer[4] = VERSION + 1;
    assert_eq!(wrong(&newer), DecodeError::Version(VERSION + 1));
    newer[4] = 0;
    assert_eq!(wrong(&newer), DecodeError::Version(0));
    // The message is shorter than its frame.
    assert_eq!(wrong(&framed(&[0, 1, 7, 7])), DecodeError::Trailing(1));
    assert!(matches!(wrong(&framed(&[200])), DecodeError::Layout(_)));
    let long = Message::Swim(vec![0; MAX_MESSAGE]);
    assert!(matches!(frames::encode(&long), Err(EncodeError::TooLong(_))));
}

#[test]
fn every_version_that_is_promised_is_read() {
    for version in frames::OLDEST_VERSION..=VERSION {
        for mut frame in message_seeds() {
            frame[4] = version;
            assert!(frames::decode(&frame).is_ok(), "version {version}");
        }
    }
}

#[test]
fn a_coordinate_that_is_no_number_is_out_of_bounds() {
    let ping = samples::messages().into_iter().find(|m| matches!(m, Message::Ping { .. }));
    let Some(Message::Ping { sent, mut state }) = ping else { panic!("no ping among the samples") };
    state.coordinate.height = f64::NAN;
    let frame = frames::encode(&Message::Ping { sent, state }).expect("a frame");
    assert!(matches!(frames::decode(&frame), Err(DecodeError::Bounds(_))));
}

#[test]
fn a_list_of_millions_of_tiny_elements_is_given_up_before_it_fills_memory() {
    // `Observed` with as many VMs as fit, each of them as small as its bytes allow.
    let empty_vm = [0; 13];
    let count = (MAX_MESSAGE - 20) / empty_vm.len();
    let mut body = vec![OBSERVED, 0, 0, 0, 0];
    let mut rest = count;
    while rest >= 0x80 {
        body.push((rest as u8 & 0x7f) | 0x80);
        rest >>= 7;
    }
    body.push(rest as u8);
    body.extend(empty_vm.iter().cycle().take(count * empty_vm.len()));
    assert_eq!(frames::decode(&framed(&body)), Err(DecodeError::TooManyParts));
}

#[test]
fn a_list_that_claims_more_elements_than_bytes_is_an_error_at_once() {
    for variant in 0..=OBSERVED {
        let claims = [&[variant][..], &[0xff; 9], &[1]].concat();
        assert!(frames::decode(&framed(&claims)).is_err());
    }
}

#[test]
fn a_record_says_what_is_wrong_with_it() {
    let record = Record::Put(Box::new(samples::kept().remove(1)));
    let (key, Some(value)) = records::encode(&record) else { panic!("it is put") };
    let wrong = |key: &[u8], value: &[u8]| records::decode(key, value).expect_err("no record");
    use records::DecodeError as Wrong;
    assert_eq!(wrong(&[], &value), Wrong::UnknownKind);
    assert_eq!(wrong(b"x", &value), Wrong::UnknownKind);
    assert_eq!(wrong(&key, &[]), Wrong::TooShort);
    assert_eq!(wrong(&key, &value[..20]), Wrong::TooShort);
    assert_eq!(wrong(&key, &value[..value.len() - 1]), Wrong::Checksum);
    let mut newer = value.clone();
    newer[0] = 9;
    assert_eq!(wrong(&key, &newer), Wrong::Version(9));
    for at in 1..value.len() {
        let mut torn = value.clone();
        torn[at] ^= 0x10;
        assert_eq!(wrong(&key, &torn), Wrong::Checksum, "byte {at}");
    }
    // Another key's value.
    let mut other = key.clone();
    *other.last_mut().expect("a key") ^= 1;
    assert_eq!(wrong(&other, &value), Wrong::Checksum);
    let (peer_key, peer) = records::encode_peer(&samples::peer());
    assert_eq!(wrong(&peer_key, &peer.expect("it is put")), Wrong::UnknownKind);
}

#[test]
fn keys_tell_records_apart_and_forgetting_names_the_same_key() {
    let kept = samples::kept();
    let mut keys: Vec<_> =
        kept.iter().map(|k| records::encode(&Record::Put(Box::new(k.clone()))).0).collect();
    for (kept, key) in kept.iter().zip(&keys) {
        assert_eq!(records::encode(&Record::Forget(kept.key())), (key.clone(), None));
    }
    let peer = samples::peer();
    let (key, _) = records::encode_peer(&peer);
    assert_eq!(records::forget_peer(&peer.node), (key.clone(), None));
    keys.push(key);
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), kept.len() + 1);
}
