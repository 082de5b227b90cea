//! New keys and values into pages: keys turned by their position on the way, both
//! rounded to the type of the pages, each row to every slot that asks for it.
//!
//! Order, per row and head:
//! 1. with `rope`, the key turns as [`rope`](crate::rope) says and is rounded to
//!    `x_dtype`, so that the fused call has the bits of the two calls;
//! 2. f32, f16 and bf16 pages take the nearest number, ties to even;
//! 3. token scales: most = max |x|, scale = most / 127 (i8), / 7 (i4) or / 448 (e4m3),
//!    one rounding; where that is below 2⁻¹²⁶ the scale and all numbers are zero;
//! 4. the stored number is x / scale, rounded once as f32, then to the nearest whole
//!    number within ±127 or ±7, ties to even, or to the nearest e4m3.
//!
//! A NaN or infinity in a row with a scale of its own makes that scale NaN and its
//! numbers zero, so it reads back as NaN. With static scales numbers beyond the range
//! take its end, and NaN becomes zero (i8, i4) or NaN (e4m3).
//!
//! No two rows may go to one slot, nor one row twice: a step that asks for it is refused
//! before anything is written, for nothing orders rows that run at once.

mod cpu;
mod encode;
mod slots;
mod spec;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, Fault};
use crate::kv_layout::KvLayout;
use crate::params;
use crate::rope::Pairing;

pub use cpu::run;
pub use spec::{nearest, turned};

crate::command! {
    /// `pages[slots of row r] = k[r], v[r]`.
    pub struct AppendKv("append_kv", params::AppendKv) {
        /// `[rows_max, kv_heads × head_dim]` of `x_dtype`, rows `k_row_stride` apart.
        k: Read,
        /// `[rows_max, kv_heads × head_dim]` of `x_dtype`, rows `v_row_stride` apart.
        v: Read,
        /// The slab of K, and of V where `v_offset` is not 0; see `pwk_kv_layout`.
        keys: Update,
        /// The slab of V where `v_offset` is 0.
        values: MaybeUpdate,
        /// `[pages, kv_heads, 2, page_len]` f32 with `PWK_KV_SCALES_TOKEN`.
        scales: MaybeUpdate,
        /// `[slots_max, 2]` u32: page and token of each slot; those in use differ.
        slots: Read,
        /// `[rows_max + 1]` u32, ascending: row r goes to the slots from element r up to
        /// element r + 1; absent, row r goes to slot r.
        slot_starts: MaybeRead,
        /// `[table_len, rotary_dims]` f32 with `rope`: cosines, then sines, of each position.
        table: MaybeRead,
        /// `[rows_max]` u32 with `rope`: position of each row, below `table_len`.
        positions: MaybeRead,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
    }
}

/// What a checked call says.
#[derive(Clone, Copy, Debug)]
struct Call {
    kv: KvLayout,
    x: Dtype,
    pairing: Option<Pairing>,
}

impl<M: Memory> AppendKv<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.call().map(drop)
    }

    /// What a checked call takes with so many workers: room to tell slots apart.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.call()?;
        Ok(Needs { workspace_bytes: 4 * slots::workspace_words(self.params.slots_max) })
    }

    fn call(&self) -> Result<Call, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        let kv = KvLayout::new(checks, &p.kv)?;
        kv.buffers(checks, &self.keys, &self.values, &self.scales)?;
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        let x = Dtype::parse_float(checks, "x_dtype", p.x_dtype)?;
        let width = u64::from(p.kv.kv_heads) * u64::from(p.kv.head_dim);
        let matrix = |row_stride| Rows { rows: p.rows_max, row_stride, width };
        checks.matrix("k", x, matrix(p.k_row_stride), &self.k)?;
        checks.matrix("v", x, matrix(p.v_row_stride), &self.v)?;
        if let Some(starts) = self.slot_starts.span() {
            checks.range("slots_max", p.slots_max, 1..=i64::from(i32::MAX))?;
            checks.words("slot_starts", Some(u64::from(p.rows_max) + 1), starts)?;
        } else {
            checks.equal("slots_max", p.rows_max.into(), p.slots_max.into())?;
        }
        checks.words("slots", Some(2 * u64::from(p.slots_max)), &self.slots)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        Ok(Call { kv, x, pairing: self.pairing()? })
    }

    /// How keys turn, if they do; then with a table and positions, otherwise without.
    fn pairing(&self) -> Result<Option<Pairing>, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        let pairing = Pairing::parse(checks, "rope", p.rope)?;
        let turns = u64::from(p.table_len) * u64::from(p.rotary_dims);
        let buffers = [
            ("table", self.table.span(), turns),
            ("positions", self.positions.span(), p.rows_max.into()),
        ];
        if pairing.is_none() {
            checks.equal("rotary_dims", 0, p.rotary_dims.into())?;
            checks.equal("table_len", 0, p.table_len.into())?;
        } else {
            checks.range("rotary_dims", p.rotary_dims, 2..=i64::from(p.kv.head_dim))?;
            checks.multiple("rotary_dims", 2, p.rotary_dims.into())?;
            checks.range("table_len", p.table_len, 1..=i64::from(u32::MAX))?;
        }
        for (field, span, count) in buffers {
            match (span, pairing) {
                (Some(span), Some(_)) => checks.words(field, Some(count), span)?,
                (None, Some(_)) => {
                    return Err(checks.refuse(field, Fault::Missing { needed_by: "rope" }));
                }
                (Some(_), None) => {
                    return Err(checks.refuse(field, Fault::Unused { needs: "rope" }));
                }
                (None, None) => {}
            }
        }
        Ok(pairing)
    }
}
