//! One look at a domain: its state, whether it is ours, and whether somebody edited it.

use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

use super::identity::Identity;
use super::projection::Projection;
use super::xml;
use crate::engine::host::{DomainSeen, DomainState, PauseCause, StopCause};
use crate::engine::spec::Resources;

/// What was found.
#[derive(Clone, Debug)]
pub enum Look {
    /// No such domain.
    Absent,
    /// A domain that comes in by a migration that has not ended. It has never run here, and its definition is not here
    /// yet; whose it is cannot be asked, because that would wait for the migration.
    Arriving,
    /// A domain without our metadata: not ours to touch. Its name.
    Foreign(String),
    /// One of ours.
    Ours(Box<Sighting>),
}

/// One of our domains.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// For the engine.
    pub seen: DomainSeen,
    /// What the guest has right now; `None` when it does not run.
    pub live: Option<Projection>,
    /// It is paused for a migration, in or out.
    pub migrating: bool,
}

/// Looks. Several calls to libvirt: run it within a limit.
///
/// # Errors
/// As libvirt says; `NoDomain` when it went meanwhile.
pub fn look(domain: &Domain) -> Result<Look, Error> {
    let (state, reason) = domain.get_state()?;
    let migrating = state == sys::VIR_DOMAIN_PAUSED
        && matches!(
            u32::try_from(reason).unwrap_or(u32::MAX),
            sys::VIR_DOMAIN_PAUSED_MIGRATION | sys::VIR_DOMAIN_PAUSED_STARTING_UP
        );
    let state = domain_state(state, reason);
    let runs = !matches!(state, DomainState::Stopped(_));
    let defined = domain.is_persistent()?;
    if migrating && !defined {
        return Ok(Look::Arriving);
    }
    let read = |flags| -> Result<_, Error> { Ok(xml::parse(&domain.get_xml_desc(flags)?).ok()) };
    let inactive = read(sys::VIR_DOMAIN_XML_INACTIVE)?;
    let live = if runs { read(0)? } else { None };

    let live_identity = live.as_ref().and_then(Identity::of_domain);
    let inactive_identity = inactive.as_ref().and_then(Identity::of_domain);
    let Some(identity) = live_identity.as_ref().or(inactive_identity.as_ref()) else {
        return Ok(Look::Foreign(domain.get_name()?));
    };
    let live = live.as_ref().and_then(Projection::of_domain);
    let as_defined = inactive.as_ref().and_then(Projection::of_domain);
    let edited = if !defined {
        Some("its definition was removed".to_owned())
    } else if inactive_identity.as_ref() != Some(identity) {
        Some("its metadata was changed".to_owned())
    } else {
        identity.edited(as_defined.as_ref()).or_else(|| {
            let live = runs.then(|| identity.edited(live.as_ref())).flatten();
            live.map(|said| format!("the running guest's {said}"))
        })
    };
    let size = live
        .as_ref()
        .or(as_defined.as_ref())
        .map(|said| Resources::of(said.cpus, said.memory_kib.saturating_mul(1024)));
    let seen = DomainSeen {
        id: identity.id.clone(),
        uuid: domain.get_uuid_string()?,
        epoch: identity.epoch,
        revision: identity.revision,
        size: size.unwrap_or_default(),
        state,
        edited,
    };
    Ok(Look::Ours(Box::new(Sighting { seen, live, migrating })))
}

/// libvirt's state and its reason, in the engine's words.
#[must_use]
pub fn domain_state(state: sys::virDomainState, reason: i32) -> DomainState {
    match state {
        sys::VIR_DOMAIN_PAUSED => DomainState::Paused(pause_cause(reason)),
        sys::VIR_DOMAIN_PMSUSPENDED => DomainState::Paused(PauseCause::Other),
        sys::VIR_DOMAIN_CRASHED => DomainState::Stopped(StopCause::Crashed),
        sys::VIR_DOMAIN_SHUTOFF => DomainState::Stopped(stop_cause(reason)),
        // NOSTATE, BLOCKED and SHUTDOWN (on its way down) have a process.
        _ => DomainState::Running,
    }
}

fn pause_cause(reason: i32) -> PauseCause {
    match u32::try_from(reason).unwrap_or(u32::MAX) {
        sys::VIR_DOMAIN_PAUSED_IOERROR => PauseCause::DiskError,
        _ => PauseCause::Other,
    }
}

fn stop_cause(reason: i32) -> StopCause {
    match u32::try_from(reason).unwrap_or(u32::MAX) {
        sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN => StopCause::Shutdown,
        // QEMU's process ended without a word (also by SIGKILL), or the guest panicked.
        sys::VIR_DOMAIN_SHUTOFF_CRASHED => StopCause::Crashed,
        sys::VIR_DOMAIN_SHUTOFF_FAILED | sys::VIR_DOMAIN_SHUTOFF_DAEMON => StopCause::Failed,
        // Somebody saved it, moved it or put it back to a snapshot: none of it was the guest's wish.
        sys::VIR_DOMAIN_SHUTOFF_DESTROYED
        | sys::VIR_DOMAIN_SHUTOFF_SAVED
        | sys::VIR_DOMAIN_SHUTOFF_MIGRATED
        | sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT => StopCause::Destroyed,
        _ => StopCause::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_qemu_paused_for_its_disk_is_told_from_others() {
        for reason in 0..=15 {
            let state = domain_state(sys::VIR_DOMAIN_PAUSED, reason);
            let disk = state == DomainState::Paused(PauseCause::DiskError);
            assert_eq!(disk, reason == sys::VIR_DOMAIN_PAUSED_IOERROR as i32, "{reason}");
        }
    }

    #[test]
    fn only_the_guests_own_power_off_is_a_shutdown() {
        for reason in 0..=8 {
            let state = domain_state(sys::VIR_DOMAIN_SHUTOFF, reason);
            let shutdown = state == DomainState::Stopped(StopCause::Shutdown);
            assert_eq!(shutdown, reason == sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN as i32, "{reason}");
        }
    }

    #[test]
    fn a_domain_on_its_way_down_still_runs() {
        assert_eq!(domain_state(sys::VIR_DOMAIN_SHUTDOWN, 0), DomainState::Running);
    }
}
