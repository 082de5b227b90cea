//! Devices: on this machine's CPU, kernels at its best level, on threads of the device's own.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, guard, read};
use crate::header::{pw_device, pw_device_options, pw_error, pw_status};
use backends::cpu::Threads;
use kernels_core::simd::Level;
use kernels_core::workers::Workers;
use std::ffi::c_char;

/// The arithmetic of every level, ended by 0.
const NUMERICS: [u8; NUMERICS_BYTES + 1] = {
    let (mut ended, mut at) = ([0; NUMERICS_BYTES + 1], 0);
    while at < NUMERICS_BYTES {
        ended[at] = backends::cpu::NUMERICS.as_bytes()[at];
        at += 1;
    }
    ended
};
const NUMERICS_BYTES: usize = backends::cpu::NUMERICS.len();

const OPTIONS: pw_device_options = pw_device_options { struct_size: 0, threads: 0 };

/// Behind a `pw_device`.
pub struct Device {
    pub level: Level,
    pub threads: Threads,
}

// SAFETY: bindgen's structs of numbers, the first of which is the size.
unsafe impl Sized32 for pw_device_options {
    const LEAST: u32 = 8;
}

impl Device {
    /// The device behind a handle.
    ///
    /// # Safety
    ///
    /// It is NULL, or one that was opened and not destroyed.
    pub unsafe fn of<'a>(handle: *const pw_device) -> Result<&'a Self, Refusal> {
        aligned("device", handle.cast::<Self>())?;
        // SAFETY: `pw_device_open` made it of a `Device`.
        Ok(unsafe { &*handle.cast::<Self>() })
    }

    /// How many share its work.
    pub fn workers(&self) -> u32 {
        self.threads.count()
    }
}

fn open(name: &[u8], options: &pw_device_options) -> Result<Device, Refusal> {
    match name {
        b"cpu" => {}
        [b'c', b'u', b'd', b'a', ..] | b"metal" => {
            return Err(Refusal::Device("this release has no plugin for it, and looked for none"));
        }
        _ => return Err(Refusal::Device("no device has this name: there is \"cpu\"")),
    }
    let all = || std::thread::available_parallelism().map_or(1, |all| all.get() as u32);
    let threads = if options.threads == 0 { all() } else { options.threads.min(1024) };
    Ok(Device { level: Level::best(), threads: Threads::new(threads) })
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_device_open(
    name: *const c_char,
    name_bytes: u64,
    options: *const pw_device_options,
    device: *mut *mut pw_device,
    error: *mut pw_error,
) -> pw_status {
    let call = || {
        aligned("name", name)?;
        aligned("device", device)?;
        let options = match options.is_null() {
            true => OPTIONS,
            // SAFETY: it begins with its size.
            false => unsafe { read("options", options) }?,
        };
        // Longer than any name, and it need not be looked at.
        let bytes = name_bytes.min(64) as usize;
        // SAFETY: the caller's name has as many bytes.
        let name = unsafe { std::slice::from_raw_parts(name.cast(), bytes) };
        let opened = Box::new(open(name, &options)?);
        // SAFETY: it is there, and aligned.
        unsafe { device.write(Box::into_raw(opened).cast()) };
        Ok(())
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// It is NULL, or a device that was opened, and that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_device_destroy(device: *mut pw_device) {
    let call = || {
        if !device.is_null() {
            // SAFETY: `pw_device_open` made it of a box.
            drop(unsafe { Box::from_raw(device.cast::<Device>()) });
        }
        Ok(())
    };
    // SAFETY: there is no error to write.
    unsafe { guard(std::ptr::null_mut(), call) };
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// It is NULL, or a device that was opened and not destroyed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_device_numerics(device: *const pw_device) -> *const c_char {
    static ENDED: [u8; NUMERICS_BYTES + 1] = NUMERICS;
    if device.is_null() { std::ptr::null() } else { ENDED.as_ptr().cast() }
}
