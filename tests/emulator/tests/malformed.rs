//! Any small shape, with a number of its parameters or of its step changed: a device refuses
//! it by the field that the CPU names, or answers with the CPU's bits.
#![cfg(emulated)]

use backends::plugin::Plugin;
use bytemuck::NoUninit;
use pagewise_tests::harness::{Case, assert_replays_on, assert_same_bits, malformed};
use proptest::prelude::*;

/// What is changed.
#[derive(Clone, Copy, Debug)]
struct Change {
    /// Which word of the parameters, counted around; none where it is past all.
    field: Option<usize>,
    value: u32,
    /// Which word of the step, counted around.
    step: Option<usize>,
    word: u32,
}

fn changes() -> impl Strategy<Value = Change> {
    let value = prop_oneof![Just(0u32), Just(1), Just(2), Just(7), Just(u32::MAX), any::<u32>()];
    let word = prop_oneof![0u32..20, any::<u32>()];
    let place = || prop::option::of(0usize..64);
    (place(), value, place(), word).prop_map(|(field, value, step, word)| Change {
        field,
        value,
        step,
        word,
    })
}

impl Change {
    fn params<P: bytemuck::AnyBitPattern + NoUninit>(self, params: &mut P) {
        if let Some(field) = self.field {
            let words: &mut [u32] = bytemuck::cast_slice_mut(bytemuck::bytes_of_mut(params));
            words[field % words.len()] = self.value;
        }
    }

    fn step(self, words: &mut [u32]) {
        if let (Some(step), false) = (self.step, words.is_empty()) {
            words[step % words.len()] = self.word;
        }
    }
}

fn assert_as_on_the_cpu<C: Case>(case: &C) {
    let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
    assert_replays_on(case, &mut device, assert_same_bits);
}

/// A property of each kernel: its shapes, and the numbers of its step.
macro_rules! properties {
    ($($kernel:ident($case:ident, $change:ident) $step:expr;)*) => {$(
        mod $kernel {
            use super::*;
            use pagewise_tests::cases::$kernel::strategy;

            proptest! {
                #![proptest_config(malformed())]

                #[test]
                fn is_refused_or_answered_as_on_the_cpu(shape in strategy(), $change in changes()) {
                    let mut $case = shape.case();
                    $change.params(&mut $case.params);
                    $change.step($step);
                    assert_as_on_the_cpu(&$case);
                }
            }
        }
    )*};
}

properties! {
    activation(case, change) case.rows.as_mut_slice();
    append_kv(case, change) match &mut case.slot_starts {
        Some(starts) if change.word % 2 == 0 => starts,
        _ => case.slots.as_flattened_mut(),
    };
    embed(case, change) &mut case.tokens;
    gather(case, change) &mut case.indices;
    kv_copy(case, change) case.entries.as_flattened_mut();
    pool(case, change) &mut case.starts;
    rope(case, change) &mut case.positions;
}
