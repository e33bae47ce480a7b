//! The agent's driver: one task owns the engine, persists before it sends, and talks to the world
//! through ports.

pub mod fake_cluster;
pub mod fake_hypervisor;
pub mod fake_peers;
pub mod memory_store;
pub mod ports;
pub mod snapshot;
