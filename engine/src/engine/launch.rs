//! A step on its way to the backend: the rows of all who run, and the draws after them.

use super::Engine;
use super::admit::Run;
use super::device::Work;
use super::draft::{Place, guesses_of};
use super::drawn::{Changed, Drawn, Draws};
use super::guide::Guided;
use super::sampling::{Masks, is_masked, sample_row};
use super::sequence::Sequence;
use super::versions::Span;
use crate::model::Batch;
use kernels_core::Error;
use kernels_core::params::SampleRow;
use kv::Table;
use std::iter;

/// A token that is to be drawn.
pub(super) struct Draw {
    /// The sequence that it is for.
    pub id: u64,
    /// The row of the step after which it is drawn.
    pub row: u32,
    /// Where it stands among guesses.
    pub place: Place,
}

/// How tokens are drawn, as the backend takes it.
struct Drawing {
    rows: Vec<u32>,
    settings: Vec<SampleRow>,
    masked: bool,
    top: u32,
    kept: bool,
}

impl Drawing {
    fn draws<'a>(&'a self, masks: &'a Masks) -> Draws<'a> {
        let Self { rows, settings, masked, top, kept } = self;
        Draws { rows, settings, masks: masked.then_some(masks), top: *top, kept: *kept }
    }
}

/// What came of a step.
pub(super) struct Launched {
    /// Who drew, and who could not.
    pub guided: Guided,
    /// A token for each draw.
    pub drawn: Vec<Drawn>,
}

impl Engine {
    /// The draws of a step. A prompt that ends in it is shared from now on: its other
    /// choices begin, and draw their first tokens after the same row.
    pub(super) fn draws(&mut self, runs: &[Run]) -> Vec<Draw> {
        let (mut draws, mut first) = (Vec::new(), 0);
        for run in runs {
            let row = first + run.tokens - 1;
            first += run.rows();
            let sequence = &self.running[&run.id];
            let group = &self.groups[&sequence.request];
            let generates = group.generate().is_some_and(|generate| generate.max_new > 0);
            if !generates || sequence.computed() < sequence.tokens.len() {
                continue;
            }
            let mut ids = vec![run.id];
            ids.extend(self.fork(run.id));
            let place = Place::default();
            draws.extend(ids.into_iter().map(|id| Draw { id, row, place }));
            let mut row = row;
            for (guess, at) in run.guesses.iter().zip(0..) {
                row += u32::from(guess.fork.is_some());
                for tokens in 1..=guess.tokens.len() {
                    row += 1;
                    draws.push(Draw { id: run.id, row, place: Place { guess: at, tokens } });
                }
            }
        }
        draws
    }

    /// Begins the other choices of a request whose prompt a sequence has: those that find a
    /// seat share its pages, the others wait and will find them. Says who can draw.
    fn fork(&mut self, id: u64) -> Vec<u64> {
        let Some(leader) = self.running.get(&id) else { return Vec::new() };
        let group = self.groups.get_mut(&leader.request).expect("a sequence has a request");
        let unforked = std::mem::take(&mut group.unforked);
        let mut forks: Vec<(u64, Sequence)> = Vec::new();
        for choice in 1..=unforked {
            let table = match self.seats.len() > forks.len() {
                true => leader.table.fork(&mut self.memory.pages),
                false => Table::new(self.settings.page_len),
            };
            forks.push((self.next, leader.fork(choice, table)));
            group.sequences.push(self.next);
            self.next += 1;
        }
        let mut seated = Vec::new();
        for (id, mut fork) in forks {
            fork.since = self.step;
            self.versions.hold(&fork.spans);
            match self.seats.pop() {
                Some(seat) => {
                    fork.seat = Some(seat);
                    seated.push(id);
                    self.running.insert(id, fork);
                    self.counters.forks += 1;
                }
                None => {
                    self.waiting.insert(id, fork);
                }
            }
        }
        seated
    }

    /// Runs the step. Where somebody keeps to a grammar, the forward pass goes first, and
    /// tokens are drawn when the masks are there.
    pub(super) fn launch(
        &mut self,
        weights: u64,
        runs: &[Run],
        draws: Vec<Draw>,
    ) -> Result<Launched, Error> {
        self.fill_batch(runs);
        let copies: Vec<_> = runs.iter().flat_map(Run::copies).collect();
        self.count_step(runs, copies.len());
        if !self.ask_masks(runs, &draws) {
            let drawing = self.drawing(runs, &draws);
            let after = drawing.as_ref().map(|drawing| drawing.draws(&self.masks));
            let work = Work { weights, batch: &self.batch, copies: &copies };
            let mut drawn = self.device.run(&work, after.as_ref())?;
            self.score_chosen(&draws, &mut drawn)?;
            let guided = Guided { draws, late: Vec::new(), ends: Vec::new() };
            return Ok(Launched { guided, drawn });
        }
        self.device.run(&Work { weights, batch: &self.batch, copies: &copies }, None)?;
        let guided = self.guided(draws);
        let mut drawn = match self.drawing(runs, &guided.draws) {
            Some(drawing) => self.device.draw(&drawing.draws(&self.masks))?,
            None => Vec::new(),
        };
        self.score_chosen(&guided.draws, &mut drawn)?;
        Ok(Launched { guided, drawn })
    }

    /// What the model says of the tokens that answers chose, wherever they draw one.
    fn score_chosen(&mut self, draws: &[Draw], drawn: &mut [Drawn]) -> Result<(), Error> {
        let chosen = |draw: &Draw| {
            let generate = self.groups[&self.running[&draw.id].request].generate();
            generate.map(|generate| generate.chosen.clone()).unwrap_or_default()
        };
        let chosen: Vec<_> = draws.iter().map(chosen).collect();
        let each = draws.iter().zip(&chosen);
        let rows: Vec<u32> =
            each.flat_map(|(draw, chosen)| iter::repeat_n(draw.row, chosen.len())).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let tokens: Vec<u32> = chosen.iter().flat_map(|chosen| chosen.iter().copied()).collect();
        let mut scores = self.device.score(&rows, &tokens)?.into_iter().map(|(raw, _)| raw);
        for (drawn, chosen) in drawn.iter_mut().zip(&chosen) {
            drawn.chosen = scores.by_ref().take(chosen.len()).collect();
        }
        Ok(())
    }

    /// The rows of all who run, and of what is guessed.
    fn fill_batch(&mut self, runs: &[Run]) {
        self.batch.clear();
        let (mut pages, mut tokens) = (Vec::new(), Vec::new());
        let versions = &self.versions;
        let mut push =
            |batch: &mut Batch, first: usize, tokens: &[u32], table: &Table, spans: &[Span]| {
                pages.clear();
                pages.extend(table.pages().iter().map(|page| page.0));
                let rows = batch.push(first as u32, tokens, &pages);
                for (at, span) in spans.iter().enumerate() {
                    let end = spans.get(at + 1).map_or(first + tokens.len(), |next| next.from);
                    let own = span.from.max(first)..end.min(first + tokens.len());
                    if own.start < own.end {
                        let row = |position: usize| rows.start + (position - first) as u32;
                        batch.adapt(row(own.start)..row(own.end), versions.slot(span.policy));
                    }
                }
            };
        for run in runs {
            let sequence = &self.running[&run.id];
            tokens.clear();
            tokens.extend(&sequence.tokens[run.first..][..run.tokens as usize]);
            let last = tokens.last().copied();
            tokens.extend(run.guesses.first().into_iter().flat_map(|guess| &guess.tokens));
            push(&mut self.batch, run.first, &tokens, &sequence.table, &sequence.spans);
            for guess in &run.guesses {
                let Some((table, _)) = &guess.fork else { continue };
                tokens.clear();
                tokens.extend(last.iter().chain(&guess.tokens));
                push(&mut self.batch, run.first, &tokens, table, &sequence.spans);
            }
        }
    }

    /// How the tokens of a step are drawn, if any are.
    fn drawing(&mut self, runs: &[Run], draws: &[Draw]) -> Option<Drawing> {
        self.masks.clear();
        let (mut masked, mut top, mut kept) = (false, 0, false);
        let mut settings = Vec::with_capacity(draws.len());
        let guesses = guesses_of(runs);
        for draw in draws {
            let sequence = self.running.get_mut(&draw.id).expect("it draws");
            let generate = self.groups[&sequence.request].generate().expect("only answers draw");
            let guesses = guesses.get(&draw.id).copied().unwrap_or(&[]);
            let known = sequence.tokens.len();
            let Place { guess, tokens } = draw.place;
            // As if what is guessed had come.
            let guessed = guesses.get(guess).map_or(&[][..], |guess| &guess.tokens[..tokens]);
            sequence.tokens.extend(guessed);
            let before: usize = guesses.iter().take(guess).map(|guess| guess.tokens.len()).sum();
            let node = if tokens == 0 { 0 } else { before + tokens };
            settings.push(sample_row(&generate.sampling, sequence));
            self.masks.push(generate, sequence, node);
            masked |= is_masked(generate, sequence);
            sequence.tokens.truncate(known);
            top = top.max(generate.top.unwrap_or(0));
            kept |= generate.kept.is_some();
        }
        let rows: Vec<u32> = draws.iter().map(|draw| draw.row).collect();
        let drawing = Drawing { rows, settings, masked, top, kept };
        let copied = drawing.draws(&self.masks).changed() == Changed::Copied;
        self.counters.copied_logits += u64::from(copied);
        (!drawing.rows.is_empty()).then_some(drawing)
    }

    /// Counts a step in which so many run.
    pub(super) fn begin_counting(&mut self, runs: u32) {
        let counters = &mut self.counters;
        counters.steps += 1;
        counters.count_fill(runs, self.limits.rows);
        (counters.last_tokens, counters.last_prompt_tokens, counters.last_rows) = (0, 0, 0);
    }

    fn count_step(&mut self, runs: &[Run], copies: usize) {
        let computed: u32 = runs.iter().map(|run| run.tokens).sum();
        let unfinished = |run: &&Run| {
            let sequence = &self.running[&run.id];
            sequence.computed() < sequence.tokens.len()
        };
        let chunks = runs.iter().filter(unfinished).count() as u64;
        // One token after another of an answer is drawn, all else is a prompt, or computed
        // anew.
        let decoded = runs.iter().filter(|run| run.tokens == 1 && self.answers(run.id)).count();
        let counters = &mut self.counters;
        counters.chunks += chunks;
        counters.page_copies += copies as u64;
        counters.last_tokens += computed;
        counters.last_prompt_tokens += computed - decoded as u32;
        counters.prompt_tokens += u64::from(computed - decoded as u32);
        counters.last_rows += runs.len() as u32;
    }

    /// Whether a sequence has drawn a token since it runs.
    fn answers(&self, id: u64) -> bool {
        self.running[&id].turn > 0
    }
}
