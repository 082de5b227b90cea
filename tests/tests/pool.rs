//! What `pool` promises, over its cases.

use backends::cpu::{Cpu, Threads};
use kernels_core::device::{Backend, Command, Launch, Read, Slice, Write};
use kernels_core::params;
use kernels_core::pool::Pool;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::pool::{KINDS, PoolCase, Shape, cases, strategy};
use pagewise_tests::harness::{Case, assert_refused_or_answered, assert_same_bits, malformed};
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
        at in 0usize..6,
        start in prop_oneof![0u32..70, any::<u32>()],
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        if let Some(element) = case.starts.get_mut(at) {
            *element = start;
        }
        assert_refused_or_answered(&case);
    }
}

/// One sequence of a call, by itself.
fn alone(case: &PoolCase, seq: usize) -> PoolCase {
    let stride = case.params.x_row_stride as usize * 4;
    let mut alone = case.clone();
    alone.params.seqs_max = 1;
    alone.starts = case.starts[seq..seq + 2].to_vec();
    alone.out_bytes = stride;
    // Rows of its neighbours are no numbers.
    let own = alone.starts[0] as usize * stride..alone.starts[1] as usize * stride;
    for (at, bytes) in alone.x.as_mut_slice().chunks_exact_mut(4).enumerate() {
        if !own.contains(&(at * 4)) {
            bytes.copy_from_slice(&f32::NAN.to_le_bytes());
        }
    }
    alone
}

#[test]
fn a_sequence_has_the_same_bits_in_any_company() {
    let lens = [40, 3, 0, 17, 1, 90];
    for kind in KINDS {
        // An earlier kind left the host's environment flushing.
        let _normal = environment::Normal::enter();
        let shape = Shape { gap: 2, normalise: true, ..Shape::plain(&lens, 1500, kind) };
        let mut whole = shape.case();
        // Subnormals count, whatever the host does with them.
        for element in whole.x.as_mut_slice().chunks_exact_mut(64) {
            element[..4].copy_from_slice(&(f32::MIN_POSITIVE / 3.0).to_le_bytes());
        }
        let together = whole.run(Level::best(), &Threads::new(3)).expect("a good call runs");
        let inline = whole.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits("three threads", &inline, &together);
        for seq in 0..lens.len() {
            let alone = alone(&whole, seq);
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
            drop(normal);
            assert!(!environment::is_normal(), "the host's environment comes back");
            let _normal = environment::Normal::enter();
            let expected = &together[0].bytes.cast::<u32>()[seq * 1502..][..1500];
            assert_eq!(&outputs[0].bytes.cast::<u32>()[..1500], expected);
        }
    }
}

#[test]
fn a_sequence_without_rows_gives_zeros_and_beyond_the_live_ones_nothing_is_written() {
    for kind in KINDS {
        for normalise in [false, true] {
            let shape = Shape { seqs: Some(2), normalise, ..Shape::plain(&[0, 2, 3], 8, kind) };
            let outputs = shape.case().run(Level::best(), &Inline).expect("a good call runs");
            let out = outputs[0].bytes.cast::<u32>();
            assert_eq!(out[..8], [0; 8]);
            assert!(outputs[0].bytes.cast::<f32>()[8..16].iter().all(|x| x.is_finite()));
            assert_eq!(out[16..], [0xa5a5_a5a5; 8]);
        }
    }
}

#[test]
fn a_nan_takes_its_element_or_the_normalised_vector_and_no_other_sequence() {
    for (normalise, expected) in [(false, 1), (true, 8)] {
        let shape = Shape { normalise, ..Shape::plain(&[2, 3], 8, params::POOL_MEAN) };
        let mut case = shape.case();
        // The third element of the first sequence's first row.
        case.x.as_mut_slice()[(8 + 2) * 4..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
        let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
        let out = outputs[0].bytes.cast::<f32>();
        assert!(out[2].is_nan());
        assert_eq!(out[..8].iter().filter(|x| x.is_nan()).count(), expected);
        assert!(out[8..].iter().all(|x| x.is_finite()));
    }
}

#[test]
fn refusals_name_the_field_before_any_work() {
    let mut cpu = Cpu::new(Level::best(), 1);
    let mut slice = |bytes| {
        let buffer = cpu.alloc(bytes).expect("there is memory");
        Slice { buffer, offset: 0, bytes }
    };
    let params = params::Pool {
        x_row_stride: 16,
        out_row_stride: 16,
        rows_max: 4,
        seqs_max: 2,
        columns: 16,
        kind: params::POOL_MEAN,
        x_dtype: params::DTYPE_F32,
        normalise: 1,
    };
    let good = Pool {
        params,
        x: Read(slice(4 * 64)),
        starts: Read(slice(12)),
        out: Write(slice(2 * 64)),
        seqs: Some(Read(slice(4))),
    };
    let mut refused = |change: &dyn Fn(&mut Pool)| {
        let mut bad = good;
        change(&mut bad);
        let error = cpu.record(&[Command::from(bad)]).expect_err("a bad command is refused");
        assert_eq!(error.kernel, "pool");
        error.field
    };
    assert_eq!(refused(&|bad| bad.params.rows_max = 0), "rows_max");
    assert_eq!(refused(&|bad| bad.params.seqs_max = 0), "seqs_max");
    assert_eq!(refused(&|bad| bad.params.columns = 0), "columns");
    assert_eq!(refused(&|bad| bad.params.kind = 0), "kind");
    assert_eq!(refused(&|bad| bad.params.x_dtype = params::DTYPE_I8), "x_dtype");
    assert_eq!(refused(&|bad| bad.params.normalise = 2), "normalise");
    assert_eq!(refused(&|bad| bad.params.x_row_stride = 15), "x");
    assert_eq!(refused(&|bad| bad.params.out_row_stride = 17), "out");
    assert_eq!(refused(&|bad| bad.starts.0.bytes = 8), "starts");
    assert_eq!(refused(&|bad| bad.out = Write(bad.x.0)), "out");
    let program = cpu.record(&[good.into()]).expect("a good command is recorded");
    let seqs = good.seqs.expect("given above").0;
    let mut submit = |starts: [u32; 3], count: u32| {
        let (starts, count) = (starts.map(u32::to_le_bytes).concat(), count.to_le_bytes());
        let writes = [(good.starts.0, &starts[..]), (seqs, &count[..])];
        cpu.submit(Launch { writes: &writes, program, reads: &[] }).map(drop)
    };
    assert_eq!(submit([0, 1, 4], 3).expect_err("three of two sequences").field, "seqs");
    assert_eq!(submit([0, 1, 5], 2).expect_err("five of four rows").field, "starts");
    assert_eq!(submit([2, 1, 4], 2).expect_err("starts descend").field, "starts");
    submit([0, 1, 5], 1).expect("the last start is not in use");
}
