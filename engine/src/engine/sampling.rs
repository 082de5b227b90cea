//! How the next token of each answer is drawn, as the kernels take it.

use super::guide::Guide;
use super::sequence::Sequence;
use crate::processor::Processor;
use crate::request::{Generate, Sampling};
use kernels_core::params::{self, LogitMaskRow, SampleRow};

/// How one answer draws its next token.
pub(super) fn sample_row(sampling: &Sampling, sequence: &Sequence) -> SampleRow {
    SampleRow {
        seed: sampling.seed,
        position: sequence.tokens.len() as u32,
        fork: sequence.noise,
        temperature: temperature(sampling, sequence.generated().len()),
        top_k: sampling.top_k,
        top_p: sampling.top_p,
        min_p: sampling.min_p,
    }
}

/// The temperature of the token after so many of its answer.
fn temperature(sampling: &Sampling, place: usize) -> f32 {
    let schedule = sampling.processors.iter().find_map(|processor| match processor {
        Processor::Temperature(schedule) => Some(schedule),
        _ => None,
    });
    schedule.map_or(sampling.temperature, |schedule| schedule.at(place))
}

/// Whether penalties read what was seen and drawn.
fn counts(sampling: &Sampling) -> bool {
    (sampling.repetition, sampling.presence, sampling.frequency) != (1.0, 0.0, 0.0)
}

/// Whether the logits of an answer are not taken as they are.
pub(super) fn is_masked(generate: &Generate, sequence: &Sequence) -> bool {
    let sampling = &generate.sampling;
    counts(sampling)
        || !sampling.bias.is_empty()
        || has_set(sampling)
        || !only(sampling, sequence).is_empty()
        || !sampling.bad_words.is_empty()
        || generate.grammar.is_some()
        || sequence.generated().len() < generate.stop.min_new as usize
}

/// Whether the same tokens are allowed in every step, and not all.
fn has_set(sampling: &Sampling) -> bool {
    sampling.allowed.is_some() || sampling.processors.iter().any(Processor::is_set)
}

/// Lists of tokens of which the next one has to be.
fn only<'a>(sampling: &'a Sampling, sequence: &Sequence) -> Vec<&'a [u32]> {
    let Sequence { tokens, prompt_len, .. } = sequence;
    let lists = sampling.processors.iter();
    lists.filter_map(|processor| processor.only(tokens, *prompt_len)).collect()
}

/// What a slot counts of an answer: tokens that came, then some that were guessed.
#[derive(Clone, Debug, Default)]
pub(super) struct Counted {
    /// Tokens that came, and stay counted.
    sure: usize,
    /// Those after them, in their order.
    more: Vec<u32>,
}

impl Counted {
    fn all(generated: &[u32]) -> Self {
        Self { sure: 0, more: generated.to_vec() }
    }

    /// Has the slot count these, `changes` being what it takes.
    fn become_these(&mut self, generated: &[u32], changes: &mut Vec<u32>) {
        let after = &generated[self.sure..];
        let same = after.iter().zip(&self.more).take_while(|(a, b)| a == b).count();
        let back = self.more.drain(same..).rev();
        changes.extend(back.map(|token| token | params::COUNTED_BACK));
        changes.extend(&after[same..]);
        self.more.extend(&after[same..]);
    }

    /// So many generated tokens have come indeed.
    pub fn settle(&mut self, generated: &[u32]) {
        let after = &generated[self.sure..];
        let same = after.iter().zip(&self.more).take_while(|(a, b)| a == b).count();
        self.more.drain(..same);
        self.sure += same;
    }
}

/// What all answers of a step ask of `logit_mask`, as its step buffers have it.
#[derive(Debug)]
pub(super) struct Masks {
    /// The vocabulary.
    vocab: u32,
    /// Rows of logits: places of masks before those of the step's own.
    places: u32,
    /// Tokens with which the model ends an answer.
    eos: Vec<u32>,
    pub rows: Vec<LogitMaskRow>,
    /// Both masks of each row, as `sample` takes them.
    pub row_masks: Vec<[u32; 2]>,
    pub banned_starts: Vec<u32>,
    pub banned: Vec<u32>,
    pub bias_starts: Vec<u32>,
    pub bias_tokens: Vec<u32>,
    pub bias_values: Vec<f32>,
    pub counted_starts: Vec<u32>,
    pub counted: Vec<u32>,
    /// Counts of whole slots, where a sequence is new there.
    pub slots: Vec<(u32, Vec<u16>)>,
    /// Places of masks that are new.
    pub mask_places: Vec<u32>,
    /// Their words, one mask after the other.
    pub mask_words: Vec<u32>,
}

impl Masks {
    /// For so many rows of logits.
    pub fn new(vocab: u32, eos: Vec<u32>, places: u32) -> Self {
        let mut masks = Self {
            vocab,
            places,
            eos,
            rows: Vec::new(),
            row_masks: Vec::new(),
            banned_starts: Vec::new(),
            banned: Vec::new(),
            bias_starts: Vec::new(),
            bias_tokens: Vec::new(),
            bias_values: Vec::new(),
            counted_starts: Vec::new(),
            counted: Vec::new(),
            slots: Vec::new(),
            mask_places: Vec::new(),
            mask_words: Vec::new(),
        };
        masks.clear();
        masks
    }

    /// Forgets the rows of the step before.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.row_masks.clear();
        for starts in [&mut self.banned_starts, &mut self.bias_starts, &mut self.counted_starts] {
            starts.clear();
            starts.push(0);
        }
        self.banned.clear();
        self.bias_tokens.clear();
        self.bias_values.clear();
        self.counted.clear();
        self.slots.clear();
        self.mask_places.clear();
        self.mask_words.clear();
    }

    /// One more row: the next token of an answer; `node` is its place among its masks.
    pub fn push(&mut self, generate: &Generate, sequence: &mut Sequence, node: usize) {
        let (sampling, seat) = (&generate.sampling, sequence.seat.expect("it runs"));
        let counts = counts(sampling);
        let restricted = has_set(sampling);
        let place = self.places + self.rows.len() as u32;
        let words = self.vocab.div_ceil(32) as usize;
        let guided = match &sequence.guide {
            Some(Guide::Here { masks, .. }) => Some(&masks[node * words..][..words]),
            _ => None,
        };
        let only = only(sampling, sequence);
        let own = guided.is_some() || !only.is_empty();
        self.push_row(LogitMaskRow {
            mask: if own { place } else { params::NONE },
            action: if restricted { seat } else { params::NONE },
            slot: if counts { seat } else { params::NONE },
            // Sampling divides by it.
            temperature: 0.0,
            repetition: sampling.repetition,
            presence: sampling.presence,
            frequency: sampling.frequency,
        });
        let ended = guided.is_some_and(|mask| self.lets_only_ends(mask));
        if own {
            let mask = self.mask(place);
            if let Some(guided) = guided {
                mask.copy_from_slice(guided);
            }
            only.into_iter().for_each(|tokens| keep_only(mask, tokens));
        }
        if restricted && sequence.fresh {
            self.restrict(seat, sampling);
        }
        if counts && sequence.fresh {
            self.slots.push((seat, self.counted(sequence)));
            sequence.counted = Counted::all(sequence.generated());
        } else if counts {
            let Sequence { tokens, prompt_len, counted, .. } = sequence;
            counted.become_these(&tokens[*prompt_len..], &mut self.counted);
        }
        sequence.fresh = false;
        self.ban(generate, sequence.generated(), ended);
        self.bias_tokens.extend(sampling.bias.iter().map(|bias| bias.0));
        self.bias_values.extend(sampling.bias.iter().map(|bias| bias.1));
        self.banned_starts.push(self.banned.len() as u32);
        self.bias_starts.push(self.bias_tokens.len() as u32);
        self.counted_starts.push(self.counted.len() as u32);
    }

    /// One more row, of which nothing but a token can be drawn.
    pub fn push_forced(&mut self, token: u32) {
        let place = self.places + self.rows.len() as u32;
        self.push_row(LogitMaskRow {
            mask: place,
            action: params::NONE,
            slot: params::NONE,
            temperature: 0.0,
            repetition: 1.0,
            presence: 0.0,
            frequency: 0.0,
        });
        keep_only(self.mask(place), &[token]);
        self.banned_starts.push(0);
        self.bias_starts.push(0);
        self.counted_starts.push(0);
    }

    fn push_row(&mut self, row: LogitMaskRow) {
        self.row_masks.push([row.mask, row.action]);
        self.rows.push(row);
    }

    /// Whether rows ask for masks and for nothing else.
    pub fn are_alone(&self) -> bool {
        let listed = [&self.banned, &self.bias_tokens, &self.counted];
        listed.iter().all(|list| list.is_empty())
            && self.rows.iter().all(|row| row.slot == params::NONE)
    }

    /// Whether a mask lets nothing come but the model's ends: then they may come early.
    fn lets_only_ends(&self, mask: &[u32]) -> bool {
        let is_end = |token: u32| self.eos.contains(&token);
        let words = (0..).step_by(32).zip(mask).filter(|(_, word)| **word != 0);
        words
            .into_iter()
            .all(|(first, word)| (0..32).all(|bit| word >> bit & 1 == 0 || is_end(first + bit)))
    }

    fn ban(&mut self, generate: &Generate, generated: &[u32], ended: bool) {
        let stop = &generate.stop;
        if generated.len() < stop.min_new as usize && !ended {
            self.banned.extend(stop.tokens.iter());
            if !stop.ignore_eos {
                self.banned.extend(&self.eos);
            }
        }
        for word in generate.sampling.bad_words.iter() {
            if let Some((last, before)) = word.split_last()
                && generated.ends_with(before)
            {
                self.banned.push(*last);
            }
        }
    }

    /// The words of a mask at a place, which allows all tokens.
    fn mask(&mut self, place: u32) -> &mut [u32] {
        let first = self.mask_words.len();
        self.mask_places.push(place);
        self.mask_words.resize(first + self.vocab.div_ceil(32) as usize, u32::MAX);
        &mut self.mask_words[first..]
    }

    /// The mask of what is allowed in every step.
    fn restrict(&mut self, place: u32, sampling: &Sampling) {
        let mask = self.mask(place);
        if let Some(allowed) = &sampling.allowed {
            keep_only(mask, allowed);
        }
        for processor in sampling.processors.iter() {
            let (set, flip) = match processor {
                Processor::Allowed(set) => (set, 0),
                Processor::Disallowed(set) => (set, u32::MAX),
                _ => continue,
            };
            mask.iter_mut().zip(set.words()).for_each(|(word, own)| *word &= own ^ flip);
        }
    }

    /// The counts of all that a sequence has seen and drawn.
    fn counted(&self, sequence: &Sequence) -> Vec<u16> {
        let mut counts = vec![0u16; self.vocab as usize];
        for &token in &sequence.tokens[..sequence.prompt_len] {
            counts[token as usize] |= params::COUNT_PROMPT as u16;
        }
        for &token in sequence.generated() {
            let count = &mut counts[token as usize];
            if u32::from(*count) & params::COUNT_GENERATED < params::COUNT_GENERATED {
                *count += 1;
            }
        }
        counts
    }
}

/// Takes all but these tokens out of a mask.
fn keep_only(mask: &mut [u32], tokens: &[u32]) {
    let mut kept = vec![0; mask.len()];
    for token in tokens {
        kept[(token / 32) as usize] |= 1 << (token % 32);
    }
    mask.iter_mut().zip(kept).for_each(|(word, kept)| *word &= kept);
}
