//! What every room may use while one input is handled: the time, the node's name, the seeded generator,
//! and the list of effects under construction.

use rand::RngExt;
use rand::rngs::ChaCha8Rng;

use super::effect::{Action, ClusterAction, Effects};
use super::guard::Allowance;
use super::id::{NodeName, VeName, VeUid};
use super::record::{Kept, Record, RecordKey};
use super::report::{About, Failover, Happening};
use super::time::Instant;
use super::wire::Message;

/// The one place where effects are collected.
#[derive(Debug)]
pub struct Context {
    /// This node.
    pub node: NodeName,
    /// The time of the input that is being handled.
    pub now: Instant,
    /// The engine's only source of chance.
    pub rng: ChaCha8Rng,
    /// What this input leads to.
    pub out: Effects,
    /// Messages to this node itself: handled before the input ends, so that an agent treats itself as it
    /// treats its peers.
    pub loopback: Vec<Message>,
    /// This node's VMs are being ended, because it was not heard: what the hypervisor shows is not their doing.
    pub lapsed: bool,
}

impl Context {
    /// Sends to a peer, or to this node itself.
    pub fn send(&mut self, to: &NodeName, message: Message) {
        if *to == self.node {
            self.loopback.push(message);
        } else {
            self.out.actions.push(Action::Send { to: to.clone(), message: Box::new(message) });
        }
    }

    /// Keeps a record before anything of this input is told to anybody.
    pub fn keep(&mut self, kept: Kept) {
        self.out.persist.push(Record::Put(Box::new(kept)));
    }

    /// Forgets a record.
    pub fn forget(&mut self, key: RecordKey) {
        self.out.persist.push(Record::Forget(key));
    }

    /// Tells this node's guard how long its VMs may run.
    pub fn guard(&mut self, allowance: Allowance) {
        self.out.actions.push(Action::Guard(allowance));
    }

    /// Asks or tells Kubernetes.
    pub fn cluster(&mut self, action: ClusterAction) {
        self.out.actions.push(Action::Cluster(action));
    }

    /// Tells people that something happened to an environment.
    pub fn happened(
        &mut self,
        ve: (&VeUid, &VeName),
        warning: bool,
        reason: &'static str,
        message: String,
    ) {
        self.happened_in(ve, warning, reason, message, None);
    }

    /// The same, as a step of a failover.
    pub fn happened_in(
        &mut self,
        ve: (&VeUid, &VeName),
        warning: bool,
        reason: &'static str,
        message: String,
        failover: Option<Failover>,
    ) {
        let about = About::Ve { uid: ve.0.clone(), name: ve.1.clone() };
        let happening = Happening { about, warning, reason, message, failover };
        self.cluster(ClusterAction::Happened(happening));
    }

    /// Tells people that something happened to this node.
    pub fn node_happened(&mut self, warning: bool, reason: &'static str, message: String) {
        let (about, failover) = (About::ThisNode, None);
        let happening = Happening { about, warning, reason, message, failover };
        self.cluster(ClusterAction::Happened(happening));
    }

    /// A duration between `low` and `high` milliseconds.
    pub fn jitter(&mut self, low: u64, high: u64) -> std::time::Duration {
        std::time::Duration::from_millis(self.rng.random_range(low..high))
    }
}

#[cfg(test)]
impl Context {
    /// That of a node while nothing has happened, for tests.
    pub fn sample(node: &str, now: Instant) -> Self {
        use rand::SeedableRng;
        Self {
            node: NodeName::from(node),
            now,
            rng: ChaCha8Rng::seed_from_u64(1),
            out: Effects::default(),
            loopback: Vec::new(),
            lapsed: false,
        }
    }
}
