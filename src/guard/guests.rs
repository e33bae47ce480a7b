//! The QEMU processes of ours on this node: found, held by pidfd, ended.
//!
//! While VMs may run, what libvirt's run directory says (`<domain>.xml`: whose it is, its uuid and pid) is looked at every
//! second, and each process is held by a pidfd. So the moment it matters needs no file system and no libvirtd: the first thing
//! that a lapse does is a signal to each pidfd. Only then does it look at every process of the node, for those that libvirt has
//! no file of (yet).
//!
//! Nobody else's process is ever touched: it must have been started with `-uuid` and a uuid of ours, at the pid that is held.
//! Ours is a uuid that the metadata in a status file, or the place of a disk on the command line, leads to (`agent::ours`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::str;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::agent::ours::{XMLNS, uuid_of};
use crate::engine::id::VmId;

/// Room for a command line or a status file, made once.
const ROOM: usize = 128 << 10;
/// A longer status file or command line is nobody's of ours, and would only cost time.
const LONGEST: u64 = 4 << 20;
/// Uuids remembered; more VMs than any node ever had.
const REMEMBERED: usize = 100_000;

/// Those of ours.
#[derive(Debug)]
pub struct Guests {
    run_dir: PathBuf,
    /// Uuids of ours that were seen.
    ours: BTreeSet<String>,
    /// Processes that had not ended when last looked at.
    held: BTreeMap<i32, OwnedFd>,
    room: Vec<u8>,
    /// One could not be ended, and it was said.
    failed: bool,
}

impl Guests {
    /// None yet.
    pub fn new(run_dir: PathBuf) -> Self {
        let room = Vec::with_capacity(ROOM);
        Self { run_dir, ours: BTreeSet::new(), held: BTreeMap::new(), room, failed: false }
    }

    /// Whether one is held.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// What to wait for: each becomes readable when its process has ended.
    pub fn fds(&self) -> impl Iterator<Item = &OwnedFd> {
        self.held.values()
    }

    /// Holds what libvirt's status files tell of.
    pub fn look(&mut self) -> io::Result<()> {
        let entries = match fs::read_dir(&self.run_dir) {
            Ok(entries) => entries,
            // No libvirtd has run since the machine booted.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for path in entries.flatten().map(|entry| entry.path()) {
            if path.extension().is_none_or(|extension| extension != "xml") {
                continue;
            }
            let Ok(file) = File::open(&path) else { continue };
            let Some(text) = read(&mut self.room, file) else { continue };
            let Some(status) = str::from_utf8(text).ok().and_then(Status::of) else { continue };
            let Status { uuid, pid } = status;
            if self.ours.len() < REMEMBERED {
                self.ours.insert(uuid);
            }
            if let Some(pid) = pid {
                self.hold(pid);
            }
        }
        Ok(())
    }

    /// The same, and every process of the node.
    pub fn look_everywhere(&mut self) -> io::Result<()> {
        let looked = self.look();
        for entry in fs::read_dir("/proc")?.flatten() {
            let name = entry.file_name();
            if let Some(pid) = name.to_str().and_then(|name| name.parse().ok())
                && self.is_ours(pid)
            {
                self.hold(pid);
            }
        }
        looked
    }

    /// Whether this process was started for a domain of ours.
    fn is_ours(&mut self, pid: i32) -> bool {
        // It has ended, most likely.
        let Ok(file) = File::open(format!("/proc/{pid}/cmdline")) else { return false };
        let Some(line) = read(&mut self.room, file) else { return false };
        let Some(uuid) = uuid_argument(line) else { return false };
        self.ours.contains(uuid) || disks_of(line).any(|id| uuid_of(&id).to_string() == uuid)
    }

    fn hold(&mut self, pid: i32) {
        let Some(process) = Pid::from_raw(pid).filter(|_| !self.held.contains_key(&pid)) else {
            return;
        };
        // Held first and read afterwards: a pid that is given to another process in between is not what is held.
        let Ok(held) = pidfd_open(process, PidfdFlags::empty()) else { return };
        if self.is_ours(pid) {
            self.held.insert(pid, held);
        }
    }

    /// A signal that none survives to each. Whether it has ended, [`Guests::reap`] tells.
    pub fn kill(&mut self) {
        for (pid, held) in &self.held {
            match pidfd_send_signal(held, Signal::KILL) {
                Ok(()) | Err(rustix::io::Errno::SRCH) => {}
                // Tried again fifty times a second: said once.
                Err(error) if !std::mem::replace(&mut self.failed, true) => {
                    tracing::error!(pid, %error, "a process of ours cannot be ended");
                }
                Err(_) => {}
            }
        }
        self.failed &= !self.held.is_empty();
    }

    /// Lets those go that have ended; how many.
    pub fn reap(&mut self) -> u32 {
        let before = self.held.len();
        self.held.retain(|_, held| !has_ended(held));
        u32::try_from(before - self.held.len()).unwrap_or(u32::MAX)
    }
}

fn has_ended(held: &OwnedFd) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(held.as_fd(), PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut fds, Some(&at_once)), Ok(ready) if ready > 0)
}

/// The whole file, in the room that is there.
fn read(room: &mut Vec<u8>, file: File) -> Option<&[u8]> {
    room.clear();
    file.take(LONGEST).read_to_end(room).ok()?;
    Some(room)
}

/// The uuid that a process was told to be.
fn uuid_argument(line: &[u8]) -> Option<&str> {
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    str::from_utf8(arguments.next()?).ok()
}

/// The VMs whose disks a command line names: `…/disks/<environment's uid>/<member>-<index>/…`.
fn disks_of(line: &[u8]) -> impl Iterator<Item = VmId> {
    let arguments =
        line.split(|byte| *byte == 0).filter_map(|argument| str::from_utf8(argument).ok());
    arguments.flat_map(|argument| argument.split("/disks/").skip(1)).filter_map(|rest| {
        let mut parts = rest.split('/');
        let (ve, vm) = (parts.next()?, parts.next()?);
        let (member, index) = vm.rsplit_once('-')?;
        Some(VmId { ve: ve.into(), member: member.into(), index: index.parse().ok()? })
    })
}

/// What is wanted of one of libvirt's status files.
#[derive(Debug, PartialEq, Eq)]
struct Status {
    uuid: String,
    pid: Option<i32>,
}

impl Status {
    /// `None` for a domain that is not ours. No XML parser: libvirt writes these files, escapes what people name, and each
    /// result is checked (the uuid against the metadata, the pid against the process).
    fn of(text: &str) -> Option<Self> {
        let at = text.find(XMLNS)?;
        let tag = &text[text[..at].rfind('<')?..];
        let tag = &tag[..tag.find('>')?];
        let id = VmId {
            ve: attribute(tag, "uid")?.into(),
            member: attribute(tag, "member")?.into(),
            index: attribute(tag, "index")?.parse().ok()?,
        };
        let (_, rest) = text.split_once("<uuid>")?;
        let (uuid, _) = rest.split_once("</uuid>")?;
        if uuid_of(&id).to_string() != uuid {
            return None;
        }
        let head = &text[text.find("<domstatus")?..];
        let head = &head[..head.find('>')?];
        let pid = attribute(head, "pid").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 1);
        Some(Self { uuid: uuid.to_owned(), pid })
    }
}

/// The value of an attribute in a tag.
fn attribute<'a>(tag: &'a str, name: &str) -> Option<&'a str> {
    tag.match_indices(name).find_map(|(at, _)| {
        let before = tag[..at].chars().next_back()?;
        let value = tag[at + name.len()..].strip_prefix('=')?;
        let quote = value.chars().next().filter(|quote| matches!(quote, '\'' | '"'))?;
        let value = &value[1..];
        before.is_whitespace().then(|| value.find(quote).map(|end| &value[..end]))?
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> VmId {
        VmId { ve: "0b1c".into(), member: "web".into(), index: 0 }
    }

    fn status(uuid: &str) -> String {
        format!(
            "<!-- WARNING -->\n<domstatus state='running' reason='booted' pid='4711'>\n <domain type='kvm' id='3'>\n  \
             <name>default.shop-web-0</name>\n  <uuid>{uuid}</uuid>\n  <metadata>\n    <discovery:vm xmlns:discovery=\"{XMLNS}\" \
             namespace=\"default\" name=\"shop\" uid=\"0b1c\" member=\"web\" index=\"0\" epoch=\"1\"/></metadata>"
        )
    }

    #[test]
    fn a_status_file_tells_pid_and_uuid_of_a_domain_of_ours_only() {
        let uuid = uuid_of(&id()).to_string();
        assert_eq!(Status::of(&status(&uuid)), Some(Status { uuid, pid: Some(4711) }));
        // Somebody's copy of our domain.
        assert_eq!(Status::of(&status("01020304-0506-0708-090a-0b0c0d0e0f10")), None);
        assert_eq!(Status::of("<domstatus pid='1'><domain><uuid>x</uuid>"), None);
        assert_eq!(Status::of(""), None);
    }

    #[test]
    fn a_command_line_tells_its_uuid_and_whose_disks_it_opens() {
        let line = b"qemu\0-uuid\0dfe9\0-blockdev\0{\"filename\":\"/var/lib/discovery/disks/0b1c/web-0/root.qcow2\"}\0";
        assert_eq!(uuid_argument(line), Some("dfe9"));
        assert_eq!(disks_of(line).collect::<Vec<_>>(), [id()]);
        assert_eq!(uuid_argument(b"qemu\0-uuid"), None);
        assert_eq!(disks_of(b"/disks/\0/disks/a/b\0/disks/a/b-x/").count(), 0);
    }
}
