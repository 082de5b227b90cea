//! Launches over the rows of a matrix, and over what a step brings for each of them.

use super::Facts;
use crate::{Launch, Launches};

/// Elements of a piece, which one thread takes at once.
pub const PIECE: u32 = 8;
/// Threads of a block that checks what a step brings.
const CHECKERS: u32 = 512;
/// Up to so many elements every block checks them itself: that is less than a launch.
const CHECKED_BY_BLOCKS_MAX: u32 = 512;
/// Told as `tile` where it does.
const BLOCKS_CHECK: u32 = 1;
/// Bytes of shared memory that checks take: a multiple of 16, as Metal has it.
pub const CHECK_BYTES: u32 = 16;
/// Blocks along y at most.
const ROW_BLOCKS_MAX: u64 = 65_535;

/// A launch whose blocks along x share a row's items and along y loop over rows.
pub fn by_rows(entry: &'static str, block: u32, [items, rows]: [u64; 2], facts: &Facts) -> Launch {
    let most = facts.blocks_max();
    let across = items.div_ceil(u64::from(block)).clamp(1, most);
    let down = (most / across).clamp(1, rows.clamp(1, ROW_BLOCKS_MAX));
    Launch { entry, grid: [across as u32, down as u32, 1], block, ..Launch::default() }
}

/// A launch of one block that checks what a step brings.
pub fn checker(entry: &'static str) -> Launch {
    Launch {
        entry,
        grid: [1, 1, 1],
        block: CHECKERS,
        shared_bytes: CHECK_BYTES,
        ..Launch::default()
    }
}

/// A launch that needs so many elements of a step checked: by its blocks, or by one before it.
pub fn checked(check: &'static str, elements: u32, launch: Launch) -> Launches {
    let shared_bytes = launch.shared_bytes.max(CHECK_BYTES);
    let launch = Launch { shared_bytes, ..launch };
    if elements <= CHECKED_BY_BLOCKS_MAX {
        return Launches::one(Launch { told: [BLOCKS_CHECK, 0], ..launch });
    }
    let mut launches = Launches::one(checker(check));
    launches.push(launch);
    launches
}
