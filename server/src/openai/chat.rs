//! `/v1/chat/completions`: answer a conversation.

use super::answer::{Answers, End, Piece, StopReason, VersionSpan};
use super::fields::Fields;
use super::kept::{self, SamplingMask};
use super::messages;
use super::prompts::{Cut, Prompt, Reading};
use super::sampling::{Asked, TOP_MAX};
use super::shape::{Head, Names, PromptScores, Usage, said, usage};
use super::tools::Tools;
use super::{Context, Refusal, Surface};
use crate::rollouts::{Collected, Heading, Rollout};
use crate::text::calls::read::Came;
use engine::request::{Class, Request, Scored};
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
    #[serde(flatten)]
    rollout: Option<Heading>,
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
    #[serde(skip_serializing_if = "Option::is_none")]
    weight_versions: Option<Vec<VersionSpan>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sampling_mask: Option<Vec<SamplingMask>>,
    #[serde(flatten)]
    collected: Option<Collected>,
}

#[derive(Serialize)]
struct Message {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<Option<String>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tool_calls: Vec<ToolCall>,
}

/// A call, or what came of one.
#[derive(Serialize)]
struct ToolCall {
    /// Of a piece, for whole answers have their calls in order.
    #[serde(skip_serializing_if = "Option::is_none")]
    index: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    function: Function,
}

#[derive(Serialize)]
struct Function {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    arguments: String,
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
        let adapter = super::check_model(&mut fields, served)?;
        let cut = Cut::read(&mut fields)?;
        // The template writes the special tokens itself.
        let special = fields.switch("add_special_tokens")?;
        let reading = Reading { served, special, cut };
        let tools = Tools::read(&mut fields, served.text.form())?;
        let told = tools.as_ref().and_then(Tools::told);
        let (tokens, template) = messages::prompt(&mut fields, told.as_deref(), reading)?;
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
        fields.only("function_call", &["none".into(), "auto".into()])?;
        let mut asked = Asked::read(&mut fields, served, shown.then_some(top.unwrap_or(0)))?;
        if let Some(tools) = &tools {
            asked.offer(tools)?;
        }
        let rollout = Rollout::read(&mut fields, &context)?;
        let rollout = rollout.map(|it| Rollout { template_hash: Some(template), ..it });
        asked.group(&mut fields, rollout, 1)?;
        fields.done()?;
        asked.adapter = adapter;
        asked.classify(&context, Class::Inference);
        let room = asked.room((name, new), &prompt, served)?;
        asked.check_kept(&[room], served)?;
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
    fn choice(&self, piece: &Piece, answers: Option<&Answers>) -> Choice {
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
            weight_versions: answers
                .and_then(|answers| answers.told(piece, &self.asked, &self.context)),
            sampling_mask: self.asked.kept.map(|_| kept::told(&piece.tokens)),
            collected: answers.and_then(|answers| answers.rollout.of(piece)),
        }
    }

    /// What came of an answer's calls, what came of one together.
    fn tool_calls(&self, answer: usize, came: Vec<Came>) -> Vec<ToolCall> {
        let mut calls: Vec<ToolCall> = Vec::new();
        for came in came {
            let (at, begun, more) = match came {
                Came::Call { index, name } => (index, Some(name), String::new()),
                Came::Arguments { index, text } => (index, None, text),
                Came::Text(_) => continue,
            };
            match calls.iter_mut().find(|call| call.index == Some(at)) {
                Some(call) => call.function.arguments.push_str(&more),
                None => calls.push(ToolCall {
                    index: Some(at),
                    id: begun.as_ref().map(|_| self.head.call(answer, at)),
                    kind: begun.as_ref().map(|_| "function"),
                    function: Function { name: begun, arguments: more },
                }),
            }
        }
        calls
    }

    fn response<'a>(&'a self, object: &'static str, choices: Vec<Choice>) -> Response<'a> {
        Response {
            object,
            head: &self.head,
            choices,
            usage: None,
            prompt_token_ids: None,
            prompt_logprobs: None,
            rollout: None,
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
            let choice = self.choice(&piece, Some(answers));
            let mut tool_calls = self.tool_calls(piece.index, piece.calls);
            tool_calls.iter_mut().for_each(|call| call.index = None);
            // Who calls may have nothing to say.
            let silent = piece.text.is_empty() && !tool_calls.is_empty();
            let content = Some((!silent).then_some(piece.text));
            let message = Message { role: Some("assistant"), content, tool_calls };
            Choice { message: Some(message), ..choice }
        };
        let heading = answers.rollout.heading(&pieces);
        let mut response =
            self.response("chat.completion", pieces.into_iter().map(message).collect());
        response.rollout = heading;
        response.usage = Some(self.usage(answers));
        response.prompt_token_ids = self.asked.show_tokens.then(|| self.prompt.tokens.clone());
        response.prompt_logprobs = self.prompt_logprobs(answers);
        super::written(&response)
    }

    fn beginning(&self) -> Vec<Vec<u8>> {
        let begin = |index| {
            let content = Some(Some(String::new()));
            let role = Message { role: Some("assistant"), content, tool_calls: Vec::new() };
            let choice = self.choice(&Piece::empty(index), None);
            let choice = Choice { delta: Some(role), logprobs: None, ..choice };
            let mut response = self.response(CHUNK, vec![choice]);
            response.prompt_token_ids = self.asked.show_tokens.then(|| self.prompt.tokens.clone());
            super::written(&response)
        };
        (0..self.asked.choices as usize).map(begin).collect()
    }

    fn chunk(&self, piece: Piece, first: bool, answers: &Answers) -> Vec<u8> {
        let choice = self.choice(&piece, Some(answers));
        let content = (!piece.text.is_empty()).then_some(Some(piece.text));
        let tool_calls = self.tool_calls(piece.index, piece.calls);
        let delta = Some(Message { role: None, content, tool_calls });
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
