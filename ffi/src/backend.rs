//! Devices: this machine's CPU, by its best level and on threads of the device's own; and
//! those that plugins bring.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read};
use crate::handles::Handles;
use crate::header::{pw_device, pw_device_options};
use crate::memory::Buffers;
use backends::cpu::Threads;
use backends::plugin::{Embedded, library_name};
use kernels_core::error::{Checks, Fault};
use kernels_core::simd::Level;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString, c_char};
use std::path::{Path, PathBuf};
use std::ptr::null;
use std::str::Utf8Error;
use std::sync::{Mutex, PoisonError};

const CHECKS: Checks = Checks("device");

const OPTIONS: pw_device_options =
    pw_device_options { struct_size: 0, threads: 0, plugins: null(), plugins_bytes: 0 };
/// Threads of one object at most.
pub const THREADS_MAX: i64 = 1024;
/// A path that is longer is none.
const PATH_BYTES: u64 = 4096;

/// Behind a `pw_device`.
pub struct Device {
    pub at: Place,
    /// The id of its arithmetic.
    pub numerics: &'static CStr,
}

/// Where calls run.
pub enum Place {
    /// Here, by the level of this machine.
    Cpu { level: Level, threads: Threads },
    /// On a device behind a plugin, in its user's memory and on its user's streams.
    Plugin(Embedded),
}

// SAFETY: bindgen's struct of numbers and a pointer, the first of which is the size.
unsafe impl Sized32 for pw_device_options {
    const LEAST: u32 = 24;
}

/// All that are open.
pub static DEVICES: Handles<Device, pw_device> = Handles::new(1, "device");

impl Device {
    fn new(at: Place, numerics: &str) -> Self {
        Self { at, numerics: lasting(numerics) }
    }
}

/// An id for good: there are as many as kinds of devices.
fn lasting(id: &str) -> &'static CStr {
    static KNOWN: Mutex<BTreeSet<&'static CStr>> = Mutex::new(BTreeSet::new());
    let id = CString::new(id).unwrap_or_default();
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(there) = known.get(id.as_c_str()) {
        return there;
    }
    let id: &'static CStr = Box::leak(id.into_boxed_c_str());
    known.insert(id);
    id
}

fn open(name: &[u8], threads: u32, plugins: Option<&Path>) -> Result<Device, Refusal> {
    let refused = |why: &str| Err(Refusal::Device(why.to_owned()));
    if let Some(number) = name.strip_prefix(b"cuda:") {
        let number = std::str::from_utf8(number).ok().filter(|it| !it.starts_with('+'));
        let number = number.and_then(|number| number.parse().ok());
        return number.map_or_else(|| refused(NAMES), |number| plugin("cuda", number, plugins));
    }
    match name {
        b"cpu" => {
            let all = || std::thread::available_parallelism().map_or(1, |all| all.get() as u32);
            CHECKS.range("threads", threads, 0..=THREADS_MAX)?;
            let threads = Threads::new(if threads == 0 { all() } else { threads });
            let at = Place::Cpu { level: Level::best(), threads };
            Ok(Device::new(at, backends::cpu::NUMERICS))
        }
        b"metal" => refused(
            "Metal takes memory that its plugin made, which is the server's alone: this \
             library opens \"cpu\" and \"cuda:0\"",
        ),
        _ => refused(NAMES),
    }
}

const NAMES: &str = "no device has this name: there are \"cpu\", \"cuda:0\" and so on";

/// The device of that number that a plugin brings.
fn plugin(kind: &str, ordinal: u32, folder: Option<&Path>) -> Result<Device, Refusal> {
    let folder = folder.map(Path::to_owned).or_else(own_folder).ok_or_else(|| {
        let file = library_name(kind);
        Refusal::Device(format!("it needs {file}, and the folder of this library is unknown"))
    })?;
    let there = Embedded::load(&folder, kind, ordinal);
    let there = there.map_err(|why| Refusal::Device(why.to_string()))?;
    let numerics = there.about().numerics.clone();
    Ok(Device::new(Place::Plugin(there), &numerics))
}

fn no_path(_: Utf8Error) -> Refusal {
    Refusal::Number { field: "plugins", fault: Fault::Unused { needs: "a path of UTF-8" } }
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
        let plugins = match options.plugins.is_null() || options.plugins_bytes == 0 {
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
    DEVICES.get(device).map_or(std::ptr::null(), |device| device.numerics.as_ptr())
}
export!(@declared pw_device_numerics);
