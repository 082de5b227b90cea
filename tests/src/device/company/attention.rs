//! What `attention` promises of a row beyond its cases: its bits are its own.

use super::Device;
use crate::cases::attention::{AttentionCase, Lie, Seq, Shape, With, seq};
use crate::harness::{Bytes, Case, Noise, Output, Recorded, assert_same_bits};
use kernels_core::dtype::Dtype;
use kernels_core::error::Checks;
use kernels_core::kv_layout::{KvLayout, Part, Place};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

fn run(device: &mut Device, case: &AttentionCase) -> Vec<Output> {
    let outputs = case.call(&mut Recorded(&mut device.plugin));
    outputs.unwrap_or_else(|error| panic!("{}: {error}", case.name()))
}

/// The bits of some rows, in `out` and `lse`.
fn bits(case: &AttentionCase, outputs: &[Output], row: usize) -> (Vec<u8>, Vec<u8>) {
    let p = &case.params;
    let bytes = outputs[0].dtype.align() as usize;
    let width = (p.q_heads * p.kv.head_dim) as usize * bytes;
    let start = row * p.out_row_stride as usize * bytes;
    let heads = p.q_heads as usize * 4;
    let lse = outputs[1].bytes.as_slice()[row * heads..][..heads].to_vec();
    (outputs[0].bytes.as_slice()[start..start + width].to_vec(), lse)
}

/// Some rows of one sequence alone: of the last, as they are; before them, as of a sequence
/// that ended there.
fn alone(case: &AttentionCase, number: usize, rows: std::ops::Range<usize>) -> AttentionCase {
    let mut alone = case.clone();
    let (all, of) = (case.q_start[number] as usize, case.shape.seqs[number]);
    let kv_len = of.kv_len - of.rows + rows.end as u32;
    let count = rows.len() as u32;
    alone.shape.seqs = vec![Seq { rows: count, kv_len, ..of }];
    (alone.params.rows_max, alone.params.seqs_max) = (count + 2, 1);
    (alone.q_start, alone.kv_len) = (vec![0, count], vec![kv_len]);
    let bytes = case.shape.dtypes.0.align() as usize;
    let stride = case.params.q_row_stride as usize * bytes;
    let first = all + rows.start;
    let mut q = case.q.as_slice()[first * stride..(first + rows.len()) * stride].to_vec();
    q.resize((rows.len() + 2) * stride, 0xff);
    alone.q = Bytes::of(&q);
    let of_rows = |words: &Vec<u32>| {
        let mut words = words[2 * first..2 * (first + rows.len())].to_vec();
        words.resize(2 * (rows.len() + 2), u32::MAX);
        words
    };
    alone.intervals = case.intervals.as_ref().map(of_rows);
    alone.tree = case.tree.as_ref().map(of_rows);
    alone.first_position = case.first_position.as_ref().map(|first| vec![first[number]]);
    let starts = case.page_start.as_ref().expect("these shapes have lists");
    let listed = starts[number] as usize..starts[number + 1] as usize;
    alone.page_ids = case.page_ids[listed].to_vec();
    alone.params.page_ids_max = alone.page_ids.len() as u32;
    alone.page_start = Some(vec![0, alone.page_ids.len() as u32]);
    alone
}

fn stored(dtypes: (Dtype, Dtype, Dtype), shape: Shape) -> Shape {
    Shape { dtypes, ..shape }
}

const TYPES: [(Dtype, Dtype, Dtype); 7] = [
    (Dtype::F32, Dtype::F16, Dtype::F32),
    (Dtype::F16, Dtype::F16, Dtype::F16),
    (Dtype::F32, Dtype::Bf16, Dtype::F32),
    (Dtype::Bf16, Dtype::Bf16, Dtype::Bf16),
    (Dtype::F32, Dtype::I8, Dtype::F32),
    (Dtype::F16, Dtype::E4m3, Dtype::F16),
    (Dtype::F32, Dtype::F32, Dtype::F32),
];

/// A row decoded alone has the bits it has in a prefill.
pub fn a_row_decoded_alone_has_the_bits_it_has_in_prefill(device: &mut Device) {
    let mut noise = Noise::new(5);
    for (number, dtypes) in TYPES.into_iter().enumerate() {
        let (group, dims) = [(1, 16), (3, 24), (4, 64), (8, 128), (5, 40)][number % 5];
        let seqs = [seq(150, 400), seq(7, 40)];
        let shape = Shape { kv_heads: 2, ..Shape::plain(&seqs, group, dims) };
        let case = stored(dtypes, shape).case();
        let together = run(device, &case);
        for _ in 0..6 {
            let row = noise.below(150) as usize;
            let one = alone(&case, 0, row..row + 1);
            assert_eq!(bits(&one, &run(device, &one), 0), bits(&case, &together, row), "row {row}");
        }
    }
}

/// A sequence alone has the bits it has among others.
pub fn a_sequence_alone_has_the_bits_it_has_in_company(device: &mut Device) {
    let seqs = [seq(30, 300), seq(1, 700), Seq { rows: 2, kv_len: 90, first: 40 }, seq(70, 70)];
    for (number, dtypes) in TYPES.into_iter().enumerate() {
        let with =
            With { sinks: number % 2 == 0, slopes: true, tree: number % 3 == 0, ..With::default() };
        let shape = Shape { with, page_len: 16 + number as u32, ..Shape::plain(&seqs, 2, 32) };
        let case = stored(dtypes, shape).case();
        let together = run(device, &case);
        for (number, of) in seqs.iter().enumerate() {
            let one = alone(&case, number, 0..of.rows as usize);
            let apart = run(device, &one);
            for row in 0..of.rows as usize {
                let in_company = case.q_start[number] as usize + row;
                assert_eq!(
                    bits(&one, &apart, row),
                    bits(&case, &together, in_company),
                    "sequence {number}, row {row}"
                );
            }
        }
    }
}

/// Neither the order of pages nor their length changes a bit.
pub fn pages_in_any_order_and_any_page_length_give_the_same_bits(device: &mut Device) {
    for dtypes in TYPES {
        let base = stored(dtypes, Shape::plain(&[seq(5, 300), seq(1, 77)], 3, 24));
        let expected = run(device, &base.clone().case());
        for (page_len, lie) in
            [(1, Lie::Rows), (7, Lie::Native), (16, Lie::Rows), (48, Lie::Native)]
        {
            // The values of a shape follow the order of positions, not that of pages.
            let other = Shape { page_len, lie, ..base.clone() }.case();
            assert_same_bits("another layout", &expected, &run(device, &other));
        }
    }
}

/// Fills the value of a position of the first sequence with a byte.
fn poison(case: &mut AttentionCase, position: u32, byte: u8) {
    let kv = KvLayout::new(Checks("attention"), &case.params.kv).expect("cases have good layouts");
    let len = case.params.kv.page_len;
    let place =
        Place { page: case.page_ids[(position / len) as usize], head: 0, token: position % len };
    let start = (kv.cell(Part::Values, place) * kv.cell_bytes()) as usize;
    let bytes = (kv.dim_cells() * kv.cell_bytes()) as usize;
    case.keys.as_mut_slice()[start..start + bytes].fill(byte);
}

/// A value that is no number, or too large a one, changes only the rows that see it.
pub fn a_value_that_is_no_number_changes_only_rows_that_see_it(device: &mut Device) {
    for dtypes in TYPES {
        // NaN, and an infinity or the largest number there is.
        for byte in [0xff, if dtypes.1 == Dtype::F16 { 0x7c } else { 0x7f }] {
            let good = stored(dtypes, Shape::plain(&[seq(40, 300)], 2, 24)).case();
            let expected = run(device, &good);
            let mut bad = good.clone();
            poison(&mut bad, 281, byte);
            let got = run(device, &bad);
            for row in 0..40 {
                let same = bits(&good, &expected, row) == bits(&bad, &got, row);
                assert_eq!(same, 260 + row < 281, "row {row} of {dtypes:?}");
                let one = alone(&bad, 0, row..row + 1);
                assert_eq!(bits(&one, &run(device, &one), 0), bits(&bad, &got, row), "row {row}");
            }
        }
    }
}

/// Rows whose splits find no room among the states have the same bits.
pub fn rows_whose_splits_find_no_room_have_the_same_bits(device: &mut Device) {
    // Sixteen queries of five splits take eighty states; there is room for some 1900.
    let seqs: Vec<Seq> = (0..27).map(|number| seq(1, 1100 + 5 * number)).collect();
    let dtypes = (Dtype::F32, Dtype::F16, Dtype::F32);
    let case = stored(dtypes, Shape::plain(&seqs, 16, 128)).case();
    let together = run(device, &case);
    for number in [0, 11, 22, 25, 26] {
        let one = alone(&case, number, 0..1);
        assert_eq!(
            bits(&one, &run(device, &one), 0),
            bits(&case, &together, number),
            "sequence {number}"
        );
    }
}

/// What the CPU refuses of a step the device refuses in the same words.
pub fn what_the_cpu_refuses_of_a_step_is_refused_in_the_same_words(device: &mut Device) {
    let kept = [seq(3, 20), Seq { rows: 1, kv_len: 40, first: 17 }];
    let good = Shape::plain(&kept, 2, 16).stored(Dtype::F16).case();
    type Change = fn(&mut AttentionCase);
    let changes: [Change; 8] = [
        |case| case.page_ids[1] = case.params.kv.pages,
        |case| case.kv_len[0] = 33,
        |case| case.kv_len[1] = case.params.kv_len_max + 1,
        |case| case.first_position.as_mut().expect("a list")[1] = 41,
        |case| case.q_start[1] = 5,
        |case| case.q_start[2] = case.params.rows_max + 1,
        |case| case.page_start.as_mut().expect("a list")[1] = u32::MAX,
        |case| case.page_start.as_mut().expect("a list")[2] = 0,
    ];
    for (at, change) in changes.iter().enumerate() {
        let mut bad = good.clone();
        change(&mut bad);
        let expected = bad.run(Level::best(), &Inline).expect_err("a malformed call");
        let got = bad.call(&mut Recorded(&mut device.plugin)).expect_err("a malformed call");
        assert_eq!(got.to_string(), expected.to_string(), "{at}");
    }
}
