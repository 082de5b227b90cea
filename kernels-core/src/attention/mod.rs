//! Attention over pages of keys and values: decode, append and prefill rows of
//! many sequences in one call.
//!
//! The rows of a sequence are its last positions: row i of n lies at position
//! kv_len − n + i, and one with a negative position is before all keys. It sees a
//! key at position p if all of these hold:
//! - first_position ≤ p < kv_len;
//! - causal: p ≤ its position; window w: p > its position − w;
//! - intervals: begin ≤ p, and p < end or bit p − end of its 64 tree bits is set.
//!
//! Query head h reads head h / (q_heads / kv_heads) of K and V.
//!
//! Order, per row and query head with query q:
//! 1. score = Σ q\[d\]·k\[d\] by fma from zero, d ascending, over numbers as stored;
//!    times the key's scale, if there are scales; times `scale`; then with a softcap c,
//!    c·tanh(score / c); then with a slope, fma(slope, p − position, score);
//! 2. positions are cut into splits at multiples of [`SPLIT`]. In each: m = the largest
//!    score seen; weight = exp(score − m) (score − 0 if m is −∞), 0 for a key not seen;
//!    sum = the weights added by position modulo 16, ascending, then those sixteen as
//!    [`Lanes::sum`](crate::simd::Lanes::sum) says; a\[d\] = Σ (weight · value's
//!    scale)·v\[d\] by fma from zero over the keys seen, ascending;
//! 3. splits fold ascending. One whose sum is 0 changes nothing; the first other is
//!    taken as it is; then M' = max(M, m), α = exp(M − M'), β = exp(m − M'),
//!    S = fma(β, sum, α·S), A = fma(β, a, α·A);
//! 4. a sink z joins as a split of sum 1 without values:
//!    S = fma(α, S, β), A = α·A;
//! 5. out = A / S, and lse = M + log S. With S = 0 out is 0, and lse is z or −∞.
//!
//! A key not seen is never multiplied: whatever lies there changes nothing.

mod call;
mod cpu;
mod fold;
pub mod plan;
mod scores;
mod spec;
mod split;
mod stage;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault};
use crate::kv_layout::KvLayout;
use crate::params;

pub use crate::simd::attend::SPLIT;
pub use cpu::run;
pub(crate) use fold::States;
pub use spec::{Key, Scores, spec};

crate::command! {
    /// `out = softmax(q · kᵀ) · v`, over what each row sees.
    pub struct Attention("attention", params::Attention) {
        /// `[rows_max, q_heads × head_dim]` of `q_dtype`, rows `q_row_stride` apart.
        q: Read,
        /// The slab of K, or of K and V, as `kv` says.
        keys: Read,
        /// The slab of V where it is apart.
        values: MaybeRead,
        /// `[pages, kv_heads, 2, page_len]` f32: scales by token.
        scales: MaybeRead,
        /// `[seqs_max + 1]` u32, ascending: each sequence's first row.
        q_start: Read,
        /// `[seqs_max]` u32: positions of each sequence, those of its rows included.
        kv_len: Read,
        /// `[seqs_max]` u32: the first position kept, at most `kv_len`; a page list begins
        /// with the page that holds it. Absent: 0.
        first_position: MaybeRead,
        /// `[seqs_max + 1]` u32, ascending: each sequence's first id; absent with a table.
        page_start: MaybeRead,
        /// `[page_ids_max]`, or `[seqs_max, table_width]`, u32: pages by number. Ids past
        /// the last position are not looked at.
        page_ids: Read,
        /// `[rows_max, 2]` u32: begin and end of the positions that a row may see.
        intervals: MaybeRead,
        /// `[rows_max]` u64: bits for the 64 positions from the end of a row's interval.
        tree_bits: MaybeRead,
        /// `[q_heads]` f32: a logit that joins the denominator alone.
        sinks: MaybeRead,
        /// `[q_heads]` f32: ALiBi, what a score gains with each position.
        slopes: MaybeRead,
        /// `[rows_max, q_heads × head_dim]` of `out_dtype`, rows `out_row_stride` apart.
        out: Write,
        /// `[rows_max, q_heads]` f32: the natural logarithm of each denominator.
        lse: MaybeWrite,
        /// `[1]` u32: sequences in use, at most `seqs_max`; absent, all of them.
        seqs: MaybeRead,
    }
}

/// What a checked call is made of.
#[derive(Clone, Copy, Debug)]
struct Types {
    q: Dtype,
    out: Dtype,
    kv: KvLayout,
}

impl<M: Memory> Attention<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.types().map(drop)
    }

    /// What a checked call takes with so many workers: the plan, scratch for each
    /// worker, and states of splits that one row's workers share.
    pub fn needs(&self, workers: u32) -> Result<Needs, Error> {
        self.types()?;
        let workspace_bytes = plan::Room::new(&self.params, workers).bytes();
        Ok(Needs { workspace_bytes })
    }

    fn types(&self) -> Result<Types, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        let kv = KvLayout::new(checks, &p.kv)?;
        checks.range("rows_max", p.rows_max, 1..=1 << 20)?;
        checks.range("seqs_max", p.seqs_max, 1..=1 << 20)?;
        checks.range("q_heads", p.q_heads, 1..=256 * i64::from(p.kv.kv_heads))?;
        checks.multiple("q_heads", p.kv.kv_heads.into(), p.q_heads.into())?;
        checks.range("kv_len_max", p.kv_len_max, 1..=1 << 30)?;
        checks.range("table_width", p.table_width, 0..=1 << 30)?;
        checks.range("page_ids_max", p.page_ids_max, 0..=1 << 30)?;
        let q = Dtype::parse_float(checks, "q_dtype", p.q_dtype)?;
        let out = Dtype::parse_float(checks, "out_dtype", p.out_dtype)?;
        checks.range("causal", p.causal, 0..=1)?;
        checks.finite("scale", p.scale)?;
        checks.at_least_zero("softcap", p.softcap)?;
        kv.buffers(checks, &self.keys, &self.values, &self.scales)?;
        let width = u64::from(p.q_heads) * u64::from(p.kv.head_dim);
        let matrix = |row_stride| Rows { rows: p.rows_max, row_stride, width };
        checks.matrix("q", q, matrix(p.q_row_stride), &self.q)?;
        checks.matrix("out", out, matrix(p.out_row_stride), &self.out)?;
        self.lists()?;
        let (rows, heads) = (u64::from(p.rows_max), u64::from(p.q_heads));
        let maybe = |field, count, span: &dyn MaybeSpan| {
            span.span().map_or(Ok(()), |span| checks.words(field, Some(count), span))
        };
        maybe("intervals", 2 * rows, &self.intervals)?;
        maybe("tree_bits", 2 * rows, &self.tree_bits)?;
        if self.tree_bits.span().is_some() && self.intervals.span().is_none() {
            return Err(checks.refuse("intervals", Fault::Missing { needed_by: "tree_bits" }));
        }
        maybe("sinks", heads, &self.sinks)?;
        maybe("slopes", heads, &self.slopes)?;
        maybe("lse", rows * heads, &self.lse)?;
        maybe("seqs", 1, &self.seqs)?;
        Ok(Types { q, out, kv })
    }

    /// The buffers that say where sequences lie.
    fn lists(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        let seqs = u64::from(p.seqs_max);
        checks.words("q_start", Some(seqs + 1), &self.q_start)?;
        checks.words("kv_len", Some(seqs), &self.kv_len)?;
        if let Some(first) = self.first_position.span() {
            checks.words("first_position", Some(seqs), first)?;
        }
        match (self.page_start.span(), p.table_width) {
            (Some(_), 1..) => {
                Err(checks.refuse("page_start", Fault::Unused { needs: "table_width 0" }))
            }
            (None, 0) => {
                Err(checks.refuse("page_start", Fault::Missing { needed_by: "table_width 0" }))
            }
            (None, width) => {
                checks.equal("page_ids_max", 0, p.page_ids_max.into())?;
                checks.words("page_ids", Some(seqs * u64::from(width)), &self.page_ids)
            }
            (Some(starts), 0) => {
                checks.words("page_start", Some(seqs + 1), starts)?;
                checks.words("page_ids", Some(p.page_ids_max.into()), &self.page_ids)
            }
        }
    }
}
