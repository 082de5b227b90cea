//! What `append_kv` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::dtype::Dtype;
use kernels_core::error::Fault;
use kernels_core::kv_layout::{Part, Place};
use kernels_core::rope::Pairing;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::append_kv::{AppendKvCase, Shape, cases, strategy};
use pagewise_tests::cases::kv_pages::{Form, Pages};
use pagewise_tests::cases::rope::{self, RopeCase, TABLE_LEN};
use pagewise_tests::harness::{
    Bytes, Case, Noise, Output, assert_case, assert_refused_or_answered, assert_same_bits,
    malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

fn run(case: &AppendKvCase) -> Vec<Output> {
    case.run(Level::best(), &Inline).expect("a good call runs")
}

standard_tests!(cases(), strategy());

proptest! {
    #[test]
    fn any_bytes_are_refused_or_answered(data in prop::collection::vec(any::<u8>(), 0..60)) {
        pagewise_tests::fuzz::append(&data);
    }
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..32,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(7), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
        word in prop_oneof![0u32..20, any::<u32>()],
        step in 0usize..4,
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        let keys = case.keys.as_slice();
        case.keys = Bytes::of(&keys[..keys.len().saturating_sub(cut)]);
        match (step, &mut case.slot_starts, &mut case.turns) {
            (0, Some(starts), _) => starts[1] = word,
            (1, _, Some((_, positions))) => positions[0] = word,
            (2, ..) => case.slots[0][0] = word,
            (3, ..) => case.slots[0][1] = word,
            _ => {}
        }
        assert_refused_or_answered(&case);
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let threads = Threads::new(3);
    for dtype in Dtype::ALL {
        let plain = Shape::plain(dtype, 16, 256);
        let pages = Pages { pages: 9, kv_heads: 4, ..plain.pages };
        let rope = Some((Pairing::Neox, 256));
        let shape = Shape { pages, rope, rows: (40, None), several: true, ..plain };
        let whole = shape.case();
        let together = whole.run(Level::best(), &threads).expect("a good call runs");
        assert_same_bits("three threads", &run(&whole), &together);
        let kv = whole.kv();
        let stored = whole.stored(&kv, &together);
        let stride = whole.params.k_row_stride as usize * 4;
        let mut noise = Noise::new(7);
        for _ in 0..4 {
            let row = noise.below(40) as usize;
            let range = row * stride..(row + 1) * stride;
            let mut alone = whole.clone();
            alone.params.rows_max = 1;
            alone.k = Bytes::of(&whole.k.as_slice()[range.clone()]);
            alone.v = Bytes::of(&whole.v.as_slice()[range]);
            let (_, positions) = alone.turns.as_mut().expect("the shape turns");
            *positions = vec![positions[row]];
            let starts = alone.slot_starts.as_mut().expect("the shape has several");
            *starts = starts[row..row + 2].to_vec();
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
            drop(normal);
            let _normal = environment::Normal::enter();
            let own = alone.stored(&kv, &outputs);
            for &[page, token] in whole.slots(row) {
                for (head, part, dim) in (0..4).flat_map(|head| {
                    [Part::Keys, Part::Values]
                        .into_iter()
                        .flat_map(move |part| (0..256).map(move |dim| (head, part, dim)))
                }) {
                    let place = Place { page, head, token };
                    let bits = |stored: &kernels_core::kv_layout::Stored<'_>| {
                        (
                            stored.code(part, place, dim).to_bits(),
                            stored.scale(part, place).to_bits(),
                        )
                    };
                    assert_eq!(bits(&stored), bits(&own), "row {row} {place:?}");
                }
            }
        }
    }
}

#[test]
fn fused_turns_have_the_bits_of_rope_and_then_append() {
    for (dtype, x_dtype) in
        [(Dtype::F32, Dtype::F32), (Dtype::I8, Dtype::Bf16), (Dtype::F16, Dtype::F16)]
    {
        for pairing in [Pairing::Neox, Pairing::Interleaved] {
            let fused = Shape { x_dtype, rope: Some((pairing, 40)), ..Shape::plain(dtype, 16, 72) };
            let fused = fused.case();
            let shape = rope::Shape {
                dtypes: (x_dtype, x_dtype),
                in_place: true,
                pairing,
                ..rope::Shape::plain(4, 2, 72, 40)
            };
            let (_, positions) = fused.turns.clone().expect("the shape turns");
            let turn = RopeCase { out: fused.k.clone(), positions, ..shape.case() };
            let turned = turn.run(Level::best(), &Inline).expect("a good call runs");
            let mut apart =
                AppendKvCase { k: turned[0].bytes.clone(), turns: None, ..fused.clone() };
            (apart.params.rope, apart.params.rotary_dims, apart.params.table_len) = (0, 0, 0);
            assert_same_bits("fused", &run(&apart), &run(&fused));
        }
    }
}

#[test]
fn the_same_tokens_read_the_same_from_every_form() {
    for dtype in Dtype::ALL {
        let shape = |form| {
            let plain = Shape::plain(dtype, 17, 72);
            Shape { pages: Pages { form, ..plain.pages }, several: true, ..plain }.case()
        };
        let native = shape(Form::Native);
        let (kv, outputs) = (native.kv(), run(&native));
        let expected = native.stored(&kv, &outputs);
        for form in [Form::Gaps, Form::Rows, Form::Tensor, Form::HeadMajor] {
            let case = shape(form);
            let (kv, outputs) = (case.kv(), run(&case));
            let got = case.stored(&kv, &outputs);
            for &[page, token] in &case.slots {
                for (head, dim) in (0..2).flat_map(|head| (0..72).map(move |dim| (head, dim))) {
                    let place = Place { page, head, token };
                    for part in [Part::Keys, Part::Values] {
                        let bits = got.number::<f32>(part, place, dim).to_bits();
                        assert_eq!(bits, expected.number::<f32>(part, place, dim).to_bits());
                    }
                }
            }
        }
    }
}

/// One row of `x` in every dim but the first, which holds `first`, into `dtype`.
fn row_of(dtype: Dtype, token_scales: bool, x: f32, first: f32) -> AppendKvCase {
    let plain = Shape::plain(dtype, 8, 8);
    let pages = Pages { token_scales, ..plain.pages };
    let mut case = Shape { pages, rows: (1, None), ..plain }.case();
    let mut row = [x; 16];
    row[0] = first;
    case.k = Bytes::of(&row);
    case
}

/// The first two keys of the first head, as they read back.
fn first_keys(case: &AppendKvCase) -> [f32; 2] {
    let (kv, outputs) = (case.kv(), run(case));
    assert_case(case);
    let stored = case.stored(&kv, &outputs);
    let [page, token] = case.slots[0];
    [0, 1].map(|dim| stored.number(Part::Keys, Place { page, head: 0, token }, dim))
}

#[test]
fn zeros_and_rows_too_small_for_a_scale_read_back_as_zeros() {
    for dtype in [Dtype::I8, Dtype::I4, Dtype::E4m3] {
        for x in [0.0, -0.0, 1e-45, 1e-38] {
            assert_eq!(
                first_keys(&row_of(dtype, true, x, x)),
                [0.0, 0.0],
                "{x} in {}",
                dtype.name()
            );
        }
        let smallest = 448.0 * f32::MIN_POSITIVE;
        let got = first_keys(&row_of(dtype, true, smallest, smallest))[0];
        assert!((got / smallest - 1.0).abs() < 1e-6, "{got} in {}", dtype.name());
    }
}

#[test]
fn what_is_not_finite_spoils_its_own_head_and_nothing_else() {
    for dtype in [Dtype::I8, Dtype::I4, Dtype::E4m3] {
        for first in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let case = row_of(dtype, true, 1.0, first);
            assert!(first_keys(&case).iter().all(|x| x.is_nan()), "{first} in {}", dtype.name());
            let (kv, outputs) = (case.kv(), run(&case));
            let [page, token] = case.slots[0];
            let other = Place { page, head: 1, token };
            let got: f32 = case.stored(&kv, &outputs).number(Part::Keys, other, 3);
            assert!((got - 1.0).abs() < 1e-6, "the other head reads {got}");
        }
    }
}

#[test]
fn static_scales_take_the_end_of_the_range() {
    // The scale of keys is 1/16.
    let ends = [(Dtype::I8, 127.0 / 16.0), (Dtype::I4, 7.0 / 16.0), (Dtype::E4m3, 28.0)];
    for (dtype, end) in ends {
        assert_eq!(first_keys(&row_of(dtype, false, 0.25, f32::INFINITY)), [end, 0.25]);
        assert_eq!(first_keys(&row_of(dtype, false, 0.25, -1e30)), [-end, 0.25]);
        let spoiled = first_keys(&row_of(dtype, false, 0.25, f32::NAN));
        if dtype == Dtype::E4m3 {
            assert!(spoiled[0].is_nan());
        } else {
            assert_eq!(spoiled[0], 0.0);
        }
        assert_eq!(spoiled[1], 0.25);
    }
}

#[test]
fn whole_numbers_tie_to_even_and_the_scale_is_the_largest_over_127() {
    let mut case = row_of(Dtype::I8, true, 2.5, 127.0);
    assert_eq!(first_keys(&case), [127.0, 2.0]);
    case = row_of(Dtype::I8, true, 3.5, -254.0);
    // The scale is 2: one and three quarters rounds up.
    assert_eq!(first_keys(&case), [-254.0, 4.0]);
    case = row_of(Dtype::I4, true, 1.5, 7.0);
    assert_eq!(first_keys(&case), [7.0, 2.0]);
}

#[test]
fn two_rows_in_one_slot_are_refused() {
    // Many rows, of which any two may meet; a slot that is not in use may be any.
    let shape = Shape { rows: (200, None), ..Shape::plain(Dtype::F16, 8, 8) };
    let shape = Shape { pages: Pages { pages: 40, ..shape.pages }, ..shape };
    let mut noise = Noise::new(3);
    for _ in 0..20 {
        let mut case = shape.case();
        let earlier = noise.below(199);
        let later = earlier + 1 + noise.below(199 - earlier);
        case.slots[later as usize] = case.slots[earlier as usize];
        let error = case.run(Level::best(), &Inline).expect_err("two rows in one slot");
        let fault = Fault::Repeated { at: 2 * u64::from(later), earlier: 2 * u64::from(earlier) };
        assert_eq!((error.kernel, error.field, error.fault), ("append_kv", "slots", fault));
        case.rows = Some(later);
        run(&case);
    }
}

#[test]
fn bad_steps_are_refused_before_any_write() {
    let good =
        Shape { several: true, rope: Some((Pairing::Neox, 8)), ..Shape::plain(Dtype::F16, 8, 8) };
    let good = good.case();
    let refused = |change: fn(&mut AppendKvCase)| {
        let mut case = good.clone();
        change(&mut case);
        let error = case.run(Level::best(), &Inline).expect_err("a bad step");
        assert_eq!(error.kernel, "append_kv");
        error.field
    };
    assert_eq!(refused(|case| case.slots.last_mut().expect("slots")[0] = 5), "slots");
    assert_eq!(refused(|case| case.slots.last_mut().expect("slots")[1] = 8), "slots");
    assert_eq!(refused(|case| case.rows = Some(5)), "rows");
    assert_eq!(refused(|case| case.slot_starts.as_mut().expect("starts")[2] = 99), "slot_starts");
    assert_eq!(refused(|case| case.slot_starts = Some(vec![2, 1, 2, 2, 2])), "slot_starts");
    assert_eq!(refused(|case| case.turns.as_mut().expect("turns").1[3] = TABLE_LEN), "positions");
    assert_eq!(refused(|case| case.turns = None), "table");
    assert_eq!(refused(|case| case.params.rope = 0), "rotary_dims");
    assert_eq!(refused(|case| case.params.rope = 3), "rope");
    assert_eq!(refused(|case| case.params.kv.v_offset = 0), "values");
    assert_eq!(refused(|case| case.scales = Some(Bytes::filled(4096, 0))), "scales");
    assert_eq!(refused(|case| case.params.slots_max = 0), "slots_max");
}
