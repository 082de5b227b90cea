//! `varlen_mask`, as C calls it.

use super::layout::switch;
use super::plan::{LISTS, Step};
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::guard::{Sized32, read};
use crate::header::pw_varlen_mask_lens;
use crate::memory::Buffers;
use kernels_core::command::Recorded;
use kernels_core::error::{Checks, Fault};
use kernels_core::params;
use kernels_core::varlen_mask::VarlenMask;

const CHECKS: Checks = VarlenMask::<Recorded>::CHECKS;

struct Call {
    params: params::VarlenMask,
    tree: bool,
}

// SAFETY: bindgen's struct of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_varlen_mask_lens {
    const LEAST: u32 = 56;
}

impl Kernel for Call {
    kernel!(varlen_mask VarlenMask, pw_varlen_mask_desc, pw_varlen_mask_args, b"pw-var-1");
    type Lens = *const pw_varlen_mask_lens;

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        let params = params::VarlenMask {
            rows_max: desc.rows_max,
            sequences_max: desc.seqs_max,
            documents_max: desc.documents_max,
            window: desc.window,
        };
        CHECKS.range("seqs_max", desc.seqs_max, 1..=1 << 24)?;
        Ok(Self { params, tree: switch("tree", desc.tree)? })
    }

    fn most(&self) -> Step<'static> {
        let p = &self.params;
        Step::of([p.rows_max, p.sequences_max, p.documents_max])
    }

    fn lists(&self) -> [u64; LISTS] {
        let (seqs, documents) =
            (self.params.sequences_max.into(), self.params.documents_max.into());
        let starts = if documents > 0 { seqs + 1 } else { 0 };
        [seqs + 1, seqs, seqs, starts, documents, if self.tree { seqs } else { 0 }]
    }

    unsafe fn step<'a>(&self, lens: Self::Lens) -> Result<Step<'a>, Refusal> {
        // SAFETY: as the caller of this says.
        let lens = unsafe { read("lens", lens) }?;
        let (p, seqs) = (&self.params, lens.seqs);
        CHECKS.range("seqs", seqs, 0..=p.sequences_max.into())?;
        let (each, one_more) = (4 * u64::from(seqs), 4 * (u64::from(seqs) + 1));
        let mut buffers = Buffers::new();
        let mut list = |field, at: *const u32, there, bytes| -> Result<&'a [u32], Refusal> {
            match (there, at.is_null()) {
                (There::If(true, _), true) => Err(Refusal::Null(field)),
                (There::If(false, needs), false) => {
                    Err(Refusal::Number { field, fault: Fault::Unused { needs } })
                }
                (_, true) => Ok(&[]),
                // SAFETY: as the caller of this says.
                (_, false) => unsafe { buffers.read(field, at, bytes) }.map(bytemuck::cast_slice),
            }
        };
        let always = There::If(true, "");
        let documents = There::If(p.documents_max > 0, "documents_max");
        let row_start = list("row_start", lens.row_start, always, one_more)?;
        CHECKS.ascending("row_start", row_start, p.rows_max)?;
        let document_start = list("document_start", lens.document_start, documents, one_more)?;
        CHECKS.ascending("document_start", document_start, p.documents_max)?;
        let document_count = document_start.last().copied().unwrap_or(0);
        let step = Step {
            counts: [row_start[seqs as usize], seqs, document_count],
            lists: [
                row_start,
                list("lengths", lens.lengths, always, each)?,
                list("prefixes", lens.prefixes, There::Maybe, each)?,
                document_start,
                list("documents", lens.documents, documents, 4 * u64::from(document_count))?,
                list("tree_nodes", lens.tree_nodes, There::If(self.tree, "tree"), each)?,
            ],
        };
        Ok(step)
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, seqs, documents] = step.counts;
        let (p, each) = (&self.params, u64::from(rows));
        let (count, listed) = (u64::from(seqs), There::If(p.documents_max > 0, "documents_max"));
        let tree = There::If(self.tree, "tree");
        // Without a tree they are zeros, for those who pass them on all the same.
        let bits = if self.tree { tree } else { There::Maybe };
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(VarlenMask {
                params: params::VarlenMask {
                    rows_max: rows,
                    sequences_max: seqs,
                    documents_max: documents,
                    window: p.window,
                },
                row_start: at.list(step, 0, count + 1),
                lengths: at.list(step, 1, count),
                prefixes: at.maybe_list(step, 2, There::Maybe, count),
                document_start: at.maybe_list(step, 3, listed, count + 1),
                documents: at.maybe_list(step, 4, listed, documents.into()),
                tree_nodes: at.maybe_list(step, 5, tree, count),
                parents: at.maybe_read("parents", args.parents, tree, 4 * each)?,
                sequences: at.live(1),
                intervals: at.write("intervals", args.intervals, 8 * each)?,
                tree_bits: at.maybe_write("tree_bits", args.tree_bits, bits, 8 * each)?,
                positions: at.maybe_write("positions", args.positions, There::Maybe, 4 * each)?,
            })
        }
    }
}

kernel!(
    export Call,
    pw_varlen_mask_query,
    pw_varlen_mask_plan(lens: *const pw_varlen_mask_lens),
    pw_varlen_mask_run,
    24, 72
);
