//! Files of a checkpoint: bytes as `config.json`, and bytes as `model.safetensors` beside a
//! small configuration. They are refused by name of what is at fault, or mean what they say.

use backends::cpu::Cpu;
use checkpoint::{Checkpoint, Fault};
use engine::model::{Config, Model, Source};
use engine::weights::{LoadError, Tensors};
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use std::path::PathBuf;

/// A model whose tensors fit in a kilobyte.
const SMALL: &str = r#"{
    "model_type": "llama", "vocab_size": 3, "hidden_size": 2, "intermediate_size": 2,
    "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 8,
    "max_position_embeddings": 16, "rope_theta": 10000.0, "tie_word_embeddings": true
}"#;

/// Bytes as `config.json`.
pub fn config(data: &[u8]) {
    let folder = Folder::new("config");
    let file = folder.write("config.json", data);
    match checkpoint::config(&folder.0) {
        Ok(config) => {
            // Nothing is laid out for a model whose tensors are not there.
            let refused = load(&config, &Tensors::new()).expect_err("it has no tensors");
            assert!(matches!(refused, LoadError::Missing { .. }), "{refused}");
        }
        Err(error) => {
            assert_eq!(error.path, file);
            let named = match &error.fault {
                Fault::Field { field, .. } => !field.is_empty(),
                Fault::Malformed(_) => true,
                Fault::Unreadable(_) | Fault::Unwritable(_) | Fault::Tensor { .. } => false,
            };
            assert!(named, "{error}");
        }
    }
}

/// Bytes as `model.safetensors`.
pub fn safetensors(data: &[u8]) {
    let folder = Folder::new("safetensors");
    folder.write("config.json", SMALL.as_bytes());
    let file = folder.write("model.safetensors", data);
    match Checkpoint::open(&folder.0) {
        Ok(Checkpoint { config, tensors, .. }) => {
            for (name, tensor) in &tensors {
                let elements: u64 = tensor.shape().iter().product();
                let bytes = tensor.bytes();
                assert_eq!(bytes.len() as u64, elements * tensor.element().bytes(), "{name}");
                assert!(bytes.is_empty() || data.windows(bytes.len()).any(|at| at == bytes));
            }
            // A tensor that does not fit is refused by its name: which of them is not asked.
            let _ = load(&config, &tensors);
        }
        Err(error) => {
            assert_eq!(error.path, file);
            let named = matches!(error.fault, Fault::Malformed(_) | Fault::Tensor { .. });
            assert!(named, "{error}");
        }
    }
}

/// Loads a model; all memory comes back.
fn load(config: &Config, tensors: &Tensors) -> Result<(), LoadError> {
    let mut cpu = Cpu::new(Level::best(), 1);
    let source = Source { config, tensors, quantize: None, workers: &Inline };
    let loaded = Model::load(&mut cpu, &source, &mut |_, _| {});
    let outcome = loaded.map(|model| model.release(&mut cpu).expect("its buffers are its own"));
    assert_eq!(cpu.allocated_bytes(), 0, "what was loaded is given back");
    outcome
}

/// A folder of this thread's own, which goes with it.
struct Folder(PathBuf);

impl Folder {
    fn new(target: &str) -> Self {
        let (process, thread) = (std::process::id(), std::thread::current().id());
        let name = format!("pagewise-fuzz-{target}-{process}-{thread:?}");
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder).expect("there is room for a folder");
        Self(folder)
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let file = self.0.join(name);
        std::fs::write(&file, bytes).expect("there is room for a file");
        file
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that stays behind in a folder of temporary files hurts nobody.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
