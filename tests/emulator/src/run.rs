//! One launch on the emulator, through its C functions (`runtime/emulator.h`).

use crate::watch::Piece;
use std::ffi::{CStr, CString, c_char, c_void};
use std::ptr::null;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The kernel's entry.
    pub entry: &'a str,
    /// Blocks along each axis.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared_bytes: u32,
    /// Which schedule of its threads; 0 runs them in order.
    pub seed: u64,
}

/// What the emulator found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Its kind, as `runtime/emulator.h` numbers it.
    pub code: i32,
    /// Where, and between whom.
    pub message: String,
}

/// An entry of a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Threads of a block.
    pub threads: u32,
}

#[repr(C)]
struct EmulatedLaunch {
    entry: *const c_char,
    grid: [u32; 3],
    block: u32,
    shared_bytes: u32,
    seed: u64,
    arguments: *const c_void,
    argument_bytes: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
/// What launches of a thread did.
pub struct Counts {
    /// Bytes read by copies to shared memory.
    pub copied_bytes: u64,
    /// Bytes read by `load_once`.
    pub loaded_bytes: u64,
    /// Matrix products of a warp.
    pub mma_count: u64,
    /// Matrix loads of a warp.
    pub matrix_count: u64,
    /// From one thread of a block to another.
    pub switch_count: u64,
}

impl Counts {
    /// What came after `before`.
    pub(crate) fn since(self, before: Self) -> Self {
        self.with(before, u64::wrapping_sub)
    }

    /// Both.
    pub(crate) fn plus(self, other: Self) -> Self {
        self.with(other, u64::wrapping_add)
    }

    fn with(self, other: Self, of: impl Fn(u64, u64) -> u64) -> Self {
        Self {
            copied_bytes: of(self.copied_bytes, other.copied_bytes),
            loaded_bytes: of(self.loaded_bytes, other.loaded_bytes),
            mma_count: of(self.mma_count, other.mma_count),
            matrix_count: of(self.matrix_count, other.matrix_count),
            switch_count: of(self.switch_count, other.switch_count),
        }
    }
}

/// How tensor cores add the products of one instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adds {
    /// Ascending, each sum rounded to the nearest.
    Rounding,
    /// As cards were found to do it: addends are aligned to the largest, and what does not fit
    /// is cut off.
    Truncating,
}

unsafe extern "C" {
    fn emulated_watch(pieces: *mut Piece, count: u64);
    fn emulated_tensor_core(adds: u32);
    fn emulated_counted(counts: *mut Counts);
    fn emulated_count_from_zero();
    fn emulated_run(launch: *const EmulatedLaunch, message: *mut c_char, bytes: u64) -> i32;
    fn emulated_entry(index: u32, name: *mut *const c_char, threads: *mut u32) -> i32;
}

/// Runs it to its end, or to the first fault.
///
/// # Safety
///
/// Addresses in `arguments` lead to memory that is as long as the kernel takes it to be.
pub unsafe fn run(run: &Run<'_>, arguments: &[u8]) -> Result<(), Fault> {
    let entry = CString::new(run.entry).expect("names of entries have no 0");
    let launch = EmulatedLaunch {
        entry: entry.as_ptr(),
        grid: run.grid,
        block: run.block,
        shared_bytes: run.shared_bytes,
        seed: run.seed,
        arguments: arguments.as_ptr().cast(),
        argument_bytes: arguments.len() as u64,
    };
    let mut message: [c_char; 1024] = [0; 1024];
    // SAFETY: the struct is as the header has it; of the arguments the caller answers for.
    let code = unsafe { emulated_run(&launch, message.as_mut_ptr(), message.len() as u64) };
    if code == 0 {
        return Ok(());
    }
    Err(Fault { code, message: plugin::read(&message) })
}

/// What this thread's launches have done since the last call.
pub fn counts() -> Counts {
    let counts = counted();
    // SAFETY: it takes nothing.
    unsafe { emulated_count_from_zero() };
    counts
}

/// The same, and counting goes on.
pub(crate) fn counted() -> Counts {
    let mut counts = Counts::default();
    // SAFETY: the place is this function's own.
    unsafe { emulated_counted(&mut counts) };
    counts
}

/// Sets how tensor cores add in what this thread launches from here on.
pub fn tensor_cores(adds: Adds) {
    // SAFETY: it takes a number of the header's.
    unsafe { emulated_tensor_core(adds as u32) };
}

/// Launches in `act` add to these pieces, which are in order of their addresses.
pub(crate) fn watch_pieces<T>(pieces: &mut [Piece], act: impl FnOnce() -> T) -> T {
    // SAFETY: the pieces are there until the second call, and nobody looks at them before.
    unsafe { emulated_watch(pieces.as_mut_ptr(), pieces.len() as u64) };
    let came = act();
    // SAFETY: no pieces are given.
    unsafe { emulated_watch(std::ptr::null_mut(), 0) };
    came
}

/// Every entry of every kernel, in the order in which they registered.
pub fn entries() -> Vec<Entry> {
    let mut entries = Vec::new();
    loop {
        let (mut name, mut threads) = (null(), 0);
        // SAFETY: the places are this function's own; a name is a constant.
        let entry = unsafe {
            if emulated_entry(entries.len() as u32, &mut name, &mut threads) < 0 {
                return entries;
            }
            CStr::from_ptr(name)
        };
        entries.push(Entry { name: entry.to_string_lossy().into_owned(), threads });
    }
}
