//! The iterative scheduling procedure, on the side of the agent that runs it.
//!
//! It reserves its own node, then the nearest free ones, until the environment fits as a whole; then all
//! of them promise their room durably, or none does. A node in another partition is passed over if that
//! partition's procedure goes first, and asked again if this one does: procedures are in a total order
//! (how often they gave way, then their id), and only the first of two waits for the other, so no circle
//! of waits can close ("wait-die": Rosenkrantz, Stearns, Lewis, 1978). One that gave way starts again
//! after a random pause, with a better place in the order, so none starves.
//!
//! ```text
//!   Growing: Reserve ──Granted──> solve ──no──> next nearest ... none left ──> CannotFit | Contended
//!                                   └──yes──> Preparing: Prepare to all ──all Prepared──> Committed
//!                                                            └─refused, or silent──> Contended
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::NodeOffer;
use super::solver::{self, Assignment, Goal, Problem};
use crate::engine::bugs::{Bug, has};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, ProcedureId, VeUid};
use crate::engine::lease::Lease;
use crate::engine::record::MoveReason;
use crate::engine::spec::VmDefinition;
use crate::engine::time::Instant;
use crate::engine::wire::{Message, Reservation};

/// A node that has not answered within this time is passed over.
const ANSWER_WITHIN: Duration = Duration::from_millis(800);
/// A prepare is repeated after this time: the first may be lost.
const REPEAT_AFTER: Duration = Duration::from_millis(300);
/// A node whose partition gives way is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(40);
/// The whole procedure ends by then, before the first reservation does ([`super::LOCK_TIMEOUT`]).
const END_WITHIN: Duration = Duration::from_secs(4);

/// What is asked of the scheduler.
#[derive(Clone, Debug)]
pub struct Request {
    /// For which environment.
    pub ve: VeUid,
    /// The generation of its spec that this places.
    pub generation: i64,
    /// How often it had to give way to others: grows until it is its turn.
    pub priority: u32,
    /// The order number that will decide it.
    pub order: u64,
    /// The replicas of the environment's record: who may decide it should this agent not come to it.
    pub replicas: Vec<NodeName>,
    /// What to place.
    pub problem: Problem,
    /// What for.
    pub aim: Aim,
}

/// What a procedure finds places for.
#[derive(Clone, Debug)]
pub enum Aim {
    /// VMs that run nowhere.
    Place,
    /// One VM that runs, and is to run elsewhere.
    Move {
        /// Where it is.
        from: NodeName,
        /// The one node that it may go to; any, if there is none.
        only: Option<NodeName>,
        /// Why.
        why: MoveReason,
        /// The environment as it is, with this VM where it is.
        standing: Box<Problem>,
    },
}

/// The leases of the nodes that have promised.
pub type Leases = BTreeMap<NodeName, Lease>;

/// How a procedure ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Every node of the assignment has promised, on disk, each under its lease.
    Committed(Assignment, Leases),
    /// It does not fit: why.
    CannotFit(String),
    /// Nodes were in other partitions, or silent: try again soon.
    Contended(String),
}

#[derive(Debug)]
enum Stage {
    Growing {
        asked: Option<(NodeName, Instant)>,
        again_at: Option<Instant>,
    },
    Preparing {
        assignment: Assignment,
        waiting: BTreeSet<NodeName>,
        leases: Leases,
        repeat_at: Instant,
    },
}

/// One procedure under way.
#[derive(Debug)]
pub struct Procedure {
    /// Its name.
    pub id: ProcedureId,
    /// What it places.
    pub request: Request,
    /// The partition, in the order in which its nodes were reserved: nearest first.
    offers: Vec<NodeOffer>,
    candidates: Vec<NodeName>,
    busy: BTreeSet<NodeName>,
    silent: BTreeSet<NodeName>,
    closed: BTreeMap<NodeName, String>,
    stage: Stage,
    end_at: Instant,
    goal: Goal,
}

impl Procedure {
    /// Starts with this node, then goes through `nearest`.
    pub fn start(
        id: ProcedureId,
        request: Request,
        nearest: Vec<NodeName>,
        goal: Goal,
        ctx: &mut Context,
    ) -> Self {
        // Nodes that must take part come first: those with disks of the VMs, for one.
        let needed = request.problem.asked_first();
        let own = ctx.node.clone();
        let mut candidates = vec![own];
        let (first, rest): (Vec<_>, Vec<_>) =
            nearest.into_iter().partition(|node| needed.contains(node));
        candidates.extend(first);
        candidates.extend(rest);
        if let Aim::Move { from, only, .. } = &request.aim {
            let may = |node: &NodeName| only.as_ref().is_none_or(|only| only == node);
            candidates.retain(|node| node != from && may(node));
        }
        candidates.reverse();
        let end_at = ctx.now + END_WITHIN;
        let mut procedure = Self {
            id,
            request,
            offers: Vec::new(),
            candidates,
            busy: BTreeSet::new(),
            silent: BTreeSet::new(),
            closed: BTreeMap::new(),
            stage: Stage::Growing { asked: None, again_at: None },
            end_at,
            goal,
        };
        if procedure.candidates.is_empty() {
            // There is nobody but the node that the VM is to leave: told at the next wake-up, as any end is.
            procedure.stage = Stage::Growing { asked: None, again_at: Some(ctx.now) };
        } else {
            procedure.ask_next(ctx);
        }
        procedure
    }

    /// The partition's nodes, for people and for the invariants.
    pub fn members(&self) -> impl Iterator<Item = &NodeName> {
        self.offers.iter().map(|offer| &offer.node)
    }

    /// What its nodes offer.
    pub(super) fn offers(&self) -> &[NodeOffer] {
        &self.offers
    }

    /// When something is due.
    #[must_use]
    pub fn next_wakeup(&self) -> Instant {
        match &self.stage {
            Stage::Growing { asked: Some((_, at)), .. } => (*at).min(self.end_at),
            Stage::Growing { again_at: Some(at), .. } => (*at).min(self.end_at),
            Stage::Growing { .. } => self.end_at,
            Stage::Preparing { repeat_at, .. } => (*repeat_at).min(self.end_at),
        }
    }

    /// Asks the next candidate; ends the procedure when there is none.
    fn ask_next(&mut self, ctx: &mut Context) -> Option<Ended> {
        let Some(node) = self.candidates.pop() else {
            return Some(self.exhausted());
        };
        let (procedure, ve) = (self.id.clone(), self.request.ve.clone());
        ctx.send(&node, Message::Reserve { procedure, ve, priority: self.request.priority });
        self.stage =
            Stage::Growing { asked: Some((node, ctx.now + ANSWER_WITHIN)), again_at: None };
        None
    }

    fn exhausted(&self) -> Ended {
        if self.busy.is_empty() && self.silent.is_empty() {
            return Ended::CannotFit(solver::explain(
                &self.request.problem,
                &self.offers,
                &self.closed,
            ));
        }
        let names = |nodes: &BTreeSet<NodeName>| {
            nodes.iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ")
        };
        let mut absent = self.closed.clone();
        absent.extend(self.busy.iter().map(|n| (n.clone(), "is in another partition".to_owned())));
        absent.extend(self.silent.iter().map(|n| (n.clone(), "does not answer".to_owned())));
        if self.busy.is_empty() {
            // Silent nodes come back when they come back; what is known now is the answer.
            let why = solver::explain(&self.request.problem, &self.offers, &absent);
            return Ended::CannotFit(why);
        }
        Ended::Contended(format!("waits for {} to leave another partition", names(&self.busy)))
    }

    /// An answer to a reserve.
    pub fn reserved(
        &mut self,
        from: &NodeName,
        answer: Reservation,
        ctx: &mut Context,
    ) -> Option<Ended> {
        let awaited =
            matches!(&self.stage, Stage::Growing { asked: Some((node, _)), .. } if node == from);
        if !awaited {
            // Too late to be of use (it was passed over): it must not stay reserved for nothing.
            let member = self.offers.iter().any(|offer| offer.node == *from);
            if matches!(answer, Reservation::Granted(_)) && !member {
                ctx.send(from, Message::Release { procedure: self.id.clone(), undo: false });
            }
            return None;
        }
        match answer {
            Reservation::Granted(offer) if offer.node == *from => {
                self.offers.push(*offer);
                if let Err(why) = self.permits_move(from) {
                    self.offers.pop();
                    ctx.send(from, Message::Release { procedure: self.id.clone(), undo: false });
                    self.closed.insert(from.clone(), why);
                    return self.ask_next(ctx);
                }
                match solver::solve(&self.request.problem, &self.offers, self.goal) {
                    Some(assignment) => {
                        self.prepare(assignment, ctx);
                        return None;
                    }
                    None => self.stage = Stage::Growing { asked: None, again_at: None },
                }
            }
            Reservation::Granted(_) => {
                self.closed.insert(from.clone(), "answers for another node".into());
            }
            Reservation::Busy { procedure, priority } => {
                if self.goes_before(&procedure, priority) {
                    self.candidates.push(from.clone());
                    let again_at = Some(ctx.now + ASK_AGAIN);
                    self.stage = Stage::Growing { asked: None, again_at };
                    return None;
                }
                self.busy.insert(from.clone());
            }
            Reservation::Closed(why) => {
                self.closed.insert(from.clone(), why);
            }
        }
        self.ask_next(ctx)
    }

    /// Whether the constraints let the VM move to this node, if it is one that moves. It is among the offers.
    fn permits_move(&self, to: &NodeName) -> Result<(), String> {
        let (Aim::Move { from, standing, .. }, Some(vm)) =
            (&self.request.aim, self.request.problem.vms.first())
        else {
            return Ok(());
        };
        standing.holds_during_move(&vm.id, from, to, &self.offers)
    }

    /// Whether this procedure waits for the other (and not the other for this one).
    fn goes_before(&self, other: &ProcedureId, priority: u32) -> bool {
        (self.request.priority, other) > (priority, &self.id)
    }

    fn prepare(&mut self, assignment: Assignment, ctx: &mut Context) {
        let waiting: BTreeSet<NodeName> = assignment.values().cloned().collect();
        self.stage = Stage::Preparing {
            assignment,
            waiting: waiting.clone(),
            leases: Leases::new(),
            repeat_at: ctx.now + REPEAT_AFTER,
        };
        for node in &waiting {
            self.send_prepare(node, ctx);
        }
    }

    fn send_prepare(&self, node: &NodeName, ctx: &mut Context) {
        let Stage::Preparing { assignment, .. } = &self.stage else { return };
        let here = |vm: &&VmDefinition| assignment.get(&vm.id) == Some(node);
        let vms = self.request.problem.vms.iter().filter(here).cloned().collect();
        let replicas = self.request.replicas.clone();
        let (procedure, order) = (self.id.clone(), self.request.order);
        let arriving = matches!(self.request.aim, Aim::Move { .. });
        ctx.send(node, Message::Prepare { procedure, replicas, order, vms, arriving });
    }

    /// An answer to a prepare.
    pub fn prepared(&mut self, from: &NodeName, result: Result<Lease, String>) -> Option<Ended> {
        let Stage::Preparing { assignment, waiting, leases, .. } = &mut self.stage else {
            return None;
        };
        if !waiting.contains(from) {
            return None;
        }
        match result {
            Ok(lease) => leases.insert(from.clone(), lease),
            Err(_) if has(Bug::HalfPlaced) && assignment.values().any(|node| node != from) => {
                assignment.retain(|_, node| node != from);
                None
            }
            Err(why) => {
                return Some(Ended::Contended(format!("{from} no longer has the room: {why}")));
            }
        };
        waiting.remove(from);
        waiting
            .is_empty()
            .then(|| Ended::Committed(std::mem::take(assignment), std::mem::take(leases)))
    }

    /// Does what is due.
    pub fn wake(&mut self, ctx: &mut Context) -> Option<Ended> {
        if self.end_at <= ctx.now {
            return Some(Ended::Contended("nodes of the partition do not answer".into()));
        }
        match &mut self.stage {
            Stage::Growing { again_at: Some(at), .. } if *at <= ctx.now => self.ask_next(ctx),
            Stage::Growing { asked: Some((node, at)), .. } if *at <= ctx.now => {
                let node = node.clone();
                // It may have granted and the answer be lost: give it back.
                ctx.send(&node, Message::Release { procedure: self.id.clone(), undo: false });
                self.silent.insert(node);
                self.ask_next(ctx)
            }
            Stage::Preparing { waiting, repeat_at, .. } if *repeat_at <= ctx.now => {
                *repeat_at = ctx.now + REPEAT_AFTER;
                for node in waiting.clone() {
                    self.send_prepare(&node, ctx);
                }
                None
            }
            _ => None,
        }
    }

    /// Gives everything back that was not promised. After a commit the nodes that promised have left the
    /// partition by themselves; after anything else a release also undoes their promises.
    pub fn dissolve(&self, ended: Option<&Ended>, ctx: &mut Context) {
        let kept: BTreeSet<&NodeName> = match ended {
            Some(Ended::Committed(assignment, _)) => assignment.values().collect(),
            _ => BTreeSet::new(),
        };
        let undo = !matches!(ended, Some(Ended::Committed(..)));
        let asked = match &self.stage {
            Stage::Growing { asked: Some((node, _)), .. } => Some(node),
            _ => None,
        };
        let everyone: BTreeSet<&NodeName> = self.members().chain(asked).collect();
        for node in everyone.difference(&kept) {
            ctx.send(node, Message::Release { procedure: self.id.clone(), undo });
        }
    }
}
