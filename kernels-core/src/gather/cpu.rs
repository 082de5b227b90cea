//! `gather` on the CPU: rows are split between workers and copied as bytes.

use super::Gather;
use crate::command::{Host, cast, live};
use crate::error::Error;
use crate::simd::Level;
use crate::workers::{Pieces, Workers, even, split};

/// Bytes worth a thread of their own: below this a second one costs more than it brings.
const TILE_BYTES: usize = 65_536;

/// Runs the command. It takes no workspace, and no level copies another way.
pub fn run(_level: Level, workers: &dyn Workers, gather: Gather<Host<'_>>) -> Result<(), Error> {
    let dtype = gather.dtype()?;
    let (checks, p) = (Gather::<Host>::CHECKS, gather.params);
    let rows = live(checks, "rows", gather.rows, p.rows_max)?;
    let indices = &cast::<u32>(gather.indices)[..rows];
    checks.elements("indices", indices, 0..=p.x_rows - 1)?;
    let element = dtype.align() as usize;
    let bytes = p.columns as usize * element;
    let (from, to) = (p.x_row_stride as usize * element, p.out_row_stride as usize * element);
    let tiles = (rows.saturating_mul(bytes) / TILE_BYTES).clamp(1, workers.count() as usize) as u32;
    let out = Pieces::new(gather.out, rows, to, tiles);
    split(workers, tiles, out, |tile, out| {
        let own = even(rows, tiles, tile);
        for (at, &index) in indices[own].iter().enumerate() {
            let x = &gather.x[index as usize * from..][..bytes];
            out[at * to..][..bytes].copy_from_slice(x);
        }
    });
    Ok(())
}
