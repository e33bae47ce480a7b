//! The agent's driver: one task owns the engine, persists before it sends, and talks to the world
//! through ports.

pub mod fake_cluster;
pub mod ports;
