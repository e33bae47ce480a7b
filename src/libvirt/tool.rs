//! qemu-img as a process: with a time limit, and little to spend.
//!
//! Images come from strangers and qemu-img reads them: it gets a limited address space and processor
//! time, so that a crafted image costs at most that.

use std::ffi::OsStr;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::engine::host::{Failure, FailureKind};

/// qemu-img reads and writes headers here, never whole images.
const LIMIT: Duration = Duration::from_secs(60);
/// How often a running process is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// Bytes of output that are read; `info` of an image is a few hundred.
const OUTPUT: u64 = 1 << 20;
/// Address space, bytes, and processor time, seconds (OpenStack's limits for the same purpose).
const MEMORY: u64 = 1 << 30;
const CPU: u64 = 30;

/// What qemu-img says of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageInfo {
    /// qemu's word for the format.
    pub format: String,
    /// Bytes that a guest sees.
    pub virtual_size: u64,
    /// It refers to another file (backing file or external data).
    pub refers_elsewhere: bool,
}

/// Asks for an image's format and size.
///
/// # Errors
/// When qemu-img refuses it or is not there.
pub fn info(path: &Path, format: Option<&str>) -> Result<ImageInfo, Failure> {
    let mut arguments: Vec<&OsStr> = vec!["info".as_ref(), "-U".as_ref(), "--output=json".as_ref()];
    if let Some(format) = format {
        arguments.extend::<[&OsStr; 2]>(["-f".as_ref(), format.as_ref()]);
    }
    arguments.push(path.as_os_str());
    let output = qemu_img(&arguments)?;
    let unusable = || Failure {
        kind: FailureKind::ImageUnusable,
        message: format!("qemu-img does not understand {}", path.display()),
    };
    let value: Value = serde_json::from_slice(&output).map_err(|_| unusable())?;
    let format = value["format"].as_str().ok_or_else(unusable)?.to_owned();
    let virtual_size = value["virtual-size"].as_u64().ok_or_else(unusable)?;
    let data_file = &value["format-specific"]["data"]["data-file"];
    let refers_elsewhere = !value["backing-filename"].is_null() || !data_file.is_null();
    Ok(ImageInfo { format, virtual_size, refers_elsewhere })
}

/// Makes a qcow2 disk of `size` bytes, over `base` (path and format) if there is one.
///
/// # Errors
/// As qemu-img says; a full disk is told apart.
pub fn create(path: &Path, size: u64, base: Option<(&Path, &str)>) -> Result<(), Failure> {
    let size = size.to_string();
    let mut arguments: Vec<&OsStr> = vec!["create".as_ref(), "-q".as_ref(), "-f".as_ref()];
    arguments.push("qcow2".as_ref());
    if let Some((base, format)) = base {
        arguments.extend::<[&OsStr; 4]>([
            "-b".as_ref(),
            base.as_os_str(),
            "-F".as_ref(),
            format.as_ref(),
        ]);
    }
    arguments.extend::<[&OsStr; 2]>([path.as_os_str(), size.as_ref()]);
    qemu_img(&arguments).map(drop)
}

fn qemu_img(arguments: &[&OsStr]) -> Result<Vec<u8>, Failure> {
    let refused = |message: String| Failure { kind: FailureKind::Refused, message };
    // prlimit sets the limits between fork and exec without unsafe code here.
    let mut child = Command::new("prlimit")
        .args([format!("--as={MEMORY}"), format!("--cpu={CPU}"), "--".into(), "qemu-img".into()])
        .args(arguments)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| refused(format!("cannot start qemu-img: {error}")))?;
    let (output, said) = (child.stdout.take(), child.stderr.take());
    let output = std::thread::spawn(move || drain(output));
    let said = std::thread::spawn(move || drain(said));
    let deadline = Instant::now() + LIMIT;
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break status,
            Ok(None) if Instant::now() < deadline => std::thread::sleep(LOOK_EVERY),
            Ok(None) => {
                let _ = child.kill();
                let _ = child.wait();
                let message = format!("qemu-img took longer than {LIMIT:?}");
                return Err(Failure { kind: FailureKind::TimedOut, message });
            }
            Err(error) => return Err(refused(format!("cannot wait for qemu-img: {error}"))),
        }
    };
    let output = output.join().unwrap_or_default();
    let said = String::from_utf8_lossy(&said.join().unwrap_or_default()).trim().to_owned();
    if status.success() {
        return Ok(output);
    }
    let kind = if said.contains("No space left on device") {
        FailureKind::StorageFull
    } else {
        FailureKind::Refused
    };
    Err(Failure { kind, message: format!("qemu-img failed ({status}): {said}") })
}

fn drain(stream: Option<impl Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        let _ = stream.take(OUTPUT).read_to_end(&mut bytes);
    }
    bytes
}
