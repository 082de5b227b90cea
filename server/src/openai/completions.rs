//! `/v1/completions`: go on from prompts of text or tokens.

use super::answer::{Answers, Piece, StopReason, VersionSpan};
use super::fields::Fields;
use super::kept::{self, SamplingMask};
use super::logprobs::{Echo, Echoed, Logprobs};
use super::prompts::{self, Cut, Prompt, Reading};
use super::sampling::{Asked, TOP_MAX};
use super::shape::{Head, Names, PromptScores, Usage, usage};
use super::{Context, Refusal, Surface};
use crate::rollouts::{Collected, Heading, Rollout};
use engine::request::{Class, Request, Scored};
use serde::{Serialize, Serializer};
use std::sync::Arc;

/// Tokens of an answer where nothing is asked, as in OpenAI's API.
const MAX_NEW: u32 = 16;
/// Answers to all prompts of a request, at most.
const ANSWERS_MAX: usize = 1 << 16;

/// What every answer is.
const OBJECT: &str = "text_completion";

/// What is asked.
pub struct Completions {
    context: Arc<Context>,
    head: Head,
    asked: Asked,
    prompts: Vec<Prompt>,
    /// Of each prompt, if they are echoed.
    echoes: Vec<Echo>,
    /// Tokens of an answer to each prompt.
    room: Vec<u32>,
}

#[derive(Serialize)]
struct Response<'a> {
    object: &'static str,
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<Choice<'a>>,
    #[serde(flatten)]
    rollout: Option<Heading>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
}

#[derive(Serialize)]
struct Choice<'a> {
    index: usize,
    text: Text<'a>,
    logprobs: Option<Logprobs<'a>>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<&'a StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<&'a Arc<[u32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptScores<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_versions: Option<Vec<VersionSpan>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_mask: Option<Vec<SamplingMask>>,
    #[serde(flatten)]
    collected: Option<Collected>,
}

/// What was echoed, and what came.
struct Text<'a>(&'a str, &'a str);

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Self(echoed, came) = self;
        to.collect_str(&format_args!("{echoed}{came}"))
    }
}

impl Completions {
    /// From a body.
    pub fn read(body: &[u8], context: Arc<Context>) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let served = &context.served;
        let adapter = super::check_model(&mut fields, served)?;
        let special = fields.take("add_special_tokens")?.unwrap_or(true);
        let cut = Cut::read(&mut fields)?;
        let reading = Reading { served, special, cut };
        let mut prompts = prompts::read("prompt", fields.must("prompt")?, reading)?;
        let top = fields.within("logprobs", 0..=TOP_MAX)?;
        let new = fields.take("max_tokens")?.unwrap_or(MAX_NEW);
        prompts.iter_mut().for_each(|prompt| prompt.cut(reading, new));
        let max_new = Some(new);
        let echo = fields.switch("echo")?;
        fields.only("suffix", &["".into()])?;
        let mut asked = Asked::read(&mut fields, served, top)?;
        let rollout = Rollout::read(&mut fields, &context)?;
        asked.group(&mut fields, rollout, prompts.len())?;
        asked.classify(&context, Class::Inference);
        fields.done()?;
        asked.adapter = adapter;
        let answers = prompts.len() * asked.choices as usize;
        if answers > ANSWERS_MAX {
            let expected = format!("at most {ANSWERS_MAX} answers to all prompts together");
            return Err(Refusal::expected("n", &expected, answers));
        }
        asked.check_repeated(&prompts, echo)?;
        let room = |prompt: &Prompt| asked.room(("max_tokens", max_new), prompt, served);
        let room = prompts.iter().map(room).collect::<Result<Vec<_>, _>>()?;
        asked.check_kept(&room, served)?;
        asked.compile(served)?;
        let head = Head::new("cmpl", &asked, &context);
        let tokenizer = &served.text.tokenizer;
        let names = Names { tokenizer, numbered: asked.numbered_tokens };
        let echoed = prompts.iter_mut().filter(|_| echo);
        let echoes = echoed.map(|prompt| Echo::of(prompt, names, asked.skip_special)).collect();
        Ok(Self { head, asked, prompts, echoes, room, context })
    }

    fn choice<'a>(&'a self, piece: &'a Piece, first: bool, answers: &'a Answers) -> Choice<'a> {
        let at = piece.index / self.asked.choices as usize;
        let tokens = &self.prompts[at].tokens;
        let scores = answers.computed[at].as_ref().map_or(&[][..], |computed| &computed.logprobs);
        let echo = self.echoes.get(at);
        let logprobs = self.asked.top.map(|top| Logprobs {
            names: self.names(),
            top: top as usize,
            prompt: echo.filter(|_| first).map(|echo| Echoed { tokens, echo, scores }),
            answer: &piece.tokens,
            // Later events need no more of it than its length.
            before: echo.map_or(0, |echo| echo.characters),
        });
        let shown = self.asked.prompt_top.filter(|_| first);
        Choice {
            index: piece.index,
            text: Text(echo.filter(|_| first).map_or("", |echo| &echo.text), &piece.text),
            logprobs,
            finish_reason: piece.end.as_ref().map(|end| end.reason),
            stop_reason: piece.end.as_ref().and_then(|end| end.stop.as_ref()),
            token_ids: self.asked.show_tokens.then(|| ids(&piece.tokens)),
            prompt_token_ids: (first && self.asked.show_tokens).then_some(tokens),
            prompt_logprobs: shown.map(|top| PromptScores { scores, top, names: self.names() }),
            weight_versions: answers.told(piece, &self.asked, &self.context),
            sampling_mask: self.asked.kept.map(|_| kept::told(&piece.tokens)),
            collected: answers.rollout.of(piece),
        }
    }

    fn names(&self) -> Names<'_> {
        let tokenizer = &self.context.served.text.tokenizer;
        Names { tokenizer, numbered: self.asked.numbered_tokens }
    }

    fn response(&self, choices: Vec<Choice<'_>>, usage: Option<Usage>) -> Vec<u8> {
        let object = OBJECT;
        super::written(&Response { object, head: &self.head, choices, rollout: None, usage })
    }

    fn usage(&self, answers: &Answers) -> Usage {
        let lengths: Vec<usize> = self.prompts.iter().map(|prompt| prompt.tokens.len()).collect();
        usage(&lengths, answers)
    }
}

impl Surface for Completions {
    fn asked(&self) -> &Asked {
        &self.asked
    }

    fn requests(&self) -> Vec<Request> {
        // An echo with log-probabilities needs those of the prompt.
        let echoed = self.asked.top.filter(|_| !self.echoes.is_empty());
        let top = self.asked.prompt_top.max(echoed);
        let each = self.prompts.iter().zip(&self.room);
        each.map(|(prompt, room)| self.asked.request(&prompt.tokens, *room, top)).collect()
    }

    fn whole(&self, pieces: Vec<Piece>, answers: &Answers) -> Vec<u8> {
        let choices = pieces.iter().map(|piece| self.choice(piece, true, answers));
        super::written(&Response {
            object: OBJECT,
            head: &self.head,
            choices: choices.collect(),
            rollout: answers.rollout.heading(&pieces),
            usage: Some(self.usage(answers)),
        })
    }

    fn beginning(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn chunk(&self, piece: Piece, first: bool, answers: &Answers) -> Vec<u8> {
        self.response(vec![self.choice(&piece, first, answers)], None)
    }

    fn last(&self, answers: &Answers) -> Vec<u8> {
        self.response(Vec::new(), Some(self.usage(answers)))
    }
}

fn ids(tokens: &[(Scored, usize)]) -> Vec<u32> {
    tokens.iter().map(|(scored, _)| scored.token).collect()
}
