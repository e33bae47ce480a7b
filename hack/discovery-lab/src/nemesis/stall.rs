//! Stalls: processes that stand still, and go on later as if no time had passed.

use std::time::Duration;

use rustix::process::Signal;

use super::{
    Fired, Who,
    inside::{self, Inside},
};
use crate::{
    error::{LabError, Result},
    lab::Lab,
    node::Node,
    process::{signal, wait_for},
};

/// The kernel stops a process at once, unless it waits for a disk.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// Kubernetes starts an agent and a guard again within this time.
const THERE_WITHIN: Duration = Duration::from_secs(30);

impl Lab {
    pub(super) fn fire_stall(&self, name: &str, who: Who) -> Result<Fired> {
        let node = self.node(name)?;
        if node.init().is_none() {
            return Err(LabError::NodeIsOff(name.into()));
        }
        // An upgrade that goes on at the same time leaves a node without one for some seconds.
        let mut chosen = self::chosen(&node, who);
        let has = |all: &[Inside], verb| all.iter().any(|process| process.is_discovery(verb));
        let there = wait_for(&format!("whom to stop on {name}"), THERE_WITHIN, "see ps", || {
            chosen = self::chosen(&node, who);
            let guard = who != Who::AgentAndGuard || has(&chosen, "guard");
            guard && (who == Who::AllButGuests || has(&chosen, "agent"))
        });
        if there.is_err() {
            let agent = has(&chosen, "agent");
            let error = if agent { LabError::NoGuard } else { LabError::NoAgent };
            return Err(error(name.into()));
        }
        let already = chosen.iter().all(|process| process.state == 'T');
        // Whoever is not stopped yet may start others meanwhile.
        wait_for(&format!("{name} to stand still"), STOPPED_WITHIN, "see ps", || {
            let moving: Vec<i32> = running(&node, who).iter().map(|process| process.pid).collect();
            moving.iter().for_each(|pid| signal(*pid, Signal::STOP));
            moving.is_empty()
        })?;
        let stopped: Vec<Inside> =
            self::chosen(&node, who).into_iter().filter(|process| process.state == 'T').collect();
        if stopped.is_empty() {
            return Err(LabError::NotFired {
                fault: format!("stall on {name}"),
                detail: "no process is stopped".into(),
            });
        }
        let pids: Vec<String> = stopped
            .iter()
            .map(|process| format!("{} {}", process.program(), process.pid))
            .collect();
        let did = match who {
            Who::AllButGuests => format!("stopped {} processes", stopped.len()),
            _ => format!("stopped {}", pids.join(", ")),
        };
        Ok(if already { Fired::already(did) } else { Fired::new(did) })
    }

    pub(super) fn undo_stall(&self, name: &str, who: Who) -> Result<String> {
        let node = self.node(name)?;
        let stopped: Vec<Inside> =
            chosen(&node, who).into_iter().filter(|process| process.state == 'T').collect();
        stopped.iter().for_each(|process| signal(process.pid, Signal::CONT));
        Ok(format!("{name}: {} processes go on", stopped.len()))
    }
}

fn chosen(node: &Node<'_>, who: Who) -> Vec<Inside> {
    let mut all = inside::processes(node);
    all.retain(|process| {
        !process.has_ended()
            && match who {
                Who::Agent => process.is_discovery("agent"),
                Who::AgentAndGuard => {
                    process.is_discovery("agent") || process.is_discovery("guard")
                }
                Who::AllButGuests => !process.is_guest(),
            }
    });
    all
}

fn running(node: &Node<'_>, who: Who) -> Vec<Inside> {
    let mut all = chosen(node, who);
    all.retain(|process| process.state != 'T');
    all
}
