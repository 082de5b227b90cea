//! Weights, from the rows of a checkpoint to what products read.

use crate::error::Refusal;
use crate::guard::{Sized32, aligned, read};
use crate::header::{pw_rows, pw_weight};
use crate::memory::{Buffers, tell};
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault, extent};
use kernels_core::packing::{Groups, Source, Values, Weight, pack, packed_bytes};
use kernels_core::params;
use std::ffi::c_void;

const CHECKS: Checks = Checks("pack");

// SAFETY: bindgen's struct of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_rows {
    const LEAST: u32 = 40;
}

/// # Safety
///
/// The pointer is NULL, or leads to one.
unsafe fn weight(of: *const pw_weight) -> Result<params::Weight, Refusal> {
    aligned("weight", of)?;
    // SAFETY: it is there, and aligned.
    Ok(crate::kernels::weight(unsafe { &*of }))
}

/// Rows as they are in memory.
///
/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn source<'a>(
    buffers: &mut Buffers,
    weight: &Weight,
    rows: &pw_rows,
) -> Result<Source<'a>, Refusal> {
    let unused = |field, at: *const c_void, needs| match at.is_null() {
        true => Ok(()),
        false => Err(Refusal::Number { field, fault: Fault::Unused { needs } }),
    };
    let values = rows.values.cast::<u8>();
    let count = extent(&[rows.count.into(), weight.inputs as u64]);
    let bytes = |dtype: Dtype, count| dtype.bytes(count).unwrap_or(u64::MAX);
    match weight.values {
        Values::Floats(_) => {
            unused("scales", rows.scales, "I8 or I4")?;
            unused("biases", rows.biases, "I8 or I4")?;
            let dtype = Dtype::parse_float(CHECKS, "dtype", rows.dtype)?;
            // SAFETY: as the caller of this says.
            let values = unsafe { buffers.read("values", values, bytes(dtype, count)) }?;
            Ok(Source::Floats { dtype, values })
        }
        Values::Groups(Groups { nibbles, affine, len, scale }) => {
            CHECKS.equal("dtype", 0, rows.dtype.into())?;
            let dtype = if nibbles { Dtype::I4 } else { Dtype::I8 };
            let scale_bytes = bytes(scale, count.map(|count| count / len as u64));
            // SAFETY: as the caller of this says.
            let (numbers, scales) = unsafe {
                (
                    buffers.read("values", values, bytes(dtype, count))?,
                    buffers.read("scales", rows.scales.cast::<u8>(), scale_bytes)?,
                )
            };
            let biases = match affine {
                false => {
                    unused("biases", rows.biases, "PW_SCHEME_AFFINE")?;
                    &[]
                }
                // SAFETY: as the caller of this says.
                true => unsafe { buffers.read("biases", rows.biases.cast::<u8>(), scale_bytes)? },
            };
            Ok(Source::Groups { numbers, scales, biases })
        }
    }
}

export! {
    fn pw_weight_bytes(of: *const pw_weight, bytes: *mut u64) {
        tell("bytes", bytes, packed_bytes(&weight(of)?)?)
    }
    fn pw_weight_pack(
        of: *const pw_weight,
        rows: *const pw_rows,
        packed: *mut c_void,
        packed_size: u64,
    ) {
        let (of, rows) = (weight(of)?, read("rows", rows)?);
        let parsed = Weight::parse(CHECKS, &of)?;
        let expected = packed_bytes(&of)?;
        if packed_size < expected {
            return Err(Refusal::Space { field: "packed", expected, got: packed_size });
        }
        CHECKS.range("first", rows.first, 0..=of.outputs.into())?;
        CHECKS.range("count", rows.count, 0..=(of.outputs - rows.first).into())?;
        if rows.count == 0 {
            return Ok(());
        }
        let mut buffers = Buffers::new();
        let source = source(&mut buffers, &parsed, &rows)?;
        let packed = buffers.write("packed", packed.cast::<u8>(), expected)?;
        Ok(pack(&of, rows.first..rows.first + rows.count, source, packed)?)
    }
}
