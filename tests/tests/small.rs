//! One small call of each kernel: at most 64 elements a row, so that Miri, which has
//! the scalar level alone, gets through all of them. What the answers are is each
//! kernel's own test; here every access is watched.

use kernels_core::dtype::Dtype;
use kernels_core::params::VERIFY_REJECTION;
use kernels_core::simd::Level;
use kernels_core::workers::{Inline, Reversed, Workers};
use pagewise_tests::cases::kv_pages::{FORMS, Pages};
use pagewise_tests::cases::matmul::Format;
use pagewise_tests::cases::{
    activation, append_kv, attention, attention_fold, embed, gather, kv_copy, logit_mask, lora,
    matmul, norm, pool, rope, sample, spec_verify, token_logprob, varlen_mask,
};
use pagewise_tests::harness::{Case, assert_case, assert_replays, assert_same_bits};

/// The call runs, and does so alike with several tiles, the last of them first.
fn assert_runs<C: Case>(case: &C) {
    let run = |workers: &dyn Workers| case.run(Level::best(), workers).expect("a small call runs");
    assert_same_bits(&case.name(), &run(&Inline), &run(&Reversed(3)));
}

/// The same, and the answer is right.
fn assert_answers<C: Case>(case: &C) {
    assert_runs(case);
    assert_case(case);
}

#[test]
fn a_backend_records_and_runs() {
    let shape = norm::Shape { residual: true, ..norm::Shape::plain(2, 1, 17) };
    assert_replays(&shape.case());
}

#[test]
fn norm_runs() {
    let shape = norm::Shape { residual: true, gap: 1, ..norm::Shape::plain(2, 1, 17) };
    assert_answers(&shape.case());
}

#[test]
fn pool_runs() {
    for kind in pool::KINDS {
        assert_answers(
            &pool::Shape { normalise: true, ..pool::Shape::plain(&[2, 0, 1], 17, kind) }.case(),
        );
    }
}

#[test]
fn rope_runs() {
    assert_answers(&rope::Shape::plain(2, 1, 24, 16).case());
}

#[test]
fn append_kv_runs() {
    for dtype in [Dtype::F32, Dtype::I8, Dtype::I4] {
        assert_runs(&append_kv::Shape::plain(dtype, 3, 8).case());
    }
}

#[test]
fn kv_copy_runs() {
    let pages = Pages {
        form: FORMS[0],
        pages: 3,
        page_len: 4,
        kv_heads: 1,
        head_dim: 8,
        dtype: Dtype::I8,
        token_scales: true,
    };
    let entries = vec![[0, 1, 2, 0, 3], [2, 0, 2, 1, 2]];
    assert_answers(&kv_copy::Shape { pages, entries, count: None, seed: 1 }.case());
}

#[test]
fn token_logprob_runs() {
    let format = Format::Groups(Dtype::I8, 32, false, Dtype::F32);
    assert_runs(&token_logprob::case(matmul::Shape::plain(1, 32, 3, format)));
}

#[test]
fn spec_verify_runs() {
    let drafts = spec_verify::drafts(1, VERIFY_REJECTION, 33, &[0, 0, 1], true);
    assert_runs(&spec_verify::VerifyCase::new("small", VERIFY_REJECTION, 33, vec![drafts]));
}

#[test]
fn attention_fold_runs() {
    let dtypes = (Dtype::F32, Dtype::F16);
    let shape = attention_fold::Shape { sizes: (2, 2, 1, 8), dtypes, empty: 2, size: 1.0, seed: 1 };
    assert_runs(&shape.case());
}

#[test]
fn logit_mask_runs() {
    assert_runs(&logit_mask::Shape::everything(1, 33).case());
}

#[test]
fn sample_runs() {
    assert_runs(&sample::Shape::plain(1, 33).case());
}

#[test]
fn varlen_mask_runs() {
    assert_runs(&varlen_mask::random(1));
}

#[test]
fn attention_runs() {
    let seqs = [attention::seq(1, 5), attention::seq(2, 3)];
    for dtype in [Dtype::F32, Dtype::I8] {
        assert_answers(&attention::Shape::plain(&seqs, 2, 8).stored(dtype).case());
    }
}

#[test]
fn matmul_runs() {
    let formats = [
        Format::Floats(Dtype::F32),
        Format::Groups(Dtype::I8, 32, false, Dtype::F16),
        Format::Groups(Dtype::I4, 32, true, Dtype::F32),
    ];
    for format in formats {
        assert_answers(&matmul::Shape::plain(1, 32, 2, format).case());
    }
}

#[test]
fn lora_runs() {
    assert_answers(&lora::Shape::plain(8, 4, &[2], &[0]).case());
}

#[test]
fn rows_are_gathered_embedded_and_activated() {
    assert_runs(&gather::Shape::plain(2, 17).case());
    assert_runs(&embed::Shape::plain(1, 17).case());
    for dtype in [Dtype::I8, Dtype::I4] {
        let packed = embed::Table::Packed(Format::Groups(dtype, 32, true, Dtype::F16));
        assert_runs(
            &embed::Shape { table: packed, vocabulary: 2, ..embed::Shape::plain(1, 32) }.case(),
        );
    }
    assert_answers(&activation::Shape::plain(1, 17).case());
}
