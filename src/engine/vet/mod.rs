//! VET, the Virtual Environments Tracker: the life of each virtual environment.
//!
//! ```text
//!   API server ──> gateway.rs (two agents) ──Declare──> the handler's agent
//!                                                           │
//!   register.rs: the record on disk  <──────────────────  veh.rs: one VEH per environment
//!                                                           │ place (lrt), Order ──> nodes
//!   status.rs: what people read  <────────── Observed ──────┘
//! ```

pub mod gateway;
mod moves;
pub mod register;
pub mod status;
pub mod veh;
