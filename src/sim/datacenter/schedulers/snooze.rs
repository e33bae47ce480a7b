//! Snooze: a hierarchy in which each group manager solves for its own nodes.
//!
//! E. Feller, L. Rilling, C. Morin: *Snooze: A Scalable and Autonomic Virtual Machine Management Framework for
//! Private Clouds*, CCGrid 2012; in VMPlaceS's comparison with 32 nodes per group manager, every 30 s, and
//! Entropy's solver inside each group. A group never moves a VM to another group: that is its price.
//!
//! The group leader and elections are left out, as no node crashes here; heartbeats are counted, not simulated.

use super::super::scheduler::{Actor, Desk, Happening, Scheduler};
use super::entropy;
use super::periodic::{self, Periodic};

/// Nodes of a group manager (BENCHMARKS, B1).
const GROUP: u32 = 32;
/// Bytes of a heartbeat with a node's charge.
const HEARTBEAT_BYTES: u64 = 64;
/// Heartbeats in a period: one each 5 s (`snooze.properties`: `hb-periodicity`), and that of its manager comes
/// back to each node.
const HEARTBEATS: u64 = 2 * 6;

/// All group managers.
#[derive(Debug, Default)]
pub struct Snooze {
    groups: Vec<Periodic>,
}

/// The timer for counting heartbeats; the solver's are below.
const HEARTBEAT: u64 = 100;

impl Scheduler for Snooze {
    type Message = ();

    const POLLS: bool = true;

    fn services(&self, nodes: u32) -> u32 {
        nodes.div_ceil(GROUP)
    }

    fn handle(&mut self, at: Actor, happening: Happening<()>, desk: &mut Desk<'_, ()>) {
        let Actor::Service(group) = at else { return };
        let first = group * GROUP;
        let nodes = first..desk.nodes().min(first + GROUP);
        if happening == Happening::Started {
            // Services start in their order.
            self.groups.push(Periodic::new(nodes.clone(), entropy::cost));
        }
        let manager = &mut self.groups[group as usize];
        match happening {
            Happening::Started => {
                manager.start(desk);
                desk.wake_at(desk.now() + periodic::PERIOD, HEARTBEAT);
            }
            Happening::Timer(HEARTBEAT) => {
                desk.count_messages(HEARTBEATS * nodes.len() as u64, HEARTBEAT_BYTES);
                desk.wake_at(desk.now() + periodic::PERIOD, HEARTBEAT);
            }
            Happening::Timer(token) => manager.timer(token, desk),
            Happening::MigrationEnded { .. } | Happening::MigrationFailed { .. } => {
                manager.migration_ended(desk);
            }
            Happening::LoadChanged { .. } | Happening::Message { .. } | Happening::Returned => {}
        }
    }
}
