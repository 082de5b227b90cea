//! A smaller model that guesses: its keys and values lie in pages of the same numbers, so
//! that whatever is shared, copied or given back is so for both. It draws with the noise of
//! the model that it guesses for, so that it agrees where their distributions nearly do.
//! What it cannot know, or has lost, makes a guess worse, and never a token wrong.

use super::admit::Run;
use super::check::refused;
use super::device::{Device, Draws, Work};
use super::sampling::sample_row;
use super::{Engine, OpenError};
use crate::model::{Batch, Model};
use kernels_core::Error;
use kernels_core::device::Backend;
use kernels_core::params::SampleRow;
use std::collections::HashSet;

/// The version of its weights, which never change.
const DRAFTER: u64 = 0;

/// A model that guesses for another.
pub(super) struct Drafter {
    device: Device,
    batch: Batch,
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
    pub fn with_drafter(
        mut self,
        backend: Box<dyn Backend>,
        model: Model,
    ) -> Result<Self, OpenError> {
        let (vocab, other) = (self.config().vocab, model.config().vocab);
        if vocab != other {
            let expected = format!("a model of {vocab} tokens, as the one it guesses for");
            return Err(refused("drafter", expected, other).into());
        }
        let device = Device::new(backend, model, DRAFTER, self.settings.capacity())?;
        let batch = Batch::new(self.settings.page_len);
        self.drafter = Some(Drafter { device, batch });
        Ok(self)
    }

    /// The smaller model keeps up with the runs of a step, and guesses so many tokens of
    /// each, for which pages are at hand. A device that fails guesses nothing.
    pub(super) fn draft(&mut self, runs: &[Run], lens: &[usize]) -> Vec<Vec<u32>> {
        let none = vec![Vec::new(); runs.len()];
        let Some(mut drafter) = self.drafter.take() else { return none };
        let outcome = self.drafted(&mut drafter, runs, lens);
        self.drafter = Some(drafter);
        outcome.unwrap_or_else(|_| {
            self.counters.failed_guesses += 1;
            none
        })
    }

    fn drafted(
        &mut self,
        drafter: &mut Drafter,
        runs: &[Run],
        lens: &[usize],
    ) -> Result<Vec<Vec<u32>>, Error> {
        let (mut all, mut rows) = self.catch_up(drafter, runs, lens);
        if drafter.batch.rows() == 0 {
            return Ok(vec![Vec::new(); runs.len()]);
        }
        drafter.run()?;
        let mut guesses = vec![Vec::new(); runs.len()];
        while !all.is_empty() {
            let settings: Vec<SampleRow> = all.iter().map(Drafted::row).collect();
            let draws =
                Draws { rows: &rows, settings: &settings, masks: None, top: 0, kept: false };
            let drawn = drafter.device.draw(&draws)?;
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
            drafter.run()?;
        }
        Ok(guesses)
    }

    /// Fills a batch with what the smaller model has not computed of the runs; says who
    /// guesses, and after which rows.
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
        drafter.batch.clear();
        let mut left = self.settings.capacity().rows_max as usize;
        for (at, (run, &len)) in runs.iter().zip(lens).enumerate() {
            let sequence = self.running.get_mut(&run.id).expect("it runs");
            if run.copy.is_some() {
                // Only the model itself has the copied page.
                let whole = run.first / page_len * page_len;
                sequence.drafted = sequence.drafted.min(whole);
            }
            let end = run.first + run.tokens as usize;
            let pages: Vec<u32> = sequence.table.pages().iter().map(|page| page.0).collect();
            let place = |at: usize| (pages[at / page_len], at % page_len);
            let first = sequence.drafted.min(end - 1);
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
    pub fn has_pages(&self) -> bool {
        self.device.has_pages()
    }

    pub fn release_pages(&mut self) -> Result<(), Error> {
        self.device.release_pages()
    }

    pub fn take_pages(&mut self) -> Result<(), Error> {
        self.device.take_pages()
    }

    fn run(&mut self) -> Result<(), Error> {
        let work = Work { weights: DRAFTER, batch: &self.batch, copies: &[] };
        self.device.run(&work, None).map(drop)
    }
}

impl Drafted {
    /// How its next token is drawn.
    fn row(&self) -> SampleRow {
        let position = self.settings.position + self.tokens.len() as u32;
        SampleRow { position, ..self.settings }
    }
}
