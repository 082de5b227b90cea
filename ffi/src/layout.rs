//! Layouts of keys and values: strides in bytes become strides in elements.

use crate::error::Refusal;
use crate::header::pw_kv_layout;
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::params;

/// Strides past this are refused, so that no sum of them overflows.
const STRIDE_MAX: i64 = 1 << 62;

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

/// The layout as kernels take it.
pub fn layout(checks: Checks, of: &pw_kv_layout) -> Result<params::KvLayout, Refusal> {
    let dtype = Dtype::parse(checks, "dtype", of.dtype, &Dtype::ALL)?;
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
