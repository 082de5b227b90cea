//! Texts that keep to a grammar, token by token.

use crate::error::Refusal;
use crate::grammars::GRAMMARS;
use crate::guard::aligned;
use crate::handles::Handles;
use crate::header::{self, pw_grammars, pw_matcher};
use crate::memory::{Buffers, tell};
use grammar::{Busy, Desk, Matcher, Source, Tree, tree_masks};
use kernels_core::error::{Checks, Fault};
use std::ffi::c_char;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

const CHECKS: Checks = Checks("matcher");
/// Nodes of a draft tree at most: more have no use, and a row of words each.
const NODES_MAX: i64 = 1 << 16;

/// Behind a `pw_matcher`.
pub struct Text {
    pub desk: Arc<Desk>,
    /// Tokens of the vocabulary, and those of them that end a text.
    pub tokens: u32,
    ends: Arc<[u32]>,
    /// Tokens that were taken.
    taken: AtomicU32,
}

/// All that there are.
pub static MATCHERS: Handles<Text, pw_matcher> = Handles::new(3, "matcher");

impl From<Busy> for Refusal {
    fn from(_: Busy) -> Self {
        Self::Busy("matcher")
    }
}

impl Text {
    fn new(matcher: Box<dyn Matcher>, tokens: u32, ends: Arc<[u32]>, taken: u32) -> Self {
        let desk = Arc::new(Desk::new(matcher, tokens.div_ceil(32) as usize));
        Self { desk, tokens, ends, taken: AtomicU32::new(taken) }
    }

    /// Words of a mask.
    pub fn words(&self) -> u32 {
        self.tokens.div_ceil(32)
    }

    /// Takes all of these tokens, or none.
    fn accept(&self, tokens: &[u32]) -> Result<(), Refusal> {
        let mut text = self.desk.text(true)?;
        for (taken, &token) in tokens.iter().enumerate() {
            if let Err(fault) = text.accept(token) {
                text.take_back(taken)?;
                return Err(fault.into());
            }
        }
        self.taken.fetch_add(tokens.len() as u32, Ordering::Relaxed);
        Ok(())
    }

    fn take_back(&self, count: u32) -> Result<(), Refusal> {
        let mut text = self.desk.text(true)?;
        let taken = self.taken.load(Ordering::Relaxed);
        CHECKS.range("count", count, 0..=taken.into())?;
        text.take_back(count as usize)?;
        self.taken.store(taken - count, Ordering::Relaxed);
        Ok(())
    }

    /// Tokens that alone may come, as long as there is room.
    fn forced(&self, tokens: &mut [u32]) -> Result<usize, Refusal> {
        let mut text = self.desk.text(false)?;
        let mut words = vec![0; self.words() as usize];
        let mut count = 0;
        let outcome = loop {
            if count == tokens.len() {
                break Ok(());
            }
            if let Err(fault) = text.mask(&mut words) {
                break Err(fault);
            }
            let Some(token) = alone(&words) else { break Ok(()) };
            if let Err(fault) = text.accept(token) {
                break Err(fault);
            }
            tokens[count] = token;
            count += 1;
            if self.ends.contains(&token) {
                break Ok(());
            }
        };
        text.take_back(count)?;
        outcome?;
        Ok(count)
    }
}

/// The one token of a mask that has one.
fn alone(words: &[u32]) -> Option<u32> {
    let mut some = (0..).zip(words).filter(|(_, word)| **word != 0);
    let (at, word) = some.next()?;
    (some.next().is_none() && word.is_power_of_two()).then(|| at * 32 + word.trailing_zeros())
}

fn source(kind: u32, text: &[u8]) -> Result<Source, Refusal> {
    let text = std::str::from_utf8(text).map_err(|fault| {
        let why = format!("it is no UTF-8 from byte {} on", fault.valid_up_to());
        Refusal::Grammar(grammar::Refusal::Invalid { at: String::new(), why })
    });
    let owned = || text.map(str::to_owned);
    Ok(match kind {
        header::PW_SOURCE_SCHEMA => Source::Schema(owned()?),
        header::PW_SOURCE_COMPACT => Source::Compact(owned()?),
        header::PW_SOURCE_OBJECT => Source::Object,
        header::PW_SOURCE_REGEX => Source::Expression(owned()?),
        header::PW_SOURCE_LARK => Source::Lark(owned()?),
        header::PW_SOURCE_TAGS => Source::Tags(owned()?),
        got => {
            let fault = Fault::Range { least: 1, most: 6, got: got.into() };
            return Err(Refusal::Number { field: "kind", fault });
        }
    })
}

/// Rows of words of the caller's, each of which holds the vocabulary.
///
/// # Safety
///
/// The pointer is NULL, or leads to so many, which nobody else touches.
pub unsafe fn rows<'a>(
    buffers: &mut Buffers,
    text_words: u32,
    words: *mut u32,
    row_words: u64,
    count: u64,
) -> Result<&'a mut [u32], Refusal> {
    let expected = u64::from(text_words);
    if row_words < expected {
        return Err(Refusal::Space { field: "words", expected: 4 * expected, got: 4 * row_words });
    }
    let bytes = row_words.saturating_mul(4).saturating_mul(count);
    // SAFETY: as the caller of this says.
    unsafe { buffers.write("words", words, bytes) }.map(bytemuck::cast_slice_mut)
}

export! {
    fn pw_matcher_create(
        grammars: *mut pw_grammars,
        kind: u32,
        text: *const c_char,
        text_bytes: u64,
        matcher: *mut *mut pw_matcher,
    ) {
        let grammars = GRAMMARS.get(grammars)?;
        aligned("matcher", matcher)?;
        let most = if kind == header::PW_SOURCE_OBJECT { 0 } else { i64::MAX };
        CHECKS.range("source_bytes", text_bytes, 0..=most)?;
        let text = match text_bytes {
            0 => &[][..],
            _ => Buffers::new().read("source", text.cast::<u8>(), text_bytes)?,
        };
        let compiled = grammars.compiler.compile(&source(kind, text)?).map_err(Refusal::Grammar)?;
        matcher.write(MATCHERS.add(Text::new(compiled, grammars.tokens, grammars.ends.clone(), 0)));
        Ok(())
    }
    fn pw_matcher_fork(matcher: *const pw_matcher, fork: *mut *mut pw_matcher) {
        let text = MATCHERS.get(matcher)?;
        aligned("fork", fork)?;
        let (same, taken) = {
            let hand = text.desk.text(false)?;
            (hand.fork(), text.taken.load(Ordering::Relaxed))
        };
        fork.write(MATCHERS.add(Text::new(same, text.tokens, text.ends.clone(), taken)));
        Ok(())
    }
    fn pw_matcher_mask(matcher: *mut pw_matcher, words: *mut u32, word_count: u64) {
        let text = MATCHERS.get(matcher)?;
        let words = rows(&mut Buffers::new(), text.words(), words, word_count, 1)?;
        let mut text = text.desk.text(false)?;
        Ok(text.mask(words)?)
    }
    fn pw_matcher_accept(matcher: *mut pw_matcher, tokens: *const u32, count: u32) {
        let text = MATCHERS.get(matcher)?;
        text.accept(Buffers::new().words("tokens", tokens, count)?)
    }
    fn pw_matcher_allowed(
        matcher: *mut pw_matcher,
        tokens: *const u32,
        count: u32,
        allowed: *mut u32,
    ) {
        let text = MATCHERS.get(matcher)?;
        aligned("allowed", allowed)?;
        let tokens = Buffers::new().words("tokens", tokens, count)?;
        let may = text.desk.text(false)?.allowed(tokens)?;
        tell("allowed", allowed, may as u32)
    }
    fn pw_matcher_forced(
        matcher: *mut pw_matcher,
        tokens: *mut u32,
        capacity: u32,
        count: *mut u32,
    ) {
        let text = MATCHERS.get(matcher)?;
        aligned("count", count)?;
        let room = match capacity {
            0 => &mut [][..],
            _ => {
                let room = Buffers::new().write("tokens", tokens, 4 * u64::from(capacity))?;
                bytemuck::cast_slice_mut(room)
            }
        };
        tell("count", count, text.forced(room)? as u32)
    }
    fn pw_matcher_take_back(matcher: *mut pw_matcher, count: u32) {
        MATCHERS.get(matcher)?.take_back(count)
    }
    fn pw_matcher_may_end(matcher: *mut pw_matcher, may_end: *mut u32) {
        let text = MATCHERS.get(matcher)?;
        aligned("may_end", may_end)?;
        let may = text.desk.text(false)?.may_end()?;
        tell("may_end", may_end, u32::from(may))
    }
    fn pw_matcher_tree_masks(
        matcher: *mut pw_matcher,
        tokens: *const u32,
        parents: *const u32,
        count: u32,
        words: *mut u32,
        row_words: u64,
    ) {
        let text = MATCHERS.get(matcher)?;
        CHECKS.range("count", count, 0..=NODES_MAX)?;
        let mut buffers = Buffers::new();
        let tokens = buffers.words("tokens", tokens, count)?;
        let parents = nodes(buffers.words("parents", parents, count)?)?;
        let words = rows(&mut buffers, text.words(), words, row_words, u64::from(count) + 1)?;
        let mut text = text.desk.text(false)?;
        tree_masks(&mut *text, Tree { tokens, parents: &parents }, words)?;
        Ok(())
    }
}

export!(destroy pw_matcher_destroy, pw_matcher, MATCHERS);

/// Parents of nodes: each stands before its node.
fn nodes(parents: &[u32]) -> Result<Vec<Option<u32>>, Refusal> {
    let node = |(at, &parent): (u32, &u32)| match parent {
        header::PW_NONE => Ok(None),
        parent if parent < at => Ok(Some(parent)),
        got => {
            let (at, most) = (u64::from(at), i64::from(at) - 1);
            Err(CHECKS.refuse("parents", Fault::Element { at, least: 0, most, got: got.into() }))
        }
    };
    Ok((0..).zip(parents).map(node).collect::<Result<_, _>>()?)
}
