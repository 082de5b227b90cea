//! What stands between C and every function: no panic leaves, no struct is read past its size.

use crate::error::Refusal;
use crate::header::{self, pw_error, pw_status};
use kernels_core::Error;
use kernels_core::error::Fault;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Makes a call, and says in the caller's error why it could not be made.
///
/// # Safety
///
/// The error is NULL, or leads to as many bytes as its first four say.
pub unsafe fn guard(error: *mut pw_error, call: impl FnOnce() -> Result<(), Refusal>) -> pw_status {
    match catch_unwind(AssertUnwindSafe(call)).unwrap_or(Err(Refusal::Internal)) {
        Ok(()) => header::PW_OK as pw_status,
        Err(refusal) => {
            // SAFETY: as the caller of this says.
            unsafe { refusal.tell(error) };
            refusal.status()
        }
    }
}

/// Exports functions of the header. Each has the type that is declared there, its error comes
/// last, and what it does is guarded; a function cannot give others a name, hence a macro.
/// `destroy` exports one that takes what is behind a handle away, if something is.
macro_rules! export {
    ($(fn $name:ident($($given:ident: $type:ty),* $(,)?) $body:block)*) => {$(
        /// See `include/pagewise.h`.
        ///
        /// # Safety
        ///
        /// Pointers lead to what the header says.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(
            $($given: $type,)*
            error: *mut crate::header::pw_error,
        ) -> crate::header::pw_status {
            // SAFETY: as the caller of this says.
            unsafe { crate::guard::guard(error, || $body) }
        }
        export!(@declared $name);
    )*};
    (destroy $name:ident, $handle:ty, $handles:expr) => {
        /// See `include/pagewise.h`.
        ///
        /// # Safety
        ///
        /// Any pointer will do.
        #[unsafe(no_mangle)]
        unsafe extern "C" fn $name(handle: *mut $handle) {
            let call = || {
                $handles.remove(handle);
                Ok(())
            };
            // SAFETY: there is no error to write.
            unsafe { crate::guard::guard(std::ptr::null_mut(), call) };
        }
        export!(@declared $name);
    };
    // Two functions are of one type, or there is no array of them.
    (@declared $name:ident) => {
        const _: () = {
            let _ = [crate::header::$name, $name];
        };
    };
}

/// Whether the system gives a thread, before an object is made that takes some.
pub fn threads() -> Result<(), Refusal> {
    let refused = |_| Error::new("threads", "threads", Fault::OutOfMemory { bytes: 0 });
    let thread = std::thread::Builder::new().spawn(|| ()).map_err(refused)?;
    thread.join().map_err(|_| Refusal::Internal)
}

/// A struct of C that begins with its size, and of which all bytes may be 0.
///
/// # Safety
///
/// Its first field is a `u32`, its size, and 0 is a value of every other.
pub unsafe trait Sized32: Copy {
    /// Its size in the first version.
    const LEAST: u32;
}

/// A struct of the caller's, whatever version it was compiled with: what it lacks is 0.
///
/// # Safety
///
/// The pointer is NULL, or leads to as many bytes as its first four say.
pub unsafe fn read<T: Sized32>(field: &'static str, from: *const T) -> Result<T, Refusal> {
    let got = check(field, from)?;
    // SAFETY: all bytes of it may be 0.
    let mut ours: T = unsafe { std::mem::zeroed() };
    let known = (got as usize).min(size_of::<T>());
    // SAFETY: so many bytes are the caller's, and ours.
    unsafe { (&raw mut ours).cast::<u8>().copy_from(from.cast(), known) };
    // SAFETY: the rest of what the caller says is there.
    let tail =
        unsafe { std::slice::from_raw_parts(from.cast::<u8>().add(known), got as usize - known) };
    match tail.iter().all(|byte| *byte == 0) {
        true => Ok(ours),
        false => Err(Refusal::Tail(field)),
    }
}

/// Writes a struct to the caller, as far as there is room; its size stays.
///
/// # Safety
///
/// The pointer is NULL, or leads to as many bytes as its first four say.
pub unsafe fn write<T: Sized32>(field: &'static str, to: *mut T, ours: T) -> Result<(), Refusal> {
    let got = check(field, to)?;
    let known = (got as usize).min(size_of::<T>());
    let (first, rest) = (size_of::<u32>(), known - size_of::<u32>());
    // SAFETY: so many bytes are the caller's, and ours.
    unsafe {
        let ours = (&raw const ours).cast::<u8>();
        to.cast::<u8>().add(first).copy_from(ours.add(first), rest);
    }
    Ok(())
}

/// The size that a struct says it has.
fn check<T: Sized32>(field: &'static str, at: *const T) -> Result<u32, Refusal> {
    aligned(field, at)?;
    // SAFETY: it is there, aligned, and begins with its size.
    let got = unsafe { *at.cast::<u32>() };
    // Past any version, and past what a forgotten size would hold.
    if !(T::LEAST..=1 << 16).contains(&got) {
        return Err(Refusal::Size { field, least: T::LEAST, got });
    }
    Ok(got)
}

/// A pointer that is not NULL, and aligned.
pub fn aligned<T>(field: &'static str, at: *const T) -> Result<(), Refusal> {
    if at.is_null() {
        return Err(Refusal::Null(field));
    }
    let expected = align_of::<T>();
    match at.addr() % expected {
        0 => Ok(()),
        got => Err(Refusal::Align { field, expected: expected as u64, got: got as u64 }),
    }
}
