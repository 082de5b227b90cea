//! A file of settings, as the arguments it stands for: so names, checks and words are
//! those of the command line.

use clap::error::ErrorKind;
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::Path;

/// The arguments that a file stands for.
pub fn arguments(path: &Path) -> Result<Vec<OsString>, clap::Error> {
    let wrong = |why: String| {
        clap::Error::raw(ErrorKind::Io, format!("--config {}: {why}\n", path.display()))
    };
    let text = std::fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or("");
    let settings: Map<String, Value> = match kind {
        "toml" => toml::from_str(&text).map_err(|error| wrong(error.to_string()))?,
        "yaml" | "yml" | "json" => {
            serde_saphyr::from_str(&text).map_err(|error| wrong(error.to_string()))?
        }
        _ => return Err(wrong("its name must end in .toml, .yaml or .yml".into())),
    };
    let mut arguments = Vec::new();
    for (name, value) in settings {
        if name == "config" {
            return Err(wrong("a file does not name another".into()));
        }
        let option = format!("--{}", name.replace('_', "-"));
        match spelled(&value) {
            // A switch that is off, or a setting that is left to its default.
            None => {}
            Some(text) if text.is_empty() && value == Value::Bool(true) => {
                arguments.push(option.into());
            }
            Some(text) => arguments.push(format!("{option}={text}").into()),
        }
    }
    Ok(arguments)
}

/// A value as an argument; `None` where there is none to give.
fn spelled(value: &Value) -> Option<String> {
    match value {
        Value::Null | Value::Bool(false) => None,
        Value::Bool(true) => Some(String::new()),
        Value::String(text) => Some(text.clone()),
        Value::Array(all) => Some(all.iter().filter_map(spelled).collect::<Vec<_>>().join(",")),
        other => Some(other.to_string()),
    }
}
