//! Tensors of safetensors files, mapped into memory and left there.

use crate::error::{Error, Fault};
use backends::mapped::{self, Mapped};
use engine::weights::{Element, Tensor, Tensors};
use kernels_core::device::HostBytes;
use kernels_core::dtype::Dtype;
use safetensors::SafeTensors;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

/// Bytes before a file's header: its length.
const LENGTH_BYTES: usize = 8;

/// All tensors of a folder, and their files.
pub fn tensors(folder: &Path) -> Result<(Tensors, Vec<Arc<Mapped>>), Error> {
    let index = folder.join("model.safetensors.index.json");
    let single = folder.join("model.safetensors");
    if !index.exists() {
        if !single.exists() {
            let what = "holds neither model.safetensors nor model.safetensors.index.json";
            return Err(Error::malformed(folder, what));
        }
        let mut all = Tensors::new();
        let file = read(&single, &mut all)?;
        return Ok((all, vec![file]));
    }
    let places = places(&index)?;
    let files: BTreeSet<&String> = places.values().collect();
    let (mut all, mut mapped) = (Tensors::new(), Vec::new());
    for file in files {
        // A name with a path in it would reach beyond the folder.
        if Path::new(file).file_name().is_none_or(|name| name != file.as_str()) {
            return Err(Error::malformed(&index, format!("lists {file:?}, which is no file name")));
        }
        mapped.push(read(&folder.join(file), &mut all)?);
    }
    match places.keys().find(|name| !all.contains_key(*name)) {
        Some(name) => {
            let what = format!("is missing from {}, where the index has it", places[name]);
            Err(Error::tensor(&index, name, what))
        }
        None => Ok((all, mapped)),
    }
}

/// The file of each tensor, by an index.
fn places(index: &Path) -> Result<BTreeMap<String, String>, Error> {
    let text = std::fs::read(index).map_err(|error| Error::unreadable(index, &error))?;
    let value: Value =
        serde_json::from_slice(&text).map_err(|error| Error::malformed(index, error))?;
    let refuse = |got: &str| {
        let (field, expected) = ("weight_map".to_owned(), "file names by tensors".to_owned());
        Error::new(index, Fault::Field { field, expected, got: got.to_owned() })
    };
    let Some(map) = value.get("weight_map").and_then(Value::as_object) else {
        return Err(refuse("absent"));
    };
    let place = |(name, file): (&String, &Value)| match file.as_str() {
        Some(file) => Ok((name.clone(), file.to_owned())),
        None => Err(refuse(&file.to_string())),
    };
    map.iter().map(place).collect()
}

/// The tensors of a file that came as its bytes.
pub fn of_bytes(file: Vec<u8>) -> Result<Tensors, Error> {
    let mut all = Tensors::new();
    add(Path::new("model.safetensors"), Arc::new(file), &mut all)?;
    Ok(all)
}

/// Adds the tensors of one file.
fn read(path: &Path, all: &mut Tensors) -> Result<Arc<Mapped>, Error> {
    let file = mapped::open(path).map_err(|error| Error::unreadable(path, &error))?;
    add(path, file.clone(), all)?;
    Ok(file)
}

fn add(path: &Path, file: HostBytes, all: &mut Tensors) -> Result<(), Error> {
    let bytes = (*file).as_ref();
    let (length, metadata) = SafeTensors::read_metadata(bytes)
        .map_err(|error| blame(path, bytes).unwrap_or_else(|| Error::malformed(path, error)))?;
    for (name, info) in metadata.tensors() {
        let (begin, end) = info.data_offsets;
        let range = LENGTH_BYTES + length + begin..LENGTH_BYTES + length + end;
        let shape = info.shape.iter().map(|&extent| extent as u64).collect();
        let tensor = Tensor::new(element(info.dtype), shape, file.clone(), range);
        let odd = || Error::tensor(path, &name, "has another size than its shape and type take");
        if all.insert(name.clone(), tensor.ok_or_else(odd)?).is_some() {
            return Err(Error::tensor(path, &name, "is in another file too"));
        }
    }
    Ok(())
}

/// What the elements of that type are to the engine.
pub fn element(dtype: safetensors::Dtype) -> Element {
    match dtype {
        safetensors::Dtype::F32 => Element::Float(Dtype::F32),
        safetensors::Dtype::F16 => Element::Float(Dtype::F16),
        safetensors::Dtype::BF16 => Element::Float(Dtype::Bf16),
        safetensors::Dtype::U32 | safetensors::Dtype::I32 => Element::Word,
        other => Element::Other { bytes: other.bitsize() as u64 / 8 },
    }
}

/// The tensor at which a file that the library refuses as a whole goes wrong.
pub fn blame(path: &Path, bytes: &[u8]) -> Option<Error> {
    let (length, rest) = bytes.split_first_chunk::<LENGTH_BYTES>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let header: Value = serde_json::from_slice(rest.get(..length)?).ok()?;
    let held = (rest.len() - length) as u64;
    let place = |(name, info): (&String, &Value)| {
        let offsets = info.get("data_offsets")?;
        Some((offsets.get(1)?.as_u64()?, offsets.get(0)?.as_u64()?, name.clone()))
    };
    let mut places: Vec<_> = header.as_object()?.iter().filter_map(place).collect();
    places.sort_unstable();
    let (end, begin, name) = places.into_iter().find(|(end, _, _)| *end > held)?;
    let what = format!(
        "is truncated: {} of {} bytes are there",
        held.saturating_sub(begin),
        end.saturating_sub(begin)
    );
    Some(Error::tensor(path, &name, what))
}
