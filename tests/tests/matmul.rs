//! What `matmul` and packing promise, over their cases.

use backends::cpu::{Cpu, Threads};
use kernels_core::device::{Backend, Command, Launch, Read, Slice, Write};
use kernels_core::dtype::Dtype;
use kernels_core::error::{Checks, Fault};
use kernels_core::matmul::Matmul;
use kernels_core::packing::{self, Source, Weight};
use kernels_core::params;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::{Inline, Reversed, Workers};
use pagewise_tests::cases::matmul::{Format, MatmulCase, Shape, cases, formats, strategy};
use pagewise_tests::harness::{
    Bytes, Case, Noise, assert_refused_or_answered, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

const NIBBLES: Format = Format::Groups(Dtype::I4, 32, true, Dtype::F16);

standard_tests!(cases(), strategy());

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..14,
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
fn strips_that_workers_take_as_they_come_change_no_bit() {
    // Some eight strips for two workers: none of the listed cases has so wide a matrix.
    let case = Shape::plain(5, 512, 2048, NIBBLES).case();
    let run = |workers: &dyn Workers| case.run(Level::best(), workers).expect("a good call runs");
    let alone = run(&Inline);
    assert_same_bits("two threads", &alone, &run(&Threads::new(2)));
    assert_same_bits("last strip first", &alone, &run(&Reversed(2)));
}

/// One row of a call, by itself.
fn alone(case: &MatmulCase, row: usize) -> MatmulCase {
    let stride = case.params.x_row_stride as usize * 4;
    let mut alone = case.clone();
    alone.params.rows_max = 1;
    alone.x = Bytes::of(&case.x.as_slice()[row * stride..(row + 1) * stride]);
    alone.out_bytes = case.params.out_row_stride as usize * 4;
    alone
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let threads = Threads::new(3);
    let mut noise = Noise::new(7);
    for format in [
        NIBBLES,
        Format::Groups(Dtype::I8, 128, false, Dtype::F32),
        Format::Floats(Dtype::Bf16),
        Format::Floats(Dtype::F16),
        Format::Floats(Dtype::F32),
    ] {
        // Past a chunk of 84 rows, and segments of 512.
        let shape = Shape { gap: 2, ..Shape::plain(200, 1152, 300, format) };
        let mut case = shape.case();
        for at in 0..case.x.len() / 4096 {
            let tiny = f32::MIN_POSITIVE / (3.0 + at as f32);
            case.x.as_mut_slice()[at * 4096..at * 4096 + 4].copy_from_slice(&tiny.to_le_bytes());
        }
        let together = case.run(Level::best(), &threads).expect("a good call runs");
        let stride = case.params.out_row_stride as usize * 4;
        for _ in 0..6 {
            let row = noise.below(200) as usize;
            let alone = alone(&case, row);
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
            drop(normal);
            assert!(!environment::is_normal(), "the host's environment comes back");
            let _normal = environment::Normal::enter();
            let written = 300 * 4;
            let row = &together[0].bytes.as_slice()[row * stride..][..written];
            assert_eq!(&outputs[0].bytes.as_slice()[..written], row);
        }
    }
}

#[test]
fn any_threads_and_any_number_of_rows_give_the_same_bits() {
    for format in
        [NIBBLES, Format::Groups(Dtype::I8, 32, true, Dtype::Bf16), Format::Floats(Dtype::Bf16)]
    {
        let case = Shape::plain(70, 1056, 800, format).case();
        let whole = case.run(Level::best(), &Inline).expect("a good call runs");
        for count in [2, 3, 5] {
            let threads = case.run(Level::best(), &Threads::new(count)).expect("a good call runs");
            assert_same_bits("more threads", &whole, &threads);
        }
        for rows in [1, 2, 7, 8, 9, 12, 13, 16, 17, 33] {
            let part = MatmulCase { rows: Some(rows), ..case.clone() };
            let part = part.run(Level::best(), &Inline).expect("a good call runs");
            let bytes = rows as usize * 800 * 4;
            assert_eq!(part[0].bytes.as_slice()[..bytes], whole[0].bytes.as_slice()[..bytes]);
        }
    }
}

#[test]
fn fused_outputs_have_the_bits_of_their_own_products() {
    let format = NIBBLES;
    let mut noise = Noise::new(3);
    let (inputs, parts) = (96u32, [40u32, 8, 33]);
    let numbers: Vec<u8> = (0..81 * 48).map(|_| noise.word() as u8).collect();
    let scales = Bytes::rounded(Dtype::F16, &noise.normals(81 * 3, 0.02));
    let biases = Bytes::rounded(Dtype::F16, &noise.normals(81 * 3, 0.1));
    let rows_of = |first: usize, count: usize| Source::Groups {
        numbers: &numbers[first * 48..(first + count) * 48],
        scales: &scales.as_slice()[first * 6..(first + count) * 6],
        biases: &biases.as_slice()[first * 6..(first + count) * 6],
    };
    let call = |outputs: u32, weight: Bytes| {
        let mut case = Shape::plain(5, inputs, outputs, format).case();
        let x = Noise::new(9).normals(5 * 96, 1.0);
        case.x = Bytes::of(&x);
        case.weight = weight;
        case.run(Level::best(), &Inline).expect("a good call runs").remove(0).bytes
    };
    let packed = |outputs: u32| {
        let params = format.weight(outputs, inputs);
        let bytes = packing::packed_bytes(&params).expect("good parameters");
        (params, Bytes::filled(bytes as usize, 0))
    };
    let (params, mut fused) = packed(81);
    let mut first = 0;
    for count in parts {
        let source = rows_of(first as usize, count as usize);
        packing::pack(&params, first..first + count, source, fused.as_mut_slice())
            .expect("a good source is packed");
        first += count;
    }
    let fused = call(81, fused);
    let mut first = 0;
    for count in parts {
        let (params, mut own) = packed(count);
        let source = rows_of(first, count as usize);
        packing::pack(&params, 0..count, source, own.as_mut_slice()).expect("packed");
        let own = call(count, own);
        for row in 0..5 {
            let whole = &fused.cast::<u32>()[row * 81 + first..][..count as usize];
            assert_eq!(&own.cast::<u32>()[row * count as usize..][..count as usize], whole);
        }
        first += count as usize;
    }
}

#[test]
fn an_unpacked_row_is_what_the_spec_says_at_every_level() {
    for format in formats() {
        let params = format.weight(35, 256);
        let packed = format.packed(&params, &mut Noise::new(5));
        let weight = Weight::parse(Checks("test"), &params).expect("good parameters");
        for output in [0, 1, 31, 32, 34] {
            let truth = packing::dequantise::<f64>(&weight, packed.as_slice(), output);
            for level in Level::all() {
                let mut row = vec![f32::NAN; 256];
                packing::unpack_row(level, &weight, packed.as_slice(), output, &mut row);
                // One rounding: of a fma, or of a product.
                let rounded: Vec<f32> = truth.iter().map(|&v| v as f32).collect();
                assert_eq!(row, rounded, "{format:?} at {}", level.name());
            }
        }
    }
}

#[test]
fn sources_are_refused_by_name() {
    let params = NIBBLES.weight(4, 64);
    let mut packed = Bytes::filled(packing::packed_bytes(&params).expect("good") as usize, 0);
    let scales = Bytes::rounded(Dtype::F16, &[1.0; 8]);
    let mut refused = |numbers: usize, scales: &[u8], biases: &[u8], outputs| {
        let numbers = vec![0; numbers];
        let source = Source::Groups { numbers: &numbers, scales, biases };
        let error = packing::pack(&params, outputs, source, packed.as_mut_slice());
        error.expect_err("a bad source is refused")
    };
    let good = scales.as_slice();
    assert_eq!(refused(127, good, good, 0..4).field, "numbers");
    assert_eq!(refused(128, &good[2..], good, 0..4).field, "scales");
    assert_eq!(refused(128, good, &[], 0..4).field, "biases");
    assert_eq!(refused(128, good, good, 1..5).field, "outputs.end");
    #[expect(clippy::reversed_empty_ranges, reason = "what a caller can get wrong")]
    let reversed = 3..2;
    assert_eq!(refused(128, good, good, reversed).field, "outputs.start");
    let endless = Bytes::rounded(Dtype::F16, &[1.0, 1.0, 1.0, f32::INFINITY, 1.0, 1.0, 1.0, 1.0]);
    let error = refused(128, good, endless.as_slice(), 0..4);
    assert_eq!((error.field, error.fault), ("biases", Fault::NotFiniteAt { at: 3 }));
    let odd = Source::Floats { dtype: Dtype::F32, values: &[] };
    let error = packing::pack(&params, 0..0, odd, packed.as_mut_slice());
    assert_eq!(error.expect_err("floats are no groups").field, "numbers");
}

#[test]
fn refusals_name_the_field_before_any_work() {
    let mut cpu = Cpu::new(Level::best(), 1);
    let mut slice = |bytes| {
        let buffer = cpu.alloc(bytes).expect("there is memory");
        Slice { buffer, offset: 0, bytes }
    };
    let params = params::Matmul {
        x_row_stride: 64,
        out_row_stride: 32,
        rows_max: 4,
        x_dtype: params::DTYPE_F32,
        bias_dtype: 0,
        out_dtype: params::DTYPE_F32,
        weight: NIBBLES.weight(32, 64),
    };
    let good = Matmul {
        params,
        x: Read(slice(4 * 64 * 4)),
        weight: Read(slice(2 * 640)),
        bias: None,
        out: Write(slice(4 * 32 * 4)),
        rows: Some(Read(slice(4))),
    };
    let bias = slice(128);
    let mut refused = |change: &dyn Fn(&mut Matmul)| {
        let mut bad = good;
        change(&mut bad);
        let error = cpu.record(&[Command::from(bad)]).expect_err("a bad command is refused");
        assert_eq!(error.kernel, "matmul");
        error.field
    };
    assert_eq!(refused(&|bad| bad.params.weight.inputs = 65), "weight.inputs");
    assert_eq!(refused(&|bad| bad.params.weight.outputs = 0), "weight.outputs");
    assert_eq!(refused(&|bad| bad.params.weight.group = 16), "weight.group");
    assert_eq!(refused(&|bad| bad.params.weight.scheme = 0), "weight.scheme");
    assert_eq!(refused(&|bad| bad.params.weight.scale_dtype = 0), "weight.scale_dtype");
    assert_eq!(refused(&|bad| bad.params.weight.dtype = params::DTYPE_F32), "weight.scheme");
    assert_eq!(refused(&|bad| bad.params.x_dtype = params::DTYPE_I8), "x_dtype");
    assert_eq!(refused(&|bad| bad.params.out_dtype = 9), "out_dtype");
    assert_eq!(refused(&|bad| bad.params.bias_dtype = params::DTYPE_F32), "bias_dtype");
    assert_eq!(refused(&|bad| bad.bias = Some(Read(bias))), "bias_dtype");
    assert_eq!(refused(&|bad| bad.params.x_row_stride = 63), "x");
    assert_eq!(refused(&|bad| bad.params.out_row_stride = 31), "out");
    assert_eq!(refused(&|bad| bad.weight.0.bytes -= 1), "weight");
    assert_eq!(refused(&|bad| bad.out = Write(bad.x.0)), "out");
    let program = cpu.record(&[good.into()]).expect("a good command is recorded");
    let rows = (good.rows.expect("given above").0, &5u32.to_le_bytes()[..]);
    let launch = Launch { writes: &[rows], program, reads: &[] };
    assert_eq!(cpu.submit(launch).expect_err("five of four rows").field, "rows");
}
