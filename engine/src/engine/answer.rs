//! What came of a step: prompts that are computed, tokens, ends.

use super::Engine;
use super::admit::Run;
use super::draft::{Guess, Place};
use super::drawn::Drawn;
use super::launch::Draw;
use super::sequence::{Group, Sequence};
use super::stop::Found;
use crate::processor::{Kept, Processor};
use crate::request::{Event, Finish, Generate, Pooling, Sampling, Scored, Task};
use kernels_core::Error;
use kernels_core::params;
use std::collections::HashMap;
use std::iter;
use std::sync::Arc;

const NOT_FINITE: &str = "its logits, with what was asked of them, are not finite";

/// Rows of a step that score tokens of one prompt.
struct Wanted {
    request: u64,
    rows: Vec<u32>,
    tokens: Vec<u32>,
    top: u32,
    /// Scored after every row, too.
    chosen: Arc<[u32]>,
}

impl Engine {
    /// Pages that were filled are there for others; scores, embeddings and ends of prompts
    /// are told.
    pub(super) fn absorb(&mut self, runs: &[Run]) {
        // What is guessed is looked at first.
        for run in runs.iter().filter(|run| run.guesses.is_empty()) {
            let sequence = self.running.get_mut(&run.id).expect("it ran");
            self.memory.publish(sequence, run.first);
        }
        let (mut row, mut wanted) = (0, Vec::new());
        let mut embeds = Vec::new();
        for run in runs {
            let sequence = &self.running[&run.id];
            let group = &self.groups[&sequence.request];
            match &group.request.task {
                Task::Embed(pooling) => embeds.push((run, row, *pooling)),
                Task::Generate(generate) => {
                    wanted.extend(scores(run, row, sequence, group, generate))
                }
            }
            row += run.rows();
        }
        self.score(wanted);
        for (run, row, pooling) in embeds {
            if let Err(error) = self.embed(run, row, pooling) {
                self.fail_request_of(run.id, &error.to_string());
            }
        }
        for run in runs {
            self.tell_prompt(run.id);
        }
    }

    /// Scores tokens of prompts, all of the step together.
    fn score(&mut self, wanted: Vec<Wanted>) {
        if wanted.is_empty() {
            return;
        }
        let (mut rows, mut tokens) = (Vec::new(), Vec::new());
        for Wanted { rows: own, tokens: after, chosen, .. } in &wanted {
            for (row, token) in own.iter().zip(after) {
                rows.extend(iter::repeat_n(*row, 1 + chosen.len()));
                tokens.extend(iter::once(token).chain(chosen.iter()));
            }
        }
        let top = wanted.iter().map(|wanted| wanted.top).max().unwrap_or(0);
        let each = || wanted.iter().flat_map(|wanted| &wanted.rows).copied().collect::<Vec<_>>();
        let outcome = self.device.score(&rows, &tokens).and_then(|scores| {
            let tops = if top > 0 { self.device.tops(&each(), top)? } else { Vec::new() };
            Ok((scores, tops))
        });
        let (scores, tops) = match outcome {
            Ok(outcome) => outcome,
            Err(error) => {
                let why = Finish::Failed(error.to_string());
                wanted.iter().for_each(|wanted| self.end_group(wanted.request, &why));
                return;
            }
        };
        let (mut scores, mut tops) = (scores.into_iter(), tops.into_iter());
        for Wanted { request, tokens, top, chosen, .. } in wanted {
            let group = self.groups.get_mut(&request).expect("it is in the step");
            let mut finite = true;
            for token in tokens {
                let (raw, status) = scores.next().expect("a score for each token");
                finite &= status == params::STATUS_OK;
                let mut listed = tops.next().unwrap_or_default();
                listed.truncate(top as usize);
                let chosen = scores.by_ref().take(chosen.len()).map(|(raw, _)| raw).collect();
                let scored = Scored { token, raw, processed: raw, top: listed, chosen, kept: None };
                group.scored.push(Some(scored));
            }
            if !finite {
                self.end_group(request, &Finish::Failed(NOT_FINITE.into()));
            }
        }
    }

    /// Adds the hidden states that an embedding is of; their mean is told when all are there.
    fn embed(&mut self, run: &Run, row: u32, pooling: Pooling) -> Result<(), Error> {
        let width = self.device.width() as usize;
        let Some(sequence) = self.running.get(&run.id) else { return Ok(()) };
        let (computed, prompt_len) = (sequence.computed(), sequence.prompt_len);
        let request = sequence.request;
        let group = self.groups.get_mut(&request).expect("a sequence has a request");
        let first = match pooling {
            Pooling::Mean => group.pooled,
            Pooling::Last => prompt_len - 1,
        };
        let skipped = first.saturating_sub(run.first) as u32;
        if skipped < run.tokens {
            let hidden = self.device.hidden(row + skipped..row + run.tokens)?;
            group.pool(&hidden, width);
        }
        if computed < prompt_len {
            return Ok(());
        }
        let mean = group.mean();
        let values = self.device.normalised(&mean)?;
        if values.iter().all(|value| value.is_finite()) {
            self.events.push(Event::Embedding { id: request, values });
            self.end(run.id, Finish::Length);
        } else {
            self.fail_request_of(run.id, "its embedding is not finite");
        }
        Ok(())
    }

    /// Tells that a prompt is computed, once.
    fn tell_prompt(&mut self, id: u64) {
        let Some(sequence) = self.running.get(&id) else { return };
        let request = sequence.request;
        let group = self.groups.get_mut(&request).expect("a sequence has a request");
        let Task::Generate(generate) = &group.request.task else { return };
        if group.prompted || sequence.computed() < sequence.prompt_len {
            return;
        }
        let ends = generate.max_new == 0;
        group.prompted = true;
        let (cached, miss) = group.found.expect("it was admitted");
        let logprobs = std::mem::take(&mut group.scored);
        self.events.push(Event::Prompt { id: request, cached, miss, logprobs });
        if ends {
            self.end_group(request, &Finish::Length);
        }
    }

    /// Takes the tokens that were drawn.
    pub(super) fn take(&mut self, runs: &mut [Run], draws: &[Draw], drawn: Vec<Drawn>) {
        let mut guesses: HashMap<u64, &mut Run> = runs
            .iter_mut()
            .filter(|run| !run.guesses.is_empty())
            .map(|run| (run.id, run))
            .collect();
        let mut first = 0;
        for draws in draws.chunk_by(|a, b| a.id == b.id) {
            let (id, drawn) = (draws[0].id, &drawn[first..][..draws.len()]);
            first += draws.len();
            // Its request may have failed with its prompt.
            if !self.running.contains_key(&id) {
                continue;
            }
            let run = guesses.remove(&id);
            let (taken, place) = Self::verdict(run.as_deref(), draws, drawn);
            let taken: Vec<&Drawn> = taken.into_iter().map(|at| &drawn[at]).collect();
            let (came, end) = self.take_tokens(id, &taken);
            if let Some(run) = run {
                self.settle(run, place, came.len());
            }
            match end {
                Some(why) => self.end(id, why),
                None => self.guide_on(id, &came),
            }
        }
    }

    /// Takes tokens one after the other, up to one that ends the answer; says which, and
    /// why it ends.
    fn take_tokens(&mut self, id: u64, drawn: &[&Drawn]) -> (Vec<u32>, Option<Finish>) {
        let mut came = Vec::with_capacity(drawn.len());
        for drawn in drawn {
            let why = match drawn.status {
                params::STATUS_OK => {
                    came.push(drawn.token);
                    self.take_token(id, (*drawn).clone())
                }
                params::STATUS_MASKED => {
                    Some(Finish::Stuck("no token is allowed to come next".into()))
                }
                _ => Some(Finish::Failed(NOT_FINITE.into())),
            };
            if why.is_some() {
                return (came, why);
            }
        }
        let Sequence { tokens, prompt_len, counted, .. } =
            self.running.get_mut(&id).expect("it drew");
        counted.settle(&tokens[*prompt_len..]);
        (came, None)
    }

    /// Of a run with guesses so many tokens came, along the guess of `place`: its pages are
    /// those of the sequence, up to the last token but one.
    fn settle(&mut self, run: &mut Run, place: Place, came: usize) {
        let guessed: usize = run.guesses.iter().map(|guess| guess.tokens.len()).sum();
        let held = came.saturating_sub(1) as u32;
        let sequence = self.running.get_mut(&run.id).expect("it drew");
        let page_len = self.settings.page_len as usize;
        match &mut run.guesses[place.guess] {
            Guess { fork: Some((table, _)), .. } => {
                std::mem::swap(table, &mut sequence.table);
                sequence.drafted = run.first / page_len * page_len;
            }
            // The last token of a guess was drawn, and not computed, by the model that guesses.
            guess => sequence.drafted = run.first + came.min(guess.tokens.len()).max(1),
        }
        let computed = run.first + came.max(1);
        self.memory.shorten(sequence, computed as u64);
        sequence.guessing.add(guessed as u32, held, self.settings.guessing.tokens);
        self.memory.publish(sequence, run.first);
        self.counters.guesses += 1;
        self.counters.guessed += guessed as u64;
        self.counters.held += u64::from(held);
    }

    /// One more token of an answer; says whether it ends with it.
    fn take_token(&mut self, id: u64, drawn: Drawn) -> Option<Finish> {
        let sequence = self.running.get_mut(&id).expect("it drew");
        let generate = self.groups[&sequence.request].generate().expect("only answers draw");
        let stop = &generate.stop;
        let Drawn { token, raw, processed, mut top, chosen, kept: (count, words), .. } = drawn;
        let vocab = self.device.config().vocab;
        let kept = generate.kept.map(|keep| Kept::of(&words, count, vocab, keep));
        top.truncate(generate.top.unwrap_or(0) as usize);
        let made = sequence.tell_spans();
        sequence.tokens.push(token);
        sequence.turn += 1;
        self.counters.generated_tokens += 1;
        let count = sequence.generated().len();
        let counts = count >= stop.min_new as usize;
        let bytes = self.vocabulary.bytes(token);
        let found = sequence.scan.push(&stop.strings, bytes, counts);
        let search = stop.expressions.as_ref();
        let expression = search.and_then(|search| search.push(&mut sequence.searched, bytes));
        self.events.push(Event::Token {
            id: sequence.request,
            choice: sequence.choice,
            token: Scored { token, raw, processed, top, chosen, kept },
            made,
            held: sequence.scan.held(&stop.strings),
        });
        // A grammar lets it come where the answer ends, whoever would ignore it.
        let ends = generate.grammar.is_some() || !stop.ignore_eos;
        if ends && self.eos.contains(&token) {
            Some(Finish::Eos)
        } else if stop.tokens.contains(&token) {
            Some(Finish::Token(token))
        } else if let Some(Found { which, before }) = found {
            Some(Finish::String { which, before })
        } else if let Some(which) = expression.filter(|_| counts) {
            Some(Finish::Expression(which))
        } else if end_by_steps(&generate.sampling, count) {
            Some(Finish::Complete)
        } else if count >= generate.max_new as usize
            || sequence.tokens.len() >= self.settings.len_max() as usize
        {
            Some(Finish::Length)
        } else {
            None
        }
    }
}

/// Whether an answer of so many tokens has one for each of its lists, and ends so.
fn end_by_steps(sampling: &Sampling, count: usize) -> bool {
    sampling.processors.iter().any(|processor| match processor {
        Processor::Steps(steps) => steps.end_at(count),
        _ => false,
    })
}

/// The rows of a run after which tokens of its prompt are scored.
fn scores(
    run: &Run,
    row: u32,
    sequence: &Sequence,
    group: &Group,
    generate: &Generate,
) -> Option<Wanted> {
    let top = generate.prompt_top.filter(|_| !group.prompted)?;
    let (first, last) = (group.scored.len(), sequence.prompt_len);
    let end = (run.first + run.tokens as usize + 1).min(last);
    let tokens = sequence.tokens.get(first..end).filter(|tokens| !tokens.is_empty())?;
    let begin = row + (first - 1 - run.first) as u32;
    let rows = (begin..).take(tokens.len()).collect();
    let (tokens, chosen) = (tokens.to_vec(), generate.chosen.clone());
    Some(Wanted { request: sequence.request, rows, tokens, top, chosen })
}
