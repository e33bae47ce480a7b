//! The procedures of this agent: a queue of environments to place, one procedure at a time, and the answers
//! to it.

use super::Lrt;
use super::procedure::{Ended, Procedure, Request};
use crate::engine::context::Context;
use crate::engine::id::{NodeName, ProcedureId, VeUid};
use crate::engine::wire::{Message, Reservation};

impl Lrt {
    /// Queues a request; an older one for the same environment is replaced.
    pub fn place(&mut self, request: Request) {
        self.waiting.retain(|other| other.ve != request.ve);
        self.waiting.push_back(request);
    }

    /// The environment no longer wants to be placed.
    pub fn withdraw(&mut self, ve: &VeUid, ctx: &mut Context) {
        self.waiting.retain(|request| request.ve != *ve);
        self.making.remove(ve);
        if self.running.as_ref().is_some_and(|procedure| procedure.request.ve == *ve)
            && let Some(procedure) = self.running.take()
        {
            procedure.dissolve(None, ctx);
        }
    }

    /// Whether a request of this environment is queued or under way.
    #[must_use]
    pub fn is_placing(&self, ve: &VeUid) -> bool {
        self.waiting.iter().any(|request| request.ve == *ve)
            || self.running.as_ref().is_some_and(|procedure| procedure.request.ve == *ve)
    }

    /// Starts the next procedure if none runs. `nearest` are the live peers, nearest first.
    pub fn start_next(&mut self, nearest: impl FnOnce() -> Vec<NodeName>, ctx: &mut Context) {
        if self.running.is_some() {
            return;
        }
        if let Some(request) = self.waiting.pop_front() {
            self.procedures += 1;
            let id = ProcedureId {
                initiator: ctx.node.clone(),
                incarnation: self.incarnation,
                number: self.procedures,
            };
            self.running = Some(Procedure::start(id, request, nearest(), self.goal, ctx));
        }
    }

    /// An answer to a reserve of a procedure of this agent (or of one that is over).
    pub fn reserved(
        &mut self,
        from: &NodeName,
        id: &ProcedureId,
        answer: Reservation,
        ctx: &mut Context,
    ) -> Option<(Request, Ended)> {
        match self.running.as_mut().filter(|procedure| procedure.id == *id) {
            Some(procedure) => {
                let ended = procedure.reserved(from, answer, ctx);
                self.end(ended, ctx)
            }
            None => {
                if matches!(answer, Reservation::Granted(_)) {
                    ctx.send(from, Message::Release { procedure: id.clone(), undo: false });
                }
                None
            }
        }
    }

    /// An answer to a prepare.
    pub fn prepared(
        &mut self,
        from: &NodeName,
        id: &ProcedureId,
        result: Result<(), String>,
        ctx: &mut Context,
    ) -> Option<(Request, Ended)> {
        let procedure = self.running.as_mut().filter(|procedure| procedure.id == *id)?;
        let ended = procedure.prepared(from, result);
        self.end(ended, ctx)
    }

    pub(super) fn end(
        &mut self,
        ended: Option<Ended>,
        ctx: &mut Context,
    ) -> Option<(Request, Ended)> {
        let ended = ended?;
        let procedure = self.running.take()?;
        procedure.dissolve(Some(&ended), ctx);
        self.make_room(&procedure, &ended, ctx);
        Some((procedure.request, ended))
    }
}
