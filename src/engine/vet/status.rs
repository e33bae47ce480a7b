//! What people read of a virtual environment, from its record and from what the nodes say.

use super::failover::stays_with_its_disks;
use super::ledger::revision;
use super::veh::{Rooms, Veh, Wait};
use crate::engine::id::{NodeName, VmId};
use crate::engine::record::VeRecord;
use crate::engine::report::{Condition, Phase, VeReport, VmPhase, VmReport};
use crate::engine::spec::{OnNodeCrash, VeState};

/// How many things a sentence lists.
const LISTED: usize = 4;

/// Ready's reason when a VM runs on with its old size because its node has no room for the new one.
pub const NO_ROOM_TO_GROW: &str = "NoRoomToGrow";

/// "1 VM", "3 VMs".
#[must_use]
pub fn count(vms: usize) -> String {
    if vms == 1 { "1 VM".into() } else { format!("{vms} VMs") }
}

/// The first few, and how many more there are.
#[must_use]
pub fn some(items: &[String]) -> String {
    let mut text = items.iter().take(LISTED).cloned().collect::<Vec<_>>().join(", ");
    if items.len() > LISTED {
        text.push_str(&format!(" and {} more", items.len() - LISTED));
    }
    text
}

/// The status of an environment.
#[must_use]
pub fn of(
    record: &VeRecord,
    veh: &Veh,
    round: u64,
    (placing, making): (bool, Option<String>),
    rooms: &Rooms<'_>,
    is_live: &dyn Fn(&NodeName) -> bool,
) -> VeReport {
    let declared = &record.declared;
    let vms = vms(record, veh, rooms, is_live);
    let words = if declared.deleting {
        deleting(record, veh, is_live)
    } else if declared.spec.state == VeState::Terminated {
        terminated(&vms)
    } else {
        running(record, veh, &vms, (placing, making))
    };
    VeReport {
        uid: declared.uid.clone(),
        name: declared.name.clone(),
        observed_generation: declared.generation,
        phase: words.phase,
        ready: words.ready,
        placed: words.placed,
        progressing: words.progressing,
        vms,
        round,
        replica_set: record.set.members.clone(),
        settled: words.settled,
        again: false,
    }
}

struct Words {
    phase: Phase,
    ready: Condition,
    placed: Condition,
    progressing: Condition,
    settled: bool,
}

fn vms(
    record: &VeRecord,
    veh: &Veh,
    rooms: &Rooms<'_>,
    is_live: &dyn Fn(&NodeName) -> bool,
) -> Vec<VmReport> {
    let declared = record.declared.spec.vms(&record.declared.uid);
    let mut vms: Vec<VmReport> = declared
        .filter(|_| !record.declared.deleting)
        .map(|(id, _)| {
            let placement = record.placements.get(&id);
            let node = placement.map(|placement| placement.node.clone());
            let seen = node.as_ref().and_then(|node| veh.observed(node, &id));
            let (phase, reason) = match (&node, seen) {
                (None, _) => (VmPhase::Waiting, former(record, &id)),
                (Some(node), _) if !is_live(node) => {
                    (VmPhase::Unknown, Some(why_unknown(record, veh, node, &id)))
                }
                (Some(_), None) => (VmPhase::Starting, None),
                // Its progress is on the node's page: here it would be a write a second.
                (Some(_), Some(seen)) if seen.phase == VmPhase::Migrating => {
                    let moving = placement.and_then(|placement| placement.moving.as_ref());
                    (seen.phase, moving.map(|moving| format!("moves to {}", moving.to)))
                }
                (Some(_), Some(seen)) if seen.held && seen.phase == VmPhase::Starting => {
                    let waits = veh.waits_for(record, &id, rooms);
                    let waits = (!waits.is_empty()).then(|| format!("waits for {}", some(&waits)));
                    (seen.phase, waits)
                }
                (Some(_), Some(seen)) => (seen.phase, seen.reason.clone()),
            };
            let uuid = seen.and_then(|seen| Some(seen.domain.as_ref()?.uuid.clone()));
            let epoch = placement.map_or(0, |placement| placement.epoch);
            let restarts = seen.map_or(0, |seen| seen.restarts);
            VmReport { id, node, phase, uuid, epoch, reason, restarts }
        })
        .collect();
    vms.sort_by(|a, b| a.id.cmp(&b.id));
    vms
}

/// Who has it still, and is to end it before it is placed anew.
fn former(record: &VeRecord, id: &VmId) -> Option<String> {
    let nodes: Vec<&str> = record.former.get(id)?.iter().map(NodeName::as_str).collect();
    Some(format!("waits for {} to end it", nodes.join(", ")))
}

/// It is to run elsewhere, as its node is silent.
fn fails_over(record: &VeRecord, veh: &Veh, vm: &VmReport) -> bool {
    let silent = vm.node.as_ref().filter(|_| vm.phase == VmPhase::Unknown);
    silent.is_some_and(|node| veh.losses.is_to_be_proven(node))
        && record.declared.spec.recovery.on_node_crash != OnNodeCrash::Leave
        && !stays_with_its_disks(record, &vm.id)
}

fn why_unknown(record: &VeRecord, veh: &Veh, node: &NodeName, id: &VmId) -> String {
    if stays_with_its_disks(record, id) {
        return format!("node {node} is silent, and the only copy of its disks is there");
    }
    if record.declared.spec.recovery.on_node_crash == OnNodeCrash::Leave {
        return format!("node {node} is silent, and is waited for (recovery.onNodeCrash: none)");
    }
    let words = veh.losses.words(node).map(str::to_owned);
    words.unwrap_or_else(|| format!("node {node} is silent"))
}

fn deleting(record: &VeRecord, veh: &Veh, is_live: &dyn Fn(&NodeName) -> bool) -> Words {
    let owing: Vec<String> =
        record.owing.iter().map(|node| owes(veh, node, is_live(node))).collect();
    let text = format!("waits for {} to confirm that its VMs are gone", some(&owing));
    Words {
        phase: Phase::Deleting,
        ready: Condition::no("Deleting", text.clone()),
        placed: Condition::no("Deleting", "being deleted"),
        progressing: Condition::yes("Deleting", text),
        settled: false,
    }
}

/// A node that may have something still, and what keeps it, if that is known.
fn owes(veh: &Veh, node: &NodeName, is_live: bool) -> String {
    if !is_live {
        let words = veh.losses.words(node).unwrap_or("silent");
        return format!(
            "{node} ({})",
            words.strip_prefix(&format!("node {node} ")).unwrap_or(words)
        );
    }
    let mut vms = veh.observed.get(node).into_iter().flat_map(|(_, vms)| vms);
    let kept = vms.find_map(|vm| Some((&vm.id, vm.reason.as_ref()?)));
    kept.map_or(node.to_string(), |(id, why)| format!("{node} ({}-{}: {why})", id.member, id.index))
}

fn terminated(vms: &[VmReport]) -> Words {
    let stopping: Vec<String> = vms
        .iter()
        .filter(|vm| vm.node.is_some() && vm.phase != VmPhase::Stopped)
        .map(short)
        .collect();
    let placed = Condition::no("Terminated", "declared terminated: disks are kept, no memory is");
    if stopping.is_empty() {
        return Words {
            phase: Phase::Terminated,
            ready: Condition::yes("Terminated", "every VM is stopped, as declared"),
            placed,
            progressing: Condition::no("Terminated", "nothing is left to do"),
            settled: true,
        };
    }
    let text = format!("waits for {} to stop", some(&stopping));
    Words {
        phase: Phase::Running,
        ready: Condition::no("Stopping", text.clone()),
        placed,
        progressing: Condition::yes("Stopping", text),
        settled: false,
    }
}

fn running(
    record: &VeRecord,
    veh: &Veh,
    vms: &[VmReport],
    (placing, making): (bool, Option<String>),
) -> Words {
    let active = record.placements.values().filter(|placement| placement.active).count();
    let phase = if active == 0 && !vms.is_empty() { Phase::Waiting } else { Phase::Running };
    if active < vms.len() {
        let ends = |vm: &VmReport| {
            let why = vm.reason.as_ref().filter(|_| vm.phase == VmPhase::Waiting)?;
            Some(format!("{} {why}", short(vm)))
        };
        return waiting(veh, phase, (placing, vms.iter().find_map(ends)), making);
    }
    if let Some(why) = &record.restarting {
        return restarting(vms, why);
    }
    let mut nodes: Vec<String> =
        record.placements.values().map(|placement| placement.node.to_string()).collect();
    nodes.sort();
    nodes.dedup();
    let placed = Condition::yes("Placed", format!("{} on {}", count(vms.len()), some(&nodes)));
    let target = |vm: &VmReport| revision(record, &vm.id);
    let is_up = |vm: &VmReport| {
        let current = vm.node.as_ref().and_then(|node| veh.observed(node, &vm.id));
        match vm.phase {
            VmPhase::Running | VmPhase::Migrating => {
                current.is_some_and(|seen| seen.revision == target(vm))
            }
            VmPhase::Completed => true,
            _ => false,
        }
    };
    let refused = |vm: &VmReport| {
        let seen = vm.node.as_ref().and_then(|node| veh.observed(node, &vm.id));
        seen.is_some_and(|seen| seen.accepted != target(vm) && seen.reason.is_some())
    };
    let not_up: Vec<&VmReport> = vms.iter().filter(|vm| !is_up(vm)).collect();
    if not_up.is_empty() {
        return Words {
            phase,
            ready: Condition::yes("Running", all_up(vms)),
            placed,
            progressing: Condition::no("Running", "nothing is left to do"),
            settled: true,
        };
    }
    let reason = not_up
        .iter()
        .map(|vm| match vm.phase {
            VmPhase::Unknown => "NodeSilent",
            VmPhase::BackOff => "BackOff",
            VmPhase::Running if refused(vm) => NO_ROOM_TO_GROW,
            VmPhase::Running => "Updating",
            _ => "Starting",
        })
        .next()
        .unwrap_or("Starting");
    let words: Vec<String> = not_up.iter().map(|vm| in_words(vm)).collect();
    let text = format!("{} of {} up: {}", vms.len() - not_up.len(), vms.len(), some(&words));
    // A failure is shown at once; a start that goes its way may be over before it is worth a write.
    let lasts =
        |vm: &VmReport| matches!(vm.phase, VmPhase::Unknown | VmPhase::BackOff) || refused(vm);
    let settled = not_up.iter().any(|vm| lasts(vm));
    let over = veh.losses.has_lost() || not_up.iter().any(|vm| fails_over(record, veh, vm));
    let phase = if over { Phase::FailingOver } else { phase };
    Words {
        phase,
        ready: Condition::no(reason, text.clone()),
        placed,
        progressing: Condition::yes(reason, text),
        settled,
    }
}

fn all_up(vms: &[VmReport]) -> String {
    if vms.is_empty() {
        return "no VM is declared".to_owned();
    }
    let place = |vm: &VmReport| Some(format!("{} on {}", short(vm), vm.node.as_ref()?));
    let places: Vec<String> = vms.iter().filter_map(place).collect();
    format!("{} as declared: {}", count(vms.len()), some(&places))
}

fn restarting(vms: &[VmReport], why: &str) -> Words {
    let up: Vec<String> = vms.iter().filter(|vm| vm.phase != VmPhase::Stopped).map(short).collect();
    let next = if up.is_empty() {
        "all VMs are down, and about to be started".to_owned()
    } else {
        format!("all VMs are stopped, then started; waits for {} to stop", some(&up))
    };
    let text = format!("{why}: {next}");
    Words {
        phase: Phase::Running,
        ready: Condition::no("Restarting", text.clone()),
        placed: Condition::yes("Placed", count(vms.len())),
        progressing: Condition::yes("Restarting", text),
        settled: false,
    }
}

fn short(vm: &VmReport) -> String {
    format!("{}-{}", vm.id.member, vm.id.index)
}

fn waiting(
    veh: &Veh,
    phase: Phase,
    (placing, ends): (bool, Option<String>),
    making: Option<String>,
) -> Words {
    let (phase, reason, text, settled) = match veh.wait() {
        Some(Wait::CannotFit(why)) => {
            let text = making.map_or(why.clone(), |making| format!("{why}; {making}"));
            (phase, "CannotBePlaced", text, true)
        }
        Some(Wait::Contended(why)) => (phase, "Placing", why.clone(), false),
        None if veh.losses.has_lost() => {
            let text = "its node is lost: is placed anew".to_owned();
            (Phase::FailingOver, "FailingOver", text, true)
        }
        None if placing => (phase, "Placing", "looks for nodes".to_owned(), false),
        None => {
            let text = ends.unwrap_or_else(|| "is about to be placed".to_owned());
            (phase, "Placing", text, false)
        }
    };
    Words {
        phase,
        ready: Condition::no(reason, text.clone()),
        placed: Condition::no(reason, text.clone()),
        progressing: Condition::yes(reason, text),
        settled,
    }
}

fn in_words(vm: &VmReport) -> String {
    let state = match vm.phase {
        VmPhase::Waiting => "waiting",
        VmPhase::Starting => "starting",
        VmPhase::Running => "to be restarted for its new definition",
        VmPhase::Paused => "paused",
        VmPhase::Migrating => "being moved",
        VmPhase::Arriving => "arriving",
        VmPhase::Stopping => "stopping",
        VmPhase::Stopped => "stopped",
        VmPhase::BackOff => "failed",
        VmPhase::Completed => "completed",
        VmPhase::Removing => "removing",
        VmPhase::Unknown => "unknown",
    };
    let node = vm.node.as_ref().map(|node| format!(" on {node}")).unwrap_or_default();
    let reason = vm.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    format!("{}-{} {state}{node}{reason}", vm.id.member, vm.id.index)
}
