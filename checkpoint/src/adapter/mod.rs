//! Low-rank adapters: what PEFT and MLX save of them, as the engine's own type, and
//! written as PEFT has them.
//!
//! Files are read, not mapped: a trainer may write the next adapter over one that is
//! served. What is not whole, or not of this model, is refused whole.

mod arrays;
mod matrices;
mod mlx;
mod patterns;
mod peft;
mod pieces;
mod stored;
mod write;

use crate::error::Error;
use crate::field::Fields;
use engine::lora::Adapter;
use engine::model::Config;
use kernels_core::lora::RANK_MAX;
use serde_json::{Map, Value};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

pub use write::{files, write};

/// Bytes that the tensors of an adapter may take: of a model of seventy billion weights,
/// rank 64 of all its products takes three quarters of them in f32.
pub const TENSOR_BYTES_MAX: u64 = 4 << 30;

/// Bytes that the configuration of an adapter may take; those with a rank for each matrix
/// of a large model take a tenth.
pub const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// What both formats call the configuration.
pub const CONFIG: &str = "adapter_config.json";

/// PEFT's tensors.
pub const PEFT: &str = "adapter_model.safetensors";

/// PEFT's tensors of old.
const PICKLE: &str = "adapter_model.bin";

/// MLX's tensors.
const MLX: &str = "adapters.safetensors";

/// MLX's tensors of old, which it still writes where it is asked to.
const ARRAYS: &str = "adapters.npz";

/// How often a folder is read that another adapter comes into meanwhile.
const TRIES: u32 = 3;

/// The adapter in a folder, for a model of that checked configuration.
pub fn read(folder: &Path, config: &Config) -> Result<Adapter, Error> {
    for _ in 0..TRIES {
        if let Some(adapter) = read_once(folder, config)? {
            return Ok(adapter);
        }
    }
    Err(Error::malformed(folder, "changes as often as it is read"))
}

/// The adapter in a folder; `None` if another took its place between its two files, which
/// need not go together then.
fn read_once(folder: &Path, config: &Config) -> Result<Option<Adapter>, Error> {
    let said = folder.join(CONFIG);
    let text = bytes(&said, CONFIG_BYTES_MAX)?;
    let object = object(&said, &text)?;
    let fields = Fields { path: &said, within: "", object: &object };
    let format = Format::of(&fields)?;
    let tensors = format.tensors(folder)?;
    let held = bytes(&tensors, TENSOR_BYTES_MAX);
    if bytes(&said, CONFIG_BYTES_MAX)? != text {
        return Ok(None);
    }
    whole(&fields, format, &tensors, &held?, config).map(Some)
}

/// The adapter that came as the bytes of its two files. Refusals name those as they would
/// be called in a folder.
pub fn of_bytes(text: &[u8], tensors: &[u8], config: &Config) -> Result<Adapter, Error> {
    let said = Path::new(CONFIG);
    within(said, text.len() as u64, CONFIG_BYTES_MAX)?;
    let object = object(said, text)?;
    let fields = Fields { path: said, within: "", object: &object };
    let format = Format::of(&fields)?;
    let archived = format == Format::Mlx && tensors.starts_with(arrays::MAGIC);
    let path = Path::new(if archived { ARRAYS } else { format.name() });
    within(path, tensors.len() as u64, TENSOR_BYTES_MAX)?;
    whole(&fields, format, path, tensors, config)
}

fn whole(
    fields: &Fields<'_>,
    format: Format,
    path: &Path,
    held: &[u8],
    config: &Config,
) -> Result<Adapter, Error> {
    let arrays;
    let tensors = match format == Format::Mlx && path.ends_with(ARRAYS) {
        true => {
            arrays = arrays::read(path, held)?;
            stored::arrays(path, &arrays)
        }
        false => stored::tensors(path, held)?,
    };
    if tensors.is_empty() {
        return Err(Error::malformed(path, "holds no tensor"));
    }
    match format {
        Format::Peft => peft::read(fields, tensors, config),
        Format::Mlx => mlx::read(fields, tensors, config),
    }
}

/// Who saved an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Peft,
    Mlx,
}

impl Format {
    fn of(fields: &Fields<'_>) -> Result<Self, Error> {
        let has = |name: &str| fields.value(name).is_some();
        if has("peft_type") {
            return Ok(Self::Peft);
        }
        if has("fine_tune_type") || has("lora_parameters") {
            return Ok(Self::Mlx);
        }
        Err(fields.refuse("peft_type", "LORA, or fine_tune_type be there as MLX has it", "absent"))
    }

    /// The name of its tensors' file.
    const fn name(self) -> &'static str {
        match self {
            Self::Peft => PEFT,
            Self::Mlx => MLX,
        }
    }

    /// The file of its tensors. A pickle is a program: it is refused in words and not opened.
    fn tensors(self, folder: &Path) -> Result<PathBuf, Error> {
        let path = folder.join(self.name());
        let old = folder.join(match self {
            Self::Peft => PICKLE,
            Self::Mlx => ARRAYS,
        });
        match (self, !path.exists() && old.exists()) {
            (_, false) => Ok(path),
            (Self::Mlx, true) => Ok(old),
            (Self::Peft, true) => {
                let what = "is a pickle, which is never opened: save as safetensors";
                Err(Error::malformed(&old, what))
            }
        }
    }
}

/// A file's bytes, if they are no more than that.
fn bytes(path: &Path, most: u64) -> Result<Vec<u8>, Error> {
    let unreadable = |error: std::io::Error| Error::unreadable(path, &error);
    let facts = std::fs::metadata(path).map_err(unreadable)?;
    // What is no file may have no end, or none yet.
    if !facts.is_file() {
        return Err(Error::malformed(path, "is no file"));
    }
    within(path, facts.len(), most)?;
    let mut bytes = Vec::new();
    if bytes.try_reserve_exact(facts.len() as usize).is_err() {
        return Err(Error::malformed(path, "is larger than memory has room for"));
    }
    // One more than are allowed: it may have grown meanwhile.
    let mut file = File::open(path).map_err(unreadable)?.take(most + 1);
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    within(path, bytes.len() as u64, most)?;
    Ok(bytes)
}

fn within(path: &Path, got: u64, most: u64) -> Result<(), Error> {
    match got <= most {
        true => Ok(()),
        false => Err(Error::malformed(path, format!("has {got} bytes, and {most} are allowed"))),
    }
}

fn object(path: &Path, text: &[u8]) -> Result<Map<String, Value>, Error> {
    match serde_json::from_slice(text).map_err(|error| Error::malformed(path, error))? {
        Value::Object(object) => Ok(object),
        _ => Err(Error::malformed(path, "is no JSON object")),
    }
}

/// A rank that kernels have room for.
fn rank(fields: &Fields<'_>, name: &str) -> Result<u32, Error> {
    match fields.u32(name)? {
        rank @ 1..=RANK_MAX => Ok(rank),
        other => Err(fields.refuse(name, format!("1 to {RANK_MAX}"), other)),
    }
}
