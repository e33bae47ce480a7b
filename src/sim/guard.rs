//! A node's guard: it outlives the agent, and ends every domain when the time that it was told has passed.

use std::time::Duration;

use super::world::{Event, World};
use crate::engine::guard::{Allowance, GuardInput};
use crate::engine::id::NodeName;
use crate::engine::input::{HypervisorInput, Input};
use crate::engine::time::Instant;

/// How long a word takes to the guard, and back.
const HOP: Duration = Duration::from_millis(1);

/// The guard of one node.
#[derive(Debug, Default)]
pub struct Guard {
    allowance: Option<Allowance>,
    /// It ends whatever starts.
    pub(super) lapsed: bool,
}

impl World {
    /// An agent tells its node's guard.
    pub(super) fn tell_guard(&mut self, node: &NodeName, boot: u64, allowance: Allowance) {
        let node = node.clone();
        self.push(HOP, Event::Allowance { node, boot, allowance });
    }

    /// The guard of this boot of a node hears it.
    pub(super) fn allow(&mut self, name: &NodeName, boot: u64, allowance: Allowance) {
        let now = self.now();
        let Some((guard, life)) = self.guard_mut(name, boot) else { return };
        let mut allowance = allowance;
        if let Some(before) = guard.allowance.as_ref().filter(|b| b.lease == allowance.lease) {
            allowance.until =
                allowance.until.max(before.until.filter(|_| allowance.until.is_some()));
        }
        guard.allowance = Some(allowance.clone());
        guard.lapsed = false;
        match allowance.until {
            Some(until) if until <= now => self.lapse(name),
            until => {
                if let Some(until) = until {
                    let (node, after) = (name.clone(), until.since(now));
                    self.push(after, Event::Lapse { node, boot, until });
                }
                let input = Box::new(Input::Guard(GuardInput::Armed(allowance)));
                self.push(HOP, Event::Input { node: name.clone(), life, input });
            }
        }
    }

    /// The time may be over.
    pub(super) fn lapse_if_due(&mut self, name: &NodeName, boot: u64, until: Instant) {
        let due = self.guard_mut(name, boot).is_some_and(|(guard, _)| {
            guard.allowance.as_ref().is_some_and(|allowance| allowance.until == Some(until))
        });
        if due {
            self.lapse(name);
        }
    }

    fn lapse(&mut self, name: &NodeName) {
        let Some((boot, life)) = self.lives(name) else { return };
        if let Some((guard, _)) = self.guard_mut(name, boot) {
            guard.lapsed = true;
        }
        let ended = self.end_all(name);
        let input = Input::Guard(GuardInput::Lapsed { at: self.now(), ended });
        self.push(HOP, Event::Input { node: name.clone(), life, input: Box::new(input) });
    }

    /// A node's guard ends whatever starts there.
    pub(super) fn has_lapsed(&mut self, name: &NodeName) -> bool {
        let boot = self.lives(name).map_or(0, |(boot, _)| boot);
        self.guard_mut(name, boot).is_some_and(|(guard, _)| guard.lapsed)
    }

    /// Ends every domain of a node whose guard has lapsed, and what has just been started there.
    pub(super) fn end_all(&mut self, name: &NodeName) -> u32 {
        let ended = self.host_mut(name).map(|host| host.end_all()).unwrap_or_default();
        self.lapses += u64::from(!ended.is_empty());
        let life = self.lives(name).map_or(0, |(_, life)| life);
        let count = ended.len() as u32;
        for seen in ended {
            let input = Box::new(Input::Hypervisor(HypervisorInput::Domain(seen)));
            self.push(HOP, Event::Input { node: name.clone(), life, input });
        }
        count
    }
}
