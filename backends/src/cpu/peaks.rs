//! What this machine can do at most: the loops whose rates a kernel's is held
//! against. They only do the work; whoever calls them brings the clock.

use kernels_core::simd::{LANES, Lanes, Level};
use kernels_core::workers::{Pieces, Workers, even, split};

/// Streams that one thread reads side by side: one alone leaves the memory idle
/// between the prefetcher's runs.
const STREAMS: usize = 8;
/// Vectors of one stream before the next is read: four cache lines.
const BURST: usize = 4;
/// Rounds of a chain between two looks at the counter.
const UNROLL: usize = 4;

type Vector = [f32; LANES];

/// Reads all of `from` once (less a tail shorter than a burst of every stream), and
/// gives a sum that keeps the reads alive. `from` holds f32.
pub fn read(level: Level, workers: &dyn Workers, from: &[u8]) -> f32 {
    let vectors: &[Vector] = vectors(from);
    let tiles = workers.count();
    let mut sums = vec![0f32; tiles as usize];
    let parts = Pieces::new(&mut sums, tiles as usize, 1, tiles);
    split(workers, tiles, parts, |tile, sum| {
        sum[0] = read_streams(level, &vectors[even(vectors.len(), tiles, tile)]);
    });
    sums.iter().sum()
}

/// Copies `from` to `to`, both f32 and of one length, with ordinary stores.
///
/// `one` is 1.0, in a disguise: a product by it keeps the compiler from making a
/// call of `memcpy`, whose stores go around the cache.
pub fn copy(level: Level, workers: &dyn Workers, from: &[u8], to: &mut [u8], one: f32) {
    let (from, to) = (vectors(from), vectors_mut(to));
    assert_eq!(from.len(), to.len(), "a copy has two sides");
    let tiles = workers.count();
    let count = from.len();
    split(workers, tiles, Pieces::new(to, count, 1, tiles), |tile, to| {
        copy_part(level, &from[even(count, tiles, tile)], to, one);
    });
}

/// Multiplies and adds f32 without touching memory, on every thread: `rounds` of
/// each chain. The count of operations comes back, two for each multiply-add.
pub fn fma(level: Level, workers: &dyn Workers, rounds: u64, seed: f32) -> u64 {
    let tiles = workers.count();
    let mut sums = vec![0f32; tiles as usize];
    let chains = chains(level);
    split(workers, tiles, Pieces::new(&mut sums, tiles as usize, 1, tiles), |_, sum| {
        sum[0] = match chains {
            WIDE => fma_wide(level, rounds, seed),
            _ => fma_narrow(level, rounds, seed),
        };
    });
    // Used, so that no chain is dropped.
    assert!(sums.iter().all(|sum| !sum.is_nan()), "the chains stay finite");
    rounds * u64::from(tiles) * (chains * UNROLL * LANES * 2) as u64
}

/// Chains of multiply-adds at once where a vector is one register.
const WIDE: usize = 24;
/// And where it is two or four of them.
const NARROW: usize = 6;

/// Enough chains to hide the latency, few enough for the registers.
fn chains(level: Level) -> usize {
    if level.name() == "avx512" { WIDE } else { NARROW }
}

fn vectors(bytes: &[u8]) -> &[Vector] {
    let whole = bytes.len() / size_of::<Vector>() * size_of::<Vector>();
    bytemuck::cast_slice(&bytes[..whole])
}

fn vectors_mut(bytes: &mut [u8]) -> &mut [Vector] {
    let whole = bytes.len() / size_of::<Vector>() * size_of::<Vector>();
    bytemuck::cast_slice_mut(&mut bytes[..whole])
}

kernels_core::levels! {
    fn read_streams(from: &[Vector]) -> f32 = read_body;
}

#[inline(always)]
fn read_body<L: Lanes>(l: L, from: &[Vector]) -> f32 {
    let bursts = from.len() / STREAMS / BURST;
    let (bursts_of, _) = from.as_chunks::<BURST>();
    let mut sums = [l.splat(0.0); STREAMS];
    let mut at = 0;
    while at < bursts {
        let mut j = 0;
        while j < STREAMS {
            let burst = &bursts_of[j * bursts + at];
            let mut i = 0;
            while i < BURST {
                sums[j] = l.add(sums[j], l.load(&burst[i]));
                i += 1;
            }
            j += 1;
        }
        at += 1;
    }
    let mut sum = 0.0;
    for part in sums {
        sum += l.sum(part);
    }
    sum
}

kernels_core::levels! {
    fn copy_part(from: &[Vector], to: &mut [Vector], one: f32) = copy_body;
}

#[inline(always)]
fn copy_body<L: Lanes>(l: L, from: &[Vector], to: &mut [Vector], one: f32) {
    let one = l.splat(one);
    for (to, from) in to.iter_mut().zip(from) {
        l.store(l.mul(l.load(from), one), to);
    }
}

kernels_core::levels! {
    fn fma_wide(rounds: u64, seed: f32) -> f32 = fma_wide_body;
}
kernels_core::levels! {
    fn fma_narrow(rounds: u64, seed: f32) -> f32 = fma_narrow_body;
}

#[inline(always)]
fn fma_wide_body<L: Lanes>(l: L, rounds: u64, seed: f32) -> f32 {
    fma_body::<L, WIDE>(l, rounds, seed)
}

#[inline(always)]
fn fma_narrow_body<L: Lanes>(l: L, rounds: u64, seed: f32) -> f32 {
    fma_body::<L, NARROW>(l, rounds, seed)
}

#[inline(always)]
fn fma_body<L: Lanes, const CHAINS: usize>(l: L, rounds: u64, seed: f32) -> f32 {
    let (factor, term) = (l.splat(seed), l.splat(1.0 - seed));
    let mut chain = [l.splat(0.5); CHAINS];
    let mut round = 0;
    while round < rounds {
        let mut i = 0;
        while i < UNROLL {
            let mut j = 0;
            while j < CHAINS {
                chain[j] = l.fma(chain[j], factor, term);
                j += 1;
            }
            i += 1;
        }
        round += 1;
    }
    let mut sum = 0.0;
    for part in chain {
        sum += l.sum(part);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::{copy, fma, read};
    use crate::cpu::Threads;
    use kernels_core::simd::Level;

    #[test]
    fn every_level_reads_and_copies_all_of_it() {
        let threads = Threads::new(2);
        // Whole bursts of every stream of both threads.
        let from = vec![1f32; 16 * 4 * 8 * 2 * 3];
        let from: &[u8] = bytemuck::cast_slice(&from);
        for level in Level::all() {
            assert_eq!(read(level, &threads, from), (from.len() / 4) as f32);
            let mut to = vec![0f32; from.len() / 4];
            copy(level, &threads, from, bytemuck::cast_slice_mut(&mut to), 1.0);
            assert!(to.iter().all(|&v| v == 1.0));
            assert!(fma(level, &threads, 2, 0.5) > 0);
        }
    }
}
