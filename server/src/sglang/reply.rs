//! What `/generate` answers: for each answer an object with its text, its tokens and all
//! that is known of them. A stream tells all of it anew with each piece.

use super::ask::{Ask, Scores};
use crate::openai::answer::{Piece, VersionSpan};
use crate::openai::shape::said;
use crate::rollouts::Collected;
use crate::runtime::Labels;
use crate::text::tokenizer::Tokenizer;
use engine::request::{Finish, Scored};
use serde::ser::{Serialize, Serializer};
use std::sync::Arc;

/// One answer so far.
#[derive(Debug)]
pub struct Told {
    /// All that came.
    pub piece: Piece,
    /// Why it has ended, if it has.
    pub why: Option<Finish>,
    /// Steps in which so many guessed tokens came, from none on.
    pub steps: Vec<u32>,
    /// Tokens that were guessed, and those that came.
    pub guessed: (u32, u32),
    /// Seconds that it took, when it has ended.
    pub seconds: f64,
}

impl Told {
    /// Of which nothing has come.
    pub fn new(choice: usize) -> Self {
        let (steps, guessed, seconds) = (Vec::new(), (0, 0), 0.0);
        Self { piece: Piece::empty(choice), why: None, steps, guessed, seconds }
    }

    /// With what came in a step. The first token takes no step of its own.
    pub fn join(&mut self, piece: Piece) {
        let begun = !self.piece.tokens.is_empty();
        if let Some(more) = piece.tokens.len().checked_sub(1).filter(|_| begun) {
            self.steps.resize(self.steps.len().max(more + 1), 0);
            self.steps[more] += 1;
        }
        self.piece.join(piece);
    }
}

/// What is told of an answer besides itself.
pub struct Around<'a> {
    /// What was asked.
    pub ask: &'a Ask,
    /// Whether its prompt is told.
    pub show_prompt: bool,
    /// Whether tokens have their text.
    pub token_texts: bool,
    /// Its name.
    pub id: String,
    /// Tokens of the prompt that were there already, and their log-probabilities.
    pub prompt: (u32, &'a [Option<Scored>]),
    /// What the weights are called now.
    pub current: Arc<str>,
    /// What they were called.
    pub labels: &'a Labels,
    /// Names of tokens.
    pub tokenizer: &'a Tokenizer,
    /// Its place in a stream of several.
    pub index: Option<usize>,
    /// What became of it besides, once it has ended.
    pub collected: Option<Collected>,
}

/// An answer, as it is written.
#[derive(serde::Serialize)]
pub struct Reply<'a> {
    text: &'a str,
    output_ids: Ids<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a [u32]>,
    meta_info: Meta<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
}

#[derive(serde::Serialize)]
struct Meta<'a> {
    id: String,
    finish_reason: Option<FinishReason<'a>>,
    prompt_tokens: usize,
    completion_tokens: usize,
    cached_tokens: u32,
    reasoning_tokens: u32,
    weight_version: Arc<str>,
    weight_versions: Vec<VersionSpan>,
    #[serde(flatten)]
    logprobs: Option<Logprobs>,
    #[serde(flatten)]
    guesses: Option<Guesses<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    e2e_latency: Option<f64>,
    #[serde(flatten)]
    collected: Option<&'a Collected>,
}

#[derive(serde::Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum FinishReason<'a> {
    Stop { matched: Matched<'a> },
    Length { length: usize },
    Abort { message: &'a str, status_code: Option<u16>, err_type: Option<&'a str> },
}

#[derive(serde::Serialize)]
#[serde(untagged)]
enum Matched<'a> {
    Token(Option<u32>),
    Text(&'a str),
}

#[derive(serde::Serialize)]
struct Logprobs {
    input_token_logprobs: Vec<Entry>,
    output_token_logprobs: Vec<Entry>,
    output_token_logprobs_length: usize,
    #[serde(flatten)]
    top: Option<Tops>,
    #[serde(flatten)]
    chosen: Option<Chosen>,
}

#[derive(serde::Serialize)]
struct Tops {
    input_top_logprobs: Vec<Option<Vec<Entry>>>,
    output_top_logprobs: Vec<Vec<Entry>>,
}

#[derive(serde::Serialize)]
struct Chosen {
    input_token_ids_logprobs: Vec<Option<Vec<Entry>>>,
    output_token_ids_logprobs: Vec<Vec<Entry>>,
}

/// A log-probability, its token and, where that is asked for, the token's text.
#[derive(serde::Serialize)]
struct Entry(Option<f32>, u32, Option<String>);

#[derive(serde::Serialize)]
struct Guesses<'a> {
    spec_accept_rate: f64,
    spec_accept_length: f64,
    spec_num_correct_drafts: u32,
    spec_num_proposed_drafts: u32,
    spec_verify_ct: u32,
    spec_correct_drafts_histogram: &'a [u32],
}

struct Ids<'a>(&'a [(Scored, usize)]);

impl Serialize for Ids<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.0.iter().map(|(scored, _)| scored.token))
    }
}

impl<'a> Reply<'a> {
    /// Of an answer.
    pub fn of(told: &'a Told, around: &'a Around<'a>) -> Self {
        let (piece, ask) = (&told.piece, around.ask);
        let (cached, scores) = around.prompt;
        let label = |version| around.labels.name(version);
        let lists = ask.scores.as_ref().map(|asked| Lists { around, asked });
        let logprobs = lists.map(|lists| lists.of(piece, scores));
        let meta_info = Meta {
            id: around.id.clone(),
            finish_reason: told.why.as_ref().map(|why| finish_reason(why, told, ask)),
            prompt_tokens: ask.prompt.tokens.len(),
            completion_tokens: piece.tokens.len(),
            cached_tokens: cached,
            reasoning_tokens: 0,
            weight_version: piece.versions.last().map_or_else(|| around.current.clone(), label),
            weight_versions: piece.versions.spans(0, around.labels),
            logprobs,
            guesses: guesses(told),
            e2e_latency: told.why.as_ref().map(|_| told.seconds),
            collected: around.collected.as_ref(),
        };
        Self {
            text: &piece.text,
            output_ids: Ids(&piece.tokens),
            prompt_token_ids: around.show_prompt.then_some(&ask.prompt.tokens),
            meta_info,
            index: around.index,
        }
    }
}

fn finish_reason<'a>(why: &'a Finish, told: &Told, ask: &'a Ask) -> FinishReason<'a> {
    let tokens = &told.piece.tokens;
    let last = || Matched::Token(tokens.last().map(|(scored, _)| scored.token));
    let abort = |message| FinishReason::Abort { message, status_code: None, err_type: None };
    match why {
        Finish::Length => FinishReason::Length { length: tokens.len() },
        Finish::Eos | Finish::Complete => FinishReason::Stop { matched: last() },
        Finish::Token(token) => FinishReason::Stop { matched: Matched::Token(Some(*token)) },
        Finish::String { which, .. } => {
            let text = ask.params.asked.stop_strings.get(*which).map_or("", |text| text);
            FinishReason::Stop { matched: Matched::Text(text) }
        }
        Finish::Expression(which) => {
            let text = ask.params.asked.stop_expressions.get(*which).map_or("", |text| text);
            FinishReason::Stop { matched: Matched::Text(text) }
        }
        Finish::Cancelled | Finish::Aborted => abort("Aborted"),
        Finish::Deadline => abort("the request took longer than --request-timeout-seconds"),
        Finish::Stuck(words) | Finish::Failed(words) => abort(words),
    }
}

/// How guesses fared, where there were some.
fn guesses(told: &Told) -> Option<Guesses<'_>> {
    let (guessed, held) = told.guessed;
    if guessed == 0 {
        return None;
    }
    let steps: u32 = told.steps.iter().sum();
    let tokens = told.piece.tokens.len().saturating_sub(1) as f64;
    Some(Guesses {
        spec_accept_rate: f64::from(held) / f64::from(guessed),
        spec_accept_length: tokens / f64::from(steps.max(1)),
        spec_num_correct_drafts: held,
        spec_num_proposed_drafts: guessed,
        spec_verify_ct: steps,
        spec_correct_drafts_histogram: &told.steps,
    })
}

/// How lists are written.
struct Lists<'a> {
    around: &'a Around<'a>,
    asked: &'a Scores,
}

impl Lists<'_> {
    fn of(&self, piece: &Piece, scores: &[Option<Scored>]) -> Logprobs {
        let Scores { from, top, chosen } = self.asked;
        let tokens = &self.around.ask.prompt.tokens;
        let from = from.unwrap_or(tokens.len()).min(tokens.len());
        // The first that is listed has none: it was not asked for.
        let scored = |at: usize| scores.get(at).and_then(Option::as_ref);
        let input = (from..tokens.len())
            .map(|at| self.entry(scored(at).map(|scored| scored.raw), tokens[at]));
        let output = piece.tokens.iter().map(|(scored, _)| {
            let tempered = self.around.ask.params.tempered;
            let told = if tempered { scored.processed } else { scored.raw };
            self.entry(Some(told), scored.token)
        });
        Logprobs {
            input_token_logprobs: input.collect(),
            output_token_logprobs: output.collect(),
            output_token_logprobs_length: piece.tokens.len(),
            top: (*top > 0).then(|| Tops {
                input_top_logprobs: (from..tokens.len())
                    .map(|at| scored(at).map(|scored| self.top(scored)))
                    .collect(),
                output_top_logprobs: piece
                    .tokens
                    .iter()
                    .map(|(scored, _)| self.top(scored))
                    .collect(),
            }),
            chosen: (!chosen.is_empty()).then(|| Chosen {
                input_token_ids_logprobs: (from..tokens.len())
                    .map(|at| scored(at).map(|scored| self.chosen(scored)))
                    .collect(),
                output_token_ids_logprobs: piece
                    .tokens
                    .iter()
                    .map(|(scored, _)| self.chosen(scored))
                    .collect(),
            }),
        }
    }

    fn top(&self, scored: &Scored) -> Vec<Entry> {
        let listed = scored.top.iter().take(self.asked.top as usize);
        listed.map(|&(token, raw)| self.entry(Some(raw), token)).collect()
    }

    fn chosen(&self, scored: &Scored) -> Vec<Entry> {
        let each = self.asked.chosen.iter().zip(&scored.chosen);
        each.map(|(token, raw)| self.entry(Some(*raw), *token)).collect()
    }

    fn entry(&self, logprob: Option<f32>, token: u32) -> Entry {
        let text = self.around.token_texts.then(|| self.around.tokenizer.name(token));
        Entry(logprob.map(said), token, text)
    }
}
