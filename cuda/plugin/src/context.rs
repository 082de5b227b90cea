//! The context that everything is in: the host's, where it has one current for the device, or
//! else the device's primary one. It is current within a call and never after: the host's
//! own stays as it was.

use crate::driver::{Failure, call};
use cust::sys::{CUcontext, CUdevice};
use std::ptr::null_mut;

/// A context, held as long as anything in it.
pub struct Context {
    raw: CUcontext,
    device: CUdevice,
    /// The primary one has to be released.
    is_retained: bool,
}

// SAFETY: a context may be current in any thread; the table says that one uses it at a time.
unsafe impl Send for Context {}
// SAFETY: as above.
unsafe impl Sync for Context {}

impl Context {
    /// Of a device.
    pub fn of(device: CUdevice) -> Result<Self, Failure> {
        let mut raw = null_mut();
        call!(cuCtxGetCurrent(&mut raw))?;
        if !raw.is_null() {
            let mut of = 0;
            call!(cuCtxGetDevice(&mut of))?;
            if of == device {
                return Ok(Self { raw, device, is_retained: false });
            }
        }
        call!(cuDevicePrimaryCtxRetain(&mut raw, device))?;
        Ok(Self { raw, device, is_retained: true })
    }

    /// Its handle, to compare.
    pub fn raw(&self) -> CUcontext {
        self.raw
    }

    /// Makes it current until the answer is dropped.
    pub fn enter(&self) -> Result<Entered<'_>, Failure> {
        call!(cuCtxPushCurrent_v2(self.raw))?;
        Ok(Entered(self))
    }

    /// Destroys something in it. What fails, fails for good: nobody is there to be told.
    pub fn destroy(&self, destroy: impl FnOnce() -> Result<(), Failure>) {
        if let Ok(_entered) = self.enter() {
            let _ = destroy();
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        if self.is_retained {
            let _ = call!(cuDevicePrimaryCtxRelease_v2(self.device));
        }
    }
}

/// While it lives, its context is current.
pub struct Entered<'a>(#[expect(dead_code, reason = "it outlives this")] &'a Context);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let mut popped = null_mut();
        let _ = call!(cuCtxPopCurrent_v2(&mut popped));
    }
}
