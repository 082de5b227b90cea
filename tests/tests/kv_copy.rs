//! What `kv_copy` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::dtype::Dtype;
use kernels_core::kv_copy::ENTRY_WORDS;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::kv_copy::{Shape, cases, strategy};
use pagewise_tests::cases::kv_pages::{FORMS, Pages};
use pagewise_tests::harness::{
    Bytes, Case, Noise, assert_case, assert_replays, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases());

proptest! {
    #[test]
    fn any_shape_copies_what_the_spec_copies(shape in strategy()) {
        assert_case(&shape.case());
    }
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..24,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(7), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
        at in 0usize..ENTRY_WORDS,
        word in prop_oneof![0u32..20, any::<u32>()],
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        let keys = case.keys.as_slice();
        case.keys = Bytes::of(&keys[..keys.len().saturating_sub(cut)]);
        case.entries[0][at] = word;
        assert_replays(&case);
        // Either is right; a panic or a write out of bounds is not.
        if case.run(Level::best(), &Inline).is_ok() {
            case.count = Some(case.params.entries_max);
            assert_case(&case);
        }
    }
}

#[test]
fn one_and_three_threads_copy_the_same() {
    let mut noise = Noise::new(5);
    for form in FORMS {
        let pages = Pages {
            form,
            pages: 40,
            page_len: 16,
            kv_heads: 3,
            head_dim: 128,
            dtype: Dtype::F16,
            token_scales: false,
        };
        let entries = (0..60).map(|_| {
            let (from, to) = (noise.below(16), noise.below(16));
            [noise.below(40), from, noise.below(40), to, 16 - from.max(to)]
        });
        let case = Shape { pages, entries: entries.collect(), count: None, seed: 1 }.case();
        let alone = case.run(Level::best(), &Inline).expect("a good call runs");
        let threads = case.run(Level::best(), &Threads::new(3)).expect("a good call runs");
        assert_same_bits("three threads", &alone, &threads);
        case.assert_answer(&threads);
    }
}

#[test]
fn bad_entries_are_refused_before_any_copy() {
    let pages = Pages {
        form: FORMS[0],
        pages: 3,
        page_len: 8,
        kv_heads: 1,
        head_dim: 8,
        dtype: Dtype::I8,
        token_scales: true,
    };
    let refused = |entry: [u32; ENTRY_WORDS]| {
        let case = Shape { pages, entries: vec![[0, 0, 1, 0, 8], entry], count: None, seed: 1 };
        let error = case.case().run(Level::best(), &Inline).expect_err("a bad entry");
        assert_eq!((error.kernel, error.field), ("kv_copy", "entries"));
    };
    refused([3, 0, 0, 0, 1]);
    refused([0, 0, 3, 0, 1]);
    refused([0, 8, 0, 0, 1]);
    refused([0, 1, 0, 0, 8]);
    refused([0, 0, 0, 5, 4]);
    refused([0, 0, 0, 0, u32::MAX]);
    refused([0, u32::MAX, 0, 0, 0]);
}
