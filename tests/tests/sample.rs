//! What `sample` promises, over its cases.

use backends::cpu::Threads;

use kernels_core::params::{NONE, STATUS_MASKED, STATUS_NOT_FINITE, STATUS_OK, SampleRow};

use kernels_core::simd::{Level, environment};
use kernels_core::vocabulary::noise::Source;
use kernels_core::workers::Inline;
use pagewise_tests::cases::sample::{PLAIN, SampleCase, Shape, Spread, cases, strategy};
use pagewise_tests::harness::{Case, assert_refused_or_answered, assert_same_bits, malformed};
use pagewise_tests::standard_tests;
use proptest::prelude::*;

standard_tests!(cases(), strategy());

proptest! {
    #[test]
    fn any_bytes_are_refused_or_answered(bytes in proptest::collection::vec(any::<u8>(), 0..90)) {
        pagewise_tests::fuzz::sample::run(&bytes);
    }
}

proptest! {
    #![proptest_config(malformed())]

    #[test]
    fn malformed_calls_are_refused_or_answered(
        shape in strategy(),
        field in 0usize..16,
        value in prop_oneof![
            Just(0u32), Just(1), Just(7), Just(u32::MAX), Just(f32::NAN.to_bits()), any::<u32>()
        ],
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

#[test]
fn a_row_has_the_same_bits_in_any_company() {
    let asked = SampleRow { temperature: 0.9, top_k: 900, top_p: 0.97, ..PLAIN };
    for asked in [PLAIN, asked, SampleRow { top_k: 0, ..asked }] {
        let shape = Shape { asked, gap: 5, raw: true, ..Shape::plain(6, 60_000) };
        let whole = shape.case();
        let threads = Threads::new(3);
        let together = whole.run(Level::best(), &threads).expect("a good call runs");
        let inline = whole.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits("three threads", &inline, &together);
        for row in 0..6 {
            // Alone, with its blocks split between the threads, under a host's FTZ.
            let mut alone = Shape { rows: 1, ..shape }.case();
            let bytes = row * 60_005 * 4..(row * 60_005 + 60_000) * 4;
            let to = &mut alone.logits.as_mut_slice()[..240_000];
            to.copy_from_slice(&whole.logits.as_slice()[bytes.clone()]);
            let raw = whole.raw_logits.as_ref().expect("the shape has them");
            let to = alone.raw_logits.as_mut().expect("the shape has them");
            to.as_mut_slice()[..240_000].copy_from_slice(&raw.as_slice()[bytes]);
            alone.settings = vec![whole.settings[row]];
            environment::flush_subnormals();
            let normal = environment::Normal::enter();
            let outputs = alone.run(Level::best(), &threads).expect("a good call runs");
            drop(normal);
            assert!(!environment::is_normal(), "the host's environment comes back");
            let _normal = environment::Normal::enter();
            for (alone, together) in outputs.iter().zip(&together) {
                let own = alone.bytes.as_slice();
                let whole = &together.bytes.as_slice()[row * own.len()..][..own.len()];
                assert_eq!(own, whole, "{} of row {row}", alone.name);
            }
        }
    }
}

#[test]
fn rows_without_a_token_are_reported() {
    for case in cases().iter().filter(|case| case.params.rows_max == 3) {
        let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
        let status = outputs[1].bytes.cast::<u32>();
        let masked = case.name.contains("masked") || case.name.contains("two of three");
        let expected = if masked { STATUS_MASKED } else { STATUS_NOT_FINITE };
        assert_eq!(&status[..2], [STATUS_OK, expected], "{}", case.name);
        assert_eq!(outputs[0].bytes.cast::<u32>()[1], NONE);
        if case.rows.is_some() {
            assert_eq!(status[2], 0xa5a5_a5a5, "a row past those in use is not written");
        }
    }
}

#[test]
fn without_filters_the_processed_logprob_is_the_raw_one() {
    let case = Shape { asked: PLAIN, ..Shape::plain(4, 9000) }.case();
    let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
    assert_eq!(outputs[2].bytes.as_slice(), outputs[3].bytes.as_slice());
}

#[test]
fn noise_depends_on_seed_position_fork_token_and_purpose() {
    let source = Source { seed: 1 << 40 | 5, position: 9, fork: 0, purpose: 1 };
    let words = |source: Source| (0..300).map(|token| source.word(token)).collect::<Vec<_>>();
    let base = words(source);
    assert_eq!(base, words(source));
    let mut sorted = base.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(sorted.len(), 300, "tokens have words of their own");
    for other in [
        Source { seed: 5, ..source },
        Source { seed: 1 << 40, ..source },
        Source { position: 10, ..source },
        Source { fork: 1, ..source },
        Source { purpose: 2, ..source },
    ] {
        assert!(words(other).iter().zip(&base).all(|(a, b)| a != b), "{other:?}");
    }
}

/// Tokens drawn in 200 000 calls' worth of rows, as counts.
fn frequencies(logits: &[f32], asked: SampleRow, by_fork: bool) -> Vec<u64> {
    const ROWS: u32 = 4000;
    let vocab = logits.len() as u32;
    let mut case = Shape { top_n: 0, ..Shape::plain(ROWS, vocab) }.case();
    let rows: Vec<f32> = (0..ROWS).flat_map(|_| logits.to_vec()).collect();
    case.logits = pagewise_tests::harness::Bytes::of(&rows);
    let mut counts = vec![0; logits.len()];
    for round in 0..50 {
        for (row, settings) in case.settings.iter_mut().enumerate() {
            let drawn = round * ROWS + row as u32;
            let (position, fork) = if by_fork { (17, drawn) } else { (drawn, 3) };
            *settings = SampleRow { seed: 42, position, fork, ..asked };
        }
        let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
        for token in outputs[0].bytes.cast::<u32>() {
            counts[*token as usize] += 1;
        }
    }
    counts
}

#[test]
fn tokens_come_as_often_as_they_are_likely() {
    let p: Vec<f64> = (0..40).map(|i| (-0.15 * f64::from(i)).exp()).collect();
    let logits: Vec<f32> = p.iter().map(|p| p.ln() as f32 - 3.0).collect();
    for (by_fork, top_k) in [(false, 0), (true, 0), (true, 12)] {
        let counts = frequencies(&logits, SampleRow { top_k, ..PLAIN }, by_fork);
        let kept = if top_k == 0 { 40 } else { top_k as usize };
        let total: f64 = p[..kept].iter().sum();
        assert_eq!(counts[kept..].iter().sum::<u64>(), 0);
        let drawn = counts.iter().sum::<u64>() as f64;
        let chi: f64 = counts[..kept]
            .iter()
            .zip(&p)
            .map(|(&count, p)| (count as f64 - drawn * p / total).powi(2) / (drawn * p / total))
            .sum();
        // Mean kept − 1, variance twice that: five deviations.
        let freedom = kept as f64 - 1.0;
        assert!(chi < freedom + 5.0 * (2.0 * freedom).sqrt(), "{chi} of {freedom}");
    }
}

#[test]
fn step_buffers_are_refused_before_any_work() {
    let refused = |change: fn(&mut SampleCase)| {
        let mut case = Shape::plain(2, 50).case();
        change(&mut case);
        let error = case.run(Level::best(), &Inline).expect_err("a bad step is refused");
        assert_eq!(error.kernel, "sample");
        error.field
    };
    assert_eq!(refused(|case| case.settings[1].temperature = -1.0), "settings.temperature");
    assert_eq!(refused(|case| case.settings[1].temperature = f32::NAN), "settings.temperature");
    assert_eq!(refused(|case| case.settings[0].top_p = 1.5), "settings.top_p");
    assert_eq!(refused(|case| case.settings[0].min_p = -0.1), "settings.min_p");
    assert_eq!(refused(|case| case.rows = Some(3)), "rows");
    assert_eq!(refused(|case| case.params.top_n = 129), "top_n");
    assert_eq!(refused(|case| case.params.kept_words = 1), "kept_words");
    assert_eq!(refused(|case| case.params.row_stride = 49), "logits");
    let masked = |change: fn(&mut SampleCase)| {
        let mut case = Shape { masks: 2, ..Shape::plain(2, 50) }.case();
        change(&mut case);
        case.run(Level::best(), &Inline).expect_err("a bad step is refused").field
    };
    let chosen = |case: &mut SampleCase| case.masks.as_mut().expect("it has some").1[3] = 2;
    assert_eq!(masked(chosen), "row_masks");
    assert_eq!(masked(|case| case.params.mask_words = 1), "mask_words");
    assert_eq!(masked(|case| case.params.masks = 3), "masks");
    assert_eq!(masked(|case| case.masks = None), "masks");
}

#[test]
fn masks_leave_what_logits_that_were_masked_before_do() {
    let masked = || cases().into_iter().filter(|case| case.masks.is_some());
    assert!(masked().count() > 50);
    for case in masked() {
        let run = |case: &SampleCase| case.run(Level::best(), &Inline).expect("a good call runs");
        assert_same_bits(&case.name, &run(&case.without_masks()), &run(&case));
    }
}

#[test]
fn equal_rows_are_split_between_equal_tokens() {
    let case = Shape { spread: Spread::Equal(2.0), top_n: 4, ..Shape::plain(1, 5000) }.case();
    let outputs = case.run(Level::best(), &Inline).expect("a good call runs");
    assert_eq!(outputs[4].bytes.cast::<u32>(), [0, 1, 2, 3], "the lowest of equals first");
    let logprob = outputs[2].bytes.cast::<f32>()[0];
    assert!((logprob + 5000f32.ln()).abs() < 1e-5);
}
