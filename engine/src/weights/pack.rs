//! Rows of checkpoints into packed matrices, some tiles at a time: all threads pack, and
//! no more room is taken than those tiles need.

use super::lines::Lines;
use super::rows::{Rows, Scratch};
use kernels_core::device::{Backend, Slice};
use kernels_core::packing::{self, TILE};
use kernels_core::workers::{Pieces, Workers, split};
use kernels_core::{Error, params};
use std::sync::Mutex;

/// Bytes that are packed before they are handed to the backend: large enough that threads
/// have work, small enough that nobody minds them.
const ROOM_BYTES: usize = 8 << 20;

/// Packs matrices that follow each other in one weight, and writes them where `to` is.
pub fn pack(
    backend: &mut dyn Backend,
    workers: &dyn Workers,
    weight: &params::Weight,
    parts: &[Rows<'_>],
    to: Slice,
) -> Result<(), Error> {
    let tile_weight = params::Weight { outputs: TILE as u32, ..*weight };
    let tile_bytes = packing::packed_bytes(&tile_weight)? as usize;
    let tiles = weight.outputs as usize / TILE
        + usize::from(!(weight.outputs as usize).is_multiple_of(TILE));
    let at_once = (ROOM_BYTES / tile_bytes).clamp(1, tiles);
    let mut room = Lines::zeroed(at_once * tile_bytes);
    for first in (0..tiles).step_by(at_once) {
        let count = at_once.min(tiles - first);
        let room = &mut room.bytes_mut()[..count * tile_bytes];
        let failed = Mutex::new(None);
        let pieces = Pieces::new(&mut *room, count, tile_bytes, count as u32);
        split(workers, count as u32, pieces, |tile, packed| {
            let outputs = (first + tile as usize) * TILE;
            if let Err(error) = pack_tile(&tile_weight, outputs, parts, packed) {
                failed.lock().expect("no thread panics with it").get_or_insert(error);
            }
        });
        if let Some(error) = failed.into_inner().expect("no thread panics with it") {
            return Err(error);
        }
        let offset = to.offset + (first * tile_bytes) as u64;
        backend.write(Slice { offset, bytes: room.len() as u64, ..to }, room)?;
    }
    Ok(())
}

/// Packs the outputs from `first` on, of whichever matrices they are.
pub(super) fn pack_tile(
    weight: &params::Weight,
    first: usize,
    parts: &[Rows<'_>],
    packed: &mut [u8],
) -> Result<(), Error> {
    // What lay here before may be a NaN, and an odd input is padded with what lies there.
    packed.fill(0);
    let mut scratch = Scratch::default();
    let mut before = 0;
    for rows in parts {
        let own = before..before + rows.count;
        let (begin, end) = (own.start.max(first), own.end.min(first + TILE));
        before = own.end;
        if begin < end {
            let source = rows.source(begin - own.start..end - own.start, &mut scratch);
            let outputs = (begin - first) as u32..(end - first) as u32;
            packing::pack(weight, outputs, source, packed)?;
        }
    }
    Ok(())
}
