//! What `token_logprob` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::dtype::Dtype;
use kernels_core::params::{STATUS_NOT_FINITE, STATUS_OK};
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::matmul::{Format, Shape};
use pagewise_tests::cases::token_logprob::{TokenLogprobCase, case, cases};
use pagewise_tests::harness::{Case, assert_case, assert_replays, assert_same_bits, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

const NIBBLES: Format = Format::Groups(Dtype::I4, 32, true, Dtype::F16);

standard_tests!(cases());

#[test]
fn log_probabilities_have_the_bits_of_matmul_and_then_sample() {
    let threads = Threads::new(3);
    for case in cases() {
        let outputs = case.run(Level::best(), &threads).expect("a listed case runs");
        let sampled = case.sampled(&Inline);
        for (row, sampled) in sampled.iter().enumerate() {
            let got = outputs[0].bytes.cast::<f32>()[row];
            let same = got.to_bits() == sampled.to_bits() || got.is_nan() && sampled.is_nan();
            assert!(same, "{} row {row}: {got}, sampled {sampled}", case.name());
        }
    }
}

#[test]
fn a_row_that_is_not_finite_is_reported() {
    let case = cases().pop().expect("the list is not empty");
    let outputs = case.run(Level::best(), &Inline).expect("a listed case runs");
    assert_eq!(outputs[1].bytes.cast::<u32>(), [STATUS_NOT_FINITE, STATUS_OK]);
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let shape = Shape { gap: 5, ..Shape::plain(20, 96, 9000, NIBBLES) };
    let whole = case(shape);
    let threads = Threads::new(3);
    let together = whole.run(Level::best(), &threads).expect("a good call runs");
    let inline = whole.run(Level::best(), &Inline).expect("a good call runs");
    assert_same_bits("three threads", &inline, &together);
    let stride = whole.params.x_row_stride as usize * 4;
    for row in [0, 7, 19] {
        let mut alone = whole.clone();
        alone.params.rows_max = 1;
        let x = &whole.product.x.as_slice()[row * stride..(row + 1) * stride];
        alone.product.x.as_mut_slice()[..stride].copy_from_slice(x);
        alone.token = vec![whole.token[row]];
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let outputs = alone.run(Level::best(), &threads).expect("a good call runs");
        drop(normal);
        assert!(!environment::is_normal(), "the host's environment comes back");
        let _normal = environment::Normal::enter();
        let own = outputs[0].bytes.cast::<u32>()[0];
        assert_eq!(own, together[0].bytes.cast::<u32>()[row], "row {row}");
    }
}

#[test]
fn bad_calls_are_refused_before_any_work() {
    let refused = |change: fn(&mut TokenLogprobCase)| {
        let mut bad = case(Shape::plain(2, 64, 50, NIBBLES));
        change(&mut bad);
        let error = bad.run(Level::best(), &Inline).expect_err("a bad call is refused");
        assert_eq!(error.kernel, "token_logprob");
        error.field
    };
    assert_eq!(refused(|case| case.token[1] = 50), "token");
    assert_eq!(refused(|case| case.product.rows = Some(3)), "rows");
    assert_eq!(refused(|case| case.params.reserved = 1), "reserved");
    assert_eq!(refused(|case| case.params.bias_dtype = 1), "bias_dtype");
    assert_eq!(refused(|case| case.params.x_row_stride = 63), "x");
    assert_eq!(refused(|case| case.params.rows_max = 3), "x");
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        field in 0usize..12,
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), any::<u32>()],
    ) {
        let mut case = case(Shape::plain(2, 64, 70, NIBBLES));
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        assert_replays(&case);
        // Either is right; a panic or a read out of bounds is not.
        if case.run(Level::best(), &Inline).is_ok() {
            assert_case(&case);
        }
    }
}
