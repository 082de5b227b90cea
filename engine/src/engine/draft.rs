//! Guesses: tokens that may come next are computed with the last one, and those that are
//! drawn indeed are taken in one step. Each row draws with the noise of its position, after
//! the tokens before it, so that what comes is what would have come one by one.

use super::Engine;
use super::admit::Run;
use super::device::Drawn;
use super::guide::Guide;
use super::launch::Draw;
use super::lookup::lookup;
use super::memory::Copy;
use kernels_core::params;
use kv::Table;

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

/// Where a draw stands among guesses: after so many tokens of one of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub guess: usize,
    pub tokens: usize,
}

impl Engine {
    /// Guesses what those who decode go on with, as far as rows and pages are to spare.
    pub(super) fn guess(&mut self, runs: &mut [Run]) {
        let Guessing { tokens, rows, paths } = self.settings.guessing;
        if tokens == 0 {
            return;
        }
        let mut rows = rows;
        let mut decoding = runs.iter().filter(|run| self.may_guess(run)).count() as u32;
        for run in runs {
            if !self.may_guess(run) {
                continue;
            }
            let share = rows / decoding.max(1);
            decoding -= 1;
            let len = tokens.min(share).min(self.may_come(run.id));
            let paths = (share / len.max(1)).min(paths);
            run.guesses = self.guesses(run, len as usize, paths as usize);
            rows -= run.guesses.iter().map(|guess| guess.tokens.len() as u32).sum::<u32>();
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

    /// The guesses of a sequence, with pages.
    fn guesses(&mut self, run: &Run, len: usize, paths: usize) -> Vec<Guess> {
        let sequence = self.running.get_mut(&run.id).expect("it runs");
        let mut found = lookup(&sequence.tokens, len, paths);
        if let Some(guide) = &mut sequence.guide {
            found.iter_mut().for_each(|tokens| tokens.truncate(guide.allowed(tokens)));
        }
        let mut guesses: Vec<Guess> = Vec::new();
        for tokens in found.into_iter().filter(|tokens| !tokens.is_empty()) {
            let count = tokens.len() as u32;
            let fork = if guesses.is_empty() {
                // A page that is short is no reason to keep anybody.
                if self.memory.grow(sequence, count).is_err() {
                    break;
                }
                None
            } else {
                let before = run.first as u64;
                let Some(fork) = self.memory.fork(sequence, before, count + 1) else { break };
                Some(fork)
            };
            guesses.push(Guess { tokens, fork });
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
