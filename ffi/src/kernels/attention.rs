//! `attention`, as C calls it.

use super::layout::{Matrix, Slabs, words};
use super::plan::{LISTS, Step};
use super::source::{Source, There};
use super::{Kernel, kernel};
use crate::error::Refusal;
use crate::guard::{Sized32, read};
use crate::header::{self, pw_attention_lens};
use crate::memory::Buffers;
use kernels_core::attention::Attention;
use kernels_core::command::Recorded;
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::params;

const CHECKS: Checks = Attention::<Recorded>::CHECKS;
const MASKS: u32 = header::PW_MASK_CAUSAL | header::PW_MASK_INTERVALS | header::PW_MASK_TREE;

struct Call {
    params: params::Attention,
    slabs: Slabs,
    q: Matrix,
    out: Matrix,
    mask: u32,
}

// SAFETY: bindgen's struct of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_attention_lens {
    const LEAST: u32 = 40;
}

impl Call {
    fn has(&self, mask: u32) -> bool {
        self.mask & mask != 0
    }

    fn listed(&self) -> bool {
        self.params.table_width == 0
    }

    fn page_id_bytes(&self, seqs: u32, ids: u32) -> u64 {
        match self.params.table_width {
            0 => 4 * u64::from(ids),
            width => words(&[seqs.into(), width.into()]),
        }
    }
}

/// What a descriptor says of masks, if it makes sense.
fn mask(mask: u32) -> Result<u32, Refusal> {
    let refuse = |fault| Err(Refusal::Number { field: "mask", fault });
    if mask & !MASKS != 0 {
        return refuse(Fault::Range { least: 0, most: MASKS.into(), got: mask.into() });
    }
    if mask & header::PW_MASK_TREE != 0 && mask & header::PW_MASK_INTERVALS == 0 {
        return refuse(Fault::Missing { needed_by: "PW_MASK_TREE: PW_MASK_INTERVALS" });
    }
    Ok(mask)
}

/// The form of a page table has the number that it takes, and not the other's.
fn page_table(table: u32, width: u32, ids: u32) -> Result<(), Refusal> {
    let refuse = |field, fault| Err(Refusal::Number { field, fault });
    match table {
        header::PW_PAGES_LISTED if width != 0 => {
            refuse("table_width", Fault::Unused { needs: "PW_PAGES_PADDED" })
        }
        header::PW_PAGES_PADDED if ids != 0 => {
            refuse("page_ids_max", Fault::Unused { needs: "PW_PAGES_LISTED" })
        }
        header::PW_PAGES_PADDED => Ok(CHECKS.range("table_width", width, 1..=1 << 30)?),
        header::PW_PAGES_LISTED => Ok(CHECKS.range("page_ids_max", ids, 0..=1 << 30)?),
        got => refuse("page_table", Fault::Range { least: 1, most: 2, got: got.into() }),
    }
}

impl Kernel for Call {
    kernel!(attention Attention, pw_attention_desc, pw_attention_args, b"pw-att-1", workspace);
    type Lens = *const pw_attention_lens;

    fn new(desc: &Self::Desc) -> Result<Self, Refusal> {
        let q = Dtype::parse_float(CHECKS, "q_dtype", desc.q_dtype)?;
        let out = Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?;
        let mask = mask(desc.mask)?;
        page_table(desc.page_table, desc.table_width, desc.page_ids_max)?;
        let slabs = Slabs::new(CHECKS, &desc.kv)?;
        let width = u64::from(desc.q_heads) * u64::from(desc.kv.head_dim);
        let q = Matrix::new("q_row_stride", desc.q_row_stride, q, width)?;
        let out = Matrix::new("out_row_stride", desc.out_row_stride, out, width)?;
        let params = params::Attention {
            kv: slabs.params,
            q_row_stride: q.row_stride,
            out_row_stride: out.row_stride,
            rows_max: desc.rows_max,
            seqs_max: desc.seqs_max,
            q_heads: desc.q_heads,
            kv_len_max: desc.kv_len_max,
            table_width: desc.table_width,
            page_ids_max: desc.page_ids_max,
            q_dtype: desc.q_dtype,
            out_dtype: desc.out_dtype,
            causal: u32::from(mask & header::PW_MASK_CAUSAL != 0),
            window: desc.window,
            scale: desc.scale,
            softcap: desc.softcap,
        };
        Ok(Self { params, slabs, q, out, mask })
    }

    fn most(&self) -> Step<'static> {
        let p = &self.params;
        Step::of([p.rows_max, p.seqs_max, p.page_ids_max])
    }

    fn lists(&self) -> [u64; LISTS] {
        let seqs = u64::from(self.params.seqs_max);
        let page_starts = if self.listed() { seqs + 1 } else { 0 };
        [seqs + 1, seqs, page_starts, seqs, 0, 0]
    }

    /// Lengths, as far as they can be told without page ids.
    unsafe fn step<'a>(&self, lens: Self::Lens) -> Result<Step<'a>, Refusal> {
        // SAFETY: as the caller of this says.
        let lens = unsafe { read("lens", lens) }?;
        let p = &self.params;
        CHECKS.range("seqs", lens.seqs, 0..=p.seqs_max.into())?;
        let (mut buffers, seqs) = (Buffers::new(), u64::from(lens.seqs));
        // SAFETY: as the caller of this says.
        let (q_start, kv_len, page_start, first) = unsafe {
            (
                buffers.read("q_start", lens.q_start, 4 * (seqs + 1))?,
                buffers.read("kv_len", lens.kv_len, 4 * seqs)?,
                buffers.maybe_read("page_start", lens.page_start, 4 * (seqs + 1))?,
                buffers.maybe_read("first_position", lens.first_position, 4 * seqs)?,
            )
        };
        let list = |list: &'a [u8]| bytemuck::cast_slice::<u8, u32>(list);
        let (q_start, kv_len) = (list(q_start), list(kv_len));
        CHECKS.ascending("q_start", q_start, p.rows_max)?;
        CHECKS.elements("kv_len", kv_len, 0..=p.kv_len_max)?;
        let page_start = match (self.listed(), page_start.map(list)) {
            (true, None) => return Err(Refusal::Null("page_start")),
            (false, Some(_)) => {
                let fault = Fault::Unused { needs: "PW_PAGES_LISTED" };
                return Err(Refusal::Number { field: "page_start", fault });
            }
            (_, starts) => starts.unwrap_or(&[]),
        };
        CHECKS.ascending("page_start", page_start, p.page_ids_max)?;
        let last = |list: &[u32]| list.last().copied().unwrap_or(0);
        let mut step = Step::of([last(q_start), lens.seqs, last(page_start)]);
        let first = first.map_or(&[][..], list);
        (step.lists[0], step.lists[1], step.lists[2], step.lists[3]) =
            (q_start, kv_len, page_start, first);
        Ok(step)
    }

    unsafe fn command<'a, S: Source<'a>>(
        &self,
        at: &mut S,
        args: &Self::Args,
        step: &Step<'a>,
    ) -> Result<Self::Command<S::Memory>, Refusal> {
        let [rows, seqs, ids] = step.counts;
        let (p, each, count) = (&self.params, u64::from(rows), u64::from(seqs));
        let heads = u64::from(p.q_heads);
        let ((own, value_bytes), (scaled, scale_bytes)) =
            (self.slabs.values(), self.slabs.scales());
        let listed = There::If(self.listed(), "PW_PAGES_LISTED");
        let intervals = There::If(self.has(header::PW_MASK_INTERVALS), "PW_MASK_INTERVALS");
        let tree = There::If(self.has(header::PW_MASK_TREE), "PW_MASK_TREE");
        // SAFETY: as the caller of this says.
        unsafe {
            Ok(Attention {
                params: params::Attention {
                    rows_max: rows,
                    seqs_max: seqs,
                    page_ids_max: ids,
                    ..*p
                },
                q: at.read("q", args.q.cast::<u8>(), self.q.bytes(rows))?,
                keys: at.read("keys", args.keys.cast::<u8>(), self.slabs.keys_bytes())?,
                values: at.maybe_read(
                    "values",
                    args.values.cast::<u8>(),
                    There::If(own, "kv.v_offset 0"),
                    value_bytes,
                )?,
                scales: at.maybe_read(
                    "kv_scales",
                    args.kv_scales,
                    There::If(scaled, "PW_KV_SCALES_TOKEN"),
                    scale_bytes,
                )?,
                q_start: at.list(step, 0, count + 1),
                kv_len: at.list(step, 1, count),
                first_position: at.maybe_list(step, 3, There::Maybe, count),
                page_start: at.maybe_list(step, 2, listed, count + 1),
                page_ids: at.read("page_ids", args.page_ids, self.page_id_bytes(seqs, ids))?,
                intervals: at.maybe_read("intervals", args.intervals, intervals, 8 * each)?,
                tree_bits: at.maybe_read("tree_bits", args.tree_bits, tree, 8 * each)?,
                sinks: at.maybe_read("sinks", args.sinks, There::Maybe, 4 * heads)?,
                slopes: at.maybe_read("slopes", args.slopes, There::Maybe, 4 * heads)?,
                out: at.write("out", args.out.cast::<u8>(), self.out.bytes(rows))?,
                lse: at.maybe_write("lse", args.lse, There::Maybe, words(&[each, heads]))?,
                seqs: at.live(1),
            })
        }
    }
}

kernel!(
    export Call,
    pw_attention_query,
    pw_attention_plan(lens: *const pw_attention_lens),
    pw_attention_run,
    160, 128
);
