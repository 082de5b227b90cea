//! `matmul`: rows for weights in groups are quantised; few rows go by 8 and, of float weights,
//! many by 64; which of the two, each launch sees on the device.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::error::Checks;
use kernels_core::matmul::{Matmul, SEGMENT};
use kernels_core::packing::{Values, Weight};
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a threadgroup.
pub(super) const THREADS: u32 = 128;
/// SIMD groups of a threadgroup.
const SIMDGROUPS: u32 = THREADS / 32;
/// Rows of a threadgroup that takes few.
pub(super) const FEW_ROWS: u32 = 8;
/// Rows of a threadgroup that takes many.
pub(super) const MANY_ROWS: u32 = 64;
/// Rows up to which few go together.
pub(super) const FEW_MOST: u32 = 32;
/// Threadgroups along the second axis at most; they loop over what is beyond.
const GRID_MOST: u32 = 32_768;
/// Bytes of a chunk of 32 inputs of one row or output.
const CHUNK_BYTES: u32 = 32 * 4;

/// Bytes of quantised rows: numbers, and 8 for each group.
pub(super) fn converted_bytes(weight: &Weight, rows_max: u32) -> u64 {
    let inputs = weight.inputs as u64;
    match weight.values {
        Values::Groups(groups) => u64::from(rows_max) * (inputs + inputs / groups.len as u64 * 8),
        Values::Floats(_) => 0,
    }
}

/// The launch that quantises rows.
pub(super) fn convert(
    entry: &'static str,
    weight: &Weight,
    rows_max: u32,
    facts: &Facts,
) -> Launch {
    let segments = weight.inputs.div_ceil(SEGMENT) as u64;
    let blocks = (u64::from(rows_max) * segments).div_ceil(u64::from(SIMDGROUPS));
    looping(entry, THREADS, blocks, facts)
}

/// Threadgroup memory where few rows go together: sums, and what is staged of float weights.
pub(super) fn few_bytes(weight: &Weight) -> u32 {
    let sums = SIMDGROUPS * FEW_ROWS * 32 * 4;
    match weight.values {
        Values::Groups(_) => sums,
        Values::Floats(_) => sums + SIMDGROUPS * (FEW_ROWS + 32) * CHUNK_BYTES,
    }
}

/// Threadgroup memory where many rows go together.
pub(super) fn many_bytes() -> u32 {
    (MANY_ROWS + 32 + MANY_ROWS) * CHUNK_BYTES
}

/// Whether a weight is whole numbers in groups.
pub(super) fn is_grouped(weight: &Weight) -> bool {
    matches!(weight.values, Values::Groups(_))
}

pub fn lower(matmul: &Matmul<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &matmul.params;
    let weight = Weight::parse(Checks("matmul"), &p.weight)?;
    let grouped = is_grouped(&weight);
    let many = !grouped && p.rows_max > FEW_MOST;
    let rows = if many { FEW_MOST } else { p.rows_max };
    let told = [if many { FEW_MOST } else { 0 }, 0];
    let mut launches = Launches::default();
    if grouped {
        launches.push(convert("pw_matmul_convert", &weight, p.rows_max, facts));
    }
    let launch = |entry, rows: u32, each: u32, shared_bytes| Launch {
        entry,
        grid: [weight.tiles() as u32, rows.div_ceil(each).min(GRID_MOST), 1],
        block: THREADS,
        shared_bytes,
        told,
    };
    launches.push(launch("pw_matmul_few", rows, FEW_ROWS, few_bytes(&weight)));
    if many {
        launches.push(launch("pw_matmul_many", p.rows_max, MANY_ROWS, many_bytes()));
    }
    Ok(launches.with_workspace(converted_bytes(&weight, p.rows_max)))
}
