//! `matmul`: rows are converted, then few go by 16 and many by 64 or 128; which of the two, each
//! launch sees on the device.

use crate::Facts;
use kernels_core::Error;
use kernels_core::command::Raw;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::matmul::{Matmul, SEGMENT};
use kernels_core::packing::{Values, Weight};
use plugin::lower::looping;
use plugin::{Launch, Launches};

/// Threads of a block.
pub(super) const THREADS: u32 = 256;
/// Warps of a block.
pub(super) const WARPS: u32 = THREADS / 32;
/// Rows of a block that takes few.
pub(super) const FEW_ROWS: u64 = 16;
/// Tiles of a block that takes many rows.
const MANY_TILES: u32 = 4;
/// Rows from which on a block of many is worth it.
pub(super) const FEW_MOST: u32 = 32;
/// Chunks of rows in shared memory.
const STAGES: u32 = 3;
/// Bytes of a chunk of one row.
const CHUNK_BYTES: u64 = 64;
/// Blocks along the second axis at most; they loop over what is beyond.
const GRID_MOST: u64 = 32_768;

/// How a weight is multiplied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    F32,
    I4,
    I8,
    Bf16(u32),
    F16(u32),
}

impl Form {
    pub(super) fn of(weight: &Weight, x: u32) -> Self {
        let same = |dtype: Dtype| x == dtype as u32;
        match weight.values {
            Values::Groups(groups) if groups.nibbles => Self::I4,
            Values::Groups(_) => Self::I8,
            Values::Floats(Dtype::F32) => Self::F32,
            Values::Floats(Dtype::F16) => Self::F16(if same(Dtype::F16) { 1 } else { 2 }),
            Values::Floats(_) if same(Dtype::Bf16) => Self::Bf16(1),
            Values::Floats(_) => Self::Bf16(if same(Dtype::F16) { 2 } else { 3 }),
        }
    }

    /// Pieces that a number of x becomes.
    fn pieces(self) -> u32 {
        match self {
            Self::Bf16(pieces) | Self::F16(pieces) => pieces,
            _ => 1,
        }
    }

    /// Bytes of converted rows.
    pub(super) fn converted_bytes(self, weight: &Weight, rows_max: u32) -> u64 {
        let inputs = weight.inputs as u64;
        let (chunk, tail) = match weight.values {
            Values::Groups(groups) => (64, inputs / groups.len as u64 * 8),
            Values::Floats(_) => (32, inputs.div_ceil(SEGMENT as u64) * 4),
        };
        let chunks = inputs.div_ceil(chunk);
        match self {
            Self::F32 => 0,
            _ => u64::from(rows_max) * (chunks * u64::from(self.pieces()) * CHUNK_BYTES + tail),
        }
    }

    /// Shared memory of a block that takes few rows.
    pub(super) fn few_bytes(self) -> u32 {
        let staged = if self == Self::F32 { WARPS * 16 * 64 * 4 } else { 0 };
        (WARPS + 1) * 16 * 32 * 4 + staged
    }

    /// Rows of a block that takes many.
    fn many_rows(self) -> u64 {
        // More sums than these do not fit beside pieces, or beside sums of groups.
        if matches!(self, Self::Bf16(1) | Self::F16(1)) { 128 } else { 64 }
    }

    /// Shared memory of a block that takes so many rows.
    pub(super) fn many_bytes(self, rows: u64) -> u32 {
        STAGES * self.pieces() * rows as u32 * CHUNK_BYTES as u32
    }

    fn few_entry(self) -> &'static str {
        match self {
            Self::F32 => "pw_matmul_few_f32",
            Self::I4 => "pw_matmul_few_i4",
            Self::I8 => "pw_matmul_few_i8",
            Self::Bf16(1) => "pw_matmul_few_bf16_1",
            Self::Bf16(2) => "pw_matmul_few_bf16_2",
            Self::Bf16(_) => "pw_matmul_few_bf16_3",
            Self::F16(1) => "pw_matmul_few_f16_1",
            Self::F16(_) => "pw_matmul_few_f16_2",
        }
    }

    /// None where few rows at a time serve any number.
    fn many_entry(self) -> Option<&'static str> {
        Some(match self {
            Self::F32 => return None,
            Self::I4 => "pw_matmul_many_i4",
            Self::I8 => "pw_matmul_many_i8",
            Self::Bf16(1) => "pw_matmul_many_bf16_1",
            Self::Bf16(2) => "pw_matmul_many_bf16_2",
            Self::Bf16(_) => "pw_matmul_many_bf16_3",
            Self::F16(1) => "pw_matmul_many_f16_1",
            Self::F16(_) => "pw_matmul_many_f16_2",
        })
    }
}

/// The launch that converts rows.
pub(super) fn convert(
    entry: &'static str,
    weight: &Weight,
    rows_max: u32,
    facts: &Facts,
) -> Launch {
    let segments = weight.inputs.div_ceil(SEGMENT) as u64;
    let blocks = (u64::from(rows_max) * segments).div_ceil(u64::from(WARPS));
    looping(entry, THREADS, blocks, facts)
}

/// Blocks along the two axes where few rows go by 16: tiles, several at once where segments
/// leave warps over, and rows.
pub(super) fn few_grid(weight: &Weight, rows: u32) -> [u32; 3] {
    let segments = weight.inputs.div_ceil(SEGMENT) as u32;
    let together = if segments < WARPS { WARPS / segments } else { 1 };
    [(weight.tiles() as u32).div_ceil(together), along(FEW_ROWS, rows), 1]
}

/// Blocks along the second axis, each of so many rows.
fn along(each: u64, rows: u32) -> u32 {
    u64::from(rows).div_ceil(each).min(GRID_MOST) as u32
}

pub fn lower(matmul: &Matmul<Raw>, facts: &Facts) -> Result<Launches, Error> {
    let p = &matmul.params;
    let weight = Weight::parse(Checks("matmul"), &p.weight)?;
    let form = Form::of(&weight, p.x_dtype);
    let (tiles, rows_max) = (weight.tiles() as u32, p.rows_max);
    let many = form.many_entry().filter(|_| rows_max > FEW_MOST);
    let rows = if many.is_some() { FEW_MOST } else { rows_max };
    let mut launches = Launches::default();
    if form != Form::F32 {
        launches.push(convert("pw_matmul_convert", &weight, rows_max, facts));
    }
    launches.push(Launch {
        entry: form.few_entry(),
        grid: few_grid(&weight, rows),
        block: THREADS,
        shared_bytes: form.few_bytes(),
        told: [if many.is_some() { FEW_MOST } else { 0 }, 0],
    });
    if let Some(entry) = many {
        launches.push(Launch {
            entry,
            grid: [tiles.div_ceil(MANY_TILES), along(form.many_rows(), rows_max), 1],
            block: THREADS,
            shared_bytes: form.many_bytes(form.many_rows()),
            told: [FEW_MOST, 0],
        });
    }
    Ok(launches.with_workspace(form.converted_bytes(&weight, rows_max)))
}
