//! Any small shape, with a number of its parameters or of its step changed: a device refuses
//! it by the field that the CPU names, or answers with the CPU's bits.

use super::Device;
use crate::harness::{Case, assert_replays_on, assert_same_bits};
use bytemuck::NoUninit;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use std::cell::RefCell;

/// What a kernel makes of malformed calls.
#[derive(Clone, Copy)]
pub struct Property {
    /// Its stem.
    pub kernel: &'static str,
    /// Panics unless every call that is drawn is refused or answered as on the CPU.
    pub assert: fn(&mut Device, ProptestConfig),
}

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

    /// What a kernel that takes nothing of a step lacks of its last buffer.
    fn cut(self) -> usize {
        self.step.map_or(0, |cut| cut % 64)
    }

    /// Settings that are floats, too, unless they would become subnormal: some hardware takes
    /// those for zeros.
    fn settings<P: bytemuck::AnyBitPattern + NoUninit>(self, settings: &mut [P]) -> &mut [u32] {
        match f32::from_bits(self.word).is_subnormal() {
            true => &mut [],
            false => bytemuck::cast_slice_mut(settings),
        }
    }

    fn step(self, words: &mut [u32]) {
        if let (Some(step), false) = (self.step, words.is_empty()) {
            words[step % words.len()] = self.word;
        }
    }
}

/// Draws calls and compares.
fn assert_as_on_the_cpu<S: Strategy, C: Case>(
    device: &mut Device,
    config: ProptestConfig,
    shapes: S,
    spoilt: impl Fn(S::Value, Change) -> C,
) {
    let device = RefCell::new(device);
    let ran = TestRunner::new(config).run(&(shapes, changes()), |(shape, change)| {
        let case = spoilt(shape, change);
        assert_replays_on(&case, &mut device.borrow_mut().plugin, assert_same_bits);
        Ok(())
    });
    ran.unwrap_or_else(|error| panic!("{}: {error}", C::KERNEL));
}

/// Calls a macro with every kernel that has this property.
#[macro_export]
macro_rules! device_properties {
    ($then:ident) => {
        $then! {
            activation(case, change): case.rows.as_mut_slice();
            append_kv(case, change): match &mut case.slot_starts {
                Some(starts) if change.word % 2 == 0 => starts,
                _ => case.slots.as_flattened_mut(),
            };
            attention_fold(case, change): {
                case.out_bytes = case.out_bytes.saturating_sub(change.cut());
                &mut []
            };
            embed(case, change): &mut case.tokens;
            gather(case, change): &mut case.indices;
            kv_copy(case, change): case.entries.as_flattened_mut();
            logit_mask(case, change): match &mut case.counted {
                Some((tokens, _)) if change.word % 2 == 0 => tokens,
                _ => change.settings(&mut case.settings),
            };
            lora(case, change): match change.word % 2 {
                0 => &mut case.adapters,
                _ => &mut case.ranks,
            };
            norm(case, change): {
                case.out_bytes = case.out_bytes.saturating_sub(change.cut());
                &mut []
            };
            pool(case, change): &mut case.starts;
            rope(case, change): &mut case.positions;
            sample(case, change): match &mut case.masks {
                Some((_, chosen)) if change.word % 2 == 0 => chosen,
                _ => change.settings(&mut case.settings),
            };
        }
    };
}

macro_rules! list {
    ($($kernel:ident($case:ident, $change:ident): $step:expr;)*) => {
        /// Every one.
        pub const PROPERTIES: &[Property] = &[$(Property {
            kernel: stringify!($kernel),
            assert: |device, config| {
                let shapes = crate::cases::$kernel::strategy();
                assert_as_on_the_cpu(device, config, shapes, |shape, $change| {
                    let mut $case = shape.case();
                    $change.params(&mut $case.params);
                    $change.step($step);
                    $case
                });
            },
        }),*];
    };
}

device_properties!(list);

/// The property of that kernel.
pub fn property(kernel: &str) -> Property {
    let property = PROPERTIES.iter().find(|property| property.kernel == kernel);
    *property.unwrap_or_else(|| panic!("{kernel} has no such property"))
}
