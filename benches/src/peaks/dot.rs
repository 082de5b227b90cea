//! The peak of 8-bit dot products: `vpdpbusd` at the AVX-512 level, elsewhere what
//! the level has for a sum of products of bytes. No memory is touched.

use kernels_core::simd::Level;
use kernels_core::workers::Workers;
use std::hint::black_box;

/// Chains at once: enough to hide the latency, few enough for the registers.
const CHAINS: usize = 24;
/// With half of the registers.
#[cfg(target_arch = "x86_64")]
const CHAINS_AVX2: usize = 8;
/// Products of a step at the plain level.
const PLAIN: usize = 64;

/// Runs `rounds` of every chain on every thread; gives the operations, two for
/// each product summed.
pub(super) fn dots(level: Level, workers: &dyn Workers, rounds: u64, seed: i8) -> u64 {
    let tiles = workers.count();
    let each = one(level, 0, seed);
    workers.run(tiles, &|_| {
        black_box(one(level, rounds, seed));
    });
    each * rounds * u64::from(tiles)
}

/// The chains of one thread; gives the operations of one round.
fn one(level: Level, rounds: u64, seed: i8) -> u64 {
    match level {
        // SAFETY: the token proves the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(_) => unsafe { avx512(rounds, seed) },
        // SAFETY: the token proves the instructions.
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(_) => unsafe { avx2(rounds, seed) },
        _ => plain(rounds, seed),
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512vnni")]
fn avx512(rounds: u64, seed: i8) -> u64 {
    use core::arch::x86_64::*;
    let (a, b) = (_mm512_set1_epi8(seed), _mm512_set1_epi8(seed));
    let mut sums = [_mm512_setzero_si512(); CHAINS];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = _mm512_dpbusd_epi32(*sum, a, b);
        }
    }
    black_box(sums);
    (CHAINS * 64 * 2) as u64
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2(rounds: u64, seed: i8) -> u64 {
    use core::arch::x86_64::*;
    let (a, b) = (_mm256_set1_epi8(seed), _mm256_set1_epi8(seed));
    let ones = _mm256_set1_epi16(1);
    let mut sums = [_mm256_setzero_si256(); CHAINS_AVX2];
    for _ in 0..rounds {
        for sum in &mut sums {
            let mut a = a;
            // SAFETY: nothing is done; the register looks new, so that the product
            // is made in each chain.
            unsafe { core::arch::asm!("/* {0} */", inout(ymm_reg) a, options(nomem, nostack)) };
            let pairs = _mm256_maddubs_epi16(a, b);
            *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(pairs, ones));
        }
    }
    black_box(sums);
    (CHAINS_AVX2 * 32 * 2) as u64
}

fn plain(rounds: u64, seed: i8) -> u64 {
    let mut sum = 0i32;
    for _ in 0..rounds {
        let a = black_box([seed; PLAIN]);
        let products = a.iter().map(|&a| i32::from(a) * i32::from(seed));
        sum = sum.wrapping_add(products.sum());
    }
    black_box(sum);
    (PLAIN * 2) as u64
}
