//! What `norm` promises, over its cases.

use backends::cpu::{Cpu, Threads};
use kernels_core::device::{Backend, Command, Launch, Read, Slice, Write};
use kernels_core::norm::Norm;
use kernels_core::params;
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::norm::{Shape, cases, strategy};
use pagewise_tests::harness::{Case, Noise, assert_refused_or_answered, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

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
fn a_row_has_the_same_bits_in_any_company() {
    let threads = Threads::new(3);
    let shape = Shape { residual: true, gap: 2, ..Shape::plain(40, 1, 1500) };
    let whole = shape.case();
    let together = whole.run(Level::best(), &threads).expect("a good call runs");
    let stride = whole.params.x_row_stride as usize * 4;
    let mut noise = Noise::new(7);
    for _ in 0..8 {
        let row = noise.below(40) as usize;
        let range = row * stride..(row + 1) * stride;
        let mut alone = Shape { rows: (1, None), ..shape }.case();
        alone.weight = whole.weight.clone();
        alone.x.as_mut_slice().copy_from_slice(&whole.x.as_slice()[range.clone()]);
        let residual = whole.residual.as_ref().expect("the shape has a residual");
        let own = alone.residual.as_mut().expect("the shape has a residual");
        own.as_mut_slice().copy_from_slice(&residual.as_slice()[range.clone()]);
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let outputs = alone.run(Level::best(), &Inline).expect("a good call runs");
        drop(normal);
        assert!(!environment::is_normal(), "the host's environment comes back");
        let _normal = environment::Normal::enter();
        for (alone, together) in outputs.iter().zip(&together) {
            assert_eq!(alone.bytes.as_slice(), &together.bytes.as_slice()[range.clone()]);
        }
    }
}

/// A recorded call on a backend: the command, and its slices' buffers.
fn recorded(cpu: &mut Cpu) -> Norm {
    let params = params::Norm {
        x_row_stride: 8,
        out_row_stride: 8,
        rows_max: 4,
        heads: 1,
        columns: 8,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_F32,
        out_dtype: params::DTYPE_F32,
        epsilon: 1e-5,
        ..Default::default()
    };
    let mut slice = |bytes| {
        let buffer = cpu.alloc(bytes).expect("there is memory");
        Slice { buffer, offset: 0, bytes }
    };
    Norm {
        params,
        x: Read(slice(128)),
        weight: Read(slice(32)),
        residual: None,
        out: Write(slice(128)),
        rows: Some(Read(slice(4))),
    }
}

#[test]
fn a_program_serves_every_count_below_its_capacity() {
    let mut cpu = Cpu::new(Level::best(), 2);
    let norm = recorded(&mut cpu);
    let program = cpu.record(&[norm.into()]).expect("a good command is recorded");
    let ones: Vec<u8> = [1f32; 32].iter().flat_map(|v| v.to_le_bytes()).collect();
    for rows in [4u32, 0, 2] {
        let clear = [0u8; 128];
        let rows_slice = norm.rows.expect("given above").0;
        let writes = [
            (norm.x.0, &ones[..]),
            (norm.weight.0, &ones[..32]),
            (norm.out.0, &clear[..]),
            (rows_slice, &rows.to_le_bytes()[..]),
        ];
        let launch = Launch { writes: &writes, program, reads: &[norm.out.0] };
        let ticket = cpu.submit(launch).expect("a good launch runs");
        let mut out = [0u8; 128];
        cpu.collect(ticket, &mut out).expect("the ticket is new");
        let written = out.chunks(4).filter(|v| **v != [0; 4]).count();
        assert_eq!(written, rows as usize * 8);
        assert!(cpu.collect(ticket, &mut out).is_err(), "a ticket is collected once");
    }
}

#[test]
fn refusals_name_the_field_before_any_work() {
    let mut cpu = Cpu::new(Level::best(), 1);
    let good = recorded(&mut cpu);
    let refused = |cpu: &mut Cpu, norm: Norm| {
        let error = cpu.record(&[Command::from(norm)]).expect_err("a bad command is refused");
        assert_eq!(error.kernel, "norm");
        error.field
    };
    let mut bad = good;
    bad.params.columns = 0;
    assert_eq!(refused(&mut cpu, bad), "columns");
    bad = good;
    bad.params.epsilon = f32::NAN;
    assert_eq!(refused(&mut cpu, bad), "epsilon");
    bad = good;
    bad.params.x_dtype = 77;
    assert_eq!(refused(&mut cpu, bad), "x_dtype");
    bad = good;
    bad.params.x_row_stride = u64::MAX;
    assert_eq!(refused(&mut cpu, bad), "x");
    bad = good;
    bad.out = Write(good.x.0);
    assert_eq!(refused(&mut cpu, bad), "out");
    bad = good;
    bad.weight.0.bytes = 8;
    assert_eq!(refused(&mut cpu, bad), "weight");
    bad = good;
    bad.x.0.buffer.generation += 1;
    assert_eq!(refused(&mut cpu, bad), "x");
    // A count that comes with the step is refused when it comes.
    let program = cpu.record(&[good.into()]).expect("a good command is recorded");
    let rows = (good.rows.expect("given above").0, &5u32.to_le_bytes()[..]);
    let launch = Launch { writes: &[rows], program, reads: &[] };
    assert_eq!(cpu.submit(launch).expect_err("five of four rows").field, "rows");
}
