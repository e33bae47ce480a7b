//! Whether a domain can move, and the documents that it moves with.

use virt::domain::Domain;
use virt_sys as sys;

use super::commands::Job;
use super::identity::{Identity, uuid_of};
use super::retitle::retitle;
use super::xml::{self, Element};
use crate::engine::effect::Migration;
use crate::engine::host::{DomainSeen, DomainState, Failure, FailureKind};

/// What the target is to make of it.
pub struct Documents {
    /// The guest as it runs, under its next placement.
    pub live: String,
    /// The definition that stays there, under its next placement.
    pub kept: String,
    /// What it is here.
    pub seen: DomainSeen,
}

/// Makes them.
///
/// # Errors
/// When the domain does not run here, or has something that cannot move.
pub fn documents(job: &Job<'_>, migration: &Migration) -> Result<Documents, Failure> {
    let not_here = |what: &str| Failure {
        kind: FailureKind::NotHere,
        message: format!("the VM {what}: there is nothing to move"),
    };
    let seen = match job.look()? {
        None => return Err(not_here("is not here")),
        Some(found) => match found.seen.state {
            DomainState::Running => found.seen,
            DomainState::Paused(_) => return Err(not_here("is paused here")),
            DomainState::Stopped(_) => return Err(not_here("does not run here")),
        },
    };
    let uuid = uuid_of(job.id);
    let (live, kept) = job.core.call(&job.session, "describe a domain", move |connect| {
        let domain = Domain::lookup_by_uuid(connect, uuid)?;
        let live =
            domain.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_MIGRATABLE)?;
        let kept =
            domain.get_xml_desc(sys::VIR_DOMAIN_XML_SECURE | sys::VIR_DOMAIN_XML_INACTIVE)?;
        Ok((live, kept))
    })?;
    let unreadable = || Failure {
        kind: FailureKind::Refused,
        message: "the domain's description cannot be read".to_owned(),
    };
    let element = xml::parse(&live).map_err(|_| unreadable())?;
    if let Some(device) = fixture(&element) {
        let message =
            format!("the VM has {device} of this host, which cannot move with it: detach it");
        return Err(Failure { kind: FailureKind::Unmovable, message });
    }
    // The revision stays that of the running guest: if another was declared meanwhile, it is told by that at the target.
    let mut identity = Identity::of_domain(&element).ok_or_else(unreadable)?;
    identity.epoch = migration.definition.epoch;
    let metadata = identity.to_xml().ok_or_else(unreadable)?;
    let titled = |document: &str| retitle(document, &metadata).ok_or_else(unreadable);
    Ok(Documents { live: titled(&live)?, kept: titled(&kept)?, seen })
}

/// A device that is part of this host, in words.
fn fixture(domain: &Element) -> Option<String> {
    let devices = domain.child("devices")?;
    devices.children.iter().find_map(|device| {
        let kind = device.attribute("type").unwrap_or_default();
        let fixed = match device.name.as_str() {
            "hostdev" | "filesystem" | "shmem" | "redirdev" => true,
            "interface" => matches!(kind, "hostdev" | "vdpa" | "direct"),
            "disk" => matches!(kind, "block" | "dir" | "nvme" | "vhostuser" | "vhostvdpa"),
            "tpm" => device.child("backend")?.attribute("type") == Some("passthrough"),
            _ => false,
        };
        fixed.then(|| match address(device) {
            Some(address) => format!("a {} ({address})", device.name),
            None => format!("a {}", device.name),
        })
    })
}

/// Where on the host a device is, as libvirt writes it.
fn address(device: &Element) -> Option<String> {
    let source = device.child("source")?;
    let at = source.child("address").unwrap_or(source);
    let parts: Vec<_> =
        at.attributes.iter().map(|(name, value)| format!("{name} {value}")).collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(devices: &str) -> Option<String> {
        let document = format!("<domain><devices>{devices}</devices></domain>");
        fixture(&xml::parse(&document).expect("well-formed"))
    }

    #[test]
    fn a_device_of_the_host_is_named() {
        let pci = "<hostdev mode='subsystem' type='pci'><source><address bus='0x03' slot='0x00'/></source></hostdev>";
        assert_eq!(found(pci).as_deref(), Some("a hostdev (bus 0x03, slot 0x00)"));
        let block = "<disk type='block'><source dev='/dev/sdb'/></disk>";
        assert_eq!(found(block).as_deref(), Some("a disk (dev /dev/sdb)"));
    }

    #[test]
    fn what_our_domains_are_made_of_can_move() {
        let ours = "<disk type='file'><source file='/x'/></disk><interface type='bridge'/><serial type='pty'/>\
                    <tpm><backend type='emulator'/></tpm>";
        assert_eq!(found(ours), None);
    }
}
