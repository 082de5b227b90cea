//! A model that guesses, with the noise of the one that it guesses for, so that it agrees
//! where their distributions nearly do. What it cannot know, or has lost, makes a guess
//! worse, and never a token wrong.
//!
//! A smaller model has keys and values of its own in pages of the same numbers, so that
//! whatever is shared, copied or given back is so for both. The base of an adapter reads
//! those that are there; what it writes past them is written over when its guess is computed.

use super::admit::Run;
use super::check::refused;
use super::device::{Asked, Device, Work};
use super::drawn::Draws;
use super::sampling::sample_row;
use super::versions::policy_at;
use super::{Engine, OpenError};
use crate::model::{Batch, Model};
use crate::weights::Aside;
use kernels_core::Error;
use kernels_core::device::{Backend, DeviceMemory};
use kernels_core::params::SampleRow;
use std::collections::HashSet;

/// The version of a smaller model's weights, which never change.
const DRAFTER: u64 = 0;
/// That of the base's weights in another format.
const REPACKED: u64 = u64::MAX;

/// A model that guesses for another.
pub(super) struct Drafter {
    by: By,
    batch: Batch,
}

/// Who guesses.
enum By {
    /// A smaller model.
    Model(Box<Device>),
    /// The base, by its weights in another format, or by those that an answer has: these
    /// guess for adapters alone.
    Base { repacked: bool },
}

/// A sequence in the making of its guess.
struct Drafted {
    /// Which run.
    run: usize,
    /// Tokens that it shall have.
    len: usize,
    tokens: Vec<u32>,
    settings: SampleRow,
}

impl Engine {
    /// Has a smaller model guess, which must know the same tokens.
    pub fn with_drafter(self, backend: Box<dyn Backend>, model: Model) -> Result<Self, OpenError> {
        let (vocab, other) = (self.config().vocab, model.config().vocab);
        if vocab != other {
            let expected = format!("a model of {vocab} tokens, as the one it guesses for");
            return Err(refused("drafter", expected, other).into());
        }
        let capacity = self.settings.capacity();
        let device = Device::new(backend, model, DRAFTER, capacity, Asked::Guesses)?;
        Ok(self.guessed_by(By::Model(Box::new(device))))
    }

    /// Has the base guess for its adapters; and for all, where its weights come in another
    /// format, loaded to the backend of the engine.
    pub fn with_base_drafter(mut self, repacked: Option<Model>) -> Result<Self, OpenError> {
        let by = By::Base { repacked: repacked.is_some() };
        if let Some(model) = repacked {
            if model.config() != self.config() {
                let expected = format!("the shape of the base, {:?}", self.config());
                return Err(refused("drafter", expected, format!("{:?}", model.config())).into());
            }
            self.device.insert_model(REPACKED, model);
        }
        Ok(self.guessed_by(by))
    }

    /// A base that guesses by weights in another format has these from now on.
    pub fn renew_base_drafter(&mut self, (aside, model): (Aside, Model)) -> Result<(), OpenError> {
        if !self.guesses_repacked() || model.config() != self.config() {
            let expected = "the base's shape, where the base guesses in another format";
            return Err(refused("drafter", expected, format!("{:?}", model.config())).into());
        }
        self.device.replace_model(REPACKED, aside, model)?;
        Ok(())
    }

    /// Whether the base guesses by weights in another format.
    fn guesses_repacked(&self) -> bool {
        let by = self.drafter.as_ref().map(|drafter| &drafter.by);
        matches!(by, Some(By::Base { repacked: true }))
    }

    fn guessed_by(mut self, by: By) -> Self {
        let batch = Batch::new(self.settings.page_len);
        self.drafter = Some(Drafter { by, batch });
        self
    }

    /// Whether a model guesses for a sequence.
    pub(super) fn is_drafted(&self, run: &Run) -> bool {
        match self.drafter.as_ref().map(|drafter| &drafter.by) {
            None => false,
            Some(By::Model(_) | By::Base { repacked: true }) => true,
            Some(By::Base { repacked: false }) => {
                policy_at(&self.running[&run.id].spans, run.first).adapter.is_some()
            }
        }
    }

    /// A smaller model keeps up with the runs of a step; whoever guesses guesses so many
    /// tokens of each, for which pages are at hand. A device that fails guesses nothing.
    pub(super) fn draft(&mut self, weights: u64, runs: &[Run], lens: &[usize]) -> Vec<Vec<u32>> {
        let none = vec![Vec::new(); runs.len()];
        let Some(mut drafter) = self.drafter.take() else { return none };
        let outcome = self.drafted(&mut drafter, weights, runs, lens);
        self.drafter = Some(drafter);
        outcome.unwrap_or_else(|_| {
            self.counters.failed_guesses += 1;
            none
        })
    }

    fn drafted(
        &mut self,
        drafter: &mut Drafter,
        weights: u64,
        runs: &[Run],
        lens: &[usize],
    ) -> Result<Vec<Vec<u32>>, Error> {
        let (mut all, mut rows) = self.catch_up(drafter, runs, lens);
        if drafter.batch.rows() == 0 {
            return Ok(vec![Vec::new(); runs.len()]);
        }
        drafter.run(&mut self.device, weights)?;
        let mut guesses = vec![Vec::new(); runs.len()];
        while !all.is_empty() {
            let settings: Vec<SampleRow> = all.iter().map(Drafted::row).collect();
            let draws =
                Draws { rows: &rows, settings: &settings, masks: None, top: 0, kept: false };
            let drawn = drafter.device(&mut self.device).draw(&draws)?;
            for (drafted, drawn) in all.iter_mut().zip(drawn) {
                drafted.tokens.push(drawn.token);
            }
            for done in all.extract_if(.., |drafted| drafted.tokens.len() == drafted.len) {
                guesses[done.run] = done.tokens;
            }
            if all.is_empty() {
                break;
            }
            drafter.batch.clear();
            rows.clear();
            for drafted in &all {
                let sequence = &self.running[&runs[drafted.run].id];
                let first = (sequence.tokens.len() + drafted.tokens.len() - 1) as u32;
                let last = &drafted.tokens[drafted.tokens.len() - 1..];
                let pages: Vec<u32> = sequence.table.pages().iter().map(|page| page.0).collect();
                rows.push(drafter.batch.push(first, last, &pages).start);
            }
            drafter.run(&mut self.device, weights)?;
        }
        Ok(guesses)
    }

    /// Fills a batch with what whoever guesses has not computed of the runs: of the base it
    /// is the last token. Says of whom something is guessed, and after which rows.
    fn catch_up(
        &mut self,
        drafter: &mut Drafter,
        runs: &[Run],
        lens: &[usize],
    ) -> (Vec<Drafted>, Vec<u32>) {
        let (mut all, mut rows) = (Vec::new(), Vec::new());
        // Places of keys that the batch writes: those of shared pages are one sequence's.
        let mut written = HashSet::new();
        let page_len = self.settings.page_len as usize;
        let keeps_up = matches!(drafter.by, By::Model(_));
        drafter.batch.clear();
        let mut left = self.settings.capacity().rows_max as usize;
        for (at, (run, &len)) in runs.iter().zip(lens).enumerate() {
            if len == 0 && !keeps_up {
                continue;
            }
            let sequence = self.running.get_mut(&run.id).expect("it runs");
            if run.copy.is_some() {
                // Only the model itself has the copied page.
                let whole = run.first / page_len * page_len;
                sequence.drafted = sequence.drafted.min(whole);
            }
            let end = run.first + run.tokens as usize;
            let pages: Vec<u32> = sequence.table.pages().iter().map(|page| page.0).collect();
            let place = |at: usize| (pages[at / page_len], at % page_len);
            let first = if keeps_up { sequence.drafted.min(end - 1) } else { end - 1 };
            let taken = (first..end).rev().find(|at| written.contains(&place(*at)));
            let first = taken.map_or(first, |at| at + 1);
            if first == end {
                continue;
            }
            if end - first > left {
                continue;
            }
            left -= end - first;
            sequence.drafted = end;
            written.extend((first..end).map(place));
            let tokens = &sequence.tokens[first..end];
            let of = drafter.batch.push(first as u32, tokens, &pages);
            if len > 0 {
                rows.push(of.end - 1);
                let generate = self.groups[&sequence.request].generate().expect("it draws");
                let settings = sample_row(&generate.sampling, sequence);
                all.push(Drafted { run: at, len, tokens: Vec::new(), settings });
            }
        }
        (all, rows)
    }
}

impl Drafter {
    /// How a device of its own failed, if it has one that did.
    pub fn failure(&self) -> Option<Error> {
        match &self.by {
            By::Model(device) => device.failure(),
            By::Base { .. } => None,
        }
    }

    /// The memory of a device of its own.
    pub fn memory(&self) -> Option<DeviceMemory> {
        match &self.by {
            By::Model(device) => device.memory(),
            By::Base { .. } => None,
        }
    }

    pub fn has_pages(&self) -> bool {
        match &self.by {
            By::Model(device) => device.has_pages(),
            By::Base { .. } => true,
        }
    }

    pub fn release_pages(&mut self) -> Result<(), Error> {
        match &mut self.by {
            By::Model(device) => device.release_pages(),
            By::Base { .. } => Ok(()),
        }
    }

    pub fn take_pages(&mut self) -> Result<(), Error> {
        match &mut self.by {
            By::Model(device) => device.take_pages(),
            By::Base { .. } => Ok(()),
        }
    }

    /// Where it computes.
    fn device<'a>(&'a mut self, engine: &'a mut Device) -> &'a mut Device {
        match &mut self.by {
            By::Model(device) => device,
            By::Base { .. } => engine,
        }
    }

    /// Computes its batch, for answers that have these weights.
    fn run(&mut self, engine: &mut Device, weights: u64) -> Result<(), Error> {
        let (device, weights) = match &mut self.by {
            By::Model(device) => (&mut **device, DRAFTER),
            By::Base { repacked: true } => (engine, REPACKED),
            By::Base { repacked: false } => (engine, weights),
        };
        let work = Work { weights, batch: &self.batch, copies: &[] };
        device.run(&work, None).map(drop)
    }
}

impl Drafted {
    /// How its next token is drawn.
    fn row(&self) -> SampleRow {
        let position = self.settings.position + self.tokens.len() as u32;
        SampleRow { position, ..self.settings }
    }
}
