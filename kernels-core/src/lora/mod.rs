//! Low-rank adapters: `out += scale · (x Aᵀ) Bᵀ` row by row, each row by the adapter
//! in its slot, and then, with magnitudes (DoRA), times a number per output. `out`
//! holds the finished base result; adapters are never merged into the base.
//!
//! Order, for each row x with the slot of an adapter of rank r:
//! 1. down: h\[j\] is cut into segments of 512 inputs; a segment is summed from zero by
//!    sum = fma(A\[j\]\[k\], x\[k\], sum), k ascending, and added to the total, which starts
//!    at zero, segments ascending. h stays f32;
//! 2. up: term\[n\] starts at zero; term\[n\] = fma(B\[n\]\[j\], h\[j\], term\[n\]), j ascending;
//! 3. out\[n\] = fma(scale, term\[n\], out\[n\]);
//! 4. with magnitudes, out\[n\] = out\[n\] · magnitude\[n\], which a slot without DoRA
//!    keeps at 1: that leaves every number as it is.
//!
//! Nothing else takes part: not the other rows, nor what fills a slot beyond its rank
//! and its outputs. A row whose slot is `PWK_LORA_NONE` is neither read nor written.
//!
//! A slot of the slab of A holds panels of 16 ranks, `[⌈r / 16⌉][inputs][16]`, at the
//! start of its `inputs × rank_max` elements; one of B panels of 32 outputs,
//! `[⌈outputs / 32⌉][r][32]`, in `⌈outputs / 32⌉ × 32 × rank_max`. So both products
//! run over outputs in vectors, and each reads its weights in one stream.
//! [`pack_a`] and [`pack_b`] make them from rows.

mod cpu;
mod pack;
mod spec;
mod tile;

use crate::command::{MaybeSpan, Memory, Rows};
use crate::device::Needs;
use crate::dtype::Dtype;
use crate::error::{Error, extent};
use crate::params;

pub use cpu::run;
pub use pack::{a_elements, b_elements, pack_a, pack_b};
pub use spec::{Adapter, spec};

/// Inputs that are summed from zero before they join the total.
pub const SEGMENT: usize = params::LORA_SEGMENT as usize;
/// Ranks of a panel of A.
pub const RANKS: usize = params::LORA_RANKS as usize;
/// Outputs of a panel of B.
pub const OUTPUTS: usize = params::LORA_OUTPUTS as usize;
/// The largest rank.
pub const RANK_MAX: u32 = 256;

crate::command! {
    /// `out += scale · (x Aᵀ) Bᵀ`, each row by its own adapter.
    pub struct Lora("lora", params::Lora) {
        /// `[rows_max, inputs]` of `x_dtype`, rows `x_row_stride` apart.
        x: Read,
        /// `[slots, inputs × rank_max]` of `weight_dtype`: A of each slot, packed.
        a: Read,
        /// `[slots, ⌈outputs / 32⌉ × 32 × rank_max]` of `weight_dtype`: B of each slot, packed.
        b: Read,
        /// `[slots]` u32: the rank of each slot, 1 to `rank_max` where a row names it.
        ranks: Read,
        /// `[slots]` f32: what each slot's term is scaled by; finite where a row names it.
        scales: Read,
        /// `[slots, outputs]` f32: what each output is multiplied by at the end.
        magnitudes: MaybeRead,
        /// `[rows_max]` u32: the slot of each row, or `PWK_LORA_NONE`.
        adapters: Read,
        /// `[1]` u32: rows in use, at most `rows_max`; absent, all of them.
        rows: MaybeRead,
        /// `[rows_max, outputs]` f32, rows `out_row_stride` apart.
        out: Update,
    }
}

/// The element types of a checked call.
#[derive(Clone, Copy, Debug)]
struct Types {
    x: Dtype,
    weight: Dtype,
}

impl<M: Memory> Lora<M> {
    /// Refuses what the contract does not allow.
    pub fn check(&self) -> Result<(), Error> {
        self.types().map(drop)
    }

    /// What a checked call takes with so many workers: h and the place of each row.
    pub fn needs(&self, _workers: u32) -> Result<Needs, Error> {
        self.check()?;
        let words = u64::from(self.params.rank_max) + 1;
        Ok(Needs { workspace_bytes: u64::from(self.params.rows_max) * words * 4 })
    }

    fn types(&self) -> Result<Types, Error> {
        let (checks, p) = (Self::CHECKS, &self.params);
        checks.range("rows_max", p.rows_max, 1..=i64::from(i32::MAX))?;
        checks.range("inputs", p.inputs, 1..=1 << 24)?;
        checks.range("outputs", p.outputs, 1..=1 << 24)?;
        checks.range("slots", p.slots, 1..=65_536)?;
        checks.range("rank_max", p.rank_max, 1..=i64::from(RANK_MAX))?;
        checks.multiple("rank_max", RANKS as u64, u64::from(p.rank_max))?;
        checks.equal("reserved", 0, u64::from(p.reserved))?;
        let types = Types {
            x: Dtype::parse_float(checks, "x_dtype", p.x_dtype)?,
            weight: Dtype::parse_float(checks, "weight_dtype", p.weight_dtype)?,
        };
        let (slots, rows) = (u64::from(p.slots), p.rows_max);
        let (inputs, outputs) = (u64::from(p.inputs), u64::from(p.outputs));
        let matrix = |row_stride, width| Rows { rows, row_stride, width };
        checks.matrix("x", types.x, matrix(p.x_row_stride, inputs), &self.x)?;
        let a = extent(&[slots, a_elements(p)]);
        checks.buffer("a", types.weight, a, &self.a)?;
        let b = extent(&[slots, b_elements(p)]);
        checks.buffer("b", types.weight, b, &self.b)?;
        checks.words("ranks", Some(slots), &self.ranks)?;
        checks.words("scales", Some(slots), &self.scales)?;
        if let Some(magnitudes) = self.magnitudes.span() {
            checks.words("magnitudes", extent(&[slots, outputs]), magnitudes)?;
        }
        checks.words("adapters", Some(u64::from(rows)), &self.adapters)?;
        if let Some(rows) = self.rows.span() {
            checks.words("rows", Some(1), rows)?;
        }
        checks.matrix("out", Dtype::F32, matrix(p.out_row_stride, outputs), &self.out)?;
        Ok(types)
    }
}
