//! Benches of `logit_mask`: rows of a large vocabulary that no cache holds.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work};
use kernels_core::command::Host;
use kernels_core::logit_mask::{self, LogitMask};
use kernels_core::params::{self, LogitMaskRow, NONE};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::harness::{Bytes, Noise};

const VOCAB: usize = 151_936;
const ROWS: usize = 4;

/// Times masks alone, and masks with penalties and a temperature.
pub fn bench(bench: &mut Bench) {
    // Logits are read and written; the mask is a thirty-second of that.
    let work = Work::Copied((ROWS * VOCAB * 8) as u64);
    for (name, penalties) in [("mask", false), ("mask penalties temperature", true)] {
        let entry = Entry { kernel: "logit_mask", shape: format!("{ROWS}x{VOCAB} {name}"), work };
        bench.time(entry, |bench| Rows::new(penalties, bench.cycle(ROWS * VOCAB * 4)));
    }
}

struct Rows {
    params: params::LogitMask,
    settings: Bytes,
    masks: Bytes,
    counts: Option<Bytes>,
    logits: Copies,
}

impl Rows {
    fn new(penalties: bool, copies: usize) -> Self {
        let mut noise = Noise::new(1);
        let logits = Bytes::of(&noise.normals(VOCAB, 3.0).repeat(ROWS));
        let mask_words = VOCAB.div_ceil(32);
        let masks: Vec<u32> = (0..mask_words).map(|_| noise.word()).collect();
        let counts: Vec<u16> = (0..VOCAB).map(|_| u16::from(noise.below(50) == 0)).collect();
        let one = LogitMaskRow {
            mask: 0,
            action: NONE,
            slot: if penalties { 0 } else { NONE },
            temperature: if penalties { 0.7 } else { 0.0 },
            repetition: if penalties { 1.1 } else { 1.0 },
            presence: if penalties { 0.2 } else { 0.0 },
            frequency: if penalties { 0.1 } else { 0.0 },
        };
        let params = params::LogitMask {
            row_stride: VOCAB as u64,
            counts_stride: if penalties { VOCAB as u64 } else { 0 },
            rows_max: ROWS as u32,
            vocab: VOCAB as u32,
            masks: 1,
            mask_words: mask_words as u32,
            banned_max: 0,
            bias_max: 0,
            slots: u32::from(penalties),
            counted_max: 0,
        };
        Self {
            params,
            settings: Bytes::of(&[one; ROWS]),
            masks: Bytes::of(&masks),
            counts: penalties.then(|| Bytes::of(&counts)),
            logits: Copies::new(logits.as_slice(), copies),
        }
    }

    fn run(&mut self, on: On<'_>, turn: usize) -> &[u8] {
        let command = LogitMask::<Host> {
            params: self.params,
            logits: self.logits.turn_mut(turn),
            settings: self.settings.as_slice(),
            masks: Some(self.masks.as_slice()),
            banned_starts: None,
            banned: None,
            bias_starts: None,
            bias_tokens: None,
            bias_values: None,
            counts: self.counts.as_mut().map(Bytes::as_mut_slice),
            counted_starts: None,
            counted: None,
            rows: None,
        };
        logit_mask::run(on.level, on.workers, command).expect("the call is a good one");
        self.logits.turn(turn)
    }
}

impl Subject for Rows {
    fn check(&mut self, on: On<'_>) {
        let before = self.logits.turn(0).to_vec();
        let got = self.run(on, 0).to_vec();
        self.logits.turn_mut(0).copy_from_slice(&before);
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        let expected = self.run(On { level: scalar, workers: &Inline }, 0);
        assert_eq!(got, expected, "the logits have the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        self.run(on, turn);
    }
}
