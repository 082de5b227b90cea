//! What `activation` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::activation::{Shape, cases, strategy};
use pagewise_tests::harness::{
    Bytes, Case, assert_refused_or_answered, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..10,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        assert_refused_or_answered(&case);
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let shape = Shape { gap: 2, ..Shape::plain(40, 1500) };
    let whole = shape.case();
    let alone = whole.run(Level::best(), &Inline).expect("a good call runs");
    let together = whole.run(Level::best(), &Threads::new(3)).expect("a good call runs");
    assert_same_bits("three threads", &alone, &together);
    for row in [0, 17, 39] {
        let mut alone = Shape { rows: (1, None), ..shape }.case();
        let range = |stride: u64| row * stride as usize * 4..(row + 1) * stride as usize * 4;
        alone.x = Bytes::of(&whole.x.as_slice()[range(whole.params.x_row_stride)]);
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
        drop(normal);
        let _normal = environment::Normal::enter();
        let expected = &together[0].bytes.as_slice()[range(whole.params.out_row_stride)];
        assert_eq!(outputs[0].bytes.as_slice(), expected);
    }
}
