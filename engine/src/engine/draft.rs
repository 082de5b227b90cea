//! Guesses: tokens that may come next are computed with the last one, and those that are
//! drawn indeed are taken in one step. Each row draws with the noise of its position, after
//! the tokens before it, so that what comes is what would have come one by one.

use super::Engine;
use super::admit::Run;
use super::drawn::Drawn;
use super::guide::Guide;
use super::launch::Draw;
use super::lookup::lookup;
use super::memory::Copy;
use kernels_core::params;
use kv::Table;
use std::collections::HashMap;

/// How much is guessed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guessing {
    /// Tokens of a guess; 0 guesses nothing.
    pub tokens: u32,
    /// Guesses of one answer in a step that differ in their first token.
    pub paths: u32,
    /// Rows of guesses in a step, of all answers together.
    pub rows: u32,
}

impl Guessing {
    /// None.
    pub const NONE: Self = Self { tokens: 0, paths: 1, rows: 0 };
}

/// What one answer may go on with.
pub(super) struct Guess {
    pub tokens: Vec<u32>,
    /// The pages of an answer that goes on so; the first guess has the answer's own.
    pub fork: Option<(Table, Option<Copy>)>,
}

/// The guesses of runs that have some, by the number of the sequence.
pub(super) fn guesses_of(runs: &[Run]) -> HashMap<u64, &[Guess]> {
    let guessed = runs.iter().filter(|run| !run.guesses.is_empty());
    guessed.map(|run| (run.id, &run.guesses[..])).collect()
}

/// Where a draw stands among guesses: after so many tokens of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub guess: usize,
    pub tokens: usize,
}

impl Engine {
    /// Guesses what those who decode go on with, as far as rows and pages are to spare: by
    /// the model that guesses where there is one, and by what came after the same tokens
    /// before.
    pub(super) fn guess(&mut self, weights: u64, runs: &mut [Run]) {
        let Guessing { tokens, rows, paths } = self.settings.guessing;
        if tokens == 0 {
            return;
        }
        let mut left = rows;
        let mut decoding = runs.iter().filter(|run| self.may_guess(run)).count() as u32;
        let mut lens = vec![0; runs.len()];
        let mut most = vec![0; runs.len()];
        for (at, run) in runs.iter().enumerate().filter(|(_, run)| self.may_guess(run)) {
            let share = left / decoding;
            decoding -= 1;
            let len = tokens.min(share).min(self.may_come(run.id));
            most[at] = (share / len.max(1)).min(paths) as usize;
            lens[at] = len as usize;
            left -= len * most[at] as u32;
        }
        let mut grown = vec![0; runs.len()];
        for (at, run) in runs.iter().enumerate() {
            if lens[at] > 0 && self.is_drafted(run) {
                let sequence = self.running.get_mut(&run.id).expect("it runs");
                // A page that is short is no reason to keep anybody.
                let room = self.memory.grow(sequence, lens[at] as u32);
                grown[at] = if room.is_ok() { lens[at] } else { 0 };
            }
        }
        let drafted = self.draft(weights, runs, &grown);
        for (at, (run, first)) in runs.iter_mut().zip(drafted).enumerate() {
            if lens[at] > 0 {
                let mut found: Vec<Vec<u32>> =
                    Some(first).filter(|first| !first.is_empty()).into_iter().collect();
                let sequence = &self.running[&run.id];
                for guess in lookup(&sequence.tokens, lens[at], most[at]) {
                    if found.len() < most[at] && found.iter().all(|other| other[0] != guess[0]) {
                        found.push(guess);
                    }
                }
                run.guesses = self.guesses(run, found, grown[at]);
            }
        }
    }

    /// Whether a sequence draws one token after the other.
    fn may_guess(&self, run: &Run) -> bool {
        let sequence = &self.running[&run.id];
        // Masks that came late are those of the step before.
        let masked =
            matches!(&sequence.guide, Some(Guide::Here { masks, .. }) if !masks.is_empty());
        let one = run.tokens == 1 && run.copy.is_none() && !sequence.generated().is_empty();
        one && !masked && sequence.computed() == sequence.tokens.len()
    }

    /// Tokens that a guess of a sequence may have.
    fn may_come(&self, id: u64) -> u32 {
        let sequence = &self.running[&id];
        let generate = self.groups[&sequence.request].generate().expect("it draws");
        let left = generate.max_new as usize - sequence.generated().len();
        let room = self.settings.len_max() as usize - sequence.tokens.len();
        // One token is drawn after the last of a guess.
        (left.min(room).saturating_sub(1) as u32).min(sequence.guessing.len)
    }

    /// Guesses of a sequence that its grammar allows, with pages; it has those of so many
    /// tokens more than it has computed.
    fn guesses(&mut self, run: &Run, mut found: Vec<Vec<u32>>, grown: usize) -> Vec<Guess> {
        let sequence = self.running.get_mut(&run.id).expect("it runs");
        let generate = self.groups[&sequence.request].generate().expect("it draws");
        if !generate.stop.ignore_eos {
            // Nothing follows the model's end.
            let ends = |token: &u32| self.eos.contains(token);
            let cut = |tokens: &mut Vec<u32>| {
                let end = tokens.iter().position(ends).unwrap_or(tokens.len());
                tokens.truncate(end);
            };
            found.iter_mut().for_each(cut);
        }
        if let Some(guide) = &mut sequence.guide {
            found.iter_mut().for_each(|tokens| tokens.truncate(guide.allowed(tokens)));
        }
        let mut guesses: Vec<Guess> = Vec::new();
        for tokens in found.into_iter().filter(|tokens| !tokens.is_empty()) {
            let count = tokens.len();
            let fork = if guesses.is_empty() {
                let more = count.saturating_sub(grown) as u32;
                if self.memory.grow(sequence, more).is_err() {
                    break;
                }
                None
            } else {
                let fork = self.memory.fork(sequence, run.first as u64, count as u32 + 1);
                let Some(fork) = fork else { break };
                Some(fork)
            };
            guesses.push(Guess { tokens, fork });
        }
        if guesses.is_empty() {
            let known = sequence.tokens.len() as u64;
            self.memory.shorten(sequence, known);
        }
        guesses
    }

    /// Takes what was drawn of a sequence, as far as its guesses hold; says by how much.
    pub(super) fn verdict(
        run: Option<&Run>,
        draws: &[Draw],
        drawn: &[Drawn],
    ) -> (Vec<usize>, Place) {
        let mut place = Place::default();
        let mut taken = vec![0];
        let guesses = run.map_or(&[][..], |run| &run.guesses);
        loop {
            let last = &drawn[taken[taken.len() - 1]];
            let so_far = guesses.get(place.guess).map(|guess| &guess.tokens[..place.tokens]);
            let goes_on = |guess: &Guess| {
                guess.tokens.get(place.tokens) == Some(&last.token)
                    && so_far.is_some_and(|so_far| guess.tokens.starts_with(so_far))
            };
            let Some(guess) = guesses.iter().position(goes_on) else { break };
            place = Place { guess, tokens: place.tokens + 1 };
            let next = draws.iter().position(|draw| draw.place == place);
            // What cannot be drawn along a guess is told in a step of its own.
            let next = next.filter(|next| drawn[*next].status == params::STATUS_OK);
            let Some(next) = next else { break };
            taken.push(next);
        }
        (taken, place)
    }
}

/// How a sequence's guesses have fared.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fared {
    /// Tokens of the next guess at most: twice as many after one that held, few after one
    /// that did not.
    pub len: u32,
    /// Tokens that were guessed, and those of them that were drawn.
    pub guessed: u32,
    pub held: u32,
}

impl Fared {
    pub fn new(guessing: &Guessing) -> Self {
        Self { len: guessing.tokens, guessed: 0, held: 0 }
    }

    /// Of a guess of so many tokens, so many held.
    pub fn add(&mut self, guessed: u32, held: u32, most: u32) {
        self.guessed += guessed;
        self.held += held;
        self.len = (2 * (held + 1)).min(most);
    }
}
