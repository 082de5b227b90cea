//! What an embedder has of the emulated device by functions of its own, as of a driver's: memory,
//! and streams whose work it may capture and launch again.

use crate::driver::{Cuda, Recorded, act};
use crate::memory::{self, Memory};
use std::ffi::c_void;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Its memory.
static MEMORY: Mutex<Memory> = Mutex::new(Memory::new());
/// The stream of the last launch, as it calls it.
static LAUNCHED_ON: AtomicU64 = AtomicU64::new(0);
/// The stream whose launches are kept in place of being run, and those.
static CAPTURED: Mutex<(Option<u64>, Vec<Recorded>)> = Mutex::new((None, Vec::new()));

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the range lies in its memory.
pub fn has(address: u64, bytes: u64) -> bool {
    locked(&MEMORY).has(address, bytes)
}

/// Keeps a launch on a stream whose work is captured; otherwise it comes back, to be run.
pub fn captured(stream: u64, launch: Recorded) -> Option<Recorded> {
    LAUNCHED_ON.store(stream, Ordering::Relaxed);
    let mut captured = locked(&CAPTURED);
    if captured.0 != Some(stream) {
        return Some(launch);
    }
    captured.1.push(launch);
    None
}

/// Memory of the device; null where there is no more.
#[unsafe(no_mangle)]
extern "C" fn emulator_alloc(bytes: u64) -> *mut c_void {
    locked(&MEMORY).alloc(bytes).map_or(null_mut(), memory::pointer)
}

/// Gives it back.
#[unsafe(no_mangle)]
extern "C" fn emulator_free(at: *mut c_void) {
    locked(&MEMORY).free(at.expose_provenance() as u64);
}

/// The stream of the last launch, as its host calls it.
#[unsafe(no_mangle)]
extern "C" fn emulator_stream() -> u64 {
    LAUNCHED_ON.load(Ordering::Relaxed)
}

/// Captures what is launched on a stream from here on.
#[unsafe(no_mangle)]
extern "C" fn emulator_capture(stream: u64) {
    *locked(&CAPTURED) = (Some(stream), Vec::new());
}

/// Ends the capture, and runs what was captured: as often as it is asked for. How many launches
/// there are; negative where one fails.
#[unsafe(no_mangle)]
extern "C" fn emulator_replay() -> i64 {
    let mut captured = locked(&CAPTURED);
    captured.0 = None;
    let ran = captured.1.iter().try_for_each(|it| act::<Cuda>(&Memory::new(), it));
    ran.map_or(-1, |()| captured.1.len() as i64)
}
