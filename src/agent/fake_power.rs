//! Machines that are switched off in memory, behind the same port as the real ones: for tests of the driver.
//!
//! It passes the same conformance suite as the command (`tests/conformance/power.rs`).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::runtime::Handle;

use super::ports::{InputSender, PowerSwitch};
use crate::engine::id::NodeName;
use crate::engine::input::Input;
use crate::engine::replica::Replica;

/// What manages some machines. Clones are the same one.
#[derive(Clone, Debug)]
pub struct FakePower {
    inputs: InputSender,
    runtime: Handle,
    machines: Arc<Mutex<BTreeMap<NodeName, Result<(), String>>>>,
}

impl FakePower {
    /// It knows no machine. Called within a runtime.
    #[must_use]
    pub fn new(inputs: InputSender) -> Self {
        Self { inputs, runtime: Handle::current(), machines: Arc::default() }
    }

    /// It knows this machine, which can be switched off, or not, and why.
    pub fn know(&self, node: NodeName, can: Result<(), String>) {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner).insert(node, can);
    }
}

impl PowerSwitch for FakePower {
    fn switch_off(&self, holder: Replica, epoch: u64) {
        let machines = self.machines.lock().unwrap_or_else(PoisonError::into_inner);
        let known = machines.get(&holder.node).cloned();
        let result = known.unwrap_or_else(|| Err(format!("{} is not known", holder.node)));
        drop(machines);
        let inputs = self.inputs.clone();
        self.runtime.spawn(async move {
            // A driver that has ended needs no answer.
            let _ = inputs.send(Input::Switched { holder, epoch, result }).await;
        });
    }
}
