//! The engine's side of a backend: memory for a step, programs recorded when they are
//! first needed, results as plain values.

use super::check::{BANNED_MAX, BIAS_MAX};
use super::memory::Copy;
use super::record::{self, Masked, Sampled, Scores};
use super::sampling::Masks;
use crate::model::step::part;
use crate::model::{Batch, Capacity, LogitRows, Model, Place, Scratch, Slabs, StepSlices};
use kernels_core::Error;
use kernels_core::device::{Backend, Command, Launch, Program, Slice};
use kernels_core::params::{self, SampleRow};
use std::collections::HashMap;

/// Lists of most likely tokens come in these lengths; a list that is shorter is the
/// beginning of a longer one.
const TOPS: [u32; 4] = [0, 8, 32, 128];

/// A backend with a model on it.
pub(super) struct Device {
    backend: Box<dyn Backend>,
    pub model: Model,
    capacity: Capacity,
    step: StepSlices,
    slabs: Slabs,
    scratch: Scratch,
    logit_rows: LogitRows,
    copies: Slice,
    copy_count: Slice,
    sampled: Sampled,
    /// Made with the first step that needs them.
    masked: Option<Masked>,
    scores: Option<Scores>,
    /// `[rows_max, hidden]` f32, of the last step.
    hidden: Slice,
    programs: HashMap<Kind, Program>,
}

/// What a program does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A forward pass, and tokens drawn after rows of it.
    Step { copies: bool, draws: Option<Sampling> },
    /// Tokens drawn after rows of the last step.
    Draws(Sampling),
    /// Log-probabilities of given tokens after rows of the last step.
    Scores,
    /// Nothing: for what can be read.
    Nothing,
}

/// How a program draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sampling {
    masked: bool,
    top: u32,
}

/// One step.
pub(super) struct Work<'a> {
    pub batch: &'a Batch,
    pub copies: &'a [Copy],
}

/// Tokens to draw after a step.
pub(super) struct Draws<'a> {
    /// The row of the step that each is drawn after; at least one.
    pub rows: &'a [u32],
    pub settings: &'a [SampleRow],
    pub masks: Option<&'a Masks>,
    /// Most likely tokens to list.
    pub top: u32,
}

impl Draws<'_> {
    fn sampling(&self) -> Sampling {
        Sampling { masked: self.masks.is_some(), top: top_of(self.top) }
    }
}

/// A token that was drawn, or not.
#[derive(Clone, Debug)]
pub(super) struct Drawn {
    pub token: u32,
    pub status: u32,
    pub raw: f32,
    pub processed: f32,
    pub top: Vec<(u32, f32)>,
}

impl Device {
    pub fn new(
        mut backend: Box<dyn Backend>,
        model: Model,
        capacity: Capacity,
    ) -> Result<Self, Error> {
        let to = backend.as_mut();
        let step = StepSlices::alloc(to, &capacity)?;
        let slabs = Slabs::alloc(to, model.config(), &capacity)?;
        let scratch = Scratch::alloc(to, model.config(), &capacity)?;
        let rows = capacity.logit_rows_max;
        let [indices, count] = [words(to, rows)?, words(to, 1u32)?];
        let copies = words(to, capacity.seqs_max * (size_of::<Copy>() / 4) as u32)?;
        let copy_count = words(to, 1u32)?;
        let sampled = Sampled::alloc(to, rows, TOPS[TOPS.len() - 1])?;
        let mut device = Self {
            backend,
            model,
            capacity,
            step,
            slabs,
            scratch,
            logit_rows: LogitRows { indices, count },
            copies,
            copy_count,
            sampled,
            masked: None,
            scores: None,
            hidden: indices,
            programs: HashMap::new(),
        };
        // So that what cannot be served is refused now.
        let draws = Some(Sampling { masked: false, top: 0 });
        device.program(Kind::Step { copies: true, draws })?;
        Ok(device)
    }

    /// Elements of a hidden state.
    pub fn width(&self) -> u32 {
        self.model.config().hidden
    }

    /// Runs a step; a token for each of the draws.
    pub fn run(&mut self, work: &Work<'_>, draws: Option<&Draws<'_>>) -> Result<Vec<Drawn>, Error> {
        let copies = !work.copies.is_empty();
        let program =
            self.program(Kind::Step { copies, draws: draws.map(|draws| draws.sampling()) })?;
        let copy_count = [work.copies.len() as u32];
        let mut writes = work.batch.writes(&self.step).to_vec();
        if copies {
            writes.push(part(self.copies, bytemuck::cast_slice(work.copies)));
            writes.push(part(self.copy_count, &copy_count));
        }
        match draws {
            Some(draws) => self.drawn(program, &writes, draws),
            None => submit(self.backend.as_mut(), &writes, program, &[]).map(|_| Vec::new()),
        }
    }

    /// Draws after the last step.
    pub fn draw(&mut self, draws: &Draws<'_>) -> Result<Vec<Drawn>, Error> {
        let program = self.program(Kind::Draws(draws.sampling()))?;
        self.drawn(program, &[], draws)
    }

    /// What a program draws.
    fn drawn(
        &mut self,
        program: Program,
        step: &[(Slice, &[u8])],
        draws: &Draws<'_>,
    ) -> Result<Vec<Drawn>, Error> {
        let count = [draws.rows.len() as u32];
        let top = top_of(draws.top);
        let mut writes = step.to_vec();
        writes.push(part(self.logit_rows.indices, draws.rows));
        writes.push(part(self.logit_rows.count, &count));
        writes.push(part(self.sampled.settings, bytemuck::cast_slice(draws.settings)));
        if let (Some(masks), Some(masked)) = (draws.masks, &self.masked) {
            masked.writes(masks, &mut writes);
        }
        let reads = self.sampled.reads(count[0], top);
        let words = submit(self.backend.as_mut(), &writes, program, &reads)?;
        Ok(drawn(&words, draws.rows.len(), top as usize))
    }

    /// The log-probability of a token after each of some rows of the last step, and
    /// whether their logits were finite.
    pub fn score(&mut self, rows: &[u32], tokens: &[u32]) -> Result<Vec<(f32, u32)>, Error> {
        let program = self.program(Kind::Scores)?;
        let scores = self.scores.as_ref().expect("its program is recorded");
        let mut all = Vec::with_capacity(rows.len());
        let at_once = record::SCORES_AT_ONCE as usize;
        for (rows, tokens) in rows.chunks(at_once).zip(tokens.chunks(at_once)) {
            let count = [rows.len() as u32];
            let writes =
                [part(scores.rows, rows), part(scores.tokens, tokens), part(scores.count, &count)];
            let reads = [scores.logprob, scores.status]
                .map(|slice| Slice { bytes: 4 * u64::from(count[0]), ..slice });
            let words = submit(self.backend.as_mut(), &writes, program, &reads)?;
            let (logprobs, status) = words.split_at(rows.len());
            all.extend(logprobs.iter().map(|x| f32::from_bits(*x)).zip(status.iter().copied()));
        }
        Ok(all)
    }

    /// The `top` most likely tokens after each of some rows of the last step.
    pub fn tops(&mut self, rows: &[u32], top: u32) -> Result<Vec<Vec<(u32, f32)>>, Error> {
        let mut all = Vec::with_capacity(rows.len());
        let greedy = SampleRow { top_p: 1.0, ..SampleRow::default() };
        for rows in rows.chunks(self.capacity.logit_rows_max as usize) {
            let settings = vec![greedy; rows.len()];
            let drawn = self.draw(&Draws { rows, settings: &settings, masks: None, top })?;
            all.extend(drawn.into_iter().map(|drawn| {
                let mut list = drawn.top;
                list.truncate(top as usize);
                list
            }));
        }
        Ok(all)
    }

    /// Hidden states of some rows of the last step.
    pub fn hidden(&mut self, rows: std::ops::Range<u32>) -> Result<Vec<f32>, Error> {
        let program = self.program(Kind::Nothing)?;
        let row_bytes = 4 * u64::from(self.width());
        let offset = self.hidden.offset + u64::from(rows.start) * row_bytes;
        let bytes = u64::from(rows.end - rows.start) * row_bytes;
        let read = Slice { offset, bytes, ..self.hidden };
        let words = submit(self.backend.as_mut(), &[], program, &[read])?;
        Ok(floats(&words))
    }

    /// A hidden state divided by its length.
    pub fn normalised(&mut self, hidden: &[f32]) -> Result<Vec<f32>, Error> {
        let to = self.backend.as_mut();
        let room = words(to, 2 * (1 + hidden.len() as u64))?;
        let normalised = record::normalise(to, room, hidden);
        to.release(room.buffer).and(normalised)
    }

    /// The program of a kind, recorded if it is the first of it.
    fn program(&mut self, kind: Kind) -> Result<Program, Error> {
        if let Some(&program) = self.programs.get(&kind) {
            return Ok(program);
        }
        let mut commands = Vec::new();
        match kind {
            Kind::Step { copies, draws } => {
                if copies {
                    self.record_copies(&mut commands);
                }
                self.hidden = self.model.forward(&self.place(), &mut commands);
                if let Some(sampling) = draws {
                    self.record_sampling(sampling, &mut commands)?;
                }
            }
            Kind::Draws(sampling) => self.record_sampling(sampling, &mut commands)?,
            Kind::Scores => self.record_scores(&mut commands)?,
            Kind::Nothing => {}
        }
        let program = self.backend.record(&commands)?;
        self.programs.insert(kind, program);
        Ok(program)
    }

    fn place(&self) -> Place<'_> {
        Place {
            capacity: &self.capacity,
            step: &self.step,
            slabs: &self.slabs,
            scratch: &self.scratch,
        }
    }

    fn record_copies(&self, commands: &mut Vec<Command>) {
        for slab in &self.slabs.layers {
            // A sequence writes to one page that it shares at most.
            let entries = (self.copies, self.copy_count, self.capacity.seqs_max);
            commands.push(record::copy(self.slabs.layout, slab, entries));
        }
    }

    fn record_sampling(
        &mut self,
        Sampling { masked, top }: Sampling,
        commands: &mut Vec<Command>,
    ) -> Result<(), Error> {
        let (vocab, rows) = (self.model.config().vocab, self.capacity.logit_rows_max);
        let count = self.logit_rows.count;
        let logits = self.model.logits(&self.place(), self.hidden, self.logit_rows, commands);
        if !masked {
            commands.push(self.sampled.sample(logits, None, top, (rows, vocab), count));
            return Ok(());
        }
        let to = self.backend.as_mut();
        let masked = match self.masked.take() {
            Some(masked) => masked,
            None => Masked::alloc(to, rows, vocab, [BANNED_MAX as u32, BIAS_MAX as u32])?,
        };
        masked.record(logits, count, commands);
        let raw = Some(logits);
        commands.push(self.sampled.sample(masked.logits, raw, top, (rows, vocab), count));
        self.masked = Some(masked);
        Ok(())
    }

    fn record_scores(&mut self, commands: &mut Vec<Command>) -> Result<(), Error> {
        let (width, rows_max) = (self.width(), self.capacity.rows_max);
        let scores = match self.scores.take() {
            Some(scores) => scores,
            None => Scores::alloc(self.backend.as_mut(), width)?,
        };
        scores.record(self.hidden, (rows_max, width), self.model.output_weight(), commands);
        self.scores = Some(scores);
        Ok(())
    }
}

/// The shortest list that holds so many.
fn top_of(top: u32) -> u32 {
    TOPS.into_iter().find(|&list| list >= top).expect("requests ask for no more")
}

/// Memory of so many 32-bit numbers.
pub(super) fn words(backend: &mut dyn Backend, count: impl Into<u64>) -> Result<Slice, Error> {
    let bytes = 4 * count.into().max(1);
    Ok(Slice { buffer: backend.alloc(bytes)?, offset: 0, bytes })
}

/// The floats that words are the bits of.
pub(super) fn floats(words: &[u32]) -> Vec<f32> {
    words.iter().map(|bits| f32::from_bits(*bits)).collect()
}

/// Runs a program and takes what it wrote.
pub(super) fn submit(
    backend: &mut dyn Backend,
    writes: &[(Slice, &[u8])],
    program: Program,
    reads: &[Slice],
) -> Result<Vec<u32>, Error> {
    let ticket = backend.submit(Launch { writes, program, reads })?;
    let bytes: u64 = reads.iter().map(|slice| slice.bytes).sum();
    let mut words = vec![0u32; (bytes / 4) as usize];
    backend.collect(ticket, bytemuck::cast_slice_mut(&mut words))?;
    Ok(words)
}

/// The results of sampling, from the words of [`Sampled::reads`].
fn drawn(words: &[u32], rows: usize, top: usize) -> Vec<Drawn> {
    let (ones, tops) = words.split_at(4 * rows);
    let (tokens, logprobs) = tops.split_at(rows * top);
    let of = |row: usize| {
        let listed = tokens[row * top..][..top].iter().zip(&logprobs[row * top..][..top]);
        let listed = listed.filter(|(token, _)| **token != params::NONE);
        Drawn {
            token: ones[row],
            status: ones[rows + row],
            raw: f32::from_bits(ones[2 * rows + row]),
            processed: f32::from_bits(ones[3 * rows + row]),
            top: listed.map(|(&token, &logprob)| (token, f32::from_bits(logprob))).collect(),
        }
    };
    (0..rows).map(of).collect()
}
