//! A node that looks at its VMs' loads now and then, as DVMS's do, and does not learn of a change at once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::RngExt;

use super::super::scheduler::Desk;

/// The timer of the next look: none of the agent's own.
pub const LOOK: u64 = u64::MAX;

/// Changes that nobody has looked at yet, by node.
#[derive(Debug)]
pub struct Looks {
    every: Duration,
    unseen: BTreeMap<u32, Changes>,
}

#[derive(Debug, Default)]
struct Changes {
    /// Where in its period this node looks, microseconds.
    phase_us: u64,
    vms: BTreeSet<u32>,
}

impl Looks {
    /// A look so often; if never, changes are told at once.
    #[must_use]
    pub fn new(every: Duration) -> Self {
        Self { every, unseen: BTreeMap::new() }
    }

    /// A VM's load has changed. Returns whether that is to be seen later.
    pub fn puts_off<M>(&mut self, me: u32, vm: u32, desk: &mut Desk<'_, M>) -> bool {
        let every_us = self.every.as_micros() as u64;
        if every_us == 0 {
            return false;
        }
        let changes = self.unseen.entry(me).or_insert_with(|| {
            let phase_us = desk.rng().random_range(0..every_us);
            Changes { phase_us, vms: BTreeSet::new() }
        });
        if changes.vms.is_empty() {
            let since = (desk.now().0 + every_us - changes.phase_us) % every_us;
            desk.wake_at(desk.now() + Duration::from_micros(every_us - since), LOOK);
        }
        changes.vms.insert(vm);
        true
    }

    /// Whether there is something that this node has not seen.
    #[must_use]
    pub fn has_unseen(&self, me: u32) -> bool {
        self.unseen.get(&me).is_some_and(|changes| !changes.vms.is_empty())
    }

    /// It looks: the VMs whose loads have changed.
    pub fn look(&mut self, me: u32) -> BTreeSet<u32> {
        self.unseen.get_mut(&me).map(|changes| std::mem::take(&mut changes.vms)).unwrap_or_default()
    }
}
