//! One token for each row of logits: temperature, top-k, top-p and min-p without a
//! sort, Gumbel-max with keyed noise, log-probabilities raw and processed, the most
//! likely tokens, and the set that was kept.
//!
//! Order, for one row of logits x; all numbers f32 unless said otherwise:
//! 1. x = −∞, selected, where a mask of the row has a 0: bit t mod 32 of word t / 32 of
//!    a mask allows token t;
//! 2. M, S and the status of the row by [`vocabulary`]; a row of −∞ alone, or with a NaN
//!    or +∞, is reported and has no token;
//! 3. z = (x − M) · (1 / temperature), the factor rounded and at most its largest
//!    number. Temperature 0 keeps the lowest of the most likely tokens, and nothing
//!    below counts;
//! 4. tokens are ranked by x, the larger first, then the lower token first; tokens of
//!    −∞ are never kept. Filters keep a head of that ranking, one after the other, so
//!    that ties at a filter's end go to the lowest tokens:
//!    - top-k: the first `top_k`;
//!    - top-p: the mass of a token is q = round(exp(z) · 2²⁹), ties to even, and Z is the
//!      sum of q over what top-k kept, in u64; it keeps the shortest head whose q sum to
//!      ⌈Z · P / 2³²⌉ or more, P = round(top_p · 2³²), at least one token;
//!    - min-p: those with z ≥ ln(min_p). Masses are not made anew between filters;
//! 5. the token is the kept one with the largest z + g, the lowest of equals, where g is
//!    its number of [`noise`](vocabulary::noise) for the row's seed, position and fork,
//!    purpose `PWK_NOISE_SAMPLE`;
//! 6. the raw log-probability is that of the row before temperature and filters, by
//!    [`vocabulary`]: of `raw_logits` where they are given, which no mask hides and which
//!    may be the memory of `logits`;
//! 7. the processed one is z − ln Sₚ: Sₚ sums exp(z) over the kept tokens, every other
//!    token an exact 0, in the order of a block's sum, and blocks ascending. Where no
//!    filter is asked for and the factor is 1, it is the raw one of `logits`, by its
//!    bits; at temperature 0 it is 0.
//!
//! A row is streamed once, and then only those of its groups of 128 logits whose
//! largest can matter, at most twice, or three times for top-p without top-k.
//! `raw_logits` are streamed once more. A row with masks is copied as it is streamed.

mod bins;
mod cpu;
mod filters;
mod mask;
mod passes;
mod select;
mod spec;
mod step;
mod top;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault};
use crate::params;
#[cfg(doc)]
use crate::vocabulary;
use crate::vocabulary::masks;

pub use cpu::run;
pub use spec::{Answer, masked, spec};

crate::command! {
    /// One token for each row of logits.
    pub struct Sample("sample", params::Sample) {
        /// `[rows_max, vocab]` f32, rows `row_stride` apart: penalised.
        logits: Read,
        /// `[rows_max, vocab]` f32, rows `raw_row_stride` apart: what the raw
        /// log-probabilities and the most likely tokens are of; absent, `logits`.
        raw_logits: MaybeRead,
        /// `[rows_max]` [`params::SampleRow`]: how each row is sampled.
        settings: Read,
        /// `[masks, mask_words]` u32: bit t mod 32 of word t / 32 allows token t.
        masks: MaybeRead,
        /// `[rows_max, 2]` u32: which masks must both allow a row's tokens, `PWK_NONE`
        /// where none has to.
        row_masks: MaybeRead,
        /// `[rows_max]` u32: the token, `PWK_NONE` where the status is not OK.
        token: Write,
        /// `[rows_max]` u32: `PWK_STATUS_*`.
        status: Write,
        /// `[rows_max]` f32: of the token, NaN without one.
        raw_logprob: MaybeWrite,
        /// `[rows_max]` f32: of the token, NaN without one.
        processed_logprob: MaybeWrite,
        /// `[rows_max, top_n]` u32: the most likely tokens, the lower first of equals;
        /// `PWK_NONE` past the tokens there are, and where the status is not OK.
        top_token: MaybeWrite,
        /// `[rows_max, top_n]` f32: their raw log-probabilities, NaN without a token.
        top_logprob: MaybeWrite,
        /// `[rows_max, kept_words]` u32: bit t mod 32 of word t / 32 is set where token t
        /// was kept; words past the vocabulary are not written.
        kept: MaybeWrite,
        /// `[rows_max]` u32: tokens kept.
        kept_count: MaybeWrite,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// Most likely tokens listed at most.
const TOP_MAX: usize = 128;

impl<M: Memory> Sample<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("vocab", p.vocab, 1..=1 << 24)?;
        checks.range("top_n", p.top_n, 0..=TOP_MAX as i64)?;
        let (rows, width) = (p.rows_max, u64::from(p.vocab));
        let matrix = |row_stride| Rows { rows, row_stride, width };
        checks.matrix("logits", Dtype::F32, matrix(p.row_stride), &self.logits)?;
        match self.raw_logits.span() {
            Some(raw) => {
                checks.matrix("raw_logits", Dtype::F32, matrix(p.raw_row_stride), raw)?;
            }
            None => checks.equal("raw_row_stride", 0, p.raw_row_stride)?,
        }
        let rows = u64::from(rows);
        let words = (size_of::<params::SampleRow>() / 4) as u64;
        checks.words("settings", Some(rows * words), &self.settings)?;
        checks.aligned("settings", align_of::<params::SampleRow>() as u64, &self.settings)?;
        checks.words("token", Some(rows), &self.token)?;
        checks.words("status", Some(rows), &self.status)?;
        for (field, buffer) in [
            ("raw_logprob", self.raw_logprob.span()),
            ("processed_logprob", self.processed_logprob.span()),
            ("kept_count", self.kept_count.span()),
        ] {
            buffer.map_or(Ok(()), |buffer| checks.words(field, Some(rows), buffer))?;
        }
        for (field, buffer) in
            [("top_token", self.top_token.span()), ("top_logprob", self.top_logprob.span())]
        {
            match (buffer, p.top_n) {
                (Some(_), 0) => return Err(checks.refuse(field, Fault::Unused { needs: "top_n" })),
                (Some(buffer), n) => checks.words(field, Some(rows * u64::from(n)), buffer)?,
                (None, 0) => {}
                (None, _) => {
                    return Err(checks.refuse(field, Fault::Missing { needed_by: "top_n" }));
                }
            }
        }
        if let Some(kept) = self.kept.span() {
            let least = p.vocab.div_ceil(32);
            checks.range("kept_words", p.kept_words, i64::from(least)..=1 << 30)?;
            let before = (rows - 1) * u64::from(p.kept_words);
            checks.words("kept", Some(before + u64::from(least)), kept)?;
        } else {
            checks.equal("kept_words", 0, u64::from(p.kept_words))?;
        }
        self.rows.span().map_or(Ok(()), |rows| checks.words("rows", Some(1), rows))?;
        self.check_masks()
    }

    fn check_masks(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        masks::check(checks, &self.masks, p.vocab, [p.masks, p.mask_words])?;
        match (self.masks.span(), self.row_masks.span()) {
            (None, None) => Ok(()),
            (Some(_), Some(chosen)) => {
                checks.words("row_masks", Some(2 * u64::from(p.rows_max)), chosen)
            }
            (Some(_), None) => {
                Err(checks.refuse("row_masks", Fault::Missing { needed_by: "masks" }))
            }
            (None, Some(_)) => {
                Err(checks.refuse("masks", Fault::Missing { needed_by: "row_masks" }))
            }
        }
    }

    /// What a checked call takes with so many workers: a desk for each row in hand.
    pub fn needs(&self, workers: u32) -> Result<Needs, Error> {
        self.check()?;
        let desks = u64::from(workers.max(1).min(self.params.rows_max));
        let words = cpu::desk_words(&self.params) as u64;
        Ok(Needs { workspace_bytes: desks * words * 4 })
    }
}
