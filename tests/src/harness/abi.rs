//! The C ABI as a machine: a case's command goes through `pagewise.h`, as an embedder would
//! send it.

use super::Bytes;
use super::machine::{Kernel, Machine};
use kernels_core::Error;
use kernels_core::attention::Attention;
use kernels_core::command::Lay;
use kernels_core::device::{Buffer, Command, Slice};
use kernels_core::error::Fault;
use kernels_core::{dtype::Dtype, params};
use pagewise::header::{
    self, pw_attention_args, pw_attention_desc, pw_attention_lens, pw_device, pw_device_options,
    pw_error, pw_kv_layout, pw_needs, pw_run, pw_status,
};
use std::ffi::{CStr, c_char};
use std::ptr::{self, null, null_mut};

/// A device that C opened.
pub struct Abi {
    device: *mut pw_device,
    /// Why the last call was not made.
    pub refused: Option<Refused>,
}

/// What C was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the function returned.
    pub status: pw_status,
    /// What is at fault.
    pub field: String,
    /// In words.
    pub message: String,
}

impl Abi {
    /// The CPU, with so many threads.
    pub fn cpu(threads: u32) -> Self {
        let options =
            pw_device_options { struct_size: size_of::<pw_device_options>() as u32, threads };
        let mut device = null_mut();
        // SAFETY: a name of three bytes, options, and a place for the handle.
        let status = unsafe {
            pagewise::pw_device_open(c"cpu".as_ptr(), 3, &options, &mut device, null_mut())
        };
        assert_eq!(status, header::PW_OK as pw_status);
        Self { device, refused: None }
    }

    /// Its arithmetic.
    pub fn numerics(&self) -> String {
        // SAFETY: the device is open, and its name ends with 0.
        unsafe { CStr::from_ptr(pagewise::pw_device_numerics(self.device)) }
            .to_str()
            .expect("ASCII")
            .to_owned()
    }

    /// Calls a function of C with room for its error.
    fn told(
        &mut self,
        call: impl FnOnce(*const pw_device, *mut pw_error) -> pw_status,
    ) -> Result<(), Error> {
        let mut error = pw_error {
            struct_size: size_of::<pw_error>() as u32,
            status: 0,
            field: [0; 32],
            expected: 0,
            got: 0,
            message: [0; 200],
        };
        let status = call(self.device, &mut error);
        if status == header::PW_OK as pw_status {
            return Ok(());
        }
        assert_eq!(error.status, status, "the error says what the function does");
        let text = |letters: &[c_char]| {
            let letters = bytemuck::cast_slice(letters).split(|letter: &u8| *letter == 0).next();
            String::from_utf8(letters.unwrap_or_default().to_vec()).expect("UTF-8")
        };
        let (field, message) = (text(&error.field), text(&error.message));
        self.refused = Some(Refused { status, field, message });
        Err(Error::new("abi", "refused", Fault::Stale))
    }

    fn attention(&mut self, command: &Attention) -> Result<(), Error> {
        let p = &command.params;
        let seqs = command.seqs.map_or(p.seqs_max, |seqs| words(seqs.0)[0]);
        let mask = [
            (p.causal == 1, header::PW_MASK_CAUSAL),
            (command.intervals.is_some(), header::PW_MASK_INTERVALS),
            (command.tree_bits.is_some(), header::PW_MASK_TREE),
        ];
        let kinds = [header::PW_PAGES_LISTED, header::PW_PAGES_PADDED];
        let desc = pw_attention_desc {
            struct_size: size_of::<pw_attention_desc>() as u32,
            mask: mask.iter().filter(|(has, _)| *has).map(|(_, bit)| bit).sum(),
            kv: layout(&p.kv),
            q_row_stride: bytes(p.q_row_stride, p.q_dtype),
            out_row_stride: bytes(p.out_row_stride, p.out_dtype),
            q_dtype: p.q_dtype,
            out_dtype: p.out_dtype,
            q_heads: p.q_heads,
            window: p.window,
            scale: p.scale,
            softcap: p.softcap,
            page_table: kinds[usize::from(p.table_width > 0)],
            table_width: p.table_width,
            rows_max: p.rows_max,
            seqs_max: p.seqs_max,
            kv_len_max: p.kv_len_max,
            page_ids_max: p.page_ids_max,
        };
        let mut needs = pw_needs {
            struct_size: size_of::<pw_needs>() as u32,
            alignment: 0,
            plan_bytes: 0,
            workspace_bytes: 0,
        };
        // SAFETY: structs of their sizes.
        self.told(|device, error| unsafe {
            pagewise::pw_attention_query(device, &desc, &mut needs, error)
        })?;
        let at = |slice: Option<Slice>| {
            slice.map_or(null(), |slice| ptr::with_exposed_provenance(slice.offset as usize))
        };
        let lens = pw_attention_lens {
            struct_size: size_of::<pw_attention_lens>() as u32,
            seqs,
            q_start: at(Some(command.q_start.0)),
            kv_len: at(Some(command.kv_len.0)),
            page_start: at(command.page_start.map(|read| read.0)),
            first_position: at(command.first_position.map(|read| read.0)),
        };
        let mut plan = Bytes::filled(needs.plan_bytes as usize, 0xff);
        let mut workspace = Bytes::filled(needs.workspace_bytes as usize, 0xff);
        let (to, room) = (plan.as_mut_slice().as_mut_ptr(), needs.plan_bytes);
        // SAFETY: structs of their sizes, lists of the case, and room of so many bytes.
        self.told(|device, error| unsafe {
            pagewise::pw_attention_plan(device, &desc, &lens, to.cast(), room, error)
        })?;
        // Plans may be moved.
        let plan = plan.clone();
        let at = |slice: Option<Slice>| -> *const u8 {
            slice.map_or(null(), |slice| ptr::with_exposed_provenance(slice.offset as usize))
        };
        let args = pw_attention_args {
            struct_size: size_of::<pw_attention_args>() as u32,
            reserved: 0,
            q: at(Some(command.q.0)).cast(),
            keys: at(Some(command.keys.0)).cast(),
            values: at(command.values.map(|read| read.0)).cast(),
            kv_scales: at(command.scales.map(|read| read.0)).cast(),
            page_ids: at(Some(command.page_ids.0)).cast(),
            intervals: at(command.intervals.map(|read| read.0)).cast(),
            tree_bits: at(command.tree_bits.map(|read| read.0)).cast(),
            sinks: at(command.sinks.map(|read| read.0)).cast(),
            slopes: at(command.slopes.map(|read| read.0)).cast(),
            out: ptr::with_exposed_provenance_mut::<u8>(command.out.0.offset as usize).cast(),
            lse: command.lse.map_or(null_mut(), |lse| {
                ptr::with_exposed_provenance_mut::<f32>(lse.0.offset as usize)
            }),
            run: pw_run {
                plan: plan.as_slice().as_ptr().cast(),
                plan_bytes: needs.plan_bytes,
                workspace: workspace.as_mut_slice().as_mut_ptr().cast(),
                workspace_bytes: needs.workspace_bytes,
            },
        };
        // SAFETY: structs of their sizes, and the buffers of the case.
        self.told(|device, error| unsafe {
            pagewise::pw_attention_run(device, &desc, &args, null_mut(), error)
        })
    }
}

impl Machine for Abi {
    fn run<C: Kernel>(&mut self, mut command: C) -> Result<(), Error> {
        match command.lay(&mut Addresses) {
            Command::Attention(attention) => self.attention(&attention),
            other => panic!("{} is not in the header", other.kernel()),
        }
    }
}

impl Drop for Abi {
    fn drop(&mut self) {
        // SAFETY: it is open, and nobody else has it.
        unsafe { pagewise::pw_device_destroy(self.device) }
    }
}

/// Buffers by their addresses.
struct Addresses;

impl Addresses {
    fn slice(address: usize, bytes: usize) -> Slice {
        let buffer = Buffer { owner: 0, id: 0, generation: 0 };
        Slice { buffer, offset: address as u64, bytes: bytes as u64 }
    }
}

impl Lay for Addresses {
    fn read(&mut self, bytes: &[u8]) -> Slice {
        Self::slice(bytes.as_ptr().expose_provenance(), bytes.len())
    }
    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        Self::slice(bytes.as_mut_ptr().expose_provenance(), bytes.len())
    }
}

/// The words of a buffer that was laid out by its address, and still lies there.
fn words<'a>(slice: Slice) -> &'a [u32] {
    let at = ptr::with_exposed_provenance::<u32>(slice.offset as usize);
    // SAFETY: the case holds its buffers while its command runs.
    unsafe { std::slice::from_raw_parts(at, slice.bytes as usize / 4) }
}

/// Elements of a type as bytes.
fn bytes(elements: u64, dtype: u32) -> i64 {
    let dtype = Dtype::ALL.into_iter().find(|known| *known as u32 == dtype);
    dtype.map_or(0, |dtype| dtype.bytes(Some(elements)).map_or(i64::MAX, |bytes| bytes as i64))
}

fn layout(p: &params::KvLayout) -> pw_kv_layout {
    let stride = |elements| bytes(elements, p.dtype);
    // Pairs of dims share a byte.
    let dims = if p.dtype == params::DTYPE_I4 { 2 * p.k_dim_stride } else { p.k_dim_stride };
    pw_kv_layout {
        page_stride: stride(p.page_stride),
        k_head_stride: stride(p.k_head_stride),
        k_token_stride: stride(p.k_token_stride),
        k_dim_stride: stride(dims),
        v_head_stride: stride(p.v_head_stride),
        v_token_stride: stride(p.v_token_stride),
        v_offset: stride(p.v_offset),
        pages: p.pages,
        page_len: p.page_len,
        kv_heads: p.kv_heads,
        head_dim: p.head_dim,
        dtype: p.dtype,
        scales: p.scales,
        k_scale: p.k_scale,
        v_scale: p.v_scale,
    }
}
