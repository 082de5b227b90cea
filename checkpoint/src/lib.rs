//! Folders of Hugging Face checkpoints: what `config.json` says, as the engine's typed
//! configuration, and the tensors of safetensors files, mapped into memory. Folders of
//! low-rank adapters beside them, of PEFT and of MLX, which are read into it; and an archive
//! of versions that were served or trained.

mod adapter;
pub mod archive;
mod config;
mod error;
mod field;
mod files;
mod packed;
mod place;
mod rope;

use backends::mapped::Mapped;
use engine::model::Config;
use engine::weights::Tensors;
use std::path::Path;
use std::sync::Arc;

pub use adapter::{
    CONFIG_BYTES_MAX as ADAPTER_CONFIG_BYTES_MAX, TENSOR_BYTES_MAX as ADAPTER_TENSOR_BYTES_MAX,
    of_bytes as adapter_of_bytes, read as adapter, write as write_adapter,
};
pub use error::{Error, Fault};
pub use files::of_bytes as tensors_of_bytes;
pub use place::Content;

/// A checkpoint that was opened: nothing was read but its headers.
#[derive(Clone, Debug)]
pub struct Checkpoint {
    /// The shape of its model.
    pub config: Config,
    /// Its tensors.
    pub tensors: Tensors,
    /// The files that they are in.
    pub files: Vec<Arc<Mapped>>,
}

impl Checkpoint {
    /// The checkpoint in a folder: `config.json`, and `model.safetensors` or the files
    /// that `model.safetensors.index.json` lists.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let config = config(folder)?;
        let (tensors, files) = files::tensors(folder)?;
        Ok(Self { config, tensors, files })
    }

    /// Lets go of what was read of its tensors, which can be read again. Else the process
    /// holds all of a checkpoint beside the weights that were made of it.
    pub fn let_go(&self) {
        self.files.iter().for_each(|file| file.let_go());
    }
}

/// What the folder's `config.json` says, with the ends of `generation_config.json`.
pub fn config(folder: &Path) -> Result<Config, Error> {
    config::read(&folder.join("config.json"), &folder.join("generation_config.json"))
}

/// What a file says that is written as `config.json` is.
pub fn config_of(file: &Path) -> Result<Config, Error> {
    config::read(file, &file.with_file_name("generation_config.json"))
}
