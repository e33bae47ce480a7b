//! Ours, and the baselines: small honest readings of the literature, to compare with in the same run.
//!
//! | name | what it is |
//! |---|---|
//! | `none` | nobody acts |
//! | `entropy` | one central solver over everything, every 30 s |
//! | `snooze` | the same over groups of 32 nodes |
//! | `dvms`, `dvms-ring`, `dvms-lbo`, `dvms-two` | partitions that grow node by node: any, the neighbour, the nearest |
//! | `discovery` | ours: the engine's own decisions and protocol |

pub mod discovery;
pub mod dvms;
pub mod entropy;
pub mod looks;
pub mod nearby;
pub mod partition;
pub mod periodic;
pub mod repair;
pub mod snooze;

use super::scheduler::{Actor, Desk, Happening, Scheduler};

/// Nobody acts: what the others are measured against.
#[derive(Clone, Copy, Debug)]
pub struct Nobody;

impl Scheduler for Nobody {
    type Message = ();

    fn handle(&mut self, _: Actor, _: Happening<()>, _: &mut Desk<'_, ()>) {}
}
