//! What `gather` promises, over its cases.

use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::gather::{Shape, cases, strategy};
use pagewise_tests::harness::{Case, assert_refused_or_answered, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..8,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
        word in prop_oneof![0u32..50, any::<u32>()],
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        case.indices[0] = word;
        assert_refused_or_answered(&case);
    }
}

#[test]
fn an_index_past_the_rows_is_refused_before_any_copy() {
    let mut case = Shape::plain(3, 16).case();
    case.indices[2] = 11;
    let error = case.run(Level::best(), &Inline).expect_err("an index past the rows");
    assert_eq!((error.kernel, error.field), ("gather", "indices"));
    // A row that is not in use may hold anything.
    case.rows = Some(2);
    case.run(Level::best(), &Inline).expect("two good rows");
}
