//! The loop that owns the engine.
//!
//! ```text
//!   wait for an input, peer news, or the time the engine asked for
//!     -> hand everything that is ready to the engine, at most BATCH of them
//!     -> one durable write of all records           (nothing has left this agent yet)
//!     -> then the actions, in order
//! ```
//!
//! A promise that is sent before it is on disk is a lost VM, so nothing overtakes the write. While the
//! disk takes nothing, the loop stands here: no input is read, nothing is sent, and the pages say why.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::beliefs::Beliefs;
use super::clock;
use super::journal::{Change, Journal, JournalError, RETRY, Recovered, Written};
use super::ports::{
    Cluster, Guard, Hypervisor, PeerIdentity, PeerNews, Peers, PowerSwitch, Stranger,
};
use super::snapshot::Board;
use crate::engine::effect::{Action, ClusterAction, Effects};
use crate::engine::id::NodeName;
use crate::engine::input::Input;
use crate::engine::lease::Times;
use crate::engine::lrt::solver::Goal;
use crate::engine::lrt::transit::MigrationLimits;
use crate::engine::report::{About, Happening};
use crate::engine::time::Instant;
use crate::engine::{Config, Engine};

/// Inputs that share one write. A disk syncs in milliseconds, the engine handles an input in microseconds:
/// a burst of applies costs a few syncs, not hundreds; and no input waits for more than these before it.
const BATCH: usize = 128;

/// The loop goes round at least this often, to show that it is alive.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// The pages are at most this much older than the engine.
const SNAPSHOT_EVERY: Duration = Duration::from_millis(250);

/// How long the agent stays for peers and guard to agree to its absence when it is told to end. They need a round trip.
const AGREE_WITHIN: Duration = Duration::from_secs(2);

/// An engine that asks for a time that has passed, again and again, would spin: not faster than this.
const SHORTEST_SLEEP: Duration = Duration::from_millis(1);

/// A full disk is logged this often while it lasts, in tries ([`RETRY`] apart: twenty seconds).
const LOG_EVERY: u64 = 40;

/// The world, behind its ports.
pub struct Ports {
    /// Runs guests.
    pub hypervisor: Arc<dyn Hypervisor>,
    /// Carries messages.
    pub peers: Arc<dyn Peers>,
    /// Tells people.
    pub cluster: Arc<dyn Cluster>,
    /// Ends this node's VMs when their time is over, whatever becomes of this agent.
    pub guard: Arc<dyn Guard>,
    /// Switches peers' machines off, where something can.
    pub power: Option<Arc<dyn PowerSwitch>>,
}

/// What the rims put things into, seen from this end.
pub struct Mailboxes {
    /// For the engine.
    pub inputs: mpsc::Receiver<Input>,
    /// Peers to pin and to revoke.
    pub peer_news: mpsc::Receiver<PeerNews>,
    /// Keys that nobody has pinned.
    pub strangers: mpsc::Receiver<Stranger>,
}

/// Who the agent is.
#[derive(Clone, Debug)]
pub struct DriverConfig {
    /// Its node.
    pub node: NodeName,
    /// Feeds the engine's generator: chosen anew at each start.
    pub seed: u64,
    /// Seconds of overload that a migration must save; without, overloads are left alone.
    pub threshold_s: Option<f64>,
    /// Version and commit, for people.
    pub version: String,
    /// What this cluster wants of its placements.
    pub goal: Goal,
    /// This node's VMs may be taken over when it is lost.
    pub failover: bool,
    /// The times that this node's leases are made of.
    pub times: Times,
    /// For how long its node's VMs run on when this agent ends in order, and no other has come.
    pub absence: Duration,
    /// What live migrations may take of its node.
    pub limits: MigrationLimits,
    /// How many agents keep each environment's record: 3 or 5.
    pub replicas: usize,
}

/// One agent's driver. Dropping it, at any point, loses nothing that was promised.
pub struct Driver {
    config: DriverConfig,
    engine: Engine,
    journal: Journal,
    ports: Ports,
    mailboxes: Mailboxes,
    board: Board,
    beliefs: Beliefs,
    pinned: BTreeMap<NodeName, PeerIdentity>,
    /// The first effects, of recovery.
    first: Option<Effects>,
    posted: Option<Instant>,
}

/// What is done once a batch is on disk.
enum Step {
    Act(Action),
    Pin(PeerIdentity),
    Revoke(NodeName),
}

/// What a batch of inputs led to.
#[derive(Default)]
struct Batch {
    changes: Vec<Change>,
    steps: Vec<Step>,
    inputs: usize,
}

impl Driver {
    /// A driver that goes on where the journal ends. Nothing is sent before [`Driver::run`].
    #[must_use]
    pub fn new(
        config: DriverConfig,
        (journal, recovered): (Journal, Recovered),
        ports: Ports,
        mailboxes: Mailboxes,
        board: Board,
    ) -> Self {
        let (node, seed, threshold_s) = (config.node.clone(), config.seed, config.threshold_s);
        let (goal, limits) = (config.goal, config.limits);
        let (times, failover, replicas) = (config.times, config.failover, config.replicas);
        let can_switch_off = ports.power.is_some();
        let made = Config {
            node,
            seed,
            threshold_s,
            goal,
            failover,
            times,
            limits,
            replicas,
            can_switch_off,
        };
        let (engine, first) = Engine::recover(made, recovered.kept, clock::now());
        let peers = recovered.peers.into_iter().filter(|peer| peer.node != config.node);
        let pinned = peers.map(|peer| (peer.node.clone(), peer)).collect();
        Self {
            config,
            engine,
            journal,
            ports,
            mailboxes,
            board,
            beliefs: Beliefs::default(),
            pinned,
            first: Some(first),
            posted: None,
        }
    }

    /// Goes round until `shutdown` is done, and then until peers and guard have agreed to this agent's absence, if they do
    /// soon. A batch that is not on disk by then is not acted on: it is as if the agent had ended before it. Guests are not
    /// touched.
    ///
    /// # Errors
    /// When the journal cannot go on: see [`JournalError`] for what people must do.
    pub async fn run(mut self, shutdown: impl Future<Output = ()>) -> Result<(), JournalError> {
        tokio::pin!(shutdown);
        tokio::select! {
            biased;
            result = self.begin() => result?,
            () = &mut shutdown => return Ok(()),
        }
        let mut goes_at = None;
        loop {
            self.board.beat();
            let mut batch = Batch::default();
            if goes_at.is_some_and(|at| at <= clock::now() || self.engine.may_go()) {
                self.say_goodbye();
                return Ok(());
            }
            let sleep = self.sleep();
            tokio::select! {
                biased;
                () = &mut shutdown, if goes_at.is_none() => {
                    goes_at = Some(clock::now() + AGREE_WITHIN);
                    self.handle(Input::GoAway(self.config.absence), &mut batch);
                }
                Some(news) = self.mailboxes.peer_news.recv() => self.news(news, &mut batch),
                Some(stranger) = self.mailboxes.strangers.recv() => {
                    self.ports.cluster.find_peer(stranger);
                }
                Some(input) = self.mailboxes.inputs.recv() => self.handle(input, &mut batch),
                () = tokio::time::sleep(sleep) => {}
            }
            self.fill(&mut batch);
            // A write that waits for space ends at once on shutdown: nothing of it has been sent.
            tokio::select! {
                biased;
                result = self.commit(batch) => result?,
                () = &mut shutdown, if goes_at.is_none() => return Ok(()),
            }
            self.post(false);
        }
    }

    fn say_goodbye(&self) {
        let node = &self.config.node;
        if self.engine.may_go() {
            tracing::info!(%node, "peers and guard agree to this agent's absence");
        } else {
            tracing::warn!(
                %node,
                "peers or guard have not agreed to this agent's absence: if none follows within the lease, VMs here are ended"
            );
        }
    }

    /// Recovery's effects, and the peers that were pinned.
    async fn begin(&mut self) -> Result<(), JournalError> {
        let mut batch = Batch::default();
        let pinned: Vec<PeerIdentity> = self.pinned.values().cloned().collect();
        for peer in pinned {
            batch.steps.push(Step::Pin(peer.clone()));
            self.handle(Input::PeerKnown(peer.node), &mut batch);
        }
        if let Some(first) = self.first.take() {
            self.take(first, &mut batch);
        }
        self.commit(batch).await?;
        self.post(true);
        Ok(())
    }

    /// How long nothing needs to be done unless something happens.
    fn sleep(&self) -> Duration {
        let until = self.engine.next_wakeup().map(|at| at.since(clock::now()));
        until.unwrap_or(HEARTBEAT).clamp(SHORTEST_SLEEP, HEARTBEAT)
    }

    /// Whatever else is ready, and the engine's time if it has come.
    fn fill(&mut self, batch: &mut Batch) {
        while batch.inputs < BATCH {
            let Ok(input) = self.mailboxes.inputs.try_recv() else { break };
            self.handle(input, batch);
        }
        if self.engine.next_wakeup().is_some_and(|at| at <= clock::now()) {
            self.handle(Input::Wakeup, batch);
        }
    }

    fn handle(&mut self, input: Input, batch: &mut Batch) {
        self.beliefs.overhear_input(&input);
        batch.inputs += 1;
        let effects = self.engine.handle(clock::now(), input);
        self.take(effects, batch);
    }

    fn take(&self, effects: Effects, batch: &mut Batch) {
        let codec = self.journal.codec();
        batch.changes.extend(effects.persist.iter().map(codec.record));
        batch.steps.extend(effects.actions.into_iter().map(Step::Act));
    }

    fn news(&mut self, news: PeerNews, batch: &mut Batch) {
        let codec = self.journal.codec();
        match news {
            PeerNews::Known(peer) if peer.node == self.config.node => {}
            PeerNews::Known(peer) => {
                if self.pinned.get(&peer.node) == Some(&peer) {
                    return;
                }
                self.pinned.insert(peer.node.clone(), peer.clone());
                batch.changes.push((codec.peer)(&peer));
                let known = Input::PeerKnown(peer.node.clone());
                batch.steps.push(Step::Pin(peer));
                self.handle(known, batch);
            }
            PeerNews::Revoked(node) => {
                if self.pinned.remove(&node).is_none() {
                    return;
                }
                batch.changes.push((codec.forget_peer)(&node));
                batch.steps.push(Step::Revoke(node.clone()));
                self.handle(Input::PeerRevoked(node), batch);
            }
        }
    }

    /// Makes a batch durable, then acts on it.
    async fn commit(&mut self, batch: Batch) -> Result<(), JournalError> {
        let Batch { changes, steps, inputs } = batch;
        if inputs > 0 {
            self.beliefs.count("engine_batches", 1);
        }
        if !changes.is_empty() {
            self.persist(changes).await?;
        }
        for step in steps {
            match step {
                Step::Act(action) => self.act(action),
                Step::Pin(peer) => self.ports.peers.pin(peer),
                Step::Revoke(node) => self.ports.peers.revoke(&node),
            }
        }
        Ok(())
    }

    /// Returns when everything is on disk, however long that takes.
    async fn persist(&mut self, mut changes: Vec<Change>) -> Result<(), JournalError> {
        let began = clock::now();
        let mut failures = 0;
        loop {
            self.beliefs.count("journal_writes", 1);
            self.beliefs.count("journal_records_written", changes.len() as u64);
            let (error, unwritten) = match self.journal.write(changes).await? {
                Written::Durable => break,
                Written::NotYet { error, changes } => (error, changes),
            };
            changes = unwritten;
            self.beliefs.count("journal_write_failures", 1);
            if failures % LOG_EVERY == 0 {
                tracing::error!(
                    node = %self.config.node, %error,
                    "the journal takes nothing: this agent promises and sends nothing until it does; guests run on"
                );
            }
            failures += 1;
            self.beliefs.journal(Some(format!("journal: {error}")));
            // It stands still for a reason that no restart would mend: alive, not ready.
            self.post(true);
            tokio::time::sleep(RETRY).await;
        }
        let took = clock::now().since(began);
        self.beliefs.gauge("journal_last_write_seconds", took.as_secs_f64());
        if failures > 0 {
            self.beliefs.journal(None);
            tracing::info!(node = %self.config.node, ?took, "the journal takes writes again");
            self.post(true);
        }
        Ok(())
    }

    fn act(&mut self, action: Action) {
        self.beliefs.overhear_action(&action);
        match action {
            Action::Send { to, message } => self.ports.peers.send(&to, *message),
            Action::Hypervisor { request, command } => {
                self.ports.hypervisor.submit(request, command);
            }
            Action::Cluster(action) => {
                if let ClusterAction::Happened(happening) = &action {
                    log(&self.config.node, happening);
                }
                self.ports.cluster.submit(action);
            }
            Action::Guard(allowance) => self.ports.guard.allow(allowance),
            Action::SwitchOff { holder, epoch } => {
                if let Some(power) = &self.ports.power {
                    power.switch_off(holder, epoch);
                }
            }
        }
    }

    /// Leaves a snapshot for the pages, now or when the last one is old enough.
    fn post(&mut self, now: bool) {
        let time = clock::now();
        let recent = self.posted.is_some_and(|posted| time.since(posted) < SNAPSHOT_EVERY);
        if recent && !now {
            return;
        }
        self.posted = Some(time);
        let waiting = self.mailboxes.inputs.len();
        self.beliefs.gauge("engine_inputs_waiting", u32::try_from(waiting).map_or(0.0, f64::from));
        let view = self.engine.view();
        if let Some(left) = view.lease_left_ms {
            self.beliefs.gauge("lease_left_seconds", left as f64 / 1000.0);
        }
        let pinned: BTreeSet<NodeName> = self.pinned.keys().cloned().collect();
        self.board.post(self.beliefs.snapshot(view, &pinned, &self.config.version, time));
    }
}

/// What a person would ask about is also a line in this agent's log.
fn log(node: &NodeName, happening: &Happening) {
    let Happening { about, warning, reason, message, failover } = happening;
    match (about, warning) {
        (About::Ve { name, .. }, true) => tracing::warn!(ve = %name, %node, reason, "{message}"),
        (About::Ve { name, .. }, false) => tracing::info!(ve = %name, %node, reason, "{message}"),
        (About::ThisNode, true) => tracing::warn!(%node, reason, "{message}"),
        (About::ThisNode, false) => tracing::info!(%node, reason, "{message}"),
    }
    let steps =
        failover.iter().flat_map(|failover| failover.vms.iter().map(|vm| (failover.step, vm)));
    for (step, (vm, lost)) in steps {
        tracing::info!(target: "failover", step = step.word(), node = %lost, vm, by = %node);
    }
}
