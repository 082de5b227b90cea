//! What each row of a step sees, built from lengths, prefixes, documents and draft
//! trees: an interval of positions, and for the nodes of a tree 64 packed bits.
//! Whole numbers only, so every form gives the same.
//!
//! The rows of a sequence of length `n` with `r` rows stand at its last slots
//! `n − r .. n`. Its last `t` rows (`tree_nodes`) may be the nodes of a draft tree,
//! which begins at slot `b = n − t`; node `i` is stored at slot `b + i`, and its
//! position is `b` + its depth (a root has depth 0). Any other row's position is
//! its slot.
//!
//! A document is the positions from one boundary to the next; the first begins at 0
//! and the last ends at `n`. For a row at position `p` in the document `[d, e)`:
//! 1. begin = the larger of `d` and `p + 1 − window` (0 without a window);
//! 2. end = `p + 1`, or the smaller of `e` and `prefix` where that is larger: the
//!    positions of a prefix see each other both ways, whole sequences where
//!    `prefix = n`;
//! 3. the interval is `[begin, end)`.
//!
//! For a node of a tree `p` is its position and the document is the one of slot `b`;
//! the interval is `[min(begin, b), b)`: what comes before the tree. Bit `i` of its
//! tree bits is node `i`, at slot `b + i`: set for the node itself and its ancestors
//! at positions of at least `begin`. So the bits count from the interval's end. A row
//! that is no node has no bits.

mod cpu;
mod spec;

use crate::command::{MaybeSpan, Memory, Span};
use crate::device::Needs;
use crate::error::{Error, Fault};

pub use cpu::run;
pub use spec::{Seen, Sequence, spec};

pub use crate::params::{NO_PARENT, TREE_NODES_MAX};

/// The longest sequence.
pub const LENGTH_MAX: u32 = i32::MAX as u32;

crate::command! {
    /// Intervals and tree bits of the rows of a step.
    pub struct VarlenMask("varlen_mask", crate::params::VarlenMask) {
        /// `[sequences_max + 1]` u32: the first row of each sequence and the end of the
        /// last, ascending from 0.
        row_start: Read,
        /// `[sequences_max]` u32: positions of each sequence, the step's rows included.
        lengths: Read,
        /// `[sequences_max]` u32: leading positions that see each other both ways;
        /// absent, none.
        prefixes: MaybeRead,
        /// `[sequences_max + 1]` u32: where each sequence's boundaries begin in
        /// `documents`, ascending from 0; absent, one document a sequence.
        document_start: MaybeRead,
        /// `[documents_max]` u32: the positions at which documents begin, strictly
        /// ascending in a sequence, below its length.
        documents: MaybeRead,
        /// `[sequences_max]` u32: the last rows of each sequence that are nodes of a
        /// draft tree, at most 64; absent, none.
        tree_nodes: MaybeRead,
        /// `[rows_max]` u32: for the row of a node, its parent as a number in its tree,
        /// smaller than its own, or 2³² − 1 for a root. Other rows' are not read.
        parents: MaybeRead,
        /// `[sequences]` u32 of 1: sequences in use, at most `sequences_max`; absent, all.
        sequences: MaybeRead,
        /// `[rows_max, 2]` u32: begin and end of what a row sees.
        intervals: Write,
        /// `[rows_max]` u64: the nodes a row sees; needed with `tree_nodes`.
        tree_bits: MaybeWrite,
        /// `[rows_max]` u32: the position of each row, for RoPE.
        positions: MaybeWrite,
    }
}

impl<M: Memory> VarlenMask<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("sequences_max", p.sequences_max, 1..=1 << 24)?;
        checks.range("documents_max", p.documents_max, 0..=i64::from(i32::MAX))?;
        checks.range("window", p.window, 0..=i64::from(LENGTH_MAX))?;
        let (rows, sequences) = (u64::from(p.rows_max), u64::from(p.sequences_max));
        checks.words("row_start", Some(sequences + 1), &self.row_start)?;
        checks.words("lengths", Some(sequences), &self.lengths)?;
        let words = |field, count, span: Option<&dyn Span>| match span {
            Some(span) => checks.words(field, Some(count), span),
            None => Ok(()),
        };
        words("prefixes", sequences, self.prefixes.span())?;
        words("document_start", sequences + 1, self.document_start.span())?;
        words("documents", u64::from(p.documents_max), self.documents.span())?;
        words("tree_nodes", sequences, self.tree_nodes.span())?;
        words("parents", rows, self.parents.span())?;
        words("sequences", 1, self.sequences.span())?;
        checks.words("intervals", Some(rows * 2), &self.intervals)?;
        words("tree_bits", rows * 2, self.tree_bits.span())?;
        words("positions", rows, self.positions.span())?;
        if let Some(span) = self.tree_bits.span()
            && span.misalignment(8) != 0
        {
            let fault = Fault::Align { expected: 8, got: span.misalignment(8) };
            return Err(checks.refuse("tree_bits", fault));
        }
        self.check_together()
    }

    /// What a checked call takes with so many workers: nothing.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.check().map(|()| Needs::default())
    }

    /// Buffers that have a meaning only together.
    fn check_together(&self) -> Result<(), Error> {
        let checks = Self::CHECKS;
        let missing = |field, needed_by| Err(checks.refuse(field, Fault::Missing { needed_by }));
        let unused = |field, needs| Err(checks.refuse(field, Fault::Unused { needs }));
        match (self.document_start.span().is_some(), self.documents.span().is_some()) {
            (true, false) => return missing("documents", "document_start"),
            (false, true) => return unused("documents", "document_start"),
            (false, false) => {
                checks.equal("documents_max", 0, u64::from(self.params.documents_max))?
            }
            (true, true) => {}
        }
        let tree = self.tree_nodes.span().is_some();
        match (tree, self.parents.span().is_some()) {
            (true, false) => return missing("parents", "tree_nodes"),
            (false, true) => return unused("parents", "tree_nodes"),
            _ => {}
        }
        if tree && self.tree_bits.span().is_none() {
            return missing("tree_bits", "tree_nodes");
        }
        Ok(())
    }
}
