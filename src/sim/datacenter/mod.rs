//! A simulated data centre: what a scheduler does to loads, under a workload.
//!
//! ```text
//!   Workload ──> run.rs: queue of events ──────────> Scheduler (the seam, scheduler.rs)
//!                  │        ^        ^                   │ looks, messages, migrations
//!                  v        │        └── network.rs <────┤
//!               fleet.rs    └── migration.rs, links.rs <─┘
//!               (nodes, VMs, violations) ──> measures.rs ──> report.rs
//! ```
//!
//! After VMPlaceS (Euro-Par 2015), whose workload, migration model and measures it repeats. The cost of an event
//! does not grow with the number of nodes, except inside the central baselines, where it does in the literature.

pub mod catalogue;
pub mod fleet;
pub mod links;
pub mod measures;
pub mod migration;
pub mod network;
mod outages;
pub mod queue;
pub mod report;
pub mod run;
pub mod scheduler;
pub mod schedulers;

#[cfg(test)]
mod tests;
