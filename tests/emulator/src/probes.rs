//! The probes of `cuda/probe/`: how each is launched, and the table that the emulator makes of
//! it. A card must make the same.

use crate::run::{Fault, Run, run};

const LIST: &str = include_str!("../../../cuda/probe/probe.cu");
const WORDS: &str = include_str!("../../../cuda/probe/words.txt");

/// A probe, as the list at the bottom of its file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Its name, and that of its entry after `probe_`.
    pub name: String,
    /// Threads of its one block.
    pub threads: u32,
    /// Bytes of shared memory.
    pub shared_bytes: u32,
    /// Words of `words.txt` that it reads.
    pub words_in: usize,
    /// Words that it writes.
    pub words_out: usize,
}

/// All of them.
pub fn probes() -> Vec<Probe> {
    LIST.lines().filter_map(probe).collect()
}

/// What probes read.
pub fn words() -> Vec<u32> {
    let lines = WORDS.lines().filter(|line| !line.starts_with('#'));
    let words = lines.flat_map(str::split_whitespace);
    words.map(|word| u32::from_str_radix(word, 16).expect("words are in hexadecimal")).collect()
}

/// The table of a probe, under a schedule of its threads.
pub fn table(probe: &Probe, seed: u64) -> Result<Vec<u32>, Fault> {
    // Vectors of four are read and written: both are aligned to them.
    let mut input = vec![0u128; probe.words_in.div_ceil(4)];
    let mut output = vec![UNWRITTEN; probe.words_out.div_ceil(4)];
    let from = &words()[..probe.words_in];
    bytemuck::cast_slice_mut::<_, u32>(&mut input)[..probe.words_in].copy_from_slice(from);
    let addresses = [input.as_ptr().expose_provenance(), output.as_mut_ptr().expose_provenance()];
    let asked = Run {
        entry: &format!("probe_{}", probe.name),
        grid: [1, 1, 1],
        block: probe.threads,
        shared_bytes: probe.shared_bytes,
        seed,
    };
    // SAFETY: both are as long as the list says.
    unsafe { run(&asked, bytemuck::cast_slice(&addresses))? };
    Ok(bytemuck::cast_slice(&output)[..probe.words_out].to_vec())
}

/// Four words that no probe writes.
const UNWRITTEN: u128 = 0xa5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5_a5a5;

fn probe(line: &str) -> Option<Probe> {
    let inside = line.strip_prefix("PROBE(")?.strip_suffix(')')?;
    let mut fields = inside.split(", ");
    let name = fields.next()?.to_owned();
    let mut number = || fields.next()?.parse::<usize>().ok();
    let (threads, shared_bytes) = (number()? as u32, number()? as u32);
    Some(Probe { name, threads, shared_bytes, words_in: number()?, words_out: number()? })
}
