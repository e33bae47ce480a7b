//! DISCOVERY: a fully decentralised Kubernetes operator for virtual machines.
//!
//! ```text
//!            kubectl / Helm / GitOps
//!                    |
//!   +------------ agent (one per node) ---------------------------+
//!   |  k8s rim      libvirt rim     net rim      store rim        |
//!   |     \             |              |            /             |
//!   |      +---- driver: one task owns the Engine ----+           |
//!   |            Engine::handle(now, Input) -> Effects            |
//!   |            engine: dnt | vet | lrt   (pure, no IO)          |
//!   +-----------------------------|-------------------------------+
//!                                 +-- unix socket -- guard: ends VMs whose time is over
//!   simulator: the same Engine, one thread, virtual time
//! ```
//!
//! The import rule, checked by `tests/architecture.rs`: `engine` imports no other room; `agent` imports
//! `engine`; a rim imports `engine` and the ports of `agent` (and `k8s` also `api`); `api` and `sim`
//! import nothing but, for `sim`, `engine`; only `bin` names them all.
#![deny(unsafe_code)]

/// The rims' liveness, metrics and debug pages over HTTP.
#[cfg(feature = "admin")]
pub mod admin;
/// The driver that owns the engine, and the ports its rims implement.
#[cfg(feature = "agent")]
pub mod agent;
/// Custom resource types, and nothing else.
#[cfg(feature = "api")]
pub mod api;
/// The centre: pure, synchronous, deterministic.
pub mod engine;
/// The guard of a node's VMs: a process of its own, and the agent's end of its socket.
#[cfg(feature = "guard")]
pub mod guard;
/// Kubernetes: watch into inputs, reports into server-side apply.
#[cfg(feature = "k8s")]
pub mod k8s;
/// libvirt: domains, their events, images and disks.
#[cfg(feature = "libvirt")]
pub mod libvirt;
/// The overlay: QUIC with mutual TLS between agents.
#[cfg(feature = "net")]
pub mod net;
/// The deterministic simulator.
#[cfg(feature = "sim")]
pub mod sim;
/// The durable journal.
#[cfg(feature = "store")]
pub mod store;
