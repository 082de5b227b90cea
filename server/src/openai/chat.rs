//! `/v1/chat/completions`: answer a conversation.

use super::answer::{Answers, End, Piece, StopReason};
use super::fields::Fields;
use super::messages;
use super::prompts::{Cut, Prompt, Reading};
use super::sampling::{Asked, TOP_MAX};
use super::shape::{Head, Names, PromptScores, Usage, said, usage};
use super::{Context, Refusal, Surface};
use engine::request::{Request, Scored};
use serde::Serialize;
use std::sync::Arc;

/// What is asked.
pub struct Chat {
    context: Arc<Context>,
    head: Head,
    asked: Asked,
    prompt: Prompt,
    room: u32,
}

#[derive(Serialize)]
struct Response<'a> {
    object: &'static str,
    #[serde(flatten)]
    head: &'a Head,
    choices: Vec<Choice>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Usage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_token_ids: Option<Arc<[u32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptScores<'a>>,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Message>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delta: Option<Message>,
    logprobs: Option<Logprobs>,
    finish_reason: Option<&'static str>,
    stop_reason: Option<StopReason>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_ids: Option<Vec<u32>>,
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    token: Named,
    /// After penalties, temperature and filters; `logprob` is before them.
    processed_logprob: f32,
    top_logprobs: Vec<Named>,
}

#[derive(Serialize)]
struct Named {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl Chat {
    /// From a body.
    pub fn read(body: &[u8], context: Arc<Context>) -> Result<Self, Refusal> {
        let mut fields = Fields::read(body)?;
        let served = &context.served;
        super::check_model(&mut fields, served)?;
        let cut = Cut::read(&mut fields)?;
        // The template writes the special tokens itself.
        let special = fields.switch("add_special_tokens")?;
        let reading = Reading { served, special, cut };
        let tokens = messages::prompt(&mut fields, reading)?;
        let mut prompt = Prompt { name: "messages".into(), tokens, text: None };
        let shown = fields.switch("logprobs")?;
        let top = fields.within("top_logprobs", 0..=TOP_MAX)?;
        if top.is_some_and(|top| top > 0) && !shown {
            return Err(Refusal::field("top_logprobs", "only where `logprobs` is true"));
        }
        let newer: Option<u32> = fields.take("max_completion_tokens")?;
        let older: Option<u32> = fields.take("max_tokens")?;
        let name = if newer.is_some() { "max_completion_tokens" } else { "max_tokens" };
        let new = newer.or(older);
        prompt.cut(reading, new.unwrap_or(1));
        fields.only("echo", &[false.into()])?;
        fields.only("modalities", &[serde_json::json!(["text"])])?;
        // Of no tools, `auto` chooses none.
        fields.only("tool_choice", &["none".into(), "auto".into()])?;
        fields.only("function_call", &["none".into(), "auto".into()])?;
        fields.only("parallel_tool_calls", &[true.into(), false.into()])?;
        let mut asked = Asked::read(&mut fields, served, shown.then_some(top.unwrap_or(0)))?;
        fields.done()?;
        let room = asked.room((name, new), &prompt, served)?;
        asked.compile(served)?;
        let head = Head::new("chatcmpl", &asked, &context);
        Ok(Self { head, asked, prompt, room, context })
    }

    fn names(&self) -> Names<'_> {
        let tokenizer = &self.context.served.text.tokenizer;
        Names { tokenizer, numbered: self.asked.numbered_tokens }
    }

    fn named(&self, token: u32, logprob: f32) -> Named {
        let bytes = self.context.served.text.tokenizer.bytes(token).to_vec();
        Named { token: self.names().of(token), logprob: said(logprob), bytes }
    }

    fn entry(&self, scored: &Scored) -> Entry {
        let top = self.asked.top.unwrap_or(0) as usize;
        let listed = scored.top.iter().take(top);
        Entry {
            token: self.named(scored.token, scored.raw),
            processed_logprob: said(scored.processed),
            top_logprobs: listed.map(|(token, raw)| self.named(*token, *raw)).collect(),
        }
    }

    /// A piece, but for its text.
    fn choice(&self, piece: &Piece) -> Choice {
        let End { reason, stop } = piece.end.clone().unwrap_or(End { reason: "", stop: None });
        let entries = || piece.tokens.iter().map(|(scored, _)| self.entry(scored)).collect();
        let tokens = || piece.tokens.iter().map(|(scored, _)| scored.token).collect();
        Choice {
            index: piece.index,
            message: None,
            delta: None,
            logprobs: self.asked.top.map(|_| Logprobs { content: entries() }),
            finish_reason: (!reason.is_empty()).then_some(reason),
            stop_reason: stop,
            token_ids: self.asked.show_tokens.then(tokens),
        }
    }

    fn response<'a>(&'a self, object: &'static str, choices: Vec<Choice>) -> Response<'a> {
        Response {
            object,
            head: &self.head,
            choices,
            usage: None,
            prompt_token_ids: None,
            prompt_logprobs: None,
        }
    }

    fn prompt_logprobs<'a>(&'a self, answers: &'a Answers) -> Option<PromptScores<'a>> {
        let scores = answers.computed[0].as_ref().map_or(&[][..], |computed| &computed.logprobs);
        self.asked.prompt_top.map(|top| PromptScores { scores, top, names: self.names() })
    }

    fn usage(&self, answers: &Answers) -> Usage {
        usage(&[self.prompt.tokens.len()], answers)
    }
}

/// What heads the pieces of a stream.
const CHUNK: &str = "chat.completion.chunk";

impl Surface for Chat {
    fn asked(&self) -> &Asked {
        &self.asked
    }

    fn requests(&self) -> Vec<Request> {
        vec![self.asked.request(&self.prompt.tokens, self.room, self.asked.prompt_top)]
    }

    fn whole(&self, pieces: Vec<Piece>, answers: &Answers) -> Vec<u8> {
        let message = |piece: Piece| {
            let choice = self.choice(&piece);
            let message = Message { role: Some("assistant"), content: Some(piece.text) };
            Choice { message: Some(message), ..choice }
        };
        let mut response =
            self.response("chat.completion", pieces.into_iter().map(message).collect());
        response.usage = Some(self.usage(answers));
        response.prompt_token_ids = self.asked.show_tokens.then(|| self.prompt.tokens.clone());
        response.prompt_logprobs = self.prompt_logprobs(answers);
        super::written(&response)
    }

    fn beginning(&self) -> Vec<Vec<u8>> {
        let begin = |index| {
            let role = Message { role: Some("assistant"), content: Some(String::new()) };
            let choice = self.choice(&Piece::empty(index));
            let choice = Choice { delta: Some(role), logprobs: None, ..choice };
            let mut response = self.response(CHUNK, vec![choice]);
            response.prompt_token_ids = self.asked.show_tokens.then(|| self.prompt.tokens.clone());
            super::written(&response)
        };
        (0..self.asked.choices as usize).map(begin).collect()
    }

    fn chunk(&self, piece: Piece, first: bool, answers: &Answers) -> Vec<u8> {
        let choice = self.choice(&piece);
        let content = (!piece.text.is_empty()).then_some(piece.text);
        let delta = Some(Message { role: None, content });
        let due = first && choice.index == 0;
        let mut response = self.response(CHUNK, vec![Choice { delta, ..choice }]);
        // The stream has begun before its prompt was computed: they come with what follows,
        // and once, for they are of the prompt.
        response.prompt_logprobs = if due { self.prompt_logprobs(answers) } else { None };
        super::written(&response)
    }

    fn last(&self, answers: &Answers) -> Vec<u8> {
        let mut response = self.response(CHUNK, Vec::new());
        response.usage = Some(self.usage(answers));
        super::written(&response)
    }
}
