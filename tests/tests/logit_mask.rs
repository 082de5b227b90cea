//! What `logit_mask` promises, over its cases.

use backends::cpu::Threads;
use kernels_core::params::{self, NONE};
use kernels_core::simd::{Level, environment};
use kernels_core::workers::Inline;
use pagewise_tests::cases::logit_mask::{LogitMaskCase, Shape, cases, strategy};
use pagewise_tests::harness::{
    Bytes, Case, assert_refused_or_answered, assert_same_bits, malformed,
};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

#[test]
fn what_is_not_allowed_is_minus_infinity_and_the_rest_is_untouched() {
    let case = Shape { gap: 5, ..Shape::plain(3, 1000) }.case();
    let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
    let (before, after) = (case.logits.cast::<u32>(), outputs[0].bytes.cast::<u32>());
    let masks = case.masks.as_ref().expect("the shape has masks");
    for (at, (before, after)) in before.iter().zip(after).enumerate() {
        let (row, token) = (at / 1005, at % 1005);
        let mask = &masks[row * case.params.mask_words as usize..];
        let allowed = token >= 1000 || mask[token / 32] >> (token % 32) & 1 != 0;
        let expected = if allowed { *before } else { f32::NEG_INFINITY.to_bits() };
        assert_eq!(*after, expected, "row {row} token {token}");
    }
}

#[test]
fn drafts_of_one_slot_see_what_the_rows_before_them_counted() {
    let case = cases().pop().expect("the list is not empty");
    assert_eq!(case.name(), "drafts of one slot");
    let slot = 2 * case.params.counts_stride as usize;
    let mut before = case.counts.clone().expect("the case has counts");
    let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
    for token in [7, 11] {
        let count = &mut before[slot + token];
        *count += u16::from(*count & 0x7fff < 0x7fff);
    }
    let after = outputs[1].bytes.cast::<u16>();
    assert_eq!(after[slot + 7], before[slot + 7]);
    assert_eq!(after[slot + 9], before[slot + 9]);
    assert_eq!(after[slot + 11], before[slot + 11]);
}

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let shape = Shape::everything(6, 40_000);
    let whole = shape.case();
    let threads = Threads::new(3);
    let together = whole.run(Level::best(), &threads).expect("a good call runs");
    let inline = whole.run(Level::best(), &Inline).expect("a good call runs");
    assert_same_bits("three threads", &inline, &together);
    let stride = whole.params.row_stride as usize * 4;
    for row in 0..6 {
        let mut alone = whole.clone();
        // The others ask for nothing, and hold other numbers.
        for other in (0..6).filter(|other| *other != row) {
            let none = params::LogitMaskRow { repetition: 1.0, ..Default::default() };
            let none = params::LogitMaskRow { mask: NONE, action: NONE, slot: NONE, ..none };
            alone.settings[other] = none;
            alone.logits.as_mut_slice()[other * stride..(other + 1) * stride].fill(0x7f);
        }
        let (starts, _) = alone.counted.as_mut().expect("the shape counts");
        let own = starts[row]..starts[row + 1];
        for (at, start) in starts.iter_mut().enumerate() {
            *start = if at <= row { own.start } else { own.end };
        }
        environment::flush_subnormals();
        let normal = environment::Normal::enter();
        let outputs = alone.run(Level::best(), &threads).expect("a good call runs");
        drop(normal);
        assert!(!environment::is_normal(), "the host's environment comes back");
        let _normal = environment::Normal::enter();
        let range = row * stride..(row + 1) * stride;
        let bytes = |bytes: &Bytes| bytes.as_slice()[range.clone()].to_vec();
        assert_eq!(bytes(&outputs[0].bytes), bytes(&together[0].bytes));
    }
}

#[test]
fn step_buffers_are_refused_before_any_work() {
    let refused = |change: &dyn Fn(&mut LogitMaskCase)| {
        let mut case = Shape::everything(2, 50).case();
        change(&mut case);
        let error = case.run(Level::best(), &Inline).expect_err("a bad step is refused");
        assert_eq!(error.kernel, "logit_mask");
        error.field
    };
    let setting = |change: fn(&mut params::LogitMaskRow)| {
        refused(&|case: &mut LogitMaskCase| change(&mut case.settings[1]))
    };
    assert_eq!(setting(|row| row.mask = 4), "settings.mask");
    assert_eq!(setting(|row| row.action = 1 << 31), "settings.action");
    assert_eq!(setting(|row| row.slot = 3), "settings.slot");
    assert_eq!(setting(|row| row.slot = NONE), "settings.slot");
    assert_eq!(setting(|row| row.temperature = f32::NAN), "settings.temperature");
    assert_eq!(setting(|row| row.temperature = -0.5), "settings.temperature");
    assert_eq!(setting(|row| row.repetition = 0.0), "settings.repetition");
    assert_eq!(setting(|row| row.presence = f32::INFINITY), "settings.presence");
    assert_eq!(refused(&|case| case.rows = Some(3)), "rows");
    assert_eq!(refused(&|case| case.banned.as_mut().expect("there").1[4] = 50), "banned");
    assert_eq!(refused(&|case| case.banned.as_mut().expect("there").0[2] = 2), "banned_starts");
    assert_eq!(refused(&|case| case.bias.as_mut().expect("there").2[0] = f32::NAN), "bias_values");
    assert_eq!(refused(&|case| case.bias.as_mut().expect("there").0[2] = 11), "bias_starts");
    assert_eq!(refused(&|case| case.counted.as_mut().expect("there").1[0] = 50), "counted");
    assert_eq!(refused(&|case| case.counts = None), "slots");
    assert_eq!(refused(&|case| case.masks = None), "masks");
    assert_eq!(refused(&|case| case.params.mask_words = 1), "mask_words");
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..19,
        value in prop_oneof![Just(0u32), Just(1), Just(7), Just(u32::MAX), any::<u32>()],
    ) {
        let mut case = shape.case();
        let words = bytemuck::cast_slice_mut::<_, u32>(bytemuck::bytes_of_mut(&mut case.params));
        match words.get_mut(field) {
            Some(word) => *word = value,
            None => bytemuck::cast_slice_mut::<_, u32>(&mut case.settings)[field - words.len()] = value,
        }
        assert_refused_or_answered(&case);
    }
}
