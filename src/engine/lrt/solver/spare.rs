//! N+1: whether the other nodes of the partition could take in what any one of the environment's nodes holds,
//! with every other rule kept. Disks are lost with a node, so they bind nobody then.

use super::board::Board;
use super::goal::Load;
use super::tally::Tally;
use crate::engine::spec::Resources;

/// How many placements are tried to find refuge for one node's VMs.
const STEPS: u32 = 500;

/// A VM that has lost its node.
struct Homeless<'a> {
    member: usize,
    size: Resources,
    refuge: &'a [bool],
}

/// Whether any one node may be lost. `path` has the node of each piece.
pub fn survives(board: &Board<'_>, path: &[usize]) -> bool {
    let sites = path.iter().copied().chain(board.settled.iter().map(|settled| settled.site));
    let mut sites: Vec<usize> = sites.collect();
    sites.sort_unstable();
    sites.dedup();
    sites.into_iter().all(|lost| survives_loss(board, path, lost))
}

fn survives_loss(board: &Board<'_>, path: &[usize], lost: usize) -> bool {
    let mut tallies = board.tallies.clone();
    let mut homeless = Vec::new();
    for (piece, _) in board.pieces.iter().zip(path).filter(|(_, node)| **node == lost) {
        tallies.iter_mut().for_each(|t| t.remove(piece.member, piece.size.cpu_milli, lost));
        let refuge = &board.refuge[piece.class];
        homeless.push(Homeless { member: piece.member, size: piece.size, refuge });
    }
    for settled in board.settled.iter().filter(|settled| settled.site == lost) {
        tallies.iter_mut().for_each(|tally| tally.remove(settled.member, 0, lost));
        let (member, size, refuge) = (settled.member, settled.size, &settled.refuge[..]);
        homeless.push(Homeless { member, size, refuge });
    }
    homeless.sort_by_key(|vm| std::cmp::Reverse((vm.size.memory, vm.size.cpu_milli)));
    let mut loads = board.loads.clone();
    if let Some(load) = loads.get_mut(lost) {
        load.free = Resources::default();
    }
    let mut steps = STEPS;
    house(&homeless, &mut loads, &mut tallies, &mut steps)
}

/// Finds a place for each, depth first.
fn house(
    homeless: &[Homeless<'_>],
    loads: &mut [Load],
    tallies: &mut [Tally],
    steps: &mut u32,
) -> bool {
    let Some((vm, rest)) = homeless.split_first() else { return true };
    let cpu = vm.size.cpu_milli;
    for node in 0..loads.len() {
        let fits = vm.refuge[node]
            && loads[node].free.holds(&vm.size)
            && tallies.iter().all(|tally| tally.allows(vm.member, cpu, node));
        if !fits {
            continue;
        }
        if *steps == 0 {
            return false;
        }
        *steps -= 1;
        loads[node].free = loads[node].free.minus(&vm.size);
        tallies.iter_mut().for_each(|tally| tally.add(vm.member, cpu, node));
        let housed = house(rest, loads, tallies, steps);
        loads[node].free = loads[node].free.plus(&vm.size);
        tallies.iter_mut().for_each(|tally| tally.remove(vm.member, cpu, node));
        if housed {
            return true;
        }
    }
    false
}
