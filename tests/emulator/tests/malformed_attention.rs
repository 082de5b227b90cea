//! `attention` with a number of its parameters or of its step changed: a device refuses it by
//! the field that the CPU names, or answers within the rule of errors.
#![cfg(emulated)]

use backends::plugin::Plugin;
use pagewise_tests::cases::attention::{AttentionCase, strategy};
use pagewise_tests::harness::{Case, assert_keeps_to_spec, assert_replays_on};
use proptest::prelude::*;

fn assert_as_on_the_cpu(case: &AttentionCase) {
    for table in [emulator::cuda(), emulator::metal()] {
        let mut device = Plugin::of_table(table, 0).expect("the emulator is there");
        assert_replays_on(case, &mut device, |_, _, outputs| {
            if case.has_truth() {
                assert_keeps_to_spec(case, outputs);
            }
            case.assert_answer(outputs);
        });
    }
}

proptest! {
    #[test]
    fn it_is_refused_or_answered_as_on_the_cpu(
        shape in strategy(),
        field in 0usize..38,
        list in 0usize..7,
        at in any::<prop::sample::Index>(),
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), 0u32..400, any::<u32>()],
    ) {
        let good = shape.case();
        let mut case = good.clone();
        bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params))[field] = value;
        assert_as_on_the_cpu(&case);
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
            assert_as_on_the_cpu(&case);
        }
    }
}
