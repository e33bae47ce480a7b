//! Whether one VM may move, as far as its environment's constraints go.

use std::collections::BTreeMap;

use super::board::{Board, Rules};
use super::{NodeOffer, Problem};
use crate::engine::id::{NodeName, VmId};

impl Problem {
    /// Whether the constraints let this VM of `existing` move: all hold when it has arrived, and the continuous
    /// ones while it is on its way, the VM counted at both ends. `to` is among the offers; of other nodes the
    /// labels are known only if they are, too. `spare` is judged when VMs are placed, not here.
    ///
    /// # Errors
    /// What stands against it.
    pub fn holds_during_move(
        &self,
        vm: &VmId,
        from: &NodeName,
        to: &NodeName,
        offers: &[NodeOffer],
    ) -> Result<(), String> {
        let offer_of = |node: &NodeName| offers.iter().position(|offer| offer.node == *node);
        let Some(target) = offer_of(to) else {
            return Err(format!("{to} is not in the partition"));
        };
        let Some(size) = self.existing.get(vm).map(|place| place.size) else {
            return Err("it has no place".into());
        };
        let unknown = BTreeMap::new();
        let labels = offer_of(from).map_or(&unknown, |index| &offers[index].labels);
        for constraint in &self.constraints {
            if constraint.forbids_leaving(&vm.member, from, labels) {
                return Err(format!("{constraint} keeps it on {from}"));
            }
            let rules = Rules { constraints: vec![constraint], disks: false };
            let mut board = Board::new(self, offers, &rules);
            let Some(member) = board.member(&vm.member) else { continue };
            let during = board.admits(member, &size, target);
            board.leave(member, from);
            if !rules.permit(self, vm, &offers[target]) || !board.admits(member, &size, target) {
                return Err(format!("{constraint} would not hold with it on {to}"));
            }
            if constraint.is_continuous() && !during {
                return Err(format!("{constraint} would not hold while it moves to {to}"));
            }
        }
        Ok(())
    }
}
