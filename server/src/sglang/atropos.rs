//! The form that Atropos asks its own vLLM server in, by the path that SGLang has, too: a
//! `prompt`, and sampling parameters beside it.

use crate::openai::answer::{Answers, Piece};
use crate::openai::fields::Fields;
use crate::openai::prompts::{self, Cut, Prompt, Reading};
use crate::openai::sampling::{Asked, TOP_MAX};
use crate::openai::shape::{Names, PromptScores, said};
use crate::openai::{Context, Refusal, Surface};
use engine::request::{Class, Request, Scored};
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::Value;
use std::sync::Arc;

/// Tokens of an answer where nothing is asked.
const MAX_NEW: u32 = 16;

/// Reads what is asked.
pub fn read(mut fields: Fields, context: Arc<Context>) -> Result<Arc<dyn Surface>, Refusal> {
    let served = &context.served;
    let prompt = match fields.must("prompt")? {
        Value::Object(object) => {
            let mut fields = Fields::of(object);
            let tokens = fields.must("prompt_token_ids")?;
            fields.done()?;
            tokens
        }
        text @ Value::String(_) => text,
        _ => {
            let words = "expected a string, or an object with `prompt_token_ids`";
            return Err(Refusal::field("prompt", words));
        }
    };
    let reading = Reading { served, special: true, cut: Cut::No };
    let mut prompts = prompts::read("prompt", prompt, reading)?;
    if prompts.len() != 1 {
        return Err(Refusal::expected("prompt", "one prompt", prompts.len()));
    }
    let prompt = prompts.remove(0);
    fields.only("stream", &[Value::Bool(false)])?;
    // There, none at all is one.
    let top = fields.within("logprobs", 0..=TOP_MAX)?.map(|top| top.max(1));
    let max_new = Some(fields.take("max_tokens")?.unwrap_or(MAX_NEW));
    let mut asked = Asked::read(&mut fields, served, top)?;
    fields.done()?;
    asked.classify(&context, Class::Rollout);
    let room = asked.room(("max_tokens", max_new), &prompt, served)?;
    asked.check_repeated(std::slice::from_ref(&prompt), false)?;
    asked.compile(served)?;
    let text = served.text.tokenizer.decode(&prompt.tokens, false)?;
    Ok(Arc::new(Asks { context, asked, prompt, text, room }))
}

/// What is asked.
struct Asks {
    context: Arc<Context>,
    asked: Asked,
    prompt: Prompt,
    text: String,
    room: u32,
}

#[derive(Serialize)]
struct Reply<'a> {
    text: Vec<&'a str>,
    prompt: &'a str,
    finish_reasons: Vec<Option<&'static str>>,
    #[serde(flatten)]
    tokens: Option<Tokens<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt_logprobs: Option<PromptScores<'a>>,
}

#[derive(Serialize)]
struct Tokens<'a> {
    logprobs: Vec<Vec<[Table<'a>; 1]>>,
    prompt_token_ids: &'a [u32],
    token_ids: Vec<Vec<u32>>,
}

/// The most likely tokens by number, and the one that came.
struct Table<'a> {
    scored: &'a Scored,
    top: u32,
}

impl Serialize for Table<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let Scored { token, raw, top, .. } = self.scored;
        let mut map = to.serialize_map(None)?;
        // Who reads one alone reads the first.
        map.serialize_entry(token, &said(*raw))?;
        for (other, raw) in top.iter().take(self.top as usize).filter(|(other, _)| other != token) {
            map.serialize_entry(other, &said(*raw))?;
        }
        map.end()
    }
}

fn tables(piece: &Piece, top: u32) -> Vec<[Table<'_>; 1]> {
    piece.tokens.iter().map(|(scored, _)| [Table { scored, top }]).collect()
}

impl Surface for Asks {
    fn asked(&self) -> &Asked {
        &self.asked
    }

    fn requests(&self) -> Vec<Request> {
        vec![self.asked.request(&self.prompt.tokens, self.room, self.asked.prompt_top)]
    }

    fn whole(&self, pieces: Vec<Piece>, answers: &Answers) -> Vec<u8> {
        let scores = answers.computed[0].as_ref().map_or(&[][..], |computed| &computed.logprobs);
        let names = Names { tokenizer: &self.context.served.text.tokenizer, numbered: false };
        let ids = |piece: &Piece| piece.tokens.iter().map(|(scored, _)| scored.token).collect();
        let tokens = self.asked.top.map(|top| Tokens {
            logprobs: pieces.iter().map(|piece| tables(piece, top)).collect(),
            prompt_token_ids: &self.prompt.tokens,
            token_ids: pieces.iter().map(ids).collect(),
        });
        let reply = Reply {
            text: pieces.iter().map(|piece| &*piece.text).collect(),
            prompt: &self.text,
            finish_reasons: pieces.iter().map(|p| p.end.as_ref().map(|end| end.reason)).collect(),
            tokens,
            prompt_logprobs: self.asked.prompt_top.map(|top| PromptScores { scores, top, names }),
        };
        serde_json::to_vec(&reply).expect("its maps have strings as keys")
    }

    // It is never sent in pieces.
    fn beginning(&self) -> Vec<Vec<u8>> {
        Vec::new()
    }

    fn chunk(&self, piece: Piece, _first: bool, answers: &Answers) -> Vec<u8> {
        self.whole(vec![piece], answers)
    }

    fn last(&self, answers: &Answers) -> Vec<u8> {
        self.whole(Vec::new(), answers)
    }
}
