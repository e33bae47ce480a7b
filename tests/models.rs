//! Small worlds around the engine's rooms, in which everything that can happen is tried: each order of messages, each loss and
//! repetition, each moment for a crash. The rooms are the real ones; a world is what is around them: the network, the disks, the
//! clocks, the guard. Worlds that are broken on purpose show that the checker would notice. See `docs/reliability.md`, Models.

#[path = "models/check.rs"]
mod check;
#[path = "models/cluster.rs"]
mod cluster;
#[path = "models/history.rs"]
mod history;
#[path = "models/keeper.rs"]
mod keeper;
#[path = "models/lease.rs"]
mod lease;
#[path = "models/leases.rs"]
mod leases;
#[path = "models/register.rs"]
mod register;
#[path = "models/set.rs"]
mod set;
#[path = "models/table.rs"]
mod table;
#[path = "models/tenancy.rs"]
mod tenancy;
