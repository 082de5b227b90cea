//! What decides, before sampling, which tokens a row may take: masks, banned
//! tokens, biases, penalties and temperature, in place and in one pass.
//!
//! Rows go in ascending order. Order, for one row of logits x:
//! 1. its counted tokens, in the order of the list: a token of the prompt is marked in
//!    its slot; a generated one is counted, up to 32767; one taken back is counted down,
//!    to 0 at the least (a count that stood at 32767 may then be low);
//! 2. x = x + bias for each entry of its list, in the order of the list;
//! 3. x = −∞ for each banned token;
//! 4. with a slot: x = x > 0 ? x / repetition : x · repetition for tokens of the prompt
//!    and generated ones; then x = fma(−frequency, count, x); then x = x − presence for
//!    generated ones;
//! 5. x = x · (1 / temperature), the factor rounded to f32 and at most its largest
//!    number; 0 leaves x;
//! 6. x = −∞, selected, where a mask of the row has a 0: bit t mod 32 of word t / 32 of
//!    a mask allows token t.
//!
//! So a row sees what the rows before it have counted: the drafts of one sequence, as
//! rows one after the other, each count their own token and take back a sibling's. An
//! element's result depends on its own logit and lists alone.

mod cpu;
mod spec;
mod step;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault, extent};
use crate::params;
use crate::vocabulary::masks;

pub use cpu::run;
pub use spec::{Asked, spec};

crate::command! {
    /// Masks, lists, penalties and temperature on rows of logits.
    pub struct LogitMask("logit_mask", params::LogitMask) {
        /// `[rows_max, vocab]` f32, rows `row_stride` apart.
        logits: Update,
        /// `[rows_max]` [`params::LogitMaskRow`]: what each row asks for.
        settings: Read,
        /// `[masks, mask_words]` u32: bit t mod 32 of word t / 32 allows token t.
        masks: MaybeRead,
        /// `[rows_max + 1]` u32: where each row's banned tokens start in their list.
        banned_starts: MaybeRead,
        /// `[banned_max]` u32: tokens.
        banned: MaybeRead,
        /// `[rows_max + 1]` u32: where each row's biases start in their list.
        bias_starts: MaybeRead,
        /// `[bias_max]` u32: tokens.
        bias_tokens: MaybeRead,
        /// `[bias_max]` f32: what is added to their logits; finite.
        bias_values: MaybeRead,
        /// `[slots, vocab]` u16, slots `counts_stride` apart: bit 15 marks a token of the
        /// prompt, the others count how often it was generated.
        counts: MaybeUpdate,
        /// `[rows_max + 1]` u32: where each row's tokens to count start in their list.
        counted_starts: MaybeRead,
        /// `[counted_max]` u32: a token with `PWK_COUNTED_PROMPT`, `PWK_COUNTED_BACK` or
        /// neither.
        counted: MaybeRead,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

impl<M: Memory> LogitMask<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("vocab", p.vocab, 1..=1 << 24)?;
        let shape = Rows { rows: p.rows_max, row_stride: p.row_stride, width: u64::from(p.vocab) };
        checks.matrix("logits", Dtype::F32, shape, &self.logits)?;
        let words = (size_of::<params::LogitMaskRow>() / 4) as u64;
        checks.words("settings", extent(&[u64::from(p.rows_max), words]), &self.settings)?;
        masks::check(checks, &self.masks, p.vocab, [p.masks, p.mask_words])?;
        self.list("banned_starts", &self.banned_starts, "banned", &self.banned, p.banned_max)?;
        let bias = (&self.bias_starts, p.bias_max);
        self.list("bias_starts", bias.0, "bias_tokens", &self.bias_tokens, bias.1)?;
        self.list("bias_starts", bias.0, "bias_values", &self.bias_values, bias.1)?;
        let counted = (&self.counted_starts, p.counted_max);
        self.list("counted_starts", counted.0, "counted", &self.counted, counted.1)?;
        if let Some(counts) = self.counts.span() {
            checks.range("slots", p.slots, 1..=i64::from(i32::MAX))?;
            // Slots lie apart like rows, and are two bytes an element like f16.
            let shape =
                Rows { rows: p.slots, row_stride: p.counts_stride, width: u64::from(p.vocab) };
            checks.matrix("counts", Dtype::F16, shape, counts)?;
        } else {
            checks.equal("slots", 0, u64::from(p.slots))?;
            checks.equal("counts_stride", 0, p.counts_stride)?;
            if self.counted.span().is_some() {
                return Err(checks.refuse("counted", Fault::Unused { needs: "counts" }));
            }
        }
        match self.rows.span() {
            Some(rows) => checks.words("rows", Some(1), rows),
            None => Ok(()),
        }
    }

    /// What a checked call takes with so many workers: nothing.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.check().map(|()| Needs::default())
    }

    /// A list of tokens for each row, and where each row's part starts: both or neither.
    fn list(
        &self,
        starts_field: &'static str,
        starts: &dyn MaybeSpan,
        field: &'static str,
        list: &dyn MaybeSpan,
        most: u32,
    ) -> Result<(), Error> {
        let checks = Self::CHECKS;
        match (starts.span(), list.span()) {
            (None, None) => checks.equal(field, 0, u64::from(most)),
            (Some(starts), Some(list)) => {
                let rows = u64::from(self.params.rows_max);
                checks.words(starts_field, Some(rows + 1), starts)?;
                checks.words(field, Some(u64::from(most)), list)
            }
            (Some(_), None) => {
                Err(checks.refuse(field, Fault::Missing { needed_by: starts_field }))
            }
            (None, Some(_)) => {
                Err(checks.refuse(starts_field, Fault::Missing { needed_by: field }))
            }
        }
    }
}
