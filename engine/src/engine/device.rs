//! The engine's side of a backend: memory for a step, programs recorded when they are
//! first needed, results as plain values.

use super::check::{BANNED_MAX, BIAS_MAX};
use super::drawn::{Changed, Drawn, Draws};
use super::memory::Copy;
use super::record::{self, Logits, Masked, Sampled, Scores, Told};
use super::sampling::Masks;
use super::watched::Watched;
use crate::lora::{self, Image, Slots};
use crate::model::step::part;
use crate::model::{Batch, Capacity, Config, LogitRows, Model, Place, Scratch, Slabs, StepSlices};
use crate::weights::Aside;
use kernels_core::Error;
use kernels_core::device::{Backend, Command, DeviceMemory, Launch, Program, Slice};
use kernels_core::params::{LORA_NONE, SampleRow};
use std::collections::{BTreeMap, HashMap};

/// Lists of most likely tokens come in these lengths; a list that is shorter is the
/// beginning of a longer one.
const TOPS: [u32; 4] = [0, 8, 32, 128];

/// A backend with a model on it.
pub(super) struct Device {
    backend: Watched,
    /// The versions of its weights that are in use, all of one shape.
    models: BTreeMap<u64, Model>,
    config: Config,
    /// Adapters over them.
    slots: Option<Slots>,
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
    /// Room for one of them, divided by its length.
    pooled: Slice,
    /// The weights of the last step, and the slots of its rows.
    last: (u64, Vec<u32>),
    programs: HashMap<Kind, Program>,
    asked: Asked,
}

/// What a device is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// All that requests may ask for.
    Anything,
    /// The tokens that a drafter guesses.
    Guesses,
}

/// What a program does, with which weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// A forward pass, of rows with adapters or all without, and tokens drawn after rows of
    /// it.
    Step { weights: u64, adapted: bool, copies: bool, draws: Option<Sampling> },
    /// Tokens drawn after rows of the last step.
    Draws { weights: u64, sampling: Sampling },
    /// Log-probabilities of given tokens after rows of the last step.
    Scores { weights: u64 },
    /// Nothing: for what can be read.
    Nothing,
}

impl Kind {
    /// A step without adapters.
    fn step(weights: u64, sampling: Sampling) -> Self {
        Self::Step { weights, adapted: false, copies: true, draws: Some(sampling) }
    }
}

/// How a program draws.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sampling {
    changed: Changed,
    /// Whether adapters may add to the logits.
    adapted: bool,
    /// Whether the tokens that were kept are told.
    kept: bool,
    top: u32,
}

/// One step.
pub(super) struct Work<'a> {
    /// The version of the weights.
    pub weights: u64,
    pub batch: &'a Batch,
    pub copies: &'a [Copy],
}

impl Device {
    /// A model, its weights of that version.
    pub fn new(
        backend: Box<dyn Backend>,
        model: Model,
        weights: u64,
        capacity: Capacity,
        asked: Asked,
    ) -> Result<Self, Error> {
        let mut backend = Watched::new(backend);
        let to = backend.as_mut();
        let config = model.config().clone();
        let step = StepSlices::alloc(to, &capacity)?;
        let slabs = Slabs::alloc(to, &config, &capacity)?;
        let scratch = Scratch::alloc(to, &config, &capacity)?;
        let rows = capacity.logit_rows_max;
        let [indices, count] = [words(to, rows)?, words(to, 1u32)?];
        let copies = words(to, capacity.seqs_max * (size_of::<Copy>() / 4) as u32)?;
        let copy_count = words(to, 1u32)?;
        let sampled = Sampled::alloc(to, rows, TOPS[TOPS.len() - 1])?;
        let pooled = words(to, 2 * (1 + u64::from(config.hidden)))?;
        let mut device = Self {
            backend,
            models: BTreeMap::from([(weights, model)]),
            config,
            slots: None,
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
            pooled,
            last: (weights, Vec::new()),
            programs: HashMap::new(),
            asked,
        };
        device.take_most(weights)?;
        // So that what cannot be served is refused now.
        let draws = Sampling { changed: Changed::No, adapted: false, kept: false, top: 0 };
        device.program(Kind::step(weights, draws))?;
        Ok(device)
    }

    /// Where memory is a device's own, all that requests may ask for is taken before they do, the
    /// largest first, so that programs share its scratch: none runs memory out under the answers
    /// of others. What is left for a program of another kind is its graph.
    fn take_most(&mut self, weights: u64) -> Result<(), Error> {
        if self.asked == Asked::Guesses || self.memory().is_none() {
            return Ok(());
        }
        let top = TOPS[TOPS.len() - 1];
        let draws = Sampling { changed: Changed::Copied, adapted: false, kept: true, top };
        self.program(Kind::step(weights, draws))?;
        self.program(Kind::Scores { weights }).map(drop)
    }

    /// The shape of its model.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// How it failed, if it did: it computes nothing any more.
    pub fn failure(&self) -> Option<Error> {
        self.backend.failure()
    }

    /// Its memory, where that is not the host's and it tells.
    pub fn memory(&self) -> Option<DeviceMemory> {
        self.backend.memory().ok().flatten()
    }

    /// Elements of a hidden state.
    pub fn width(&self) -> u32 {
        self.config.hidden
    }

    /// Makes slots for adapters.
    pub fn make_slots(&mut self, settings: lora::Settings) -> Result<(), Error> {
        let rows = [self.capacity.rows_max, self.capacity.logit_rows_max];
        self.slots = Some(Slots::alloc(self.backend.as_mut(), &self.config, settings, rows)?);
        Ok(())
    }

    /// Makes room for what an adapter adds to.
    pub fn make_room(&mut self, image: &Image) -> Result<(), Error> {
        let slots = self.slots.as_mut().expect("adapters are taken where there are slots");
        let outcome = slots.make_room(self.backend.as_mut(), image);
        if outcome != Ok(false) {
            // Also where some of it failed: what there is now is not what was recorded.
            self.forget(|kind| match kind {
                Kind::Step { adapted, .. } => *adapted,
                Kind::Draws { sampling, .. } => sampling.adapted,
                Kind::Scores { .. } | Kind::Nothing => false,
            })?;
        }
        outcome.map(drop)
    }

    /// Writes about so many bytes more of an adapter. Says whether it is there whole.
    pub fn stage(
        &mut self,
        image: &Image,
        work: &mut lora::Work,
        bytes: usize,
    ) -> Result<bool, Error> {
        let slots = self.slots.as_ref().expect("adapters are taken where there are slots");
        slots.write(self.backend.as_mut(), image, work, bytes)
    }

    /// Whether there is memory for keys and values.
    pub fn has_pages(&self) -> bool {
        !self.slabs.layers.is_empty()
    }

    /// Gives the memory for keys and values back; until it is taken again no step may run.
    pub fn release_pages(&mut self) -> Result<(), Error> {
        // What was recorded names that memory.
        self.forget(|_| true)?;
        self.slabs.give_back(self.backend.as_mut())
    }

    /// Takes memory for keys and values again.
    pub fn take_pages(&mut self) -> Result<(), Error> {
        if self.has_pages() {
            return Ok(());
        }
        self.slabs = Slabs::alloc(self.backend.as_mut(), &self.config, &self.capacity)?;
        let models: Vec<u64> = self.models.keys().copied().collect();
        let taken = models.into_iter().try_for_each(|weights| self.take_most(weights));
        if taken.is_err() {
            self.release_pages()?;
        }
        taken
    }

    /// Takes other weights beside those it has.
    pub fn add_model(&mut self, weights: u64, aside: Aside, model: Model) -> Result<(), Error> {
        let model = aside.bring(model, self.backend.as_mut())?;
        self.insert_model(weights, model);
        // Before those that go take the scratch along.
        self.take_most(weights).inspect_err(|_| self.drop_model(weights))
    }

    /// The same, in the place of those that have the number now, which go.
    pub fn replace_model(&mut self, weights: u64, aside: Aside, model: Model) -> Result<(), Error> {
        let model = aside.bring(model, self.backend.as_mut())?;
        self.drop_model(weights);
        self.insert_model(weights, model);
        Ok(())
    }

    /// Takes other weights that are on its backend already.
    pub fn insert_model(&mut self, weights: u64, model: Model) {
        self.models.insert(weights, model);
    }

    /// Gives back what a version of the weights takes.
    pub fn drop_model(&mut self, weights: u64) {
        let of = |kind: &Kind| match kind {
            Kind::Step { weights, .. } | Kind::Draws { weights, .. } | Kind::Scores { weights } => {
                Some(*weights)
            }
            Kind::Nothing => None,
        };
        let forgotten = self.forget(|kind| of(kind) == Some(weights));
        let model = self.models.remove(&weights);
        let released = model.map(|model| model.release(self.backend.as_mut()));
        // A backend refuses its own program or buffer where it has failed: the steps to come
        // tell that.
        let _ = (forgotten, released);
    }

    fn forget(&mut self, stale: impl Fn(&Kind) -> bool) -> Result<(), Error> {
        for (_, program) in self.programs.extract_if(|kind, _| stale(kind)) {
            self.backend.forget(program)?;
        }
        Ok(())
    }

    fn sampling(&self, draws: &Draws<'_>) -> Sampling {
        let adapts = self.slots.as_ref().is_some_and(Slots::changes_output);
        let slot = |row: &u32| self.last.1.get(*row as usize).copied();
        let adapted =
            adapts && draws.rows.iter().any(|row| slot(row).is_some_and(|slot| slot != LORA_NONE));
        let (changed, kept) = (draws.changed(), draws.kept);
        Sampling { changed, adapted, kept, top: top_of(draws.top) }
    }

    /// Runs a step; a token for each of the draws.
    pub fn run(&mut self, work: &Work<'_>, draws: Option<&Draws<'_>>) -> Result<Vec<Drawn>, Error> {
        let copies = !work.copies.is_empty();
        let (weights, adapted) = (work.weights, work.batch.is_adapted());
        self.last.0 = weights;
        self.last.1.clear();
        self.last.1.extend(work.batch.adapters());
        let sampling = draws.map(|draws| self.sampling(draws));
        let program = self.program(Kind::Step { weights, adapted, copies, draws: sampling })?;
        let copy_count = [work.copies.len() as u32];
        let chosen = self.slots.as_ref().filter(|_| adapted);
        let chosen = chosen.map(|slots| slots.chosen(work.batch.tokens(), work.batch.adapters()));
        let mut writes = work.batch.writes(&self.step).to_vec();
        if let (Some(slots), Some(chosen)) = (&self.slots, &chosen) {
            writes.extend(slots.writes(chosen));
        }
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
        let kind = Kind::Draws { weights: self.last.0, sampling: self.sampling(draws) };
        let program = self.program(kind)?;
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
        let adapted = self.sampling(draws).adapted;
        let slots: Vec<u32> =
            draws.rows.iter().filter(|_| adapted).map(|&row| self.last.1[row as usize]).collect();
        let mut writes = step.to_vec();
        if let Some(all) = self.slots.as_ref().filter(|_| adapted) {
            writes.push(all.logit_writes(&slots));
        }
        writes.push(part(self.logit_rows.indices, draws.rows));
        writes.push(part(self.logit_rows.count, &count));
        writes.push(part(self.sampled.settings, bytemuck::cast_slice(draws.settings)));
        if let (Some(masks), Some(masked)) = (draws.masks, &self.masked) {
            match draws.changed() {
                Changed::Copied => masked.writes(masks, &mut writes),
                Changed::Masked | Changed::No => masked.row_writes(masks, &mut writes),
            }
        }
        let reads = self.sampled.reads(count[0], top, draws.kept);
        let words = submit(self.backend.as_mut(), &writes, program, &reads)?;
        let kept_words = if draws.kept { self.config.vocab.div_ceil(32) } else { 0 };
        Ok(Drawn::read(&words, draws.rows.len(), top as usize, kept_words as usize))
    }

    /// The log-probability of a token after each of some rows of the last step, and
    /// whether their logits were finite.
    pub fn score(&mut self, rows: &[u32], tokens: &[u32]) -> Result<Vec<(f32, u32)>, Error> {
        let adapts = self.slots.as_ref().is_some_and(Slots::changes_output);
        let adapted = |row: &u32| self.last.1[*row as usize] != LORA_NONE;
        if adapts && rows.iter().any(adapted) {
            return self.score_by_logits(rows, tokens);
        }
        let program = self.program(Kind::Scores { weights: self.last.0 })?;
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

    /// The same where adapters add to logits: those are made, and nothing else may be drawn.
    fn score_by_logits(&mut self, rows: &[u32], tokens: &[u32]) -> Result<Vec<(f32, u32)>, Error> {
        let mut all = Vec::with_capacity(rows.len());
        let greedy = SampleRow { top_p: 1.0, ..SampleRow::default() };
        let at_once = self.capacity.logit_rows_max as usize;
        let mut masks = Masks::new(self.config.vocab, Vec::new(), at_once as u32);
        for (rows, tokens) in rows.chunks(at_once).zip(tokens.chunks(at_once)) {
            masks.clear();
            tokens.iter().for_each(|&token| masks.push_forced(token));
            let settings = vec![greedy; rows.len()];
            let draws =
                Draws { rows, settings: &settings, masks: Some(&masks), top: 0, kept: false };
            all.extend(self.draw(&draws)?.iter().map(|drawn| (drawn.raw, drawn.status)));
        }
        Ok(all)
    }

    /// The `top` most likely tokens after each of some rows of the last step.
    pub fn tops(&mut self, rows: &[u32], top: u32) -> Result<Vec<Vec<(u32, f32)>>, Error> {
        let mut all = Vec::with_capacity(rows.len());
        let greedy = SampleRow { top_p: 1.0, ..SampleRow::default() };
        for rows in rows.chunks(self.capacity.logit_rows_max as usize) {
            let settings = vec![greedy; rows.len()];
            let draws = Draws { rows, settings: &settings, masks: None, top, kept: false };
            let drawn = self.draw(&draws)?;
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
        record::normalise(self.backend.as_mut(), self.pooled, hidden)
    }

    /// The program of a kind, recorded if it is the first of it.
    fn program(&mut self, kind: Kind) -> Result<Program, Error> {
        if let Some(&program) = self.programs.get(&kind) {
            return Ok(program);
        }
        let mut commands = Vec::new();
        match kind {
            Kind::Step { weights, adapted, copies, draws } => {
                if copies {
                    self.record_copies(&mut commands);
                }
                let place = self.place(adapted);
                self.hidden = self.models[&weights].forward(&place, &mut commands);
                if let Some(sampling) = draws {
                    self.record_sampling(weights, sampling, &mut commands)?;
                }
            }
            Kind::Draws { weights, sampling } => {
                self.record_sampling(weights, sampling, &mut commands)?;
            }
            Kind::Scores { weights } => self.record_scores(weights, &mut commands)?,
            Kind::Nothing => {}
        }
        let program = self.backend.record(&commands)?;
        self.programs.insert(kind, program);
        Ok(program)
    }

    fn place(&self, adapted: bool) -> Place<'_> {
        Place {
            capacity: &self.capacity,
            step: &self.step,
            slabs: &self.slabs,
            scratch: &self.scratch,
            adapters: self.slots.as_ref().filter(|_| adapted),
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
        weights: u64,
        Sampling { changed, adapted, kept, top }: Sampling,
        commands: &mut Vec<Command>,
    ) -> Result<(), Error> {
        let (vocab, rows) = (self.config.vocab, self.capacity.logit_rows_max);
        if kept {
            self.sampled.keep(self.backend.as_mut(), rows, vocab)?;
        }
        let told = Told { top_n: top, kept };
        let count = self.logit_rows.count;
        let model = &self.models[&weights];
        let logits = model.logits(&self.place(adapted), self.hidden, self.logit_rows, commands);
        if changed != Changed::No && self.masked.is_none() {
            let [banned, biased] = [BANNED_MAX as u32, BIAS_MAX as u32];
            let masked = Masked::alloc(self.backend.as_mut(), rows, vocab, [banned, biased])?;
            self.masked = Some(masked);
        }
        let masked = self.masked.as_ref().filter(|_| changed != Changed::No);
        let own = match masked.filter(|_| changed == Changed::Copied) {
            None => logits,
            Some(masked) => {
                masked.record(logits, count, commands);
                masked.logits
            }
        };
        let raw = masked.map(|_| logits);
        let masked = masked.filter(|_| changed == Changed::Masked);
        let from = Logits { own, raw, masked };
        commands.push(self.sampled.sample(from, told, (rows, vocab), count));
        Ok(())
    }

    fn record_scores(&mut self, weights: u64, commands: &mut Vec<Command>) -> Result<(), Error> {
        let (width, rows_max) = (self.width(), self.capacity.rows_max);
        let scores = match self.scores.take() {
            Some(scores) => scores,
            None => Scores::alloc(self.backend.as_mut(), width)?,
        };
        scores.record(
            self.hidden,
            (rows_max, width),
            self.models[&weights].output_weight(),
            commands,
        );
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
