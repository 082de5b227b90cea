//! What every kernel over a vocabulary shares, so that a log-probability has the
//! same bits wherever it comes from: the sum of exponentials, and the noise.
//!
//! The sum of a row of logits x, and its log-probabilities:
//! 1. blocks of 4096 logits, the last one shorter: m = the largest, then
//!    exp(x − m) into 64 partial sums, element i of the block into sum i mod 64, i
//!    ascending; partial sums j, j + 16, j + 32, j + 48 fold as (a + b) + (c + d),
//!    then the sixteen as [`Lanes::sum`] says;
//! 2. blocks fold ascending, from (−∞, 0): M' = max(M, m), then
//!    S' = S·exp(M − M') + s·exp(m − M'), by a product and an fma;
//! 3. ln p(x) = (x − M) − ln S.
//!
//! Where m or M' is −∞, 0 stands in for it, so that logits of −∞ add exactly 0. A NaN
//! or +∞ anywhere makes S a NaN.

pub(crate) mod masks;
pub mod noise;
mod spec;

use crate::math::{exp_below, exp_one, log_one};
use crate::simd::{LANES, Lanes, far, load_at};

pub use spec::spec;

/// Logits of a block.
pub const BLOCK: usize = 4096;
/// Partial sums of a block: four vectors, so that four chains of additions run at once.
pub const SUMS: usize = 4;

/// The largest logit of some blocks, and the sum of exponentials beside it.
#[derive(Clone, Copy, Debug, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Exponentials {
    /// The largest logit, NaNs aside.
    pub most: f32,
    /// The sum of exp(x − most).
    pub sum: f32,
}

impl Exponentials {
    /// Of no logits.
    pub const NONE: Self = Self { most: f32::NEG_INFINITY, sum: 0.0 };

    /// With the next block.
    #[inline(always)]
    pub fn fold<L: Lanes>(self, l: L, next: Self) -> Self {
        let most = if next.most > self.most { next.most } else { self.most };
        let (before, after) = (self.most - anchor(most), next.most - anchor(most));
        let scaled = l.splat(self.sum * exp_one(l, before));
        let sum = l.fma(l.splat(next.sum), l.splat(exp_one(l, after)), scaled);
        Self { most, sum: lane(l, sum) }
    }

    /// The log-probability of a logit of the row.
    #[inline(always)]
    pub fn logprob<L: Lanes>(self, l: L, x: f32) -> f32 {
        (x - self.most) - log_one(l, self.sum)
    }

    /// [`PWK_STATUS_*`](crate::params::STATUS_OK) of a whole row.
    #[inline(always)]
    pub fn status(self) -> u32 {
        if self.sum.is_nan() {
            crate::params::STATUS_NOT_FINITE
        } else if self.most == f32::NEG_INFINITY {
            crate::params::STATUS_MASKED
        } else {
            crate::params::STATUS_OK
        }
    }
}

/// What is subtracted before exp: the largest, or 0 where there is none.
#[inline(always)]
pub fn anchor(most: f32) -> f32 {
    if most == f32::NEG_INFINITY { 0.0 } else { most }
}

/// The exponentials of one block, whose largest logit is known. The next block is asked
/// for meanwhile: most likely it lies behind.
#[inline(always)]
pub fn block<L: Lanes>(l: L, x: &[f32], most: f32) -> Exponentials {
    let least = l.splat(anchor(most));
    let mut sums = [l.splat(0.0); SUMS];
    let (whole, rest) = x.as_chunks::<{ SUMS * LANES }>();
    for x in whole {
        let x: &[[f32; LANES]; SUMS] = bytemuck::must_cast_ref(x);
        let mut j = 0;
        while j < SUMS {
            far(x[j].as_ptr().wrapping_add(BLOCK).cast());
            // At most 0, unless it is a NaN: then so is the sum.
            sums[j] = l.add(sums[j], exp_below(l, l.sub(l.load(&x[j]), least)));
            j += 1;
        }
    }
    let mut j = 0;
    while j * LANES < rest.len() {
        let v = load_at(l, rest, j * LANES, f32::NEG_INFINITY);
        sums[j] = l.add(sums[j], exp_below(l, l.sub(v, least)));
        j += 1;
    }
    Exponentials { most, sum: folded(l, sums) }
}

/// The sum of a block's partial sums.
#[inline(always)]
pub fn folded<L: Lanes>(l: L, sums: [L::F; SUMS]) -> f32 {
    l.sum(l.add(l.add(sums[0], sums[1]), l.add(sums[2], sums[3])))
}

/// The largest of some logits, NaNs aside; −∞ of none.
#[inline(always)]
pub fn largest<L: Lanes>(l: L, x: &[f32]) -> f32 {
    // In this order `max` passes over a NaN.
    let mut most = l.splat(f32::NEG_INFINITY);
    let (whole, rest) = x.as_chunks::<LANES>();
    for x in whole {
        most = l.max(l.load(x), most);
    }
    most = l.max(load_at(l, rest, 0, f32::NEG_INFINITY), most);
    l.largest(most)
}

/// The first lane.
#[inline(always)]
pub(crate) fn lane<L: Lanes>(l: L, v: L::F) -> f32 {
    let mut lanes = [0.0; LANES];
    l.store(v, &mut lanes);
    lanes[0]
}
