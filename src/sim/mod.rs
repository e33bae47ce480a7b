//! The deterministic simulator: many engines, one thread, virtual time.
//!
//! ```text
//!   queue of events (time, number) ──> World ──> Engine::handle ──> Effects
//!        ^                                                            │
//!        └── network.rs (delay, loss, order) ── host.rs (domains) ────┤
//!            api_server.rs (objects, watches)   disk (records) <──────┘
//! ```
//!
//! The engines are those that run on nodes. After every event the invariants are checked. The same seed
//! gives the same bytes, in any process on any machine.
//!
//! Beside this world of agents and faults there is one of loads and migrations, to compare schedulers in:
//! `workload` says what happens there, `datacenter` runs it. `plans` compares the plans that make room with an exact oracle's.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod acknowledged;
pub mod api_server;
mod checks;
mod clock;
pub mod datacenter;
mod deeds;
mod driver;
mod effects;
pub mod faults;
pub mod fuzz;
mod guard;
pub mod host;
mod migration;
pub mod network;
pub mod plans;
pub mod scenario;
mod whole;
pub mod workload;
pub mod world;

#[cfg(test)]
mod deadlock_tests;
#[cfg(test)]
mod failover_tests;
#[cfg(test)]
mod fault_tests;
#[cfg(test)]
mod keepers_tests;
#[cfg(test)]
mod moves_crash_tests;
#[cfg(test)]
mod moves_tests;
#[cfg(test)]
mod recovery_tests;
#[cfg(test)]
mod room_tests;
#[cfg(test)]
mod tests;
