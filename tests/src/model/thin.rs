//! A two-layer Llama with random weights, evaluated by transformers in f64: made by
//! `golden/llama/make.py`.

use super::Checkpoint;
use crate::harness::Bytes;
use engine::model::{Capacity, Config, Family, Rope};
use kernels_core::dtype::Dtype;
use kernels_core::rope::table::Scaling;
use safetensors::SafeTensors;

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
        eos: Vec::new(),
    };
    Checkpoint::new(config, GOLDEN)
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
