//! The list of cases, and any small shape.

use super::{AttentionCase, Lie, Seq, Shape, With, seq};
use kernels_core::dtype::Dtype;
use proptest::prelude::*;

/// The list.
pub fn cases() -> Vec<AttentionCase> {
    use Dtype::{Bf16, E4m3, F16, F32, I4, I8};
    let plain = Shape::plain;
    let mut shapes = Vec::new();
    // Nothing to see: no positions, rows before all keys, no rows.
    shapes.push(plain(&[seq(1, 0), seq(3, 1), seq(0, 5), seq(2, 2)], 2, 16));
    shapes.push(Shape {
        with: With { sinks: true, intervals: true, ..With::default() },
        ..plain(&[seq(1, 0), seq(9, 30)], 3, 24)
    });
    // Scores far beyond anything exp can take, both ways.
    for size in [3e4, 1e30] {
        shapes.push(Shape { size, ..plain(&[seq(5, 40)], 2, 16) });
    }
    // Around the constants: tiles of 16, splits of 256, pages, tree bits.
    for kv_len in [15, 16, 17, 31, 33, 63, 64, 65, 255, 256, 257, 511, 512, 513] {
        shapes.push(plain(&[seq(1, kv_len), seq(2, kv_len)], 1, 16).stored(F16));
    }
    // Decode over more splits than one span has, with every group.
    for (group, dims) in [(1, 64), (2, 32), (3, 72), (4, 16), (5, 80), (7, 24), (8, 32), (9, 8)] {
        shapes.push(plain(&[seq(1, 1300), seq(1, 700)], group, dims).stored(Bf16));
    }
    shapes.push(plain(&[seq(1, 300)], 1, 256));
    for (page_len, lie) in [
        (1, Lie::Native),
        (5, Lie::Native),
        (17, Lie::Rows),
        (16, Lie::Rows),
        (32, Lie::Native),
        (48, Lie::Native),
        (64, Lie::Rows),
    ] {
        for dtype in [F32, F16, I8] {
            let base = Shape { page_len, lie, ..plain(&[seq(3, 70), seq(1, 35)], 2, 40) };
            shapes.push(base.stored(dtype));
        }
    }
    for dtype in [F32, F16, Bf16, I8, E4m3, I4] {
        for token_scales in [false, true] {
            let base =
                Shape { token_scales, kv_heads: 2, ..plain(&[seq(2, 50), seq(1, 270)], 2, 32) };
            shapes.push(Shape { lie: Lie::Rows, page_len: 7, ..base.clone().stored(dtype) });
            shapes.push(base.stored(dtype));
        }
    }
    for (q, out) in [(F16, F32), (Bf16, F16), (F32, Bf16)] {
        shapes.push(Shape { dtypes: (q, F16, out), ..plain(&[seq(2, 20)], 2, 72) });
    }
    // Prefill: blocks of rows, chunks whose ends straddle blocks and splits.
    for (rows, kv_len, group) in [(129, 129, 1), (50, 300, 3), (33, 260, 4), (20, 530, 8)] {
        shapes.push(plain(&[seq(rows, kv_len), seq(1, 40)], group, 16).stored(F16));
    }
    shapes.push(Shape { causal: false, ..plain(&[seq(40, 20)], 2, 16) });
    // Windows that begin in later splits, and pages that were dropped.
    for window in [1, 13, 256, 257] {
        shapes.push(Shape { window, ..plain(&[seq(1, 600), seq(40, 300)], 2, 16).stored(F16) });
    }
    let kept = [Seq { rows: 1, kv_len: 600, first: 500 }, Seq { rows: 9, kv_len: 40, first: 39 }];
    shapes.push(Shape { window: 64, ..plain(&kept, 2, 16) });
    shapes.push(Shape { page_len: 24, ..plain(&kept, 2, 16).stored(I8) });
    for bits in 1..32u32 {
        let with = With {
            sinks: bits & 1 != 0,
            slopes: bits & 2 != 0,
            intervals: bits & 4 != 0,
            tree: bits & 8 != 0,
            table: bits & 16 != 0,
        };
        let softcap = if bits % 3 == 0 { 5.0 } else { 0.0 };
        let base = plain(&[seq(12, 70), seq(3, 290), seq(1, 20)], 2, 16);
        shapes.push(Shape { with, softcap, seed: bits.into(), ..base.stored(F16) });
    }
    for softcap in [0.5, 50.0] {
        shapes.push(Shape { softcap, size: 20.0, ..plain(&[seq(4, 90)], 2, 32) });
    }
    let mut cases: Vec<AttentionCase> = shapes.into_iter().map(Shape::case).collect();
    // Slopes that are no powers of two: their products with distances round.
    let with = With { slopes: true, ..With::default() };
    let mut slopes = Shape { with, ..plain(&[seq(5, 290)], 3, 16) }.case();
    slopes.slopes = Some(vec![0.7, 0.3, 0.1]);
    cases.push(slopes);
    // Wide heads, decoded and in a prefill.
    for dims in [128, 192] {
        for dtype in [F16, Bf16] {
            cases.push(plain(&[seq(1, 300), seq(21, 60)], 2, dims).stored(dtype).case());
        }
    }
    // A value that is no number, in a split that rows share, in one of a decode, and the last of all.
    for dtype in [F32, F16, Bf16, E4m3] {
        let seqs = [seq(40, 300), seq(1, 600), seq(20, 20)];
        let mut ugly = Shape { kv_heads: 2, ..plain(&seqs, 2, 24).stored(dtype) }.case();
        ugly.input = " NaN in V";
        ugly.poison(0, 281);
        ugly.poison(1, 17);
        ugly.poison(2, 19);
        cases.push(ugly);
    }
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let float = prop_oneof![Just(Dtype::F32), Just(Dtype::F16), Just(Dtype::Bf16)];
    let dtypes =
        (float.clone(), 0usize..6, float).prop_map(|(q, kv, out)| (q, Dtype::ALL[kv], out));
    let one = (0u32..20, 0u32..290, 0u32..20).prop_map(|(rows, kv_len, first)| Seq {
        rows,
        kv_len,
        first: if first < 10 { 0 } else { first.min(kv_len) },
    });
    let form = (1u32..3, 1u32..6, 1u32..6, 1u32..40, any::<bool>());
    let how = (any::<bool>(), any::<bool>(), prop_oneof![Just(0u32), 1u32..40], any::<bool>());
    let with = any::<[bool; 5]>();
    (prop::collection::vec(one, 0..4), form, dtypes, how, with, any::<u64>()).prop_map(
        |(seqs, form, dtypes, how, with, seed)| {
            let (kv_heads, group, eights, page_len, rows) = form;
            let (token_scales, causal, window, capped) = how;
            let [sinks, slopes, intervals, tree, table] = with;
            Shape {
                seqs,
                kv_heads,
                group,
                head_dim: 8 * eights,
                page_len: if page_len > 20 { 16 } else { page_len },
                lie: if rows { Lie::Rows } else { Lie::Native },
                dtypes,
                token_scales,
                causal,
                window,
                softcap: if capped { 3.0 } else { 0.0 },
                with: With { sinks, slopes, intervals, tree, table },
                size: 1.0,
                seed,
            }
        },
    )
}
