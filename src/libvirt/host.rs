//! What this machine is, as libvirt and the kernel tell.

use std::path::Path;

use virt::connect::Connect;
use virt::error::Error;

use crate::engine::host::{Acceleration, HostInfo};
use crate::engine::spec::Resources;

/// Asks libvirt for the host. Several calls: run it within a limit.
///
/// # Errors
/// As libvirt says.
pub fn host(
    connect: &Connect,
    acceleration: Acceleration,
    state: &Path,
) -> Result<HostInfo, Error> {
    let node = connect.get_node_info()?;
    let kind = connect.get_type()?;
    let hypervisor = format!(
        "{kind} {}, libvirt {}",
        version(connect.get_hyp_version()?),
        version(connect.get_lib_version()?)
    );
    Ok(HostInfo {
        capacity: Resources::of(node.cpus, node.memory.saturating_mul(1024)),
        storage: storage(state),
        acceleration,
        hypervisor,
        boot_id: boot_id(),
    })
}

/// libvirt packs versions as 1,000,000 × major + 1,000 × minor + release.
fn version(packed: u32) -> String {
    format!("{}.{}.{}", packed / 1_000_000, packed / 1000 % 1000, packed % 1000)
}

/// Bytes of the file system that holds the state; 0 when it cannot be asked.
fn storage(state: &Path) -> u64 {
    match nix::sys::statvfs::statvfs(state) {
        Ok(found) => found.blocks().saturating_mul(found.fragment_size()),
        Err(error) => {
            tracing::warn!(%error, path = %state.display(), "cannot ask for the file system's size");
            0
        }
    }
}

/// Changes at every boot of the machine; empty where the kernel does not tell.
pub fn boot_id() -> String {
    match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        Ok(id) => id.trim().to_owned(),
        Err(error) => {
            tracing::warn!(%error, "this kernel tells no boot id");
            String::new()
        }
    }
}
