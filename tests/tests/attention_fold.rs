//! What `attention_fold` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::attention_fold::{cases, strategy};
use pagewise_tests::harness::{Case, assert_case, assert_hashes, assert_same_bits};
use proptest::prelude::*;

#[test]
fn every_level_has_the_scalar_bits_and_keeps_to_the_spec() {
    for case in cases() {
        assert_case(&case);
    }
}

#[test]
fn the_bits_are_those_committed() {
    assert_hashes(&cases());
}

#[test]
fn threads_and_a_host_that_flushes_give_the_same_bits() {
    for case in cases() {
        let alone = case.run(Level::best(), &Inline).expect("a good call runs");
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let threads = case.run(Level::best(), &Threads::new(3)).expect("a good call runs");
        drop(normal);
        let _normal = environment::Normal::enter();
        assert_same_bits(&case.name(), &alone, &threads);
    }
}

proptest! {
    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..10,
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        // Either is right; a panic or a write out of bounds is not.
        let _ = case.run(Level::best(), &Inline);
    }
}
