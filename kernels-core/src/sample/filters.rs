//! The filters of a row, and which tokens they could keep: a bound that a pass can
//! hold each token against before the end of the ranking is known.

use super::passes::{MASS_LEAST, Tempered};
use super::select;
use crate::math::log_slice;
use crate::params::SampleRow;
use crate::simd::Level;

/// What of the ranking is kept, where not all of it.
pub(super) struct Filters {
    /// Tokens at most.
    pub(super) top_k: Option<u64>,
    /// The share of the mass, of 2³².
    pub(super) share: Option<u64>,
    /// The least z.
    pub(super) min_z: Option<f32>,
}

impl Filters {
    /// The filters asked for; none if all tokens are kept.
    pub(super) fn new(level: Level, asked: &SampleRow, vocab: usize) -> Option<Self> {
        let top_k = (asked.top_k > 0 && (asked.top_k as usize) < vocab).then(|| asked.top_k.into());
        let share = libm::rint(f64::from(asked.top_p) * 4_294_967_296.0) as u64;
        let share = (asked.top_p < 1.0).then_some(share);
        let mut log = [asked.min_p];
        log_slice(level, &mut log);
        let min_z = (asked.min_p > 0.0).then_some(log[0]);
        let none = top_k.is_none() && share.is_none() && min_z.is_none();
        (!none).then_some(Self { top_k, share, min_z })
    }

    /// A z that leaves out no token that is kept, and no mass that counts, where top-p
    /// does not stand without top-k.
    pub(super) fn least(&self, tempered: Tempered, groups: &[f32]) -> f32 {
        let mut least = f32::NEG_INFINITY;
        let mut raise = |z: f32| least = if z > least { z } else { least };
        if let Some(top_k) = self.top_k {
            // So many groups have a token at least as likely.
            if let Some(x) = select::nth_largest(groups, top_k) {
                raise(tempered.of(x));
            }
        }
        // The tokens that min-p leaves out count in the mass of top-k.
        if let (Some(z), true) = (self.min_z, self.top_k.is_none() || self.share.is_none()) {
            raise(z);
        }
        if self.share.is_none() {
            return least;
        }
        // Tokens without mass never end a head, and add nothing to the mass.
        raise(MASS_LEAST);
        least
    }
}
