//! Benches of `sample`: rows of a large vocabulary that no cache holds. The share of
//! the read peak beside a figure is that of one pass over the rows.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work};
use kernels_core::command::Host;
use kernels_core::params::{self, NONE, SampleRow};
use kernels_core::sample::{self, Sample};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::sample::PLAIN;
use pagewise_tests::harness::{Bytes, Noise};

const VOCAB: usize = 151_936;

/// Times the ways to ask, each with both log-probabilities.
pub fn bench(bench: &mut Bench) {
    let filtered = SampleRow { temperature: 0.8, top_k: 50, top_p: 0.95, min_p: 0.02, ..PLAIN };
    for (rows, name, asked) in [
        (1, "greedy", SampleRow { temperature: 0.0, ..PLAIN }),
        (1, "plain", PLAIN),
        (1, "tempered", SampleRow { temperature: 0.8, ..PLAIN }),
        (1, "top-k top-p min-p", filtered),
        (8, "top-k top-p min-p", filtered),
        (1, "mask top-k top-p min-p", filtered),
        (8, "mask top-k top-p min-p", filtered),
        (1, "top-p", SampleRow { top_p: 0.95, ..PLAIN }),
        (1, "min-p", SampleRow { min_p: 0.02, ..PLAIN }),
    ] {
        let masked = name.starts_with("mask");
        let work = Work::Read((rows * VOCAB * 4) as u64);
        let entry = Entry { kernel: "sample", shape: format!("{rows}x{VOCAB} {name}"), work };
        bench.time(entry, |bench| Rows::new(rows, asked, masked, bench.cycle(rows * VOCAB * 4)));
    }
}

struct Rows {
    params: params::Sample,
    settings: Vec<SampleRow>,
    /// A mask for each row, of which about every second token is allowed.
    masks: Option<(Bytes, Bytes)>,
    logits: Copies,
    workspace: Bytes,
    /// Token, status, raw and processed log-probability of each row.
    out: [Bytes; 4],
}

impl Rows {
    fn new(rows: usize, asked: SampleRow, masked: bool, copies: usize) -> Self {
        let mut noise = Noise::new(1);
        // As a model's: most tokens far below the best, with a heavier upper tail.
        let row = noise.normals(VOCAB, 1.0).into_iter().map(|x| 2.0 * x + 0.4 * x * x.abs());
        let row: Vec<f32> = row.collect();
        let params = params::Sample {
            row_stride: VOCAB as u64,
            rows_max: rows as u32,
            vocab: VOCAB as u32,
            masks: if masked { rows as u32 } else { 0 },
            mask_words: if masked { VOCAB.div_ceil(32) as u32 } else { 0 },
            ..Default::default()
        };
        let masks = masked.then(|| {
            let words: Vec<u32> = (0..rows * VOCAB.div_ceil(32)).map(|_| noise.word()).collect();
            let chosen: Vec<u32> = (0..rows as u32).flat_map(|row| [row, NONE]).collect();
            (Bytes::of(&words), Bytes::of(&chosen))
        });
        Self {
            params,
            masks,
            settings: (0..rows as u32).map(|position| SampleRow { position, ..asked }).collect(),
            logits: Copies::new(Bytes::of(&row.repeat(rows)).as_slice(), copies),
            workspace: Bytes::filled(0, 0),
            out: core::array::from_fn(|_| Bytes::filled(rows * 4, 0)),
        }
    }

    fn run(&mut self, on: On<'_>, turn: usize) {
        self.settings[0].position = turn as u32;
        let [token, status, raw, processed] = self.out.each_mut().map(Bytes::as_mut_slice);
        let command = Sample::<Host> {
            params: self.params,
            logits: self.logits.turn(turn),
            raw_logits: None,
            settings: bytemuck::cast_slice(&self.settings),
            masks: self.masks.as_ref().map(|(words, _)| words.as_slice()),
            row_masks: self.masks.as_ref().map(|(_, chosen)| chosen.as_slice()),
            token,
            status,
            raw_logprob: Some(raw),
            processed_logprob: Some(processed),
            top_token: None,
            top_logprob: None,
            kept: None,
            kept_count: None,
            rows: None,
        };
        let needs = command.needs(on.workers.count()).expect("the call is a good one");
        if self.workspace.len() < needs.workspace_bytes as usize {
            self.workspace = Bytes::filled(needs.workspace_bytes as usize, 0);
        }
        let workspace = self.workspace.as_mut_slice();
        sample::run(on.level, on.workers, command, workspace).expect("the call is a good one");
    }
}

impl Subject for Rows {
    fn check(&mut self, on: On<'_>) {
        self.run(on, 0);
        let got = self.out.clone().map(|bytes| bytes.as_slice().to_vec());
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        self.run(On { level: scalar, workers: &Inline }, 0);
        let expected = self.out.clone().map(|bytes| bytes.as_slice().to_vec());
        assert_eq!(got, expected, "tokens and log-probabilities have the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        self.run(on, turn);
    }
}
