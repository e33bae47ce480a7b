//! The search: depth first, the largest VM first, the node that adds least to the cost first, and on from
//! the first answer to cheaper ones (branch and bound), as far as the steps reach.
//!
//! VMs that may stand in for each other are not tried in each other's place: when one on a node has led
//! nowhere, none of its class is tried there in what is left of that subtree (symmetry breaking during
//! search: Gent, Smith, 2000). So "nine nodes for ten replicas" is found out at once.

use super::Assignment;
use super::board::Board;
use super::goal::Goal;
use super::spare;
use crate::engine::spec::Resources;

/// How many placements of single VMs a search may try: its bound, in place of time.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// In all.
    pub steps: u32,
    /// After the first answer, for a cheaper one.
    pub improve: u32,
}

impl Effort {
    /// For a placement: milliseconds of work. A partition that grows by one more node starts afresh.
    pub const FULL: Self = Self { steps: 20_000, improve: 3_000 };
    /// Only whether there is an answer: for reasons, which take many searches.
    pub const CHECK: Self = Self { steps: 4_000, improve: 0 };
}

/// How a search ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// With this.
    Found(Assignment),
    /// Nothing was left to try.
    Impossible,
    /// Its steps were used up.
    GaveUp,
}

/// What a search has found out.
#[derive(Clone, Debug)]
pub struct Searched {
    /// The end.
    pub outcome: Outcome,
    /// How many VMs were placed at once, at best.
    pub most: usize,
}

/// Searches from this board on.
pub fn run(board: Board<'_>, goal: Goal, effort: Effort) -> Searched {
    let pieces = board.pieces.len();
    let least = least(&board, goal);
    let barred = vec![vec![0; board.loads.len()]; board.classes];
    let mut search = Search {
        board,
        goal,
        effort,
        barred,
        least,
        path: Vec::with_capacity(pieces),
        cost: 0,
        best: None,
        most: 0,
        steps: 0,
    };
    let possible = search.possible();
    let ended = !possible || search.place();
    let outcome = match search.best {
        Some((_, nodes)) => Outcome::Found(search.board.assignment(&nodes)),
        None if ended => Outcome::Impossible,
        None => Outcome::GaveUp,
    };
    Searched { outcome, most: search.most }
}

/// The least that the pieces from each on will cost.
fn least(board: &Board<'_>, goal: Goal) -> Vec<u64> {
    let mut least = vec![0; board.pieces.len() + 1];
    for (index, piece) in board.pieces.iter().enumerate().rev() {
        let nodes = (0..board.loads.len()).filter(|node| board.fits_alone(index, *node));
        let own = nodes.map(|node| goal.least(&board.loads[node], &piece.size)).min();
        least[index] = least[index + 1] + own.unwrap_or(0);
    }
    least
}

struct Search<'a> {
    board: Board<'a>,
    goal: Goal,
    effort: Effort,
    /// For each class and node: how many pieces above in this branch have been there in vain.
    barred: Vec<Vec<u32>>,
    least: Vec<u64>,
    path: Vec<usize>,
    cost: u64,
    best: Option<(u64, Vec<usize>)>,
    most: usize,
    steps: u32,
}

impl Search<'_> {
    /// What needs no search: every piece has a node to itself, and there is room for all.
    fn possible(&self) -> bool {
        let nodes = 0..self.board.loads.len();
        let homed = |piece| nodes.clone().any(|node| self.board.fits_alone(piece, node));
        let free = self.board.loads.iter().map(|load| load.free);
        let needed = self.board.pieces.iter().map(|piece| piece.size);
        let sum = |all: Resources, part: Resources| all.plus(&part);
        let free = free.fold(Resources::default(), sum);
        let needed = needed.fold(Resources::default(), sum);
        free.holds(&needed) && (0..self.board.pieces.len()).all(homed)
    }

    /// Places the piece that is next, and those after it. Returns false when the steps are used up.
    fn place(&mut self) -> bool {
        let piece = self.path.len();
        self.most = self.most.max(piece);
        if piece == self.board.pieces.len() {
            if !self.board.spare || spare::survives(&self.board, &self.path) {
                self.arrive();
            }
            return true;
        }
        let class = self.board.pieces[piece].class;
        let candidates = self.candidates(piece);
        let mut whole = true;
        let mut tried = Vec::new();
        for (added, node) in candidates {
            let cost = self.cost + added;
            if self.best.as_ref().is_some_and(|(best, _)| cost + self.least[piece + 1] >= *best) {
                break;
            }
            self.steps += 1;
            if self.steps > self.effort.steps {
                whole = false;
                break;
            }
            self.board.put(piece, node);
            self.path.push(node);
            let before = std::mem::replace(&mut self.cost, cost);
            whole = self.place();
            self.cost = before;
            self.path.pop();
            self.board.take(piece, node);
            if !whole {
                break;
            }
            self.barred[class][node] += 1;
            tried.push(node);
        }
        for node in tried {
            self.barred[class][node] -= 1;
        }
        whole
    }

    /// The nodes that may take this piece now, and what each adds to the cost: the least first.
    fn candidates(&self, piece: usize) -> Vec<(u64, usize)> {
        let class = self.board.pieces[piece].class;
        let size = &self.board.pieces[piece].size;
        let nodes = (0..self.board.loads.len())
            .filter(|node| self.barred[class][*node] == 0 && self.board.allows(piece, *node));
        let mut candidates: Vec<_> =
            nodes.map(|node| (self.goal.added(&self.board.loads[node], size), node)).collect();
        candidates.sort_unstable();
        candidates
    }

    /// Every piece has its place, at less cost than before.
    fn arrive(&mut self) {
        if self.best.is_none() {
            self.effort.steps = self.effort.steps.min(self.steps + self.effort.improve);
        }
        self.best = Some((self.cost, self.path.clone()));
    }
}
