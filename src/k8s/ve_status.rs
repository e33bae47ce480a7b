//! An environment's report as its status object. Pure.
//!
//! The whole object each time: what it does not say is taken away from the status by server-side apply.
//! Times are kept while what they are about stays the same.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{
    self, LABEL_ENVIRONMENT, LABEL_MEMBER, VirtualEnvironmentStatus, VmState, VmStatus,
    ve_condition, ve_reason,
};
use crate::engine::id::NodeName;
use crate::engine::report::{self, Phase, VeReport, VmPhase, VmReport};

/// Longest message of a condition, bytes. Kubernetes allows 32 KiB; nobody reads more than this.
const MAX_MESSAGE: usize = 1024;

/// Now, as Kubernetes writes it: in whole seconds.
pub(super) fn now() -> Time {
    let seconds = Timestamp::from_second(Timestamp::now().as_second());
    Time(seconds.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The status that says what the report says. `before` is the status as it is, `scaled` the member that
/// `kubectl scale` is about.
pub(super) fn status(
    report: &VeReport,
    before: &VirtualEnvironmentStatus,
    scaled: Option<&str>,
    handler: &NodeName,
    now: &Time,
) -> VirtualEnvironmentStatus {
    let wanted = report.vms.iter().filter(|vm| vm.phase != VmPhase::Removing);
    let desired = count(wanted.clone());
    let up = |vm: &&VmReport| matches!(vm.phase, VmPhase::Running | VmPhase::Migrating);
    let running = count(wanted.clone().filter(up));
    let mut nodes: Vec<String> =
        report.vms.iter().filter_map(|vm| Some(vm.node.as_ref()?.to_string())).collect();
    nodes.sort();
    nodes.dedup();
    VirtualEnvironmentStatus {
        observed_generation: Some(report.observed_generation),
        phase: Some(match report.phase {
            Phase::Waiting => api::Phase::Waiting,
            Phase::Running => api::Phase::Running,
            Phase::FailingOver => api::Phase::FailingOver,
            Phase::Terminated => api::Phase::Terminated,
            Phase::Deleting => api::Phase::Deleting,
        }),
        conditions: conditions(report, &before.conditions, now),
        ready: Some(format!("{running}/{desired}")),
        ready_vms: Some(running),
        desired_vms: Some(desired),
        replicas: scaled.map(|member| count(wanted.filter(|vm| vm.id.member.as_str() == member))),
        selector: scaled.map(|member| {
            format!("{LABEL_ENVIRONMENT}={},{LABEL_MEMBER}={member}", report.name.name)
        }),
        node_list: (!nodes.is_empty()).then(|| nodes.join(",")),
        nodes,
        handler: Some(handler.to_string()),
        handler_round: Some(report.round),
        replica_set: report.replica_set.iter().map(ToString::to_string).collect(),
        vms: report.vms.iter().map(|vm| vm_status(report, vm, before, now)).collect(),
        waiting_reason: (!report.ready.holds).then(|| shortened(&report.ready.message)),
    }
}

fn count<'a>(vms: impl Iterator<Item = &'a VmReport>) -> u32 {
    u32::try_from(vms.count()).unwrap_or(u32::MAX)
}

fn conditions(report: &VeReport, before: &[Condition], now: &Time) -> Vec<Condition> {
    let condition = |type_: &str, condition: &report::Condition| {
        made(type_, condition, Some(report.observed_generation), before, now)
    };
    let mut conditions = vec![
        condition(ve_condition::READY, &report.ready),
        condition(ve_condition::PLACED, &report.placed),
        condition(ve_condition::PROGRESSING, &report.progressing),
    ];
    let stalled = !report.ready.holds && !report.progressing.holds;
    if report.progressing.holds {
        conditions.push(condition(ve_condition::RECONCILING, &report.progressing));
    } else if stalled && report.phase != Phase::Deleting {
        let why = report::Condition { holds: true, ..report.ready.clone() };
        conditions.push(condition(ve_condition::STALLED, &why));
    }
    conditions
}

/// What an agent says of an environment whose record no majority of its keepers answers for: a share of its status, which its handler
/// takes back.
pub(super) fn no_majority(message: &str, generation: Option<i64>, now: &Time) -> Value {
    let says = report::Condition::no(ve_reason::NO_MAJORITY, message.to_owned());
    let ready = made(ve_condition::READY, &says, generation, &[], now);
    json!({"conditions": [Condition { status: "Unknown".to_owned(), ..ready }]})
}

/// Whether that stands there.
pub(super) fn lacks_majority(status: &VirtualEnvironmentStatus) -> bool {
    let ready = status.conditions.iter().find(|one| one.type_ == ve_condition::READY);
    ready.is_some_and(|ready| ready.reason == ve_reason::NO_MAJORITY)
}

/// A condition as Kubernetes writes it. Its time moves only with its value.
pub(super) fn made(
    type_: &str,
    condition: &report::Condition,
    generation: Option<i64>,
    before: &[Condition],
    now: &Time,
) -> Condition {
    let status = if condition.holds { "True" } else { "False" };
    let since = before
        .iter()
        .find(|before| before.type_ == type_ && before.status == status)
        .map_or_else(|| now.clone(), |before| before.last_transition_time.clone());
    let reason = if condition.reason.is_empty() { "Unknown" } else { &*condition.reason };
    Condition {
        last_transition_time: since,
        message: shortened(&condition.message),
        observed_generation: generation,
        reason: reason.to_owned(),
        status: status.to_owned(),
        type_: type_.to_owned(),
    }
}

fn shortened(text: &str) -> String {
    let end = (0..=text.len().min(MAX_MESSAGE)).rev().find(|at| text.is_char_boundary(*at));
    text[..end.unwrap_or(0)].to_owned()
}

fn vm_status(
    report: &VeReport,
    vm: &VmReport,
    before: &VirtualEnvironmentStatus,
    now: &Time,
) -> VmStatus {
    let name = report.name.vm(&vm.id);
    let node = vm.node.as_ref().map(ToString::to_string);
    let state = state(vm.phase);
    let since = before
        .vms
        .iter()
        .find(|before| before.name == name && before.state == state && before.node == node)
        .and_then(|before| before.since.clone())
        .unwrap_or_else(|| now.clone());
    // One word is for machines, a sentence for people.
    let told = vm.reason.as_deref().filter(|reason| !reason.is_empty());
    let (word, sentence) = match told {
        Some(told) if told.chars().all(|c| c.is_ascii_alphanumeric()) => (Some(told), None),
        other => (None, other),
    };
    VmStatus {
        name,
        member: vm.id.member.to_string(),
        index: vm.id.index,
        node,
        state,
        uuid: vm.uuid.clone(),
        epoch: (vm.epoch > 0).then_some(vm.epoch),
        since: Some(since),
        restarts: (vm.restarts > 0).then_some(vm.restarts),
        reason: word.map(str::to_owned),
        message: sentence.map(shortened),
    }
}

/// The state that people read.
fn state(phase: VmPhase) -> VmState {
    match phase {
        VmPhase::Waiting => VmState::Waiting,
        VmPhase::Starting => VmState::Starting,
        VmPhase::Running => VmState::Running,
        VmPhase::Paused => VmState::Paused,
        VmPhase::Migrating | VmPhase::Arriving => VmState::Migrating,
        VmPhase::Stopping => VmState::Stopping,
        VmPhase::Stopped => VmState::Stopped,
        VmPhase::BackOff => VmState::BackOff,
        VmPhase::Completed => VmState::Completed,
        VmPhase::Removing => VmState::Removing,
        VmPhase::Unknown => VmState::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::id::{VeName, VmId};
    use crate::engine::report::Condition as Says;

    fn vm(index: u32, node: &str, phase: VmPhase) -> VmReport {
        VmReport {
            id: VmId { ve: "u".into(), member: "web".into(), index },
            node: Some(node.into()),
            phase,
            uuid: Some("d".to_owned()),
            epoch: 1,
            reason: None,
            restarts: 0,
        }
    }

    fn report(vms: Vec<VmReport>, ready: bool) -> VeReport {
        VeReport {
            uid: "u".into(),
            name: VeName::new("ns", "shop"),
            observed_generation: 4,
            phase: Phase::Running,
            ready: Says { holds: ready, ..Says::no("Running", "all is well") },
            placed: Says::yes("Placed", "on n1 and n2"),
            progressing: Says { holds: !ready, ..Says::no("Starting", "starting") },
            vms,
            round: 1,
            replica_set: Vec::new(),
            settled: true,
            again: false,
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("in range"))
    }

    fn of(type_: &str, status: &VirtualEnvironmentStatus) -> Option<(String, i64)> {
        let found = status.conditions.iter().find(|condition| condition.type_ == type_)?;
        Some((found.status.clone(), found.last_transition_time.0.as_second()))
    }

    #[test]
    fn times_move_only_with_what_they_are_about() {
        let (none, handler) = (VirtualEnvironmentStatus::default(), NodeName::from("n1"));
        let starting =
            report(vec![vm(0, "n1", VmPhase::Running), vm(1, "n2", VmPhase::Starting)], false);
        let first = status(&starting, &none, Some("web"), &handler, &at(10));
        assert_eq!(of("Ready", &first), Some(("False".to_owned(), 10)));
        assert_eq!(of("Reconciling", &first), Some(("True".to_owned(), 10)));
        assert_eq!(first.ready.as_deref(), Some("1/2"));
        assert_eq!(first.node_list.as_deref(), Some("n1,n2"));
        assert_eq!(first.replicas, Some(2));

        let running =
            report(vec![vm(0, "n1", VmPhase::Running), vm(1, "n2", VmPhase::Running)], true);
        let second = status(&running, &first, Some("web"), &handler, &at(20));
        assert_eq!(of("Ready", &second), Some(("True".to_owned(), 20)));
        assert_eq!(of("Placed", &second), Some(("True".to_owned(), 10)), "it has not changed");
        assert_eq!(of("Reconciling", &second), None, "present only while true");
        let since = |index: usize| second.vms[index].since.as_ref().map(|time| time.0.as_second());
        assert_eq!((since(0), since(1)), (Some(10), Some(20)));
        assert_eq!(status(&running, &second, Some("web"), &handler, &at(30)), second);
    }

    #[test]
    fn what_nobody_works_on_and_is_not_ready_is_stalled() {
        let none = VirtualEnvironmentStatus::default();
        let mut stuck = report(vec![vm(0, "n1", VmPhase::BackOff)], false);
        stuck.progressing = Says::no("VmFailed", "");
        let stuck = status(&stuck, &none, None, &"n1".into(), &at(1));
        assert_eq!(of("Stalled", &stuck), Some(("True".to_owned(), 1)));
        assert_eq!(stuck.vms[0].state, VmState::BackOff);
        assert_eq!(stuck.replicas, None);
    }

    #[test]
    fn why_it_is_not_ready_is_said_until_it_is() {
        let none = VirtualEnvironmentStatus::default();
        let mut waiting = report(vec![], false);
        waiting.ready = Says::no("CannotBePlaced", "memory is short by 2Gi");
        let told = status(&waiting, &none, None, &"n1".into(), &at(1));
        assert_eq!(told.waiting_reason.as_deref(), Some("memory is short by 2Gi"));
        waiting.ready = Says::yes("Running", "1 VM as declared");
        assert_eq!(status(&waiting, &told, None, &"n1".into(), &at(2)).waiting_reason, None);
    }

    #[test]
    fn a_word_is_a_reason_and_a_sentence_is_a_message() {
        let none = VirtualEnvironmentStatus::default();
        let mut one = vm(0, "n1", VmPhase::Starting);
        one.reason = Some("fetching https://x/y: 40%".to_owned());
        one.restarts = 2;
        let mut two = vm(1, "n1", VmPhase::Completed);
        two.reason = Some("Shutdown".to_owned());
        let told = status(&report(vec![one, two], false), &none, None, &"n1".into(), &at(1));
        assert_eq!(told.vms[0].message.as_deref(), Some("fetching https://x/y: 40%"));
        assert_eq!((told.vms[0].restarts, told.vms[1].restarts), (Some(2), None));
        assert_eq!(told.vms[1].reason.as_deref(), Some("Shutdown"));
        assert_eq!(told.vms[1].state, VmState::Completed);
    }
}
