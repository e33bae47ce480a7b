//! Everything an engine asks of its owner.
//!
//! Write before send is data: the owner makes `persist` durable, all of it, before it carries out the
//! first of `actions`. A promise that is sent before it is on disk is a lost VM.

use std::time::Duration;

use super::guard::Allowance;
use super::id::{NodeName, VeName, VeUid, VmId};
use super::record::Record;
use super::replica::Replica;
use super::report::{Happening, NodeReport, VeReport};
use super::spec::VmDefinition;
use super::wire::Message;

/// What one input led to.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be durable before any action is taken.
    pub persist: Vec<Record>,
    /// To be carried out in order; those to different parties may overtake each other.
    pub actions: Vec<Action>,
}

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Send to a peer: at most once, in no particular order, possibly never.
    Send {
        /// To whom.
        to: NodeName,
        /// What.
        message: Box<Message>,
    },
    /// Give the hypervisor a command.
    Hypervisor {
        /// Comes back in [`super::input::HypervisorInput::Done`].
        request: u64,
        /// What to do.
        command: HypervisorCommand,
    },
    /// Tell or ask Kubernetes.
    Cluster(ClusterAction),
    /// Tell this node's guard how long its VMs may run.
    Guard(Allowance),
    /// Have a peer's machine switched off by what manages it from outside: it is silent, and its guardians have promised never
    /// to renew this lease. Asked for only where [`super::Config::can_switch_off`] says so.
    SwitchOff {
        /// Whose machine.
        holder: Replica,
        /// Comes back in [`super::input::Input::Switched`].
        epoch: u64,
    },
}

/// A command for the hypervisor. All are idempotent. The engine gives one at a time per VM.
#[derive(Clone, Debug, PartialEq)]
pub enum HypervisorCommand {
    /// Fetch images, make disks that are missing, define or redefine the domain, start it. A domain that
    /// runs from the same definition is left alone; one that runs from another is stopped first.
    Run(Box<VmDefinition>),
    /// Continue a paused domain.
    Resume(VmId),
    /// Ask the guest to power off, and end it after `grace`. Its disks and definition stay.
    Stop {
        /// Which VM.
        id: VmId,
        /// How long the guest may take; zero ends it at once.
        grace: Duration,
    },
    /// End it, undefine it, delete its disks.
    Remove(VmId),
    /// Make ready for a VM that is to arrive by live migration: fetch its images, make its disks, and let `from` reach this
    /// node's hypervisor for it. Nothing is started; a domain that has arrived already is left alone. The next other
    /// command for this VM withdraws the leave.
    Expect {
        /// What will arrive.
        definition: Box<VmDefinition>,
        /// Where it comes from.
        from: NodeName,
    },
    /// Move a running domain to a peer that expects it, live, with its disks' contents. Succeeds when it is there, *paused*,
    /// and no longer here (its disks stay here, until it is removed); after a failure it is here as it was. That it is
    /// continued there is another command, once it is certain that it is not here: the answer of the last step may be lost,
    /// and then both ends have it, but only one of them runs. A domain that is not here is a failure of the kind
    /// [`super::host::FailureKind::NotHere`].
    Migrate(Box<Migration>),
    /// Give up the migration of this VM that is under way, if one is: it then ends with a failure. Overtakes all other commands
    /// and has no end of its own.
    AbortMigration(VmId),
}

/// A live migration, for the hypervisor of the node that the VM leaves.
#[derive(Clone, Debug, PartialEq)]
pub struct Migration {
    /// What will run there: the same VM in its next placement.
    pub definition: VmDefinition,
    /// Where to.
    pub to: NodeName,
    /// Most bytes a second that it may use of the network; `None` leaves it to the network.
    pub bandwidth: Option<u64>,
    /// It is given up when it has not ended by then.
    pub limit: Duration,
}

impl HypervisorCommand {
    /// Which VM it is for.
    #[must_use]
    pub fn vm(&self) -> &VmId {
        match self {
            Self::Run(definition) => &definition.id,
            Self::Resume(id)
            | Self::Stop { id, .. }
            | Self::Remove(id)
            | Self::AbortMigration(id) => id,
            Self::Expect { definition, .. } => &definition.id,
            Self::Migrate(migration) => &migration.definition.id,
        }
    }
}

/// Something for Kubernetes. The rim coalesces, retries for as long as it takes, and never blocks.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterAction {
    /// Watch all virtual environments (this agent is a gateway now), or stop.
    WatchVes(bool),
    /// Write the first replica set by compare-and-swap on `resource_version`, and the finalizer where it
    /// is missing. Losing the swap is no error: the watch tells who won.
    ClaimReplicaSet {
        /// Identity.
        uid: VeUid,
        /// Name.
        name: VeName,
        /// As read.
        resource_version: String,
        /// The chosen set; the first is the first handler.
        replicas: Vec<Replica>,
    },
    /// The virtual environment's status. Only the newest per uid matters.
    ReportVe(Box<VeReport>),
    /// No majority of those that keep an environment's record answers this agent, which handles it or is to: what its status says may
    /// no longer be so, and it is to say why. Its handler's next report takes the place of that.
    ReportNoMajority {
        /// Identity.
        uid: VeUid,
        /// Name.
        name: VeName,
        /// Who does not answer, and what follows from that.
        message: String,
    },
    /// Every VM is confirmed gone: remove the finalizer.
    ReleaseVe {
        /// Identity.
        uid: VeUid,
        /// Name.
        name: VeName,
    },
    /// This node's status. Only the newest matters; the rim limits how often it writes.
    ReportNode(Box<NodeReport>),
    /// These peers are not heard, and a third of all is: their pages are to say so if it stays like that, until they speak for
    /// themselves again. Takes the place of what was said before. Of the first gateway only.
    ReportSilent(Vec<NodeName>),
    /// Something that a person would ask about: a Kubernetes event and a log line.
    Happened(Happening),
}
