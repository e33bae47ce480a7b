//! Entropy: one central solver over all nodes.
//!
//! F. Hermenier, X. Lorca, J.-M. Menaud, G. Muller, J. Lawall: *Entropy: a consolidation manager for clusters*,
//! VEE 2009; run every 30 s in VMPlaceS's comparison. What sinks it there is the time to compute: the plan is
//! carried out on a state that has moved on, and nothing else is done meanwhile.
//!
//! **Cost model.** VMPlaceS gives its solver a limit of one second per eight nodes (`Entropy2RP`:
//! `setTimeLimit(size / 8)`: 16 s for 128 nodes, 128 s for 1024), and an optimising solver uses most of its limit. Four
//! fifths of it are charged: that gives the published violation time for 128 nodes, and flatters it for more. When
//! nothing is overloaded it is done at once.

use std::time::Duration;

use super::super::scheduler::{Actor, Desk, Happening, Scheduler};
use super::periodic::Periodic;

/// Nodes per second of computing: four fifths of the limit of a second for eight.
const NODES_PER_SECOND: u32 = 10;
/// To find that nothing is to be done.
const GLANCE: Duration = Duration::from_millis(100);

/// The central solver.
#[derive(Debug, Default)]
pub struct Entropy {
    solver: Option<Periodic>,
}

/// What Entropy's solver takes over so many nodes.
#[must_use]
pub fn cost(nodes: u32, overloaded: bool) -> Duration {
    if overloaded { Duration::from_secs(1) * nodes / NODES_PER_SECOND } else { GLANCE }
}

impl Scheduler for Entropy {
    type Message = ();

    const POLLS: bool = true;

    fn services(&self, _: u32) -> u32 {
        1
    }

    fn handle(&mut self, at: Actor, happening: Happening<()>, desk: &mut Desk<'_, ()>) {
        let Actor::Service(_) = at else { return };
        let nodes = desk.nodes();
        let solver = self.solver.get_or_insert_with(|| Periodic::new(0..nodes, cost));
        match happening {
            Happening::Started => solver.start(desk),
            Happening::Timer(token) => solver.timer(token, desk),
            Happening::MigrationEnded { .. } | Happening::MigrationFailed { .. } => {
                solver.migration_ended(desk);
            }
            Happening::LoadChanged { .. } | Happening::Message { .. } | Happening::Returned => {}
        }
    }
}
