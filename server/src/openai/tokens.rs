//! `/tokenize` and `/detokenize`.

use super::fields::Fields;
use super::prompts::{self, Cut, Reading};
use super::sampling::known;
use super::tools::Tools;
use super::{Refusal, check_model, messages, written};
use crate::served::Served;
use serde_json::json;

/// Tokens of a text or of a conversation.
pub fn tokenize(body: &[u8], served: &Served) -> Result<Vec<u8>, Refusal> {
    let mut fields = Fields::read(body)?;
    // An adapter has the tokens of its base.
    check_model(&mut fields, served)?;
    let prompt: Option<String> = fields.take("prompt")?;
    // A template writes the special tokens itself.
    let special = fields.take("add_special_tokens")?.unwrap_or(prompt.is_some());
    let reading = Reading { served, special, cut: Cut::No };
    let tokens = match prompt {
        Some(prompt) => prompts::encode("prompt", &prompt, reading)?,
        None => {
            let tools = Tools::read(&mut fields, served.text.form())?;
            let told = tools.as_ref().and_then(Tools::told);
            let prompt = messages::prompt(&mut fields, told.as_deref(), reading);
            prompt.map_err(unasked)?.0
        }
    };
    let tokenizer = &served.text.tokenizer;
    let spelled = fields.switch("return_token_strs")?;
    fields.done()?;
    let spell = |token: &u32| tokenizer.spelling(*token).unwrap_or_default();
    let spellings = spelled.then(|| tokens.iter().map(spell).collect::<Vec<_>>());
    Ok(written(&json!({
        "count": tokens.len(),
        "max_model_len": served.context,
        "tokens": &*tokens,
        "token_strs": spellings,
    })))
}

/// Neither of what may be asked for is there.
fn unasked(refusal: Refusal) -> Refusal {
    match refusal.param.as_deref() {
        Some("messages") if refusal.message.ends_with("is required") => {
            Refusal::field("prompt", "`prompt` or `messages` is required")
        }
        _ => refusal,
    }
}

/// The text of tokens, the special ones included.
pub fn detokenize(body: &[u8], served: &Served) -> Result<Vec<u8>, Refusal> {
    let mut fields = Fields::read(body)?;
    check_model(&mut fields, served)?;
    let tokens: Vec<u32> = fields.must("tokens")?;
    fields.done()?;
    known("tokens", &tokens, served)?;
    let text = served.text.tokenizer.decode(&tokens, false)?;
    Ok(written(&json!({ "prompt": text })))
}
