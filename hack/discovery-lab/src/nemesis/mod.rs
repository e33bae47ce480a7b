//! The nemesis: faults on purpose, each of which proves that it fired, and is undone.
//!
//! ```text
//!   main ── fault ──> fire ──┬─ power, cut, stall, disk, others     what happens to a node
//!                            └─ active   a file for each fault that lasts, so that `heal` finds it
//!   main ── run ──> plan (seeded) ──> fire, hold, heal ──> whole? ──> report
//! ```
//!
//! A fault that is there already is left as it is, and says so. One whose effect cannot be seen is an error: a fault
//! that has not fired tests nothing.

mod active;
pub(crate) mod cut;
mod disk;
mod inside;
mod others;
pub mod plan;
mod power;
mod report;
mod run;
mod stall;
mod ves;
mod whole;

use std::{fmt, thread, time::Duration};

use serde::{Deserialize, Serialize};

pub use inside::{Running, qemus};
pub use plan::Kind;
pub(crate) use report::percentile;
pub use report::{Report, Row};
pub use run::Run;
pub(crate) use ves::Ves;
pub(crate) use whole::Wanted;

use crate::{
    error::{LabError, Result},
    lab::Lab,
};

/// What befalls whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum Fault {
    /// Every process of the node is killed at once, and its memory is lost; it stays off.
    Power {
        /// Which node.
        node: String,
    },
    /// The same, and it boots again at once.
    Reboot {
        /// Which node.
        node: String,
    },
    /// What the node sends and gets is dropped.
    Cut {
        /// Which node.
        node: String,
        /// Only what it gets, or only what it sends.
        one_way: Option<Way>,
        /// Only what it has with these (nodes' names, or `api`); none: with everybody.
        from: Vec<String>,
    },
    /// Processes of the node are stopped (SIGSTOP), and go on later as if nothing had happened.
    Stall {
        /// Which node.
        node: String,
        /// Which of its processes.
        who: Who,
    },
    /// The node's agent is killed; Kubernetes starts it again.
    AgentKill {
        /// Which node.
        node: String,
    },
    /// The node's libvirtd is stopped; its guests go on.
    LibvirtdStop {
        /// Which node.
        node: String,
    },
    /// The node's libvirtd is killed; the node starts it again.
    LibvirtdKill {
        /// Which node.
        node: String,
    },
    /// A QEMU is killed.
    Guest {
        /// On which node.
        node: String,
        /// `NAMESPACE.VM`; none: the first one.
        vm: Option<String>,
    },
    /// Nothing more can be written to the product's disk on the node.
    DiskFull {
        /// Which node.
        node: String,
    },
    /// The API server is stopped.
    ApiServer,
    /// All agents are replaced by Helm, as they are replaced by an upgrade.
    Upgrade,
}

/// One direction of a node's cable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// What the node gets.
    In,
    /// What the node sends.
    Out,
}

/// Whom a stall stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Who {
    /// The agent.
    Agent,
    /// The agent and its guard.
    AgentAndGuard,
    /// Everything on the node but its guests.
    AllButGuests,
}

/// What a fault did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fired {
    /// For people: what was done, with numbers.
    pub did: String,
    /// Whether it was so already.
    pub already: bool,
}

impl Fired {
    fn new(did: impl Into<String>) -> Self {
        Self { did: did.into(), already: false }
    }

    fn already(did: impl Into<String>) -> Self {
        Self { did: did.into(), already: true }
    }
}

impl Fault {
    /// The node that it befalls, if it is one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Power { node }
            | Self::Reboot { node }
            | Self::Cut { node, .. }
            | Self::Stall { node, .. }
            | Self::AgentKill { node }
            | Self::LibvirtdStop { node }
            | Self::LibvirtdKill { node }
            | Self::Guest { node, .. }
            | Self::DiskFull { node } => Some(node),
            Self::ApiServer | Self::Upgrade => None,
        }
    }

    /// Whether it goes on until it is healed.
    pub fn lasts(&self) -> bool {
        matches!(
            self,
            Self::Power { .. }
                | Self::Cut { .. }
                | Self::Stall { .. }
                | Self::LibvirtdStop { .. }
                | Self::DiskFull { .. }
                | Self::ApiServer
        )
    }

    /// Its name among those that last: one of a kind on a node.
    pub(crate) fn file_name(&self) -> String {
        let kind = match self {
            Self::Power { .. } => "power",
            Self::Reboot { .. } => "reboot",
            Self::Cut { .. } => "cut",
            Self::Stall { .. } => "stall",
            Self::AgentKill { .. } => "agent",
            Self::LibvirtdStop { .. } | Self::LibvirtdKill { .. } => "libvirtd",
            Self::Guest { .. } => "guest",
            Self::DiskFull { .. } => "disk-full",
            Self::ApiServer => "api-server",
            Self::Upgrade => "upgrade",
        };
        match self.node() {
            Some(node) => format!("{kind}-{node}"),
            None => kind.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Power { node } => write!(f, "power loss of {node}"),
            Self::Reboot { node } => write!(f, "reboot of {node}"),
            Self::Cut { node, one_way, from } => {
                let way = match one_way {
                    None => "",
                    Some(Way::In) => " (what it gets)",
                    Some(Way::Out) => " (what it sends)",
                };
                let from = if from.is_empty() { "everybody".into() } else { from.join(", ") };
                write!(f, "cut of {node} from {from}{way}")
            }
            Self::Stall { node, who } => {
                let who = match who {
                    Who::Agent => "the agent",
                    Who::AgentAndGuard => "agent and guard",
                    Who::AllButGuests => "everything but the guests",
                };
                write!(f, "stall of {who} on {node}")
            }
            Self::AgentKill { node } => write!(f, "kill of the agent on {node}"),
            Self::LibvirtdStop { node } => write!(f, "stop of libvirtd on {node}"),
            Self::LibvirtdKill { node } => write!(f, "kill of libvirtd on {node}"),
            Self::Guest { node, vm: None } => write!(f, "kill of a guest on {node}"),
            Self::Guest { node, vm: Some(vm) } => write!(f, "kill of {vm} on {node}"),
            Self::DiskFull { node } => write!(f, "full disk on {node}"),
            Self::ApiServer => f.write_str("stop of the API server"),
            Self::Upgrade => f.write_str("upgrade of the agents"),
        }
    }
}

impl Lab {
    /// Makes a fault happen, and proves that it has. One that lasts does so until [`Lab::heal`].
    pub fn fire(&self, fault: &Fault) -> Result<Fired> {
        if let Some(node) = fault.node() {
            self.node(node)?;
        }
        // Written down first: a nemesis that is killed in the middle leaves nothing that `heal` does not find.
        let before = self.active(fault)?;
        match before {
            Some(other) if other != *fault => {
                return Err(LabError::OtherFault { there: other.to_string() });
            }
            _ => self.note_active(fault)?,
        }
        let fired = match fault {
            Fault::Power { node } => self.fire_power(node),
            Fault::Reboot { node } => self.fire_reboot(node),
            Fault::Cut { node, one_way, from } => self.fire_cut(node, *one_way, from),
            Fault::Stall { node, who } => self.fire_stall(node, *who),
            Fault::AgentKill { node } => self.fire_agent_kill(node),
            Fault::LibvirtdStop { node } => self.fire_libvirtd_stop(node),
            Fault::LibvirtdKill { node } => self.fire_libvirtd_kill(node),
            Fault::Guest { node, vm } => self.fire_guest(node, vm.as_deref()),
            Fault::DiskFull { node } => self.fire_disk_full(node),
            Fault::ApiServer => self.fire_api_server(),
            Fault::Upgrade => self.fire_upgrade(),
        };
        if before.is_none() && (fired.is_err() || !fault.lasts()) {
            // A fault that failed may have been half done: undoing what was not done does nothing.
            if fired.is_err() && fault.lasts() {
                self.undo(fault)?;
            }
            self.forget_active(fault)?;
        }
        fired
    }

    /// Undoes a fault, whether it was fired or not, and says what that took.
    pub fn heal(&self, fault: &Fault) -> Result<String> {
        let did = self.undo(fault)?;
        self.forget_active(fault)?;
        Ok(did)
    }

    fn undo(&self, fault: &Fault) -> Result<String> {
        match fault {
            // A reboot that was killed in its middle has left the node off.
            Fault::Power { node } | Fault::Reboot { node } => self.undo_power(node),
            Fault::Cut { node, .. } => self.undo_cut(node),
            Fault::Stall { node, who } => self.undo_stall(node, *who),
            Fault::LibvirtdStop { node } => self.undo_libvirtd_stop(node),
            Fault::DiskFull { node } => self.undo_disk_full(node),
            Fault::ApiServer => self.undo_api_server(),
            Fault::AgentKill { .. }
            | Fault::LibvirtdKill { .. }
            | Fault::Guest { .. }
            | Fault::Upgrade => Ok(format!("{fault}: nothing to undo")),
        }
    }

    /// Undoes every fault that lasts. All are tried; the first failure is told.
    pub fn heal_all(&self) -> Result<Vec<String>> {
        let (mut did, mut failed) = (Vec::new(), None);
        for fault in self.all_active()? {
            match self.heal(&fault) {
                Ok(text) => did.push(text),
                Err(error) if failed.is_none() => failed = Some(error),
                Err(error) => did.push(format!("{fault}: {error}")),
            }
        }
        failed.map_or(Ok(did), Err)
    }

    /// Fires a fault, holds it for this long, undoes it, and tells all of it.
    pub fn nemesis(&self, fault: &Fault, hold: Option<Duration>) -> Result<()> {
        let fired = self.fire(fault)?;
        let already = if fired.already { "already so: " } else { "" };
        self.say(&format!("{fault}: {already}{}", fired.did));
        match hold {
            Some(hold) if fault.lasts() => {
                thread::sleep(hold);
                let proven = self.prove(fault);
                self.say(&self.heal(fault)?);
                proven?;
            }
            None if fault.lasts() => self.say("it lasts until `hack/lab nemesis heal`"),
            _ => {}
        }
        Ok(())
    }
}
