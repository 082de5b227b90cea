//! A two-layer Llama with random weights, evaluated by transformers in f64: made by
//! `golden/llama/make.py`.

use crate::harness::Bytes;
use checkpoint::Checkpoint;
use engine::model::{Capacity, Config, Family, Rope};
use engine::weights::{Element, Tensor, Tensors};
use kernels_core::dtype::Dtype;
use kernels_core::rope::table::Scaling;
use safetensors::SafeTensors;
use std::sync::Arc;

static GOLDEN: &[u8] = include_bytes!("../../golden/llama/golden.safetensors");

/// The golden model.
pub fn checkpoint() -> Checkpoint {
    let config = Config {
        family: Family::Llama,
        vocab: 131,
        hidden: 96,
        intermediate: 136,
        layers: 2,
        heads: 6,
        kv_heads: 2,
        head_dim: 16,
        norm_epsilon: 1e-5,
        rope: Rope { base: 10_000.0, scaling: Scaling::None },
        max_len: 128,
        tied: false,
        windows: vec![None; 2],
        attention_bias: false,
        mlp_bias: false,
        zeros_less_one: false,
        eos: Vec::new(),
    };
    Checkpoint { config, tensors: tensors(), files: Vec::new() }
}

/// The model's tensors, which lie beside the prompt and what is expected of it.
fn tensors() -> Tensors {
    let held: Arc<dyn AsRef<[u8]> + Send + Sync> = Arc::new(GOLDEN);
    let parsed = SafeTensors::deserialize(GOLDEN).expect("the golden is committed whole");
    let own = parsed.iter().filter(|(name, _)| name.ends_with(".weight"));
    let tensor = |(name, view): (&str, safetensors::tensor::TensorView<'_>)| {
        let start = view.data().as_ptr().addr() - GOLDEN.as_ptr().addr();
        let shape = view.shape().iter().map(|&extent| extent as u64).collect();
        let range = start..start + view.data().len();
        let tensor = Tensor::new(Element::Float(Dtype::F32), shape, held.clone(), range);
        (name.to_owned(), tensor.expect("the file is whole"))
    };
    own.map(tensor).collect()
}

/// Pages are small and rows few, so that the prompt spans pages and chunks.
pub fn capacity(kv: Dtype) -> Capacity {
    Capacity {
        rows_max: 40,
        seqs_max: 3,
        logit_rows_max: 40,
        max_len: 64,
        pages: 8,
        page_len: 8,
        kv,
    }
}

/// The golden prompt.
pub fn prompt() -> Vec<u32> {
    Bytes::of(&tensor("tokens")).cast::<u32>().to_vec()
}

/// The golden log-probabilities: `[prompt][vocabulary]`.
pub fn expected() -> Vec<Vec<f64>> {
    let bytes = Bytes::of(&tensor("expected.logprobs"));
    bytes.cast::<f64>().chunks(131).map(<[f64]>::to_vec).collect()
}

fn tensor(name: &str) -> Vec<u8> {
    let file = SafeTensors::deserialize(GOLDEN).expect("the golden is committed whole");
    file.tensor(name).unwrap_or_else(|_| panic!("the golden holds {name}")).data().to_vec()
}
