//! Devices: on this machine's CPU, kernels at its best level, on threads of the device's own.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read};
use crate::handles::Handles;
use crate::header::{pw_device, pw_device_options};
use crate::memory::Buffers;
use backends::cpu::Threads;
use kernels_core::error::{Checks, Fault};
use kernels_core::simd::Level;
use kernels_core::workers::Workers;
use std::ffi::c_char;
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::str::Utf8Error;

const CHECKS: Checks = Checks("device");

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

const OPTIONS: pw_device_options =
    pw_device_options { struct_size: 0, threads: 0, plugins: null(), plugins_bytes: 0 };
/// Threads of one object at most.
pub const THREADS_MAX: i64 = 1024;
/// A path that is longer is none.
const PATH_BYTES: u64 = 4096;

/// Behind a `pw_device`.
pub struct Device {
    pub level: Level,
    pub threads: Threads,
}

// SAFETY: bindgen's struct of numbers and a pointer, the first of which is the size.
unsafe impl Sized32 for pw_device_options {
    const LEAST: u32 = 24;
}

/// All that are open.
pub static DEVICES: Handles<Device, pw_device> = Handles::new(1, "device");

impl Device {
    /// How many share its work.
    pub fn workers(&self) -> u32 {
        self.threads.count()
    }
}

fn open(name: &[u8], threads: u32, plugins: Option<&Path>) -> Result<Device, Refusal> {
    if let Some(file) = plugin(name) {
        return Err(Refusal::Device(lacking(file, plugins)));
    }
    if name != b"cpu" {
        let there = "no device has this name: there are \"cpu\", \"cuda:0\" and so on, \"metal\"";
        return Err(Refusal::Device(there.to_owned()));
    }
    let all = || std::thread::available_parallelism().map_or(1, |all| all.get() as u32);
    CHECKS.range("threads", threads, 0..=THREADS_MAX)?;
    let threads = if threads == 0 { all() } else { threads };
    Ok(Device { level: Level::best(), threads: Threads::new(threads) })
}

fn no_path(_: Utf8Error) -> Refusal {
    Refusal::Number { field: "plugins", fault: Fault::Unused { needs: "a path of UTF-8" } }
}

/// The plugin that brings a device of this name.
fn plugin(name: &[u8]) -> Option<&'static str> {
    match name.strip_prefix(b"cuda:") {
        Some(number) if !number.is_empty() && number.iter().all(u8::is_ascii_digit) => {
            Some("libpagewise_cuda.so")
        }
        _ => (name == b"metal").then_some("libpagewise_metal.dylib"),
    }
}

/// Why a plugin brings no device.
fn lacking(file: &str, folder: Option<&Path>) -> String {
    let folder = folder.map(Path::to_owned).or_else(own_folder);
    match folder {
        None => format!("it needs the plugin {file}, and the folder of this library is unknown"),
        Some(folder) if folder.join(file).exists() => {
            format!("this release loads no plugins: {}", folder.join(file).display())
        }
        Some(folder) => format!("it needs the plugin {file}, not found in {}", folder.display()),
    }
}

/// The folder of this library, as the system has mapped it.
fn own_folder() -> Option<PathBuf> {
    let here = (own_folder as fn() -> Option<PathBuf>) as usize;
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let mapped = maps.lines().find(|line| {
        let range = line.split(' ').next().and_then(|range| range.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        let range = range.and_then(|(from, to)| Some(number(from)?..number(to)?));
        range.is_some_and(|range| range.contains(&here))
    })?;
    let path = mapped.get(mapped.find('/')?..)?;
    Path::new(path).parent().map(Path::to_owned)
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
        let plugins = match options.plugins.is_null() {
            true => None,
            false => {
                CHECKS.range("plugins_bytes", options.plugins_bytes, 0..=PATH_BYTES as i64)?;
                let path = options.plugins.cast::<u8>();
                let path = Buffers::new().read("plugins", path, options.plugins_bytes)?;
                Some(Path::new(std::str::from_utf8(path).map_err(no_path)?))
            }
        };
        device.write(DEVICES.add(open(name, options.threads, plugins)?));
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
