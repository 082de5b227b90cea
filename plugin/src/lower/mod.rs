//! What commands become whose tiles are the same on every device: one file for each kernel.
//! The others are each dialect's own, in `cuda/src/lower/` and `metal/src/lower/`.

pub mod activation;
pub mod attention_fold;
pub mod embed;
pub mod gather;
pub mod kv_copy;
pub mod norm;
pub mod pool;
pub mod rope;
pub mod rows;

use crate::Launch;

/// What of a device decides how work is cut. It never decides the order of arithmetic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Its multiprocessors, as CUDA calls them: cores, as Metal does.
    pub cores: u32,
    /// Shared memory that a block may have.
    pub shared_bytes_max: u32,
}

/// Blocks of a core that a kernel which loops over its work is given.
const BLOCKS_EACH: u32 = 8;

impl Facts {
    /// Blocks of a kernel that loops over its work, at most.
    pub fn blocks_max(&self) -> u64 {
        u64::from(self.cores * BLOCKS_EACH)
    }
}

/// A launch of an entry whose blocks loop over so many pieces of work.
pub fn looping(entry: &'static str, block: u32, pieces: u64, facts: &Facts) -> Launch {
    let blocks = pieces.clamp(1, facts.blocks_max()) as u32;
    Launch { entry, grid: [blocks, 1, 1], block, ..Launch::default() }
}
