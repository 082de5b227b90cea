//! `/inference/v1/generate`: tokens in, tokens out.

use crate::openai::answer::{Answers, Piece, StopReason, VersionSpan};
use crate::openai::fields::Fields;
use crate::openai::kept::{self, SamplingMask};
use crate::openai::prompts::Prompt;
use crate::openai::sampling::{Asked, TOP_MAX, known};
use crate::openai::shape::{Names, PromptScores, Usage, said, usage};
use crate::openai::{Context, Refusal, Surface, check_model, written};
use crate::rollouts::{Collected, Heading, Rollout};
use engine::request::{Class, Request, Scored};
use serde::Serialize;
use serde_json::{Map, Value};
use std::sync::Arc;

/// Fields beside the sampling.
pub const OUTER: [&str; 18] = [
    "stream",
    "stream_options",
    "cache_salt",
    "class",
    "priority",
    "request_id",
    "return_token_ids",
    "return_sampling_mask",
    "sampling_mask",
    "processors",
    "return_ref_logprobs",
    "collect_trajectory",
    "scoring_function",
    "metadata",
    "group_id",
    "session_id",
    "max_staleness",
    "group",
];

/// What is asked.
pub struct Generate {
    context: Arc<Context>,
    id: String,
    model: String,
    asked: Asked,
    prompt: Prompt,
    room: u32,
    /// The answer has text, too.
    text: bool,
}

#[derive(Serialize)]
struct Response<'a> {
    request_id: &'a str,
    model: &'a str,
    created: u64,
    output_mode: &'static str,
    choices: Vec<Choice>,
    usage: Option<Usage>,
    prompt_logprobs: Option<PromptScores<'a>>,
    prompt_token_id_logprobs: Option<()>,
    prompt_token_ids: Option<&'a [u32]>,
    mm_placeholders: Option<()>,
    metrics: Option<()>,
    kv_transfer_params: Option<()>,
    #[serde(flatten)]
    rollout: Option<Heading>,
}

#[derive(Serialize)]
struct Choice {
    index: usize,
    finish_reason: Option<&'static str>,
    stop_reason: Option<StopReason>,
    token_ids: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    logprobs: Option<Logprobs>,
    routed_experts: Option<()>,
    /// Null is not asked for; within it, all tokens.
    sampling_mask: Option<Vec<SamplingMask>>,
    weight_versions: Option<Vec<VersionSpan>>,
    #[serde(flatten)]
    collected: Option<Collected>,
}

#[derive(Serialize)]
struct Logprobs {
    content: Vec<Entry>,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    token: Listed,
    /// After penalties, temperature and filters; `logprob` is before them.
    processed_logprob: f32,
    top_logprobs: Vec<Listed>,
}

/// A token under both names that clients know it by.
#[derive(Serialize)]
struct Listed {
    token: String,
    token_id: u32,
    logprob: f32,
    /// How many are as likely or likelier, where that is listed.
    rank: Option<usize>,
    bytes: Vec<u8>,
}

impl Generate {
    /// From a body.
    pub fn read(body: &[u8], context: Arc<Context>) -> Result<Self, Refusal> {
        let mut outer = Fields::read(body)?;
        let served = &context.served;
        let adapter = check_model(&mut outer, served)?;
        let tokens: Arc<[u32]> = outer.must("token_ids")?;
        if tokens.is_empty() {
            return Err(Refusal::expected("token_ids", "at least one token", "none"));
        }
        known("token_ids", &tokens, served)?;
        let text = match outer.take::<String>("output_mode")?.as_deref() {
            None | Some("tokens") => false,
            Some("text") => true,
            Some(other) => {
                return Err(Refusal::expected("output_mode", "`tokens` or `text`", other));
            }
        };
        let mut inner: Map<String, Value> = outer.must("sampling_params")?;
        // These stand beside the sampling, and mean what they mean elsewhere.
        for name in OUTER {
            if let Some(value) = outer.take::<Value>(name)? {
                inner.insert(name.to_owned(), value);
            }
        }
        for name in ["features", "content_parts", "parse_context", "kv_transfer_params"] {
            outer.only(name, &[])?;
        }
        for name in ["ec_transfer_params", "reasoning_ended", "reasoning_parser_kwargs"] {
            outer.only(name, &[])?;
        }
        // SkyRL's, of all tokens with each.
        outer.only("return_full_logprobs", &[Value::Bool(false)])?;
        outer.done()?;
        let mut fields = Fields::of(inner);
        let max_new: Option<u32> = fields.take("max_tokens")?;
        let top = fields.within("logprobs", 0..=TOP_MAX)?;
        fields.within("output_kind", 0..=2)?;
        fields.only("flat_logprobs", &[false.into()])?;
        fields.only("extra_args", &[serde_json::json!({})])?;
        fields.only("skip_reading_prefix_cache", &[false.into()])?;
        let mut asked = Asked::read(&mut fields, served, top)?;
        let rollout = Rollout::read(&mut fields, &context)?;
        asked.group(&mut fields, rollout, 1)?;
        asked.classify(&context, Class::Rollout);
        fields.done()?;
        asked.adapter = adapter;
        let prompt = Prompt { name: "token_ids".into(), tokens, text: None };
        asked.check_repeated(std::slice::from_ref(&prompt), false)?;
        let room = asked.room(("max_tokens", max_new), &prompt, served)?;
        asked.check_kept(&[room], served)?;
        asked.compile(served)?;
        let id = asked.request_id.clone().unwrap_or_else(|| context.request_id.clone());
        let model = asked.model(served);
        Ok(Self { id, model, asked, prompt, room, text, context })
    }

    fn response<'a>(&'a self, choices: Vec<Choice>) -> Response<'a> {
        Response {
            request_id: &self.id,
            model: &self.model,
            created: self.context.now,
            output_mode: if self.text { "text" } else { "tokens" },
            choices,
            usage: None,
            prompt_logprobs: None,
            prompt_token_id_logprobs: None,
            prompt_token_ids: None,
            mm_placeholders: None,
            metrics: None,
            kv_transfer_params: None,
            rollout: None,
        }
    }

    /// With what is told of the prompt.
    fn told<'a>(&'a self, mut response: Response<'a>, answers: &'a Answers) -> Response<'a> {
        let scores = answers.computed[0].as_ref().map_or(&[][..], |computed| &computed.logprobs);
        let tokenizer = &self.context.served.text.tokenizer;
        let names = Names { tokenizer, numbered: false };
        response.prompt_logprobs =
            self.asked.prompt_top.map(|top| PromptScores { scores, top, names });
        response.prompt_token_ids = self.asked.show_tokens.then_some(&*self.prompt.tokens);
        response
    }

    fn choice(&self, piece: Piece, spans: Option<Vec<VersionSpan>>, answers: &Answers) -> Choice {
        let collected = answers.rollout.of(&piece);
        let content = self.asked.top.map(|top| Logprobs {
            content: piece.tokens.iter().map(|(scored, _)| self.entry(scored, top)).collect(),
        });
        Choice {
            index: piece.index,
            finish_reason: piece.end.as_ref().map(|end| end.reason),
            stop_reason: piece.end.and_then(|end| end.stop),
            token_ids: piece.tokens.iter().map(|(scored, _)| scored.token).collect(),
            text: self.text.then_some(piece.text),
            logprobs: content,
            routed_experts: None,
            sampling_mask: self.asked.kept.map(|_| kept::told(&piece.tokens)),
            weight_versions: spans,
            collected,
        }
    }

    fn entry(&self, scored: &Scored, top: u32) -> Entry {
        let tokenizer = &self.context.served.text.tokenizer;
        let listed = |token: u32, logprob: f32, rank| Listed {
            token: format!("token_id:{token}"),
            token_id: token,
            logprob: said(logprob),
            rank,
            bytes: tokenizer.bytes(token).to_vec(),
        };
        let tops = scored.top.iter().take(top as usize).enumerate();
        let tops: Vec<Listed> =
            tops.map(|(at, &(token, raw))| listed(token, raw, Some(at + 1))).collect();
        let rank = tops.iter().find(|it| it.token_id == scored.token).and_then(|it| it.rank);
        Entry {
            token: listed(scored.token, scored.raw, rank),
            processed_logprob: said(scored.processed),
            top_logprobs: tops,
        }
    }

    fn usage(&self, answers: &Answers) -> Usage {
        usage(&[self.prompt.tokens.len()], answers)
    }
}

impl Surface for Generate {
    fn asked(&self) -> &Asked {
        &self.asked
    }

    fn tells_tokens(&self) -> bool {
        true
    }

    fn requests(&self) -> Vec<Request> {
        vec![self.asked.request(&self.prompt.tokens, self.room, self.asked.prompt_top)]
    }

    fn whole(&self, pieces: Vec<Piece>, answers: &Answers) -> Vec<u8> {
        let labels = &self.context.served.labels;
        let rollout = answers.rollout.heading(&pieces);
        let each = pieces.into_iter().map(|piece| {
            let spans = piece.versions.spans(0, labels);
            self.choice(piece, Some(spans), answers)
        });
        let response = self.response(each.collect());
        let response = Response { usage: Some(self.usage(answers)), rollout, ..response };
        written(&self.told(response, answers))
    }

    fn beginning(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn chunk(&self, piece: Piece, first: bool, answers: &Answers) -> Vec<u8> {
        // What made an answer is told with its last piece.
        let ended = piece.end.is_some();
        let labels = &self.context.served.labels;
        let spans = ended.then(|| answers.versions[piece.index].spans(0, labels));
        let first = first && piece.index == 0;
        let response = self.response(vec![self.choice(piece, spans, answers)]);
        written(&if first { self.told(response, answers) } else { response })
    }

    fn last(&self, answers: &Answers) -> Vec<u8> {
        let response = self.response(Vec::new());
        written(&Response { usage: Some(self.usage(answers)), ..response })
    }
}
