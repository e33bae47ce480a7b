//! What proposers and keepers of a register say to each other.

use serde::{Deserialize, Serialize};

use super::ballot::Ballot;
use crate::engine::id::VeUid;
use crate::engine::record::VeRecord;
use crate::engine::replica::DiskId;
use crate::engine::spec::MAX_VMS;
use crate::engine::wire::MAX_REPLICAS;

/// One message about one register.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RegisterMessage {
    /// Of which environment.
    pub ve: VeUid,
    /// The keeper's disk: a keeper that has another one now has never promised anything.
    pub disk: DiskId,
    /// What.
    pub said: Said,
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Said {
    /// To a keeper: I want to propose; take nothing older, and tell what you have.
    Ask {
        /// The round.
        ballot: Ballot,
    },
    /// From a keeper: so be it, and this is what I have.
    Promise {
        /// As asked.
        ballot: Ballot,
        /// What it took last, and under which ballot.
        accepted: Option<Box<(Ballot, VeRecord)>>,
    },
    /// To a keeper: take this.
    Propose {
        /// Under which ballot.
        ballot: Ballot,
        /// The value.
        record: Box<VeRecord>,
    },
    /// From a keeper: it is on disk.
    Accepted {
        /// As proposed, or a later step of the same round.
        ballot: Ballot,
    },
    /// From a keeper: somebody else has asked since.
    Refused {
        /// As asked or proposed.
        ballot: Ballot,
        /// Whose turn it is.
        promised: Ballot,
    },
    /// From a node that has another disk now: its own.
    OtherDisk {
        /// The disk that was meant.
        meant: DiskId,
    },
}

impl RegisterMessage {
    /// Bounds that an honest peer keeps.
    ///
    /// # Errors
    /// Names the part that is out of bounds.
    pub fn check(&self) -> Result<(), &'static str> {
        let record = match &self.said {
            Said::Propose { record, .. } => Some(&**record),
            Said::Promise { accepted, .. } => accepted.as_ref().map(|accepted| &accepted.1),
            _ => None,
        };
        let Some(record) = record else { return Ok(()) };
        let max = MAX_VMS as usize;
        let declared = &record.declared;
        let vms: u64 = declared.spec.members.iter().map(|m| u64::from(m.replicas)).sum();
        if declared.spec.members.len() > max || vms > u64::from(MAX_VMS) {
            return Err("register: too many VMs");
        }
        if record.placements.len() > 2 * max {
            return Err("register: too many placements");
        }
        if record.set.members.len() > MAX_REPLICAS || record.set.leaving.len() > MAX_REPLICAS {
            return Err("register: replica set too large");
        }
        if declared.uid != self.ve {
            return Err("register: of another environment");
        }
        Ok(())
    }
}
