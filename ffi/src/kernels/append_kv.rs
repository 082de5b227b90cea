//! `append_kv`, as C calls it.

use super::layout::{Matrix, Slabs, reserved, words};
use super::plan::{LISTS, Step};
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::guard::{Sized32, read};
use crate::header::pw_append_kv_lens;
use crate::memory::Buffers;
use kernels_core::append_kv::AppendKv;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::params;

const CHECKS: Checks = AppendKv::<Recorded>::CHECKS;

struct Call {
    params: params::AppendKv,
    slabs: Slabs,
    k: Matrix,
    v: Matrix,
}

// SAFETY: bindgen's struct of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_append_kv_lens {
    const LEAST: u32 = 16;
}

impl Kernel for Call {
    kernel!(append_kv AppendKv, pw_append_kv_desc, pw_append_kv_args, b"pw-app-1", workspace);
    type Lens = *const pw_append_kv_lens;

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let slabs = Slabs::new(CHECKS, &desc.kv)?;
        let x = Dtype::parse_float(CHECKS, "x_dtype", desc.x_dtype)?;
        let width = u64::from(desc.kv.kv_heads) * u64::from(desc.kv.head_dim);
        let k = Matrix::new("k_row_stride", desc.k_row_stride, x, width)?;
        let v = Matrix::new("v_row_stride", desc.v_row_stride, x, width)?;
        let params = params::AppendKv {
            kv: slabs.params,
            k_row_stride: k.row_stride,
            v_row_stride: v.row_stride,
            rows_max: desc.rows_max,
            slots_max: desc.slots_max,
            x_dtype: desc.x_dtype,
            rope: desc.rope,
            rotary_dims: desc.rotary_dims,
            table_len: desc.table_len,
        };
        Ok(Self { params, slabs, k, v })
    }

    fn most(&self) -> Step<'static> {
        // A row may have any number of slots; a device reads starts from every plan.
        Step::of([self.params.rows_max, self.params.slots_max, 1])
    }

    fn lists(&self) -> [u64; LISTS] {
        [u64::from(self.params.rows_max) + 1, 0, 0, 0, 0, 0]
    }

    /// Row r goes to slot r.
    fn absent(_list: usize, words: &mut [u32]) {
        words.iter_mut().zip(0..).for_each(|(word, slot)| *word = slot);
    }

    unsafe fn step<'a>(&self, lens: Self::Lens) -> Result<Step<'a>, Refusal> {
        // SAFETY: as the caller of this says.
        let lens = unsafe { read("lens", lens) }?;
        let (p, rows) = (&self.params, lens.rows);
        CHECKS.range("rows", rows, 0..=p.rows_max.into())?;
        if lens.slot_starts.is_null() {
            CHECKS.range("rows", rows, 0..=p.slots_max.into())?;
            return Ok(Step::of([rows, rows, 0]));
        }
        // SAFETY: as the caller of this says.
        let starts = unsafe {
            Buffers::new().read("slot_starts", lens.slot_starts, 4 * (u64::from(rows) + 1))?
        };
        let starts: &[u32] = bytemuck::cast_slice(starts);
        CHECKS.ascending("slot_starts", starts, p.slots_max)?;
        let mut step = Step::of([rows, starts[rows as usize], 1]);
        step.lists[0] = starts;
        if step.counts[1] == 0 {
            // No row asks for a slot.
            step = Step::default();
        }
        Ok(step)
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, slots, listed] = step.counts;
        let p = &self.params;
        let starts = There::If(listed == 1, "slot_starts");
        let turns = There::If(p.rope != params::ROPE_NONE, "rope");
        let table_bytes = words(&[p.table_len.into(), p.rotary_dims.into()]);
        let ((own, value_bytes), (scaled, scale_bytes)) =
            (self.slabs.values(), self.slabs.scales());
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(AppendKv {
                params: params::AppendKv { rows_max: rows, slots_max: slots, ..*p },
                k: at.read("k", args.k.cast::<u8>(), self.k.bytes(rows))?,
                v: at.read("v", args.v.cast::<u8>(), self.v.bytes(rows))?,
                keys: at.update("keys", args.keys.cast::<u8>(), self.slabs.keys_bytes())?,
                values: at.maybe_update(
                    "values",
                    args.values.cast::<u8>(),
                    There::If(own, "kv.v_offset 0"),
                    value_bytes,
                )?,
                scales: at.maybe_update(
                    "kv_scales",
                    args.kv_scales,
                    There::If(scaled, "PW_KV_SCALES_TOKEN"),
                    scale_bytes,
                )?,
                slots: at.read("slots", args.slots, 8 * u64::from(slots))?,
                slot_starts: at.maybe_list(step, 0, starts, u64::from(rows) + 1),
                table: at.maybe_read("table", args.table, turns, table_bytes)?,
                positions: at.maybe_read(
                    "positions",
                    args.positions,
                    turns,
                    4 * u64::from(rows),
                )?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(
    export Call,
    pw_append_kv_query,
    pw_append_kv_plan(lens: *const pw_append_kv_lens),
    pw_append_kv_run,
    136, 104
);
