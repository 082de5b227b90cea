//! What `embed` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::embed::{EmbedCase, Shape, cases, strategy};
use pagewise_tests::harness::{Case, assert_case, assert_hashes, assert_same_bits};
use proptest::prelude::*;

fn assert_whole(case: &EmbedCase) {
    assert_case(case);
}

#[test]
fn every_level_has_the_scalar_bits_and_keeps_to_the_spec() {
    for case in cases() {
        assert_whole(&case);
    }
}

#[test]
fn the_bits_are_those_committed() {
    assert_hashes(&cases());
}

proptest! {
    #[test]
    fn any_shape_has_the_scalar_bits_and_keeps_to_the_spec(shape in strategy()) {
        assert_whole(&shape.case());
    }

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..10,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
        word in prop_oneof![0u32..50, any::<u32>()],
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        case.tokens[0] = word;
        // Either is right; a panic or a write out of bounds is not.
        if case.run(Level::best(), &Inline).is_ok() {
            assert_whole(&case);
        }
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let shape = Shape { gap: 2, scale: 3.7, ..Shape::plain(40, 1500) };
    let whole = shape.case();
    let alone = whole.run(Level::best(), &Inline).expect("a good call runs");
    let together = whole.run(Level::best(), &Threads::new(3)).expect("a good call runs");
    assert_same_bits("three threads", &alone, &together);
    for row in [0, 17, 39] {
        let mut alone = Shape { rows: (1, None), ..shape }.case();
        alone.table = whole.table.clone();
        alone.tokens = vec![whole.tokens[row]];
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
        drop(normal);
        let _normal = environment::Normal::enter();
        let stride = whole.params.out_row_stride as usize * 4;
        let expected = &together[0].bytes.as_slice()[row * stride..(row + 1) * stride];
        assert_eq!(outputs[0].bytes.as_slice(), expected);
    }
}

#[test]
fn a_scale_of_one_gives_the_row_itself() {
    let case = Shape::plain(3, 72).case();
    let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
    for (row, &token) in case.tokens.iter().enumerate() {
        let at = |row: usize| row * 72 * 4..(row + 1) * 72 * 4;
        let expected = &case.table.as_slice()[at(token as usize)];
        assert_eq!(&outputs[0].bytes.as_slice()[at(row)], expected);
    }
}

#[test]
fn a_token_past_the_vocabulary_is_refused_before_any_row() {
    let mut case = Shape::plain(3, 16).case();
    case.tokens[2] = 37;
    let error = case.run(Level::best(), &Inline).expect_err("a token past the table");
    assert_eq!((error.kernel, error.field), ("embed", "tokens"));
    // A row that is not in use may hold anything.
    case.rows = Some(2);
    case.run(Level::best(), &Inline).expect("two good rows");
    case.params.scale = f32::INFINITY;
    assert_eq!(case.run(Level::best(), &Inline).expect_err("a bad scale").field, "scale");
}
