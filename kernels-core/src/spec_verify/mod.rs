//! Draft tokens verified: how far down a chain or tree the target follows, and which
//! token comes after.
//!
//! A sequence has 1 to 64 nodes. The first is its root: the last token that is
//! already certain, always accepted. Row `i` of `target` (and of `draft`) is what the
//! target (and the draft model) says of the token after node `i`. From the root on,
//! one child at most is accepted at each node; the walk ends where none is, and `next`
//! is the token after the last accepted node.
//!
//! - `GREEDY`: target rows are logits; the child with their largest logit's token (the
//!   lowest of equals) is accepted, and without one that token is next.
//! - `TOKENS`: the same with the token sampled for each node. With noise keyed by
//!   request, position and token, as `sample` has it, the tokens that come out are
//!   those of decoding without drafts, bit for bit.
//! - `REJECTION`: rows are probabilities, or any weights in proportion to them. The
//!   children of a node, in ascending order, were each drawn from its draft row, one
//!   independent of the other; without `draft` the drafts were certain. Each is tried
//!   against what the ones before it left (as SpecInfer does), which keeps the target's
//!   distribution:
//!   1. w is the target row, W its sum; q is the draft row, Q its sum;
//!   2. a child with token x is accepted if u · b < a: a = w(x) / W, b = q(x) / Q or 1
//!      without `draft`, u the uniform number of x and `PWK_NOISE_ACCEPT`;
//!   3. else w(t) = max(w(t) / W − q(t) / Q, 0), or w(x) = 0 without `draft`, W is their
//!      sum, and the next child is tried. Where W is 0, which only rounding can bring
//!      about, w is the target row again and no other child is tried;
//!   4. without an accepted child, next is the token with the largest
//!      ln w(t) + Gumbel number of t and `PWK_NOISE_RESIDUAL`, the lowest of equals;
//!      tokens of weight 0 take no part.
//!
//!   The noise of a node at depth d decides the token at the request's position + d + 1;
//!   see [`noise`](crate::vocabulary::noise).
//!
//! Sums over the vocabulary: blocks of 4096, element i of a block into sum i mod 64,
//! ascending; partial sums j, j + 16, j + 32, j + 48 fold as (a + b) + (c + d), then the
//! sixteen as [`Lanes::sum`](crate::simd::Lanes::sum) says; blocks are added ascending,
//! from zero.
//!
//! A row that gives no token ends the walk: next is `PWK_NONE` and the status says why,
//! `MASKED` (no logit above −∞, no mass, no sampled token) or `NOT_FINITE` (a logit that
//! is NaN or +∞; a weight that is NaN, infinite or negative, or a sum that is infinite).
//! What was accepted before stands. Rows that the walk does not reach are not read.
//!
//! With `places`, `entries` is what `kv_copy` needs to bring the accepted nodes
//! together: node j of the path moves to the place of the sequence's node j. In this
//! order no entry overwrites what a later one reads.

mod cpu;
mod spec;
mod walk;

use crate::command::{MaybeSpan, Memory, Rows, Span};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault};
use crate::params;

pub use cpu::run;
pub use spec::{Target, Tree, Verdict, spec};

crate::command! {
    /// The accepted path of each sequence's drafts, and the token after it.
    pub struct SpecVerify("spec_verify", params::SpecVerify) {
        /// `[sequences_max + 1]` u32: the first node of each sequence and the end of the
        /// last, ascending from 0 by 1 to 64.
        node_start: Read,
        /// `[nodes_max]` u32: the draft token of each node; a root's is not read.
        tokens: Read,
        /// `[nodes_max]` u32: the parent of each node as a number in its tree, smaller
        /// than its own; a root's is not read. Absent, every tree is a chain.
        parents: MaybeRead,
        /// `[nodes_max, vocab]` f32, rows `target_row_stride` apart; not with `TOKENS`.
        target: MaybeRead,
        /// `[nodes_max, vocab]` f32, rows `draft_row_stride` apart; with `REJECTION` only.
        draft: MaybeRead,
        /// `[nodes_max]` u32: the token sampled after each node, or `PWK_NONE`; with
        /// `TOKENS`.
        sampled: MaybeRead,
        /// `[sequences_max]` of `pwk_verify_request`; with `REJECTION`.
        requests: MaybeRead,
        /// `[nodes_max, 2]` u32: page and token at which each node's keys and values are.
        places: MaybeRead,
        /// `[1]` u32: sequences in use, at most `sequences_max`; absent, all of them.
        sequences: MaybeRead,
        /// `[nodes_max]` u32: from each sequence's first node on, its accepted nodes, root
        /// first, as places in `tokens`; no more is written than are accepted.
        path: Write,
        /// `[sequences_max]` u32: accepted nodes, the root included.
        accepted: Write,
        /// `[sequences_max]` u32: the token after the path, or `PWK_NONE`.
        next: Write,
        /// `[sequences_max]` u32: `PWK_STATUS_*`.
        status: Write,
        /// `[nodes_max, 5]` u32: entries of `kv_copy`, one token each; with `places`.
        entries: MaybeWrite,
        /// `[1]` u32: entries written; with `places`.
        count: MaybeWrite,
    }
}

impl<M: Memory> SpecVerify<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("sequences_max", p.sequences_max, 1..=1 << 24)?;
        checks.range("nodes_max", p.nodes_max, 1..=1 << 24)?;
        checks.range("vocab", p.vocab, 1..=1 << 24)?;
        let modes = params::VERIFY_GREEDY..=params::VERIFY_TOKENS;
        checks.range("mode", p.mode, i64::from(*modes.start())..=i64::from(*modes.end()))?;
        let (sequences, nodes) = (u64::from(p.sequences_max), u64::from(p.nodes_max));
        let words = |field, count, span: Option<&dyn Span>| match span {
            Some(span) => checks.words(field, Some(count), span),
            None => Ok(()),
        };
        checks.words("node_start", Some(sequences + 1), &self.node_start)?;
        checks.words("tokens", Some(nodes), &self.tokens)?;
        words("parents", nodes, self.parents.span())?;
        words("sampled", nodes, self.sampled.span())?;
        words("requests", sequences * 4, self.requests.span())?;
        if let Some(span) = self.requests.span()
            && span.misalignment(8) != 0
        {
            let fault = Fault::Align { expected: 8, got: span.misalignment(8) };
            return Err(checks.refuse("requests", fault));
        }
        words("places", nodes * 2, self.places.span())?;
        words("sequences", 1, self.sequences.span())?;
        checks.words("path", Some(nodes), &self.path)?;
        checks.words("accepted", Some(sequences), &self.accepted)?;
        checks.words("next", Some(sequences), &self.next)?;
        checks.words("status", Some(sequences), &self.status)?;
        words("entries", nodes * 5, self.entries.span())?;
        words("count", 1, self.count.span())?;
        self.check_mode()?;
        let places = self.places.span().is_some();
        self.with("entries", places, self.entries.span().is_some(), "places")?;
        self.with("count", places, self.count.span().is_some(), "places")
    }

    /// What a checked call takes with so many workers: with `REJECTION`, a row of
    /// weights for each.
    pub fn needs(&self, workers: u32) -> Result<Needs, Error> {
        self.check()?;
        let rows = match self.params.mode {
            params::VERIFY_REJECTION => u64::from(workers.min(self.params.sequences_max)),
            _ => 0,
        };
        Ok(Needs { workspace_bytes: rows * u64::from(self.params.vocab) * 4 })
    }

    /// A buffer is there exactly where it has a meaning.
    fn with(
        &self,
        field: &'static str,
        needed: bool,
        given: bool,
        by: &'static str,
    ) -> Result<(), Error> {
        match (needed, given) {
            (true, false) => Err(Self::CHECKS.refuse(field, Fault::Missing { needed_by: by })),
            (false, true) => Err(Self::CHECKS.refuse(field, Fault::Unused { needs: by })),
            _ => Ok(()),
        }
    }

    fn check_mode(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        let rejection = p.mode == params::VERIFY_REJECTION;
        let tokens = p.mode == params::VERIFY_TOKENS;
        self.with("target", !tokens, self.target.span().is_some(), "GREEDY or REJECTION")?;
        self.with("sampled", tokens, self.sampled.span().is_some(), "TOKENS")?;
        self.with("requests", rejection, self.requests.span().is_some(), "REJECTION")?;
        if !rejection && self.draft.span().is_some() {
            return Err(checks.refuse("draft", Fault::Unused { needs: "REJECTION" }));
        }
        let rows = |row_stride| Rows { rows: p.nodes_max, row_stride, width: p.vocab.into() };
        match self.target.span() {
            Some(target) => {
                checks.matrix("target", Dtype::F32, rows(p.target_row_stride), target)?;
            }
            None => checks.equal("target_row_stride", 0, p.target_row_stride)?,
        }
        match self.draft.span() {
            Some(draft) => checks.matrix("draft", Dtype::F32, rows(p.draft_row_stride), draft),
            None => checks.equal("draft_row_stride", 0, p.draft_row_stride),
        }
    }
}
