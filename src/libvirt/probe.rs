//! Does hardware virtualisation work here? Proven by a throw-away guest, never assumed.
//!
//! Nested and cloud hosts offer `/dev/kvm` and then fail: at the start of a guest whose processor model
//! asks for too much, or at its first instruction. The guest is transient, boots 512 bytes of its own
//! and must say a word on its serial port. Processor models are tried from the richest down, each as
//! real guests will have it. libvirt destroys the guest with our connection, whatever happens to us.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use virt::connect::Connect;
use virt::domain::Domain;
use virt_sys as sys;

use super::domain::{CpuModel, DomainType};
use super::host;
use super::xml;

/// Names of probes; what is left of an earlier one is cleaned away.
const PREFIX: &str = "discovery-probe-";
/// Firmware and the boot sector take a fraction of a second under KVM.
const MUST_SPEAK: Duration = Duration::from_secs(5);
/// How often its word is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Processor models, the richest first.
const MODELS: [CpuModel; 3] =
    [CpuModel::Host, CpuModel::HostWithoutArchCapabilities, CpuModel::Default];
/// Where in the state directory the finding is kept: an agent that is upgraded need not wait again.
const REMEMBERED: &str = "acceleration";
/// What the guest says.
const WORD: u8 = b'K';

/// Finds out. Blocks for a second, at worst for some thirty: run it within a limit. `state` is a
/// directory that the hypervisor can read and write.
#[must_use]
pub fn domain_type(connect: &Connect, state: &Path) -> DomainType {
    if !offered(connect) {
        tracing::info!("libvirt offers no KVM here; guests are emulated");
        return DomainType::Qemu;
    }
    let conditions = conditions(connect);
    let file = state.join(REMEMBERED);
    if let Some(kind) = fs::read_to_string(&file).ok().and_then(|text| recall(&text, &conditions)) {
        tracing::info!(?kind, "an earlier probe since this boot found out");
        return kind;
    }
    clean(connect, state);
    let kind = probe(connect, state);
    // Only saves time: whatever becomes of it, the next probe finds out.
    if let Err(error) = fs::write(&file, format!("{conditions}\n{}\n", word_for(kind))) {
        tracing::info!(%error, "the probe's finding cannot be kept");
    }
    kind
}

fn probe(connect: &Connect, state: &Path) -> DomainType {
    for model in MODELS {
        match run(connect, state, model) {
            Ok(()) => {
                tracing::info!(?model, "a throw-away guest ran under KVM");
                return DomainType::Kvm(model);
            }
            Err(Mute::NotStarted(reason)) => {
                tracing::info!(reason, ?model, "KVM cannot start a guest with this processor");
            }
            // A poorer processor would not help.
            Err(Mute::NotRun(reason)) => {
                tracing::warn!(reason, ?model, "KVM is offered and runs nothing");
                break;
            }
        }
    }
    tracing::warn!("KVM is offered and does not work; guests are emulated");
    DomainType::Qemu
}

/// What a finding holds for: this boot, this hypervisor.
fn conditions(connect: &Connect) -> String {
    let version = connect.get_hyp_version().unwrap_or(0);
    format!("boot {} hypervisor {version}", host::boot_id())
}

fn word_for(kind: DomainType) -> &'static str {
    match kind {
        DomainType::Kvm(CpuModel::Host) => "kvm-host",
        DomainType::Kvm(CpuModel::HostWithoutArchCapabilities) => {
            "kvm-host-without-arch-capabilities"
        }
        DomainType::Kvm(CpuModel::Default) => "kvm-default",
        DomainType::Qemu | DomainType::Test => "emulation",
    }
}

fn recall(text: &str, conditions: &str) -> Option<DomainType> {
    let (held, word) = text.trim_end().split_once('\n')?;
    let kinds = MODELS.map(DomainType::Kvm).into_iter().chain([DomainType::Qemu]);
    kinds.into_iter().find(|kind| held == conditions && word_for(*kind) == word)
}

/// Why a probe's guest did not say its word.
#[derive(Debug)]
enum Mute {
    /// It was not started.
    NotStarted(String),
    /// It was, and did nothing.
    NotRun(String),
}

/// A boot sector that says its word on the first serial port, then halts for ever.
fn boot_sector() -> Vec<u8> {
    // mov dx, 0x3f8; mov al, WORD; out dx, al; cli; hlt; jmp to hlt
    let mut sector = vec![0xba, 0xf8, 0x03, 0xb0, WORD, 0xee, 0xfa, 0xf4, 0xeb, 0xfd];
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    sector
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
        capabilities.all("guest").filter_map(|guest| guest.child("arch")).any(|arch| {
            arch.attribute("name") == Some(std::env::consts::ARCH)
                && arch.all("domain").any(|domain| domain.attribute("type") == Some("kvm"))
        })
    })
}

/// Destroys probes of agents that died in the middle of one.
fn clean(connect: &Connect, state: &Path) {
    let active = connect.list_all_domains(sys::VIR_CONNECT_LIST_DOMAINS_TRANSIENT);
    for domain in active.unwrap_or_default() {
        if domain.get_name().is_ok_and(|name| name.starts_with(PREFIX)) {
            let _ = domain.destroy();
        }
    }
    for entry in fs::read_dir(state).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

fn run(connect: &Connect, state: &Path, model: CpuModel) -> Result<(), Mute> {
    let name = format!("{PREFIX}{}", std::process::id());
    let dir = state.join(&name);
    let disk = dir.join("boot.img");
    let word = dir.join("serial.log");
    let result = fs::create_dir_all(&dir)
        .and_then(|()| fs::write(&disk, boot_sector()))
        .and_then(|()| fs::write(&word, ""))
        .map_err(|error| Mute::NotStarted(format!("{}: {error}", dir.display())))
        .and_then(|()| {
            let cpu = model.xml();
            let arch = std::env::consts::ARCH;
            let document = format!(
                "<domain type='kvm'><name>{name}</name><memory unit='MiB'>32</memory>\
                 <vcpu>1</vcpu><os><type arch='{arch}'>hvm</type><boot dev='hd'/></os>\
                 <features><acpi/><apic/></features>{cpu}\
                 <on_crash>destroy</on_crash><on_reboot>destroy</on_reboot><devices>\
                 <disk type='file' device='disk'><driver name='qemu' type='raw'/>\
                 <source file='{}'/><target dev='vda' bus='virtio'/></disk>\
                 <serial type='file'><source path='{}'/></serial>\
                 <memballoon model='none'/><video><model type='none'/></video></devices></domain>",
                quick_xml::escape::escape(disk.to_string_lossy()),
                quick_xml::escape::escape(word.to_string_lossy()),
            );
            let flags = sys::VIR_DOMAIN_START_AUTODESTROY;
            let domain = Domain::create_xml(connect, &document, flags)
                .map_err(|error| Mute::NotStarted(error.message().to_owned()))?;
            let result = speaks(&domain, &word).map_err(Mute::NotRun);
            let _ = domain.destroy();
            result
        });
    let _ = fs::remove_dir_all(&dir);
    result
}

fn speaks(domain: &Domain, word: &Path) -> Result<(), String> {
    let deadline = Instant::now() + MUST_SPEAK;
    loop {
        if fs::read(word).is_ok_and(|said| said.contains(&WORD)) {
            return Ok(());
        }
        let info = domain.get_info().map_err(|_| "the probe's guest died".to_owned())?;
        if info.state != sys::VIR_DOMAIN_RUNNING {
            return Err(format!("the probe's guest is in state {}", info.state));
        }
        if !cfg!(target_arch = "x86_64") && info.cpu_time > 0 {
            // Boot sectors are x86's; elsewhere it must do with having run.
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err("the probe's guest did not run".to_owned());
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_sector_is_one() {
        let sector = boot_sector();
        assert_eq!(sector.len(), 512);
        assert!(sector.ends_with(&[0x55, 0xaa]));
    }

    #[test]
    fn a_finding_is_recalled_under_its_own_conditions_only() {
        for kind in MODELS.map(DomainType::Kvm).into_iter().chain([DomainType::Qemu]) {
            let text = format!("boot 1\n{}\n", word_for(kind));
            assert_eq!(recall(&text, "boot 1"), Some(kind));
            assert_eq!(recall(&text, "boot 2"), None);
        }
        assert_eq!(recall("boot 1\nnonsense\n", "boot 1"), None);
    }
}
