//! Where the keys and values of a token lie in a slab of pages: the checks and
//! the address arithmetic of [`params::KvLayout`], one for every kernel that
//! reads or writes pages.
//!
//! Addresses count cells: an element, or for i4 the byte that two dims share. A
//! layout passes only if its axes nest (each stride spans all that lies within),
//! so no two places share a cell and kernels may write heads side by side.

mod stored;

use crate::command::{MaybeSpan, Span};
use crate::dtype::Dtype;
use crate::error::{Checks, Error, Fault, extent};
use crate::params;

pub use stored::Stored;

/// A layout that was checked: its addresses never overflow, and never meet.
#[derive(Clone, Copy, Debug)]
pub struct KvLayout {
    p: params::KvLayout,
    dtype: Dtype,
    scales: Scales,
    /// Cells of one token's K or V in one head.
    dim_cells: u64,
    keys_bytes: u64,
    values_bytes: u64,
}

/// What turns stored numbers back into keys and values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scales {
    /// Nothing: the elements are floats.
    None,
    /// One factor for all keys and one for all values.
    Static {
        /// A key is its stored number times this.
        k: f32,
        /// A value is its stored number times this.
        v: f32,
    },
    /// A factor for each token, head, and K or V, in a slab of their own.
    Token,
}

/// Keys or values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// K.
    Keys,
    /// V.
    Values,
}

/// One token of one head in a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The page's number in the slab.
    pub page: u32,
    /// The head of K and V.
    pub head: u32,
    /// The token's number in the page.
    pub token: u32,
}

/// An axis of a layout: how many, and cells from one to the next (0 for one alone).
#[derive(Clone, Copy, PartialEq, Eq)]
struct Axis {
    kind: Kind,
    count: u64,
    stride: u64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Page,
    Head,
    Token,
    Dim,
}

impl KvLayout {
    /// The layout, if its numbers are allowed and its axes nest.
    pub fn new(checks: Checks, p: &params::KvLayout) -> Result<Self, Error> {
        checks.range("pages", p.pages, 1..=i64::from(u32::MAX))?;
        checks.range("page_len", p.page_len, 1..=65_536)?;
        checks.range("kv_heads", p.kv_heads, 1..=1024)?;
        checks.range("head_dim", p.head_dim, 8..=256)?;
        checks.multiple("head_dim", 8, u64::from(p.head_dim))?;
        let dtype = Dtype::parse(checks, "dtype", p.dtype, &Dtype::ALL)?;
        let scales = scales(checks, p, dtype)?;
        let dim_cells = u64::from(p.head_dim) / per_cell(dtype);
        let p = steps(p);
        let mut kv = Self { p, dtype, scales, dim_cells, keys_bytes: 0, values_bytes: 0 };
        kv.cells(checks)?;
        let (keys, values) = kv.reach(checks)?;
        let bytes = |cells: u64| {
            let bytes = cells.checked_mul(kv.cell_bytes()).filter(|bytes| *bytes < 1 << 62);
            bytes.ok_or(checks.refuse("page_stride", TOO_LARGE))
        };
        (kv.keys_bytes, kv.values_bytes) = (bytes(keys)?, bytes(values)?);
        Ok(kv)
    }

    /// The buffers are there exactly where the layout asks for them, and hold it.
    /// They are called `keys`, `values` and `scales` by every kernel.
    pub fn buffers(
        &self,
        checks: Checks,
        keys: &dyn Span,
        values: &dyn MaybeSpan,
        scales: &dyn MaybeSpan,
    ) -> Result<(), Error> {
        let cells = |bytes: u64| Some(bytes / self.cell_bytes());
        let cell = if self.dtype == Dtype::I4 { Dtype::I8 } else { self.dtype };
        checks.buffer("keys", cell, cells(self.keys_bytes), keys)?;
        match (values.span(), self.shares_slab()) {
            (Some(values), false) => {
                checks.buffer("values", cell, cells(self.values_bytes), values)?;
            }
            (None, true) => {}
            (None, false) => {
                let fault = Fault::Missing { needed_by: "v_offset 0" };
                return Err(checks.refuse("values", fault));
            }
            (Some(_), true) => {
                return Err(checks.refuse("values", Fault::Unused { needs: "v_offset 0" }));
            }
        }
        match (scales.span(), self.scales) {
            (Some(scales), Scales::Token) => checks.words("scales", self.scale_count(), scales),
            (None, Scales::Token) => {
                let fault = Fault::Missing { needed_by: "PWK_KV_SCALES_TOKEN" };
                Err(checks.refuse("scales", fault))
            }
            (None, _) => Ok(()),
            (Some(_), _) => {
                Err(checks.refuse("scales", Fault::Unused { needs: "PWK_KV_SCALES_TOKEN" }))
            }
        }
    }

    /// The numbers it was made from; strides that no place needs are 0.
    pub const fn params(&self) -> &params::KvLayout {
        &self.p
    }

    /// The type of the stored elements.
    pub const fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// What turns stored numbers back.
    pub const fn scales(&self) -> Scales {
        self.scales
    }

    /// Whether V lies in the slab of K.
    pub const fn shares_slab(&self) -> bool {
        self.p.v_offset != 0
    }

    /// Bytes that the slab of K takes, V included where it is shared.
    pub const fn keys_bytes(&self) -> u64 {
        self.keys_bytes
    }

    /// Bytes that V's own slab takes; 0 where K's is shared.
    pub const fn values_bytes(&self) -> u64 {
        self.values_bytes
    }

    /// Floats that the slab of token scales takes.
    pub fn scale_count(&self) -> Option<u64> {
        let p = &self.p;
        extent(&[u64::from(p.pages), u64::from(p.kv_heads), 2, u64::from(p.page_len)])
    }

    /// Bytes of a cell.
    pub const fn cell_bytes(&self) -> u64 {
        self.dtype.align()
    }

    /// Cells of one token's K or V in one head: head_dim, or half of it for i4.
    pub const fn dim_cells(&self) -> u64 {
        self.dim_cells
    }

    /// Cells from one dim (for i4, pair of dims) to the next.
    pub const fn dim_stride(&self, part: Part) -> u64 {
        match part {
            Part::Keys => self.p.k_dim_stride,
            Part::Values => 1,
        }
    }

    /// Cells from one token to the next.
    pub const fn token_stride(&self, part: Part) -> u64 {
        match part {
            Part::Keys => self.p.k_token_stride / per_cell(self.dtype),
            Part::Values => self.p.v_token_stride / per_cell(self.dtype),
        }
    }

    /// The first cell of a token in its slab: of K's, or of V's where that is apart.
    /// The place must lie within the layout, or the cell may not.
    #[inline(always)]
    pub const fn cell(&self, part: Part, place: Place) -> u64 {
        let p = &self.p;
        let (head_stride, token_stride, offset) = match part {
            Part::Keys => (p.k_head_stride, p.k_token_stride, 0),
            Part::Values => (p.v_head_stride, p.v_token_stride, p.v_offset),
        };
        let elements = place.page as u64 * p.page_stride
            + place.head as u64 * head_stride
            + place.token as u64 * token_stride
            + offset;
        elements / per_cell(self.dtype)
    }

    /// The float of a token's scale in the slab of scales.
    #[inline(always)]
    pub const fn scale(&self, part: Part, place: Place) -> u64 {
        let p = &self.p;
        let head = place.page as u64 * p.kv_heads as u64 + place.head as u64;
        (head * 2 + part as u64) * p.page_len as u64 + place.token as u64
    }

    /// Whether the layout has this place.
    #[inline(always)]
    pub const fn holds(&self, place: Place) -> bool {
        let p = &self.p;
        place.page < p.pages && place.head < p.kv_heads && place.token < p.page_len
    }

    /// Two elements share a byte only along the dims.
    fn cells(&self, checks: Checks) -> Result<(), Error> {
        let (p, of) = (&self.p, per_cell(self.dtype));
        checks.multiple("page_stride", of, p.page_stride)?;
        checks.multiple("k_head_stride", of, p.k_head_stride)?;
        checks.multiple("k_token_stride", of, p.k_token_stride)?;
        checks.multiple("v_head_stride", of, p.v_head_stride)?;
        checks.multiple("v_token_stride", of, p.v_token_stride)?;
        checks.multiple("v_offset", of, p.v_offset)
    }

    /// The axes of K or V, the innermost first.
    fn axes(&self, part: Part) -> [Axis; 4] {
        let (p, of) = (&self.p, per_cell(self.dtype));
        let head_stride = match part {
            Part::Keys => p.k_head_stride / of,
            Part::Values => p.v_head_stride / of,
        };
        let page_stride = p.page_stride / of;
        let mut axes = [
            Axis { kind: Kind::Page, count: p.pages.into(), stride: page_stride },
            Axis { kind: Kind::Head, count: p.kv_heads.into(), stride: head_stride },
            Axis { kind: Kind::Token, count: p.page_len.into(), stride: self.token_stride(part) },
            Axis { kind: Kind::Dim, count: self.dim_cells, stride: self.dim_stride(part) },
        ];
        axes.sort_unstable_by_key(|axis| axis.stride);
        axes
    }

    /// Cells of K's slab and of V's own; refused unless every place has its own cells.
    fn reach(&self, checks: Checks) -> Result<(u64, u64), Error> {
        let (keys, values) = (self.axes(Part::Keys), self.axes(Part::Values));
        if !self.shares_slab() {
            return Ok((
                nest(checks, Part::Keys, 1, &keys)?,
                nest(checks, Part::Values, 1, &values)?,
            ));
        }
        // In one slab K and V lie side by side within some axes; every axis outside
        // of those is the same for both.
        let offset = self.p.v_offset / per_cell(self.dtype);
        let (keys, outer) = keys.split_at(keys.partition_point(|axis| axis.stride < offset));
        let (values, same) = values.split_at(values.partition_point(|axis| axis.stride < offset));
        if outer != same {
            let with = "K: outside of it the strides of K and V must agree";
            return Err(checks.refuse("v_offset", Fault::Overlap { with }));
        }
        if nest(checks, Part::Keys, 1, keys)? > offset {
            return Err(checks.refuse("v_offset", Fault::Overlap { with: "K" }));
        }
        let both = offset.checked_add(nest(checks, Part::Values, 1, values)?);
        let both = both.ok_or(checks.refuse("v_offset", TOO_LARGE))?;
        Ok((nest(checks, Part::Keys, both, outer)?, 0))
    }
}

/// The parameters with 0 for strides that are never taken: of one page, head or token.
fn steps(p: &params::KvLayout) -> params::KvLayout {
    let step = |count: u32, stride: u64| if count > 1 { stride } else { 0 };
    params::KvLayout {
        page_stride: step(p.pages, p.page_stride),
        k_head_stride: step(p.kv_heads, p.k_head_stride),
        v_head_stride: step(p.kv_heads, p.v_head_stride),
        k_token_stride: step(p.page_len, p.k_token_stride),
        v_token_stride: step(p.page_len, p.v_token_stride),
        ..*p
    }
}

const TOO_LARGE: Fault = Fault::OutOfMemory { bytes: u64::MAX };

/// The cells that a block and the axes around it span, each axis stepping over all within.
fn nest(checks: Checks, part: Part, block: u64, axes: &[Axis]) -> Result<u64, Error> {
    axes.iter().filter(|axis| axis.count > 1).try_fold(block, |reach, axis| {
        let field = match (axis.kind, part) {
            (Kind::Page, _) => "page_stride",
            (Kind::Head, Part::Keys) => "k_head_stride",
            (Kind::Head, Part::Values) => "v_head_stride",
            (Kind::Token, Part::Keys) => "k_token_stride",
            (Kind::Token, Part::Values) => "v_token_stride",
            (Kind::Dim, _) => "k_dim_stride",
        };
        if axis.stride < reach {
            let fault = Fault::Bytes { expected: reach, got: axis.stride };
            return Err(checks.refuse(field, fault));
        }
        let steps = (axis.count - 1).checked_mul(axis.stride);
        let reach = steps.and_then(|steps| steps.checked_add(reach));
        reach.ok_or(checks.refuse(field, TOO_LARGE))
    })
}

/// Elements of a cell.
const fn per_cell(dtype: Dtype) -> u64 {
    match dtype {
        Dtype::I4 => 2,
        _ => 1,
    }
}

fn scales(checks: Checks, p: &params::KvLayout, dtype: Dtype) -> Result<Scales, Error> {
    let floats = matches!(dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16);
    let scales = match (p.scales, floats) {
        (params::KV_SCALES_NONE, true) => Scales::None,
        (params::KV_SCALES_STATIC, false) => Scales::Static { k: p.k_scale, v: p.v_scale },
        (params::KV_SCALES_TOKEN, false) => Scales::Token,
        (got, _) => {
            let expected = "no scales for floats, static or token scales for the rest";
            return Err(checks.refuse("scales", Fault::Unsupported { expected, got: got.into() }));
        }
    };
    for (field, scale) in [("k_scale", p.k_scale), ("v_scale", p.v_scale)] {
        match scales {
            Scales::Static { .. } if scale == 0.0 => {
                let fault = Fault::Missing { needed_by: "PWK_KV_SCALES_STATIC" };
                return Err(checks.refuse(field, fault));
            }
            Scales::Static { .. } => checks.at_least_zero(field, scale)?,
            _ if scale.to_bits() != 0 => {
                let fault = Fault::Unused { needs: "PWK_KV_SCALES_STATIC" };
                return Err(checks.refuse(field, fault));
            }
            _ => {}
        }
    }
    Ok(scales)
}

#[cfg(test)]
mod tests;
