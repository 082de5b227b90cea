//! What `lora` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::params::LORA_NONE;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::lora::{LoraCase, Shape, cases, strategy};
use pagewise_tests::harness::{
    Bytes, Case, Noise, assert_case, assert_replays, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..12,
        value in prop_oneof![Just(0u32), Just(1), Just(16), Just(u32::MAX), any::<u32>()],
        what in 0usize..6,
        at in any::<prop::sample::Index>(),
        cut in 0usize..64,
    ) {
        let mut case = shape.case();
        let shorter = |bytes: &Bytes| Bytes::of(&bytes.as_slice()[..bytes.len().saturating_sub(cut)]);
        match what {
            0 => bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value,
            1 => case.adapters[at.index(shape.adapters.len())] = value,
            2 => case.ranks[at.index(shape.ranks.len())] = value,
            3 => case.scales[at.index(shape.ranks.len())] = f32::from_bits(value),
            4 => case.a = shorter(&case.a),
            _ => case.out = shorter(&case.out),
        }
        assert_replays(&case);
        // Either is right; a panic or a write out of bounds is not.
        if let Ok(outputs) = case.run(Level::best(), &Inline) {
            // Other shapes and ranks make other matrices of the same packed bytes; under a
            // vast scale a sum leaves f32, and a magnitude would have brought it back.
            let vast = case.scales.iter().any(|scale| scale.abs() > 1e30);
            if vast || matches!(what, 0 | 2) { case.assert_answer(&outputs) } else { assert_case(&case) }
        }
    }
}

/// One row of a call, with its adapter in another slot of another slab.
fn alone(shape: &Shape, whole: &LoraCase, row: usize) -> LoraCase {
    let slot = whole.adapters[row] as usize;
    let ranks = [1, shape.ranks[slot]];
    let mut alone =
        Shape { ranks: ranks.to_vec(), adapters: vec![1], spare: 32, ..shape.clone() }.case();
    let slab = |packed: &Bytes, from: &Bytes, slots: usize| {
        let mut bytes = packed.clone();
        let (to, from) = (packed.len() / 2, &from.as_slice()[from.len() / slots * slot..]);
        let len = to.min(from.len());
        bytes.as_mut_slice()[to..to + len].copy_from_slice(&from[..len]);
        bytes
    };
    alone.a = slab(&alone.a, &whole.a, shape.ranks.len());
    alone.b = slab(&alone.b, &whole.b, shape.ranks.len());
    alone.scales = vec![f32::MAX, whole.scales[slot]];
    let rows = |from: &Bytes| {
        let bytes = from.len() / whole.adapters.len();
        Bytes::of(&from.as_slice()[row * bytes..(row + 1) * bytes])
    };
    (alone.x, alone.out) = (rows(&whole.x), rows(&whole.out));
    alone
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let threads = Threads::new(3);
    let mut noise = Noise::new(5);
    for seed in 0..6 {
        let adapters: Vec<u32> = (0..40).map(|_| noise.below(4)).collect();
        let shape = Shape { seed, gap: 1, ..Shape::plain(2100, 150, &[9, 40, 16], &adapters) };
        let whole = shape.case();
        let together = whole.run(Level::best(), &threads).expect("a good call runs");
        for row in whole.adapted() {
            let alone = alone(&shape, &whole, row);
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
            drop(normal);
            let _normal = environment::Normal::enter();
            let bytes = alone.out.len();
            let part = &together[0].bytes.as_slice()[row * bytes..(row + 1) * bytes];
            assert_eq!(outputs[0].bytes.as_slice(), part, "seed {seed} row {row}");
        }
    }
}

#[test]
fn one_and_three_threads_give_the_same_bits() {
    let adapters: Vec<u32> = (0..50).map(|row| row % 3).collect();
    let case = Shape::plain(700, 1000, &[16, 8, 33], &adapters).case();
    let alone = case.run(Level::best(), &Inline).expect("a good call runs");
    let threads = case.run(Level::best(), &Threads::new(3)).expect("a good call runs");
    assert_same_bits("three threads", &alone, &threads);
}

#[test]
fn slots_out_of_range_are_refused_before_any_work() {
    let good = Shape::plain(8, 8, &[4, 4], &[0, 1]).case();
    let refused = |case: &LoraCase| {
        let error = case.run(Level::best(), &Inline).expect_err("a bad call is refused");
        error.field
    };
    let mut bad = good.clone();
    bad.adapters[1] = 2;
    assert_eq!(refused(&bad), "adapters");
    bad = good.clone();
    bad.ranks[1] = 17;
    assert_eq!(refused(&bad), "ranks");
    bad.ranks[1] = 0;
    assert_eq!(refused(&bad), "ranks");
    // A slot that no row names may hold anything.
    bad.adapters[1] = LORA_NONE;
    assert!(bad.run(Level::best(), &Inline).is_ok());
    bad = good.clone();
    bad.scales[0] = f32::INFINITY;
    assert_eq!(refused(&bad), "scales");
    bad = good;
    bad.params.rank_max = 24;
    assert_eq!(refused(&bad), "rank_max");
}
