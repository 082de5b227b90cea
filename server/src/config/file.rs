//! A file of settings, as the arguments it stands for: so names, checks and words are
//! those of the command line.

use clap::error::ErrorKind;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::Path;

/// What is wrong with a file.
pub fn wrong(path: &Path, why: &str) -> clap::Error {
    clap::Error::raw(ErrorKind::Io, format!("--config {}: {why}\n", path.display()))
}

/// The arguments that a file stands for, by their keys.
pub fn arguments(path: &Path) -> Result<Vec<(String, OsString)>, clap::Error> {
    let wrong = |why: String| wrong(path, &why);
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or("");
    let settings: Map<String, Value> = match kind {
        "toml" => toml::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        "yaml" | "yml" | "json" => {
            serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?
        }
        _ => return Err(wrong("its name must end in .toml, .yaml, .yml or .json".into())),
    };
    let mut arguments = Vec::new();
    for (key, value) in settings {
        let name = match key.replace('_', "-").as_str() {
            "config" => return Err(wrong("config: a file does not name another".into())),
            // On the command line its place says what it is.
            "model" => "model-path".to_owned(),
            other => other.to_owned(),
        };
        // One that is left to its default is none.
        if let Some(text) = spelled(&value) {
            arguments.push((key, format!("--{name}={text}").into()));
        }
    }
    Ok(arguments)
}

/// A value as an argument; `None` where there is none to give.
fn spelled(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        Value::Array(all) => Some(all.iter().filter_map(spelled).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}
