//! Whether a call of `sample` gave the specification's answers: a token, the set it
//! comes from and its numbers belong together, so they are compared together.

use super::sample::SampleCase;
use crate::harness::{Case, Output};
use kernels_core::params::NONE;

/// Each row's answer is the specification's.
pub(super) fn assert_answers(case: &SampleCase, outputs: &[Output]) {
    for row in 0..case.live() {
        assert_row(case, row, outputs);
    }
}

fn assert_row(case: &SampleCase, row: usize, outputs: &[Output]) {
    let name = format!("{} row {row}", case.name());
    let (truth, plain) = (case.answer::<f64>(row), case.answer::<f32>(row));
    let word = |output: usize, at: usize| outputs[output].bytes.cast::<u32>()[at];
    let float = |output: usize, at: usize| outputs[output].bytes.cast::<f32>()[at];
    assert_eq!(word(1, row), truth.status, "{name}: status");
    let kept_words = case.params.kept_words as usize;
    let vocab = case.params.vocab;
    let kept =
        |token: u32| word(6, row * kept_words + token as usize / 32) >> (token % 32) & 1 != 0;
    let mut expected = truth.kept.clone();
    expected.sort_unstable();
    if kept_words > 0 {
        let got: Vec<u32> = (0..vocab).filter(|&token| kept(token)).collect();
        assert_eq!(got, expected, "{name}: kept");
    }
    assert_eq!(word(7, row) as usize, expected.len(), "{name}: kept_count");
    let token = word(0, row);
    // What two roundings of a score can turn round is either's.
    let (own, raw) = case.row(row);
    let temperature = case.settings[row].temperature;
    let factor = if temperature == 0.0 { 0.0 } else { (1.0 / temperature).min(f32::MAX) };
    let magnitude = |token: u32| (own[token as usize] * factor).abs().min(1e9);
    let near = token != NONE && truth.margin < f64::from(1.0 + magnitude(token)) * 1e-6;
    if token != truth.token {
        assert!(
            near && kept(token),
            "{name}: token {token}, not {}: {}",
            truth.token,
            truth.margin
        );
        return;
    }
    if token == NONE {
        assert!(float(2, row).is_nan() && float(3, row).is_nan(), "{name}: no token, no numbers");
    } else {
        let most = |logits: &[f32]| logits.iter().fold(f32::MIN, |most, x| most.max(*x));
        let scale = |logits: &[f32]| f64::from((most(logits) - logits[token as usize]).abs() + 1.0);
        let tempered = f64::from((most(&own) - own[token as usize]) * factor).abs() + 1.0;
        assert_close(&format!("{name}: raw"), float(2, row), truth.raw, plain.raw, scale(&raw));
        let got = float(3, row);
        assert_close(
            &format!("{name}: processed"),
            got,
            truth.processed,
            plain.processed,
            tempered,
        );
    }
    let top_n = case.params.top_n as usize;
    for i in 0..top_n {
        let (token, logprob) = (word(4, row * top_n + i), float(5, row * top_n + i));
        match truth.top.get(i) {
            None => assert!(token == NONE && logprob.is_nan(), "{name}: top {i}"),
            Some((expected, truth)) => {
                assert_eq!(token, *expected, "{name}: top {i}");
                let what = format!("{name}: top {i}");
                let plain = plain.top[i].1;
                assert_close(&what, logprob, *truth, plain, truth.abs() + 1.0);
            }
        }
    }
}

/// The error rule; a log-probability near 0 is the difference of numbers near 1.
fn assert_close(what: &str, got: f32, truth: f64, plain: f32, scale: f64) {
    let got = f64::from(got);
    let bound = 2.0 * (f64::from(plain) - truth).abs() + 4.0 * 2f64.powi(-23) * scale;
    let infinite = truth.abs() > 3e38 && got == f64::NEG_INFINITY;
    let close = got == truth || infinite || (got - truth).abs() <= bound;
    assert!(close, "{what}: {got}, expected {truth}, allowed {bound:e}");
}
