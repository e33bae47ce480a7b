//! Fills the snapshot that the admin pages read: the engine's view, what the driver overheard on the way
//! in and out, and its own numbers.

use std::collections::{BTreeMap, BTreeSet};

use super::snapshot::{
    Part, PartitionBelief, PeerBelief, ReservationBelief, Snapshot, VeBelief, VmBelief,
};
use crate::engine::effect::{Action, ClusterAction, HypervisorCommand};
use crate::engine::guard::GuardInput;
use crate::engine::id::{NodeName, VeUid};
use crate::engine::input::{ClusterInput, HypervisorInput, Input};
use crate::engine::report::{FailoverStep, Happening, NodeReport, VeReport};
use crate::engine::spec::Resources;
use crate::engine::time::Instant;
use crate::engine::view::{EngineView, VeView, VmView};

/// What the driver remembers for people, beside what the engine believes.
#[derive(Debug, Default)]
pub struct Beliefs {
    /// This node, as last reported.
    host: Option<NodeReport>,
    /// Environments, as last reported.
    reports: BTreeMap<VeUid, VeReport>,
    /// The hypervisor answers; `None`: it has not been heard of yet.
    hypervisor: Option<bool>,
    /// The API server answers.
    kubernetes: Option<bool>,
    /// What Kubernetes says of this node has been heard once.
    declared: bool,
    /// Why the journal takes nothing.
    journal: Option<String>,
    counters: BTreeMap<&'static str, u64>,
    gauges: BTreeMap<&'static str, f64>,
}

impl Beliefs {
    /// Counts.
    pub fn count(&mut self, name: &'static str, more: u64) {
        *self.counters.entry(name).or_default() += more;
    }

    /// Measures.
    pub fn gauge(&mut self, name: &'static str, value: f64) {
        self.gauges.insert(name, value);
    }

    /// Why the journal takes nothing now, or that it does.
    pub fn journal(&mut self, trouble: Option<String>) {
        self.journal = trouble;
    }

    /// An input passes by.
    pub fn overhear_input(&mut self, input: &Input) {
        let name = match input {
            Input::Wakeup => "engine_inputs_timer",
            Input::Message { .. } => "engine_inputs_message",
            Input::Cluster(_) => "engine_inputs_cluster",
            Input::Hypervisor(_) => "engine_inputs_hypervisor",
            Input::Guard(_) => "engine_inputs_guard",
            Input::PeerKnown(_) | Input::PeerRevoked(_) => "engine_inputs_peer",
            Input::GoAway(_) => "engine_inputs_end",
            Input::Switched { .. } => "engine_inputs_power",
        };
        self.count(name, 1);
        match input {
            Input::Cluster(ClusterInput::Reachable(reachable)) => {
                self.kubernetes = Some(*reachable)
            }
            Input::Cluster(ClusterInput::ThisNode(_)) => self.declared = true,
            Input::Hypervisor(HypervisorInput::Available(available)) => {
                self.hypervisor = Some(*available);
            }
            Input::Guard(GuardInput::Connected { watchdog }) => {
                self.gauge("guard_connected", 1.0);
                self.gauge("guard_watchdog_seconds", watchdog.unwrap_or_default().as_secs_f64());
            }
            Input::Guard(GuardInput::Gone) => self.gauge("guard_connected", 0.0),
            Input::Hypervisor(HypervisorInput::Migrated { figures, .. }) => {
                self.count("migrations_out", 1);
                self.count("migration_milliseconds", figures.took_ms);
                self.count("migration_downtime_milliseconds", figures.downtime_ms);
                self.count("migration_sent_bytes", figures.sent);
            }
            _ => {}
        }
    }

    /// An action passes by.
    pub fn overhear_action(&mut self, action: &Action) {
        let name = match action {
            Action::Send { .. } => "engine_messages_sent",
            Action::Hypervisor { .. } => "engine_hypervisor_commands",
            Action::Cluster(_) => "engine_cluster_actions",
            Action::Guard(_) => "engine_guard_allowances",
            Action::SwitchOff { .. } => "engine_machines_to_switch_off",
        };
        self.count(name, 1);
        match action {
            Action::Cluster(ClusterAction::ReportNode(report)) => {
                self.host = Some((**report).clone())
            }
            Action::Cluster(ClusterAction::ReportVe(report)) => {
                self.reports.insert(report.uid.clone(), (**report).clone());
            }
            Action::Cluster(ClusterAction::Happened(Happening {
                failover: Some(step), ..
            })) if step.step == FailoverStep::Started => {
                self.count("vms_failed_over", step.vms.len() as u64);
            }
            Action::Hypervisor { command: HypervisorCommand::Migrate(_), .. } => {
                self.count("migrations_begun", 1);
            }
            Action::Cluster(ClusterAction::ReleaseVe { uid, .. }) => {
                self.reports.remove(uid);
            }
            _ => {}
        }
    }

    /// The parts that must work for the agent to be ready. The API server's absence later on does not
    /// make it unready: nothing that runs needs it.
    fn parts(&self) -> BTreeMap<String, Part> {
        let part = |missing: Option<&str>| Part {
            ready: missing.is_none(),
            message: missing.unwrap_or_default().to_owned(),
        };
        let hypervisor = match self.hypervisor {
            Some(true) => None,
            Some(false) => Some("libvirt does not answer: is libvirtd running on this node?"),
            None => Some("libvirt has not answered yet"),
        };
        let kubernetes = match (self.declared, self.kubernetes) {
            (true, _) => None,
            (false, Some(false)) => Some("the API server does not answer; the agent keeps trying"),
            (false, _) => {
                Some("this node's PhysicalNode has not been seen: are the CRDs installed?")
            }
        };
        BTreeMap::from([
            ("hypervisor".to_owned(), part(hypervisor)),
            ("kubernetes".to_owned(), part(kubernetes)),
            ("store".to_owned(), part(self.journal.as_deref())),
        ])
    }

    /// Everything, at this moment.
    #[must_use]
    pub fn snapshot(
        &mut self,
        view: EngineView,
        pinned: &BTreeSet<NodeName>,
        version: &str,
        taken: Instant,
    ) -> Snapshot {
        let handled: BTreeSet<&VeUid> = view.ves.iter().map(|ve| &ve.uid).collect();
        self.reports.retain(|uid, _| handled.contains(uid));
        let mut gauges: BTreeMap<String, f64> =
            self.gauges.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        let count = |number: usize| u32::try_from(number).map_or(f64::INFINITY, f64::from);
        gauges.insert("procedures_queued".to_owned(), count(view.queued));
        gauges.insert("load_processors".to_owned(), view.load / 100.0);
        gauges.insert("load_capacity_processors".to_owned(), view.load_capacity / 100.0);
        gauges.insert("ves_seen".to_owned(), count(view.seen));
        gauges.insert("stray_domains".to_owned(), count(view.strays.len()));
        Snapshot {
            node: view.node.to_string(),
            version: version.to_owned(),
            taken,
            parts: self.parts(),
            host: self.host.clone(),
            peers: peers(&view, pinned),
            partitions: partitions(&view),
            reservations: reservations(&view),
            ves: view.ves.into_iter().map(|ve| self.ve(ve)).collect(),
            vms: vms(view.vms),
            counters: self.counters.iter().map(|(n, v)| ((*n).to_owned(), *v)).collect(),
            gauges,
        }
    }

    fn ve(&self, ve: VeView) -> VeBelief {
        let report = self.reports.get(&ve.uid).cloned();
        VeBelief {
            uid: ve.uid,
            name: ve.name,
            generation: ve.generation,
            deleting: ve.deleting,
            tombstone: ve.tombstone,
            order: ve.order,
            placements: ve.placements,
            moves: ve.moves,
            owing: ve.owing,
            waits: ve.waits,
            report,
        }
    }
}

fn peers(view: &EngineView, pinned: &BTreeSet<NodeName>) -> Vec<PeerBelief> {
    let mut peers: Vec<PeerBelief> = view
        .peers
        .iter()
        .map(|peer| PeerBelief {
            node: peer.node.clone(),
            state: "alive".to_owned(),
            round_trip_ms: peer.distance_ms,
            api_reachable: peer.api_reachable,
            free: peer.free,
        })
        .collect();
    let alive: BTreeSet<NodeName> = peers.iter().map(|peer| peer.node.clone()).collect();
    peers.extend(pinned.difference(&alive).map(|node| PeerBelief {
        node: node.clone(),
        state: "silent".to_owned(),
        round_trip_ms: None,
        api_reachable: false,
        free: None,
    }));
    peers.sort_by(|a, b| a.node.cmp(&b.node));
    peers
}

fn partitions(view: &EngineView) -> Vec<PartitionBelief> {
    let own = view.procedure.as_ref();
    let mut partitions: Vec<PartitionBelief> = own
        .map(|procedure| PartitionBelief {
            procedure: procedure.id.clone(),
            ve: Some(procedure.ve.clone()),
            nodes: procedure.members.clone(),
            reserved_ms: None,
        })
        .into_iter()
        .collect();
    if let Some((procedure, reserved_ms)) = &view.partition {
        match partitions.iter_mut().find(|partition| partition.procedure == *procedure) {
            Some(partition) => partition.reserved_ms = Some(*reserved_ms),
            None => partitions.push(PartitionBelief {
                procedure: procedure.clone(),
                ve: None,
                nodes: vec![view.node.clone()],
                reserved_ms: Some(*reserved_ms),
            }),
        }
    }
    partitions
}

fn reservations(view: &EngineView) -> Vec<ReservationBelief> {
    let promised = view.vms.iter().filter_map(|vm| vm.record.promise.as_ref());
    let promised = promised.map(|promise| {
        let size = Resources::of(promise.definition.cpus, promise.definition.memory);
        ReservationBelief {
            procedure: promise.procedure.clone(),
            vm: promise.definition.id.clone(),
            cpu_milli: size.cpu_milli,
            memory: size.memory,
        }
    });
    promised.collect()
}

fn vms(vms: Vec<VmView>) -> Vec<VmBelief> {
    let belief = |vm: VmView| VmBelief {
        domain_name: vm.record.definition.domain_name(),
        goal: vm.record.goal,
        epoch: vm.record.definition.epoch,
        phase: vm.phase,
        restarts: vm.record.restarts,
        doing: vm.reason,
        cpus: vm.record.definition.cpus,
        memory: vm.record.definition.memory,
        load_percent: vm.load,
        id: vm.record.definition.id,
    };
    vms.into_iter().map(belief).collect()
}
