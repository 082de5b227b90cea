//! The filters of a row, and which tokens they could keep: bounds that a pass can
//! hold each token against before the end of the ranking is known.

use super::passes::{self, GROUP, MASS_LEAST, MASS_ONE, Tempered};
use super::select;
use crate::math::log_slice;
use crate::params::SampleRow;
use crate::simd::Level;
use crate::vocabulary::Exponentials;

/// What of the ranking is kept, where not all of it.
pub(super) struct Filters {
    /// Tokens at most.
    pub(super) top_k: Option<u64>,
    /// The share of the mass, of 2³².
    pub(super) share: Option<u64>,
    /// The least z.
    pub(super) min_z: Option<f32>,
    /// 1 − top_p.
    rest: f32,
}

/// What the gathering pass looks at.
#[derive(Clone, Copy)]
pub(super) struct Bounds {
    /// Tokens whose z is below are not kept.
    pub(super) least: f32,
    /// Groups whose largest z is below have neither candidates nor masses.
    pub(super) visit: f32,
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
        (!none).then_some(Self { top_k, share, min_z, rest: 1.0 - asked.top_p })
    }

    /// Bounds that leave out no token that is kept, and no mass that counts.
    pub(super) fn bounds(
        &self,
        level: Level,
        own: Exponentials,
        tempered: Tempered,
        groups: &[f32],
    ) -> Bounds {
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
            return Bounds { least, visit: least };
        }
        // Tokens without mass never end a head, and add nothing to the mass.
        raise(MASS_LEAST);
        if self.top_k.is_some() {
            return Bounds { least, visit: least };
        }
        let tokens = (groups.len() * GROUP) as f32;
        let mut sum = passes::groups_sum(level, groups, tempered);
        if tempered.factor == 1.0 && own.sum > sum {
            sum = own.sum;
        }
        // Tokens below exp(z) = 0.99 · rest · sum / tokens have less than the rest of the
        // mass together, if the hundredth spared is more than the rounding of masses.
        let rest = self.rest * sum;
        if rest * MASS_ONE * 0.01 > tokens + 1.0 {
            raise(libm::logf(0.99 * rest / tokens));
        }
        Bounds { least, visit: MASS_LEAST }
    }
}
