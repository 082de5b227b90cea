//! Layouts of pages that cases of several kernels share.

use kernels_core::dtype::Dtype;
use kernels_core::params;

/// How keys and values lie in their slabs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `[page][head][K: dims × tokens | V: tokens × dims]`.
    Native,
    /// As native, with gaps so that no stride is a multiple of 8.
    Gaps,
    /// `[page][token][head][dim]`, K and V in slabs of their own.
    Rows,
    /// `[2][page][token][head][dim]`: all of K, then all of V.
    Tensor,
    /// `[head][page][token][K | V]`.
    HeadMajor,
}

/// Every form.
pub const FORMS: [Form; 5] = [Form::Native, Form::Gaps, Form::Rows, Form::Tensor, Form::HeadMajor];

/// A slab of pages.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    /// How they lie.
    pub form: Form,
    /// How many.
    pub pages: u32,
    /// Tokens of each.
    pub page_len: u32,
    /// Heads of K and V.
    pub kv_heads: u32,
    /// Dims of a head.
    pub head_dim: u32,
    /// What is stored.
    pub dtype: Dtype,
    /// Whether each token has a scale, where the type takes any.
    pub token_scales: bool,
}

impl Pages {
    /// The block of parameters.
    pub fn layout(&self) -> params::KvLayout {
        let (len, heads) = (u64::from(self.page_len), u64::from(self.kv_heads));
        let (dim, pages) = (u64::from(self.head_dim), u64::from(self.pages));
        // Two nibbles share a byte along the dims.
        let pair = if self.dtype == Dtype::I4 { 2 } else { 1 };
        let scales = match (self.dtype, self.token_scales) {
            (Dtype::F32 | Dtype::F16 | Dtype::Bf16, _) => params::KV_SCALES_NONE,
            (_, true) => params::KV_SCALES_TOKEN,
            (_, false) => params::KV_SCALES_STATIC,
        };
        let fixed = scales == params::KV_SCALES_STATIC;
        let base = params::KvLayout {
            pages: self.pages,
            page_len: self.page_len,
            kv_heads: self.kv_heads,
            head_dim: self.head_dim,
            dtype: self.dtype as u32,
            scales,
            k_scale: if fixed { 0.0625 } else { 0.0 },
            v_scale: if fixed { 0.05 } else { 0.0 },
            ..Default::default()
        };
        let with =
            |page, head: [u64; 2], token: [u64; 2], k_dim_stride, v_offset| params::KvLayout {
                page_stride: page,
                k_head_stride: head[0],
                v_head_stride: head[1],
                k_token_stride: token[0],
                v_token_stride: token[1],
                k_dim_stride,
                v_offset,
                ..base
            };
        match self.form {
            Form::Native => {
                let block = len * dim;
                with(2 * block * heads, [2 * block; 2], [pair, dim], len, block)
            }
            Form::Gaps => {
                let (column, row) = (len + 1, dim + 2);
                let (keys, values) = (column * dim + 2, row * len + 2);
                let head = keys + values + 2;
                with(head * heads + 6, [head; 2], [pair, row], column, keys)
            }
            Form::Rows => with(heads * len * dim, [dim; 2], [heads * dim; 2], 1, 0),
            Form::Tensor => {
                let page = heads * len * dim;
                with(page, [dim; 2], [heads * dim; 2], 1, pages * page)
            }
            Form::HeadMajor => {
                let page = 2 * dim * len;
                with(page, [pages * page; 2], [2 * dim; 2], 1, dim)
            }
        }
    }
}
