//! Does hardware virtualisation work here? Proven by a throw-away guest, never assumed.
//!
//! Nested and cloud hosts offer `/dev/kvm` and then fail at the first instruction. The guest is
//! transient, has no devices and runs its firmware; it must still run after a second and have used
//! processor time. libvirt destroys it with our connection, whatever happens to us.

use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

use super::xml;
use crate::engine::host::Acceleration;

/// Names of probes; what is left of an earlier one is cleaned away.
const PREFIX: &str = "discovery-probe-";
/// A guest that KVM cannot run fails within milliseconds; firmware runs on for seconds.
const MUST_LAST: Duration = Duration::from_secs(1);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Finds out. Blocks for a second or two: run it within a limit.
#[must_use]
pub fn acceleration(connect: &Connect) -> Acceleration {
    if !offered(connect) {
        tracing::info!("libvirt offers no KVM here; guests are emulated");
        return Acceleration::Emulation;
    }
    clean(connect);
    match run(connect) {
        Ok(()) => {
            tracing::info!("a throw-away guest ran under KVM");
            Acceleration::Kvm
        }
        Err(reason) => {
            tracing::warn!(reason, "KVM is offered and does not work; guests are emulated");
            Acceleration::Emulation
        }
    }
}

fn offered(connect: &Connect) -> bool {
    let capabilities = match connect.get_capabilities() {
        Ok(text) => xml::parse(&text).ok(),
        Err(error) => {
            tracing::warn!(%error, "libvirt tells no capabilities");
            None
        }
    };
    capabilities.is_some_and(|capabilities| {
        capabilities
            .all("guest")
            .filter_map(|guest| guest.child("arch"))
            .any(|arch| {
                arch.attribute("name") == Some(std::env::consts::ARCH)
                    && arch.all("domain").any(|domain| domain.attribute("type") == Some("kvm"))
            })
    })
}

/// Destroys probes of agents that died in the middle of one.
fn clean(connect: &Connect) {
    let active = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT);
    for domain in active.unwrap_or_default() {
        if domain.get_name().is_ok_and(|name| name.starts_with(PREFIX)) {
            let _ = domain.destroy();
        }
    }
}

fn run(connect: &Connect) -> Result<(), String> {
    let name = format!("{PREFIX}{}", std::process::id());
    let document = format!(
        "<domain type='kvm'><name>{name}</name><memory unit='MiB'>32</memory><vcpu>1</vcpu>\
         <os><type arch='{}'>hvm</type></os><on_crash>destroy</on_crash><on_reboot>destroy</on_reboot>\
         <devices><memballoon model='none'/><video><model type='none'/></video></devices></domain>",
        std::env::consts::ARCH
    );
    let said = |error: virt::error::Error| error.message().to_owned();
    let domain =
        Domain::create_xml(connect, &document, sys::VIR_DOMAIN_START_AUTODESTROY).map_err(said)?;
    let result = lasts(&domain);
    let _ = domain.destroy();
    result
}

fn lasts(domain: &Domain) -> Result<(), String> {
    let started = Instant::now();
    loop {
        let info = domain.get_info().map_err(|_| "the probe's guest died".to_owned())?;
        if info.state != sys::VIR_DOMAIN_RUNNING {
            return Err(format!("the probe's guest is in state {}", info.state));
        }
        if started.elapsed() >= MUST_LAST {
            let used = info.cpu_time > 0;
            return used.then_some(()).ok_or_else(|| "the probe's guest never ran".to_owned());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
