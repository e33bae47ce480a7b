//! Power: every process of a node is killed at once, and its memory is lost.

use std::{collections::BTreeMap, fs};

use super::{Fired, inside};
use crate::{
    error::{LabError, Result},
    lab::Lab,
    record::started_ns,
};

impl Lab {
    pub(super) fn fire_power(&self, name: &str) -> Result<Fired> {
        let node = self.node(name)?;
        if node.init().is_none() {
            return Ok(Fired::already(format!("{name} is off already")));
        }
        let memory = node.path("/run/lab/ready")?;
        let before = inside::processes(&node);
        let identities: BTreeMap<i32, u64> =
            before.iter().filter_map(|one| Some((one.pid, started_ns(one.pid)?))).collect();
        self.node_stop(name)?;
        let left: Vec<i32> = identities
            .iter()
            .filter(|(pid, started)| started_ns(**pid) == Some(**started) && !has_ended(**pid))
            .map(|(pid, _)| *pid)
            .collect();
        if !left.is_empty() || memory.exists() || node.init().is_some() {
            return Err(LabError::NotFired {
                fault: format!("power loss of {name}"),
                detail: format!("processes {left:?} live, or its memory does"),
            });
        }
        let guests = before.iter().filter(|process| process.is_guest()).count();
        Ok(Fired::new(format!(
            "killed {} processes, {guests} of them guests; its /run is gone",
            before.len()
        )))
    }

    pub(super) fn undo_power(&self, name: &str) -> Result<String> {
        if self.node(name)?.init().is_some() {
            return Ok(format!("{name} is on already"));
        }
        self.node_boot(name)?;
        let boot = self.node(name)?.boot_id()?;
        Ok(format!("{name} is on again, boot {boot}"))
    }

    pub(super) fn fire_reboot(&self, name: &str) -> Result<Fired> {
        let node = self.node(name)?;
        let boot = node.boot_id().ok();
        let killed = self.fire_power(name)?;
        let started = self.undo_power(name)?;
        if node.boot_id().ok() == boot {
            return Err(LabError::NotFired {
                fault: format!("reboot of {name}"),
                detail: "its boot id is the same".into(),
            });
        }
        Ok(Fired::new(format!("{}; {started}", killed.did)))
    }
}

fn has_ended(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}
