//! A hardware watchdog for each node, played by a process outside of it: it resets a node that has armed it and does not
//! feed it any more, whatever stands still inside.
//!
//! The node sees a pipe, `/run/discovery/watchdog`, which is written to as the kernel's `/dev/watchdog` is: the first byte arms it,
//! any byte feeds it, a `V` that comes last disarms it ("magic close"). It knows no ioctl: its time-out is [`TIMEOUT`]. A node
//! that never writes to it is never reset.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{ErrorKind, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::OFlags;

use crate::{
    error::{LabError, Result},
    lab::Lab,
    node::Node,
    node_init::WATCHDOG,
    process::{Found, find_all, kill_and_wait},
};

/// Unfed for as long, the node is reset. Below the 10 s after which its VMs may run elsewhere, if F and W are 5 s.
pub const TIMEOUT: Duration = Duration::from_secs(8);
/// How often pipes are read.
const BEAT: Duration = Duration::from_millis(50);
/// What a node that is killed may take to be gone.
const OFF_WITHIN: Duration = Duration::from_secs(30);
/// How often nodes that were switched on are looked for: all processes of the machine are read for it.
const NODES_EVERY: Duration = Duration::from_secs(1);

/// Whether a node has armed it, and when it was last fed.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Dog {
    fed: Option<Instant>,
}

impl Dog {
    fn hear(&mut self, bytes: &[u8], now: Instant) {
        match bytes.last() {
            None => {}
            Some(b'V') => self.fed = None,
            Some(_) => self.fed = Some(now),
        }
    }

    fn bites(&self, now: Instant) -> bool {
        self.fed.is_some_and(|fed| now.saturating_duration_since(fed) >= TIMEOUT)
    }
}

/// A node's pipe, of one boot.
#[derive(Debug)]
struct Watched {
    init: i32,
    pipe: File,
    dog: Dog,
}

impl Lab {
    /// Plays all nodes' watchdogs until the process is ended.
    pub fn watch(&self) -> Result<()> {
        thread::scope(|resets| {
            let mut watched: BTreeMap<String, Watched> = BTreeMap::new();
            let mut looked: Option<Instant> = None;
            loop {
                if looked.is_none_or(|at| at.elapsed() >= NODES_EVERY) {
                    looked = Some(Instant::now());
                    self.meet_nodes(&mut watched);
                }
                let mut bitten = Vec::new();
                for (name, one) in &mut watched {
                    one.read();
                    if one.dog.bites(Instant::now()) {
                        bitten.push((name.clone(), one.init));
                    }
                }
                for (name, init) in bitten {
                    watched.remove(&name);
                    self.say(&format!("{name} has not fed its watchdog for {TIMEOUT:?}: reset"));
                    self.cut_power(init)?;
                    // The rest waits for whoever is changing the lab; the other watchdogs do not.
                    resets.spawn(move || {
                        if let Err(error) = self.reset(&name) {
                            self.say(&format!("{name} was not switched on again: {error}"));
                        }
                    });
                }
                thread::sleep(BEAT);
            }
        })
    }

    // A reset line asks nobody: all of the node ends now, whatever is being done with the lab.
    fn cut_power(&self, init: i32) -> Result<()> {
        let bitten = |process: &Found| process.is_node_init && process.pid == init;
        let first: Vec<Found> = find_all(&self.layout).into_iter().filter(bitten).collect();
        kill_and_wait(&first, OFF_WITHIN)
    }

    fn meet_nodes(&self, watched: &mut BTreeMap<String, Watched>) {
        let inits = find_all(&self.layout).into_iter().filter(|process| process.is_node_init);
        let on: BTreeMap<String, i32> = inits
            .filter_map(|init| Some((init.role.strip_prefix("node/")?.to_owned(), init.pid)))
            .collect();
        watched.retain(|name, one| on.get(name) == Some(&one.init));
        for (name, init) in on {
            if watched.contains_key(&name) {
                continue;
            }
            // A node that has just been switched on has none yet: the next look finds it.
            let pipe = Node::named(&self.layout, &name).and_then(|node| node.path(WATCHDOG));
            let open = |path| {
                let flags = OFlags::NONBLOCK.bits().cast_signed();
                File::options().read(true).custom_flags(flags).open(path).ok()
            };
            if let Some(pipe) = pipe.ok().and_then(open) {
                watched.insert(name, Watched { init, pipe, dog: Dog::default() });
            }
        }
    }

    // As the reset line does: off, and on again. Somebody may have taken its power, or the whole lab, meanwhile.
    fn reset(&self, name: &str) -> Result<()> {
        match self.node_stop(name).and_then(|()| self.node_boot(name)) {
            Err(LabError::NoSuchNode(_)) => Ok(()),
            other => other,
        }
    }
}

impl Watched {
    fn read(&mut self) {
        let mut bytes = [0; 256];
        loop {
            match self.pipe.read(&mut bytes) {
                Ok(0) => return,
                Ok(length) => self.dog.hear(&bytes[..length], Instant::now()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // Nothing more for now; a broken pipe is of a node that is gone.
                Err(_) => return,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_bites_who_has_armed_it_and_does_not_feed_it() {
        let start = Instant::now();
        let after = |seconds: u64| start + Duration::from_secs(seconds);
        let mut dog = Dog::default();
        assert!(!dog.bites(after(100)), "nobody has armed it");
        dog.hear(b"\0", after(0));
        dog.hear(b"", after(7));
        assert!(!dog.bites(after(7)));
        dog.hear(b"1", after(7));
        assert!(!dog.bites(after(14)));
        assert!(dog.bites(after(15)));
    }

    #[test]
    fn a_v_that_comes_last_disarms_it() {
        let start = Instant::now();
        let mut dog = Dog::default();
        dog.hear(b"1V", start);
        assert!(!dog.bites(start + 2 * TIMEOUT));
        dog.hear(b"V1", start);
        assert!(dog.bites(start + TIMEOUT));
    }
}
