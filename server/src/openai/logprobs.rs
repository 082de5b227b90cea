//! The log-probabilities of completions: one list for each thing that is told of tokens.
//! They are written from where they lie, for all answers to a prompt tell the same of it.

use super::prompts::Prompt;
use super::shape::{Names, Table, said};
use crate::text::characters::Characters;
use engine::request::Scored;
use serde::ser::{Serialize, SerializeStruct, Serializer};

/// A prompt as it is echoed.
pub struct Echo {
    /// Its text, as it was given or as its tokens say.
    pub text: String,
    /// Characters of the text.
    pub characters: usize,
    /// Where each token begins in the text, in characters.
    offsets: Vec<usize>,
}

impl Echo {
    /// The echo of a prompt, whose text it takes; special tokens have text unless they are
    /// skipped.
    pub fn of(prompt: &mut Prompt, names: Names<'_>, skip_special: bool) -> Self {
        let tokenizer = names.tokenizer;
        let given = prompt.text.take();
        // Those that the text leaves out take no room in it.
        let silent = given.is_none() && skip_special;
        let (mut characters, mut offset) = (Characters::default(), 0);
        let place = |token: &u32| {
            let begin = offset;
            if !(silent && tokenizer.is_special(*token)) {
                offset += characters.push(tokenizer.bytes(*token)).chars().count();
            }
            begin
        };
        let offsets = prompt.tokens.iter().map(place).collect();
        let decode = || tokenizer.decode(&prompt.tokens, skip_special).unwrap_or_default();
        let text = given.unwrap_or_else(decode);
        Self { characters: text.chars().count(), text, offsets }
    }
}

/// The tokens of a prompt with all that is told of them.
#[derive(Clone, Copy)]
pub struct Echoed<'a> {
    /// Its tokens.
    pub tokens: &'a [u32],
    /// Where they are in its text.
    pub echo: &'a Echo,
    /// Their log-probabilities.
    pub scores: &'a [Option<Scored>],
}

/// One entry for each token, the prompt's first if they are echoed.
pub struct Logprobs<'a> {
    /// How tokens are named.
    pub names: Names<'a>,
    /// Most likely tokens to list.
    pub top: usize,
    /// The prompt's, if they are told here.
    pub prompt: Option<Echoed<'a>>,
    /// Of the answer, with where each begins in it.
    pub answer: &'a [(Scored, usize)],
    /// Characters before the answer.
    pub before: usize,
}

/// A token, and where it begins in the text.
struct Row<'a> {
    token: u32,
    scored: Option<&'a Scored>,
    offset: usize,
}

impl Logprobs<'_> {
    fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        let prompt = self.prompt.into_iter().flat_map(|Echoed { tokens, echo, scores }| {
            tokens.iter().zip(&echo.offsets).enumerate().map(move |(at, (token, offset))| {
                let scored = scores.get(at).and_then(Option::as_ref);
                Row { token: *token, scored, offset: *offset }
            })
        });
        let answer = self.answer.iter().map(|(scored, offset)| Row {
            token: scored.token,
            scored: Some(scored),
            offset: self.before + offset,
        });
        prompt.chain(answer)
    }

    /// Names of the most likely tokens, and of the one that came where it is not of them.
    fn table(&self, scored: &Scored) -> Table {
        let listed = scored.top.iter().take(self.top);
        let own = (scored.token, scored.raw);
        let more = (!listed.clone().any(|(token, _)| *token == own.0)).then_some(own);
        let all = listed.copied().chain(more);
        Table(all.map(|(token, raw)| (self.names.of(token), said(raw))).collect())
    }
}

/// One of the lists.
struct Column<'a, T>(&'a Logprobs<'a>, fn(&Logprobs<'_>, Row<'_>) -> T);

impl<T: Serialize> Serialize for Column<'_, T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(all, each) = self;
        to.collect_seq(all.rows().map(|row| each(all, row)))
    }
}

impl Serialize for Logprobs<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut lists = to.serialize_struct("Logprobs", 5)?;
        let names = Column(self, |all, row| all.names.of(row.token));
        lists.serialize_field("tokens", &names)?;
        // Before penalties, temperature and filters; then after them.
        let raw = Column(self, |_, row| row.scored.map(|scored| said(scored.raw)));
        lists.serialize_field("token_logprobs", &raw)?;
        let processed = Column(self, |_, row| row.scored.map(|scored| said(scored.processed)));
        lists.serialize_field("processed_token_logprobs", &processed)?;
        let top = Column(self, |all, row| row.scored.map(|scored| all.table(scored)));
        lists.serialize_field("top_logprobs", &top)?;
        let offsets = Column(self, |_, row| row.offset);
        lists.serialize_field("text_offset", &offsets)?;
        lists.end()
    }
}
