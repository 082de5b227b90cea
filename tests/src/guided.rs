//! A grammar that a person can check, and maskers whose masks come late.

use grammar::{Done, Fault, Grammar, Job, Masker, Matcher};

/// Texts of `len` tokens, each of which leaves what its place asks for when divided by
/// `period`; then one of `ends`, if there are any.
#[derive(Clone, Debug)]
pub struct Cycle {
    /// What tokens are divided by.
    pub period: u32,
    /// Tokens of a text.
    pub len: usize,
    /// Tokens that end it.
    pub ends: Vec<u32>,
    /// Tokens so far.
    pub taken: Vec<u32>,
}

impl Cycle {
    /// As requests take it.
    pub fn grammar(period: u32, len: usize, ends: &[u32]) -> Grammar {
        Grammar::new(Box::new(Self { period, len, ends: ends.to_vec(), taken: Vec::new() }))
    }

    /// Whether a token may come next.
    pub fn allows(&self, token: u32) -> bool {
        match self.taken.len() < self.len {
            true => {
                token % self.period == self.taken.len() as u32 % self.period
                    && !self.ends.contains(&token)
            }
            false => self.taken.len() == self.len && self.ends.contains(&token),
        }
    }
}

impl Matcher for Cycle {
    fn mask(&mut self, words: &mut [u32]) -> Result<(), Fault> {
        for (first, word) in (0..).step_by(32).zip(words) {
            *word = (0..32).filter(|bit| self.allows(first + bit)).map(|bit| 1 << bit).sum();
        }
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), Fault> {
        if !self.allows(token) {
            return Err(Fault::NotAllowed(token));
        }
        self.taken.push(token);
        Ok(())
    }

    fn allowed(&mut self, tokens: &[u32]) -> Result<usize, Fault> {
        let mut after = self.clone();
        Ok(tokens.iter().take_while(|token| after.accept(**token).is_ok()).count())
    }

    fn take_back(&mut self, count: usize) -> Result<(), Fault> {
        self.taken.truncate(self.taken.len() - count);
        Ok(())
    }

    fn may_end(&mut self) -> Result<bool, Fault> {
        Ok(self.taken.len() >= self.len)
    }

    fn fork(&self) -> Box<dyn Matcher> {
        Box::new(self.clone())
    }
}

/// Does every job at once, and tells it up to so many times of asking too late.
pub struct Late {
    most: u32,
    state: u32,
    held: Vec<(u32, Done)>,
}

impl Late {
    /// `most` times at most; 0 tells at once.
    pub fn new(most: u32) -> Self {
        Self { most, state: 1, held: Vec::new() }
    }
}

impl Masker for Late {
    fn ask(&mut self, jobs: Vec<Job>) {
        for job in jobs {
            self.state = self.state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            self.held.push(((self.state >> 16) % (self.most + 1), job.run()));
        }
    }

    fn done(&mut self, _wanted: &[u64]) -> Vec<Done> {
        let ready = self.held.extract_if(.., |(times, _)| *times == 0);
        let ready = ready.map(|(_, done)| done).collect();
        self.held.iter_mut().for_each(|(times, _)| *times -= 1);
        ready
    }
}
