//! The image cache against a real HTTP server of a few lines, which can fail as servers do.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::LibvirtConfig;
use super::disks::backing_file;
use super::images::{ImageCache, Pinned};
use super::projection::hex;
use crate::engine::host::{Failure, FailureKind};
use crate::engine::spec::ImageSource;

/// How the server behaves.
#[derive(Clone, Copy, Debug, Default)]
struct Manners {
    /// Closes the connection after this many bytes of the body, in the first answer.
    breaks_after: Option<usize>,
    /// Knows the Range header.
    ranges: bool,
}

struct Server {
    url: String,
    requests: Arc<AtomicUsize>,
    /// Range headers in order, empty when there was none.
    ranges: Arc<Mutex<Vec<String>>>,
}

fn serve(body: Vec<u8>, manners: Manners) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/image", listener.local_addr().expect("an address"));
    let requests = Arc::new(AtomicUsize::new(0));
    let ranges = Arc::new(Mutex::new(Vec::new()));
    let (count, seen) = (requests.clone(), ranges.clone());
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let first = count.fetch_add(1, Ordering::SeqCst) == 0;
            let breaks = manners.breaks_after.filter(|_| first);
            let range = answer(stream, &body, manners.ranges, breaks);
            seen.lock().expect("unbroken").push(range);
        }
    });
    Server { url, requests, ranges }
}

fn answer(mut stream: TcpStream, body: &[u8], ranges: bool, breaks: Option<usize>) -> String {
    let mut range = String::new();
    for line in BufReader::new(&stream).lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("range: ") {
            range = value.to_owned();
        }
    }
    let from = range.strip_prefix("bytes=").and_then(|text| text.strip_suffix('-'));
    let from = from.and_then(|text| text.parse().ok()).filter(|_| ranges).unwrap_or(0);
    let rest = &body[from..];
    let head = if from > 0 {
        let (last, all) = (body.len() - 1, body.len());
        format!("HTTP/1.1 206 Partial\r\ncontent-range: bytes {from}-{last}/{all}\r\n")
    } else {
        "HTTP/1.1 200 OK\r\n".to_owned()
    };
    let head = format!("{head}content-length: {}\r\nconnection: close\r\n\r\n", rest.len());
    let sent = &rest[..breaks.unwrap_or(rest.len())];
    let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(sent));
    range
}

fn cache(dir: &tempfile::TempDir, limit: u64) -> ImageCache {
    let mut config = LibvirtConfig::new("test:///default", dir.path());
    config.image_cache_limit_bytes = limit;
    config.image_size_limit_bytes = 1 << 20;
    ImageCache::new(&config).expect("a cache")
}

fn tempdir() -> tempfile::TempDir {
    tempfile::tempdir().expect("a directory")
}

fn source(url: &str, body: Option<&[u8]>) -> ImageSource {
    ImageSource { url: url.to_owned(), sha256: body.map(|body| hex(&Sha256::digest(body))) }
}

fn get(cache: &ImageCache, source: &ImageSource) -> Result<Pinned, Failure> {
    cache.get(source, &|_| {})
}

fn bytes(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

fn partials(dir: &tempfile::TempDir) -> usize {
    fs::read_dir(dir.path().join("images/partial")).expect("readable").count()
}

#[test]
fn an_image_is_fetched_once_and_kept_under_its_digest() {
    let (dir, body) = (tempdir(), bytes(1, 300_000));
    let server = serve(body.clone(), Manners::default());
    for declared in [None, Some(body.as_slice())] {
        let image = get(&cache(&dir, 1 << 30), &source(&server.url, declared)).expect("fetched");
        assert_eq!(image.digest(), hex(&Sha256::digest(&body)));
        assert_eq!(fs::read(image.path()).expect("readable"), body);
    }
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
    assert_eq!(partials(&dir), 0);
}

#[test]
fn another_digest_than_declared_is_a_mismatch_and_leaves_nothing() {
    let dir = tempdir();
    let server = serve(bytes(1, 1000), Manners::default());
    let failure = get(&cache(&dir, 1 << 30), &source(&server.url, Some(b"other"))).err();
    assert_eq!(failure.map(|failure| failure.kind), Some(FailureKind::ImageMismatch));
    assert_eq!(partials(&dir), 0);
}

#[test]
fn a_broken_fetch_goes_on_where_it_broke() {
    let (dir, body) = (tempdir(), bytes(2, 300_000));
    let server = serve(body.clone(), Manners { breaks_after: Some(100_000), ranges: true });
    let source = source(&server.url, Some(&body));
    let failure = get(&cache(&dir, 1 << 30), &source).err().map(|failure| failure.kind);
    assert_eq!(failure, Some(FailureKind::ImageUnreachable), "the fault fired");
    assert_eq!(partials(&dir), 1, "what came is kept");
    // A new cache: what a crash leaves is only what is on disk.
    let image = get(&cache(&dir, 1 << 30), &source).expect("the rest");
    assert_eq!(fs::read(image.path()).expect("readable"), body);
    let ranges = server.ranges.lock().expect("unbroken");
    assert!(ranges.last().is_some_and(|range| range.starts_with("bytes=")), "{ranges:?}");
    assert_eq!(partials(&dir), 0);
}

#[test]
fn a_server_without_ranges_is_asked_for_all_again() {
    let (dir, body) = (tempdir(), bytes(3, 300_000));
    let server = serve(body.clone(), Manners { breaks_after: Some(100_000), ranges: false });
    let source = source(&server.url, Some(&body));
    assert!(get(&cache(&dir, 1 << 30), &source).is_err(), "the fault fired");
    let image = get(&cache(&dir, 1 << 30), &source).expect("all of it");
    assert_eq!(fs::read(image.path()).expect("readable"), body);
}

#[test]
fn a_beginning_of_another_image_is_thrown_away() {
    let (dir, body) = (tempdir(), bytes(4, 300_000));
    let server = serve(body.clone(), Manners { breaks_after: None, ranges: true });
    let source = source(&server.url, Some(&body));
    let cache = cache(&dir, 1 << 30);
    let key = source.sha256.clone().expect("declared");
    fs::write(dir.path().join("images/partial").join(key), bytes(9, 1000)).expect("planted");
    let image = get(&cache, &source).expect("from the start");
    assert_eq!(fs::read(image.path()).expect("readable"), body);
    assert_eq!(server.requests.load(Ordering::SeqCst), 2);
}

#[test]
fn many_who_want_one_image_fetch_it_once() {
    let (dir, body) = (tempdir(), bytes(5, 500_000));
    let server = serve(body.clone(), Manners::default());
    let (cache, source) = (cache(&dir, 1 << 30), source(&server.url, None));
    let start = Arc::new(Barrier::new(16));
    let threads: Vec<_> = (0..16)
        .map(|_| {
            let (cache, source, start) = (cache.clone(), source.clone(), start.clone());
            std::thread::spawn(move || {
                start.wait();
                get(&cache, &source).map(|image| fs::read(image.path()).expect("readable"))
            })
        })
        .collect();
    for thread in threads {
        assert_eq!(thread.join().expect("ends").expect("fetched"), body);
    }
    assert_eq!(server.requests.load(Ordering::SeqCst), 1);
}

#[test]
fn the_least_recently_used_go_and_what_is_needed_stays() {
    let dir = tempdir();
    let cache = cache(&dir, 3500);
    let mut images = Vec::new();
    for seed in 0..3 {
        let body = bytes(seed, 1000);
        let server = serve(body, Manners::default());
        let image = get(&cache, &source(&server.url, None)).expect("fetched");
        let age = Duration::from_secs(1000 - 100 * u64::from(seed));
        let file = fs::File::options().write(true).open(image.path()).expect("writable");
        file.set_modified(SystemTime::now() - age).expect("aged");
        images.push((image.digest().to_owned(), image.path().to_owned()));
    }
    // The oldest is what a disk is backed by, the next what a domain boots.
    let vm = dir.path().join("disks/uid/web-0");
    fs::create_dir_all(&vm).expect("a VM's directory");
    fs::write(vm.join("root.qcow2"), qcow2_over(&images[0].1)).expect("a disk");
    fs::write(vm.join("boot-images"), format!("{}\n", images[1].0)).expect("a note");
    let held = get(&cache, &source(&serve(bytes(7, 1000), Manners::default()).url, None));
    let held = held.expect("fetched");
    let there: Vec<bool> = images.iter().map(|(_, path)| path.exists()).collect();
    assert_eq!(there, [true, true, false], "the only one that nobody needs went");
    cache.make_room(1 << 20);
    assert!(held.path().exists(), "what a command holds stays");
    let path = held.path().to_owned();
    drop(held);
    cache.make_room(1 << 20);
    assert!(!path.exists(), "and goes when it is let go");
    assert!(images[0].1.exists() && images[1].1.exists());
}

fn qcow2_over(base: &std::path::Path) -> Vec<u8> {
    let name = base.to_string_lossy().into_owned().into_bytes();
    let mut header = b"QFI\xfb\0\0\0\x03".to_vec();
    header.extend(104_u64.to_be_bytes());
    header.extend((name.len() as u32).to_be_bytes());
    header.resize(104, 0);
    header.extend(name);
    header
}

#[test]
fn a_forgotten_beginning_is_removed_and_a_fresh_one_kept() {
    let dir = tempdir();
    let cache = cache(&dir, 1 << 30);
    for (name, hours) in [("old", 25), ("fresh", 1)] {
        let path = dir.path().join("images/partial").join(name);
        fs::write(&path, "x").expect("planted");
        let file = fs::File::options().write(true).open(&path).expect("writable");
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).expect("aged");
    }
    cache.make_room(0);
    assert!(dir.path().join("images/partial/fresh").exists());
    assert_eq!(partials(&dir), 1);
}

#[test]
fn a_backing_file_is_read_from_the_header() {
    let dir = tempdir();
    let (disk, base) = (dir.path().join("disk.qcow2"), dir.path().join("base"));
    fs::write(&base, bytes(0, 4096)).expect("a base");
    super::tool::create(&disk, 1 << 20, Some((&base, "raw"))).expect("a disk by qemu-img");
    let found = backing_file(&disk).expect("readable");
    assert_eq!(found.as_deref(), base.to_str());
    assert_eq!(backing_file(&base).expect("readable"), None);
}

#[test]
fn an_image_over_the_limit_is_refused_and_leaves_nothing() {
    let dir = tempdir();
    let server = serve(bytes(6, (1 << 20) + 1), Manners::default());
    let failure = get(&cache(&dir, 1 << 30), &source(&server.url, None)).err();
    assert_eq!(failure.map(|failure| failure.kind), Some(FailureKind::ImageUnusable));
    assert_eq!(partials(&dir), 0);
}

#[test]
fn a_source_that_cannot_be_understood_is_refused() {
    let dir = tempdir();
    let cache = cache(&dir, 1 << 30);
    for url in ["ftp://host/x", "file:///etc/passwd", "/etc/passwd", "file:///none/there"] {
        let failure = get(&cache, &source(url, None)).err().map(|failure| failure.kind);
        assert_eq!(failure, Some(FailureKind::ImageUnusable), "{url}");
    }
    let short = ImageSource { url: "http://x/".into(), sha256: Some("../../etc".into()) };
    let failure = get(&cache, &short).err().map(|failure| failure.kind);
    assert_eq!(failure, Some(FailureKind::ImageUnusable));
}
