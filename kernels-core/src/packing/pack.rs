//! From the rows of a checkpoint to tiles.

use super::{ALIGN, Groups, TILE, Values, Weight};
use crate::dtype::Dtype;
use crate::error::{Checks, Error, Fault};
use crate::params;
use half::{bf16, f16};

const CHECKS: Checks = Checks("pack");

/// Inputs of a tile that are filled at once: an even number.
const BLOCK: usize = 64;

/// Rows of a matrix as a checkpoint has them: little-endian, at any address.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// Floats, rounded to the packed type.
    Floats {
        /// Their type: f32, f16 or bf16.
        dtype: Dtype,
        /// `[outputs][inputs]`.
        values: &'a [u8],
    },
    /// Whole numbers in groups of the packed length.
    Groups {
        /// `[outputs][inputs]` bytes, or nibbles with the low one first: unsigned with
        /// an affine scheme, two's complement with a symmetric one.
        numbers: &'a [u8],
        /// `[outputs][inputs / group]` of the packed scale type.
        scales: &'a [u8],
        /// `[outputs][inputs / group]` of the packed scale type; empty with a symmetric
        /// scheme.
        biases: &'a [u8],
    },
}

/// Packs the rows of some outputs into their place in `packed`, which holds the
/// whole matrix; matrices that share their input are packed by one call each.
pub fn pack(
    weight: &params::Weight,
    outputs: core::ops::Range<u32>,
    source: Source<'_>,
    packed: &mut [u8],
) -> Result<(), Error> {
    let weight = Weight::parse(CHECKS, weight)?;
    weight.check(CHECKS, "packed", &&*packed)?;
    let most = weight.outputs as i64;
    checked_range(&outputs, most)?;
    let outputs = outputs.start as usize..outputs.end as usize;
    let count = outputs.len() as u64 * weight.inputs as u64;
    match (weight.values, source) {
        (Values::Floats(to), Source::Floats { dtype, values }) => {
            Dtype::parse_float(CHECKS, "dtype", dtype as u32)?;
            exactly("values", dtype.bytes(Some(count)), values)?;
            let bytes = weight.inputs * dtype.align() as usize;
            let mut first = outputs.start;
            while first < outputs.end {
                let end = (first / TILE * TILE + TILE).min(outputs.end);
                let values =
                    &values[(first - outputs.start) * bytes..(end - outputs.start) * bytes];
                pack_tile(&weight, to, first..end, dtype, values, packed);
                first = end;
            }
        }
        (Values::Groups(groups), Source::Groups { numbers, scales, biases }) => {
            let each = count / groups.len as u64;
            exactly("numbers", Some(count >> groups.nibbles as u32), numbers)?;
            exactly("scales", groups.scale.bytes(Some(each)), scales)?;
            let biases_count = if groups.affine { each } else { 0 };
            exactly("biases", groups.scale.bytes(Some(biases_count)), biases)?;
            finite("scales", groups.scale, scales)?;
            finite("biases", groups.scale, biases)?;
            let per_row = weight.inputs / groups.len;
            for (row, output) in outputs.enumerate() {
                let numbers_bytes = weight.inputs >> groups.nibbles as u32;
                let scale_bytes = per_row * groups.scale.align() as usize;
                let bias_bytes = if groups.affine { scale_bytes } else { 0 };
                let row = Row {
                    numbers: &numbers[row * numbers_bytes..][..numbers_bytes],
                    scales: &scales[row * scale_bytes..][..scale_bytes],
                    biases: &biases[row * bias_bytes..][..bias_bytes],
                };
                pack_groups(&weight, groups, output, row, packed);
            }
        }
        (Values::Floats(_), Source::Groups { .. }) => {
            let fault = Fault::Unused { needs: "a grouped weight" };
            return Err(CHECKS.refuse("numbers", fault));
        }
        (Values::Groups(_), Source::Floats { .. }) => {
            let fault = Fault::Missing { needed_by: "a grouped weight" };
            return Err(CHECKS.refuse("numbers", fault));
        }
    }
    Ok(())
}

/// Bytes that a packed matrix takes, from a multiple of 64.
pub fn packed_bytes(weight: &params::Weight) -> Result<u64, Error> {
    Ok(Weight::parse(CHECKS, weight)?.bytes().next_multiple_of(ALIGN))
}

fn checked_range(outputs: &core::ops::Range<u32>, most: i64) -> Result<(), Error> {
    CHECKS.range("outputs.end", outputs.end, 0..=most)?;
    CHECKS.range("outputs.start", outputs.start, 0..=i64::from(outputs.end))
}

fn exactly(field: &'static str, expected: Option<u64>, got: &[u8]) -> Result<(), Error> {
    let (expected, got) = (expected.unwrap_or(u64::MAX), got.len() as u64);
    if expected == got {
        return Ok(());
    }
    Err(CHECKS.refuse(field, Fault::Bytes { expected, got }))
}

fn finite(field: &'static str, dtype: Dtype, bytes: &[u8]) -> Result<(), Error> {
    let each = dtype.align() as usize;
    match bytes.chunks_exact(each).position(|bytes| !float(dtype, bytes).is_finite()) {
        None => Ok(()),
        Some(at) => Err(CHECKS.refuse(field, Fault::NotFiniteAt { at: at as u64 })),
    }
}

/// One little-endian float.
fn float(dtype: Dtype, bytes: &[u8]) -> f32 {
    match dtype {
        Dtype::F32 => f32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]),
        Dtype::F16 => f16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
        _ => bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(),
    }
}

/// Some outputs of one tile, a block of inputs after the other: what is written of a
/// block stays in the nearest cache until all its outputs are.
fn pack_tile(
    weight: &Weight,
    to: Dtype,
    outputs: core::ops::Range<usize>,
    from: Dtype,
    values: &[u8],
    packed: &mut [u8],
) {
    let each = from.align() as usize;
    let tile = &mut packed[outputs.start / TILE * weight.tile_bytes()..];
    for first in (0..weight.inputs).step_by(BLOCK) {
        let end = (first + BLOCK).min(weight.inputs);
        let rows = values.chunks_exact(weight.inputs * each);
        for (output, row) in outputs.clone().zip(rows) {
            pack_floats(to, first, output % TILE, from, &row[first * each..end * each], tile);
        }
    }
}

/// Inputs from `first` on of one output, into its lane of a tile.
fn pack_floats(to: Dtype, first: usize, lane: usize, from: Dtype, row: &[u8], tile: &mut [u8]) {
    let each = from.align() as usize;
    match (from, to) {
        (Dtype::Bf16, Dtype::Bf16) => {
            let (pairs, odd) = row.as_chunks::<4>();
            for (k, pair) in (first / 2..).zip(pairs) {
                put(tile, (k * TILE + lane) * 4, pair);
            }
            if !odd.is_empty() {
                put(tile, ((first / 2 + pairs.len()) * TILE + lane) * 4, odd);
            }
        }
        (Dtype::F16, Dtype::F16) => {
            for (k, value) in (first..).zip(row.as_chunks::<2>().0) {
                put(tile, (k * TILE + lane) * 2, value);
            }
        }
        (_, Dtype::F32) => {
            for (k, bytes) in (first..).zip(row.chunks_exact(each)) {
                put(tile, (k * TILE + lane) * 4, &float(from, bytes).to_le_bytes());
            }
        }
        (_, Dtype::F16) => {
            for (k, bytes) in (first..).zip(row.chunks_exact(each)) {
                let bits = f16::from_f32(float(from, bytes)).to_le_bytes();
                put(tile, (k * TILE + lane) * 2, &bits);
            }
        }
        _ => {
            for (k, bytes) in (first..).zip(row.chunks_exact(each)) {
                let bits = bf16::from_f32(float(from, bytes)).to_le_bytes();
                put(tile, ((k / 2 * TILE + lane) * 2 + k % 2) * 2, &bits);
            }
        }
    }
}

/// One output of a grouped matrix.
struct Row<'a> {
    numbers: &'a [u8],
    scales: &'a [u8],
    biases: &'a [u8],
}

fn pack_groups(weight: &Weight, groups: Groups, output: usize, row: Row<'_>, packed: &mut [u8]) {
    let (tile, lane) = (output / TILE * weight.tile_bytes(), output % TILE);
    let each = groups.scale.align() as usize;
    let sources = row.numbers.chunks_exact(groups.len >> groups.nibbles as u32);
    for (group, numbers) in sources.enumerate() {
        let head = tile + group * groups.bytes();
        put(packed, head + lane * each, &row.scales[group * each..][..each]);
        if groups.affine {
            let bias = &row.biases[group * each..][..each];
            put(packed, head + (TILE + lane) * each, bias);
        }
        let body = head + groups.head_bytes();
        // Adding 8 or 128 modulo 16 or 256 flips the top bit.
        if groups.nibbles {
            let flip = if groups.affine { 0 } else { 0x88 };
            for (eight, four) in numbers.as_chunks::<4>().0.iter().enumerate() {
                let nibble = |k: usize| four[k / 2] >> (4 * (k % 2)) & 15;
                let stored: [u8; 4] =
                    core::array::from_fn(|j| (nibble(j) | nibble(j + 4) << 4) ^ flip);
                put(packed, body + (eight * TILE + lane) * 4, &stored);
            }
        } else {
            let flip = if groups.affine { 0 } else { 0x80 };
            for (at, four) in numbers.as_chunks::<4>().0.iter().enumerate() {
                put(packed, body + (at * TILE + lane) * 4, &four.map(|byte| byte ^ flip));
            }
        }
    }
}

#[inline(always)]
fn put(packed: &mut [u8], at: usize, bytes: &[u8]) {
    packed[at..at + bytes.len()].copy_from_slice(bytes);
}
