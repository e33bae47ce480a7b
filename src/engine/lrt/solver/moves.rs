//! Whether one VM may move, as far as its environment's constraints go.

use std::collections::BTreeMap;

use super::board::{Board, Rules};
use super::{NodeOffer, Problem};
use crate::engine::id::{NodeName, VmId};

impl Problem {
    /// Whether the constraints let this VM of `existing` move. It is not in its own way; of other VMs that are on their
    /// way, the continuous ones count both ends, the others where they will arrive. `to` is among the offers; of
    /// other nodes the labels are known only if they are, too. `spare` is judged when VMs are placed, not here.
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
        if let Some(why) = self.keeps(vm, from, labels) {
            return Err(why);
        }
        for constraint in &self.constraints {
            let rules = Rules { constraints: vec![constraint], disks: false };
            let mut board = Board::new(self, offers, &rules);
            let Some(member) = board.member(&vm.member) else { continue };
            board.leave(member, from);
            if !rules.permit(self, vm, &offers[target]) || !board.admits(member, &size, target) {
                return Err(format!("{constraint} would not hold with it on {to}"));
            }
        }
        Ok(())
    }
}
