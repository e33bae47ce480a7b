//! libvirt's event loop and callbacks: unsafe code, of which only `raw.rs` has more.
//!
//! The `virt` crate wraps neither domain events nor the close callback. What is here is small: libvirt
//! calls back on the event loop's thread, and each callback does nothing but put a note into an
//! [`Inbox`]; no Rust panic can cross into C, no libvirt call is made from a callback.
#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Arc, OnceLock};
use std::{mem, ptr};

use virt::connect::Connect;
use virt::error::Error;
use virt_sys as sys;

use super::inbox::{DomainEvent, Inbox};

/// Something wrong with the loop's start; told to everyone who asks afterwards.
static LOOP: OnceLock<Result<(), Error>> = OnceLock::new();

/// Registers libvirt's default event loop and runs it on a thread of its own, once per process. To be
/// called before any connection is opened, or that connection has no events and no keep-alive.
///
/// # Errors
/// When libvirt or the system refuses; the same error at each call.
pub fn start_loop() -> Result<(), Error> {
    LOOP.get_or_init(|| {
        virt::error::clear_error_callback();
        // SAFETY: no arguments; called once (OnceLock), before any connection.
        if unsafe { sys::virEventRegisterDefaultImpl() } < 0 {
            return Err(Error::last_error());
        }
        std::thread::Builder::new()
            .name("libvirt-events".into())
            .spawn(|| {
                loop {
                    // SAFETY: the default implementation is registered, and this is the only thread
                    // that runs it.
                    if unsafe { sys::virEventRunDefaultImpl() } < 0 {
                        tracing::warn!(error = %Error::last_error(), "libvirt's event loop failed once");
                        std::thread::sleep(std::time::Duration::from_millis(100));
                    }
                }
            })
            .map(|_| ())
            .map_err(|_| Error::last_error())
    })
    .clone()
}

/// What the callbacks are handed: where to put notes, and of which connection they are.
struct Context {
    inbox: Arc<Inbox>,
    generation: u64,
}

/// Callbacks registered on one connection.
#[derive(Debug)]
pub struct Watch {
    lifecycle: c_int,
    close: bool,
}

/// Asks for lifecycle events and the end of the connection. Drivers without a daemon (`test:`) have no
/// end of connection: that part is left out then.
///
/// # Errors
/// When libvirt refuses lifecycle events.
pub fn watch(connect: &Connect, inbox: &Arc<Inbox>, generation: u64) -> Result<Watch, Error> {
    let context = |inbox: &Arc<Inbox>| {
        Box::into_raw(Box::new(Context { inbox: inbox.clone(), generation })).cast::<c_void>()
    };
    // SAFETY: virConnectDomainEventRegisterAny takes the callback of the event asked for behind a
    // generic type; for VIR_DOMAIN_EVENT_ID_LIFECYCLE that is virConnectDomainEventCallback, which is
    // what `lifecycle` is. Both are plain function pointers of the same size.
    let callback: sys::virConnectDomainEventGenericCallback = unsafe {
        mem::transmute::<
            unsafe extern "C" fn(
                sys::virConnectPtr,
                sys::virDomainPtr,
                c_int,
                c_int,
                *mut c_void,
            ) -> c_int,
            sys::virConnectDomainEventGenericCallback,
        >(lifecycle)
    };
    let opaque = context(inbox);
    // SAFETY: the connection is open (borrowed); `opaque` is a Context that libvirt frees by `free`,
    // exactly once, after the last callback.
    let lifecycle = unsafe {
        sys::virConnectDomainEventRegisterAny(
            connect.as_ptr(),
            ptr::null_mut(),
            sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE as c_int,
            callback,
            opaque,
            Some(free),
        )
    };
    if lifecycle < 0 {
        let error = Error::last_error();
        // SAFETY: libvirt does not take the context when it refuses.
        unsafe { free(opaque) };
        return Err(error);
    }
    let opaque = context(inbox);
    // SAFETY: as above.
    let close = unsafe {
        sys::virConnectRegisterCloseCallback(connect.as_ptr(), Some(closed), opaque, Some(free))
    };
    if close < 0 {
        // SAFETY: libvirt does not take the context when it refuses.
        unsafe { free(opaque) };
    }
    Ok(Watch { lifecycle, close: close >= 0 })
}

/// Takes the callbacks back: they hold the connection open otherwise.
pub fn unwatch(connect: &Connect, watch: &Watch) {
    // SAFETY: the connection is open (borrowed), and the callbacks were registered on it.
    unsafe {
        sys::virConnectDomainEventDeregisterAny(connect.as_ptr(), watch.lifecycle);
        if watch.close {
            sys::virConnectUnregisterCloseCallback(connect.as_ptr(), Some(closed));
        }
    }
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    let mut uuid = [0 as c_char; sys::VIR_UUID_STRING_BUFLEN as usize];
    // SAFETY: libvirt hands a live domain and our own context; the buffer has the size it asks for and
    // is terminated by it.
    unsafe {
        if sys::virDomainGetUUIDString(domain, uuid.as_mut_ptr()) == 0 {
            let uuid = CStr::from_ptr(uuid.as_ptr()).to_string_lossy().into_owned();
            let context = &*opaque.cast::<Context>();
            context.inbox.domain(uuid, DomainEvent { event, detail });
        }
    }
    0
}

unsafe extern "C" fn closed(_: sys::virConnectPtr, reason: c_int, opaque: *mut c_void) {
    // SAFETY: our own context.
    let context = unsafe { &*opaque.cast::<Context>() };
    context.inbox.lost(context.generation, close_reason(reason));
}

fn close_reason(reason: c_int) -> &'static str {
    match u32::try_from(reason) {
        Ok(sys::VIR_CONNECT_CLOSE_REASON_EOF) => "the hypervisor's daemon closed it",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_KEEPALIVE) => "the hypervisor's daemon does not answer",
        Ok(sys::VIR_CONNECT_CLOSE_REASON_CLIENT) => "closed by this agent",
        _ => "an error on its socket",
    }
}

unsafe extern "C" fn free(opaque: *mut c_void) {
    // SAFETY: made by Box::into_raw in `watch`, freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<Context>()) });
}
