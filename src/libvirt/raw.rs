//! Calls that the `virt` crate lacks, or wraps in a way that cannot be used: job statistics (its wrapper makes a vector of
//! libvirt's memory, of a null pointer when there is nothing to tell), their abortion, and statistics of all domains.
//!
//! Small and unsafe, as `events.rs`: libvirt's typed parameters become a map and are freed before anything else happens.
#![allow(unsafe_code)]

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::ptr;

use virt::connect::Connect;
use virt::domain::Domain;
use virt::error::Error;
use virt_sys as sys;

/// Numbers by libvirt's names for them; texts and fractions are left out.
pub type Numbers = BTreeMap<String, u64>;

/// Asks for a domain's job: the one under way, or the last one that was completed (which is kept, for others to ask).
/// Empty if there is none.
///
/// # Errors
/// As libvirt says.
pub fn job_stats(domain: &Domain, completed: bool) -> Result<Numbers, Error> {
    let mut kind: c_int = 0;
    let mut params: sys::virTypedParameterPtr = ptr::null_mut();
    let mut count: c_int = 0;
    let flags = if completed {
        sys::VIR_DOMAIN_JOB_STATS_COMPLETED | sys::VIR_DOMAIN_JOB_STATS_KEEP_COMPLETED
    } else {
        0
    };
    // SAFETY: the domain is alive (borrowed); libvirt fills the three places, and the parameters are ours to free.
    let result = unsafe {
        sys::virDomainGetJobStats(
            domain.as_ptr(),
            &raw mut kind,
            &raw mut params,
            &raw mut count,
            flags as c_uint,
        )
    };
    if result < 0 {
        return Err(Error::last_error());
    }
    // SAFETY: as libvirt has just filled them.
    let numbers = unsafe { numbers(params, count) };
    // SAFETY: libvirt's own, freed once; null is fine.
    unsafe { sys::virTypedParamsFree(params, count) };
    Ok(numbers)
}

/// Aborts the job of a domain that is under way.
///
/// # Errors
/// As libvirt says; also when there is none.
pub fn abort_job(domain: &Domain) -> Result<(), Error> {
    // SAFETY: the domain is alive (borrowed).
    if unsafe { sys::virDomainAbortJob(domain.as_ptr()) } < 0 {
        return Err(Error::last_error());
    }
    Ok(())
}

/// What every running domain has used, by its uuid. Domains that are busy with something else tell less.
///
/// # Errors
/// As libvirt says.
pub fn running_stats(connect: &Connect) -> Result<BTreeMap<String, Numbers>, Error> {
    let wanted = sys::VIR_DOMAIN_STATS_CPU_TOTAL
        | sys::VIR_DOMAIN_STATS_BALLOON
        | sys::VIR_DOMAIN_STATS_VCPU;
    let flags = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_RUNNING
        | sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;
    let mut records: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
    // SAFETY: the connection is open (borrowed); libvirt fills the place with a list that is ours to free.
    let count = unsafe {
        sys::virConnectGetAllDomainStats(connect.as_ptr(), wanted, &raw mut records, flags)
    };
    if count < 0 {
        return Err(Error::last_error());
    }
    let mut all = BTreeMap::new();
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the list has `count` records, each with a live domain and its parameters.
        unsafe {
            let record = &**records.add(at);
            let mut uuid = [0 as c_char; sys::VIR_UUID_STRING_BUFLEN as usize];
            if sys::virDomainGetUUIDString(record.dom, uuid.as_mut_ptr()) == 0 {
                let uuid = CStr::from_ptr(uuid.as_ptr()).to_string_lossy().into_owned();
                all.insert(uuid, numbers(record.params, record.nparams));
            }
        }
    }
    if !records.is_null() {
        // SAFETY: libvirt's own list, freed once.
        unsafe { sys::virDomainStatsRecordListFree(records) };
    }
    Ok(all)
}

/// Reads typed parameters.
///
/// # Safety
/// `params` points at `count` parameters as libvirt makes them, or `count` is 0.
unsafe fn numbers(params: sys::virTypedParameterPtr, count: c_int) -> Numbers {
    let mut numbers = Numbers::new();
    for at in 0..usize::try_from(count).unwrap_or(0) {
        // SAFETY: the caller's word; the name is terminated, and the type says which part of the value holds.
        unsafe {
            let param = &*params.add(at);
            let value = match u32::try_from(param.type_).unwrap_or(0) {
                sys::VIR_TYPED_PARAM_INT => u64::try_from(param.value.i).ok(),
                sys::VIR_TYPED_PARAM_UINT => Some(u64::from(param.value.ui)),
                sys::VIR_TYPED_PARAM_LLONG => u64::try_from(param.value.l).ok(),
                sys::VIR_TYPED_PARAM_ULLONG => Some(param.value.ul),
                _ => None,
            };
            if let Some(value) = value {
                let name = CStr::from_ptr(param.field.as_ptr()).to_string_lossy().into_owned();
                numbers.insert(name, value);
            }
        }
    }
    numbers
}
