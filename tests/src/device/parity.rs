//! Every kernel over the very cases of the CPU's, through the plugin's C table and the backend
//! on top of it.

use super::Device;
use super::report::attempt;
use crate::harness::{Case, Output, Recorded, assert_keeps_to_spec, assert_same_bits};
use kernels_core::params;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;

/// What a kernel's answers are held to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// No float is summed in another order: the CPU's bits.
    Bits,
    /// The rule of errors.
    Rule,
}

/// A kernel's cases on a device.
#[derive(Clone, Copy)]
pub struct Kernel {
    /// Its stem.
    pub name: &'static str,
    /// Panics unless one in so many of the listed cases is answered as it must be; how many
    /// they were.
    pub cases: fn(&mut Device, usize) -> usize,
    /// Panics unless some of them have the same bits under every schedule.
    pub schedules: fn(&mut Device),
}

/// Calls a macro with every kernel's stem.
#[macro_export]
macro_rules! device_kernels {
    ($then:ident) => {
        $then! {
            activation: |_| Held::Bits;
            append_kv: |_| Held::Bits;
            attention: |_| Held::Rule;
            attention_fold: |_| Held::Bits;
            embed: |_| Held::Bits;
            gather: |_| Held::Bits;
            kv_copy: |_| Held::Bits;
            logit_mask: |_| Held::Bits;
            lora: |_| Held::Bits;
            matmul: |case| by_weight(&case.params.weight);
            norm: |_| Held::Bits;
            pool: |_| Held::Bits;
            rope: |_| Held::Bits;
            sample: |_| Held::Bits;
            spec_verify: |_| Held::Bits;
            token_logprob: |case| by_weight(&case.params.weight);
            varlen_mask: |_| Held::Bits;
        }
    };
}

macro_rules! list {
    ($($kernel:ident: $held:expr;)*) => {
        /// Every kernel that devices have.
        pub const KERNELS: &[Kernel] = &[$(Kernel {
            name: stringify!($kernel),
            cases: |device, every| {
                assert_cases(device, &crate::cases::$kernel::cases(), every, $held)
            },
            schedules: |device| assert_schedules(device, &crate::cases::$kernel::cases()),
        }),*];
    };
}

device_kernels!(list);

/// Products have the CPU's bits where weights come in groups or as f32: sums are exact, or in
/// the contract's order.
fn by_weight(weight: &params::Weight) -> Held {
    match weight.group != 0 || weight.dtype == params::DTYPE_F32 {
        true => Held::Bits,
        false => Held::Rule,
    }
}

/// The kernel of that stem.
pub fn kernel(name: &str) -> Kernel {
    let kernel = KERNELS.iter().find(|kernel| kernel.name == name);
    *kernel.unwrap_or_else(|| panic!("there is no kernel {name}"))
}

/// Cases that are told of a kernel that is wrong, at most.
const TOLD: usize = 5;

/// One in so many cases, each under a schedule of its own, by what `held` says of it.
fn assert_cases<C: Case>(
    device: &mut Device,
    cases: &[C],
    every: usize,
    held: impl Fn(&C) -> Held,
) -> usize {
    assert!(cases.len() > 5, "{}: {} cases", C::KERNEL, cases.len());
    let before = device.plugin.allocated_bytes();
    let (mut count, mut wrong) = (0, Vec::new());
    for (at, case) in cases.iter().enumerate().step_by(every) {
        (device.schedule)(at as u64);
        let cpu = case.run(Level::best(), &Inline).expect("a good call runs");
        let right = attempt(|| {
            let got = case.call(&mut Recorded(&mut device.plugin));
            let got = got.unwrap_or_else(|error| panic!("{}: {error}", case.name()));
            assert_right(case, held(case), &cpu, &got);
        });
        wrong.extend(right.err());
        count += 1;
    }
    let told = &wrong[..wrong.len().min(TOLD)];
    assert!(wrong.is_empty(), "{} of {count} cases: {}", wrong.len(), told.join("; "));
    assert_eq!(device.plugin.allocated_bytes(), before, "every buffer was released");
    count
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

/// Another schedule gives the same bits.
fn assert_schedules<C: Case>(device: &mut Device, cases: &[C]) {
    let few = cases.len().div_ceil(8);
    for case in cases.iter().step_by(few) {
        let mut outputs = (0..4).map(|number| {
            (device.schedule)(number);
            case.call(&mut Recorded(&mut device.plugin)).expect("a good call runs")
        });
        let first = outputs.next().expect("there are four");
        outputs.for_each(|other| assert_same_bits(&case.name(), &first, &other));
    }
}
