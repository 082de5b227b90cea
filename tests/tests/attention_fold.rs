//! What `attention_fold` promises, over its cases.

use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::attention_fold::{AttentionFoldCase, cases, strategy};
use pagewise_tests::harness::{Bytes, Case, assert_refused_or_answered, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases());

proptest! {
    #![proptest_config(malformed())]

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

#[test]
fn refusals_name_the_field() {
    type Change = fn(&mut AttentionFoldCase);
    let bad: &[(&str, Change)] = &[
        ("rows", |case| case.rows = case.params.rows_max + 1),
        ("rows_max", |case| case.params.rows_max = 0),
        ("parts", |case| case.params.parts = 1025),
        ("parts", |case| case.parts = Bytes::filled(64, 0)),
        ("part_lse", |case| case.part_lse = Bytes::filled(4, 0)),
        ("parts", |case| case.params.part_row_stride = 1),
        ("out", |case| case.out_bytes = 8),
        ("out", |case| case.params.out_row_stride = 1),
        ("lse", |case| case.lse_bytes = 4),
        ("heads", |case| case.params.heads = 0),
        ("head_dim", |case| case.params.head_dim = 12),
        ("part_dtype", |case| case.params.part_dtype = 99),
        ("out_dtype", |case| case.params.out_dtype = 99),
    ];
    for (at, (field, change)) in bad.iter().enumerate() {
        let mut case = cases().swap_remove(1);
        change(&mut case);
        let error = case.run(Level::best(), &Inline).expect_err("a malformed call");
        assert_eq!((error.kernel, error.field), ("attention_fold", *field), "{at}: {error}");
    }
}
