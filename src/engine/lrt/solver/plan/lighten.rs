//! Plans that were found in haste, without what they can do without.

use super::Move;
use super::board::{Board, Open};
use super::search::Found;

/// Leaves out what a plan can do without: a VM's moves, or its way round.
pub fn lighten(board: &Board, mut found: Found) -> Found {
    let tenants: Vec<usize> = found.moves.iter().map(|m| m.tenant).collect();
    for tenant in tenants {
        let own: Vec<Move> = found.moves.iter().copied().filter(|m| m.tenant == tenant).collect();
        let (Some(first), Some(last)) = (own.first(), own.last()) else { continue };
        let direct = Move { tenant, from: first.from, to: last.to };
        let without: Vec<Move> =
            found.moves.iter().copied().filter(|m| m.tenant != tenant).collect();
        let mut tries = vec![without];
        if own.len() > 1 && direct.from != direct.to {
            for place in [first, last] {
                let kept = found.moves.iter().filter(|m| m.tenant != tenant || *m == place);
                let kept = kept.map(|m| if m.tenant == tenant { direct } else { *m });
                tries.push(kept.collect());
            }
        }
        if let Some(moves) = tries.into_iter().find(|moves| arrives(board, moves, &found.places)) {
            found.moves = moves;
        }
    }
    found
}

/// Whether these moves are possible one after the other, and lead to where everybody has room.
fn arrives(board: &Board, moves: &[Move], places: &[(usize, usize)]) -> bool {
    let mut at = board.start.clone();
    for m in moves {
        let piece = &board.pieces[m.tenant];
        let free = Open::new(board, &at).free[m.to];
        if usize::from(at[m.tenant]) != m.from || !free.holds(&piece.size) {
            return false;
        }
        at[m.tenant] = m.to as u8;
    }
    for (piece, host) in places {
        at[*piece] = *host as u8;
    }
    let open = Open::new(board, &at);
    (0..open.free.len()).all(|host| open.need(host, None, None, None) == Some(0))
}
