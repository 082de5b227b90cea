//! Adapters as PEFT saves them: `adapter_config.json` beside `adapter_model.safetensors`.
//! What would change what is computed, and is not served, is refused by its name.

use super::matrices::{self, Kind, Matrix};
use super::patterns::{Patterns, Targets};
use super::pieces::{Piece, Pieces, Said, put};
use super::rank;
use super::stored::Stored;
use crate::error::Error;
use crate::field::Fields;
use engine::lora::Adapter;
use engine::model::Config;
use serde_json::Value;
use std::collections::BTreeMap;

/// Fields that training alone asks for, that name things, or that are read below. Any other
/// must ask for nothing: newer versions have fields that change what an adapter computes.
const FIELDS: &[&str] = &[
    // Read below.
    "peft_type",
    "r",
    "lora_alpha",
    "use_rslora",
    "use_dora",
    "rank_pattern",
    "alpha_pattern",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
    "bias",
    "init_lora_weights",
    TIED,
    // Names.
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "task_type",
    "peft_version",
    "megatron_core",
    // Of training, or of fields that must be absent.
    "inference_mode",
    "lora_dropout",
    "runtime_config",
    "loftq_config",
    "eva_config",
    "corda_config",
    "lora_ga_config",
    "qalora_group_size",
];

/// The field that makes one term of those of the embedding and the output.
const TIED: &str = "ensure_weight_tying";

/// What stands before the names of a model's own tensors where PEFT wraps it.
const WRAPPED: &str = "base_model.model.";

/// What stands after the name of a matrix whose own weights were saved beside its term.
const BASE: &str = ".base_layer.weight";

/// What a configuration says of all terms.
struct Plan {
    rank: u32,
    ranks: Patterns<u32>,
    alpha: f64,
    alphas: Patterns<f64>,
    /// Whether scales are over the root of the rank.
    root: bool,
    dora: bool,
    targets: Targets,
    /// Whether the output has the embedding's term: see `one_without_the_other`.
    tied: bool,
}

/// The adapter that a configuration and tensors are together.
pub fn read(
    fields: &Fields<'_>,
    tensors: BTreeMap<String, Stored<'_>>,
    config: &Config,
) -> Result<Adapter, Error> {
    let matrices = matrices::of(config);
    let plan = plan(fields, matrices.len())?;
    let sorted = sort(tensors, &matrices, &plan)?;
    let mut adapter = Adapter::default();
    for (name, pieces) in sorted {
        let said = plan.said(fields, &name)?;
        if let Some(term) = pieces.term(&matrices[&name], said)? {
            adapter.terms.insert(name, term);
        }
    }
    one_without_the_other(fields, plan.tied, &adapter, &matrices)?;
    Ok(adapter)
}

fn plan(fields: &Fields<'_>, matrix_count: usize) -> Result<Plan, Error> {
    match fields.word("peft_type")? {
        Some("LORA") => {}
        other => return Err(fields.refuse("peft_type", "LORA", other.unwrap_or("absent"))),
    }
    refuse_what_differs(fields)?;
    let ranks = Patterns::read(fields, "rank_pattern", matrix_count, rank)?;
    let alphas =
        Patterns::read(fields, "alpha_pattern", matrix_count, |fields, name| fields.f64(name))?;
    Ok(Plan {
        rank: rank(fields, "r")?,
        ranks,
        alpha: fields.f64("lora_alpha")?,
        alphas,
        root: fields.flag("use_rslora")?,
        dora: fields.flag("use_dora")?,
        targets: Targets::read(fields)?,
        tied: fields.flag(TIED)?,
    })
}

fn refuse_what_differs(fields: &Fields<'_>) -> Result<(), Error> {
    match fields.word("bias")? {
        None | Some("none") => {}
        Some(other) => return Err(fields.refuse("bias", "none", other)),
    }
    start(fields)?;
    let other = fields
        .object
        .iter()
        .find(|(name, value)| !FIELDS.contains(&name.as_str()) && !asks_for_nothing(value));
    match other {
        None => Ok(()),
        Some((name, value)) => {
            let expected = "absent, false or empty, as what it asks for is not served";
            Err(fields.refuse(name, expected, value))
        }
    }
}

/// How its matrices began. Those that PEFT takes out of the base when training begins (and
/// again whenever it loads such an adapter) fit that other base alone. PEFT makes plain
/// terms of them on request, and writes `true` here then; so what still has such a name
/// was not converted, and would be wrong on the base that is served.
fn start(fields: &Fields<'_>) -> Result<(), Error> {
    let name = "init_lora_weights";
    let expected = "a start that leaves the base as it is: save the adapter converted to plain \
                    LoRA, with path_initial_model_for_weight_conversion";
    match fields.value(name) {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(word)) => match word.to_lowercase().as_str() {
            "gaussian" | "eva" | "orthogonal" | "mica" => Ok(()),
            _ => Err(fields.refuse(name, expected, word)),
        },
        Some(other) => Err(fields.refuse(name, expected, other)),
    }
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(flag) => !flag,
        Value::String(word) => word.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(object) => object.is_empty(),
        Value::Number(_) => false,
    }
}

impl Plan {
    fn said(&self, fields: &Fields<'_>, matrix: &str) -> Result<Said, Error> {
        let rank = self.ranks.of(matrix).unwrap_or(self.rank);
        let (field, alpha) = match self.alphas.of(matrix) {
            Some(alpha) => ("alpha_pattern", alpha),
            None => ("lora_alpha", self.alpha),
        };
        let over = if self.root { f64::from(rank).sqrt() } else { f64::from(rank) };
        let scale = (alpha / over) as f32;
        if !scale.is_finite() {
            return Err(fields.refuse(field, "a number whose scale fits an f32", alpha));
        }
        Ok(Said { rank, scale, magnitude: self.dora, turned: false })
    }
}

/// The tensors of each matrix. Each must be expected: PEFT would leave it out in silence.
fn sort<'a>(
    tensors: BTreeMap<String, Stored<'a>>,
    matrices: &BTreeMap<String, Matrix>,
    plan: &Plan,
) -> Result<BTreeMap<String, Pieces<'a>>, Error> {
    let (mut sorted, mut bases) = (BTreeMap::new(), Vec::new());
    for (full, stored) in tensors {
        let name = full.strip_prefix(WRAPPED).unwrap_or(&full);
        if let Some(matrix) = name.strip_suffix(BASE) {
            bases.push((matrix.to_owned(), stored));
            continue;
        }
        let Some((name, piece, of_embedding)) = parse(name) else {
            return Err(stored.refuse("is no piece of a low-rank term, and nothing else is served"));
        };
        let Some(matrix) = matrices.get(name) else {
            return Err(stored.refuse(format!("is of {name}, a matrix this model has not")));
        };
        let fits = piece == Piece::Magnitude || of_embedding == (matrix.kind == Kind::Embedding);
        if !fits {
            let other = if of_embedding { "a product" } else { "an embedding" };
            return Err(stored.refuse(format!("is no piece that {other} has")));
        }
        // PEFT takes the output off the list of targets when it ties it to the embedding.
        let tied = plan.tied && matrix.kind == Kind::Output;
        if !tied && !plan.targets.hold(name, matrix) {
            let what = "is of a matrix that target_modules, exclude_modules and \
                        layers_to_transform leave out";
            return Err(stored.refuse(what));
        }
        put(&mut sorted, name, piece, stored)?;
    }
    bases.iter().try_for_each(|(matrix, stored)| base(stored, matrix, matrices, &sorted))?;
    Ok(sorted)
}

/// A copy of the base's weights, which PEFT saves with the term of an embedding or of output
/// weights. Those are frozen, so that the copy says nothing that the base does not, unless
/// its vocabulary was changed.
fn base(
    stored: &Stored<'_>,
    name: &str,
    matrices: &BTreeMap<String, Matrix>,
    sorted: &BTreeMap<String, Pieces<'_>>,
) -> Result<(), Error> {
    let refuse = || stored.refuse("is a weight of the base, and nothing but terms is served");
    let matrix = matrices.get(name).filter(|_| sorted.contains_key(name)).ok_or_else(refuse)?;
    match matrix.kind {
        Kind::Embedding => stored.has_shape(&[matrix.inputs, matrix.outputs]),
        Kind::Output => stored.has_shape(&[matrix.outputs, matrix.inputs]),
        Kind::Layer(_) => Err(refuse()),
    }
}

/// The matrix of a tensor, which piece it is, and whether an embedding has such pieces.
/// Adapters have names in PEFT, which may stand in their tensors': `lora_A.default.weight`.
fn parse(name: &str) -> Option<(&str, Piece, bool)> {
    let (matrix, rest) = name.split_once(".lora_")?;
    let (kind, tail) = rest.split_once('.').unwrap_or((rest, ""));
    let adapter = |name: &str| !name.is_empty() && !name.contains('.');
    let weight = tail == "weight" || tail.strip_suffix(".weight").is_some_and(adapter);
    let bare = tail.is_empty() && rest == kind || adapter(tail);
    match kind {
        "A" if weight => Some((matrix, Piece::A, false)),
        "B" if weight => Some((matrix, Piece::B, false)),
        "embedding_A" if bare => Some((matrix, Piece::A, true)),
        "embedding_B" if bare => Some((matrix, Piece::B, true)),
        "magnitude_vector" if bare || weight => Some((matrix, Piece::Magnitude, false)),
        _ => None,
    }
}

/// With `ensure_weight_tying` one term is both of the embedding and of the output, and PEFT
/// saves it under both names. What has one of them alone would be served half.
fn one_without_the_other(
    fields: &Fields<'_>,
    tied: bool,
    adapter: &Adapter,
    matrices: &BTreeMap<String, Matrix>,
) -> Result<(), Error> {
    if !tied {
        return Ok(());
    }
    let has = |kind: Kind| adapter.terms.keys().any(|name| matrices[name].kind == kind);
    if has(Kind::Embedding) == has(Kind::Output) {
        return Ok(());
    }
    let expected = "false where the embedding and the output have not both a term";
    Err(fields.refuse(TIED, expected, true))
}
