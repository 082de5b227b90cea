//! Adapters as MLX saves them: `adapter_config.json`, with all that training was told,
//! beside `adapters.safetensors`, whose matrices are turned against PEFT's.

use super::matrices::{self, Kind, Matrix, OUTPUT};
use super::pieces::{Piece, Pieces, Said, put, turn};
use super::rank;
use super::stored::Stored;
use crate::error::Error;
use crate::field::Fields;
use engine::lora::{Adapter, Term};
use engine::model::Config;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// What a configuration says of all terms.
struct Plan {
    said: Said,
    /// The first layer that has terms.
    first: u32,
    /// The matrices that have terms, in full or after the name of their layer.
    keys: Option<BTreeSet<String>>,
}

/// The adapter that a configuration and tensors are together.
pub fn read(
    fields: &Fields<'_>,
    tensors: BTreeMap<String, Stored<'_>>,
    config: &Config,
) -> Result<Adapter, Error> {
    let mut matrices = matrices::of(config);
    if config.tied {
        // MLX has no output weights then: see `as_output`.
        matrices.remove(OUTPUT);
    }
    let plan = plan(fields, config)?;
    let mut sorted: BTreeMap<String, Pieces<'_>> = BTreeMap::new();
    for (full, stored) in tensors {
        let Some((name, piece)) = parse(&full) else {
            return Err(stored.refuse("is no piece of a low-rank term, and nothing else is served"));
        };
        let Some(matrix) = matrices.get(name) else {
            return Err(stored.refuse(format!("is of {name}, a matrix this model has not")));
        };
        if !plan.holds(name, matrix) {
            let what = "is of a matrix that num_layers and lora_parameters.keys leave out";
            return Err(stored.refuse(what));
        }
        put(&mut sorted, name, piece, stored)?;
    }
    let mut adapter = Adapter::default();
    for (name, pieces) in sorted {
        let matrix = &matrices[&name];
        let Some(term) = pieces.term(matrix, plan.said)? else {
            continue;
        };
        if matrix.kind == Kind::Embedding && config.tied {
            adapter.terms.insert(OUTPUT.into(), as_output(&term));
        }
        adapter.terms.insert(name, term);
    }
    Ok(adapter)
}

fn plan(fields: &Fields<'_>, config: &Config) -> Result<Plan, Error> {
    let magnitude = match fields.word("fine_tune_type")? {
        None | Some("lora") => false,
        Some("dora") => true,
        Some(other) => return Err(fields.refuse("fine_tune_type", "lora or dora", other)),
    };
    let name = "lora_parameters";
    let Some(object) = fields.object(name)? else {
        return Err(fields.refuse(name, "an object", "absent"));
    };
    let parameters = Fields { within: "lora_parameters.", object, ..*fields };
    let scale = parameters.f64("scale")?;
    if !(scale as f32).is_finite() {
        return Err(parameters.refuse("scale", "a number that fits an f32", scale));
    }
    let rank = rank(&parameters, "rank")?;
    let said = Said { rank, scale: scale as f32, magnitude, turned: true };
    Ok(Plan { said, first: first(fields, config)?, keys: keys(&parameters)? })
}

/// The first layer with terms: so many layers from the last have them, none or fewer
/// meaning all. The field had another name before.
fn first(fields: &Fields<'_>, config: &Config) -> Result<u32, Error> {
    let name = if fields.value("num_layers").is_some() { "num_layers" } else { "lora_layers" };
    let Some(value) = fields.value(name) else {
        return Err(fields.refuse("num_layers", "a whole number", "absent"));
    };
    let Some(count) = value.as_i64() else {
        return Err(fields.refuse(name, "a whole number", value));
    };
    let all = config.layers;
    Ok(if count > 0 { all.saturating_sub(u32::try_from(count).unwrap_or(u32::MAX)) } else { 0 })
}

fn keys(parameters: &Fields<'_>) -> Result<Option<BTreeSet<String>>, Error> {
    let Some(value) = parameters.value("keys") else {
        return Ok(None);
    };
    let word = |value: &Value| value.as_str().map(str::to_owned);
    let words = value.as_array().and_then(|words| words.iter().map(word).collect());
    let words: Option<BTreeSet<String>> = words;
    words.map(Some).ok_or_else(|| parameters.refuse("keys", "a list of names", value))
}

impl Plan {
    fn holds(&self, name: &str, matrix: &Matrix) -> bool {
        if self.keys.as_ref().is_some_and(|keys| keys.contains(name)) {
            return true;
        }
        let Kind::Layer(layer) = matrix.kind else {
            return false;
        };
        let inner = name.strip_prefix(&format!("model.layers.{layer}."));
        let keyed = |keys: &BTreeSet<String>| inner.is_some_and(|inner| keys.contains(inner));
        layer >= self.first && self.keys.as_ref().is_none_or(keyed)
    }
}

fn parse(name: &str) -> Option<(&str, Piece)> {
    let (matrix, piece) = name.rsplit_once('.')?;
    match piece {
        "lora_a" => Some((matrix, Piece::A)),
        "lora_b" => Some((matrix, Piece::B)),
        "m" => Some((matrix, Piece::Magnitude)),
        _ => None,
    }
}

/// The term of a tied embedding as one of the output weights: MLX takes the embedding and
/// its term as output weights too, the other way round.
fn as_output(term: &Term) -> Term {
    Term {
        rank: term.rank,
        inputs: term.outputs,
        outputs: term.inputs,
        a: turn(&term.b, term.rank),
        b: turn(&term.a, term.inputs),
        scale: term.scale,
        magnitude: None,
    }
}
