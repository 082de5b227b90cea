//! Philox4x32-10, a counter-based generator: the same key and counter give the
//! same four words everywhere, with no state to carry.

use crate::simd::Lanes;

const MULTIPLIER: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const WEYL: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: u32 = 10;

/// Four words of noise.
pub const fn philox(key: [u32; 2], counter: [u32; 4]) -> [u32; 4] {
    let (mut key, mut c) = (key, counter);
    let mut round = 0;
    while round < ROUNDS {
        let a = c[0] as u64 * MULTIPLIER[0] as u64;
        let b = c[2] as u64 * MULTIPLIER[1] as u64;
        c = [
            (b >> 32) as u32 ^ c[1] ^ key[0],
            b as u32,
            (a >> 32) as u32 ^ c[3] ^ key[1],
            a as u32,
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    c
}

/// Sixteen counters at once under one key: word `w` of counter `i` is lane `i` of
/// vector `w`.
#[inline(always)]
pub fn philox_lanes<L: Lanes>(l: L, key: [u32; 2], counter: [L::I; 4]) -> [L::I; 4] {
    let multiplier = [l.isplat(MULTIPLIER[0] as i32), l.isplat(MULTIPLIER[1] as i32)];
    let (mut key, mut c) = (key, counter);
    let mut round = 0;
    while round < ROUNDS {
        let high = [l.umul_high(c[0], multiplier[0]), l.umul_high(c[2], multiplier[1])];
        let low = [l.imul(c[0], multiplier[0]), l.imul(c[2], multiplier[1])];
        c = [
            l.ixor(l.ixor(high[1], c[1]), l.isplat(key[0] as i32)),
            low[1],
            l.ixor(l.ixor(high[0], c[3]), l.isplat(key[1] as i32)),
            low[0],
        ];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        round += 1;
    }
    c
}

/// A number in (0, 1) from a word: its upper 23 bits and a half.
pub const fn uniform(word: u32) -> f32 {
    ((word >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0)
}

/// [`uniform`] of sixteen words.
#[inline(always)]
pub fn uniform_lanes<L: Lanes>(l: L, words: L::I) -> L::F {
    let whole = l.to_float(l.shr::<9>(words));
    l.mul(l.add(whole, l.splat(0.5)), l.splat(1.0 / 8_388_608.0))
}
