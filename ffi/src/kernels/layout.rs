//! How things lie in C's buffers: strides in bytes become strides in elements.

use crate::error::Refusal;
use crate::header::{pw_kv_layout, pw_weight};
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault, extent};
use kernels_core::kv_layout::KvLayout;
use kernels_core::params;

/// Strides past this are refused, so that no sum of them overflows.
const STRIDE_MAX: i64 = 1 << 62;

/// Rows that are further apart, in elements, are refused by every kernel: as a buffer, not as the
/// stride that they have here.
const ROW_STRIDE_MAX: u64 = 1 << 30;

/// Bytes as whole elements.
pub fn elements(field: &'static str, bytes: i64, dtype: Dtype) -> Result<u64, Refusal> {
    let refuse = |fault| Err(Refusal::Number { field, fault });
    if !(0..=STRIDE_MAX).contains(&bytes) {
        return refuse(Fault::Range { least: 0, most: STRIDE_MAX, got: bytes });
    }
    let (bytes, of) = (bytes as u64, dtype.align());
    match dtype {
        Dtype::I4 => Ok(bytes.saturating_mul(2)),
        _ if bytes.is_multiple_of(of) => Ok(bytes / of),
        _ => refuse(Fault::Multiple { of, got: bytes }),
    }
}

/// A matrix whose rows may be apart.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    dtype: Dtype,
    /// In elements.
    pub row_stride: u64,
    width: u64,
}

impl Matrix {
    /// Rows of `width` elements, so many bytes apart: no less than a row has.
    pub fn new(
        field: &'static str,
        stride_bytes: i64,
        dtype: Dtype,
        width: u64,
    ) -> Result<Self, Refusal> {
        let row_stride = elements(field, stride_bytes, dtype)?;
        if row_stride < width || row_stride > ROW_STRIDE_MAX {
            let bytes = |count| dtype.bytes(Some(count)).unwrap_or(u64::MAX) as i64;
            let (least, most) = (bytes(width), bytes(ROW_STRIDE_MAX));
            let fault = Fault::Range { least, most, got: stride_bytes };
            return Err(Refusal::Number { field, fault });
        }
        Ok(Self { dtype, row_stride, width })
    }

    /// One that is not there if its stride is 0.
    pub fn maybe(
        field: &'static str,
        stride_bytes: i64,
        dtype: Dtype,
        width: u64,
    ) -> Result<Option<Self>, Refusal> {
        let there = stride_bytes != 0;
        there.then(|| Self::new(field, stride_bytes, dtype, width)).transpose()
    }

    /// Bytes of so many rows.
    pub fn bytes(&self, rows: u32) -> u64 {
        let before = u64::from(rows.saturating_sub(1)).saturating_mul(self.row_stride);
        let count = if rows == 0 { 0 } else { before.saturating_add(self.width) };
        self.dtype.bytes(Some(count)).unwrap_or(u64::MAX)
    }
}

/// Bytes of a list of elements.
pub fn bytes(dtype: Dtype, count: u64) -> u64 {
    dtype.bytes(Some(count)).unwrap_or(u64::MAX)
}

/// Bytes of so many 32-bit numbers, each way.
pub fn words(extents: &[u64]) -> u64 {
    extent(extents).and_then(|count| count.checked_mul(4)).unwrap_or(u64::MAX)
}

/// Bytes of a slab of masks, the last of which need not be as far apart from a next one.
pub fn masks(vocab: u32, [masks, mask_words]: [u32; 2]) -> u64 {
    let before = u64::from(masks.saturating_sub(1)) * u64::from(mask_words);
    words(&[before.saturating_add(vocab.div_ceil(32).into())])
}

/// A field that has no meaning yet.
pub fn reserved(value: u32) -> Result<(), Refusal> {
    let fault = Fault::Equal { expected: 0, got: value.into() };
    if value == 0 { Ok(()) } else { Err(Refusal::Number { field: "reserved", fault }) }
}

/// A field that is 0 or 1.
pub fn switch(field: &'static str, value: u32) -> Result<bool, Refusal> {
    let fault = Fault::Range { least: 0, most: 1, got: value.into() };
    if value > 1 { Err(Refusal::Number { field, fault }) } else { Ok(value == 1) }
}

/// A weight as kernels take it.
pub fn weight(of: &pw_weight) -> params::Weight {
    let pw_weight { outputs, inputs, dtype, scheme, group, scale_dtype } = *of;
    params::Weight { outputs, inputs, dtype, scheme, group, scale_dtype }
}

/// The slabs of keys and values.
#[derive(Clone, Copy, Debug)]
pub struct Slabs {
    pub params: params::KvLayout,
    kv: KvLayout,
}

impl Slabs {
    /// Of a layout.
    pub fn new(checks: Checks, of: &pw_kv_layout) -> Result<Self, Refusal> {
        let params = layout(checks, of)?;
        Ok(Self { params, kv: KvLayout::new(checks, &params).map_err(Refusal::Layout)? })
    }

    pub fn keys_bytes(&self) -> u64 {
        self.kv.keys_bytes()
    }

    /// Whether values have a slab of their own, and its bytes.
    pub fn values(&self) -> (bool, u64) {
        (!self.kv.shares_slab(), self.kv.values_bytes())
    }

    /// Whether scales have a slab, and its bytes.
    pub fn scales(&self) -> (bool, u64) {
        let count = self.kv.scale_count();
        let bytes = count.and_then(|count| count.checked_mul(4)).unwrap_or(u64::MAX);
        (self.params.scales == params::KV_SCALES_TOKEN, bytes)
    }
}

/// The layout as kernels take it.
fn layout(checks: Checks, of: &pw_kv_layout) -> Result<params::KvLayout, Refusal> {
    let dtype = Dtype::parse(checks, "dtype", of.dtype, &Dtype::ALL).map_err(Refusal::Layout)?;
    let stride = |field, bytes| elements(field, bytes, dtype);
    let dims = stride("kv.k_dim_stride", of.k_dim_stride)?;
    Ok(params::KvLayout {
        page_stride: stride("kv.page_stride", of.page_stride)?,
        k_head_stride: stride("kv.k_head_stride", of.k_head_stride)?,
        k_token_stride: stride("kv.k_token_stride", of.k_token_stride)?,
        // Of two dims that share a byte: a step of one byte to the next two is one of rows.
        k_dim_stride: if dtype == Dtype::I4 { dims / 2 } else { dims },
        v_head_stride: stride("kv.v_head_stride", of.v_head_stride)?,
        v_token_stride: stride("kv.v_token_stride", of.v_token_stride)?,
        v_offset: stride("kv.v_offset", of.v_offset)?,
        pages: of.pages,
        page_len: of.page_len,
        kv_heads: of.kv_heads,
        head_dim: of.head_dim,
        dtype: of.dtype,
        scales: of.scales,
        k_scale: of.k_scale,
        v_scale: of.v_scale,
    })
}
