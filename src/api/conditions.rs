//! Condition types and reasons: the vocabulary that `kubectl wait`, events and dashboards share.

/// Condition types of a `VirtualEnvironment`.
pub mod ve_condition {
    /// It is as declared: every VM runs, or it is stopped as declared. Set at the first status write.
    pub const READY: &str = "Ready";
    /// Every VM has a node.
    pub const PLACED: &str = "Placed";
    /// Work is going on to make it as declared.
    pub const PROGRESSING: &str = "Progressing";
    /// kstatus: work is going on. Present only while true.
    pub const RECONCILING: &str = "Reconciling";
    /// kstatus: no progress without a change from outside. Present only while true.
    pub const STALLED: &str = "Stalled";
}

/// Reasons of a `VirtualEnvironment`'s conditions, and of its events.
pub mod ve_reason {
    /// Every VM runs.
    pub const RUNNING: &str = "Running";
    /// No majority of the agents that keep its record answers: what the status says may no longer be so.
    pub const NO_MAJORITY: &str = "NoMajority";
    /// Declared Terminated, and stopped.
    pub const TERMINATED: &str = "Terminated";
    /// Some VMs are not yet as declared.
    pub const STARTING: &str = "Starting";
    /// VMs are being stopped.
    pub const STOPPING: &str = "Stopping";
    /// A VM is down and is not started again by its run strategy, or keeps failing.
    pub const VM_FAILED: &str = "VmFailed";
    /// A guest powered itself off, and its run strategy keeps it so.
    pub const GUEST_POWERED_OFF: &str = "GuestPoweredOff";
    /// A VM crashed.
    pub const CRASHED: &str = "Crashed";
    /// What was changed behind the agent's back has been put right.
    pub const HEALED: &str = "Healed";
    /// A VM started.
    pub const STARTED: &str = "Started";
    /// Every VM has a node.
    pub const PLACED: &str = "Placed";
    /// A scheduling procedure is looking for nodes.
    pub const SCHEDULING: &str = "Scheduling";
    /// No node group has enough processors or memory; the message says what is short, and by how much.
    pub const INSUFFICIENT_RESOURCES: &str = "InsufficientResources";
    /// No node group satisfies the placement; the message names the constraint.
    pub const UNSATISFIABLE_PLACEMENT: &str = "UnsatisfiablePlacement";
    /// A node that holds its VMs does not answer.
    pub const NODE_UNREACHABLE: &str = "NodeUnreachable";
    /// An image cannot be fetched, or has another digest than declared.
    pub const IMAGE_FAILED: &str = "ImageFailed";
    /// It is being deleted.
    pub const DELETING: &str = "Deleting";
    /// Its last VM is gone.
    pub const DELETED: &str = "Deleted";
}

/// Condition types of a `PhysicalNode`.
pub mod node_condition {
    /// Its agent runs, its hypervisor answers, and it knows its peers.
    pub const READY: &str = "Ready";
    /// New VMs may be placed on it.
    pub const SCHEDULABLE: &str = "Schedulable";
    /// Its hypervisor answers.
    pub const HYPERVISOR_READY: &str = "HypervisorReady";
    /// Guests run on hardware virtualisation.
    pub const ACCELERATED: &str = "Accelerated";
    /// It is in maintenance, and no VM is left on it. Absent unless it is in maintenance.
    pub const DRAINED: &str = "Drained";
    /// Its VMs may be taken over when it is lost, and cannot run twice for that.
    pub const PROTECTED: &str = "Protected";
    /// Its storage is nearly full: no new disks.
    pub const STORAGE_FULL: &str = "StorageFull";
}

/// Reasons of a `PhysicalNode`'s conditions, and of its events.
pub mod node_reason {
    /// All is well.
    pub const AGENT_READY: &str = "AgentReady";
    /// Its agent is not heard by its peers; one of them says so.
    pub const SILENT: &str = "Silent";
    /// The agent has started, and is still looking for its peers.
    pub const JOINING: &str = "Joining";
    /// libvirt does not answer.
    pub const HYPERVISOR_DOWN: &str = "HypervisorDown";
    /// libvirt answers.
    pub const HYPERVISOR_UP: &str = "HypervisorUp";
    /// Nothing stands against new VMs.
    pub const ACCEPTING: &str = "Accepting";
    /// Its Kubernetes `Node` is cordoned.
    pub const CORDONED: &str = "Cordoned";
    /// `spec.schedulable` is false.
    pub const DECLARED_UNSCHEDULABLE: &str = "DeclaredUnschedulable";
    /// `spec.maintenance` is true.
    pub const MAINTENANCE: &str = "Maintenance";
    /// VMs are leaving it.
    pub const DRAINING: &str = "Draining";
    /// No VM is left on it.
    pub const EMPTY: &str = "Empty";
    /// KVM works: a probe guest ran.
    pub const KVM: &str = "Kvm";
    /// KVM is absent or does not work: guests are emulated.
    pub const EMULATION: &str = "Emulation";
    /// A hardware watchdog resets it if its guard cannot act.
    pub const WATCHDOG: &str = "Watchdog";
    /// Its guard ends VMs whose lease is over.
    pub const GUARD: &str = "Guard";
    /// Nothing is taken over from it.
    pub const UNPROTECTED: &str = "Unprotected";
    /// There is room for disks.
    pub const STORAGE_AVAILABLE: &str = "StorageAvailable";
    /// There is no room for disks.
    pub const STORAGE_EXHAUSTED: &str = "StorageExhausted";
}
