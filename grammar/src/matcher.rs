//! One text that is being written, and what may come next.

use crate::tokens::Special;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Says what may come next of one text. Another engine, or a test, may stand behind it.
pub trait Matcher: Send {
    /// Writes the tokens that may come: one bit for each, lowest first. Where the text is
    /// complete and nothing may follow, those are the tokens that end it.
    fn mask(&mut self, words: &mut [u32]) -> Result<(), Fault>;

    /// Takes a token. One that may not come is a fault, and changes nothing.
    fn accept(&mut self, token: u32) -> Result<(), Fault>;

    /// How many of these tokens may come, one after the other. Nothing is taken.
    fn allowed(&mut self, tokens: &[u32]) -> Result<usize, Fault>;

    /// Takes back the last so many tokens.
    fn take_back(&mut self, count: usize) -> Result<(), Fault>;

    /// Whether the text may end here.
    fn may_end(&mut self) -> Result<bool, Fault>;

    /// The same text, to be gone on with otherwise.
    fn fork(&self) -> Box<dyn Matcher>;
}

/// What texts are to keep to: any number of them, each from its beginning.
#[derive(Clone)]
pub struct Grammar(Arc<Mutex<Box<dyn Matcher>>>);

impl Grammar {
    /// Of a matcher at the beginning of its text.
    pub fn new(matcher: Box<dyn Matcher>) -> Self {
        Self(Arc::new(Mutex::new(matcher)))
    }

    /// One more text.
    pub fn begin(&self) -> Box<dyn Matcher> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).fork()
    }
}

impl fmt::Debug for Grammar {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("Grammar")
    }
}

/// Why a matcher cannot go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The token may not come here.
    NotAllowed(u32),
    /// What may come takes more steps, states or memory than there are to be found out.
    TooMuch(String),
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAllowed(token) => write!(to, "token {token} may not come here"),
            Self::TooMuch(why) => write!(to, "its grammar became too much: {why}"),
        }
    }
}

impl std::error::Error for Fault {}

/// Tokens after which texts that begin share a lexer anew: what it has found out takes
/// memory.
const SHARED_TOKENS: usize = 20_000;

/// A matcher of a compiled grammar. Texts of one grammar share a lexer, for what one has
/// found out the others need not. Where it is worn out, whoever needs it goes on alone.
pub(crate) struct Guided {
    matcher: llguidance::Matcher,
    origin: Arc<Origin>,
    /// Tokens of the text, but for those that ended it.
    taken: Vec<u32>,
    /// Tokens that ended the text where nothing else could come. The matcher takes none there.
    ended: usize,
    /// It has a lexer of its own.
    alone: bool,
}

/// Where texts of a grammar begin.
struct Origin {
    tokens: Special,
    /// At the beginning, with a lexer that nobody else has.
    first: Mutex<llguidance::Matcher>,
    /// At the beginning, with the lexer that texts share.
    shared: Mutex<llguidance::Matcher>,
    /// Tokens that were taken with it.
    taken: AtomicUsize,
}

impl Origin {
    /// A text at its beginning.
    fn begin(&self) -> llguidance::Matcher {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if self.taken.load(Ordering::Relaxed) > SHARED_TOKENS {
            *shared = self.begin_alone();
            self.taken.store(0, Ordering::Relaxed);
        }
        shared.clone()
    }

    fn begin_alone(&self) -> llguidance::Matcher {
        self.first.lock().unwrap_or_else(PoisonError::into_inner).deep_clone()
    }
}

impl Guided {
    pub fn new(matcher: llguidance::Matcher, tokens: Special) -> Self {
        let first = Mutex::new(matcher.deep_clone());
        let shared = Mutex::new(matcher.clone());
        let origin = Origin { tokens, first, shared, taken: AtomicUsize::new(0) };
        let origin = Arc::new(origin);
        Self { matcher, origin, taken: Vec::new(), ended: 0, alone: false }
    }

    /// Whether nothing may come but tokens that end the text.
    fn complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// How many of these tokens come first and end the text.
    fn ends(&self, tokens: &[u32]) -> usize {
        tokens.iter().take_while(|token| self.origin.tokens.ends(**token)).count()
    }

    /// Asks the matcher; once more with a lexer of its own, if others may have worn it out.
    fn ask<T, E: fmt::Display>(
        &mut self,
        ask: impl Fn(&mut llguidance::Matcher) -> Result<T, E>,
    ) -> Result<T, Fault> {
        match ask(&mut self.matcher) {
            Err(_) if !self.alone => {
                self.matcher = self.origin.begin_alone();
                self.alone = true;
                self.matcher.consume_tokens(&self.taken).map_err(too_much)?;
                ask(&mut self.matcher).map_err(too_much)
            }
            outcome => outcome.map_err(too_much),
        }
    }
}

impl Matcher for Guided {
    fn mask(&mut self, words: &mut [u32]) -> Result<(), Fault> {
        let mask = self.ask(llguidance::Matcher::compute_mask_or_eos)?;
        let mask = mask.as_slice();
        let (given, rest) = words.split_at_mut(mask.len().min(words.len()));
        given.copy_from_slice(&mask[..given.len()]);
        rest.fill(0);
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), Fault> {
        // Logits may score more tokens than there are.
        if token >= self.origin.tokens.count() {
            return Err(Fault::NotAllowed(token));
        }
        if self.complete() {
            let taken = self.ends(&[token]);
            self.ended += taken;
            return if taken == 1 { Ok(()) } else { Err(Fault::NotAllowed(token)) };
        }
        // A token that it does not expect would leave it broken for good.
        match self.ask(|matcher| matcher.try_consume_tokens(&[token]))? {
            0 => Err(Fault::NotAllowed(token)),
            _ => {
                self.taken.push(token);
                self.origin.taken.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
        }
    }

    fn allowed(&mut self, tokens: &[u32]) -> Result<usize, Fault> {
        let known = tokens.iter().take_while(|token| **token < self.origin.tokens.count());
        let tokens = &tokens[..known.count()];
        if self.complete() {
            return Ok(self.ends(tokens));
        }
        let allowed = self.ask(|matcher| matcher.validate_tokens(tokens))?;
        // It counts one that ends the text, and none after it.
        let ended = tokens[..allowed].last().is_some_and(|last| self.origin.tokens.ends(*last));
        Ok(allowed + if ended { self.ends(&tokens[allowed..]) } else { 0 })
    }

    fn take_back(&mut self, count: usize) -> Result<(), Fault> {
        let ended = count.min(self.ended);
        self.ended -= ended;
        let count = count - ended;
        self.matcher.rollback(count).map_err(too_much)?;
        self.taken.truncate(self.taken.len() - count);
        Ok(())
    }

    fn may_end(&mut self) -> Result<bool, Fault> {
        self.ask(llguidance::Matcher::is_accepting)
    }

    fn fork(&self) -> Box<dyn Matcher> {
        let begins = self.taken.is_empty() && self.ended == 0;
        let (matcher, alone) = match (self.alone, begins) {
            (_, true) => (self.origin.begin(), false),
            (true, false) => (self.matcher.deep_clone(), true),
            (false, false) => (self.matcher.clone(), false),
        };
        let (origin, taken) = (self.origin.clone(), self.taken.clone());
        Box::new(Self { matcher, origin, taken, ended: self.ended, alone })
    }
}

fn too_much(error: impl fmt::Display) -> Fault {
    let why = error.to_string();
    Fault::TooMuch(why.lines().next().unwrap_or_default().to_owned())
}
