//! The probes of `cuda/probe/` on a card: each runs once, and what it writes is held against
//! what the emulator wrote. And how fast the card copies its own memory, which reads are held
//! against.

use crate::context::Context;
use crate::driver::{Failure, call};
use crate::kernels::COMPILED_BY;
use crate::refusal;
use crate::work::Stream;
use cuda::probes::{Table, Tables};
use cust::sys::{CUdevice_attribute, CUfunction, CUmodule};
use kernels_core::Error;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;
use std::time::Instant;

/// Bytes that no probe leaves where it was to write.
const UNWRITTEN: u8 = 0xa5;
/// Of memory that is copied: at most, and beside what else is there.
const COPIED_BYTES_MAX: usize = 1 << 30;
const COPIES: usize = 10;
const SAMPLES: usize = 5;

/// A card, for probes.
pub struct Card {
    stream: Stream,
    context: Arc<Context>,
    /// What it calls itself.
    pub name: String,
    /// Its compute capability, as `10 * major + minor`.
    pub capability: u32,
}

/// What came of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The table.
    Same,
    /// The first word that differs.
    Differs {
        /// Its place.
        at: usize,
        /// What the emulator wrote.
        expected: u32,
        /// What the card did.
        got: u32,
    },
}

/// Holds what was written against what is expected.
pub fn compared(expected: &[u32], got: &[u32]) -> Came {
    let mut pairs = expected.iter().zip(got).enumerate();
    match pairs.find(|(_, (expected, got))| expected != got) {
        Some((at, (&expected, &got))) => Came::Differs { at, expected, got },
        None => Came::Same,
    }
}

impl Card {
    /// The card of that number.
    pub fn open(ordinal: u32) -> Result<Self, Error> {
        use CUdevice_attribute::{
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR,
            CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        };
        let (mut version, mut count, mut device) = (0, 0, 0);
        call!(cuInit(0))?;
        call!(cuDriverGetVersion(&mut version))?;
        refusal::of_driver(version, COMPILED_BY)?;
        call!(cuDeviceGetCount(&mut count))?;
        refusal::of_ordinal(ordinal, count)?;
        call!(cuDeviceGet(&mut device, ordinal as i32))?;
        let (mut major, mut minor, mut name) = (0, 0, [0; 96]);
        call!(cuDeviceGetAttribute(&mut major, MAJOR, device))?;
        call!(cuDeviceGetAttribute(&mut minor, MINOR, device))?;
        refusal::of_capability(major * 10 + minor)?;
        call!(cuDeviceGetName(name.as_mut_ptr(), name.len() as i32, device))?;
        let context = Arc::new(Context::of(device)?);
        let stream = Stream::own(&context)?;
        let capability = (major * 10 + minor) as u32;
        Ok(Self { stream, context, name: plugin::read(&name), capability })
    }

    /// Runs every probe of a fatbin, and tells what came of each as it comes. A card on which
    /// one has failed runs no other.
    pub fn run(
        &self,
        image: &[u8],
        tables: &Tables,
        mut told: impl FnMut(&Table, Came),
    ) -> Result<(), Error> {
        let _entered = self.context.enter()?;
        // The driver may read words of it.
        let mut aligned = vec![0u64; image.len().div_ceil(8)];
        for (word, bytes) in aligned.iter_mut().zip(image.chunks(8)) {
            let mut whole = [0; 8];
            whole[..bytes.len()].copy_from_slice(bytes);
            *word = u64::from_ne_bytes(whole);
        }
        let module = Module::load(&aligned)?;
        for table in &tables.tables {
            let entry = format!("probe_{}", table.name);
            let field = plugin::lasting(entry.clone());
            let written = module
                .function(&entry)
                .and_then(|function| self.probe(function, table, &tables.words[..table.words_in]));
            let written = written.map_err(|failure| failure.of(field))?;
            told(table, compared(&table.expected, &written));
        }
        Ok(())
    }

    fn probe(&self, probe: CUfunction, table: &Table, words: &[u32]) -> Result<Vec<u32>, Failure> {
        let input = Memory::new(words.len() * 4)?;
        let output = Memory::new(table.expected.len() * 4)?;
        let stream = self.stream.raw();
        let mut written = vec![0u32; table.expected.len()];
        let (from, to) = (words.as_ptr().cast(), written.as_mut_ptr().cast());
        call!(cuMemcpyHtoDAsync_v2(input.address, from, words.len() * 4, stream))?;
        call!(cuMemsetD8Async(output.address, UNWRITTEN, output.bytes, stream))?;
        // Its one argument: where it reads, and where it writes.
        let mut addresses = [input.address, output.address];
        let mut parameters = [addresses.as_mut_ptr().cast::<c_void>()];
        let (parameters, none) = (parameters.as_mut_ptr(), null_mut());
        let (block, shared) = (table.threads, table.shared_bytes);
        call!(cuLaunchKernel(probe, 1, 1, 1, block, 1, 1, shared, stream, parameters, none))?;
        call!(cuMemcpyDtoHAsync_v2(to, output.address, written.len() * 4, stream))?;
        call!(cuStreamSynchronize(stream))?;
        Ok(written)
    }

    /// Bytes read and written each second by copies within its memory: the median of some
    /// samples, by the host's clock.
    pub fn copied_bytes_s(&self) -> Result<f64, Error> {
        let _entered = self.context.enter()?;
        let (mut free, mut total) = (0, 0);
        call!(cuMemGetInfo_v2(&mut free, &mut total))?;
        let bytes = COPIED_BYTES_MAX.min(free / 4);
        let (from, to) = (Memory::new(bytes)?, Memory::new(bytes)?);
        let stream = self.stream.raw();
        let copies = |count: usize| -> Result<f64, Failure> {
            call!(cuStreamSynchronize(stream))?;
            let start = Instant::now();
            for _ in 0..count {
                call!(cuMemcpyDtoDAsync_v2(to.address, from.address, bytes, stream))?;
            }
            call!(cuStreamSynchronize(stream))?;
            Ok(start.elapsed().as_secs_f64())
        };
        copies(1)?;
        let mut rates = Vec::new();
        for _ in 0..SAMPLES {
            rates.push((2 * bytes * COPIES) as f64 / copies(COPIES)?);
        }
        rates.sort_by(f64::total_cmp);
        Ok(rates[SAMPLES / 2])
    }
}

/// Of the current context, until it is dropped.
struct Memory {
    address: u64,
    bytes: usize,
}

impl Memory {
    fn new(bytes: usize) -> Result<Self, Failure> {
        let (mut address, bytes) = (0, bytes.max(1));
        call!(cuMemAlloc_v2(&mut address, bytes))?;
        Ok(Self { address, bytes })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // It waits for what is under way.
        let _ = call!(cuMemFree_v2(self.address));
    }
}

/// A fatbin of the current context, until it is dropped.
struct Module(CUmodule);

impl Module {
    fn load(image: &[u64]) -> Result<Self, Failure> {
        let mut module = null_mut();
        call!(cuModuleLoadData(&mut module, image.as_ptr().cast()))?;
        Ok(Self(module))
    }

    fn function(&self, entry: &str) -> Result<CUfunction, Failure> {
        let name = CString::new(entry).expect("names in a text have no 0");
        let mut function = null_mut();
        call!(cuModuleGetFunction(&mut function, self.0, name.as_ptr()))?;
        Ok(function)
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        let _ = call!(cuModuleUnload(self.0));
    }
}

#[cfg(test)]
mod tests {
    use super::{Came, Card, compared};
    use kernels_core::error::Fault;

    #[test]
    fn the_first_word_that_differs_is_told() {
        assert_eq!(compared(&[1, 2, 3], &[1, 2, 3]), Came::Same);
        let differs = Came::Differs { at: 1, expected: 2, got: 9 };
        assert_eq!(compared(&[1, 2, 3], &[1, 9, 8]), differs);
    }

    #[test]
    fn where_no_card_is_that_is_what_is_said() {
        let error = Card::open(0).err().expect("the stand-in for the driver has none");
        assert!(matches!(error.fault, Fault::Device { code: 100, .. }), "{error}");
    }
}
