//! The search for a plan: A* over where everybody is.
//!
//! Those who want room are given nodes first, whether or not they fit there yet: that makes deficits, and the search then
//! moves VMs until there is none. What a state costs still at least is the sum of what must leave each node ([`cover`]): the
//! sets are disjoint, so the first answer that comes up is a cheapest one. From a state, moves out of nodes that are short come
//! first; all others wait in the queue at the least that they could come to. VMs that are alike count as one another, so that
//! states that differ by their names only are looked at once. If steps run out, the search goes on with the bound weighed
//! more, for any answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use super::bound::{Item, cover};
use super::{Effort, Move, Situation};
use crate::engine::spec::Resources;

/// In units of the search: a cost is multiplied by this, to leave room below it for which of two is to be preferred.
const UNIT: u64 = 1024;
/// The most that a single move's size counts in that, so that of two plans at one cost the one of smaller moves wins.
const SIZE_COUNTS: u64 = 16;
/// Costs are taken for this at most: sums must not overflow.
const DEAREST: u64 = 1 << 32;
/// How the bound is weighed against what was spent, after the cheapest plan was not found.
const WEIGHTS: [u64; 2] = [3, 50];

/// Not placed yet.
const NOWHERE: u8 = u8::MAX;

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

struct Piece {
    size: Resources,
    may: Vec<bool>,
    cost: u64,
    class: usize,
    wants: bool,
}

struct Board {
    pieces: Vec<Piece>,
    start: Vec<u8>,
    /// What each node has, with no piece on it.
    rooms: Vec<Resources>,
    /// Pieces that want room, those that are alike one after the other.
    wanting: Vec<usize>,
    /// The pieces of each class.
    classes: Vec<Vec<usize>>,
    least: u64,
}

impl Board {
    fn new(situation: &Situation) -> Self {
        let mut alike: Vec<(Resources, Vec<bool>, u64, bool)> = Vec::new();
        let dearest = situation.tenants.iter().map(|t| t.cost.clamp(1, DEAREST)).max().unwrap_or(1);
        let pieces: Vec<Piece> = situation
            .tenants
            .iter()
            .map(|tenant| {
                let cost = tenant.cost.clamp(1, DEAREST);
                let squared = u128::from(cost) * u128::from(cost) * u128::from(SIZE_COUNTS);
                let counts = squared / (u128::from(dearest) * u128::from(dearest));
                let cost = cost * UNIT + counts as u64;
                let kind = (tenant.size, tenant.may.clone(), cost, tenant.at.is_none());
                let class = alike.iter().position(|other| *other == kind).unwrap_or_else(|| {
                    alike.push(kind);
                    alike.len() - 1
                });
                let (size, may, wants) = (tenant.size, tenant.may.clone(), tenant.at.is_none());
                Piece { size, may, cost, class, wants }
            })
            .collect();
        let mut rooms: Vec<Resources> = situation.hosts.iter().map(|host| host.free).collect();
        for tenant in &situation.tenants {
            if let Some(at) = tenant.at {
                rooms[at] = rooms[at].plus(&tenant.size);
            }
        }
        let place = |at: Option<usize>| at.map_or(NOWHERE, |at| at as u8);
        let mut wanting: Vec<usize> =
            (0..pieces.len()).filter(|piece| pieces[*piece].wants).collect();
        // The largest first: it has the fewest places.
        wanting.sort_by_key(|piece| {
            (Reverse(pieces[*piece].size.memory), pieces[*piece].class, *piece)
        });
        let mut classes = vec![Vec::new(); alike.len()];
        for (index, piece) in pieces.iter().enumerate() {
            classes[piece.class].push(index);
        }
        let least = pieces.iter().filter(|p| !p.wants).map(|piece| piece.cost).min();
        Self {
            start: situation.tenants.iter().map(|tenant| place(tenant.at)).collect(),
            pieces,
            rooms,
            wanting,
            classes,
            least: least.unwrap_or(UNIT),
        }
    }

    /// The least that is to be fulfilled: there is as much room as is used and wanted.
    fn could_hold_all(&self) -> bool {
        let sum = |all: Resources, part: Resources| all.plus(&part);
        let room = self.rooms.iter().copied().fold(Resources::default(), sum);
        let used = self.pieces.iter().map(|piece| piece.size).fold(Resources::default(), sum);
        room.holds(&used)
    }

    fn cost(&self, moves: &[Move]) -> u64 {
        moves.iter().map(|m| self.pieces[m.tenant].cost).sum()
    }

    /// The state without names: of VMs that are alike, only how many are where.
    fn key(&self, at: &[u8]) -> Box<[u8]> {
        let mut key = Vec::with_capacity(at.len());
        for class in &self.classes {
            let from = key.len();
            key.extend(class.iter().map(|piece| at[*piece]));
            key[from..].sort_unstable();
        }
        key.into_boxed_slice()
    }
}

/// A state, spread out to be worked on.
struct Open<'a> {
    board: &'a Board,
    at: &'a [u8],
    /// What no VM that runs uses.
    free: Vec<Resources>,
    /// What those that want room are to have.
    demand: Vec<Resources>,
    here: Vec<Vec<usize>>,
}

impl<'a> Open<'a> {
    fn new(board: &'a Board, at: &'a [u8]) -> Self {
        let hosts = board.rooms.len();
        let (mut used, mut demand) =
            (vec![Resources::default(); hosts], vec![Resources::default(); hosts]);
        let mut here = vec![Vec::new(); hosts];
        for (index, piece) in board.pieces.iter().enumerate() {
            if at[index] == NOWHERE {
                continue;
            }
            let host = usize::from(at[index]);
            if piece.wants {
                demand[host] = demand[host].plus(&piece.size);
            } else {
                used[host] = used[host].plus(&piece.size);
                here[host].push(index);
            }
        }
        let free = board.rooms.iter().zip(&used).map(|(room, used)| room.minus(used)).collect();
        Self { board, at, free, demand, here }
    }

    /// What must leave this node at least, without `gone`, with `come` and with `more` wanted. `None`: nothing helps.
    fn need(
        &self,
        host: usize,
        gone: Option<usize>,
        come: Option<usize>,
        more: Option<usize>,
    ) -> Option<u64> {
        let pieces = &self.board.pieces;
        let here = self.here[host].iter().copied().filter(|piece| Some(*piece) != gone);
        let mut free = self.free[host];
        free = gone.map_or(free, |piece| free.plus(&pieces[piece].size));
        let mut wanted = self.demand[host];
        wanted = more.map_or(wanted, |piece| wanted.plus(&pieces[piece].size));
        let (mut must, mut items) = (0, Vec::new());
        // Those that must leave do so anyway; what they free is not to be freed by others.
        for piece in here.clone().filter(|piece| !pieces[*piece].may[host]) {
            must += pieces[piece].cost;
            free = free.plus(&pieces[piece].size);
        }
        if let Some(piece) = come {
            wanted = wanted.plus(&pieces[piece].size);
        }
        let short = wanted.minus(&free);
        if short == Resources::default() {
            return Some(must);
        }
        let may_leave = |piece: &usize| {
            let piece = &pieces[*piece];
            let elsewhere = piece.may.iter().enumerate().any(|(to, may)| *may && to != host);
            (piece.may[host] && elsewhere).then_some(Item { size: piece.size, cost: piece.cost })
        };
        items.extend(here.chain(come).filter_map(|piece| may_leave(&piece)));
        Some(must + cover(&mut items, short)?)
    }
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

/// Leaves out what a plan can do without: a VM's moves, or its way round.
fn lighten(board: &Board, mut found: Found) -> Found {
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
