//! `config.json` as the engine's configuration. A field that would change what the model
//! computes and that no kernel here serves is refused by name.

use crate::error::{Error, Fault};
use crate::field::Fields;
use crate::packed;
use crate::rope::rope;
use engine::model::{Config, Family};
use serde_json::{Map, Value};
use std::path::Path;

/// What the files say together.
pub fn read(path: &Path, generation: &Path) -> Result<Config, Error> {
    let object = object(path)?;
    let fields = Fields { path, within: "", object: &object };
    let mut config = config(&fields)?;
    // Chat models often end with another token than the one they were trained with first.
    if generation.exists() {
        let object = self::object(generation)?;
        let more = eos(&Fields { path: generation, within: "", object: &object })?;
        config.eos.extend(more);
    }
    config.eos.sort_unstable();
    config.eos.dedup();
    match config.check() {
        Ok(()) => Ok(config),
        Err(refused) => {
            let engine::request::Refused { field, expected, got } = refused;
            let field = in_the_file(field).to_owned();
            Err(Error::new(path, Fault::Field { field, expected, got }))
        }
    }
}

fn object(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = std::fs::read(path).map_err(|error| Error::unreadable(path, &error))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| Error::malformed(path, error))?;
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(Error::malformed(path, "is no JSON object")),
    }
}

fn config(fields: &Fields<'_>) -> Result<Config, Error> {
    let family = family(fields)?;
    refuse_what_differs(fields)?;
    let (layers, heads) = (fields.u32("num_hidden_layers")?, fields.u32("num_attention_heads")?);
    let (hidden, max_len) = (fields.u32("hidden_size")?, fields.u32("max_position_embeddings")?);
    let head_dim = match fields.maybe_u32("head_dim")? {
        Some(dim) => dim,
        // What no head count divides is refused when the rest is known.
        None => hidden / heads.max(1),
    };
    Ok(Config {
        family,
        vocab: fields.u32("vocab_size")?,
        hidden,
        intermediate: fields.u32("intermediate_size")?,
        layers,
        heads,
        kv_heads: fields.maybe_u32("num_key_value_heads")?.unwrap_or(heads),
        head_dim,
        norm_epsilon: fields.maybe_f64("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        rope: rope(fields, max_len)?,
        max_len,
        tied: fields.flag("tie_word_embeddings")?,
        windows: windows(fields, family, layers)?,
        attention_bias: family != Family::Qwen2 && fields.flag("attention_bias")?,
        mlp_bias: fields.flag("mlp_bias")?,
        zeros_less_one: packed::zeros_less_one(fields)?,
        eos: eos(fields)?,
    })
}

fn family(fields: &Fields<'_>) -> Result<Family, Error> {
    let known = "llama, mistral, qwen2 or qwen3";
    match fields.word("model_type")? {
        Some("llama") => Ok(Family::Llama),
        Some("mistral") => Ok(Family::Mistral),
        Some("qwen2") => Ok(Family::Qwen2),
        Some("qwen3") => Ok(Family::Qwen3),
        Some(other) => Err(fields.refuse("model_type", known, other)),
        None => Err(fields.refuse("model_type", known, "absent")),
    }
}

fn refuse_what_differs(fields: &Fields<'_>) -> Result<(), Error> {
    match fields.word("hidden_act")? {
        None | Some("silu") => {}
        Some(other) => return Err(fields.refuse("hidden_act", "silu", other)),
    }
    if fields.maybe_f64("partial_rotary_factor")?.is_some_and(|factor| factor != 1.0) {
        return Err(fields.refuse("partial_rotary_factor", "1: all of a head turns", "less"));
    }
    Ok(())
}

/// The window of each layer.
fn windows(fields: &Fields<'_>, family: Family, layers: u32) -> Result<Vec<Option<u32>>, Error> {
    let window = match family {
        Family::Llama => None,
        Family::Mistral => fields.maybe_u32("sliding_window")?,
        Family::Qwen2 | Family::Qwen3 if !fields.flag("use_sliding_window")? => None,
        Family::Qwen2 | Family::Qwen3 => fields.maybe_u32("sliding_window")?,
    };
    if let (Some(_), Some(types)) = (window, fields.value("layer_types")) {
        let refuse = || {
            let expected = format!("{layers} times full_attention or sliding_attention");
            fields.refuse("layer_types", expected, types)
        };
        let each = |kind: &Value| match kind.as_str() {
            Some("full_attention") => Ok(None),
            Some("sliding_attention") => Ok(window),
            _ => Err(refuse()),
        };
        let types = types.as_array().filter(|types| types.len() == layers as usize);
        return types.ok_or_else(refuse)?.iter().map(each).collect();
    }
    let first = match family {
        Family::Qwen2 | Family::Qwen3 => fields.maybe_u32("max_window_layers")?.unwrap_or(0),
        Family::Llama | Family::Mistral => 0,
    };
    Ok((0..layers.min(1 << 12)).map(|layer| window.filter(|_| layer >= first)).collect())
}

/// Tokens with which an answer ends: none, one or some.
fn eos(fields: &Fields<'_>) -> Result<Vec<u32>, Error> {
    let Some(value) = fields.value("eos_token_id") else {
        return Ok(Vec::new());
    };
    let some = match value {
        Value::Array(some) => some.as_slice(),
        one => std::slice::from_ref(one),
    };
    let token = |value: &Value| value.as_u64().and_then(|token| u32::try_from(token).ok());
    let tokens: Option<Vec<u32>> = some.iter().map(token).collect();
    tokens.ok_or_else(|| fields.refuse("eos_token_id", "a token or a list of tokens", value))
}

/// What files call a field of the engine's configuration.
fn in_the_file(field: &'static str) -> &'static str {
    match field {
        "vocab" => "vocab_size",
        "hidden" => "hidden_size",
        "intermediate" => "intermediate_size",
        "layers" => "num_hidden_layers",
        "heads" => "num_attention_heads",
        "kv_heads" => "num_key_value_heads",
        "norm_epsilon" => "rms_norm_eps",
        "max_len" => "max_position_embeddings",
        "windows" => "sliding_window",
        "eos" => "eos_token_id",
        same => same,
    }
}
