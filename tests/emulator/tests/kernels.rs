//! Every kernel of CUDA and of Metal, emulated, over the very cases of the CPU's: through the
//! plugin's C table, the backend on top of it, and several schedules of its threads.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::harness::{
    Case, Output, Recorded, assert_keeps_to_spec, assert_replays_on, assert_same_bits, malformed,
};
use proptest::prelude::*;

/// What a kernel's answers are held to.
#[derive(Clone, Copy)]
enum Held {
    /// No float is summed in another order: the CPU's bits.
    Bits,
    /// The rule of errors.
    Rule,
}

/// The C table of an emulated device.
type Table = fn() -> &'static plugin::pwp_table;

fn device(table: Table) -> Plugin {
    Plugin::of_table(table(), 0).expect("the emulator is there")
}

/// Whether the outputs are what the kernel is held to.
fn assert_right<C: Case>(case: &C, held: Held, cpu: &[Output], device: &[Output]) {
    match held {
        Held::Bits => assert_same_bits(&case.name(), cpu, device),
        Held::Rule if case.has_truth() => {
            assert_keeps_to_spec(case, device);
            case.assert_answer(device);
        }
        Held::Rule => case.assert_answer(device),
    }
}

/// Every listed case, each under a schedule of its own, by what `held` says of it.
fn assert_cases<C: Case>(table: Table, cases: &[C], held: impl Fn(&C) -> Held) {
    assert!(cases.len() > 5, "{}: {} cases", C::KERNEL, cases.len());
    let mut device = device(table);
    for (at, case) in cases.iter().enumerate() {
        seed(at as u64);
        let cpu = case.run(Level::best(), &Inline).expect("a good call runs");
        let got = case.call(&mut Recorded(&mut device));
        let got = got.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
        assert_right(case, held(case), &cpu, &got);
    }
    assert_eq!(device.allocated_bytes(), 0, "every buffer was released");
}

/// Another schedule gives the same bits.
fn assert_schedules<C: Case>(table: Table, cases: &[C]) {
    let mut device = device(table);
    let few = cases.len().div_ceil(8);
    for case in cases.iter().step_by(few) {
        let mut outputs = (0..4).map(|number| {
            seed(number);
            case.call(&mut Recorded(&mut device)).expect("a good call runs")
        });
        let first = outputs.next().expect("there are four");
        outputs.for_each(|other| assert_same_bits(&case.name(), &first, &other));
    }
}

/// The tests of a device's kernels over their cases.
macro_rules! kernels {
    ($device:ident: $($kernel:ident $held:ident $(($weight:ident))?;)*) => {
        mod $device {
            $(mod $kernel {
                use crate::{assert_cases, assert_schedules};
                use pagewise_tests::cases::$kernel::cases;

                #[test]
                fn is_right_over_the_cases_of_the_cpu() {
                    assert_cases(emulator::$device, &cases(), kernels!(@$held $($weight)?));
                }

                #[test]
                fn has_the_same_bits_under_every_schedule() {
                    assert_schedules(emulator::$device, &cases());
                }
            })*
        }
    };
    (@Bits) => { |_| crate::Held::Bits };
    (@Rule) => { |_| crate::Held::Rule };
    (@By weight) => { |case| crate::by_weight(&case.params.weight) };
}

/// Products have the CPU's bits where weights come in groups or as f32: sums are exact, or in
/// the contract's order.
fn by_weight(weight: &params::Weight) -> Held {
    match weight.group != 0 || weight.dtype == params::DTYPE_F32 {
        true => Held::Bits,
        false => Held::Rule,
    }
}

kernels! { cuda:
    activation Bits;
    append_kv Bits;
    attention Rule;
    attention_fold Bits;
    embed Bits;
    gather Bits;
    kv_copy Bits;
    logit_mask Bits;
    lora Bits;
    matmul By(weight);
    norm Bits;
    pool Bits;
    rope Bits;
    sample Bits;
    spec_verify Bits;
    token_logprob By(weight);
    varlen_mask Bits;
}

kernels! { metal:
    activation Bits;
    append_kv Bits;
    attention Rule;
    attention_fold Bits;
    embed Bits;
    gather Bits;
    kv_copy Bits;
    logit_mask Bits;
    lora Bits;
    matmul By(weight);
    norm Bits;
    pool Bits;
    rope Bits;
    sample Bits;
    spec_verify Bits;
    token_logprob By(weight);
    varlen_mask Bits;
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_norms_are_refused_or_answered_as_on_the_cpu(
        shape in pagewise_tests::cases::norm::strategy(),
        field in 0usize..14,
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), any::<u32>()],
        cut in 0usize..64,
    ) {
        let mut case = shape.case();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        case.out_bytes = case.out_bytes.saturating_sub(cut);
        for table in [emulator::cuda as Table, emulator::metal] {
            assert_replays_on(&case, &mut device(table), |what, cpu, device| {
                assert_same_bits(what, cpu, device);
            });
        }
    }
}
