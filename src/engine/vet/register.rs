//! Where the records of virtual environments are kept: read, and change.
//!
//! Today there is one durable copy, on the handler's node, and a change is done when it is written
//! there. The interface is the one that a replicated register fills: nothing else in this room knows
//! how many copies there are.

use std::collections::BTreeMap;

use crate::engine::context::Context;
use crate::engine::id::VeUid;
use crate::engine::record::{Kept, VeRecord};

/// The records that this agent handles.
#[derive(Debug, Default)]
pub struct Registers {
    records: BTreeMap<VeUid, VeRecord>,
}

impl Registers {
    /// The records as they were when the agent stopped.
    #[must_use]
    pub fn recover(records: Vec<VeRecord>) -> Self {
        let keyed = records.into_iter().map(|record| (record.declared.uid.clone(), record));
        Self { records: keyed.collect() }
    }

    /// The record of an environment.
    #[must_use]
    pub fn read(&self, ve: &VeUid) -> Option<&VeRecord> {
        self.records.get(ve)
    }

    /// All records.
    pub fn all(&self) -> impl Iterator<Item = &VeRecord> {
        self.records.values()
    }

    /// A first record.
    pub fn create(&mut self, record: VeRecord, ctx: &mut Context) {
        ctx.keep(Kept::Ve(record.clone()));
        self.records.insert(record.declared.uid.clone(), record);
    }

    /// Changes a record; it is on disk before anything that follows is told to anybody.
    pub fn change(&mut self, ve: &VeUid, change: impl FnOnce(&mut VeRecord), ctx: &mut Context) {
        if let Some(record) = self.records.get_mut(ve) {
            let before = record.clone();
            change(record);
            if *record != before {
                ctx.keep(Kept::Ve(record.clone()));
            }
        }
    }
}
