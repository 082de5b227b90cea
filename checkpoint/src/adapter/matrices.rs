//! The matrices of a model that a term can be added to, by their names.

use engine::lora::Matrices;
use engine::model::Config;
use std::collections::BTreeMap;

pub use engine::lora::{Kind, Matrix, OUTPUT};

/// All of them, of a checked configuration.
pub fn of(config: &Config) -> BTreeMap<String, Matrix> {
    Matrices::of(config).all.into_iter().map(|matrix| (matrix.name.clone(), matrix)).collect()
}
