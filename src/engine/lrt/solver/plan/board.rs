//! A situation as the search sees it: numbers, costs in its own units, VMs that are alike; and one state of it, spread out.

use std::cmp::Reverse;

use super::bound::{Item, cover};
use super::{Move, Situation};
use crate::engine::spec::Resources;

/// In units of the search: a cost is multiplied by this, to leave room below it for which of two is to be preferred.
const UNIT: u64 = 1024;
/// The most that a single move's size counts in that, so that of two plans at one cost the one of smaller moves wins.
const SIZE_COUNTS: u64 = 16;
/// Costs are taken for this at most: sums must not overflow.
const DEAREST: u64 = 1 << 32;
/// Not placed yet.
pub const NOWHERE: u8 = u8::MAX;

/// A tenant.
pub struct Piece {
    /// What it takes.
    pub size: Resources,
    /// The nodes that it may be on.
    pub may: Vec<bool>,
    /// What a move of it costs, in units of the search.
    pub cost: u64,
    /// Pieces of one class are alike.
    pub class: usize,
    /// It wants room.
    pub wants: bool,
}

/// A situation with what does not change in a search.
pub struct Board {
    /// The tenants, by their numbers.
    pub pieces: Vec<Piece>,
    /// Where each is at first.
    pub start: Vec<u8>,
    /// What each node has, with no piece on it.
    pub rooms: Vec<Resources>,
    /// Pieces that want room, those that are alike one after the other.
    pub wanting: Vec<usize>,
    /// The pieces of each class.
    classes: Vec<Vec<usize>>,
    /// The least that any move costs.
    pub least: u64,
}

impl Board {
    /// The board of a situation.
    pub fn new(situation: &Situation) -> Self {
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
    pub fn could_hold_all(&self) -> bool {
        let sum = |all: Resources, part: Resources| all.plus(&part);
        let room = self.rooms.iter().copied().fold(Resources::default(), sum);
        let used = self.pieces.iter().map(|piece| piece.size).fold(Resources::default(), sum);
        room.holds(&used)
    }

    /// What moves cost together.
    pub fn cost(&self, moves: &[Move]) -> u64 {
        moves.iter().map(|m| self.pieces[m.tenant].cost).sum()
    }

    /// The state without names: of VMs that are alike, only how many are where.
    pub fn key(&self, at: &[u8]) -> Box<[u8]> {
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
pub struct Open<'a> {
    board: &'a Board,
    /// Where each piece is.
    pub at: &'a [u8],
    /// What no VM that runs uses.
    pub free: Vec<Resources>,
    /// What those that want room are to have.
    demand: Vec<Resources>,
    /// The pieces that run on each node.
    pub here: Vec<Vec<usize>>,
}

impl<'a> Open<'a> {
    /// Spreads a state out.
    pub fn new(board: &'a Board, at: &'a [u8]) -> Self {
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
    pub fn need(
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
