//! An adapter written as PEFT saves one, so that others read it too: f32, and terms of
//! other ranks and scales by their full names.

use super::matrices::{self, Kind, Matrix};
use super::{CONFIG, PEFT, of_bytes};
use crate::error::Error;
use crate::place::place;
use engine::lora::{Adapter, Term};
use engine::model::Config;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

/// Writes an adapter of a model into a folder of its own, whose parent is there; read back,
/// it has the same bits. `base` names the model for who reads the configuration. An older
/// adapter there is replaced in one step: a crash leaves the old or the new one, whole. A
/// folder with anything else in it is left as it is.
pub fn write(folder: &Path, adapter: &Adapter, config: &Config, base: &str) -> Result<(), Error> {
    let [tensors, text] = &files(folder, adapter, config, base)?;
    place(folder, &[(PEFT, &|to| to.write_all(tensors)), (CONFIG, &|to| to.write_all(text))])
}

/// The bytes of the two files, of tensors and of their configuration, that an adapter has in
/// a folder.
pub fn files(
    folder: &Path,
    adapter: &Adapter,
    config: &Config,
    base: &str,
) -> Result<[Vec<u8>; 2], Error> {
    let path = folder.join(PEFT);
    let tensors = tensors(&path, adapter, &matrices::of(config))?;
    let text = format!("{:#}\n", said(adapter, base));
    // What another reader would refuse is not written.
    let read = of_bytes(text.as_bytes(), &tensors, config);
    let read = read.map_err(|error| Error { path: folder.join(&error.path), ..error })?;
    // Scales are numbers by now, and all else was read as it was written.
    assert!(read == *adapter, "what is written reads back as it was");
    Ok([tensors, text.into_bytes()])
}

/// The bytes of the tensors' file.
fn tensors(
    path: &Path,
    adapter: &Adapter,
    matrices: &BTreeMap<String, Matrix>,
) -> Result<Vec<u8>, Error> {
    let mut all: BTreeMap<String, (Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (matrix, term) in &adapter.terms {
        // JSON has no word for it.
        if !term.scale.is_finite() {
            let what = format!("has the scale {}, which is no number", term.scale);
            return Err(Error::tensor(path, matrix, what));
        }
        let names = names(matrices.get(matrix));
        let (rank, inputs, outputs) = (term.rank, term.inputs, term.outputs);
        let mut put = |name: &str, shape: &[u32], floats: &[f32]| {
            let name = format!("base_model.model.{matrix}.{name}");
            let count = shape.iter().fold(1u128, |count, &extent| count * u128::from(extent));
            if count != floats.len() as u128 {
                let what = format!("must be {shape:?}, not {} elements", floats.len());
                return Err(Error::tensor(path, &name, what));
            }
            let bytes = floats.iter().flat_map(|float| float.to_le_bytes()).collect();
            all.insert(name, (shape.iter().map(|&extent| extent as usize).collect(), bytes));
            Ok(())
        };
        put(names[0], &[rank, inputs], &term.a)?;
        put(names[1], &[outputs, rank], &term.b)?;
        if let Some(magnitude) = &term.magnitude {
            put("lora_magnitude_vector", &[outputs], magnitude)?;
        }
    }
    let mut views = Vec::new();
    for (name, (shape, bytes)) in &all {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        views.push((name, view.map_err(|error| Error::tensor(path, name, error))?));
    }
    // Readers of other libraries ask for it.
    let format = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    safetensors::serialize(views, Some(format)).map_err(|error| Error::malformed(path, error))
}

/// What PEFT calls A and B.
fn names(matrix: Option<&Matrix>) -> [&'static str; 2] {
    match matrix.map(|matrix| matrix.kind) {
        Some(Kind::Embedding) => ["lora_embedding_A", "lora_embedding_B"],
        _ => ["lora_A.weight", "lora_B.weight"],
    }
}

/// The configuration.
fn said(adapter: &Adapter, base: &str) -> Value {
    // 24 bits by 8: exact in f64, and so is the quotient that gives the scale back.
    let alpha = |term: &Term| f64::from(term.scale) * f64::from(term.rank);
    let first = adapter.terms.values().next();
    let (rank, usual) = first.map_or((1, 1.0), |term| (term.rank, alpha(term)));
    let (mut ranks, mut alphas) = (Map::new(), Map::new());
    for (matrix, term) in &adapter.terms {
        if term.rank != rank {
            ranks.insert(matrix.clone(), term.rank.into());
        }
        if alpha(term).to_bits() != usual.to_bits() {
            alphas.insert(matrix.clone(), number(alpha(term)));
        }
    }
    let last = |name: &String| name.rsplit('.').next().map(str::to_owned);
    let targets: BTreeSet<String> = adapter.terms.keys().filter_map(last).collect();
    json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "inference_mode": true,
        "r": rank,
        "lora_alpha": number(usual),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": false,
        "use_rslora": false,
        "use_dora": adapter.terms.values().any(|term| term.magnitude.is_some()),
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": targets.into_iter().collect::<Vec<_>>(),
        "modules_to_save": null,
    })
}

/// A whole number as one: PEFT's own type of alpha.
fn number(alpha: f64) -> Value {
    let whole = alpha as i64;
    match (whole as f64).to_bits() == alpha.to_bits() {
        true => Value::from(whole),
        false => Value::from(alpha),
    }
}
