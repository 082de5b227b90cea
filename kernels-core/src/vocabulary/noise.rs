//! The noise of sampling: Gumbel numbers that depend on a request, a place and a
//! token alone, so that whoever asks for them gets the same.
//!
//! Philox4x32-10 with key = [seed's low word, seed's high word] and counter =
//! [16·(token / 64) + token mod 16, position, fork, purpose]; a token's word is
//! number (token / 16) mod 4. So sixteen counters make the words of 64 consecutive
//! tokens, each vector of words in the order of its tokens.
//!
//! From a word w: v = (⌊w / 2⌋ + ½)·2⁻³¹ in one fma; u = max(1 − v, 2⁻²⁵);
//! e = v where u = 1, else −ln(u)·(v / (1 − u)), which is −ln(1 − v) to a few ulp
//! however small v is; the Gumbel number is −ln e.

use crate::math::log;
use crate::math::philox::{philox, philox_lanes};
use crate::simd::{LANES, Lanes};

/// Tokens whose noise comes from sixteen counters.
pub const UNIT: usize = 64;
/// No Gumbel number is larger: −ln 2⁻³² is 22.18.
pub const GUMBEL_MOST: f32 = 22.25;

/// Whose noise it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source {
    /// The request's seed.
    pub seed: u64,
    /// The token's position in its sequence.
    pub position: u32,
    /// Which choice or fork of the request.
    pub fork: u32,
    /// What the draw is for: `PWK_NOISE_*`.
    pub purpose: u32,
}

impl Source {
    #[inline(always)]
    fn key(self) -> [u32; 2] {
        [self.seed as u32, (self.seed >> 32) as u32]
    }

    /// The word of one token.
    pub fn word(self, token: u32) -> u32 {
        let counter = token / 64 * 16 + token % 16;
        let words = philox(self.key(), [counter, self.position, self.fork, self.purpose]);
        words[token as usize / LANES % 4]
    }

    /// The words of the [`UNIT`] tokens from `token`, a multiple of it.
    #[inline(always)]
    pub fn words<L: Lanes>(self, l: L, token: u32) -> [L::I; 4] {
        const STEPS: [i32; LANES] = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
        let counter = l.iadd(l.isplat((token / 4) as i32), l.iload(&STEPS));
        let [position, fork, purpose] = [
            l.isplat(self.position as i32),
            l.isplat(self.fork as i32),
            l.isplat(self.purpose as i32),
        ];
        philox_lanes(l, self.key(), [counter, position, fork, purpose])
    }
}

/// The uniform number v of each word.
#[inline(always)]
pub fn uniform<L: Lanes>(l: L, words: L::I) -> L::F {
    let whole = l.to_float(l.shr::<1>(words));
    l.fma(whole, l.splat(1.0 / 2_147_483_648.0), l.splat(1.0 / 4_294_967_296.0))
}

/// The Gumbel number of each v.
#[inline(always)]
pub fn gumbel<L: Lanes>(l: L, v: L::F) -> L::F {
    let one = l.splat(1.0);
    let u = l.max(l.sub(one, v), l.splat(1.0 / 33_554_432.0));
    let ratio = l.div(v, l.sub(one, u));
    let e = l.mul(l.sub(l.splat(0.0), log(l, u)), ratio);
    let e = l.select(l.eq(u, one), v, e);
    l.sub(l.splat(0.0), log(l, e))
}
