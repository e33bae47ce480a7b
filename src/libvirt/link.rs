//! The connection's thread: connects, tells the host and all domains, passes on what happens to them,
//! looks at everything once in a while, and begins anew when the connection breaks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::error::{Error, ErrorNumber};

use super::core::{Core, Session};
use super::domain::DomainType;
use super::error::LibvirtError;
use super::events;
use super::host;
use super::inbox::Note;
use super::probe;
use super::sighting::{Look, look};
use crate::engine::host::HostInfo;
use crate::engine::input::HypervisorInput;

/// First pause after a failed connection, doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(200);
/// Longest pause: a libvirtd that comes back is noticed within this.
const RETRY_MOST: Duration = Duration::from_secs(5);
/// A pass that failed is repeated sooner than the next regular one.
const PASS_AGAIN: Duration = Duration::from_secs(5);
/// Seconds between keep-alive messages, and how many may be lost: a hung daemon is noticed in 20 s.
const KEEP_ALIVE: (i32, u32) = (5, 3);
/// The probe lasts a second where KVM works, and up to three tries where it does not.
const PROBE_LIMIT: Duration = Duration::from_secs(60);

/// Runs until the owner is gone.
pub fn run(core: &Arc<Core>) {
    let mut generation = 0;
    let mut pause = RETRY_FIRST;
    let mut told_away = false;
    let mut kind = core.test.then_some(DomainType::Test);
    while !core.inbox.ended() {
        generation += 1;
        match connect(core, generation, &mut kind) {
            Ok((session, host)) => {
                pause = RETRY_FIRST;
                told_away = false;
                tracing::info!(uri = core.config.uri, hypervisor = host.hypervisor, "connected");
                core.connected(session.clone());
                core.report(HypervisorInput::Available(true));
                core.report(HypervisorInput::Host(host));
                let reason = serve(core, &session);
                drop(session);
                core.disconnected();
                tracing::warn!(
                    uri = core.config.uri,
                    reason,
                    "the hypervisor's connection is gone"
                );
            }
            Err(error) if !told_away => {
                tracing::warn!(uri = core.config.uri, %error, "no hypervisor; trying again");
            }
            Err(error) => tracing::debug!(%error, "still no hypervisor"),
        }
        if core.inbox.ended() {
            return;
        }
        if !told_away {
            told_away = true;
            core.report(HypervisorInput::Available(false));
        }
        let _ = core.inbox.next(u64::MAX, pause);
        pause = (pause * 2).min(RETRY_MOST);
    }
}

/// Opens a connection with events, and asks for the host.
fn connect(
    core: &Core,
    generation: u64,
    kind: &mut Option<DomainType>,
) -> Result<(Arc<Session>, HostInfo), LibvirtError> {
    let config = &core.config;
    let away = |_| LibvirtError::Away;
    let (uri, inbox) = (config.uri.clone(), core.inbox.clone());
    // Made into a session inside of the call: should it come too late, it is closed where it is dropped.
    let opened = core.calls.run(config.call_timeout, move || {
        let mut connect = Connect::open(Some(&uri))?;
        // Before events: a daemon that hangs must be noticed. The test driver has none.
        let _ = connect.set_keep_alive(KEEP_ALIVE.0, KEEP_ALIVE.1);
        match events::watch(&connect, &inbox, generation) {
            Ok(watch) => Ok(Session::new(connect, generation, DomainType::Qemu, watch)),
            Err(error) => {
                let _ = connect.close();
                Err(error)
            }
        }
    });
    let open = |source| LibvirtError::api("be connected to", source);
    let mut session = opened.map_err(away)?.map_err(open)?;
    session.kind = match *kind {
        Some(known) => known,
        None => {
            let (session, state) = (session.connect.clone(), config.state_dir.clone());
            let probed = core.calls.run(PROBE_LIMIT, move || {
                let mut connect = session;
                let found = probe::domain_type(&connect, &state);
                let _ = connect.close();
                found
            });
            *kind.insert(probed.unwrap_or_else(|error| {
                tracing::warn!(%error, "the probe for KVM hangs; guests are emulated");
                DomainType::Qemu
            }))
        }
    };
    let session = Arc::new(session);
    let (found, state) = (session.kind.acceleration(), config.state_dir.clone());
    let host =
        core.call(&session, "tell its host", move |connect| host::host(connect, found, &state))?;
    Ok((session, host))
}

/// Passes on what happens until the connection is gone; tells why.
fn serve(core: &Core, session: &Arc<Session>) -> String {
    let mut next_pass = Instant::now();
    loop {
        let left = next_pass.saturating_duration_since(Instant::now());
        if left.is_zero() {
            next_pass = Instant::now()
                + match full_pass(core, session) {
                    Ok(()) => core.config.full_pass_every,
                    Err(error) if error.breaks_connection() => return error.to_string(),
                    Err(error) => {
                        tracing::warn!(%error, "a full pass failed; trying again");
                        PASS_AGAIN
                    }
                };
            continue;
        }
        match core.inbox.next(session.generation, left) {
            Note::Quiet => {}
            Note::Ended => return "the agent ends".to_owned(),
            Note::Lost(reason) => return reason,
            Note::Domains(uuids) => {
                for uuid in uuids {
                    match domain_changed(core, session, &uuid) {
                        Ok(()) => {}
                        Err(error) if error.breaks_connection() => return error.to_string(),
                        Err(error) => {
                            tracing::warn!(%error, uuid, "cannot look at a changed domain");
                            next_pass = next_pass.min(Instant::now() + PASS_AGAIN);
                        }
                    }
                }
            }
        }
    }
}

/// Reports every domain of ours, or nothing: half a pass would tell the engine that VMs are gone.
fn full_pass(core: &Core, session: &Arc<Session>) -> Result<(), LibvirtError> {
    let mut door = core.door();
    let domains = core.call(session, "list its domains", |connect| connect.list_all_domains(0))?;
    let mut all = Vec::new();
    for domain in domains {
        let found = core.call(session, "look at a domain", move |_| settle(look(&domain)))?;
        if let Look::Ours(sighting) = &found
            && core.moves.hides(sighting)
        {
            continue;
        }
        if let Look::Ours(sighting) = door.complete(&core.inbox, found) {
            all.push(sighting.seen);
        }
    }
    // One that leaves stands still for a moment, or is gone before its command has ended: that end tells.
    let leaving = core.moves.leaving();
    all.retain(|seen| !leaving.iter().any(|other| other.id == seen.id));
    all.extend(leaving);
    door.known = all.iter().map(|seen| (seen.uuid.clone(), seen.id.clone())).collect();
    all.sort_by(|a, b| a.id.cmp(&b.id));
    core.report(HypervisorInput::Domains(all));
    Ok(())
}

/// A domain may go while it is looked at.
fn settle(look: Result<Look, Error>) -> Result<Look, Error> {
    match look {
        Err(error) if error.code() == ErrorNumber::NoDomain => Ok(Look::Absent),
        other => other,
    }
}

fn domain_changed(core: &Core, session: &Arc<Session>, uuid: &str) -> Result<(), LibvirtError> {
    let mut door = core.door();
    if door.known.get(uuid).is_some_and(|id| door.busy.contains(id)) {
        return Ok(());
    }
    let found = core.look_at_uuid(session, uuid.to_owned())?;
    if let Look::Ours(sighting) = &found
        && core.moves.hides(sighting)
    {
        return Ok(());
    }
    match door.complete(&core.inbox, found) {
        Look::Ours(sighting) if door.busy.contains(&sighting.seen.id) => {}
        Look::Ours(sighting) => core.report(HypervisorInput::Domain(sighting.seen)),
        Look::Absent => {
            if let Some(id) = door.forget(&core.inbox, uuid) {
                core.report(HypervisorInput::DomainGone(id));
            }
        }
        // One of ours that lost its metadata is no longer ours.
        Look::Foreign(name) => {
            if let Some(id) = door.forget(&core.inbox, uuid) {
                tracing::warn!(domain = name, vm = %id, "somebody removed our metadata");
                core.report(HypervisorInput::DomainGone(id));
            }
        }
    }
    Ok(())
}
