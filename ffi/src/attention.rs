//! `attention`, as C calls it.

use crate::backend::Device;
use crate::error::Refusal;
use crate::guard::{Sized32, aligned, guard, read, write};
use crate::header::{
    self, pw_attention_args, pw_attention_desc, pw_attention_lens, pw_device, pw_error, pw_needs,
    pw_status,
};
use crate::layout::{elements, layout};
use crate::memory::Buffers;
use crate::plan::{ALIGNMENT, Kind};
use kernels_core::attention::{Attention, run};
use kernels_core::command::{Host, Recorded};
use kernels_core::device::{Buffer, Read, Slice, Write};
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::kv_layout::KvLayout;
use kernels_core::params;
use kernels_core::simd::environment;
use std::ffi::c_void;

const CHECKS: Checks = Attention::<Recorded>::CHECKS;
/// How its plans begin.
const KIND: &[u8; 8] = b"pw-att-1";
const MASKS: u32 = header::PW_MASK_CAUSAL | header::PW_MASK_INTERVALS | header::PW_MASK_TREE;

// SAFETY: bindgen's structs of numbers and pointers, the first of which is the size.
unsafe impl Sized32 for pw_attention_desc {
    const LEAST: u32 = 160;
}
// SAFETY: as above.
unsafe impl Sized32 for pw_attention_lens {
    const LEAST: u32 = size_of::<Self>() as u32;
}
// SAFETY: as above.
unsafe impl Sized32 for pw_attention_args {
    const LEAST: u32 = size_of::<Self>() as u32;
}
// SAFETY: as above.
unsafe impl Sized32 for pw_needs {
    const LEAST: u32 = 24;
}

/// A descriptor that was looked over.
struct Asked {
    params: params::Attention,
    kv: KvLayout,
    q: Dtype,
    out: Dtype,
    mask: u32,
    kind: Kind,
}

impl Asked {
    /// Refuses what only C has wrong; the rest is refused by [`Asked::needs`].
    fn new(desc: &pw_attention_desc) -> Result<Self, Refusal> {
        let refuse = |field, fault| Err(Refusal::Number { field, fault });
        let (q, out) = (
            Dtype::parse_float(CHECKS, "q_dtype", desc.q_dtype)?,
            Dtype::parse_float(CHECKS, "out_dtype", desc.out_dtype)?,
        );
        let mask = desc.mask;
        if mask & !MASKS != 0 {
            let most = MASKS.into();
            return refuse("mask", Fault::Range { least: 0, most, got: mask.into() });
        }
        if mask & header::PW_MASK_TREE != 0 && mask & header::PW_MASK_INTERVALS == 0 {
            return refuse("mask", Fault::Missing { needed_by: "PW_MASK_TREE: PW_MASK_INTERVALS" });
        }
        let (width, ids) = (desc.table_width, desc.page_ids_max);
        match desc.page_table {
            header::PW_PAGES_LISTED if width != 0 => {
                return refuse("table_width", Fault::Unused { needs: "PW_PAGES_PADDED" });
            }
            header::PW_PAGES_PADDED if ids != 0 => {
                return refuse("page_ids_max", Fault::Unused { needs: "PW_PAGES_LISTED" });
            }
            header::PW_PAGES_PADDED => CHECKS.range("table_width", width, 1..=1 << 30)?,
            header::PW_PAGES_LISTED => CHECKS.range("page_ids_max", ids, 0..=1 << 30)?,
            got => {
                return refuse("page_table", Fault::Range { least: 1, most: 2, got: got.into() });
            }
        }
        let params = params::Attention {
            kv: layout(CHECKS, &desc.kv)?,
            q_row_stride: elements("q_row_stride", desc.q_row_stride, q)?,
            out_row_stride: elements("out_row_stride", desc.out_row_stride, out)?,
            rows_max: desc.rows_max,
            seqs_max: desc.seqs_max,
            q_heads: desc.q_heads,
            kv_len_max: desc.kv_len_max,
            table_width: width,
            page_ids_max: ids,
            q_dtype: desc.q_dtype,
            out_dtype: desc.out_dtype,
            causal: u32::from(mask & header::PW_MASK_CAUSAL != 0),
            window: desc.window,
            scale: desc.scale,
            softcap: desc.softcap,
        };
        let kv = KvLayout::new(CHECKS, &params.kv)?;
        // The same descriptor of an older header is the same.
        let whole = pw_attention_desc { struct_size: 0, ..*desc };
        // SAFETY: numbers of 4 and 8 bytes, in order, leave no padding.
        let bytes = unsafe {
            std::slice::from_raw_parts((&raw const whole).cast::<u8>(), size_of_val(&whole))
        };
        Ok(Self { params, kv, q, out, mask, kind: Kind::new(KIND, bytes) })
    }

    fn has(&self, mask: u32) -> bool {
        self.mask & mask != 0
    }

    /// The command at its capacity, as if on a device where all buffers lie.
    fn recorded(&self) -> Attention {
        let p = &self.params;
        let buffer = Buffer { owner: 0, id: 0, generation: 0 };
        let slice = |bytes: u64| Slice { buffer, offset: 0, bytes };
        let read = |bytes| Read(slice(bytes));
        let some = |there: bool, bytes| there.then(|| read(bytes));
        let listed = p.table_width == 0;
        let (rows, seqs) = (u64::from(p.rows_max), u64::from(p.seqs_max));
        Attention {
            params: *p,
            q: read(self.matrix(self.q, p.q_row_stride, p.rows_max)),
            keys: read(self.kv.keys_bytes()),
            values: some(!self.kv.shares_slab(), self.kv.values_bytes()),
            scales: some(p.kv.scales == params::KV_SCALES_TOKEN, self.scale_bytes()),
            q_start: read(4 * (seqs + 1)),
            kv_len: read(4 * seqs),
            first_position: None,
            page_start: some(listed, 4 * (seqs + 1)),
            page_ids: read(self.page_id_bytes(p.seqs_max, p.page_ids_max)),
            intervals: some(self.has(header::PW_MASK_INTERVALS), 8 * rows),
            tree_bits: some(self.has(header::PW_MASK_TREE), 8 * rows),
            sinks: None,
            slopes: None,
            out: Write(slice(self.matrix(self.out, p.out_row_stride, p.rows_max))),
            lse: None,
            seqs: None,
        }
    }

    /// Bytes of a matrix of so many rows.
    fn matrix(&self, dtype: Dtype, row_stride: u64, rows: u32) -> u64 {
        let p = &self.params;
        let width = u64::from(p.q_heads) * u64::from(p.kv.head_dim);
        let before = u64::from(rows.saturating_sub(1)).saturating_mul(row_stride);
        let count = if rows == 0 { 0 } else { before.saturating_add(width) };
        dtype.bytes(Some(count)).unwrap_or(u64::MAX)
    }

    fn scale_bytes(&self) -> u64 {
        self.kv.scale_count().and_then(|count| count.checked_mul(4)).unwrap_or(u64::MAX)
    }

    fn page_id_bytes(&self, seqs: u32, ids: u32) -> u64 {
        match self.params.table_width {
            0 => 4 * u64::from(ids),
            width => 4 * u64::from(seqs) * u64::from(width),
        }
    }

    /// What it takes. Refuses what no lengths and no buffers would make right.
    fn needs(&self, workers: u32) -> Result<pw_needs, Refusal> {
        let seqs = u64::from(self.params.seqs_max);
        Ok(pw_needs {
            struct_size: 0,
            alignment: ALIGNMENT,
            plan_bytes: Kind::bytes(4 * seqs + 2),
            workspace_bytes: self.recorded().needs(workers)?.workspace_bytes,
        })
    }

    /// Lengths, as far as they can be told without page ids.
    fn lists<'a>(&self, lens: &Lens<'a>) -> Result<[&'a [u32]; 4], Refusal> {
        let p = &self.params;
        CHECKS.ascending("q_start", lens.q_start, p.rows_max)?;
        CHECKS.elements("kv_len", lens.kv_len, 0..=p.kv_len_max)?;
        match (p.table_width, lens.page_start) {
            (0, []) => return Err(Refusal::Null("page_start")),
            (0, starts) => CHECKS.ascending("page_start", starts, p.page_ids_max)?,
            (_, []) => {}
            _ => {
                let fault = Fault::Unused { needs: "PW_PAGES_LISTED" };
                return Err(Refusal::Number { field: "page_start", fault });
            }
        }
        Ok([lens.q_start, lens.kv_len, lens.page_start, lens.first_position])
    }
}

/// The caller's lengths; a list that is not there is empty.
struct Lens<'a> {
    q_start: &'a [u32],
    kv_len: &'a [u32],
    page_start: &'a [u32],
    first_position: &'a [u32],
}

impl Lens<'_> {
    /// # Safety
    ///
    /// Pointers lead to what the header says.
    unsafe fn of(lens: &pw_attention_lens, seqs_max: u32) -> Result<Self, Refusal> {
        CHECKS.range("seqs", lens.seqs, 0..=seqs_max.into())?;
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
        Ok(Self {
            q_start: bytemuck::cast_slice(q_start),
            kv_len: bytemuck::cast_slice(kv_len),
            page_start: page_start.map_or(&[], bytemuck::cast_slice),
            first_position: first.map_or(&[], bytemuck::cast_slice),
        })
    }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_attention_query(
    device: *const pw_device,
    desc: *const pw_attention_desc,
    needs: *mut pw_needs,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let device = Device::of(device)?;
        let asked = Asked::new(&read("desc", desc)?)?;
        let told = asked.needs(device.workers())?;
        if needs.is_null() { Ok(()) } else { write("needs", needs, told) }
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_attention_plan(
    device: *const pw_device,
    desc: *const pw_attention_desc,
    lens: *const pw_attention_lens,
    plan: *mut c_void,
    plan_bytes: u64,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let device = Device::of(device)?;
        let asked = Asked::new(&read("desc", desc)?)?;
        asked.needs(device.workers())?;
        let lens = read("lens", lens)?;
        let lens = Lens::of(&lens, asked.params.seqs_max)?;
        let lists = asked.lists(&lens)?;
        let expected = Kind::bytes(lists.iter().map(|list| list.len() as u64).sum());
        let plan = room("plan", plan, plan_bytes, expected)?;
        asked.kind.write(lists, plan);
        Ok(())
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_attention_run(
    device: *const pw_device,
    desc: *const pw_attention_desc,
    args: *const pw_attention_args,
    stream: *mut c_void,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let device = Device::of(device)?;
        let asked = Asked::new(&read("desc", desc)?)?;
        let args = read("args", args)?;
        if !stream.is_null() {
            let fault = Fault::Unused { needs: "a device with streams" };
            return Err(Refusal::Number { field: "stream", fault });
        }
        launch(device, &asked, &args)
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// # Safety
///
/// Pointers lead to what the header says.
unsafe fn launch(device: &Device, asked: &Asked, args: &pw_attention_args) -> Result<(), Refusal> {
    let mut buffers = Buffers::new();
    // SAFETY: so many bytes are the caller's.
    let plan = unsafe {
        at_least("plan", args.run.plan, args.run.plan_bytes, Kind::bytes(0))?;
        buffers.read("plan", args.run.plan.cast::<u8>(), args.run.plan_bytes)?
    };
    let [q_start, kv_len, page_start, first_position] = asked.kind.read(plan)?;
    let (seqs, rows) = (kv_len.len() as u32, q_start.last().copied().unwrap_or(0));
    let expected = asked.needs(device.workers())?.workspace_bytes;
    // SAFETY: so many bytes are the caller's.
    let workspace = unsafe {
        at_least("workspace", args.run.workspace, args.run.workspace_bytes, expected)?;
        buffers.write("workspace", args.run.workspace.cast::<u8>(), args.run.workspace_bytes)?
    };
    if rows == 0 || seqs == 0 {
        return Ok(());
    }
    let p = &asked.params;
    let ids = page_start.last().copied().unwrap_or(0);
    let params = params::Attention { rows_max: rows, seqs_max: seqs, page_ids_max: ids, ..*p };
    let heads = u64::from(p.q_heads);
    let list = |list| bytemuck::cast_slice::<u32, u8>(list);
    let maybe = |these: &'static str, there: bool, given: bool| match (there, given) {
        (true, false) => Err(Refusal::Null(these)),
        (false, true) => {
            let fault = Fault::Unused { needs: "its bit of mask" };
            Err(Refusal::Number { field: these, fault })
        }
        _ => Ok(()),
    };
    maybe("intervals", asked.has(header::PW_MASK_INTERVALS), !args.intervals.is_null())?;
    maybe("tree_bits", asked.has(header::PW_MASK_TREE), !args.tree_bits.is_null())?;
    let each = |bytes: u64| bytes * u64::from(rows);
    // SAFETY: as the caller of this says.
    let attention: Attention<Host<'_>> = unsafe {
        Attention {
            params,
            q: buffers.read(
                "q",
                args.q.cast::<u8>(),
                asked.matrix(asked.q, p.q_row_stride, rows),
            )?,
            keys: buffers.read("keys", args.keys.cast::<u8>(), asked.kv.keys_bytes())?,
            values: buffers.maybe_read(
                "values",
                args.values.cast::<u8>(),
                asked.kv.values_bytes(),
            )?,
            scales: buffers.maybe_read("kv_scales", args.kv_scales, asked.scale_bytes())?,
            q_start: list(q_start),
            kv_len: list(kv_len),
            first_position: (!first_position.is_empty()).then(|| list(first_position)),
            page_start: (!page_start.is_empty()).then(|| list(page_start)),
            page_ids: buffers.read("page_ids", args.page_ids, asked.page_id_bytes(seqs, ids))?,
            intervals: buffers.maybe_read("intervals", args.intervals, each(8))?,
            tree_bits: buffers.maybe_read("tree_bits", args.tree_bits, each(8))?,
            sinks: buffers.maybe_read("sinks", args.sinks, 4 * heads)?,
            slopes: buffers.maybe_read("slopes", args.slopes, 4 * heads)?,
            out: buffers.write(
                "out",
                args.out.cast::<u8>(),
                asked.matrix(asked.out, p.out_row_stride, rows),
            )?,
            lse: buffers.maybe_write("lse", args.lse, each(4 * heads))?,
            seqs: None,
        }
    };
    let _normal = environment::Normal::enter();
    Ok(run(device.level, &device.threads, attention, workspace)?)
}

/// Bytes of the caller's that are aligned, and enough.
fn at_least(
    field: &'static str,
    at: *const c_void,
    got: u64,
    expected: u64,
) -> Result<(), Refusal> {
    aligned(field, at.cast::<Line>())?;
    if got < expected { Err(Refusal::Space { field, expected, got }) } else { Ok(()) }
}

/// Room of the caller's for a plan.
///
/// # Safety
///
/// The pointer is NULL, or leads to so many bytes, which nobody else touches.
unsafe fn room<'a>(
    field: &'static str,
    at: *mut c_void,
    got: u64,
    expected: u64,
) -> Result<&'a mut [u8], Refusal> {
    at_least(field, at, got, expected)?;
    // SAFETY: as the caller of this says; what is expected is a few lists.
    Ok(unsafe { std::slice::from_raw_parts_mut(at.cast(), expected as usize) })
}

/// What plans and workspaces are aligned to.
#[repr(align(64))]
struct Line;
const _: () = assert!(align_of::<Line>() == ALIGNMENT as usize);
