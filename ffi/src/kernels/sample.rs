//! `sample`, as C calls it.

use super::layout::{Matrix, masks, reserved, words};
use super::plan::Step;
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::header::pw_sample_row;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::params;
use kernels_core::sample::Sample;

const CHECKS: Checks = Sample::<Recorded>::CHECKS;
/// C's rows are the kernel's.
const _: () = assert!(size_of::<pw_sample_row>() == size_of::<params::SampleRow>());

struct Call {
    params: params::Sample,
    logits: Matrix,
    raw: Option<Matrix>,
}

impl Kernel for Call {
    kernel!(sample Sample, pw_sample_desc, pw_sample_args, b"pw-sam-1", workspace);
    kernel!(rows);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let vocab = u64::from(desc.vocab);
        let logits = Matrix::new("row_stride", desc.row_stride, Dtype::F32, vocab)?;
        let raw = Matrix::maybe("raw_row_stride", desc.raw_row_stride, Dtype::F32, vocab)?;
        let params = params::Sample {
            row_stride: logits.row_stride,
            raw_row_stride: raw.map_or(0, |raw| raw.row_stride),
            rows_max: desc.rows_max,
            vocab: desc.vocab,
            top_n: desc.top_n,
            kept_words: desc.kept_words,
            masks: desc.masks,
            mask_words: desc.mask_words,
        };
        Ok(Self { params, logits, raw })
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, ..] = step.counts;
        let (p, each) = (&self.params, u64::from(rows));
        let raw = There::If(self.raw.is_some(), "raw_row_stride");
        let top = There::If(p.top_n > 0, "top_n");
        let kept = There::If(p.kept_words > 0, "kept_words");
        let top_bytes = words(&[each, p.top_n.into()]);
        // The last row need not be as far apart from a next one.
        let kept_words = each.saturating_sub(1) * u64::from(p.kept_words);
        let kept_bytes = words(&[kept_words.saturating_add(p.vocab.div_ceil(32).into())]);
        let settings_bytes = size_of::<params::SampleRow>() as u64 * each;
        let masked = There::If(p.masks > 0, "masks");
        let mask_bytes = masks(p.vocab, [p.masks, p.mask_words]);
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Sample {
                params: params::Sample { rows_max: rows, ..*p },
                logits: at.read("logits", args.logits, self.logits.bytes(rows))?,
                raw_logits: at.maybe_read(
                    "raw_logits",
                    args.raw_logits,
                    raw,
                    self.raw.map_or(0, |raw| raw.bytes(rows)),
                )?,
                settings: at.read("settings", args.settings, settings_bytes)?,
                masks: at.maybe_read("masks", args.masks, masked, mask_bytes)?,
                row_masks: at.maybe_read("row_masks", args.row_masks, masked, 8 * each)?,
                token: at.write("token", args.token, 4 * each)?,
                status: at.write("status", args.status, 4 * each)?,
                raw_logprob: at.maybe_write(
                    "raw_logprob",
                    args.raw_logprob,
                    There::Maybe,
                    4 * each,
                )?,
                processed_logprob: at.maybe_write(
                    "processed_logprob",
                    args.processed_logprob,
                    There::Maybe,
                    4 * each,
                )?,
                top_token: at.maybe_write("top_token", args.top_token, top, top_bytes)?,
                top_logprob: at.maybe_write("top_logprob", args.top_logprob, top, top_bytes)?,
                kept: at.maybe_write("kept", args.kept, kept, kept_bytes)?,
                kept_count: at.maybe_write(
                    "kept_count",
                    args.kept_count,
                    There::Maybe,
                    4 * each,
                )?,
                rows: at.live(0),
            })
        }
    }
}

kernel!(export Call, pw_sample_query, pw_sample_plan(rows: u32), pw_sample_run, 40, 128);
