//! What `embed` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::dtype::Dtype;
use kernels_core::params;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::embed::{EmbedCase, Shape, Table, cases, strategy};
use pagewise_tests::cases::matmul::{self, Format, formats};
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
        field in 0usize..14,
        value in prop_oneof![Just(0u32), Just(1), Just(2), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
        word in prop_oneof![0u32..50, any::<u32>()],
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        case.tokens[0] = word;
        assert_refused_or_answered(&case);
    }
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let plain = Shape { gap: 2, scale: 3.7, ..Shape::plain(40, 1536) };
    let format = Format::Groups(Dtype::I4, 128, true, Dtype::Bf16);
    for shape in [plain, Shape { table: Table::Packed(format), ..plain }] {
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
}

#[test]
fn a_packed_table_gives_the_rows_that_matmul_multiplies_by() {
    let (inputs, outputs) = (128, 37);
    for format in formats() {
        // Each row of x is one, at one input: products are columns of the weight.
        let mut product = matmul::Shape::plain(inputs, inputs, outputs, format).case();
        let one = |i: u32| if i.is_multiple_of(inputs + 1) { 1.0f32 } else { 0.0 };
        product.x = Bytes::of(&(0..inputs * inputs).map(one).collect::<Vec<_>>());
        let columns = product.run(Level::best(), &Inline).expect("a good call runs");
        let columns = columns[0].bytes.cast::<f32>();
        let mut looked_up = Shape::packed(outputs, inputs, format).case();
        looked_up.table = product.weight;
        looked_up.tokens = (0..outputs).collect();
        let rows = looked_up.run(Level::best(), &Inline).expect("a good call runs");
        for (token, row) in rows[0].bytes.cast::<f32>().chunks_exact(inputs as usize).enumerate() {
            // One is 127 steps of x where groups are multiplied: three roundings of numbers
            // below 8.
            let allowed =
                if matches!(format, Format::Floats(_)) { 0.0 } else { 24.0 * f32::EPSILON };
            for (k, &value) in row.iter().enumerate() {
                let multiplied = columns[k * outputs as usize + token];
                let error = (multiplied - value).abs();
                assert!(
                    error <= allowed,
                    "{format:?}: [{token}][{k}] is {value}, not {multiplied}"
                );
            }
        }
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
}

#[test]
fn refusals_name_the_field_before_any_work() {
    let format = Format::Groups(Dtype::I4, 32, true, Dtype::F16);
    let refused = |shape: Shape, change: &dyn Fn(&mut EmbedCase)| {
        let mut case = shape.case();
        change(&mut case);
        let error = case.run(Level::best(), &Inline).expect_err("a bad call is refused");
        assert_eq!(error.kernel, "embed");
        error.field
    };
    let (plain, packed) = (Shape::plain(3, 64), Shape::packed(3, 64, format));
    for shape in [plain, packed] {
        assert_eq!(refused(shape, &|case| case.params.scale = f32::INFINITY), "scale");
        assert_eq!(refused(shape, &|case| case.params.rows_max = 0), "rows_max");
        assert_eq!(refused(shape, &|case| case.params.packed = 2), "packed");
        assert_eq!(refused(shape, &|case| case.params.out_dtype = params::DTYPE_I8), "out_dtype");
        assert_eq!(refused(shape, &|case| case.params.out_row_stride = 63), "out");
        assert_eq!(refused(shape, &|case| case.params.weight.outputs = 0), "weight.outputs");
        assert_eq!(refused(shape, &|case| case.rows = Some(4)), "rows");
        let cut = |case: &mut EmbedCase| case.table = Bytes::filled(case.table.len() - 64, 0);
        assert_eq!(refused(shape, &cut), "table");
    }
    assert_eq!(refused(plain, &|case| case.params.table_row_stride = 63), "table");
    assert_eq!(refused(plain, &|case| case.params.weight.group = 32), "weight.group");
    // Groups only lie in tiles, and tiles have no stride.
    assert_eq!(refused(packed, &|case| case.params.packed = 0), "weight.dtype");
    assert_eq!(refused(packed, &|case| case.params.table_row_stride = 64), "table_row_stride");
    assert_eq!(refused(packed, &|case| case.params.weight.inputs = 65), "weight.inputs");
    assert_eq!(refused(packed, &|case| case.params.weight.scheme = 0), "weight.scheme");
}
