//! Fetching one image: http, https or file, hashed while it streams, continued after a crash.
//!
//! Only a source with a declared SHA-256 is continued: what two answers of a server put together is
//! then proven to be right. The others begin anew.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use ureq::Agent;

use super::LibvirtConfig;
use super::images::io_failure;
use super::projection::hex;
use crate::engine::host::{Failure, FailureKind};

/// Told now and then how far it is.
pub type Progress<'a> = &'a (dyn Fn(String) + Sync);

/// A server must accept a connection within this.
const CONNECT: Duration = Duration::from_secs(15);
/// A server must begin to answer within this.
const ANSWER: Duration = Duration::from_secs(30);
/// A server that sends nothing for this long has stopped; what came is kept to go on from.
const SILENCE: Duration = Duration::from_secs(30);
/// How often progress is told.
const TELL_EVERY: Duration = Duration::from_secs(3);
/// Read at once, bytes.
const CHUNK: usize = 256 << 10;

/// Fetches.
#[derive(Debug)]
pub struct Fetcher {
    agent: Agent,
    size_limit: u64,
    file_roots: Vec<PathBuf>,
}

/// A source that is open.
struct Body {
    reader: Box<dyn Read>,
    /// Where in the image it begins.
    from: u64,
    /// Size of the whole image, if it is known.
    total: Option<u64>,
}

impl Fetcher {
    /// With the limits of a configuration.
    pub fn new(config: &LibvirtConfig) -> Self {
        let agent = Agent::config_builder()
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(ANSWER))
            .timeout_per_read(Some(SILENCE))
            .http_status_as_error(false)
            .user_agent(concat!("discovery/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        Self {
            agent,
            size_limit: config.image_size_limit_bytes,
            file_roots: config.file_roots.clone(),
        }
    }

    /// Fetches into `partial`, complete and on disk when it returns the digest. After a failure,
    /// `partial` is only left behind when a later fetch can go on from it.
    pub fn fetch(
        &self,
        url: &str,
        declared: Option<&str>,
        partial: &Path,
        room: &dyn Fn(u64),
        progress: Progress<'_>,
    ) -> Result<String, Failure> {
        let mut begun = declared.map_or(0, |_| fs::metadata(partial).map_or(0, |m| m.len()));
        loop {
            let fetched = self.stream(url, begun, partial, room, progress);
            let mismatch = |digest: &str| declared.is_some_and(|declared| declared != digest);
            match fetched {
                Ok((digest, from)) if mismatch(&digest) => {
                    let _ = fs::remove_file(partial);
                    if from > 0 {
                        // The beginning was of another image than the end: once more, from the start.
                        begun = 0;
                        continue;
                    }
                    let message = format!(
                        "{url} has SHA-256 {digest}, declared {}",
                        declared.unwrap_or_default()
                    );
                    return Err(Failure { kind: FailureKind::ImageMismatch, message });
                }
                Ok((digest, _)) => return Ok(digest),
                Err(failure) => {
                    if declared.is_none() || failure.kind != FailureKind::ImageUnreachable {
                        let _ = fs::remove_file(partial);
                    }
                    return Err(failure);
                }
            }
        }
    }

    /// Streams the rest of an image behind the first `begun` bytes of `partial`, or all of it when the
    /// source cannot begin there. Returns the digest of all and where the stream began.
    fn stream(
        &self,
        url: &str,
        begun: u64,
        partial: &Path,
        room: &dyn Fn(u64),
        progress: Progress<'_>,
    ) -> Result<(String, u64), Failure> {
        let disk = |error: io::Error| io_failure(partial, &error);
        let mut body = self.open(url, begun)?;
        let from = body.from;
        self.bound(url, body.total.unwrap_or(0))?;
        room(body.total.unwrap_or(0).saturating_sub(from));
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(from == 0)
            .open(partial)
            .map_err(disk)?;
        let mut hash = Sha256::new();
        let mut chunk = vec![0; CHUNK];
        let mut had = 0;
        while had < from {
            let most = usize::try_from(from - had).unwrap_or(CHUNK).min(CHUNK);
            file.read_exact(&mut chunk[..most]).map_err(disk)?;
            hash.update(&chunk[..most]);
            had += most as u64;
        }
        file.set_len(from).and_then(|()| file.seek(SeekFrom::Start(from))).map_err(disk)?;
        let mut told = Instant::now();
        loop {
            let got = match body.reader.read(&mut chunk) {
                Ok(0) => break,
                Ok(got) => got,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreachable(url, &error.to_string())),
            };
            had += got as u64;
            self.bound(url, had)?;
            hash.update(&chunk[..got]);
            file.write_all(&chunk[..got]).map_err(disk)?;
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                progress(how_far(url, had, body.total));
            }
        }
        if let Some(total) = body.total
            && had < total
        {
            return Err(unreachable(url, &format!("it ended after {had} of {total} bytes")));
        }
        file.sync_all().map_err(disk)?;
        Ok((hex(&hash.finalize()), from))
    }

    fn bound(&self, url: &str, bytes: u64) -> Result<(), Failure> {
        if bytes <= self.size_limit {
            return Ok(());
        }
        let message = format!("{url} is larger than the {} bytes allowed here", self.size_limit);
        Err(Failure { kind: FailureKind::ImageUnusable, message })
    }

    fn open(&self, url: &str, begun: u64) -> Result<Body, Failure> {
        match url.split_once("://") {
            Some(("http" | "https", _)) => self.open_http(url, begun),
            Some(("file", path)) => self.open_file(url, Path::new(path)),
            _ => Err(unusable(format!("{url}: http, https and file are understood"))),
        }
    }

    fn open_http(&self, url: &str, begun: u64) -> Result<Body, Failure> {
        let mut request = self.agent.get(url);
        if begun > 0 {
            request = request.header("range", format!("bytes={begun}-"));
        }
        let answer = request.call().map_err(|error| unreachable(url, &error.to_string()))?;
        let status = answer.status().as_u16();
        let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let length = header("content-length").and_then(|text| text.parse::<u64>().ok());
        let begins = header("content-range")
            .and_then(|text| text.strip_prefix("bytes "))
            .and_then(|text| text.split('-').next())
            .and_then(|text| text.parse::<u64>().ok());
        let from = match status {
            200 => 0,
            206 if begins == Some(begun) => begun,
            // Nothing is left to send, or another image is there now: from the start.
            206 | 416 if begun > 0 => return self.open_http(url, 0),
            _ => return Err(unreachable(url, &format!("the server answers {status}"))),
        };
        let total = length.map(|length| length.saturating_add(from));
        // No limit of its own: ours is checked while streaming.
        let reader = answer.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(Body { reader: Box::new(reader), from, total })
    }

    /// Only below the allowed directories, links resolved.
    fn open_file(&self, url: &str, path: &Path) -> Result<Body, Failure> {
        let unreachable = |error: io::Error| unreachable(url, &error.to_string());
        let allowed = |path: &Path| {
            let mut roots = self.file_roots.iter().filter_map(|root| root.canonicalize().ok());
            roots.any(|root| path.starts_with(root))
        };
        // Without a hint whether a file outside of the roots exists.
        let forbidden = || {
            unusable(format!("{url}: files are read below the directories that the agent allows"))
        };
        let plain =
            path.is_absolute() && path.components().all(|part| part != Component::ParentDir);
        let path = match path.canonicalize() {
            Ok(path) if allowed(&path) => path,
            Err(error) if plain && path.ancestors().any(allowed) => return Err(unreachable(error)),
            _ => return Err(forbidden()),
        };
        let file = File::open(&path).map_err(unreachable)?;
        let metadata = file.metadata().map_err(unreachable)?;
        if !metadata.is_file() {
            return Err(unusable(format!("{url} is not a plain file")));
        }
        Ok(Body { reader: Box::new(file), from: 0, total: Some(metadata.len()) })
    }
}

fn how_far(url: &str, had: u64, total: Option<u64>) -> String {
    let mib = |bytes: u64| bytes >> 20;
    match total {
        Some(total) if total > 0 => {
            let percent = had.saturating_mul(100) / total;
            format!("fetches {url}: {percent} % of {} MiB", mib(total))
        }
        _ => format!("fetches {url}: {} MiB so far", mib(had)),
    }
}

fn unreachable(url: &str, why: &str) -> Failure {
    Failure { kind: FailureKind::ImageUnreachable, message: format!("cannot fetch {url}: {why}") }
}

fn unusable(message: String) -> Failure {
    Failure { kind: FailureKind::ImageUnusable, message }
}
