//! What `attention` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::dtype::Dtype;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::attention::{
    AttentionCase, Lie, Seq, Shape, With, cases, seq, strategy,
};
use pagewise_tests::harness::{
    Bytes, Case, Noise, assert_refused_or_answered, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..38,
        list in 0usize..7,
        at in any::<prop::sample::Index>(),
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), 0u32..400, any::<u32>()],
    ) {
        let good = shape.case();
        let mut case = good.clone();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        assert_refused_or_answered(&case);
        let mut case = good;
        let list = match list {
            0 => Some(&mut case.q_start),
            1 => Some(&mut case.kv_len),
            2 => case.first_position.as_mut(),
            3 => case.page_start.as_mut(),
            4 => case.intervals.as_mut(),
            5 => case.tree.as_mut(),
            _ => Some(&mut case.page_ids),
        };
        if let Some(list) = list.filter(|list| !list.is_empty()) {
            let at = at.index(list.len());
            list[at] = value;
            assert_refused_or_answered(&case);
        }
    }
}

#[test]
fn refusals_name_the_field() {
    let shape = Shape {
        dtypes: (Dtype::F32, Dtype::I8, Dtype::F32),
        with: With { sinks: true, slopes: true, tree: true, ..With::default() },
        ..Shape::plain(&[seq(3, 20), Seq { rows: 1, kv_len: 40, first: 17 }], 2, 16)
    };
    type Change = fn(&mut AttentionCase);
    let bad: &[(&str, Change)] = &[
        ("page_ids", |case| case.page_ids[1] = case.params.kv.pages),
        ("kv_len", |case| case.kv_len[0] = 33),
        ("kv_len", |case| case.kv_len[1] = case.params.kv_len_max + 1),
        ("first_position", |case| case.first_position.as_mut().expect("a list")[1] = 41),
        ("q_start", |case| case.q_start[1] = 5),
        ("q_start", |case| case.q_start[2] = case.params.rows_max + 1),
        ("page_start", |case| case.page_start.as_mut().expect("a list")[1] = u32::MAX),
        ("page_start", |case| case.page_start = None),
        ("page_start", |case| case.params.table_width = 4),
        ("intervals", |case| case.intervals = None),
        ("intervals", |case| case.intervals = Some(vec![0; 3])),
        ("tree_bits", |case| case.tree = Some(vec![0; 3])),
        ("sinks", |case| case.sinks = Some(vec![0.0])),
        ("slopes", |case| case.slopes = Some(vec![0.0])),
        ("scales", |case| case.scales = Some(Bytes::filled(4096, 0))),
        ("values", |case| case.values = Some(Bytes::filled(4096, 0))),
        ("keys", |case| case.keys = Bytes::filled(case.keys.len() - 1, 0)),
        ("q", |case| case.q = Bytes::filled(64, 0)),
        ("scale", |case| case.params.scale = f32::NAN),
        ("scale", |case| case.params.scale = f32::INFINITY),
        ("softcap", |case| case.params.softcap = f32::NAN),
        ("softcap", |case| case.params.softcap = f32::INFINITY),
        ("softcap", |case| case.params.softcap = -1.0),
        ("k_scale", |case| case.params.kv.k_scale = f32::NAN),
        ("v_scale", |case| case.params.kv.v_scale = f32::NEG_INFINITY),
        ("causal", |case| case.params.causal = 2),
        ("q_heads", |case| case.params.q_heads = 0),
        ("head_dim", |case| case.params.kv.head_dim = 12),
        ("q_dtype", |case| case.params.q_dtype = Dtype::I8 as u32),
        ("out_dtype", |case| case.params.out_dtype = 99),
        ("out", |case| case.params.out_row_stride = 31),
        ("rows_max", |case| case.params.rows_max = 0),
        ("seqs", |case| case.params.seqs_max = 1),
    ];
    shape.clone().case().run(Level::best(), &Inline).expect("a good call runs");
    for (at, (field, change)) in bad.iter().enumerate() {
        let mut case = shape.clone().case();
        change(&mut case);
        let error = case.run(Level::best(), &Inline).expect_err("a malformed call");
        assert_eq!((error.kernel, error.field), ("attention", *field), "{at}: {error}");
    }
}

/// The bits of one row, in `out` and `lse`.
fn row_bits(case: &AttentionCase, row: usize) -> (Vec<u8>, Vec<u8>) {
    let outputs = case.run(Level::best(), &Threads::new(2)).expect("a good call runs");
    let p = &case.params;
    let width = (p.q_heads * p.kv.head_dim) as usize * 4;
    let start = row * p.out_row_stride as usize * 4;
    let heads = p.q_heads as usize * 4;
    let lse = outputs[1].bytes.as_slice()[row * heads..(row + 1) * heads].to_vec();
    (outputs[0].bytes.as_slice()[start..start + width].to_vec(), lse)
}

/// The case's row alone, as the last of a shorter sequence: a decode of that position.
fn decode_of(case: &AttentionCase, row: usize) -> AttentionCase {
    let mut alone = case.clone();
    let of = case.shape.seqs[0];
    let kv_len = of.kv_len - of.rows + row as u32 + 1;
    alone.shape.seqs = vec![Seq { rows: 1, kv_len, ..of }];
    alone.params.rows_max = 3;
    alone.params.seqs_max = 1;
    (alone.q_start, alone.kv_len) = (vec![0, 1], vec![kv_len]);
    let stride = case.params.q_row_stride as usize * 4;
    let q = case.q.as_slice()[row * stride..(row + 1) * stride].repeat(3);
    alone.q = Bytes::of(&q);
    let starts = alone.page_start.as_mut().expect("plain shapes have lists");
    starts.truncate(2);
    alone
}

#[test]
fn a_row_decoded_alone_has_the_bits_it_has_in_prefill() {
    let mut noise = Noise::new(5);
    for (group, dims, dtype) in [(1, 16, 0), (3, 24, 1), (4, 64, 4), (8, 32, 2)] {
        let dtype = Dtype::ALL[dtype];
        let shape =
            Shape { kv_heads: 2, ..Shape::plain(&[seq(300, 560), seq(7, 40)], group, dims) };
        let case = shape.stored(dtype).case();
        let together = case.run(Level::best(), &Threads::new(2)).expect("a good call runs");
        let p = &case.params;
        for _ in 0..12 {
            let row = noise.below(300) as usize;
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let (out, lse) = row_bits(&decode_of(&case, row), 0);
            drop(normal);
            let _normal = environment::Normal::enter();
            let start = row * p.out_row_stride as usize * 4;
            assert_eq!(out, &together[0].bytes.as_slice()[start..start + out.len()], "row {row}");
            let start = row * lse.len();
            assert_eq!(lse, &together[1].bytes.as_slice()[start..start + lse.len()], "row {row}");
        }
    }
}

#[test]
fn pages_in_any_order_and_any_page_length_give_the_same_bits() {
    let base = Shape::plain(&[seq(5, 300), seq(1, 77)], 3, 24);
    let expected = base.clone().case();
    let expected = expected.run(Level::best(), &Inline).expect("a good call runs");
    for (page_len, lie) in [(1, Lie::Rows), (7, Lie::Native), (16, Lie::Rows), (48, Lie::Native)] {
        // The values of a shape follow the order of positions, not that of pages.
        let other = Shape { page_len, lie, ..base.clone() }.case();
        let got = other.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits("another layout", &expected, &got);
    }
}
