//! One text that is being written, and what may come next.

use crate::tokens::Special;
use std::fmt;
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

/// A matcher of a compiled grammar.
pub(crate) struct Guided {
    matcher: llguidance::Matcher,
    tokens: Special,
    /// Tokens that ended the text where nothing else could come. The matcher takes none there.
    ended: usize,
}

impl Guided {
    pub fn new(matcher: llguidance::Matcher, tokens: Special) -> Self {
        Self { matcher, tokens, ended: 0 }
    }

    /// Whether nothing may come but tokens that end the text.
    fn complete(&self) -> bool {
        self.matcher.is_stopped() && !self.matcher.is_error()
    }

    /// How many of these tokens come first and end the text.
    fn ends(&self, tokens: &[u32]) -> usize {
        tokens.iter().take_while(|token| self.tokens.ends(**token)).count()
    }
}

impl Matcher for Guided {
    fn mask(&mut self, words: &mut [u32]) -> Result<(), Fault> {
        let mask = self.matcher.compute_mask_or_eos().map_err(too_much)?;
        let mask = mask.as_slice();
        let (given, rest) = words.split_at_mut(mask.len().min(words.len()));
        given.copy_from_slice(&mask[..given.len()]);
        rest.fill(0);
        Ok(())
    }

    fn accept(&mut self, token: u32) -> Result<(), Fault> {
        if self.complete() {
            let taken = self.ends(&[token]);
            self.ended += taken;
            return if taken == 1 { Ok(()) } else { Err(Fault::NotAllowed(token)) };
        }
        // A token that it does not expect would leave it broken for good.
        match self.matcher.try_consume_tokens(&[token]).map_err(too_much)? {
            0 => Err(Fault::NotAllowed(token)),
            _ => Ok(()),
        }
    }

    fn allowed(&mut self, tokens: &[u32]) -> Result<usize, Fault> {
        if self.complete() {
            return Ok(self.ends(tokens));
        }
        let allowed = self.matcher.validate_tokens(tokens).map_err(too_much)?;
        // It counts one that ends the text, and none after it.
        let ended = tokens[..allowed].last().is_some_and(|last| self.tokens.ends(*last));
        Ok(allowed + if ended { self.ends(&tokens[allowed..]) } else { 0 })
    }

    fn take_back(&mut self, count: usize) -> Result<(), Fault> {
        let ended = count.min(self.ended);
        self.ended -= ended;
        self.matcher.rollback(count - ended).map_err(too_much)
    }

    fn may_end(&mut self) -> Result<bool, Fault> {
        self.matcher.is_accepting().map_err(too_much)
    }

    fn fork(&self) -> Box<dyn Matcher> {
        // Deep: two that share a lexer would wait for each other.
        let matcher = self.matcher.deep_clone();
        Box::new(Self { matcher, tokens: self.tokens.clone(), ended: self.ended })
    }
}

fn too_much(error: impl fmt::Display) -> Fault {
    let why = error.to_string();
    Fault::TooMuch(why.lines().next().unwrap_or_default().to_owned())
}
