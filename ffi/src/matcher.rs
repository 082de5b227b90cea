//! Texts that keep to a grammar, token by token.

use crate::error::Refusal;
use crate::grammars::Grammars;
use crate::guard::{aligned, guard};
use crate::header::{self, pw_error, pw_grammars, pw_matcher, pw_status};
use crate::memory::Buffers;
use grammar::{Fault as TextFault, Matcher, Source, Tree, tree_masks};
use kernels_core::error::{Checks, Fault};
use std::ffi::c_char;

const CHECKS: Checks = Checks("matcher");
/// Nodes of a draft tree at most: more have no use, and a row of words each.
const NODES_MAX: i64 = 1 << 16;

/// Behind a `pw_matcher`.
pub struct Text {
    matcher: Box<dyn Matcher>,
    /// Tokens of the vocabulary.
    tokens: u32,
    /// Tokens that were taken.
    taken: u32,
}

impl Text {
    /// What is behind a handle.
    ///
    /// # Safety
    ///
    /// It is NULL, or one that was created and not destroyed, and that nobody else uses.
    unsafe fn of<'a>(handle: *mut pw_matcher) -> Result<&'a mut Self, Refusal> {
        aligned("matcher", handle.cast::<Self>())?;
        // SAFETY: `pw_matcher_create` made it of one.
        Ok(unsafe { &mut *handle.cast::<Self>() })
    }

    fn handle(self) -> *mut pw_matcher {
        Box::into_raw(Box::new(self)).cast()
    }

    /// Takes all of these tokens, or none.
    fn accept(&mut self, tokens: &[u32]) -> Result<(), Refusal> {
        for (taken, &token) in (0..).zip(tokens) {
            if let Err(fault) = self.matcher.accept(token) {
                self.matcher.take_back(taken)?;
                return Err(fault.into());
            }
        }
        self.taken += tokens.len() as u32;
        Ok(())
    }

    fn take_back(&mut self, count: u32) -> Result<(), Refusal> {
        CHECKS.range("count", count, 0..=self.taken.into())?;
        self.matcher.take_back(count as usize)?;
        self.taken -= count;
        Ok(())
    }

    /// Tokens that alone may come, as long as there is room.
    fn forced(&mut self, tokens: &mut [u32]) -> Result<usize, Refusal> {
        let mut words = vec![0; self.tokens.div_ceil(32) as usize];
        let mut count = 0;
        let outcome = loop {
            if count == tokens.len() {
                break Ok(());
            }
            if let Err(fault) = self.matcher.mask(&mut words) {
                break Err(fault);
            }
            let Some(token) = alone(&words) else { break Ok(()) };
            if let Err(fault) = self.matcher.accept(token) {
                break Err(fault);
            }
            tokens[count] = token;
            count += 1;
        };
        self.matcher.take_back(count)?;
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

/// Tokens of the caller's.
///
/// # Safety
///
/// The pointer leads to so many, or there are none.
unsafe fn tokens<'a>(
    buffers: &mut Buffers,
    field: &'static str,
    at: *const u32,
    count: u32,
) -> Result<&'a [u32], Refusal> {
    match count {
        0 => Ok(&[]),
        // SAFETY: as the caller of this says.
        _ => unsafe { buffers.read(field, at, 4 * u64::from(count)) }.map(bytemuck::cast_slice),
    }
}

/// A place of the caller's for one number.
///
/// # Safety
///
/// The pointer is NULL, or leads to one.
unsafe fn tell(field: &'static str, to: *mut u32, number: u32) -> Result<(), Refusal> {
    aligned(field, to)?;
    // SAFETY: it is there, and aligned.
    unsafe { to.write(number) };
    Ok(())
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_create(
    grammars: *mut pw_grammars,
    kind: u32,
    text: *const c_char,
    text_bytes: u64,
    matcher: *mut *mut pw_matcher,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let grammars = Grammars::of(grammars)?;
        aligned("matcher", matcher)?;
        let text = match text_bytes {
            0 => &[][..],
            _ => Buffers::new().read("source", text.cast::<u8>(), text_bytes)?,
        };
        let compiled = grammars.compiler.compile(&source(kind, text)?).map_err(Refusal::Grammar)?;
        let text = Text { matcher: compiled, tokens: grammars.tokens, taken: 0 };
        matcher.write(text.handle());
        Ok(())
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// It is NULL, or one that was created, and that nobody uses any more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_destroy(matcher: *mut pw_matcher) {
    let call = || {
        if !matcher.is_null() {
            // SAFETY: it was made of a box.
            drop(unsafe { Box::from_raw(matcher.cast::<Text>()) });
        }
        Ok(())
    };
    // SAFETY: there is no error to write.
    unsafe { guard(std::ptr::null_mut(), call) };
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_fork(
    matcher: *const pw_matcher,
    fork: *mut *mut pw_matcher,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let Text { matcher, tokens, taken } = &*Text::of(matcher.cast_mut())?;
        aligned("fork", fork)?;
        let text = Text { matcher: matcher.fork(), tokens: *tokens, taken: *taken };
        fork.write(text.handle());
        Ok(())
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_mask(
    matcher: *mut pw_matcher,
    words: *mut u32,
    word_count: u64,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let text = Text::of(matcher)?;
        let words = rows(&mut Buffers::new(), text, words, word_count, 1)?;
        Ok(text.matcher.mask(words)?)
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// Rows of words of the caller's, each of which holds the vocabulary.
///
/// # Safety
///
/// The pointer is NULL, or leads to so many, which nobody else touches.
unsafe fn rows<'a>(
    buffers: &mut Buffers,
    text: &Text,
    words: *mut u32,
    row_words: u64,
    count: u64,
) -> Result<&'a mut [u32], Refusal> {
    let expected = u64::from(text.tokens.div_ceil(32));
    if row_words < expected {
        return Err(Refusal::Space { field: "words", expected: 4 * expected, got: 4 * row_words });
    }
    let bytes = row_words.saturating_mul(4).saturating_mul(count);
    // SAFETY: as the caller of this says.
    unsafe { buffers.write("words", words, bytes) }.map(bytemuck::cast_slice_mut)
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_accept(
    matcher: *mut pw_matcher,
    these: *const u32,
    count: u32,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let text = Text::of(matcher)?;
        text.accept(tokens(&mut Buffers::new(), "tokens", these, count)?)
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_allowed(
    matcher: *mut pw_matcher,
    these: *const u32,
    count: u32,
    allowed: *mut u32,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let text = Text::of(matcher)?;
        aligned("allowed", allowed)?;
        let may = text.matcher.allowed(tokens(&mut Buffers::new(), "tokens", these, count)?)?;
        tell("allowed", allowed, may as u32)
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_forced(
    matcher: *mut pw_matcher,
    these: *mut u32,
    capacity: u32,
    count: *mut u32,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let text = Text::of(matcher)?;
        aligned("count", count)?;
        let room = match capacity {
            0 => &mut [][..],
            _ => Buffers::new().write("tokens", these, 4 * u64::from(capacity))?,
        };
        let room = if room.is_empty() { &mut [][..] } else { bytemuck::cast_slice_mut(room) };
        let forced = text.forced(room)?;
        tell("count", count, forced as u32)
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_take_back(
    matcher: *mut pw_matcher,
    count: u32,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe { Text::of(matcher)?.take_back(count) };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_may_end(
    matcher: *mut pw_matcher,
    may_end: *mut u32,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let may = Text::of(matcher)?.matcher.may_end()?;
        tell("may_end", may_end, u32::from(may))
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

/// See `include/pagewise.h`.
///
/// # Safety
///
/// Pointers lead to what the header says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pw_matcher_tree_masks(
    matcher: *mut pw_matcher,
    these: *const u32,
    parents: *const u32,
    count: u32,
    words: *mut u32,
    row_words: u64,
    error: *mut pw_error,
) -> pw_status {
    // SAFETY: as the caller of this says.
    let call = || unsafe {
        let text = Text::of(matcher)?;
        CHECKS.range("count", count, 0..=NODES_MAX)?;
        let mut buffers = Buffers::new();
        let these = tokens(&mut buffers, "tokens", these, count)?;
        let parents = tokens(&mut buffers, "parents", parents, count)?;
        let parents = nodes(parents)?;
        let rows = rows(&mut buffers, text, words, row_words, u64::from(count) + 1)?;
        let masked =
            tree_masks(text.matcher.as_mut(), Tree { tokens: these, parents: &parents }, rows);
        masked.map(drop).map_err(TextFault::into)
    };
    // SAFETY: as the caller of this says.
    unsafe { guard(error, call) }
}

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
