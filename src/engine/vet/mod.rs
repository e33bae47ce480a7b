//! VET, the Virtual Environments Tracker: the life of each virtual environment.
//!
//! ```text
//!   API server ──> gateway.rs (two agents) ──Declare──> the handler's agent
//!                                                           │
//!   register/: the record, on a majority of disks  <────  veh.rs: one VEH per environment
//!                  keepers.rs: who keeps it                 │ place (lrt), Order ──> nodes
//!        ledger.rs: what changes in it       orders.rs: what each node is told
//!                         failover.rs, losses.rs: ...      │ what was on a node that is gone
//!   status.rs: what people read  <────────── Observed ──────┘
//! ```

mod failover;
pub mod gateway;
mod keepers;
pub(crate) mod ledger;
mod losses;
mod moves;
mod orders;
mod recovery;
pub mod register;
pub mod status;
pub mod veh;
