//! `/v1/completions`: go on from prompts of text or tokens.

use super::answer::{Answers, End, Piece, StopReason};
use super::fields::Fields;
use super::prompts::{self, Prompt};
use super::sampling::{Asked, TOP_MAX};
use super::shape::{Head, Names, PromptScores, Table, Usage, prompt_scores, said, usage};
use super::{Context, Refusal, Surface};
use crate::text::characters::Characters;
use engine::request::{Request, Scored};
use serde::Serialize;
use std::sync::Arc;

/// Tokens of an answer where nothing is asked, as in OpenAI's API.
const MAX_NEW: u32 = 16;
/// Answers to all prompts of a request, at most.
const ANSWERS_MAX: usize = 1 << 16;

/// What is asked.
pub struct Completions {
    context: Arc<Context>,
    head: Head,
    asked: Asked,
    prompts: Vec<Prompt>,
    echo: bool,
    /// Tokens of an answer to each prompt.
    room: Vec<u32>,
}

#[derive(Serialize)]
struct Response<'a> {
    object: &'static str,
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    text: String,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Arc<[u32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptScores>,
}

/// One entry for each token, the prompt's first if they are echoed.
#[derive(Default, Serialize)]
struct Logprobs {
    tokens: Vec<String>,
    /// Before penalties, temperature and filters.
    token_logprobs: Vec<Option<f32>>,
    /// After them.
    processed_token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<Table>>,
    /// In characters of the text.
    text_offset: Vec<usize>,
}

impl Completions {
    /// From a body.
    pub fn read(body: &[u8], context: Arc<Context>) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let served = &context.served;
        super::check_model(&mut fields, served)?;
        let special = fields.take("add_special_tokens")?.unwrap_or(true);
        let mut prompts = prompts::read("prompt", fields.must("prompt")?, special, served)?;
        let top = fields.within("logprobs", 0..=TOP_MAX)?;
        let new = fields.take("max_tokens")?.unwrap_or(MAX_NEW);
        prompts::truncate(&mut fields, &mut prompts, new, served)?;
        let max_new = Some(new);
        let echo = fields.switch("echo")?;
        fields.only("suffix", &["".into()])?;
        let asked = Asked::read(&mut fields, served, top)?;
        fields.done()?;
        let answers = prompts.len() * asked.choices as usize;
        if answers > ANSWERS_MAX {
            let expected = format!("at most {ANSWERS_MAX} answers to all prompts together");
            return Err(Refusal::expected("n", &expected, answers));
        }
        let room = |prompt: &Prompt| asked.room(("max_tokens", max_new), prompt, served);
        let room = prompts.iter().map(room).collect::<Result<_, _>>()?;
        let head = Head::new("cmpl", &asked, &context);
        Ok(Self { head, asked, prompts, echo, room, context })
    }

    fn choice(&self, piece: Piece, first: bool, answers: &Answers) -> Choice {
        let at = piece.index / self.asked.choices as usize;
        let prompt = &self.prompts[at];
        let End { reason, stop } = piece.end.unwrap_or(End { reason: "", stop: None });
        let scores = answers.computed[at].as_ref().map_or(&[][..], |computed| &computed.logprobs);
        let mut logprobs = self.asked.top.map(|_| Logprobs::default());
        // Later events need no more of it than its length, for offsets.
        let echoes = self.echo && (first || logprobs.is_some());
        let echoed = if echoes { self.echoed(prompt) } else { String::new() };
        if let (Some(logprobs), true, true) = (&mut logprobs, first, self.echo) {
            self.score_prompt(logprobs, prompt, scores);
        }
        let before = echoed.chars().count();
        for (token, offset) in &piece.tokens {
            if let Some(logprobs) = &mut logprobs {
                self.score(logprobs, token.token, Some(token), before + offset);
            }
        }
        let told = (first && self.asked.show_tokens).then(|| prompt.tokens.clone());
        let shown = self.asked.prompt_top.filter(|_| first);
        Choice {
            index: piece.index,
            text: if first { echoed + &piece.text } else { piece.text },
            logprobs,
            finish_reason: (!reason.is_empty()).then_some(reason),
            stop_reason: stop,
            token_ids: self.asked.show_tokens.then(|| ids(&piece.tokens)),
            prompt_token_ids: told,
            prompt_logprobs: shown.map(|top| prompt_scores(scores, top, self.names())),
        }
    }

    /// A prompt's text, as it was given or as its tokens say.
    fn echoed(&self, prompt: &Prompt) -> String {
        let decode = || {
            let tokenizer = &self.context.served.text.tokenizer;
            tokenizer.decode(&prompt.tokens, self.asked.skip_special).unwrap_or_default()
        };
        prompt.text.clone().unwrap_or_else(decode)
    }

    fn score_prompt(&self, to: &mut Logprobs, prompt: &Prompt, scores: &[Option<Scored>]) {
        let (mut characters, mut offset) = (Characters::default(), 0);
        for (at, token) in prompt.tokens.iter().enumerate() {
            self.score(to, *token, scores.get(at).and_then(Option::as_ref), offset);
            let tokenizer = &self.context.served.text.tokenizer;
            // Those that the text leaves out take no room in it.
            let silent = prompt.text.is_none() && self.asked.skip_special;
            if !(silent && tokenizer.is_special(*token)) {
                offset += characters.push(tokenizer.bytes(*token)).chars().count();
            }
        }
    }

    fn score(&self, to: &mut Logprobs, token: u32, scored: Option<&Scored>, offset: usize) {
        let names = self.names();
        to.tokens.push(names.of(token));
        to.token_logprobs.push(scored.map(|scored| said(scored.raw)));
        to.processed_token_logprobs.push(scored.map(|scored| said(scored.processed)));
        to.text_offset.push(offset);
        let top = self.asked.top.unwrap_or(0) as usize;
        to.top_logprobs.push(scored.map(|scored| {
            let listed = scored.top.iter().take(top);
            let mut all: Vec<(String, f32)> =
                listed.map(|(token, raw)| (names.of(*token), said(*raw))).collect();
            if !scored.top.iter().take(top).any(|(listed, _)| *listed == token) {
                all.push((names.of(token), said(scored.raw)));
            }
            Table(all)
        }));
    }

    fn names(&self) -> Names<'_> {
        let tokenizer = &self.context.served.text.tokenizer;
        Names { tokenizer, numbered: self.asked.numbered_tokens }
    }

    fn response(&self, choices: Vec<Choice>, usage: Option<Usage>) -> Vec<u8> {
        let object = "text_completion";
        super::written(&Response { object, head: &self.head, choices, usage })
    }

    fn usage(&self, answers: &Answers) -> Usage {
        let lengths: Vec<usize> = self.prompts.iter().map(|prompt| prompt.tokens.len()).collect();
        usage(&lengths, &answers.computed, answers.new)
    }
}

impl Surface for Completions {
    fn asked(&self) -> &Asked {
        &self.asked
    }

    fn requests(&self) -> Vec<Request> {
        // An echo with log-probabilities needs those of the prompt.
        let echoed = self.asked.top.filter(|_| self.echo);
        let top = self.asked.prompt_top.max(echoed);
        let each = self.prompts.iter().zip(&self.room);
        each.map(|(prompt, room)| self.asked.request(&prompt.tokens, *room, top)).collect()
    }

    fn whole(&self, pieces: Vec<Piece>, answers: &Answers) -> Vec<u8> {
        let choices = pieces.into_iter().map(|piece| self.choice(piece, true, answers));
        self.response(choices.collect(), Some(self.usage(answers)))
    }

    fn beginning(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn chunk(&self, piece: Piece, first: bool, answers: &Answers) -> Vec<u8> {
        self.response(vec![self.choice(piece, first, answers)], None)
    }

    fn last(&self, answers: &Answers) -> Vec<u8> {
        self.response(Vec::new(), Some(self.usage(answers)))
    }
}

fn ids(tokens: &[(Scored, usize)]) -> Vec<u32> {
    tokens.iter().map(|(scored, _)| scored.token).collect()
}
