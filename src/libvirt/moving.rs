//! What is known of live migrations: VMs that are expected here, VMs that leave, and where their sockets are.
//!
//! ```text
//!   source: libvirtd, QEMU -> <state>/move/<hash>/{ctl,mem,disks} (tunnels) ==> target: libvirtd's socket,
//!                                                                               QEMU at the same mem and disks
//! ```
//!
//! The paths are the same at both ends, because one libvirtd tells the other's QEMU where to listen. They are short: a
//! unix socket's path has at most 107 bytes.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, MutexGuard};

use sha2::{Digest, Sha256};

use super::core::lock;
use super::images::io_failure;
use super::migrate::News;
use super::projection::hex;
use super::sighting::Sighting;
use crate::agent::ports::{Channel, Pass, TunnelGuard, Tunnels};
use crate::engine::host::{DomainSeen, Failure, FailureKind};
use crate::engine::id::{NodeName, VmId};

/// The directory of all sockets, in the state directory.
const SOCKETS: &str = "move";
/// Longest path of a unix socket, bytes.
const LONGEST_PATH: usize = 107;
/// Where libvirtd listens unless the URI says otherwise: the one daemon for all, or QEMU's own.
const DAEMONS: [&str; 2] = ["/run/libvirt/libvirt-sock", "/run/libvirt/virtqemud-sock"];

/// See the head of this file.
pub struct Moves {
    pub tunnels: Option<Arc<dyn Tunnels>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    expected: BTreeMap<VmId, Expected>,
    leaving: BTreeMap<VmId, Leaving>,
}

/// A VM that may arrive. Dropped, its source has no leave any more.
pub struct Expected {
    pass: Pass,
    from: NodeName,
    _leave: TunnelGuard,
    _sockets: Sockets,
}

impl Expected {
    /// From where, through what.
    pub fn new(pass: Pass, from: NodeName, sockets: Sockets, leave: TunnelGuard) -> Self {
        Self { pass, from, _leave: leave, _sockets: sockets }
    }
}

struct Leaving {
    news: Sender<News>,
    receiver: Option<Receiver<News>>,
    /// What is told of it until it has left, or stays.
    seen: Option<DomainSeen>,
}

impl fmt::Debug for Moves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("Moves")
            .field("expected", &state.expected.keys())
            .field("leaving", &state.leaving.keys())
            .finish_non_exhaustive()
    }
}

impl Moves {
    /// Begins with none; sockets that an earlier agent has left are dead.
    pub fn new(state_dir: &Path, tunnels: Option<Arc<dyn Tunnels>>) -> Self {
        let old = state_dir.join(SOCKETS);
        match fs::remove_dir_all(&old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %old.display(), %error, "old sockets stay");
            }
            _ => {}
        }
        Self { tunnels, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// The tunnels, for a VM that is to move.
    ///
    /// # Errors
    /// When this hypervisor has none.
    pub fn tunnels(&self) -> Result<&Arc<dyn Tunnels>, Failure> {
        self.tunnels.as_ref().ok_or_else(|| Failure {
            kind: FailureKind::Refused,
            message: "this hypervisor cannot migrate".to_owned(),
        })
    }

    /// A VM may arrive from here on.
    pub fn expect(&self, expected: Expected) {
        let old = self.state().expected.insert(expected.pass.vm.clone(), expected);
        drop(old);
    }

    /// Whether just this is expected.
    pub fn expects(&self, pass: &Pass, from: &NodeName) -> bool {
        let state = self.state();
        state.expected.get(&pass.vm).is_some_and(|e| e.pass == *pass && e.from == *from)
    }

    /// It may arrive no more, or it has: its source reaches nothing here.
    pub fn withdraw(&self, id: &VmId) {
        let old = self.state().expected.remove(id);
        drop(old);
    }

    /// Whether a domain is not to be told: it has not arrived yet. libvirt keeps its definition a moment before that.
    pub fn hides(&self, sighting: &Sighting) -> bool {
        let seen = &sighting.seen;
        let expected = |expected: &Expected| expected.pass.epoch == seen.epoch;
        sighting.arriving
            || sighting.incoming && self.state().expected.get(&seen.id).is_some_and(expected)
    }

    /// A migration is asked for: it can be aborted from here on.
    pub fn announce(&self, id: &VmId) {
        let (news, receiver) = mpsc::channel();
        let leaving = Leaving { news, receiver: Some(receiver), seen: None };
        self.state().leaving.insert(id.clone(), leaving);
    }

    /// A migration begins: what is told meanwhile, and both ends of its news.
    pub fn leaves(&self, seen: &DomainSeen) -> (Sender<News>, Receiver<News>) {
        let mut state = self.state();
        let known = state.leaving.get_mut(&seen.id).map(|leaving| {
            leaving.seen = Some(seen.clone());
            (leaving.news.clone(), leaving.receiver.take())
        });
        match known {
            Some((news, Some(receiver))) => (news, receiver),
            // Two at once for one VM: the engine's bug, and not worse than one that cannot be aborted.
            _ => mpsc::channel(),
        }
    }

    /// A migration is over, or was never begun.
    pub fn stays_or_left(&self, id: &VmId) {
        self.state().leaving.remove(id);
    }

    /// VMs that are leaving, as they are to be told.
    pub fn leaving(&self) -> Vec<DomainSeen> {
        self.state().leaving.values().filter_map(|leaving| leaving.seen.clone()).collect()
    }

    /// Gives up the migration of a VM.
    pub fn abort(&self, id: &VmId) {
        if let Some(leaving) = self.state().leaving.get(id) {
            // An error says that it has just ended.
            let _ = leaving.news.send(News::Abort);
        }
    }
}

/// The directory of one migration's sockets; removed when dropped.
pub struct Sockets {
    dir: PathBuf,
}

impl Drop for Sockets {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %self.dir.display(), %error, "a migration's sockets stay");
        }
    }
}

impl Sockets {
    /// Makes the directory, empty. A QEMU that runs as its own user listens in it, so anybody may make a socket there;
    /// nobody else can list it, and its name follows from the environment's uid.
    ///
    /// # Errors
    /// When the state directory's path is too long for sockets below it, or the system refuses.
    pub fn make(state_dir: &Path, pass: &Pass) -> Result<Self, Failure> {
        let all = state_dir.join(SOCKETS);
        let dir = all.join(name(pass));
        let failed = |error: io::Error| io_failure(&dir, &error);
        if dir.join("disks").as_os_str().len() > LONGEST_PATH {
            let message = format!(
                "the state directory's path is too long for migrations' sockets ({} bytes in all)",
                LONGEST_PATH
            );
            return Err(Failure { kind: FailureKind::Refused, message });
        }
        fs::DirBuilder::new().recursive(true).mode(0o711).create(&all).map_err(failed)?;
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        fs::create_dir(&dir).map_err(failed)?;
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o1733)).map_err(failed)?;
        Ok(Self { dir })
    }

    /// One of them.
    #[must_use]
    pub fn path(&self, channel: Channel) -> PathBuf {
        self.dir.join(match channel {
            Channel::Control => "ctl",
            Channel::Memory => "mem",
            Channel::Disks => "disks",
        })
    }
}

/// The same at both ends, and another for every placement.
fn name(pass: &Pass) -> String {
    let Pass { vm, epoch } = pass;
    let text = format!("{}/{}/{}/{epoch}", vm.ve, vm.member, vm.index);
    hex(&Sha256::digest(text.as_bytes())[..8])
}

/// The socket of this node's libvirtd.
#[must_use]
pub fn control_socket(uri: &str) -> PathBuf {
    let parameters = uri.split_once('?').map_or("", |(_, parameters)| parameters);
    let named = parameters.split('&').find_map(|pair| pair.strip_prefix("socket="));
    let usual = || DAEMONS.iter().map(Path::new).find(|path| path.exists());
    named.map(PathBuf::from).or_else(|| usual().map(Path::to_owned)).unwrap_or(DAEMONS[0].into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(epoch: u64) -> Pass {
        Pass { vm: VmId { ve: "uid".into(), member: "web".into(), index: 0 }, epoch }
    }

    #[test]
    fn sockets_are_the_same_at_both_ends_and_others_for_another_placement() {
        let state = tempfile::tempdir().expect("a directory");
        let sockets = Sockets::make(state.path(), &pass(2)).expect("made");
        let path = sockets.path(Channel::Memory);
        assert_eq!(path, state.path().join("move").join(name(&pass(2))).join("mem"));
        assert_ne!(name(&pass(2)), name(&pass(3)));
        fs::write(&path, "stale").expect("written");
        let again = Sockets::make(state.path(), &pass(2)).expect("made again");
        assert!(!path.exists(), "what an earlier attempt left is gone");
        drop(again);
        assert!(!sockets.dir.exists());
    }

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_told_in_words() {
        let long = PathBuf::from(format!("/{}", "x".repeat(90)));
        let failure = Sockets::make(&long, &pass(1)).err().expect("refused");
        assert!(failure.message.contains("too long"), "{failure}");
    }

    #[test]
    fn the_uri_may_name_the_daemons_socket() {
        let named = control_socket("qemu+unix:///system?mode=direct&socket=/x/sock");
        assert_eq!(named, Path::new("/x/sock"));
        assert!(control_socket("qemu:///system").starts_with("/run/libvirt"));
    }
}
