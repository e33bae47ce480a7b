//! One node of the lease's world: the engine's `Tenant`, `Guardian` and `Fences`, what is on its disk, and the machine beside its
//! agent. What `Engine::lease`, `wake` and `settle` do around those rooms is done here as they do it.

use std::collections::BTreeMap;
use std::fmt;

use discovery::engine::context::Context;
use discovery::engine::effect::Action;
use discovery::engine::guard::{Allowance, GuardInput};
use discovery::engine::id::NodeName;
use discovery::engine::lease::Times;
use discovery::engine::lease::fence::Fences;
use discovery::engine::lease::guardian::{Guardian, Ward};
use discovery::engine::lease::message::{LeaseMessage, Said};
use discovery::engine::lease::tenant::{OwnLeases, Tenant, guardians};
use discovery::engine::record::{Kept, Record};
use discovery::engine::replica::{DiskId, Replica};
use discovery::engine::time::Instant;
use discovery::engine::wire::Message;

use super::leases::Flaw;

/// When a world begins: not at the beginning of all time.
pub const BEGAN: u64 = 100;

/// What an agent has on its disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    pub leases: Option<OwnLeases>,
    pub wards: BTreeMap<Replica, Ward>,
}

/// What the hypervisor has of the VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vm {
    Off,
    Starting,
    On,
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    pub life: u64,
    pub own: Replica,
    pub tenant: Tenant,
    pub guardian: Guardian,
    pub fences: Fences,
    pub disk: Disk,
    /// What a restart would find there.
    pub durable: Disk,
    pub machine: Machine,
}

/// What is beside the holder's agent, and outlives it.
#[derive(Clone, Debug)]
pub struct Machine {
    pub vm: Vm,
    /// The agent asked for what is starting in this life.
    pub asked: bool,
    /// The lease that the VM is bound to.
    pub bound: u64,
    pub allowance: Option<Allowance>,
    pub lapsed: bool,
    pub to_guard: Vec<Allowance>,
    pub to_agent: Vec<GuardInput>,
    /// Some start was ended by the guard, which had ended everything before.
    pub cut_short: bool,
}

#[derive(Clone, Debug)]
pub struct Letter {
    pub from: usize,
    pub to: usize,
    pub message: LeaseMessage,
}

pub fn name(node: usize) -> NodeName {
    format!("n{}", node + 1).into()
}

pub fn replica(node: usize) -> Replica {
    Replica { node: name(node), disk: DiskId(1) }
}

pub fn number_of(name: &NodeName) -> usize {
    (0..4).find(|node| self::name(*node) == *name).expect("one of ours")
}

/// One agent while it handles one event.
pub struct Agent {
    pub node: Node,
    pub ctx: Context,
    pub times: Times,
    pub flaw: Option<Flaw>,
}

impl Agent {
    /// As `Engine::lease` does it.
    pub fn lease(&mut self, from: &NodeName, message: LeaseMessage) {
        let node = &mut self.node;
        let LeaseMessage { guardian, holder, epoch, said } = &message;
        if matches!(said, Said::Renew { .. } | Said::Fence) && *guardian != node.own.disk {
            return;
        }
        let (answer, news) = match said {
            Said::Renew { life, sent, times, released, absence } if holder.node == *from => {
                let terms = ((*life, *sent), *times, *released, *absence);
                node.guardian.renew(holder, *epoch, terms, self.ctx.now)
            }
            Said::Fence => node.guardian.fence(holder, *epoch, self.ctx.now),
            Said::Renewed { .. } | Said::Dead if *holder == node.own => {
                return node.tenant.hear(from, &message, &mut self.ctx);
            }
            Said::Fenced => {
                node.fences.hear(from, &message, &mut self.ctx);
                return;
            }
            _ => return,
        };
        if let Some(ward) = news {
            self.ctx.keep(Kept::Ward(ward));
        }
        let (guardian, holder, epoch) = (node.own.disk, holder.clone(), *epoch);
        let answer = LeaseMessage { guardian, holder, epoch, said: answer };
        self.ctx.send(from, Message::Lease(Box::new(answer)));
    }

    /// As `Engine::wake` does it.
    pub fn renew(&mut self) {
        let wanted = guardians(&self.node.own, vec![replica(1), replica(2)]);
        let bound = Some(self.node.machine.bound).filter(|bound| *bound > 0);
        let starting = self.is_starting();
        self.node.tenant.wake(Some(&wanted), bound, starting, &mut self.ctx);
    }

    fn is_starting(&self) -> bool {
        let machine = &self.node.machine;
        machine.vm == Vm::Starting && machine.asked && self.flaw != Some(Flaw::HidesStarts)
    }

    pub fn guard(&mut self, input: &GuardInput) {
        let starting = self.is_starting();
        self.node.tenant.guard(input, starting, &mut self.ctx);
    }

    pub fn restart(&mut self) {
        let node = &mut self.node;
        node.disk = node.durable.clone();
        let forgets = self.flaw == Some(Flaw::Forgets);
        let wards = if forgets { Vec::new() } else { node.disk.wards.values().cloned().collect() };
        let leases = node.disk.leases.clone();
        node.life += 1;
        node.tenant = Tenant::recover(node.own.clone(), node.life, self.times, leases);
        node.guardian = Guardian::recover(wards, self.ctx.now);
        node.fences = Fences::default();
        node.machine.asked = false;
        node.machine.to_guard.clear();
        node.machine.to_agent = vec![GuardInput::Connected { watchdog: None }];
    }

    /// What every event ends with: the agent's own messages, what is to be written, and then what is said.
    pub fn done(mut self) -> (Node, Vec<Letter>) {
        // As `Engine::settle` does it.
        if !self.is_starting() {
            self.node.tenant.nothing_starts(&mut self.ctx);
        }
        let own = self.ctx.node.clone();
        while !self.ctx.loopback.is_empty() {
            for message in std::mem::take(&mut self.ctx.loopback) {
                if let Message::Lease(message) = message {
                    self.lease(&own, *message);
                }
            }
        }
        let Self { mut node, ctx, flaw, .. } = self;
        let before = node.disk.clone();
        for record in ctx.out.persist {
            let Record::Put(kept) = record else { continue };
            match *kept {
                Kept::Lease(leases) => node.disk.leases = Some(leases),
                Kept::Ward(ward) => {
                    node.disk.wards.insert(ward.holder.clone(), ward);
                }
                _ => {}
            }
        }
        let late = flaw == Some(Flaw::WritesLate) && before != node.disk;
        node.durable = if late { before } else { node.disk.clone() };
        let mut said = Vec::new();
        for action in ctx.out.actions {
            match action {
                Action::Guard(allowance) => node.machine.to_guard.push(allowance),
                Action::Send { to, message } => {
                    let Message::Lease(message) = *message else { continue };
                    // They tell how long it is worth to wait before one asks again, which is any time here.
                    if matches!(message.said, Said::Alive(_) | Said::Fencing(_)) {
                        continue;
                    }
                    let (from, to) = (number_of(&own), number_of(&to));
                    said.push(Letter { from, to, message: *message });
                }
                _ => {}
            }
        }
        (node, said)
    }
}

impl Machine {
    pub fn new() -> Self {
        Self {
            vm: Vm::Off,
            asked: false,
            bound: 0,
            allowance: None,
            lapsed: false,
            to_guard: Vec::new(),
            to_agent: vec![GuardInput::Connected { watchdog: None }],
            cut_short: false,
        }
    }

    pub fn is_over(&self, now: Instant) -> bool {
        !self.lapsed && self.allowance.as_ref().is_some_and(|allowance| allowance.is_over(now))
    }

    /// The guard ends everything.
    pub fn lapse(&mut self, at: Instant) {
        let ended = u32::from(self.vm == Vm::On);
        if self.vm == Vm::On {
            self.vm = Vm::Off;
        }
        self.lapsed = true;
        self.to_agent.push(GuardInput::Lapsed { at, ended });
    }

    /// The guard hears how long the VM may run.
    pub fn allow(&mut self, now: Instant) {
        let said = self.to_guard.remove(0);
        let allowance = Allowance::after(self.allowance.as_ref(), &said);
        let over = allowance.is_over(now);
        self.allowance = Some(allowance.clone());
        self.lapsed = false;
        if over {
            self.lapse(now);
        } else {
            self.to_agent.push(GuardInput::Armed(allowance));
        }
    }
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let LeaseMessage { epoch, said, .. } = &self.message;
        write!(f, "{}: hears {} of lease {epoch}: ", name(self.to), name(self.from))?;
        let second = |at: &Instant| at.since(Instant::ZERO).as_secs() - BEGAN;
        match said {
            Said::Renew { sent, .. } => write!(f, "I am here at {} s", second(sent)),
            Said::Renewed { sent, .. } => write!(f, "I heard that of {} s", second(sent)),
            Said::Dead => write!(f, "I have promised never to acknowledge it again"),
            Said::Fence => write!(f, "is it over?"),
            Said::Fenced => write!(f, "it is over"),
            Said::Alive(_) | Said::Away(_) | Said::Fencing(_) => write!(f, "{said:?}"),
        }
    }
}
