//! Machines that are switched off by a program of those who operate them: `PROGRAM NODE`.
//!
//! It ends with success when the machine is off for certain; one that was off already is. Anything else, also a program that takes
//! too long, is a failure, with what it said last on its standard error.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;
use tokio::runtime::Handle;

use super::ports::{InputSender, PowerSwitch};
use crate::engine::id::NodeName;
use crate::engine::input::Input;
use crate::engine::replica::Replica;

/// Most characters of what a program said that people are told.
const SAID: usize = 200;

/// See above.
#[derive(Clone, Debug)]
pub struct PowerCommand {
    program: PathBuf,
    limit: Duration,
    inputs: InputSender,
    runtime: Handle,
}

impl PowerCommand {
    /// The program is started anew for each machine, and killed when it takes longer than `limit`. Called within a runtime.
    #[must_use]
    pub fn new(program: PathBuf, limit: Duration, inputs: InputSender) -> Self {
        Self { program, limit, inputs, runtime: Handle::current() }
    }
}

impl PowerSwitch for PowerCommand {
    fn switch_off(&self, holder: Replica, epoch: u64) {
        let Self { program, limit, inputs, .. } = self.clone();
        self.runtime.spawn(async move {
            let node = &holder.node;
            tracing::warn!(lost = %node, program = %program.display(), "has a silent machine switched off");
            let result = run(&program, node, limit).await;
            // A driver that has ended needs no answer.
            let _ = inputs.send(Input::Switched { holder, epoch, result }).await;
        });
    }
}

async fn run(program: &Path, node: &NodeName, limit: Duration) -> Result<(), String> {
    let shown = program.display();
    let mut command = Command::new(program);
    command.arg(node.as_str()).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    command.kill_on_drop(true);
    let Ok(ended) = tokio::time::timeout(limit, command.output()).await else {
        return Err(format!("{shown} took longer than {limit:?}"));
    };
    let output = ended.map_err(|error| format!("cannot start {shown}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last: String = said.trim().lines().last().unwrap_or_default().chars().take(SAID).collect();
    let said = if last.is_empty() { "says nothing".to_owned() } else { format!("says: {last}") };
    Err(format!("{shown} failed ({}) and {said}", output.status))
}
