//! Cases of `logit_mask`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::logit_mask::{self, Asked, LogitMask};
use kernels_core::math::Real;
use kernels_core::params::{self, LogitMaskRow, NONE};
use proptest::prelude::*;

/// A call of `logit_mask` with its buffers.
#[derive(Clone, Debug)]
pub struct LogitMaskCase {
    /// What sets it apart in the list.
    pub name: String,
    /// Its scalars.
    pub params: params::LogitMask,
    /// Rows in use, where they are given.
    pub rows: Option<u32>,
    /// The rows, with NaN between them.
    pub logits: Bytes,
    /// What each row asks for.
    pub settings: Vec<LogitMaskRow>,
    /// The slab of masks.
    pub masks: Option<Vec<u32>>,
    /// Starts and banned tokens.
    pub banned: Option<(Vec<u32>, Vec<u32>)>,
    /// Starts, tokens and biases.
    pub bias: Option<(Vec<u32>, Vec<u32>, Vec<f32>)>,
    /// The slots.
    pub counts: Option<Vec<u16>>,
    /// Starts and tokens to count.
    pub counted: Option<(Vec<u32>, Vec<u32>)>,
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
    /// Masks in the slab: none, one each, or two each.
    pub masks: u32,
    /// One bit in so many is set; 1 for all.
    pub sparsity: u32,
    /// Whether there are banned tokens and biases.
    pub lists: bool,
    /// Whether there are penalties, and tokens to count.
    pub penalties: bool,
    /// Of every row.
    pub temperature: f32,
    /// Scale of the logits.
    pub scale: f32,
    /// Seed of the values.
    pub seed: u64,
}

impl Shape {
    /// Rows with a mask each, half of it set.
    pub const fn plain(rows: u32, vocab: u32) -> Self {
        Self {
            rows,
            vocab,
            gap: 0,
            masks: 1,
            sparsity: 2,
            lists: false,
            penalties: false,
            temperature: 0.0,
            scale: 4.0,
            seed: 1,
        }
    }

    /// Rows with all there is.
    pub const fn everything(rows: u32, vocab: u32) -> Self {
        let plain = Self::plain(rows, vocab);
        Self { gap: 3, masks: 2, lists: true, penalties: true, temperature: 0.7, ..plain }
    }

    /// The call with its values.
    pub fn case(self) -> LogitMaskCase {
        let Self { rows, vocab, .. } = self;
        let mut noise = Noise::new(self.seed);
        let stride = (vocab + self.gap) as usize;
        let mut logits = noise.normals(rows as usize * stride, self.scale);
        for row in logits.chunks_mut(stride) {
            row[vocab as usize..].fill(f32::NAN);
        }
        let slots = if self.penalties { rows + 1 } else { 0 };
        let mask_words = if self.masks > 0 { vocab.div_ceil(32) + 1 } else { 0 };
        let masks = if self.masks > 0 { rows + 2 } else { 0 };
        let settings = (0..rows).map(|row| self.settings(row)).collect();
        let mut list = |each: u32| {
            let starts: Vec<u32> = (0..=rows).map(|row| row * each).collect();
            let tokens: Vec<u32> = (0..rows * each).map(|_| noise.below(vocab)).collect();
            (starts, tokens)
        };
        let banned = self.lists.then(|| list(3));
        let bias = self.lists.then(|| list(5));
        let mut counted = self.penalties.then(|| list(6));
        for (i, entry) in counted.iter_mut().flat_map(|(_, entries)| entries.iter_mut().enumerate())
        {
            *entry |= [0, params::COUNTED_PROMPT, params::COUNTED_BACK, 0][i % 4];
        }
        let bias = bias.map(|(starts, tokens)| {
            let values = noise.normals(tokens.len(), 50.0);
            (starts, tokens, values)
        });
        let counts = self.penalties.then(|| {
            let one = |noise: &mut Noise| match noise.below(8) {
                0 => noise.below(1 << 16) as u16,
                1 => params::COUNT_PROMPT as u16,
                2 => 1 + noise.below(3) as u16,
                _ => 0,
            };
            (0..slots as usize * stride).map(|_| one(&mut noise)).collect()
        });
        let masks_words = (masks * mask_words) as usize;
        let set = |noise: &mut Noise| {
            (0..32).fold(0, |word, bit| word | u32::from(noise.below(self.sparsity) == 0) << bit)
        };
        let params = params::LogitMask {
            row_stride: stride as u64,
            counts_stride: if self.penalties { stride as u64 } else { 0 },
            rows_max: rows,
            vocab,
            masks,
            mask_words,
            banned_max: banned.as_ref().map_or(0, |(_, tokens)| tokens.len() as u32),
            bias_max: bias.as_ref().map_or(0, |(_, tokens, _)| tokens.len() as u32),
            slots,
            counted_max: counted.as_ref().map_or(0, |(_, tokens)| tokens.len() as u32),
        };
        LogitMaskCase {
            name: format!("{self:?}"),
            params,
            rows: None,
            logits: Bytes::of(&logits),
            settings,
            masks: (masks > 0).then(|| (0..masks_words).map(|_| set(&mut noise)).collect()),
            banned,
            bias,
            counts,
            counted,
        }
    }

    fn settings(self, row: u32) -> LogitMaskRow {
        LogitMaskRow {
            mask: if self.masks > 0 { row } else { NONE },
            action: if self.masks > 1 { row + 1 } else { NONE },
            slot: if self.penalties { row } else { NONE },
            temperature: self.temperature,
            repetition: if self.penalties { 1.3 } else { 1.0 },
            presence: if self.penalties { 0.5 } else { 0.0 },
            frequency: if self.penalties { -0.25 } else { 0.0 },
        }
    }
}

/// The list.
pub fn cases() -> Vec<LogitMaskCase> {
    let mut cases = Vec::new();
    // Around lanes, words of a mask, a worker's unit and a block.
    for vocab in [1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 127, 129, 1000, 4095, 4096, 4097] {
        cases.push(Shape::plain(2, vocab).case());
        cases.push(Shape::everything(3, vocab).case());
    }
    for sparsity in [1, 50, 1 << 30] {
        cases.push(Shape { sparsity, ..Shape::plain(2, 500) }.case());
    }
    for temperature in [1.0, 1e-30, 1e-45, 1e30, 3.0] {
        let shape = Shape { masks: 0, temperature, scale: 0.1, ..Shape::plain(1, 70) };
        cases.push(shape.case());
    }
    cases.push(Shape { masks: 0, penalties: true, ..Shape::plain(2, 200) }.case());
    cases.push(Shape { masks: 0, lists: true, scale: 1e30, ..Shape::plain(2, 200) }.case());
    cases.push(Shape::everything(2, 32_000).case());
    let mut live = Shape { rows: 4, ..Shape::everything(4, 100) }.case();
    (live.name, live.rows) = ("three of four rows".into(), Some(3));
    cases.push(live);
    // NaN where a mask or a list says no is gone; elsewhere it stays.
    let mut nan = Shape { lists: true, ..Shape::plain(2, 100) }.case();
    nan.name = "a row of NaN".into();
    nan.logits.as_mut_slice()[..400].copy_from_slice(&[0xff; 400]);
    cases.push(nan);
    // Products that round, and a count that is as large as counts get.
    let mut rounds = Shape { penalties: true, ..Shape::plain(3, 300) }.case();
    rounds.name = "a frequency that rounds".into();
    rounds.settings.iter_mut().for_each(|row| row.frequency = 0.3);
    let token = rounds.counted.as_ref().map_or(0, |(_, counted)| counted[0] as usize);
    rounds.counts.as_mut().expect("the shape counts")[token] = params::COUNT_GENERATED as u16;
    cases.push(rounds);
    cases.push(tokens_that_stand_at_none());
    cases.push(one_slot_for_drafts());
    cases
}

/// Rows of one sequence whose tokens stand at 0 before: a row is penalised for those that it and
/// rows before it count, not for those of later ones.
fn tokens_that_stand_at_none() -> LogitMaskCase {
    let mut case = Shape { penalties: true, ..Shape::plain(4, 40) }.case();
    case.name = "drafts of tokens that stand at 0".into();
    case.settings.iter_mut().for_each(|row| row.slot = 1);
    let slot = case.params.counts_stride as usize;
    case.counts.as_mut().expect("the shape counts")[slot..2 * slot].fill(0);
    let (back, prompt) = (params::COUNTED_BACK, params::COUNTED_PROMPT);
    // The second row takes the first's back, so that it stands at 0 again, and is counted anew.
    let counted = (vec![0, 1, 3, 5, 7], vec![7, 7 | back, 9, 7, 11 | prompt, 9, 7]);
    case.params.counted_max = counted.1.len() as u32;
    case.counted = Some(counted);
    case
}

/// Three rows of one sequence: each counts its own token, the third takes the second's back.
fn one_slot_for_drafts() -> LogitMaskCase {
    let mut case = Shape { penalties: true, ..Shape::plain(3, 40) }.case();
    case.name = "drafts of one slot".into();
    case.settings.iter_mut().for_each(|row| row.slot = 2);
    let back = params::COUNTED_BACK;
    let counted = (vec![0, 1, 2, 4], vec![7, 9, 9 | back, 11]);
    case.params.counted_max = counted.1.len() as u32;
    case.counted = Some(counted);
    case
}

/// Any small shape.
pub fn strategy() -> impl Strategy<Value = Shape> {
    let size = (1u32..5, 1u32..300, 0u32..9);
    let asked = (0u32..3, 1u32..9, any::<bool>(), any::<bool>());
    let temperature = prop_oneof![Just(0f32), Just(1.0), 0.01f32..3.0];
    (size, asked, temperature, any::<u64>()).prop_map(
        |((rows, vocab, gap), (masks, sparsity, lists, penalties), temperature, seed)| Shape {
            rows,
            vocab,
            gap,
            masks,
            sparsity,
            lists,
            penalties,
            temperature,
            scale: 4.0,
            seed,
        },
    )
}

impl LogitMaskCase {
    fn live(&self) -> usize {
        self.rows.unwrap_or(self.params.rows_max) as usize
    }

    /// The part of a list that is a row's.
    fn part<'a, T>(starts: &[u32], all: &'a [T], row: usize) -> &'a [T] {
        &all[starts[row] as usize..starts[row + 1] as usize]
    }

    fn asked(&self, row: usize) -> Asked<'_> {
        let set = &self.settings[row];
        let words = self.params.mask_words as usize;
        let masks = self.masks.as_deref().unwrap_or_default();
        let of = |mask: u32| (mask != NONE).then(|| &masks[mask as usize * words..]);
        let bias = self.bias.as_ref().map_or(Vec::new(), |(starts, tokens, values)| {
            let tokens = Self::part(starts, tokens, row).iter().copied();
            tokens.zip(Self::part(starts, values, row).iter().copied()).collect()
        });
        let list = |list: &'_ Option<(Vec<u32>, Vec<u32>)>| {
            list.as_ref().map_or(Vec::new(), |(starts, all)| Self::part(starts, all, row).to_vec())
        };
        Asked {
            masks: [set.mask, set.action].into_iter().filter_map(of).collect(),
            bias,
            banned: list(&self.banned),
            counted: list(&self.counted),
            repetition: set.repetition,
            presence: set.presence,
            frequency: set.frequency,
            temperature: set.temperature,
        }
    }

    /// What the specification leaves in the slots.
    fn spec_counts(&self) -> Option<Vec<u16>> {
        let mut counts = self.counts.clone();
        self.spec_rows::<f32>(&mut counts);
        counts
    }

    fn spec_rows<R: Real>(&self, counts: &mut Option<Vec<u16>>) -> Vec<Row<R>> {
        let p = &self.params;
        let logits = self.logits.cast::<f32>();
        let row = |row: usize| {
            let at = row * p.row_stride as usize;
            let slot = self.settings[row].slot;
            let slot = (slot != NONE).then(|| slot as usize * p.counts_stride as usize);
            let counts = counts.as_mut().zip(slot);
            let counts = counts.map(|(counts, slot)| &mut counts[slot..slot + p.vocab as usize]);
            let x = &logits[at..at + p.vocab as usize];
            Row { at, values: logit_mask::spec(x, &self.asked(row), counts) }
        };
        (0..self.live()).map(row).collect()
    }
}

impl Case for LogitMaskCase {
    const KERNEL: &'static str = "logit_mask";

    fn name(&self) -> String {
        self.name.clone()
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let mut logits = self.logits.clone();
        let mut counts = self.counts.as_ref().map(|counts| Bytes::of(counts));
        let words = |words: &Vec<u32>| Bytes::of(words);
        let masks = self.masks.as_ref().map(words);
        let banned = self.banned.as_ref().map(|(starts, list)| (words(starts), words(list)));
        let counted = self.counted.as_ref().map(|(starts, list)| (words(starts), words(list)));
        let bias = self.bias.as_ref();
        let bias =
            bias.map(|(starts, list, values)| (words(starts), words(list), Bytes::of(values)));
        let rows = self.rows.map(|rows| Bytes::of(&[rows]));
        let settings = Bytes::of(&self.settings);
        let command = LogitMask::<Host<'_>> {
            params: self.params,
            logits: logits.as_mut_slice(),
            settings: settings.as_slice(),
            masks: masks.as_ref().map(Bytes::as_slice),
            banned_starts: banned.as_ref().map(|(starts, _)| starts.as_slice()),
            banned: banned.as_ref().map(|(_, list)| list.as_slice()),
            bias_starts: bias.as_ref().map(|(starts, _, _)| starts.as_slice()),
            bias_tokens: bias.as_ref().map(|(_, list, _)| list.as_slice()),
            bias_values: bias.as_ref().map(|(_, _, values)| values.as_slice()),
            counts: counts.as_mut().map(Bytes::as_mut_slice),
            counted_starts: counted.as_ref().map(|(starts, _)| starts.as_slice()),
            counted: counted.as_ref().map(|(_, list)| list.as_slice()),
            rows: rows.as_ref().map(Bytes::as_slice),
        };
        machine.run(command)?;
        let mut outputs = vec![Output { name: "logits", dtype: Dtype::F32, bytes: logits }];
        // Counts have no float in them: as bytes they are compared by bits alone.
        outputs.extend(counts.map(|bytes| Output { name: "counts", dtype: Dtype::I8, bytes }));
        Ok(outputs)
    }

    /// Counts are exactly those of the specification.
    fn assert_answer(&self, outputs: &[Output]) {
        if let Some(expected) = self.spec_counts() {
            assert_eq!(outputs[1].bytes.cast::<u16>(), expected, "{}", self.name());
        }
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        let rows = self.spec_rows(&mut self.counts.clone());
        if self.counts.is_some() { vec![rows, Vec::new()] } else { vec![rows] }
    }
}
