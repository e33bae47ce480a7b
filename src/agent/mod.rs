//! The agent's driver: one task owns the engine, persists before it sends, and talks to the world
//! through ports.
//!
//! ```text
//!   rims -- Input ----> [queue] --+                          +--> Peers::send
//!   k8s  -- PeerNews -> [queue] --+-> driver -> journal ---->+--> Hypervisor::submit
//!   net  -- Stranger -> [queue] --+   Engine    (thread)     +--> Cluster::submit
//!   clock (timers) ---------------+     |                    +--> Guard::allow, PowerSwitch::switch_off
//!                                       +--> Board: what the admin pages show
//! ```
//!
//! `driver.rs` is the loop, `journal.rs` the thread that writes, `beliefs.rs` fills the snapshot,
//! `clock.rs` reads the one clock. `ports.rs` says what the world must offer; the fakes of it live here
//! too, so that tests of any room may use them.

pub mod beliefs;
pub mod clock;
pub mod driver;
pub mod fake_cluster;
pub mod fake_guard;
pub mod fake_hypervisor;
pub mod fake_peers;
pub mod fake_power;
pub mod fake_tunnels;
pub mod journal;
pub mod memory_store;
pub mod ours;
pub mod ports;
pub mod power_command;
pub mod snapshot;
