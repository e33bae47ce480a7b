//! A node's report as its status object. Pure. What only trembles (coordinates) is published when it has
//! moved.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::KubernetesConfig;
use super::peers::key_to_hex;
use super::ve_status::made;
use crate::api::{
    self, Acceleration, AccelerationKind, Coordinates, NodeLease, NodeOverlay, NodeResources,
    NodeUsage, PhysicalNodeStatus, node_condition, node_reason,
};
use crate::engine::host;
use crate::engine::lease::tenant::Protection;
use crate::engine::report::{self, NodeReport};
use crate::engine::spec::Resources;

/// How far a coordinate must have moved to be published again: this many microseconds, and a fifth of the
/// distance. Vivaldi coordinates tremble by less on a quiet network.
const MOVED_AT_LEAST: i64 = 1000;
/// How much surer (or less sure) a coordinate must have become, percent.
const SURER_AT_LEAST: i64 = 20;

/// How many VMs a sentence names.
const LISTED: usize = 4;

/// What of this node is known otherwise.
pub(super) struct Facts {
    /// `metadata.generation` of the `PhysicalNode`.
    pub(super) generation: Option<i64>,
    /// The Kubernetes `Node` is cordoned.
    pub(super) cordoned: bool,
}

/// The status that says what the report says; without a report, that the agent is joining.
pub(super) fn status(
    config: &KubernetesConfig,
    report: Option<&NodeReport>,
    facts: &Facts,
    before: &PhysicalNodeStatus,
    now: &Time,
) -> PhysicalNodeStatus {
    let host = report.and_then(|report| report.host.as_ref());
    let storage = host.map(|host| api::from_bytes(host.storage));
    PhysicalNodeStatus {
        observed_generation: facts.generation,
        conditions: conditions(report, facts, &before.conditions, now),
        agent_version: Some(config.agent_version.clone()),
        hypervisor: host.map(|host| host.hypervisor.clone()),
        capacity: host.map(|host| NodeResources { storage, ..resources(&host.capacity) }),
        allocatable: report.map(|report| resources(&report.allocatable)),
        allocated: report.map(|report| resources(&report.allocated)),
        usage: report.map(|report| NodeUsage {
            cpus: Some(format!(
                "{}/{}",
                api::from_milli(report.allocated.cpu_milli).0,
                report.allocatable.cpu_milli / 1000
            )),
            memory: Some(format!(
                "{}/{}",
                to_read(report.allocated.memory),
                to_read(report.allocatable.memory)
            )),
        }),
        vms: report.map(|report| report.vms),
        running_vms: report.map(|report| report.running),
        acceleration: host.map(|host| Acceleration {
            kind: match host.acceleration {
                host::Acceleration::Kvm => AccelerationKind::Kvm,
                host::Acceleration::Emulation => AccelerationKind::Emulation,
            },
            reason: None,
        }),
        overlay: Some(NodeOverlay {
            public_key: key_to_hex(&config.key),
            addresses: config.addresses.iter().map(ToString::to_string).collect(),
            protocol: Some(config.protocol),
        }),
        coordinates: report.map(|report| coordinates(report, before.coordinates.as_ref())),
        lease: report.map(|report| NodeLease {
            state: Some(format!("{:?}", report.lease.state)),
            epoch: Some(report.lease.epoch),
            guardians: report.lease.guardians.iter().map(ToString::to_string).collect(),
        }),
        protection: report.map(|report| match report.protection {
            Protection::Watchdog => node_reason::WATCHDOG.to_owned(),
            Protection::Guard => node_reason::GUARD.to_owned(),
            Protection::None(_) => "None".to_owned(),
        }),
        peers: report.map(|report| report.peers),
        gateway: report.map(|report| report.gateway),
    }
}

/// What a peer says of a node whose agent is not heard: a share of its status, which its agent takes back when it speaks again.
pub(super) fn silent(generation: Option<i64>, now: &Time) -> Value {
    let why = "its agent is not heard by its peers: the machine is off or cut off, or the agent does not run";
    let says = report::Condition::no(node_reason::SILENT, why);
    let unknown = |type_: &str| Condition {
        status: "Unknown".to_owned(),
        ..made(type_, &says, generation, &[], now)
    };
    json!({
        "conditions": [unknown(node_condition::READY), unknown(node_condition::SCHEDULABLE)],
        "lease": {"state": "Unknown"},
    })
}

/// Whether a peer has said so.
pub(super) fn is_silent(status: &PhysicalNodeStatus) -> bool {
    let ready = status.conditions.iter().find(|one| one.type_ == node_condition::READY);
    ready.is_some_and(|ready| ready.reason == node_reason::SILENT)
}

fn resources(resources: &Resources) -> NodeResources {
    NodeResources {
        cpus: Some(api::from_milli(resources.cpu_milli)),
        memory: Some(api::from_bytes(resources.memory)),
        storage: None,
    }
}

/// Bytes for a column: whole mebibytes, or gibibytes with one digit.
fn to_read(bytes: u64) -> String {
    let mebibytes = bytes >> 20;
    let tenths = (u128::from(bytes) * 10) >> 30;
    match (mebibytes, tenths % 10) {
        (0..1024, _) => format!("{mebibytes}Mi"),
        (_, 0) => format!("{}Gi", tenths / 10),
        (_, digit) => format!("{}.{digit}Gi", tenths / 10),
    }
}

fn conditions(
    report: Option<&NodeReport>,
    facts: &Facts,
    before: &[Condition],
    now: &Time,
) -> Vec<Condition> {
    let condition =
        |type_: &str, says: report::Condition| made(type_, &says, facts.generation, before, now);
    let Some(report) = report else {
        let joining = report::Condition::no(node_reason::JOINING, "the agent has just started");
        return vec![condition(node_condition::READY, joining)];
    };
    let (ready, hypervisor) = if report.hypervisor_available {
        (
            report::Condition::yes(node_reason::AGENT_READY, "the agent and its hypervisor answer"),
            report::Condition::yes(node_reason::HYPERVISOR_UP, "the hypervisor answers"),
        )
    } else {
        let down = report::Condition::no(
            node_reason::HYPERVISOR_DOWN,
            "the hypervisor does not answer: see to libvirtd on this node",
        );
        (down.clone(), down)
    };
    let mut conditions = vec![
        condition(node_condition::READY, ready),
        condition(node_condition::SCHEDULABLE, schedulable(report, facts)),
        condition(node_condition::HYPERVISOR_READY, hypervisor),
        condition(node_condition::PROTECTED, protected(&report.protection)),
    ];
    if let Some(here) = &report.leaving {
        let drained = if here.is_empty() {
            report::Condition::yes(node_reason::EMPTY, "no VM is left here: it can be switched off")
        } else {
            report::Condition::no(node_reason::DRAINING, still_here(here))
        };
        conditions.push(condition(node_condition::DRAINED, drained));
    }
    if let Some(host) = &report.host {
        let accelerated = match host.acceleration {
            host::Acceleration::Kvm => {
                report::Condition::yes(node_reason::KVM, "guests run on hardware virtualisation")
            }
            host::Acceleration::Emulation => report::Condition::no(
                node_reason::EMULATION,
                "guests are emulated in software, which is many times slower",
            ),
        };
        conditions.push(condition(node_condition::ACCELERATED, accelerated));
    }
    conditions
}

fn protected(protection: &Protection) -> report::Condition {
    match protection {
        Protection::Watchdog => report::Condition::yes(
            node_reason::WATCHDOG,
            "its guard ends VMs whose lease is over, and a watchdog resets the machine if it cannot",
        ),
        Protection::Guard => report::Condition::yes(
            node_reason::GUARD,
            "its guard ends VMs whose lease is over; without a watchdog not while guard or kernel stand still",
        ),
        Protection::None(why) => report::Condition::no(
            node_reason::UNPROTECTED,
            format!("{why}: its VMs wait for it if it is lost"),
        ),
    }
}

/// What a node in maintenance waits for.
fn still_here(vms: &[String]) -> String {
    let first = vms.iter().take(LISTED).cloned().collect::<Vec<_>>().join("; ");
    let more = vms.len().saturating_sub(LISTED);
    let count =
        if vms.len() == 1 { "1 VM is".to_owned() } else { format!("{} VMs are", vms.len()) };
    if more > 0 {
        format!("{count} left: {first}; and {more} more")
    } else {
        format!("{count} left: {first}")
    }
}

fn schedulable(report: &NodeReport, facts: &Facts) -> report::Condition {
    if report.schedulable {
        report::Condition::yes(node_reason::ACCEPTING, "new VMs may be placed here")
    } else if report.leaving.is_some() {
        report::Condition::no(node_reason::MAINTENANCE, "spec.maintenance is true")
    } else if facts.cordoned {
        report::Condition::no(node_reason::CORDONED, "the Kubernetes Node is cordoned")
    } else if report.hypervisor_available {
        report::Condition::no(node_reason::DECLARED_UNSCHEDULABLE, "spec.schedulable is false")
    } else {
        report::Condition::no(node_reason::HYPERVISOR_DOWN, "the hypervisor does not answer")
    }
}

/// The coordinate, or the one published before if it has not really moved.
fn coordinates(report: &NodeReport, before: Option<&Coordinates>) -> Coordinates {
    #[allow(clippy::cast_possible_truncation)] // saturates, and no round trip takes that long
    let micros = |milliseconds: f64| (milliseconds * 1000.0).round() as i64;
    #[allow(clippy::cast_possible_truncation)]
    let error_percent = (report.coordinate_error * 100.0).round() as i64;
    let [x, y, z, height] = report.coordinate.map(micros);
    let now = Coordinates { x, y, z, height, error_percent };
    let Some(before) = before else { return now };
    let moved = |new: i64, old: i64| {
        let by = new.saturating_sub(old).saturating_abs();
        by >= MOVED_AT_LEAST && by >= old.saturating_abs() / 5
    };
    let stays = !moved(now.x, before.x)
        && !moved(now.y, before.y)
        && !moved(now.z, before.z)
        && !moved(now.height, before.height)
        && now.error_percent.abs_diff(before.error_percent) < SURER_AT_LEAST.unsigned_abs();
    if stays { before.clone() } else { now }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::jiff::Timestamp;

    use super::*;
    use crate::engine::report::{LeaseReport, LeaseState};

    fn config() -> KubernetesConfig {
        KubernetesConfig {
            node: "n1".into(),
            key: [7; 32],
            addresses: vec!["10.0.0.1:7400".parse().expect("an address")],
            agent_version: "1.2.3".to_owned(),
            protocol: 1,
            pinned: Vec::new(),
            listing: crate::k8s::Listing::default(),
        }
    }

    fn report(coordinate: [f64; 4]) -> NodeReport {
        NodeReport {
            host: Some(host::HostInfo {
                capacity: Resources { cpu_milli: 8000, memory: 24 << 30 },
                storage: 900 << 30,
                acceleration: host::Acceleration::Emulation,
                hypervisor: "QEMU 10.0".to_owned(),
                boot_id: "b".to_owned(),
            }),
            hypervisor_available: true,
            allocatable: Resources { cpu_milli: 32_000, memory: (23 << 30) + (1 << 29) + 5 },
            allocated: Resources { cpu_milli: 3000, memory: 512 << 20 },
            vms: 3,
            running: 3,
            schedulable: true,
            leaving: None,
            lease: LeaseReport {
                state: LeaseState::Held,
                epoch: 3,
                guardians: vec!["n2".into(), "n3".into()],
            },
            protection: Protection::Guard,
            peers: 2,
            gateway: true,
            coordinate,
            coordinate_error: 0.5,
        }
    }

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).expect("in range"))
    }

    const FACTS: Facts = Facts { generation: Some(1), cordoned: false };

    #[test]
    fn a_trembling_coordinate_is_not_published_again() {
        let before = PhysicalNodeStatus::default();
        let first =
            status(&config(), Some(&report([10.0, 5.0, 0.0, 1.0])), &FACTS, &before, &at(1));
        let trembled = report([10.4, 4.8, 0.0, 1.3]);
        assert_eq!(status(&config(), Some(&trembled), &FACTS, &first, &at(9)), first);
        let moved = report([20.0, 5.0, 0.0, 1.0]);
        let second = status(&config(), Some(&moved), &FACTS, &first, &at(9));
        assert_eq!(second.coordinates.expect("published").x, 20_000);
    }

    #[test]
    fn columns_are_to_be_read() {
        let before = PhysicalNodeStatus::default();
        let told = status(&config(), Some(&report([0.0; 4])), &FACTS, &before, &at(1));
        let usage = told.usage.expect("a report");
        assert_eq!(usage.cpus.as_deref(), Some("3/32"));
        assert_eq!(usage.memory.as_deref(), Some("512Mi/23.5Gi"));
        assert_eq!(told.overlay.expect("published").public_key, "07".repeat(32));
    }

    #[test]
    fn lease_and_protection_are_to_be_seen() {
        let before = PhysicalNodeStatus::default();
        let mut report = report([0.0; 4]);
        let told = status(&config(), Some(&report), &FACTS, &before, &at(1));
        assert_eq!(told.protection.as_deref(), Some("Guard"));
        let lease = told.lease.expect("it has one");
        assert_eq!((lease.state.as_deref(), lease.epoch), (Some("Held"), Some(3)));
        assert_eq!(lease.guardians, ["n2", "n3"]);
        report.protection = Protection::None("its guard does not answer".into());
        let told = status(&config(), Some(&report), &FACTS, &before, &at(1));
        let condition = told.conditions.iter().find(|condition| condition.type_ == "Protected");
        let condition = condition.expect("it is told");
        assert_eq!(
            (condition.status.as_str(), condition.reason.as_str()),
            ("False", "Unprotected")
        );
        assert!(condition.message.starts_with("its guard does not answer"));
    }

    #[test]
    fn why_a_node_takes_no_vms_is_said() {
        let reason = |report: &NodeReport, cordoned: bool| {
            let facts = Facts { generation: Some(1), cordoned };
            schedulable(report, &facts).reason.to_string()
        };
        let mut no = report([0.0; 4]);
        no.schedulable = false;
        assert_eq!(reason(&no, true), "Cordoned");
        assert_eq!(reason(&no, false), "DeclaredUnschedulable");
        no.hypervisor_available = false;
        assert_eq!(reason(&no, false), "HypervisorDown");
    }

    #[test]
    fn before_the_first_report_the_identity_is_published_and_the_node_not_ready() {
        let before = PhysicalNodeStatus::default();
        let told = status(&config(), None, &FACTS, &before, &at(1));
        assert!(told.overlay.is_some() && told.capacity.is_none());
        assert_eq!(told.conditions[0].reason, "Joining");
        assert_eq!(told.conditions[0].status, "False");
    }
}
