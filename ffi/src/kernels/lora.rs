//! `lora`, as C calls it, and adapters as it reads them.

use super::layout::{Matrix, bytes, words};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::guard::{aligned, read};
use crate::header::pw_lora_desc;
use crate::memory::Buffers;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, extent};
use kernels_core::lora::{Lora, a_elements, b_elements, pack_a, pack_b};
use kernels_core::params;
use std::ffi::c_void;

const CHECKS: Checks = Lora::<Recorded>::CHECKS;

struct Call {
    params: params::Lora,
    weight: Dtype,
    x: Matrix,
    out: Matrix,
}

impl Call {
    /// Bytes of a slot of A, and of one of B.
    fn slot_bytes(&self) -> (u64, u64) {
        let of = |elements| bytes(self.weight, elements);
        (of(a_elements(&self.params)), of(b_elements(&self.params)))
    }
}

impl Kernel for Call {
    kernel!(lora Lora, pw_lora_desc, pw_lora_args, b"pw-lor-1", workspace);
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let weight = Dtype::parse_float(CHECKS, "weight_dtype", desc.weight_dtype)?;
        let (inputs, outputs) = (u64::from(desc.inputs), u64::from(desc.outputs));
        let x = Matrix::new("x_row_stride", desc.x_row_stride, x, inputs)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, Dtype::F32, outputs)?;
        let params = params::Lora {
            x_row_stride: x.row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            inputs: desc.inputs,
            outputs: desc.outputs,
            slots: desc.slots,
            rank_max: desc.rank_max,
            x_dtype: desc.x_dtype,
            weight_dtype: desc.weight_dtype,
            reserved: 0,
        };
        Ok(Self { params, weight, x, out })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let (p, slots) = (&self.params, u64::from(self.params.slots));
        let (a_bytes, b_bytes) = self.slot_bytes();
        let all = |bytes| extent(&[slots, bytes]).unwrap_or(u64::MAX);
        let magnitude_bytes = words(&[slots, p.outputs.into()]);
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Lora {
                params: params::Lora { rows_max: rows, ..*p },
                x: at.read("x", args.x.cast::<u8>(), self.x.bytes(rows))?,
                a: at.read("a", args.a.cast::<u8>(), all(a_bytes))?,
                b: at.read("b", args.b.cast::<u8>(), all(b_bytes))?,
                ranks: at.read("ranks", args.ranks, 4 * slots)?,
                scales: at.read("scales", args.scales, 4 * slots)?,
                magnitudes: at.maybe_read(
                    "magnitudes",
                    args.magnitudes,
                    There::Maybe,
                    magnitude_bytes,
                )?,
                adapters: at.read("adapters", args.adapters, 4 * u64::from(rows))?,
                rows: at.live(0),
                out: at.update("out", args.out, self.out.bytes(rows))?,
            })
        }
    }
}

kernel!(export Call, pw_lora_query, pw_lora_plan(rows: u32), pw_lora_run, 48, 104);

/// The descriptor of an adapter's slots.
///
/// # Safety
///
/// The pointer is NULL, or leads to one.
unsafe fn call(desc: *const pw_lora_desc) -> Result<Call, Refusal> {
    // SAFETY: as the caller of this says.
    let call = Call::new(&unsafe { read("desc", desc) }?)?;
    Call::needs(&super::largest(&call, None)?, 1)?;
    Ok(call)
}

/// The elements of a slot, whatever their type.
fn pack<T: bytemuck::Pod>(
    (a, b): (&[u8], &[u8]),
    (a_slot, b_slot): (&mut [u8], &mut [u8]),
    (inputs, rank): (usize, usize),
) {
    use bytemuck::{cast_slice, cast_slice_mut};
    pack_a::<T>(cast_slice(a), inputs, cast_slice_mut(a_slot));
    pack_b::<T>(cast_slice(b), rank, cast_slice_mut(b_slot));
}

export! {
    fn pw_lora_bytes(desc: *const pw_lora_desc, a_bytes: *mut u64, b_bytes: *mut u64) {
        let (a, b) = call(desc)?.slot_bytes();
        aligned("a_bytes", a_bytes)?;
        aligned("b_bytes", b_bytes)?;
        a_bytes.write(a);
        b_bytes.write(b);
        Ok(())
    }
    fn pw_lora_pack(
        desc: *const pw_lora_desc,
        rank: u32,
        a: *const c_void,
        b: *const c_void,
        a_slot: *mut c_void,
        b_slot: *mut c_void,
    ) {
        let call = call(desc)?;
        let p = &call.params;
        CHECKS.range("rank", rank, 1..=p.rank_max.into())?;
        let (a_bytes, b_bytes) = call.slot_bytes();
        let rows = |width: u32| bytes(call.weight, u64::from(rank) * u64::from(width));
        let mut buffers = Buffers::new();
        let shape = (p.inputs as usize, rank as usize);
        if call.weight == Dtype::F32 {
            let from = (
                buffers.read("a", a.cast::<u32>(), rows(p.inputs))?,
                buffers.read("b", b.cast::<u32>(), rows(p.outputs))?,
            );
            let to = (
                buffers.write("a_slot", a_slot.cast::<u32>(), a_bytes)?,
                buffers.write("b_slot", b_slot.cast::<u32>(), b_bytes)?,
            );
            pack::<u32>(from, to, shape);
        } else {
            let from = (
                buffers.read("a", a.cast::<u16>(), rows(p.inputs))?,
                buffers.read("b", b.cast::<u16>(), rows(p.outputs))?,
            );
            let to = (
                buffers.write("a_slot", a_slot.cast::<u16>(), a_bytes)?,
                buffers.write("b_slot", b_slot.cast::<u16>(), b_bytes)?,
            );
            pack::<u16>(from, to, shape);
        }
        Ok(())
    }
}
