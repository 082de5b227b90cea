//! The commands around a forward pass: copies of pages, masks, sampling, scores, pooling.

use super::device::{floats, submit, words};
use super::sampling::Masks;
use crate::model::Slab;
use crate::model::step::part;
use kernels_core::Error;
use kernels_core::device::{Backend, Command, Read, Slice, Update, Write};
use kernels_core::gather::Gather;
use kernels_core::kv_copy::KvCopy;
use kernels_core::logit_mask::LogitMask;
use kernels_core::params::{self, LogitMaskRow, SampleRow};
use kernels_core::pool::Pool;
use kernels_core::sample::Sample;
use kernels_core::token_logprob::TokenLogprob;

/// Rows whose tokens are scored in one launch.
pub(super) const SCORES_AT_ONCE: u32 = 256;

const F32: u32 = params::DTYPE_F32;

/// Copies of tokens from page to page of one layer.
pub(super) fn copy(
    kv: params::KvLayout,
    slab: &Slab,
    (entries, count, entries_max): (Slice, Slice, u32),
) -> Command {
    let command = KvCopy {
        params: params::KvCopy { kv, entries_max, tokens_max: kv.page_len },
        keys: Update(slab.keys),
        values: None,
        scales: slab.scales.map(Update),
        entries: Read(entries),
        count: Some(Read(count)),
    };
    command.into()
}

/// What sampling reads and writes.
pub(super) struct Sampled {
    /// `[rows]` [`SampleRow`].
    pub settings: Slice,
    token: Slice,
    status: Slice,
    raw: Slice,
    processed: Slice,
    /// `[rows, top]` for the longest list.
    top_token: Slice,
    top_logprob: Slice,
    /// Made when somebody first asks.
    kept: Option<KeptRoom>,
}

/// Where the tokens that were kept are told.
struct KeptRoom {
    /// `[rows]` u32: how many.
    count: Slice,
    /// `[rows, words]` u32: a bit for each token.
    bits: Slice,
    words: u32,
}

/// What tokens are drawn from.
pub(super) struct Logits<'a> {
    /// The rows.
    pub own: Slice,
    /// What their raw log-probabilities are of, where that is not the rows.
    pub raw: Option<Slice>,
    /// Whose masks are read with them.
    pub masked: Option<&'a Masked>,
}

/// What sampling tells beside the token.
#[derive(Clone, Copy)]
pub(super) struct Told {
    /// Most likely tokens.
    pub top_n: u32,
    /// Whether those that were kept.
    pub kept: bool,
}

impl Sampled {
    pub fn alloc(backend: &mut dyn Backend, rows: u32, top_max: u32) -> Result<Self, Error> {
        Ok(Self {
            settings: words(backend, rows * (size_of::<SampleRow>() / 4) as u32)?,
            token: words(backend, rows)?,
            status: words(backend, rows)?,
            raw: words(backend, rows)?,
            processed: words(backend, rows)?,
            top_token: words(backend, rows * top_max)?,
            top_logprob: words(backend, rows * top_max)?,
            kept: None,
        })
    }

    /// Makes room for the tokens that are kept, if there is none.
    pub fn keep(&mut self, backend: &mut dyn Backend, rows: u32, vocab: u32) -> Result<(), Error> {
        if self.kept.is_none() {
            let each = vocab.div_ceil(32);
            let bits = words(backend, u64::from(rows) * u64::from(each))?;
            self.kept = Some(KeptRoom { count: words(backend, rows)?, bits, words: each });
        }
        Ok(())
    }

    /// One token for each row of logits, which lie as close as they can.
    pub fn sample(
        &self,
        Logits { own, raw, masked }: Logits<'_>,
        Told { top_n, kept }: Told,
        (rows_max, vocab): (u32, u32),
        count: Slice,
    ) -> Command {
        let kept = self.kept.as_ref().filter(|_| kept);
        let listed = |slice: Slice| (top_n > 0).then_some(Write(slice));
        let command = Sample {
            params: params::Sample {
                row_stride: vocab.into(),
                raw_row_stride: raw.map_or(0, |_| vocab.into()),
                rows_max,
                vocab,
                top_n,
                kept_words: kept.map_or(0, |kept| kept.words),
                masks: masked.map_or(0, |masked| masked.params.masks),
                mask_words: masked.map_or(0, |masked| masked.params.mask_words),
            },
            logits: Read(own),
            raw_logits: raw.map(Read),
            settings: Read(self.settings),
            masks: masked.map(|masked| Read(masked.masks)),
            row_masks: masked.map(|masked| Read(masked.row_masks)),
            token: Write(self.token),
            status: Write(self.status),
            raw_logprob: Some(Write(self.raw)),
            processed_logprob: Some(Write(self.processed)),
            top_token: listed(self.top_token),
            top_logprob: listed(self.top_logprob),
            kept: kept.map(|kept| Write(kept.bits)),
            kept_count: kept.map(|kept| Write(kept.count)),
            rows: Some(Read(count)),
        };
        command.into()
    }

    /// What so many rows came to: token, status, the two log-probabilities, the lists, the
    /// tokens that were kept.
    pub fn reads(&self, rows: u32, top: u32, kept: bool) -> Vec<Slice> {
        let first = |slice: Slice, count: u32| Slice { bytes: 4 * u64::from(count), ..slice };
        let mut reads: Vec<Slice> = [self.token, self.status, self.raw, self.processed]
            .map(|slice| first(slice, rows))
            .into();
        reads.push(first(self.top_token, rows * top));
        reads.push(first(self.top_logprob, rows * top));
        if let Some(kept) = self.kept.as_ref().filter(|_| kept) {
            reads.push(first(kept.count, rows));
            reads.push(first(kept.bits, rows * kept.words));
        }
        reads.retain(|slice| slice.bytes > 0);
        reads
    }
}

/// What masks and penalties read and write.
pub(super) struct Masked {
    /// `[rows, vocab]` f32: a copy of the logits, changed.
    pub logits: Slice,
    params: params::LogitMask,
    /// `[rows]` u32: 0, 1, 2 and so on.
    every: Slice,
    settings: Slice,
    masks: Slice,
    /// `[rows, 2]` u32: the masks of each row.
    row_masks: Slice,
    counts: Slice,
    banned_starts: Slice,
    banned: Slice,
    bias_starts: Slice,
    bias_tokens: Slice,
    bias_values: Slice,
    counted_starts: Slice,
    counted: Slice,
}

impl Masked {
    /// Room for rows that ban and bias at most so many tokens each.
    pub fn alloc(
        backend: &mut dyn Backend,
        rows: u32,
        vocab: u32,
        [banned, biased]: [u32; 2],
    ) -> Result<Self, Error> {
        let params = params::LogitMask {
            row_stride: vocab.into(),
            // A slot begins at a whole word.
            counts_stride: vocab.next_multiple_of(2).into(),
            rows_max: rows,
            vocab,
            // Of each seat, and of each row.
            masks: 2 * rows,
            mask_words: vocab.div_ceil(32),
            banned_max: rows * banned,
            bias_max: rows * biased,
            slots: rows,
            // A guess is counted, and taken back.
            counted_max: 4 * rows,
        };
        let every = words(backend, rows)?;
        let numbers: Vec<u32> = (0..rows).collect();
        backend.write(every, bytemuck::cast_slice(&numbers))?;
        Ok(Self {
            params,
            every,
            logits: words(backend, u64::from(rows) * u64::from(vocab))?,
            settings: words(backend, rows * (size_of::<LogitMaskRow>() / 4) as u32)?,
            masks: words(backend, u64::from(params.masks) * u64::from(params.mask_words))?,
            row_masks: words(backend, 2 * rows)?,
            counts: words(backend, u64::from(rows) * params.counts_stride / 2)?,
            banned_starts: words(backend, rows + 1)?,
            banned: words(backend, params.banned_max)?,
            bias_starts: words(backend, rows + 1)?,
            bias_tokens: words(backend, params.bias_max)?,
            bias_values: words(backend, params.bias_max)?,
            counted_starts: words(backend, rows + 1)?,
            counted: words(backend, params.counted_max)?,
        })
    }

    /// A copy of the logits, and what is asked of it.
    pub fn record(&self, logits: Slice, count: Slice, commands: &mut Vec<Command>) {
        let p = &self.params;
        let copy = Gather {
            params: params::Gather {
                x_row_stride: p.row_stride,
                out_row_stride: p.row_stride,
                x_rows: p.rows_max,
                rows_max: p.rows_max,
                columns: p.vocab,
                dtype: F32,
            },
            x: Read(logits),
            indices: Read(self.every),
            out: Write(self.logits),
            rows: Some(Read(count)),
        };
        commands.push(copy.into());
        let mask = LogitMask {
            params: self.params,
            logits: Update(self.logits),
            settings: Read(self.settings),
            masks: Some(Read(self.masks)),
            banned_starts: Some(Read(self.banned_starts)),
            banned: Some(Read(self.banned)),
            bias_starts: Some(Read(self.bias_starts)),
            bias_tokens: Some(Read(self.bias_tokens)),
            bias_values: Some(Read(self.bias_values)),
            counts: Some(Update(self.counts)),
            counted_starts: Some(Read(self.counted_starts)),
            counted: Some(Read(self.counted)),
            rows: Some(Read(count)),
        };
        commands.push(mask.into());
    }

    /// The writes of a launch that copies logits.
    pub fn writes<'a>(&self, masks: &'a Masks, writes: &mut Vec<(Slice, &'a [u8])>) {
        self.write_masks(masks, writes);
        writes.push(part(self.settings, bytemuck::cast_slice(&masks.rows)));
        for (slice, list) in [
            (self.banned_starts, &masks.banned_starts),
            (self.banned, &masks.banned),
            (self.bias_starts, &masks.bias_starts),
            (self.bias_tokens, &masks.bias_tokens),
            (self.counted_starts, &masks.counted_starts),
            (self.counted, &masks.counted),
        ] {
            writes.push(part(slice, list));
        }
        writes.push(part(self.bias_values, bytemuck::cast_slice(&masks.bias_values)));
        for (slot, counts) in &masks.slots {
            let stride = 2 * self.params.counts_stride;
            writes.push(placed(self.counts, *slot, stride, bytemuck::cast_slice(counts)));
        }
    }

    /// The writes of a launch whose masks are read as tokens are drawn.
    pub fn row_writes<'a>(&self, masks: &'a Masks, writes: &mut Vec<(Slice, &'a [u8])>) {
        self.write_masks(masks, writes);
        writes.push(part(self.row_masks, bytemuck::cast_slice(&masks.row_masks)));
    }

    /// Masks that are new.
    fn write_masks<'a>(&self, masks: &'a Masks, writes: &mut Vec<(Slice, &'a [u8])>) {
        let words = self.params.mask_words as usize;
        for (at, mask) in masks.mask_places.iter().zip(masks.mask_words.chunks(words)) {
            writes.push(placed(self.masks, *at, 4 * words as u64, bytemuck::cast_slice(mask)));
        }
    }
}

/// The bytes of one of many that lie so far apart.
fn placed(all: Slice, at: u32, stride_bytes: u64, bytes: &[u8]) -> (Slice, &[u8]) {
    let offset = all.offset + u64::from(at) * stride_bytes;
    (Slice { offset, bytes: bytes.len() as u64, ..all }, bytes)
}

/// What the scores of a prompt's tokens read and write.
pub(super) struct Scores {
    /// `[SCORES_AT_ONCE]` u32: rows of the step.
    pub rows: Slice,
    pub count: Slice,
    /// `[SCORES_AT_ONCE]` u32: the token after each.
    pub tokens: Slice,
    pub logprob: Slice,
    pub status: Slice,
    /// `[SCORES_AT_ONCE, hidden]` f32.
    gathered: Slice,
}

impl Scores {
    pub fn alloc(backend: &mut dyn Backend, width: u32) -> Result<Self, Error> {
        Ok(Self {
            rows: words(backend, SCORES_AT_ONCE)?,
            count: words(backend, 1u32)?,
            tokens: words(backend, SCORES_AT_ONCE)?,
            logprob: words(backend, SCORES_AT_ONCE)?,
            status: words(backend, SCORES_AT_ONCE)?,
            gathered: words(backend, SCORES_AT_ONCE * width)?,
        })
    }

    /// The log-probabilities of tokens after rows of `hidden`.
    pub fn record(
        &self,
        hidden: Slice,
        (x_rows, width): (u32, u32),
        (weight, packed): (params::Weight, Slice),
        commands: &mut Vec<Command>,
    ) {
        let gather = Gather {
            params: params::Gather {
                x_row_stride: width.into(),
                out_row_stride: width.into(),
                x_rows,
                rows_max: SCORES_AT_ONCE,
                columns: width,
                dtype: F32,
            },
            x: Read(hidden),
            indices: Read(self.rows),
            out: Write(self.gathered),
            rows: Some(Read(self.count)),
        };
        commands.push(gather.into());
        let score = TokenLogprob {
            params: params::TokenLogprob {
                x_row_stride: width.into(),
                rows_max: SCORES_AT_ONCE,
                x_dtype: F32,
                bias_dtype: 0,
                reserved: 0,
                weight,
            },
            x: Read(self.gathered),
            weight: Read(packed),
            bias: None,
            token: Read(self.tokens),
            logprob: Write(self.logprob),
            status: Write(self.status),
            rows: Some(Read(self.count)),
        };
        commands.push(score.into());
    }
}

/// Divides a hidden state by its length, by a program of its own: `room` takes the two
/// bounds of its one row, the row, and then the result.
pub(super) fn normalise(
    backend: &mut dyn Backend,
    room: Slice,
    hidden: &[f32],
) -> Result<Vec<f32>, Error> {
    let width = hidden.len() as u32;
    let bytes = 4 * u64::from(width);
    let starts = Slice { bytes: 8, ..room };
    let x = Slice { offset: room.offset + 8, bytes, ..room };
    let out = Slice { offset: x.offset + bytes, bytes, ..room };
    let command = Pool {
        params: params::Pool {
            x_row_stride: width.into(),
            out_row_stride: width.into(),
            rows_max: 1,
            seqs_max: 1,
            columns: width,
            kind: params::POOL_LAST,
            x_dtype: F32,
            normalise: 1,
        },
        x: Read(x),
        starts: Read(starts),
        out: Write(out),
        seqs: None,
    };
    let program = backend.record(&[command.into()])?;
    let bounds = [0, 1];
    let writes = [(x, bytemuck::cast_slice(hidden)), part(starts, &bounds)];
    let normalised = submit(backend, &writes, program, &[out]);
    backend.forget(program).and(normalised).map(|words| floats(&words))
}
