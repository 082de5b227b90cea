//! Where a model's files are: in a folder, in the local copy of the Hugging Face hub, or,
//! where a network exists, on the hub.

use crate::config;
use hf_hub::Cache;
use hf_hub::api::sync::ApiBuilder;
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

/// Files that are read besides the weights.
const FILES: &[&str] = &[
    CONFIG,
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    INDEX,
];
const CONFIG: &str = "config.json";
/// Which file has which tensor, where there are several.
const INDEX: &str = "model.safetensors.index.json";

/// Why a model is not found.
#[derive(Debug)]
pub enum Missing {
    /// No folder, and no name of the hub.
    Folder(String),
    /// The model in the box is not beside the binary.
    Box(PathBuf),
    /// The hub's copy is not whole, and the hub does not answer.
    Hub {
        /// The name.
        id: String,
        /// What the hub said.
        why: String,
        /// Where the copy would be.
        copy: PathBuf,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(name) => write!(
                to,
                "`{name}` is no folder with a config.json, and no name of the Hugging Face hub \
                 such as `Qwen/Qwen3-0.6B`"
            ),
            Self::Box(path) => write!(
                to,
                "the model in the box is not at {}; name another: pagewise serve MODEL",
                path.display()
            ),
            Self::Hub { id, why, copy } => write!(
                to,
                "{id} is not in {} and could not be downloaded ({why}). Where there is a network, \
                 `hf download {id}` gets it; then set HF_HOME to where it lies, or name its folder",
                copy.display()
            ),
        }
    }
}

impl std::error::Error for Missing {}

/// The folder of a model's checkpoint.
pub fn folder(model: &config::Model) -> Result<PathBuf, Missing> {
    let Some(name) = model.name() else {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/abacus");
        let path = if path.is_dir() { path } else { PathBuf::from("models/abacus") };
        let whole = path.join("model.safetensors").is_file();
        return if whole { Ok(path) } else { Err(Missing::Box(path)) };
    };
    let path = PathBuf::from(name);
    if path.join("config.json").is_file() {
        return Ok(path);
    }
    if path.exists() || !is_id(name) {
        return Err(Missing::Folder(name.into()));
    }
    let cache = Cache::new(model.hub());
    match copy(&cache, name) {
        Some(folder) => Ok(folder),
        None => download(cache, name, model),
    }
}

/// The name that a model is served by: its folder's, or that of its hub's name.
pub fn name(model: &config::Model, folder: &Path) -> String {
    let named = model.name().filter(|name| !Path::new(name).exists());
    let folder = || {
        let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
        whole.file_name().map_or("model".into(), |name| name.to_string_lossy().into_owned())
    };
    named.map_or_else(folder, str::to_owned)
}

fn is_id(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
    };
    name.split_once('/').is_some_and(|(owner, model)| plain(owner) && plain(model))
}

/// The local copy, if all its files are there.
fn copy(cache: &Cache, id: &str) -> Option<PathBuf> {
    let repo = cache.model(id.to_owned());
    let folder = repo.get(CONFIG)?.parent()?.to_owned();
    let weights = weights(repo.get(INDEX).as_deref())?;
    let whole = weights.iter().all(|file| folder.join(file).is_file());
    (whole && folder.join("tokenizer.json").is_file()).then_some(folder)
}

/// The files with the weights: those that an index names, if there is one.
fn weights(index: Option<&Path>) -> Option<BTreeSet<String>> {
    let Some(index) = index else { return Some(BTreeSet::from(["model.safetensors".to_owned()])) };
    let index: serde_json::Value = serde_json::from_slice(&std::fs::read(index).ok()?).ok()?;
    let files = index["weight_map"].as_object()?.values();
    // No name leads out of the model's folder.
    let here = |file: &&str| !file.contains("..") && !file.starts_with('/');
    files.map(|file| file.as_str().filter(here).map(str::to_owned)).collect()
}

fn download(cache: Cache, id: &str, model: &config::Model) -> Result<PathBuf, Missing> {
    let copy = cache.path().clone();
    let missing = |why: String| Missing::Hub { id: id.into(), why, copy: copy.clone() };
    let mut builder = ApiBuilder::from_cache(cache).with_progress(true);
    if let Some(token) = model.token() {
        builder = builder.with_token(Some(token));
    }
    if let Some(endpoint) = model.endpoint() {
        builder = builder.with_endpoint(endpoint.to_owned());
    }
    let api = builder.build().map_err(|error| missing(error.to_string()))?;
    let repo = api.model(id.to_owned());
    let listed = repo.info().map_err(|error| missing(error.to_string()))?;
    let get = |file: &str| repo.get(file).map_err(|error| missing(format!("{file}: {error}")));
    let mut index = None;
    let mut folder = None;
    for file in
        FILES.iter().filter(|file| listed.siblings.iter().any(|has| has.rfilename == **file))
    {
        let path = get(file)?;
        match *file {
            CONFIG => folder = path.parent().map(Path::to_owned),
            INDEX => index = Some(path),
            _ => {}
        }
    }
    let folder = folder.ok_or_else(|| missing("it has no config.json".into()))?;
    // Not whatever weights there are: some models lie there in a second form too.
    let weights = weights(index.as_deref()).ok_or_else(|| missing(format!("{INDEX} is none")))?;
    for file in weights {
        get(&file)?;
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::{copy, is_id};
    use hf_hub::Cache;
    use std::fs;

    #[test]
    fn a_name_of_the_hub_has_an_owner_and_a_model() {
        assert!(is_id("Qwen/Qwen3-0.6B"));
        for other in ["abacus", "a/b/c", "../model", "a/..", "/a", "a/"] {
            assert!(!is_id(other), "{other}");
        }
    }

    #[test]
    fn a_copy_is_found_where_it_is_whole() {
        let hub = std::env::temp_dir().join(format!("pagewise-hub-{}", std::process::id()));
        let model = hub.join("models--some--model");
        let folder = model.join("snapshots/abc");
        fs::create_dir_all(&folder).expect("a folder");
        fs::create_dir_all(model.join("refs")).expect("a folder");
        fs::write(model.join("refs/main"), "abc").expect("a file");
        let cache = Cache::new(hub.clone());
        for file in ["config.json", "tokenizer.json"] {
            fs::write(folder.join(file), "{}").expect("a file");
        }
        let index = r#"{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}"#;
        fs::write(folder.join("model.safetensors.index.json"), index).expect("a file");
        fs::write(folder.join("one.safetensors"), "").expect("a file");
        assert_eq!(copy(&cache, "some/model"), None);
        fs::write(folder.join("two.safetensors"), "").expect("a file");
        assert_eq!(copy(&cache, "some/model"), Some(folder));
        assert_eq!(copy(&cache, "some/other"), None);
        fs::remove_dir_all(&hub).expect("removed");
    }
}
