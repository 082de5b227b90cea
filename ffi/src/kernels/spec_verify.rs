//! `spec_verify`, as C calls it.

use super::layout::{Matrix, reserved, switch};
use super::plan::{LISTS, Step};
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::header::pw_verify_request;
use crate::memory::Buffers;
use kernels_core::command::{Host, Recorded};
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::params;
use kernels_core::spec_verify::SpecVerify;

const CHECKS: Checks = SpecVerify::<Recorded>::CHECKS;
/// C's requests are the kernel's.
const _: () = assert!(size_of::<pw_verify_request>() == size_of::<params::VerifyRequest>());
/// Words of an entry of kv_copy.
const ENTRY: u64 = kernels_core::kv_copy::ENTRY_WORDS as u64;

struct Call {
    params: params::SpecVerify,
    target: Option<Matrix>,
    draft: Option<Matrix>,
    tree: bool,
    places: bool,
}

impl Kernel for Call {
    kernel!(
        spec_verify SpecVerify,
        pw_spec_verify_desc,
        pw_spec_verify_args,
        b"pw-ver-1",
        workspace
    );
    type Lens = (u32, *const u32);

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        reserved(desc.reserved)?;
        let vocab = u64::from(desc.vocab);
        let matrix = |field, stride| Matrix::maybe(field, stride, Dtype::F32, vocab);
        let target = matrix("target_row_stride", desc.target_row_stride)?;
        let draft = matrix("draft_row_stride", desc.draft_row_stride)?;
        let tokens = desc.mode == params::VERIFY_TOKENS;
        if tokens == target.is_some() {
            let fault = match tokens {
                true => Fault::Unused { needs: "PW_VERIFY_GREEDY or PW_VERIFY_REJECTION" },
                false => Fault::Missing { needed_by: "PW_VERIFY_GREEDY and PW_VERIFY_REJECTION" },
            };
            return Err(Refusal::Number { field: "target_row_stride", fault });
        }
        if desc.mode != params::VERIFY_REJECTION && draft.is_some() {
            let fault = Fault::Unused { needs: "PW_VERIFY_REJECTION" };
            return Err(Refusal::Number { field: "draft_row_stride", fault });
        }
        CHECKS.range("seqs_max", desc.seqs_max, 1..=1 << 24)?;
        let params = params::SpecVerify {
            target_row_stride: target.map_or(0, |target| target.row_stride),
            draft_row_stride: draft.map_or(0, |draft| draft.row_stride),
            sequences_max: desc.seqs_max,
            nodes_max: desc.nodes_max,
            vocab: desc.vocab,
            mode: desc.mode,
        };
        let (tree, places) = (switch("tree", desc.tree)?, switch("places", desc.places)?);
        Ok(Self { params, target, draft, tree, places })
    }

    fn most(&self) -> Step<'static> {
        Step::of([self.params.sequences_max, self.params.nodes_max, 0])
    }

    fn lists(&self) -> [u64; LISTS] {
        [u64::from(self.params.sequences_max) + 1, 0, 0, 0, 0, 0]
    }

    fn nothing(command: Self::Command<Host<'_>>) {
        if let Some(count) = command.count {
            count.fill(0);
        }
    }

    unsafe fn step<'a>(&self, (seqs, node_start): Self::Lens) -> Result<Step<'a>, Refusal> {
        CHECKS.range("seqs", seqs, 0..=self.params.sequences_max.into())?;
        let bytes = 4 * (u64::from(seqs) + 1);
        // SAFETY: as the caller of this says.
        let starts = unsafe { Buffers::new().read("node_start", node_start, bytes)? };
        let starts: &[u32] = bytemuck::cast_slice(starts);
        CHECKS.ascending("node_start", starts, self.params.nodes_max)?;
        let mut step = Step::of([seqs, starts[seqs as usize], 0]);
        step.lists[0] = starts;
        Ok(step)
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [seqs, nodes, _] = step.counts;
        let (p, sequences, each) = (&self.params, u64::from(seqs), u64::from(nodes));
        let rejection = p.mode == params::VERIFY_REJECTION;
        let tokens = p.mode == params::VERIFY_TOKENS;
        let target = There::If(self.target.is_some(), "target_row_stride");
        let draft = There::If(self.draft.is_some(), "draft_row_stride");
        let places = There::If(self.places, "places");
        let rows = |matrix: Option<Matrix>| matrix.map_or(0, |matrix| matrix.bytes(nodes));
        let request_bytes = size_of::<params::VerifyRequest>() as u64 * sequences;
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(SpecVerify {
                params: params::SpecVerify { sequences_max: seqs, nodes_max: nodes, ..*p },
                node_start: at.list(step, 0, sequences + 1),
                tokens: at.read("tokens", args.tokens, 4 * each)?,
                parents: at.maybe_read(
                    "parents",
                    args.parents,
                    There::If(self.tree, "tree"),
                    4 * each,
                )?,
                target: at.maybe_read("target", args.target, target, rows(self.target))?,
                draft: at.maybe_read("draft", args.draft, draft, rows(self.draft))?,
                sampled: at.maybe_read(
                    "sampled",
                    args.sampled,
                    There::If(tokens, "PW_VERIFY_TOKENS"),
                    4 * each,
                )?,
                requests: at.maybe_read(
                    "requests",
                    args.requests,
                    There::If(rejection, "PW_VERIFY_REJECTION"),
                    request_bytes,
                )?,
                places: at.maybe_read("places", args.places, places, 8 * each)?,
                sequences: at.live(0),
                path: at.write("path", args.path, 4 * each)?,
                accepted: at.write("accepted", args.accepted, 4 * sequences)?,
                next: at.write("next", args.next, 4 * sequences)?,
                status: at.write("status", args.status, 4 * sequences)?,
                entries: at.maybe_write("entries", args.entries, places, 4 * ENTRY * each)?,
                count: at.maybe_write("count", args.count, places, 4)?,
            })
        }
    }
}

kernel!(
    export Call,
    pw_spec_verify_query,
    pw_spec_verify_plan(seqs: u32, node_start: *const u32),
    pw_spec_verify_run,
    48, 144
);
