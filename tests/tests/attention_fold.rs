//! What `attention_fold` promises, over its cases.

use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::attention_fold::{cases, strategy};
use pagewise_tests::harness::{Case, assert_case};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases());

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
        assert_refused_or_answered(&case);
    }
}
