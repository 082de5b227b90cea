//! `logit_mask`, as C calls it.

use super::layout::{Matrix, masks, reserved};
use super::plan::{LISTS, Step};
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::guard::{Sized32, read};
use crate::header::{pw_logit_mask_lens, pw_logit_mask_row};
use crate::memory::Buffers;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::logit_mask::LogitMask;
use kernels_core::params;

const CHECKS: Checks = LogitMask::<Recorded>::CHECKS;
/// C's rows are the kernel's.
const _: () = assert!(size_of::<pw_logit_mask_row>() == size_of::<params::LogitMaskRow>());

struct Call {
    params: params::LogitMask,
    logits: Matrix,
    counts: Option<Matrix>,
}

// SAFETY: bindgen's struct of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_logit_mask_lens {
    const LEAST: u32 = 32;
}

impl Kernel for Call {
    kernel!(logit_mask LogitMask, pw_logit_mask_desc, pw_logit_mask_args, b"pw-msk-1");
    type Lens = *const pw_logit_mask_lens;

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let vocab = u64::from(desc.vocab);
        let logits = Matrix::new("row_stride", desc.row_stride, Dtype::F32, vocab)?;
        // Counts are two bytes each, as f16 is.
        let counts = Matrix::maybe("counts_stride", desc.counts_stride, Dtype::F16, vocab)?;
        if desc.slots == 0 && counts.is_some() {
            let fault = Fault::Equal { expected: 0, got: desc.counts_stride };
            return Err(Refusal::Number { field: "counts_stride", fault });
        }
        if desc.slots > 0 && counts.is_none() {
            let fault = Fault::Missing { needed_by: "slots" };
            return Err(Refusal::Number { field: "counts_stride", fault });
        }
        if desc.counted_max > 0 && desc.slots == 0 {
            let fault = Fault::Unused { needs: "slots" };
            return Err(Refusal::Number { field: "counted_max", fault });
        }
        let params = params::LogitMask {
            row_stride: logits.row_stride,
            counts_stride: counts.map_or(0, |counts| counts.row_stride),
            rows_max: desc.rows_max,
            vocab: desc.vocab,
            masks: desc.masks,
            mask_words: desc.mask_words,
            banned_max: desc.banned_max,
            bias_max: desc.bias_max,
            slots: desc.slots,
            counted_max: desc.counted_max,
        };
        Ok(Self { params, logits, counts })
    }

    fn most(&self) -> Step<'static> {
        Step::of([self.params.rows_max, 0, 0])
    }

    fn lists(&self) -> [u64; LISTS] {
        let p = &self.params;
        let starts = |most| if most > 0 { u64::from(p.rows_max) + 1 } else { 0 };
        [starts(p.banned_max), starts(p.bias_max), starts(p.counted_max), 0, 0, 0]
    }

    unsafe fn step<'a>(&self, lens: Self::Lens) -> Result<Step<'a>, Refusal> {
        // SAFETY: as the caller of this says.
        let lens = unsafe { read("lens", lens) }?;
        let (p, rows) = (&self.params, lens.rows);
        CHECKS.range("rows", rows, 0..=p.rows_max.into())?;
        let mut step = Step::of([rows, 0, 0]);
        let lists = [
            ("banned_starts", lens.banned_starts, "banned_max", p.banned_max),
            ("bias_starts", lens.bias_starts, "bias_max", p.bias_max),
            ("counted_starts", lens.counted_starts, "counted_max", p.counted_max),
        ];
        let mut buffers = Buffers::new();
        for (list, (field, at, needs, most)) in step.lists.iter_mut().zip(lists) {
            match (most > 0, at.is_null()) {
                (true, true) => return Err(Refusal::Null(field)),
                (false, false) => {
                    return Err(Refusal::Number { field, fault: Fault::Unused { needs } });
                }
                (false, true) => {}
                (true, false) => {
                    // SAFETY: as the caller of this says.
                    let starts = unsafe { buffers.read(field, at, 4 * (u64::from(rows) + 1))? };
                    *list = bytemuck::cast_slice(starts);
                    CHECKS.ascending(field, list, most)?;
                }
            }
        }
        Ok(step)
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let (p, each) = (&self.params, u64::from(rows));
        let settings_bytes = size_of::<params::LogitMaskRow>() as u64 * each;
        let mask_bytes = masks(p.vocab, [p.masks, p.mask_words]);
        let masked = There::If(p.masks > 0, "masks");
        let counted = There::If(p.slots > 0, "slots");
        let counts_bytes = self.counts.map_or(0, |counts| counts.bytes(p.slots));
        // Entries in use, or all there may be of a step that is not made yet.
        let entries = |list: usize, most: u32| match step.lists[list].last() {
            Some(end) => *end,
            None => most,
        };
        let banned = entries(0, p.banned_max);
        let biased = entries(1, p.bias_max);
        let listed = entries(2, p.counted_max);
        let has = |most: u32, needs| There::If(most > 0, needs);
        let starts = each + 1;
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(LogitMask {
                params: params::LogitMask {
                    rows_max: rows,
                    banned_max: banned,
                    bias_max: biased,
                    counted_max: listed,
                    ..*p
                },
                logits: at.update("logits", args.logits, self.logits.bytes(rows))?,
                settings: at.read("settings", args.settings, settings_bytes)?,
                masks: at.maybe_read("masks", args.masks, masked, mask_bytes)?,
                banned_starts: at.maybe_list(step, 0, has(p.banned_max, "banned_max"), starts),
                banned: at.maybe_read(
                    "banned",
                    args.banned,
                    has(p.banned_max, "banned_max"),
                    4 * u64::from(banned),
                )?,
                bias_starts: at.maybe_list(step, 1, has(p.bias_max, "bias_max"), starts),
                bias_tokens: at.maybe_read(
                    "bias_tokens",
                    args.bias_tokens,
                    has(p.bias_max, "bias_max"),
                    4 * u64::from(biased),
                )?,
                bias_values: at.maybe_read(
                    "bias_values",
                    args.bias_values,
                    has(p.bias_max, "bias_max"),
                    4 * u64::from(biased),
                )?,
                counts: at.maybe_update("counts", args.counts, counted, counts_bytes)?,
                counted_starts: at.maybe_list(step, 2, has(p.counted_max, "counted_max"), starts),
                counted: at.maybe_read(
                    "counted",
                    args.counted,
                    has(p.counted_max, "counted_max"),
                    4 * u64::from(listed),
                )?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(
    export Call,
    pw_logit_mask_query,
    pw_logit_mask_plan(lens: *const pw_logit_mask_lens),
    pw_logit_mask_run,
    56, 104
);
