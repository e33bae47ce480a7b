//! What VMs ask of this node as to who else may be here ([`Terms`]): the node itself sees to that, whoever
//! solves, because environments do not know of each other.
//!
//! [`Terms`]: crate::engine::spec::Terms

use super::vmh::Vmh;
use crate::engine::id::VeUid;
use crate::engine::spec::{Resources, Terms, VmDefinition};

/// Whether this VM has room here: a stopped one has none, and asks for nothing.
pub fn is_held(vmh: &Vmh) -> bool {
    vmh.record.held() != Resources::default()
}

/// What is asked for this VM, as it is and as it is promised to become.
fn terms(vmh: &Vmh) -> impl Iterator<Item = Terms> {
    let promised = vmh.record.promise.as_ref().map(|promise| promise.definition.terms);
    [Some(vmh.record.definition.terms), promised].into_iter().flatten()
}

/// How many VMs of other environments are here.
pub fn others<'a>(vms: impl Iterator<Item = &'a Vmh>, ve: &VeUid) -> u32 {
    vms.filter(|vmh| is_held(vmh) && vmh.record.definition.id.ve != *ve).count() as u32
}

/// Why this environment may not come here, if somebody keeps it out.
pub fn keeps_out<'a>(mut vms: impl Iterator<Item = &'a Vmh>, ve: &VeUid) -> Option<String> {
    let host = vms.find(|vmh| {
        is_held(vmh) && vmh.record.definition.id.ve != *ve && terms(vmh).any(|terms| terms.alone)
    })?;
    Some(format!("is kept by {} for itself (lonely)", host.record.definition.ve))
}

/// Whether these VMs of one environment may come.
///
/// # Errors
/// Who is against it.
pub fn admit<'a>(
    vms: impl Iterator<Item = &'a Vmh> + Clone,
    new: &[VmDefinition],
) -> Result<(), String> {
    let Some(first) = new.first() else { return Ok(()) };
    if let Some(why) = keeps_out(vms.clone(), &first.id.ve) {
        return Err(why);
    }
    match new.iter().any(|vm| vm.terms.alone) && others(vms, &first.id.ve) > 0 {
        true => Err("is no longer free of other environments".into()),
        false => Ok(()),
    }
}

/// The most virtual processors, in thousandths, that the VMs here allow on a node with so many of its own.
pub fn limit<'a>(vms: impl Iterator<Item = &'a Vmh>, processors_milli: u64) -> Option<u64> {
    let percent =
        vms.filter(|vmh| is_held(vmh)).flat_map(terms).filter_map(|t| t.cpu_percent).min();
    percent.map(|percent| processors_milli.saturating_mul(percent.into()) / 100)
}
