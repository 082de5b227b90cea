//! What is published: an adapter that was given, or one that changes nothing.

use super::visit::Visit;
use checkpoint::write_adapter;
use engine::lora::{Adapter, Kind, Matrices, Term};
use engine::model::Config;
use serde_json::Value;
use std::fs::DirBuilder;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The largest rank of an adapter that is made: one that servers take as they are started.
const RANK: u32 = 8;
/// What the first of its products multiplies by. The second is zero.
const SMALL: f32 = 0.01;

/// A folder with an adapter.
pub struct Published {
    /// Where the server reads it.
    pub path: String,
    /// That goes with it.
    own: Option<PathBuf>,
}

impl Drop for Published {
    fn drop(&mut self) {
        // Nobody is left to be told that it stays.
        self.own.as_deref().map(std::fs::remove_dir_all);
    }
}

/// The adapter to publish, or why there is none.
pub async fn published(visit: &Visit<'_>) -> Result<Published, String> {
    if let Some(given) = &visit.settings.adapter {
        let path = std::path::absolute(given).unwrap_or_else(|_| given.clone());
        return Ok(Published { path: path.display().to_string(), own: None });
    }
    let info = visit.look("/server_info?config_format=json").await.unwrap_or_default();
    let models = visit.look("/v1/models").await.unwrap_or_default();
    let places = [
        &info["model_path"],
        &info["vllm_config"]["model_config"]["model"],
        &models["data"][0]["root"],
    ];
    let mut places = places.into_iter().filter_map(Value::as_str);
    let config = places.find_map(|place| checkpoint::config(Path::new(place)).ok());
    let config = config.ok_or(
        "the served model's config.json is not on this machine; --adapter FOLDER gives an adapter",
    )?;
    let most = info["vllm_config"]["lora_config"]["max_lora_rank"].as_u64();
    let rank = most.map_or(RANK, |most| RANK.min(most.try_into().unwrap_or(RANK)));
    made(&config, rank).map_err(|error| format!("no adapter could be made: {error}"))
}

/// A new folder, where others neither read nor write, of a name that nobody knows before.
fn own_folder() -> io::Result<PathBuf> {
    let name = format!("pagewise-doctor-{:016x}", RandomState::new().hash_one(0));
    let folder = std::env::temp_dir().join(name);
    DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// One over the first product of every layer.
fn made(config: &Config, rank: u32) -> Result<Published, String> {
    let own = own_folder().map_err(|error| error.to_string())?;
    let folder = own.join("adapter");
    let published = Published { path: folder.display().to_string(), own: Some(own) };
    let mut adapter = Adapter::default();
    let mut last = None;
    for matrix in Matrices::of(config).all {
        if !matches!(matrix.kind, Kind::Layer(_)) || last.replace(matrix.kind) == Some(matrix.kind)
        {
            continue;
        }
        let (inputs, outputs) = (matrix.inputs, matrix.outputs);
        let (a, b) = (vec![SMALL; (rank * inputs) as usize], vec![0.0; (rank * outputs) as usize]);
        let term = Term { rank, inputs, outputs, a, b, scale: 1.0, magnitude: None };
        adapter.terms.insert(matrix.name, term);
    }
    let base = "the model that is served";
    write_adapter(&folder, &adapter, config, base).map_err(|error| error.to_string())?;
    Ok(published)
}
