//! What one run came to, as it is printed: the same run gives the same bytes.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::measures::{STEP_S, Series};
use super::run::Ended;
use crate::sim::workload::Workload;

/// One run's results. Times are in seconds, sums over all nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunReport {
    /// The workload's name.
    pub workload: String,
    /// Physical nodes.
    pub pms: u32,
    /// Virtual machines.
    pub vms: u32,
    /// The scheduler's name.
    pub scheduler: String,
    /// What everything was drawn from.
    pub seed: u64,
    /// Changes of load.
    pub load_events: u64,
    /// Time in violation: from when a node's load passes its capacity until it no longer does.
    pub violation_s: f64,
    /// How many times a node came to be in violation.
    pub violations: u64,
    /// The longest of them.
    pub violation_longest_s: f64,
    /// The longest from when a node's scheduler knew that it is in violation until it no longer was.
    #[serde(default)]
    pub wait_longest_s: f64,
    /// How often a scheduler found that something must be done for a node, and did it.
    #[serde(default)]
    pub decisions: u64,
    /// From that finding to the order to migrate, milliseconds, on average.
    #[serde(default)]
    pub decision_ms: f64,
    /// Half of them took no longer.
    #[serde(default)]
    pub decision_p50_ms: f64,
    /// Migrations that ended within the run.
    pub migrations: u64,
    /// Their mean duration.
    pub migration_s: f64,
    /// Share of migrations that stayed within a site.
    pub intra_site: f64,
    /// Migrations that were ordered and could not start.
    pub refused: u64,
    /// Migrations that broke off, as an end of theirs died.
    #[serde(default)]
    pub broken: u64,
    /// Nodes that were put into maintenance.
    #[serde(default)]
    pub maintenances: u64,
    /// Those that became empty.
    #[serde(default)]
    pub emptied: u64,
    /// From when they were put into maintenance until they were empty, on average.
    #[serde(default)]
    pub emptied_s: f64,
    /// The longest of these.
    #[serde(default)]
    pub emptied_longest_s: f64,
    /// Nodes that died.
    #[serde(default)]
    pub deaths: u64,
    /// Sum over VMs of the time that they did not run, as their node was dead.
    #[serde(default)]
    pub vm_away_s: f64,
    /// Partitions (sets of nodes solved for together) that came to an end.
    pub partitions: u64,
    /// Nodes per partition, on average.
    pub partition_mean: f64,
    /// Sites per partition, on average.
    pub partition_sites: f64,
    /// Partitions that ended without a solution.
    pub unsolved: u64,
    /// How many partitions there were of each size.
    pub partition_sizes: BTreeMap<u32, u64>,
    /// Virtual time that was charged for computing.
    pub compute_s: f64,
    /// Messages sent.
    pub messages: u64,
    /// Messages per node and second.
    pub messages_per_node_s: f64,
    /// Bytes of them per node and second.
    pub bytes_per_node_s: f64,
    /// Messages that the network lost.
    pub lost: u64,
    /// Events that the simulator handled.
    pub events: u64,
    /// Real time that the run took; left out where bytes are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_s: Option<f64>,
    /// Most memory that the process had in the run, MiB; left out where bytes are compared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_mib: Option<f64>,
    /// The course of the run.
    pub series: Course,
}

/// Quantities over time: a number per step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Course {
    /// Seconds of a step.
    pub step_s: u64,
    /// Time in violation, milliseconds.
    pub violation_ms: Series,
    /// Migrations begun.
    pub migrations: Series,
    /// Messages sent.
    pub messages: Series,
}

impl RunReport {
    /// Sums a run up.
    #[must_use]
    pub fn new(workload: &Workload, scheduler: &str, seed: u64, ended: &Ended) -> Self {
        let Ended { fleet, measures } = ended;
        let seconds = |us: u64| us as f64 / 1e6;
        let milliseconds = |us: u64| us as f64 / 1e3;
        let outages = &fleet.outages;
        let emptied = outages.emptied_us.len() as u64;
        let mut decisions = measures.decisions_us.clone();
        decisions.sort_unstable();
        let ratio = |a: f64, b: u64| if b == 0 { 0.0 } else { a / b as f64 };
        let node_seconds = f64::from(fleet.len()) * seconds(workload.end.0);
        let partitions: u64 = measures.partitions.values().sum();
        let members: u64 =
            measures.partitions.iter().map(|(size, count)| u64::from(*size) * count).sum();
        let messages: u64 = measures.messages_over_time.0.iter().sum();
        let violation_ms = fleet.overload.over_time.0.iter().map(|us| us / 1_000).collect();
        Self {
            workload: workload.name.to_owned(),
            pms: fleet.len(),
            vms: workload.vms.len() as u32,
            scheduler: scheduler.to_owned(),
            seed,
            load_events: workload.events.len() as u64,
            violation_s: seconds(fleet.overload.total_us),
            violations: fleet.overload.count,
            violation_longest_s: seconds(fleet.overload.longest_us),
            wait_longest_s: seconds(fleet.overload.longest_wait_us),
            decisions: decisions.len() as u64,
            decision_ms: ratio(milliseconds(decisions.iter().sum()), decisions.len() as u64),
            decision_p50_ms: milliseconds(decisions.get(decisions.len() / 2).copied().unwrap_or(0)),
            migrations: measures.migrations,
            migration_s: ratio(seconds(measures.migration_us), measures.migrations),
            intra_site: ratio(measures.within_site as f64, measures.migrations),
            refused: measures.refused,
            broken: measures.broken,
            maintenances: outages.maintenances,
            emptied,
            emptied_s: ratio(seconds(outages.emptied_us.iter().sum()), emptied),
            emptied_longest_s: seconds(outages.emptied_us.iter().copied().max().unwrap_or(0)),
            deaths: outages.deaths,
            vm_away_s: seconds(outages.away_us),
            partitions,
            partition_mean: ratio(members as f64, partitions),
            partition_sites: ratio(measures.partition_sites as f64, partitions),
            unsolved: measures.unsolved,
            partition_sizes: measures.partitions.clone(),
            compute_s: seconds(measures.compute_us),
            messages,
            messages_per_node_s: messages as f64 / node_seconds,
            bytes_per_node_s: measures.message_bytes as f64 / node_seconds,
            lost: measures.lost,
            events: measures.events,
            wall_s: None,
            peak_mib: None,
            series: Course {
                step_s: STEP_S,
                violation_ms: Series(violation_ms),
                migrations: measures.migrations_over_time.clone(),
                messages: measures.messages_over_time.clone(),
            },
        }
    }
}
