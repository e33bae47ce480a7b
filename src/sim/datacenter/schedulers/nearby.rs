//! DISCOVERY on several sites: what a peer of another site says counts only when nobody of one's own site helps.
//!
//! ```text
//!   word of a near peer ───────────────────────────────────────> discovery.rs
//!   word of a far peer ──> kept back ──(overloaded, and no near peer will do)──> discovery.rs
//! ```
//!
//! A move between sites is as good for the load as one within a site, but not for the network between them: DVMS-LBO
//! (Euro-Par 2014) makes no such move while there is a nearer one. The engine's policy knows no distances yet; so far
//! peers are shown to it as full until they are needed. (What it wants to have is a price: a move to a farther peer must save
//! more.) On one site nothing is far.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::scheduler::{Actor, Desk, Happening, Scheduler};
use super::discovery::Discovery;
use super::looks::{LOOK, Looks};
use crate::engine::lrt::relief::protocol::{Message, Part, Summary};

/// All agents, and what each has heard of far peers.
#[derive(Debug)]
pub struct Nearby {
    inner: Discovery,
    looks: Looks,
    far: BTreeMap<u32, BTreeMap<u32, Heard>>,
}

/// The last word of a far peer.
#[derive(Clone, Copy, Debug)]
struct Heard {
    summary: Summary,
    /// The agent knows it.
    shown: bool,
}

impl Nearby {
    /// These agents, as yet without a word from afar, that look at their VMs so often.
    #[must_use]
    pub fn new(inner: Discovery, look_every: Duration) -> Self {
        Self { inner, looks: Looks::new(look_every), far: BTreeMap::new() }
    }

    /// Notes a word from afar. Returns whether the agent is not to hear it yet.
    fn keeps_back(&mut self, me: u32, from: u32, message: &Message) -> bool {
        let (summary, answer) = match message {
            Message::Tell(summary) => (*summary, false),
            Message::Granted { summary, .. } | Message::Refused { summary, .. } => (*summary, true),
            _ => return false,
        };
        let of_me = self.far.entry(me).or_default();
        let heard = of_me.entry(from).or_insert(Heard { summary, shown: false });
        // Who was asked is known.
        *heard = Heard { summary, shown: heard.shown || answer };
        !heard.shown
    }

    /// For the statistics: it has something to decide while it asks, and while it is overloaded and sends nothing.
    fn note_waiting(&self, me: u32, desk: &mut Desk<'_, Message>) {
        let part = self.inner.part(me);
        if desk.here().is_overloaded() || matches!(part, Some(Part::Asking { .. })) {
            desk.detected(me);
        } else {
            desk.calm(me);
        }
        if matches!(part, Some(Part::Sending { .. })) {
            desk.calm(me);
        }
    }

    /// Shows the agent its far peers, or hides them again; the least loaded first, for it may ask the first that will do.
    fn show(&mut self, me: u32, needed: bool, desk: &mut Desk<'_, Message>) {
        let Some(of_me) = self.far.get_mut(&me) else { return };
        let mut words: Vec<(u32, Summary)> = Vec::new();
        for (from, heard) in of_me.iter_mut().filter(|(_, heard)| heard.shown != needed) {
            heard.shown = needed;
            words.push((*from, heard.summary));
        }
        words.sort_by(|(_, a), (_, b)| a.outline.load.total_cmp(&b.outline.load));
        for (from, summary) in words {
            let full = Summary { free_mib: 0, busy: true, ..summary };
            let message = Message::Tell(if needed { summary } else { full });
            let word = Happening::Message { from: Actor::Node(from), message };
            self.inner.handle(Actor::Node(me), word, desk);
        }
    }
}

impl Scheduler for Nearby {
    type Message = Message;

    fn handle(&mut self, at: Actor, happening: Happening<Message>, desk: &mut Desk<'_, Message>) {
        let Actor::Node(me) = at else { return };
        let back = match &happening {
            Happening::Message { from: Actor::Node(from), message } => {
                desk.sites().are_apart(me, *from) && self.keeps_back(me, *from, message)
            }
            _ => false,
        };
        if happening == Happening::Returned {
            self.far.remove(&me);
            self.looks.look(me);
        }
        match happening {
            _ if back => {}
            Happening::LoadChanged { vm } if self.looks.puts_off(me, vm, desk) => {}
            Happening::Timer(LOOK) => {
                for vm in self.looks.look(me) {
                    self.inner.handle(at, Happening::LoadChanged { vm }, desk);
                }
            }
            happening => self.inner.handle(at, happening, desk),
        }
        if self.looks.has_unseen(me) {
            return;
        }
        if self.far.contains_key(&me) {
            let needed = desk.here().is_overloaded() && self.inner.part(me).is_none();
            self.show(me, needed, desk);
        }
        self.note_waiting(me, desk);
    }
}
