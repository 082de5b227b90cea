//! Adapters for the golden Llama, made of a seed, and the model that one makes of it: its
//! products added to the base weights.

use crate::harness::Bytes;
use crate::model::load;
use backends::cpu::Cpu;
use checkpoint::Checkpoint;
use engine::lora::{Adapter, Image, Matrices, Settings, Term};
use engine::model::{Model, Source};
use engine::weights::{Element, Tensor};
use kernels_core::dtype::Dtype;
use kernels_core::workers::Inline;
use std::sync::Arc;

/// Numbers of a seed, about as large as `most`.
fn numbers(seed: &mut u64, count: usize, most: f32) -> Vec<f32> {
    let next = || {
        *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        ((*seed >> 40) as f32 / (1u32 << 23) as f32 - 1.0) * most
    };
    std::iter::repeat_with(next).take(count).collect()
}

/// An adapter that adds to those matrices of a model whose names hold one of `parts`.
pub fn adapter(checkpoint: &Checkpoint, parts: &[&str], rank: u32, seed: u64) -> Adapter {
    let mut adapter = Adapter::default();
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for matrix in Matrices::of(&checkpoint.config).all {
        if !parts.iter().any(|part| matrix.name.contains(part)) {
            continue;
        }
        let (inputs, outputs) = (matrix.inputs, matrix.outputs);
        let term = Term {
            rank,
            inputs,
            outputs,
            a: numbers(&mut state, (rank * inputs) as usize, 0.3),
            b: numbers(&mut state, (rank * outputs) as usize, 0.3),
            scale: 0.5,
            magnitude: None,
        };
        adapter.terms.insert(matrix.name, term);
    }
    adapter
}

/// Packed for slots over a checkpoint.
pub fn image(checkpoint: &Checkpoint, adapter: &Adapter, settings: Settings) -> Arc<Image> {
    let (config, tensors) = (&checkpoint.config, &checkpoint.tensors);
    let source = Source { config, tensors, quantize: None, workers: &Inline };
    Arc::new(Image::new(adapter, &source, settings).expect("it fits its model"))
}

/// The checkpoint whose matrices are the base's with the adapter's added in f64, and brought
/// to the length of its magnitudes.
pub fn merged(checkpoint: &Checkpoint, adapter: &Adapter) -> Checkpoint {
    let mut merged = checkpoint.clone();
    for (name, term) in &adapter.terms {
        let tensor = merged.tensors.get_mut(&format!("{name}.weight")).expect("it is there");
        let base = Bytes::of(tensor.bytes()).cast::<f32>().to_vec();
        let embeds = name.ends_with("embed_tokens");
        let (rank, inputs, outputs) =
            (term.rank as usize, term.inputs as usize, term.outputs as usize);
        let mut sums = vec![0f32; inputs * outputs];
        for output in 0..outputs {
            let place = |input: usize| match embeds {
                true => input * outputs + output,
                false => output * inputs + input,
            };
            let mut row: Vec<f64> = (0..inputs)
                .map(|input| {
                    let terms = (0..rank).map(|rank| {
                        f64::from(term.b[output * term.rank as usize + rank])
                            * f64::from(term.a[rank * inputs + input])
                    });
                    f64::from(base[place(input)]) + f64::from(term.scale) * terms.sum::<f64>()
                })
                .collect();
            if let Some(magnitude) = &term.magnitude {
                let length = row.iter().map(|x| x * x).sum::<f64>().sqrt();
                row.iter_mut().for_each(|x| *x *= f64::from(magnitude[output]) / length);
            }
            (0..inputs).for_each(|input| sums[place(input)] = row[input] as f32);
        }
        let bytes: Vec<u8> = bytemuck::cast_slice(&sums).to_vec();
        let len = bytes.len();
        let shape = tensor.shape().to_vec();
        let whole = Tensor::new(Element::Float(Dtype::F32), shape, Arc::new(bytes), 0..len);
        *tensor = whole.expect("it is as large as before");
    }
    merged
}

/// The model of a checkpoint on a backend of its own.
pub fn model(cpu: &mut Cpu, checkpoint: &Checkpoint) -> Model {
    load(cpu, checkpoint, None).expect("it loads")
}
