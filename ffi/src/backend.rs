//! Devices: on this machine's CPU, kernels at its best level, on threads of the device's own.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read};
use crate::handles::Handles;
use crate::header::{pw_device, pw_device_options};
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

/// All that are open.
pub static DEVICES: Handles<Device, pw_device> = Handles::new(1, "device");

impl Device {
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

export! {
    fn pw_device_open(
        name: *const c_char,
        name_bytes: u64,
        options: *const pw_device_options,
        device: *mut *mut pw_device,
    ) {
        aligned("name", name)?;
        aligned("device", device)?;
        let options = if options.is_null() { OPTIONS } else { read("options", options)? };
        // Longer than any name, and it need not be looked at.
        let bytes = name_bytes.min(64) as usize;
        let name = std::slice::from_raw_parts(name.cast(), bytes);
        device.write(DEVICES.add(open(name, &options)?));
        Ok(())
    }
}

export!(destroy pw_device_destroy, pw_device, DEVICES);

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Any pointer will do.
#[unsafe(no_mangle)]
unsafe extern "C" fn pw_device_numerics(device: *const pw_device) -> *const c_char {
    static ENDED: [u8; NUMERICS_BYTES + 1] = NUMERICS;
    if DEVICES.get(device).is_ok() { ENDED.as_ptr().cast() } else { std::ptr::null() }
}
export!(@declared pw_device_numerics);
