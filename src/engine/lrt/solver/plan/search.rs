//! The search for a plan: A* over where everybody is.
//!
//! Those who want room are given nodes first, whether or not they fit there yet: that makes deficits, and the search then
//! moves VMs until there is none. What a state costs still at least is the sum of what must leave each node (`bound.rs`): the
//! sets are disjoint, so the first answer that comes up is a cheapest one. From a state, moves out of nodes that are short come
//! first; all others wait in the queue at the least that they could come to. VMs that are alike count as one another, so that
//! states that differ by their names only are looked at once. If steps run out, the search goes on with the bound weighed
//! more, for any answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::board::{Board, NOWHERE, Open};
use super::lighten::lighten;
use super::{Effort, Move, Situation};

/// How the bound is weighed against what was spent, after the cheapest plan was not found.
const WEIGHTS: [u64; 2] = [3, 50];

/// An order of moves, one after the other.
#[derive(Debug)]
pub struct Found {
    /// The moves.
    pub moves: Vec<Move>,
    /// Where those that want room find it.
    pub places: Vec<(usize, usize)>,
    /// No order costs less.
    pub cheapest: bool,
}

/// Searches. Hosts and tenants are few (`focus.rs`).
pub fn run(situation: &Situation, effort: Effort) -> Option<Found> {
    let board = Board::new(situation);
    if !board.could_hold_all() {
        return None;
    }
    match Search::new(&board, 1, effort.exact).run() {
        Outcome::Found(found) => return Some(Found { cheapest: true, ..found }),
        Outcome::Impossible => return None,
        Outcome::GaveUp => {}
    }
    let each = effort.greedy / WEIGHTS.len() as u32;
    let tries =
        WEIGHTS.iter().filter_map(|weight| match Search::new(&board, *weight, each).run() {
            Outcome::Found(found) => Some(lighten(&board, found)),
            _ => None,
        });
    tries.min_by_key(|found| board.cost(&found.moves))
}

enum Outcome {
    Found(Found),
    Impossible,
    GaveUp,
}

struct Node {
    at: Box<[u8]>,
    spent: u64,
    bound: u64,
    parent: u32,
}

/// What it comes to, what of that is still to come, in which order it was found, which it is; and whether its first moves
/// have been made.
type Queued = (u64, u64, u32, u32, bool);

struct Search<'a> {
    board: &'a Board,
    weight: u64,
    left: u32,
    nodes: Vec<Node>,
    /// The least that was spent to come to a state.
    known: BTreeMap<Box<[u8]>, u64>,
    queue: BinaryHeap<Reverse<Queued>>,
    found: u32,
}

impl<'a> Search<'a> {
    fn new(board: &'a Board, weight: u64, effort: u32) -> Self {
        let (nodes, known, queue) = (Vec::new(), BTreeMap::new(), BinaryHeap::new());
        Self { board, weight, left: effort, nodes, known, queue, found: 0 }
    }

    fn run(mut self) -> Outcome {
        let start = self.board.start.clone().into_boxed_slice();
        let open = Open::new(self.board, &start);
        let needs: Option<Vec<u64>> =
            (0..open.free.len()).map(|host| open.need(host, None, None, None)).collect();
        let Some(needs) = needs else { return Outcome::Impossible };
        let bound = needs.iter().sum();
        self.offer(start.clone(), 0, bound, 0);
        while let Some(Reverse((_, _, _, index, rest))) = self.queue.pop() {
            let node = &self.nodes[index as usize];
            let (at, spent, bound) = (node.at.clone(), node.spent, node.bound);
            if self.known.get(&self.board.key(&at)).is_some_and(|best| *best < spent) {
                continue;
            }
            let placed = self.board.wanting.iter().all(|piece| at[*piece] != NOWHERE);
            if placed && bound == 0 {
                return Outcome::Found(self.found(index));
            }
            if self.left == 0 {
                return Outcome::GaveUp;
            }
            if placed {
                self.expand(index, &at, (spent, bound), rest);
            } else {
                self.assign(index, &at, spent);
            }
        }
        Outcome::Impossible
    }

    /// Takes in a state, if it was not come to at less cost before.
    fn offer(&mut self, at: Box<[u8]>, spent: u64, bound: u64, parent: u32) {
        self.left = self.left.saturating_sub(1);
        let key = self.board.key(&at);
        if self.known.get(&key).is_some_and(|best| *best <= spent) {
            return;
        }
        self.known.insert(key, spent);
        let index = self.nodes.len() as u32;
        self.nodes.push(Node { at, spent, bound, parent });
        self.queue_up(index, spent, bound, false);
    }

    fn queue_up(&mut self, index: u32, spent: u64, bound: u64, rest: bool) {
        self.found += 1;
        let all = spent + bound.saturating_mul(self.weight);
        self.queue.push(Reverse((all, bound, self.found, index, rest)));
    }

    /// Gives the next one that wants room each node that it may have.
    fn assign(&mut self, index: u32, at: &[u8], spent: u64) {
        let board = self.board;
        let open = Open::new(board, at);
        let needs: Vec<u64> = needs(&open);
        let whole: u64 = needs.iter().sum();
        let mut before = None;
        let mut next = None;
        for piece in &board.wanting {
            if at[*piece] == NOWHERE {
                next = Some(*piece);
                break;
            }
            before = Some(*piece);
        }
        let Some(piece) = next else { return };
        // Those that are alike: in the order of nodes only.
        let same = before.filter(|other| board.pieces[*other].class == board.pieces[piece].class);
        let first = same.map_or(0, |other| usize::from(at[other]));
        for host in (first..board.rooms.len()).filter(|host| board.pieces[piece].may[*host]) {
            let Some(need) = open.need(host, None, None, Some(piece)) else { continue };
            let mut at: Box<[u8]> = at.into();
            at[piece] = host as u8;
            self.offer(at, spent, whole - needs[host] + need, index);
        }
    }

    /// Moves each VM to each node that has room: first those of nodes that are short, or from where they must go.
    fn expand(&mut self, index: u32, at: &[u8], (spent, bound): (u64, u64), rest: bool) {
        let board = self.board;
        let open = Open::new(board, at);
        let needs = needs(&open);
        let whole: u64 = needs.iter().sum();
        if !rest {
            self.queue_up(index, spent, bound + board.least / self.weight, true);
        }
        for from in 0..board.rooms.len() {
            if (needs[from] > 0) == rest {
                continue;
            }
            let mut tried: Vec<usize> = Vec::new();
            for piece in &open.here[from] {
                let one = &board.pieces[*piece];
                if tried.contains(&one.class) {
                    continue;
                }
                tried.push(one.class);
                let Some(left) = open.need(from, Some(*piece), None, None) else { continue };
                for to in (0..board.rooms.len()).filter(|to| *to != from && one.may[*to]) {
                    if !open.free[to].holds(&one.size) {
                        continue;
                    }
                    let Some(need) = open.need(to, None, Some(*piece), None) else { continue };
                    let bound = whole - needs[from] - needs[to] + left + need;
                    let mut at: Box<[u8]> = open.at.into();
                    at[*piece] = to as u8;
                    self.offer(at, spent + one.cost, bound, index);
                }
            }
        }
    }

    fn found(&self, mut index: u32) -> Found {
        let last = &self.nodes[index as usize].at;
        let wanting = self.board.wanting.iter();
        let places = wanting.map(|piece| (*piece, usize::from(last[*piece]))).collect();
        let mut moves = Vec::new();
        while index != 0 {
            let node = &self.nodes[index as usize];
            let before = &self.nodes[node.parent as usize].at;
            let moved = (0..before.len()).find(|piece| before[*piece] != node.at[*piece]);
            if let Some(tenant) = moved.filter(|piece| before[*piece] != NOWHERE) {
                let (from, to) = (usize::from(before[tenant]), usize::from(node.at[tenant]));
                moves.push(Move { tenant, from, to });
            }
            index = node.parent;
        }
        moves.reverse();
        Found { moves, places, cheapest: false }
    }
}

/// Of a state that was found possible.
fn needs(open: &Open<'_>) -> Vec<u64> {
    (0..open.free.len()).map(|host| open.need(host, None, None, None).unwrap_or(0)).collect()
}
