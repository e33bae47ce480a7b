//! Environments on real guests: QEMU on three nodes of a real Kubernetes, under the product as Helm has
//! installed it. Each test first asserts that what it does to the system has happened.
//!
//! ```text
//!   life      what people declare: apply, scale, change, terminate, delete
//!   failover  nodes that are lost
//!   heal      what befalls guests, daemons, agents and the API server
//!   nodes     cordons, nodes without room, a gateway's node that loses its power
//!   recovery  what they declare about crashes
//!   moves     nodes in maintenance, overloaded ones: live migration
//!   upgrade   Helm: upgrade, rollback, uninstall, install again
//! ```
//!
//! Needs a running lab with the product (`hack/test` makes one) and `DISCOVERY_TEST_KUBECONFIG`; one test
//! at a time.

mod cluster;
#[path = "lab/failover.rs"]
mod failover;
#[path = "lab/heal.rs"]
mod heal;
#[path = "lab/life.rs"]
mod life;
#[path = "lab/moves.rs"]
mod moves;
#[path = "lab/nodes.rs"]
mod nodes;
#[path = "lab/recovery.rs"]
mod recovery;
#[path = "lab/upgrade.rs"]
mod upgrade;
#[path = "lab/world.rs"]
mod world;
