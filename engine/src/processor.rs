//! What changes the logits of an answer from step to step, as data: which tokens come and at
//! which temperature, by the place of a token and by what came before it, and by nothing
//! else. So it is the same in any company, after preemption, along guesses and when an
//! answer is replayed.

use crate::request::Refused;
use std::sync::Arc;

/// One change. All that a request names hold together: a token comes where each lets it come.
#[derive(Clone, Debug, PartialEq)]
pub enum Processor {
    /// Nothing but these tokens comes.
    Allowed(TokenSet),
    /// None of these tokens comes.
    Disallowed(TokenSet),
    /// Each token of an answer has a list of its own.
    Steps(Steps),
    /// The temperature, in the place of [`Sampling::temperature`](crate::request::Sampling).
    Temperature(Schedule),
    /// An end of thinking.
    Thinking(Thinking),
}

/// Tokens of a vocabulary: a bit for each, so that all of them cost no more than one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenSet {
    vocab: u32,
    /// Bit t mod 32 of word t / 32 is that of token t.
    words: Arc<[u32]>,
}

/// What may come of each token of an answer, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Steps {
    /// One list for each token, at least one; none is empty.
    pub lists: Arc<[Arc<[u32]>]>,
    /// What holds after them.
    pub then: Then,
}

/// What holds after the last list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// Any token comes.
    Free,
    /// The last list holds on.
    Last,
    /// The answer ends.
    End,
}

/// Temperatures, by how many tokens of the answer came before.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Schedule {
    /// Of the first token.
    pub start: f64,
    /// What it comes to.
    pub end: f64,
    /// How.
    pub course: Course,
}

/// How one temperature becomes another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Course {
    /// What it is off the end is multiplied by this with each token.
    Decay(f64),
    /// In a straight line over so many tokens.
    Tokens(u32),
}

/// A bound on the tokens of thinking, after which its end is forced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thinking {
    /// Tokens of thinking.
    pub tokens: u32,
    /// What begins it, at least one token; without it, the answer begins with thinking. A
    /// prompt that ends within thinking begins the answer with it, too.
    pub start: Option<Arc<[u32]>>,
    /// What ends it, and is forced: at least one token.
    pub end: Arc<[u32]>,
}

impl Processor {
    /// Processors of a request, at most.
    pub const MAX: usize = 16;

    /// The tokens of which one comes after these, where that is another in each step; the
    /// answer begins at `prompt_len`.
    pub fn only(&self, tokens: &[u32], prompt_len: usize) -> Option<&[u32]> {
        match self {
            Self::Steps(steps) => steps.at(tokens.len() - prompt_len),
            Self::Thinking(thinking) => thinking.forced(tokens, prompt_len),
            Self::Allowed(_) | Self::Disallowed(_) | Self::Temperature(_) => None,
        }
    }

    /// Whether it allows the same tokens in every step, and not all.
    pub fn is_set(&self) -> bool {
        matches!(self, Self::Allowed(_) | Self::Disallowed(_))
    }
}

impl TokenSet {
    /// These tokens of a vocabulary of `vocab`.
    pub fn new(vocab: u32, tokens: &[u32]) -> Result<Self, Refused> {
        let mut words = vec![0; vocab.div_ceil(32) as usize];
        for &token in tokens {
            if token >= vocab {
                let (expected, got) = (format!("tokens below {vocab}"), token.to_string());
                return Err(Refused { field: "tokens", expected, got });
            }
            words[(token / 32) as usize] |= 1 << (token % 32);
        }
        Ok(Self { vocab, words: words.into() })
    }

    /// Tokens of its vocabulary.
    pub fn vocab(&self) -> u32 {
        self.vocab
    }

    /// Tokens that it has.
    pub fn len(&self) -> u32 {
        self.words.iter().map(|word| word.count_ones()).sum()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Its words, the first tokens first.
    pub fn words(&self) -> &[u32] {
        &self.words
    }
}

impl Steps {
    /// What may come after so many tokens; `None`: any token.
    fn at(&self, place: usize) -> Option<&[u32]> {
        let last = self.lists.last().filter(|_| self.then == Then::Last);
        self.lists.get(place).or(last).map(|list| &list[..])
    }

    /// Whether an answer of so many tokens ends.
    pub fn end_at(&self, count: usize) -> bool {
        self.then == Then::End && count >= self.lists.len()
    }
}

impl Schedule {
    /// The temperature of the token after so many of its answer. In f64, in one order of
    /// multiplications that `place` alone decides, and rounded once.
    pub fn at(&self, place: usize) -> f32 {
        let Self { start, end, course } = *self;
        let left = match course {
            Course::Decay(decay) => power(decay, place),
            Course::Tokens(tokens) if place < tokens as usize => {
                1.0 - place as f64 / f64::from(tokens)
            }
            Course::Tokens(_) => 0.0,
        };
        (end + (start - end) * left) as f32
    }
}

/// By squares: a library's power may differ in its last bit from machine to machine.
fn power(mut base: f64, mut exponent: usize) -> f64 {
    let mut product = 1.0;
    while exponent > 0 {
        if exponent & 1 == 1 {
            product *= base;
        }
        base *= base;
        exponent >>= 1;
    }
    product
}

impl Thinking {
    /// The token that is forced after these, as a list, if one is. What is read of an answer anew for
    /// each token costs little beside its forward pass, and nothing has to be kept in step
    /// with guesses that come to nothing.
    fn forced(&self, tokens: &[u32], prompt_len: usize) -> Option<&[u32]> {
        let thought = &tokens[self.since(tokens, prompt_len)?..];
        if thought.len() < self.tokens as usize {
            return None;
        }
        // A beginning of the end that is there already is gone on with.
        let most = (self.end.len() - 1).min(thought.len());
        let begun = (0..=most).rev().find(|len| thought.ends_with(&self.end[..*len]))?;
        self.end.get(begun..begun + 1)
    }

    /// Where the thinking of an answer began that has not ended.
    fn since(&self, tokens: &[u32], prompt_len: usize) -> Option<usize> {
        let Some(start) = &self.start else {
            let answer = &tokens[prompt_len..];
            return last_end(answer, &self.end).is_none().then_some(prompt_len);
        };
        // Who thinks may say again that it begins: that is no new budget.
        let ended = last_end(tokens, &self.end).unwrap_or(0);
        let mut windows = tokens[ended..].windows(start.len());
        let began = ended + windows.position(|window| window == &start[..])? + start.len();
        Some(began.max(prompt_len))
    }
}

/// The place after the last occurrence of some tokens.
fn last_end(tokens: &[u32], of: &[u32]) -> Option<usize> {
    let at = tokens.windows(of.len()).rposition(|window| window == of)?;
    Some(at + of.len())
}

/// How the tokens that one was drawn from are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// One by one.
    Tokens,
    /// By a hash.
    Hash,
}

/// The tokens that one was drawn from: what masks and filters left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The whole vocabulary.
    All,
    /// These, ascending.
    Tokens(Arc<[u32]>),
    /// FNV-1a of 64 bits over them, ascending, each as four bytes, the lowest first.
    Hash(u64),
}

impl Kept {
    /// From a bit for each token of a vocabulary, of which `count` are set.
    pub(crate) fn of(words: &[u32], count: u32, vocab: u32, keep: Keep) -> Self {
        if count == vocab {
            return Self::All;
        }
        let tokens = (0..).step_by(32).zip(words).filter(|(_, word)| **word != 0);
        let tokens = tokens.flat_map(|(first, word)| {
            (0..32).filter(move |bit| word >> bit & 1 == 1).map(move |bit| first + bit)
        });
        match keep {
            Keep::Tokens => {
                let mut list = Vec::with_capacity(count as usize);
                list.extend(tokens);
                Self::Tokens(list.into())
            }
            Keep::Hash => Self::Hash(hash(tokens)),
        }
    }
}

impl Kept {
    /// Its hash as [`Hash`](Self::Hash) tells it. Of all tokens it is that of none, which no
    /// kept set is.
    pub fn hash(&self) -> u64 {
        match self {
            Self::All => hash([].into_iter()),
            Self::Tokens(tokens) => hash(tokens.iter().copied()),
            Self::Hash(hash) => *hash,
        }
    }
}

fn hash(tokens: impl Iterator<Item = u32>) -> u64 {
    let bytes = tokens.flat_map(u32::to_le_bytes);
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::{Course, Keep, Kept, Schedule, Steps, Then, Thinking, TokenSet, hash, power};

    #[test]
    fn a_set_is_of_its_vocabulary() {
        let set = TokenSet::new(65, &[0, 31, 32, 64, 64]).expect("they are of it");
        assert_eq!((set.words(), set.len()), (&[1 | 1 << 31, 1, 1][..], 4));
        assert!(TokenSet::new(65, &[]).expect("none").is_empty());
        let refused = TokenSet::new(65, &[3, 65]).expect_err("it is beyond");
        assert_eq!((refused.got.as_str(), refused.expected.as_str()), ("65", "tokens below 65"));
    }

    #[test]
    fn temperatures_follow_their_course_and_end_at_its_end() {
        let decay = Schedule { start: 1.2, end: 0.6, course: Course::Decay(0.97) };
        assert_eq!((decay.at(0), decay.at(100_000)), (1.2, 0.6));
        for place in 0..500 {
            let plain = 0.6 + 0.6 * 0.97f64.powf(place as f64);
            assert!((f64::from(decay.at(place)) - plain).abs() < 1e-7, "{place}");
        }
        let line = Schedule { start: 0.5, end: 1.5, course: Course::Tokens(4) };
        let all = [0, 1, 2, 3, 4, 5, usize::MAX].map(|place| line.at(place));
        assert_eq!(all, [0.5, 0.75, 1.0, 1.25, 1.5, 1.5, 1.5]);
        let still = Schedule { start: 0.7, end: 0.0, course: Course::Decay(0.0) };
        assert_eq!([0, 1, 2].map(|place| still.at(place)), [0.7, 0.0, 0.0]);
        assert_eq!((power(0.0, 0), power(2.0, 10), power(1.0, usize::MAX)), (1.0, 1024.0, 1.0));
    }

    #[test]
    fn lists_end_as_they_say() {
        let lists: Vec<std::sync::Arc<[u32]>> = vec![[1].into(), [2, 3].into()];
        let steps = |then| Steps { lists: lists.clone().into(), then };
        for (then, after, ends) in [
            (Then::Free, None, false),
            (Then::Last, Some(&[2, 3][..]), false),
            (Then::End, None, true),
        ] {
            let steps = steps(then);
            assert_eq!((steps.at(0), steps.at(1)), (Some(&[1][..]), Some(&[2, 3][..])));
            assert_eq!((steps.at(2), steps.end_at(2), steps.end_at(1)), (after, ends, false));
        }
    }

    #[test]
    fn thinking_is_counted_from_where_it_began_and_its_end_is_forced_whole() {
        let one = Thinking { tokens: 2, start: Some([8].into()), end: [9].into() };
        let forced = |thinking: &Thinking, prompt: &[u32], answer: &[u32]| {
            let tokens = [prompt, answer].concat();
            thinking.forced(&tokens, prompt.len()).map(|one| one[0])
        };
        for (prompt, answer, expected) in [
            (&[1][..], &[1, 1, 1][..], None),
            (&[1], &[8, 1], None),
            (&[1], &[8, 1, 1], Some(9)),
            (&[1], &[8, 1, 8], Some(9)),
            (&[1], &[8, 1, 1, 9], None),
            (&[1], &[8, 1, 1, 9, 8, 1, 1], Some(9)),
            // A prompt that ends within thinking; then one that does not.
            (&[1, 8, 1, 1, 1], &[], None),
            (&[1, 8, 1], &[1, 1], Some(9)),
            (&[8, 1, 9], &[1, 1], None),
        ] {
            assert_eq!(forced(&one, prompt, answer), expected, "{prompt:?} {answer:?}");
        }
        let bare = Thinking { tokens: 3, start: None, end: [5, 5, 6].into() };
        for (answer, expected) in [
            (&[][..], None),
            (&[1, 1, 1][..], Some(5)),
            (&[1, 1, 1, 5], Some(5)),
            (&[1, 1, 1, 5, 5], Some(6)),
            (&[1, 1, 1, 5, 5, 6], None),
            // What begins its end by itself is gone on with.
            (&[1, 5, 5], Some(6)),
            (&[1, 5, 1], Some(5)),
        ] {
            assert_eq!(forced(&bare, &[5, 5, 6], answer), expected, "{answer:?}");
        }
        let none = Thinking { tokens: 0, start: None, end: [4].into() };
        assert_eq!(forced(&none, &[1], &[]), Some(4));
    }

    #[test]
    fn what_was_kept_is_told_by_tokens_or_by_a_hash_of_them() {
        let words = [1 << 3 | 1 << 31, 0, 1];
        let tokens: std::sync::Arc<[u32]> = [3, 31, 64].into();
        assert_eq!(Kept::of(&words, 3, 65, Keep::Tokens), Kept::Tokens(tokens));
        let bytes = b"\x03\0\0\0\x1f\0\0\0\x40\0\0\0";
        let fnv = bytes.iter().fold(14_695_981_039_346_656_037u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(1_099_511_628_211)
        });
        assert_eq!(Kept::of(&words, 3, 65, Keep::Hash), Kept::Hash(fnv));
        // As its authors publish it: of nothing, the offset.
        assert_eq!(hash([].into_iter()), 0xcbf2_9ce4_8422_2325);
        assert_eq!(Kept::of(&[u32::MAX, u32::MAX, 1], 65, 65, Keep::Hash), Kept::All);
    }
}
