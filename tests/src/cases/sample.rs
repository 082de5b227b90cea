//! Cases of `sample`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params::{self, NONE, SampleRow};
use kernels_core::sample::{self, Answer, Sample};
use proptest::prelude::*;

/// A call of `sample` with its buffers; every output is asked for.
#[derive(Clone, Debug)]
pub struct SampleCase {
    /// What sets it apart in the list.
    pub name: String,
    /// Its scalars.
    pub params: params::Sample,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The rows, with NaN between them.
    pub logits: Bytes,
    /// What raw log-probabilities are of, where it is not the rows.
    pub raw_logits: Option<Bytes>,
    /// How each row is sampled.
    pub settings: Vec<SampleRow>,
    /// The slab of masks and each row's two, where there are any.
    pub masks: Option<(Bytes, Vec<u32>)>,
}

/// How the logits of a case are spread.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Spread {
    /// Normal, with that deviation.
    Normal(f32),
    /// All the same.
    Equal(f32),
    /// Few different values, so that many tie.
    Steps(u32),
    /// Normal, but only one in so many is not −∞.
    Masked(u32),
    /// One token far above a flat rest.
    Peak(f32),
}

/// What a case is made from.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Rows.
    pub rows: u32,
    /// Logits of a row.
    pub vocab: u32,
    /// Elements between rows beyond the vocabulary.
    pub gap: u32,
    /// How the logits are spread.
    pub spread: Spread,
    /// Whether raw logits come apart.
    pub raw: bool,
    /// Masks in the slab, at most two: rows take the first, the second, both, none.
    pub masks: u32,
    /// Most likely tokens to list.
    pub top_n: u32,
    /// Of every row; position, fork and seed aside.
    pub asked: SampleRow,
    /// Seed of the values.
    pub seed: u64,
}

/// No filter, temperature 1.
pub const PLAIN: SampleRow =
    SampleRow { seed: 0, position: 0, fork: 0, temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0 };

impl Shape {
    /// Rows of normal logits, no filter.
    pub const fn plain(rows: u32, vocab: u32) -> Self {
        let spread = Spread::Normal(3.0);
        Self { rows, vocab, gap: 0, spread, raw: false, masks: 0, top_n: 3, asked: PLAIN, seed: 1 }
    }

    /// The call with its values.
    pub fn case(self) -> SampleCase {
        let mut noise = Noise::new(self.seed);
        let stride = self.vocab + self.gap;
        let mut rows = |spread| {
            let mut all = Vec::new();
            for _ in 0..self.rows {
                all.extend(spread_of(spread, self.vocab as usize, &mut noise));
                all.resize(all.len() + self.gap as usize, f32::NAN);
            }
            Bytes::of(&all)
        };
        let logits = rows(self.spread);
        let raw_logits = self.raw.then(|| rows(Spread::Normal(2.0)));
        let mask_words = self.vocab.div_ceil(32) + 1;
        let masks = (self.masks > 0).then(|| {
            let words = (0..self.masks).flat_map(|_| mask(mask_words as usize, &mut noise));
            (
                Bytes::of(&words.collect::<Vec<_>>()),
                (0..self.rows).flat_map(|row| self.masks_of(row)).collect(),
            )
        });
        let row = |row: u32| SampleRow {
            seed: self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15),
            position: row * 7,
            fork: row % 2,
            ..self.asked
        };
        let params = params::Sample {
            row_stride: u64::from(stride),
            raw_row_stride: if self.raw { u64::from(stride) } else { 0 },
            rows_max: self.rows,
            vocab: self.vocab,
            top_n: self.top_n,
            kept_words: self.vocab.div_ceil(32) + 1,
            masks: self.masks,
            mask_words: if self.masks > 0 { mask_words } else { 0 },
        };
        let settings = (0..self.rows).map(row).collect();
        let name = format!("{self:?}");
        SampleCase { name, params, rows: None, logits, raw_logits, settings, masks }
    }

    /// The masks of a row.
    fn masks_of(&self, row: u32) -> [u32; 2] {
        [0, 1].map(|at| if (row + 1) >> at & 1 == 1 && at < self.masks { at } else { NONE })
    }
}

/// A mask: of groups of 128 tokens some are allowed whole, some not at all.
fn mask(words: usize, noise: &mut Noise) -> Vec<u32> {
    let mut mask = Vec::with_capacity(words);
    while mask.len() < words {
        let group: [u32; 4] = match noise.below(4) {
            0 => [0; 4],
            1 => [u32::MAX; 4],
            _ => core::array::from_fn(|_| noise.word() & noise.word()),
        };
        mask.extend(&group[..(words - mask.len()).min(4)]);
    }
    mask
}

fn spread_of(spread: Spread, vocab: usize, noise: &mut Noise) -> Vec<f32> {
    match spread {
        Spread::Normal(deviation) => noise.normals(vocab, deviation),
        Spread::Equal(x) => vec![x; vocab],
        Spread::Steps(steps) => (0..vocab).map(|_| noise.below(steps) as f32 * 0.5).collect(),
        Spread::Masked(one_in) => {
            let mut row = noise.normals(vocab, 3.0);
            let allowed = noise.below(vocab as u32) as usize;
            for (token, x) in row.iter_mut().enumerate() {
                if token != allowed && noise.below(one_in) != 0 {
                    *x = f32::NEG_INFINITY;
                }
            }
            row
        }
        Spread::Peak(height) => {
            let mut row = noise.normals(vocab, 0.01);
            row[vocab / 2] = height;
            row
        }
    }
}

/// Every way to ask, filters alone and together.
pub fn ways() -> Vec<SampleRow> {
    let mut ways = Vec::new();
    for temperature in [0.0, 1.0, 0.6, 1.7] {
        ways.push(SampleRow { temperature, ..PLAIN });
    }
    for (top_k, top_p, min_p) in [
        (1, 1.0, 0.0),
        (5, 1.0, 0.0),
        (50, 1.0, 0.0),
        (0, 0.9, 0.0),
        (0, 0.0, 0.0),
        (0, 1e-30, 0.0),
        (0, 0.999_999, 0.0),
        (0, 1.0, 0.02),
        (0, 1.0, 1.0),
        (40, 0.9, 0.0),
        (40, 1.0, 0.05),
        (0, 0.95, 0.01),
        (40, 0.95, 0.02),
        (u32::MAX, 0.5, 1e-20),
    ] {
        for temperature in [1.0, 0.7] {
            ways.push(SampleRow { temperature, top_k, top_p, min_p, ..PLAIN });
        }
    }
    ways
}

/// The list.
pub fn cases() -> Vec<SampleCase> {
    let mut cases = Vec::new();
    // Around lanes, words, units of noise, groups and blocks.
    let sizes =
        [1, 2, 15, 16, 17, 63, 64, 65, 127, 128, 129, 1000, 4095, 4096, 4097, 8191, 8192, 8193];
    let filtered = SampleRow { temperature: 0.8, top_k: 40, top_p: 0.9, min_p: 0.01, ..PLAIN };
    for vocab in sizes {
        cases.push(Shape { gap: 3, ..Shape::plain(2, vocab) }.case());
        cases.push(Shape { asked: filtered, ..Shape::plain(2, vocab) }.case());
        let asked = SampleRow { temperature: 1.3, top_p: 0.97, ..PLAIN };
        cases.push(Shape { asked, raw: true, ..Shape::plain(1, vocab) }.case());
    }
    let spreads = [
        Spread::Normal(3.0),
        Spread::Normal(1e30),
        Spread::Normal(1e-3),
        Spread::Equal(0.0),
        Spread::Equal(-1e30),
        Spread::Steps(2),
        Spread::Steps(9),
        Spread::Masked(10),
        Spread::Masked(1 << 30),
        Spread::Peak(20.0),
        Spread::Peak(300.0),
    ];
    for spread in spreads {
        for asked in ways() {
            cases.push(Shape { spread, asked, top_n: 20, ..Shape::plain(1, 1100) }.case());
        }
    }
    for temperature in [1e-45, 1e-38, 1e-6, 1e6, 3e38] {
        let asked = SampleRow { temperature, ..PLAIN };
        cases.push(Shape { asked, ..Shape::plain(1, 300) }.case());
        let asked = SampleRow { temperature, ..filtered };
        cases.push(Shape { asked, ..Shape::plain(1, 300) }.case());
    }
    for asked in [PLAIN, SampleRow { top_k: 0, ..filtered }, filtered] {
        cases.push(Shape { asked, ..Shape::plain(2, 32_000) }.case());
    }
    let many = SampleRow { top_k: 5000, top_p: 0.99, ..PLAIN };
    cases
        .push(Shape { asked: many, spread: Spread::Normal(0.5), ..Shape::plain(1, 32_000) }.case());
    cases.push(Shape { asked: filtered, top_n: 128, ..Shape::plain(1, 151_936) }.case());
    cases.push(Shape { top_n: 128, ..Shape::plain(1, 100) }.case());
    // Rows enough that the order in which blocks fold shows in a logarithm.
    cases.push(Shape { spread: Spread::Normal(1.0), ..Shape::plain(24, 12_500) }.case());
    for vocab in [1, 33, 129, 4097, 9000] {
        for asked in [
            PLAIN,
            SampleRow { temperature: 0.0, ..PLAIN },
            filtered,
            SampleRow { top_k: 0, ..filtered },
        ] {
            for (masks, raw) in [(1, false), (2, true), (2, false)] {
                cases.push(Shape { asked, masks, raw, gap: 3, ..Shape::plain(4, vocab) }.case());
            }
        }
    }
    cases.push(hidden());
    cases.push(holed());
    cases.push(zeroed());
    cases.extend(reported());
    cases
}

/// What is no number is not seen where a mask hides it.
fn hidden() -> SampleCase {
    let mut case = Shape { masks: 1, ..Shape::plain(1, 5000) }.case();
    case.name = "no numbers that a mask hides".into();
    let mask: Vec<u32> = case.masks.as_ref().expect("the shape has one").0.cast().to_vec();
    for token in (0..5000).filter(|token| mask[token / 32] >> (token % 32) & 1 == 0) {
        let x = if token % 2 == 0 { f32::NAN } else { f32::INFINITY };
        case.logits.as_mut_slice()[token * 4..][..4].copy_from_slice(&x.to_le_bytes());
    }
    case
}

/// No filter, and groups of 128 of which no token, some, or all are masked.
fn holed() -> SampleCase {
    let mut case = Shape::plain(2, 9000).case();
    case.name = "no filter, holes in some groups".into();
    let mask = f32::NEG_INFINITY.to_le_bytes();
    for token in [0, 191, 4095, 4096, 4351, 8192].into_iter().chain(640..768) {
        case.logits.as_mut_slice()[token * 4..][..4].copy_from_slice(&mask);
    }
    case
}

/// The largest logits are zeros of either sign, of which one is kept: its log-probability is the
/// zero that all forms agree on.
fn zeroed() -> SampleCase {
    let asked = SampleRow { top_k: 1, ..PLAIN };
    let mut case = Shape { asked, spread: Spread::Equal(-1.0), ..Shape::plain(1, 300) }.case();
    case.name = "zeros of either sign, top_k 1".into();
    for (token, zero) in [(0, -0.0f32), (1, 0.0)] {
        case.logits.as_mut_slice()[token * 4..][..4].copy_from_slice(&zero.to_le_bytes());
    }
    case
}

/// Rows that have no token, beside one that has.
fn reported() -> Vec<SampleCase> {
    let asked = SampleRow { temperature: 0.9, top_k: 9, ..PLAIN };
    let ugly = |name: &str, asked: SampleRow, raw, at: usize, x: f32| {
        let mut case = Shape { raw, asked, ..Shape::plain(3, 4200) }.case();
        case.name = format!("{name} at {at}, raw {raw}, top_k {}", asked.top_k);
        let logits = if raw { case.raw_logits.as_mut() } else { Some(&mut case.logits) };
        let logits = logits.expect("the shape has them").as_mut_slice();
        logits[(4200 + at) * 4..][..4].copy_from_slice(&x.to_le_bytes());
        case
    };
    let mut cases = Vec::new();
    for raw in [false, true] {
        for at in [0, 17, 4095, 4096, 4199] {
            cases.push(ugly("NaN", asked, raw, at, f32::NAN));
            cases.push(ugly("infinity", asked, raw, at, f32::INFINITY));
        }
        cases.push(ugly("NaN", PLAIN, raw, 4199, f32::NAN));
        cases.push(ugly("infinity", PLAIN, raw, 17, f32::INFINITY));
    }
    let mut masked = Shape { asked, ..Shape::plain(3, 4200) }.case();
    masked.name = "all masked".into();
    let row = &mut masked.logits.as_mut_slice()[4200 * 4..8400 * 4];
    row.chunks_mut(4).for_each(|x| x.copy_from_slice(&f32::NEG_INFINITY.to_le_bytes()));
    let mut nan = masked.clone();
    nan.name = "all NaN".into();
    nan.logits.as_mut_slice()[4200 * 4..8400 * 4].fill(0xff);
    let mut live = masked.clone();
    (live.name, live.rows) = ("two of three rows".into(), Some(2));
    cases.extend([masked, nan, live]);
    cases
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let size = (1u32..5, 1u32..700, 0u32..9, 0u32..30);
    let spread = prop_oneof![
        (0.01f32..20.0).prop_map(Spread::Normal),
        (-9f32..9.0).prop_map(Spread::Equal),
        (1u32..9).prop_map(Spread::Steps),
        (1u32..99).prop_map(Spread::Masked),
        (0f32..40.0).prop_map(Spread::Peak),
    ];
    let temperature = prop_oneof![Just(0f32), Just(1.0), 0.1f32..3.0];
    let top_k = prop_oneof![Just(0u32), 1u32..60, 1u32..700];
    let top_p = prop_oneof![Just(1f32), Just(0.0), 0.0f32..1.0];
    let min_p = prop_oneof![Just(0f32), Just(1.0), 0.0f32..0.2];
    let asked = (temperature, top_k, top_p, min_p);
    (size, spread, (any::<bool>(), 0u32..3), asked, any::<u64>()).prop_map(
        |((rows, vocab, gap, top_n), spread, (raw, masks), asked, seed)| {
            let (temperature, top_k, top_p, min_p) = asked;
            let asked = SampleRow { temperature, top_k, top_p, min_p, ..PLAIN };
            Shape { rows, vocab, gap, spread, raw, masks, top_n, asked, seed }
        },
    )
}

impl SampleCase {
    /// Rows in use.
    pub fn live(&self) -> usize {
        self.rows.unwrap_or(self.params.rows_max) as usize
    }

    /// The logits of a row as its masks leave them, and those that raw log-probabilities are
    /// of.
    pub fn row(&self, row: usize) -> (Vec<f32>, Vec<f32>) {
        let p = &self.params;
        let vocab = p.vocab as usize;
        let own = &self.logits.cast()[row * p.row_stride as usize..][..vocab];
        let own = sample::masked(own, &self.masks_of(row));
        let raw = self.raw_logits.as_ref();
        let raw = raw.map(|raw| raw.cast()[row * p.raw_row_stride as usize..][..vocab].to_vec());
        (own.clone(), raw.unwrap_or(own))
    }

    /// The masks of a row.
    fn masks_of(&self, row: usize) -> Vec<&[u32]> {
        let Some((words, chosen)) = &self.masks else { return Vec::new() };
        let chosen = chosen[2 * row..2 * row + 2].iter().filter(|mask| **mask != NONE);
        let of = |mask: &u32| &words.cast()[(mask * self.params.mask_words) as usize..];
        chosen.map(of).collect()
    }

    /// The same with its logits as its masks leave them, and no masks.
    pub fn without_masks(&self) -> Self {
        let mut plain = self.clone();
        for row in 0..self.params.rows_max as usize {
            let own = self.row(row).0;
            let at = row * self.params.row_stride as usize * 4;
            let own: &[u8] = bytemuck::cast_slice(&own);
            plain.logits.as_mut_slice()[at..at + own.len()].copy_from_slice(own);
        }
        (plain.masks, plain.params.masks, plain.params.mask_words) = (None, 0, 0);
        plain
    }

    /// The specification's answer for a row.
    pub fn answer<R: Real>(&self, row: usize) -> Answer<R> {
        let (logits, raw) = self.row(row);
        sample::spec(&logits, &raw, &self.settings[row], self.params.top_n as usize)
    }
}

impl Case for SampleCase {
    const KERNEL: &'static str = "sample";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        // A malformed call may ask for any size: it is refused for want of a buffer.
        let p = &self.params;
        let rows = p.rows_max.min(self.settings.len() as u32) as usize;
        let top = rows * p.top_n.min(1000) as usize;
        let words = |count: usize| Bytes::poisoned(count * 4);
        let (mut token, mut status, mut count) = (words(rows), words(rows), words(rows));
        let (mut raw_logprob, mut processed) = (words(rows), words(rows));
        let (mut top_token, mut top_logprob) = (words(top), words(top));
        let mut kept = words(rows * p.kept_words.min(20_000) as usize);
        let live = self.rows.map(|rows| Bytes::of(&[rows]));
        let settings = Bytes::of(&self.settings);
        let masks = self.masks.as_ref().map(|(words, chosen)| (words, Bytes::of(chosen)));
        let command = Sample::<Host<'_>> {
            params: self.params,
            logits: self.logits.as_slice(),
            raw_logits: self.raw_logits.as_ref().map(Bytes::as_slice),
            settings: settings.as_slice(),
            masks: masks.as_ref().map(|(words, _)| words.as_slice()),
            row_masks: masks.as_ref().map(|(_, chosen)| chosen.as_slice()),
            token: token.as_mut_slice(),
            status: status.as_mut_slice(),
            raw_logprob: Some(raw_logprob.as_mut_slice()),
            processed_logprob: Some(processed.as_mut_slice()),
            top_token: (p.top_n > 0).then(|| top_token.as_mut_slice()),
            top_logprob: (p.top_n > 0).then(|| top_logprob.as_mut_slice()),
            kept: (p.kept_words > 0).then(|| kept.as_mut_slice()),
            kept_count: Some(count.as_mut_slice()),
            rows: live.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        // Words have no float in them: as bytes they are compared by bits alone.
        let word = |name, bytes| Output { name, dtype: Dtype::I8, bytes };
        let float = |name, bytes| Output { name, dtype: Dtype::F32, bytes };
        Ok(vec![
            word("token", token),
            word("status", status),
            float("raw_logprob", raw_logprob),
            float("processed_logprob", processed),
            word("top_token", top_token),
            float("top_logprob", top_logprob),
            word("kept", kept),
            word("kept_count", count),
        ])
    }

    fn assert_answer(&self, outputs: &[Output]) {
        super::sample_answers::assert_answers(self, outputs);
    }

    /// A token, a set and its numbers belong together: see `assert_answer`.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        vec![Vec::new(); 8]
    }
}
