//! What stands between a node and its engine, as `agent` has it: one durable write for all that a turn led to, and only then
//! what it says and does. While the disk takes its time, or the agent stands still, inputs wait.
//!
//! ```text
//!   inputs ──turn──> records ──on disk──> actions        between any two of these an agent may end
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use super::world::{Event, World};
use crate::engine::effect::Effects;
use crate::engine::id::NodeName;
use crate::engine::input::Input;

/// Inputs that share one write, as in the agent.
const BATCH: usize = 128;
/// Messages that wait for an agent that takes none; its peers' connections hold no more.
const MOST_WAITING: usize = 2048;

/// The driver of one node's agent, and its disk.
#[derive(Debug, Default)]
pub struct Driver {
    /// The agent stands still: nothing is taken, and it does not know.
    pub(super) stalled: bool,
    waiting: VecDeque<Input>,
    writing: Option<Effects>,
    /// How long a write takes.
    pub(super) slow: Duration,
    /// The disk takes nothing.
    pub(super) full: bool,
    /// The agent ends at one of its next writes.
    pub(super) torn: Option<Torn>,
}

/// An agent's end at a write.
#[derive(Clone, Copy, Debug)]
pub struct Torn {
    /// So many writes are made before.
    pub(super) after: u32,
    /// The one at which it ends is on disk, whole; otherwise nothing of it is.
    pub(super) written: bool,
    /// It starts again after this time.
    pub(super) away: Duration,
}

impl Driver {
    /// The agent has ended.
    pub(super) fn end(&mut self) {
        self.stalled = false;
        self.waiting.clear();
        self.writing = None;
    }

    /// It takes no inputs now.
    pub(super) fn is_busy(&self) -> bool {
        self.stalled || self.writing.is_some()
    }

    /// An input waits. The network's are lost when there are too many.
    pub(super) fn queue(&mut self, input: Input) {
        let passing = matches!(input, Input::Message { .. });
        match input {
            Input::Wakeup => {}
            _ if passing && self.waiting.len() >= MOST_WAITING => {}
            input => self.waiting.push_back(input),
        }
    }
}

impl World {
    /// What a turn led to is written, and then carried out.
    pub(super) fn commit(&mut self, name: &NodeName, effects: Effects) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        if effects.persist.is_empty() {
            return self.carry_out(name, effects);
        }
        if let Some(torn) = &mut node.driver.torn {
            if torn.after == 0 {
                return self.tear(name, effects);
            }
            torn.after -= 1;
        }
        let (life, slow) = (node.life, node.driver.slow);
        if node.driver.full {
            node.driver.writing = Some(effects);
        } else if slow > Duration::ZERO {
            node.driver.writing = Some(effects);
            self.push(slow, Event::Written { node: name.clone(), life });
        } else {
            self.carry_out(name, effects);
        }
    }

    /// The agent ends at this write: all of it is on disk, or nothing. What it would have done is not done.
    fn tear(&mut self, name: &NodeName, effects: Effects) {
        let torn = self.nodes.get_mut(name).and_then(|node| node.driver.torn.take());
        let Some(torn) = torn else { return };
        if torn.written {
            self.carry_out(name, Effects { persist: effects.persist, actions: Vec::new() });
        }
        self.kill_agent(name);
        self.start_after(name, torn.away);
    }

    /// A write has ended.
    pub(super) fn written(&mut self, name: &NodeName, life: u64) {
        let Some(node) = self.nodes.get_mut(name).filter(|node| node.life == life) else { return };
        if node.driver.full {
            return;
        }
        let Some(effects) = node.driver.writing.take() else { return };
        self.carry_out(name, effects);
        self.go_on(name);
    }

    /// A disk takes something again.
    pub(super) fn disk_has_room(&mut self, name: &NodeName) {
        let Some(node) = self.nodes.get_mut(name) else { return };
        node.driver.full = false;
        if node.driver.writing.is_some() {
            let (node, life) = (name.clone(), node.life);
            self.push(Duration::ZERO, Event::Written { node, life });
        }
    }

    /// An agent takes what has waited for it.
    pub(super) fn go_on(&mut self, name: &NodeName) {
        loop {
            let Some(node) = self.nodes.get_mut(name) else { return };
            if node.frozen || node.driver.is_busy() || node.engine.is_none() {
                return;
            }
            let some = node.driver.waiting.len().min(BATCH);
            if some == 0 {
                return self.plan_wakeup(name);
            }
            // As in the agent: what its time has come for belongs to the batch.
            let inputs = node.driver.waiting.drain(..some).chain([Input::Wakeup]);
            let inputs: Vec<Input> = inputs.collect();
            self.turn(name, inputs);
        }
    }
}
