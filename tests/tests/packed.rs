//! Checkpoints that others packed (mlx, autoawq, gptqmodel) give what their own weights
//! give in f64, with activations rounded as products of whole numbers round them.

use backends::cpu::Cpu;
use engine::model::Capacity;
use engine::weights::{Element, LoadError, Tensor};
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use pagewise_tests::model::golden::{PACKED, Packed};
use pagewise_tests::model::{Runner, distance, load, logprobs};
use std::sync::Arc;

fn evaluated(packed: &Packed) -> Vec<Vec<f64>> {
    let capacity = Capacity {
        rows_max: 24,
        seqs_max: 1,
        logit_rows_max: 24,
        max_len: 24,
        pages: 3,
        page_len: 8,
        kv: Dtype::F32,
    };
    let cpu = Cpu::new(Level::best(), 2);
    let mut runner = Runner::new(cpu, &packed.checkpoint, None, &capacity, &[2, 0, 1]);
    runner.forward(&packed.prompt).iter().map(|row| logprobs(row)).collect()
}

/// The median distance of rows: a row in which an activation was rounded to the other of
/// two neighbours is further off than one in which none was.
fn median(got: &[Vec<f64>], truth: &[Vec<f64>]) -> f64 {
    let rows = got.iter().zip(truth);
    let one = |(got, truth): (&Vec<f64>, &Vec<f64>)| {
        distance(std::slice::from_ref(got), std::slice::from_ref(truth))
    };
    let mut all: Vec<f64> = rows.map(one).collect();
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

#[test]
fn every_packer_is_understood() {
    for name in PACKED {
        let packed = Packed::open(name);
        let got = evaluated(&packed);
        let error = distance(&got, &packed.expected);
        let middle = median(&got, &packed.expected);
        let moved = distance(&packed.expected, &packed.floats);
        assert!(moved > 0.1, "{name}: rounding of activations moves {moved} alone");
        assert!(middle < 1e-5, "{name}: log-probabilities differ by {middle} in most rows");
        // One activation that was rounded the other way does not reach what all do.
        assert!(error < 0.5 * moved, "{name}: log-probabilities differ by {error}");
    }
}

#[test]
fn zeros_are_read_as_the_format_stores_them() {
    for name in ["gptq-4-g128-signed", "gptq-4-g32-v2", "gptq-8-g64"] {
        let mut packed = Packed::open(name);
        let config = &mut packed.checkpoint.config;
        config.zeros_less_one = !config.zeros_less_one;
        let moved = median(&evaluated(&packed), &packed.expected);
        assert!(moved > 1e-2, "{name}: zeros that are one off move {moved} only");
    }
}

#[test]
fn signed_numbers_need_no_biases() {
    let bytes = |zeros_less_one: bool| {
        let mut packed = Packed::open("gptq-4-g128-signed").checkpoint;
        packed.config.zeros_less_one = zeros_less_one;
        let mut cpu = Cpu::new(Level::best(), 1);
        load(&mut cpu, &packed, None).expect("a good checkpoint loads");
        cpu.allocated_bytes()
    };
    // With zeros in the middle, groups have f16 scales alone; else scale and bias of f32.
    let groups = (128 * 128 * 2 + 64 * 128 * 2 + 3 * 128 * 256) / 128;
    assert_eq!(bytes(false) - bytes(true), groups * (8 - 2));
}

#[test]
fn act_order_is_refused_by_the_name_of_its_tensor() {
    let mut checkpoint = Packed::open("gptq-4-g32-v2").checkpoint;
    let name = "model.layers.0.mlp.up_proj.g_idx";
    let mut order = checkpoint.tensors[name].bytes().to_vec();
    order.swap(0, 4 * 127);
    let length = order.len();
    let tensor = Tensor::new(Element::Word, vec![128], Arc::new(order), 0..length);
    checkpoint.tensors.insert(name.into(), tensor.expect("as long as before"));
    let mut cpu = Cpu::new(Level::best(), 1);
    match load(&mut cpu, &checkpoint, None) {
        Err(LoadError::Unfit { tensor, expected, .. }) => {
            assert_eq!(tensor, name);
            assert!(expected.contains("act-order is not served"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_packed_tensor_of_another_shape_is_named() {
    for (folder, name) in [
        ("gptq-8-g64", "model.layers.0.mlp.up_proj.qweight"),
        ("gptq-8-g64", "model.layers.0.mlp.up_proj.qzeros"),
        ("awq-4-g64", "model.layers.0.self_attn.q_proj.scales"),
        ("mlx-8-g64-f16", "model.layers.0.self_attn.o_proj.weight"),
        ("mlx-8-g64-f16", "model.layers.0.self_attn.o_proj.biases"),
    ] {
        let mut checkpoint = Packed::open(folder).checkpoint;
        let old = &checkpoint.tensors[name];
        let (element, shape) = (old.element(), vec![old.shape()[0] * old.shape()[1]]);
        let bytes = old.bytes().to_vec();
        let length = bytes.len();
        let tensor = Tensor::new(element, shape, Arc::new(bytes), 0..length);
        checkpoint.tensors.insert(name.into(), tensor.expect("as long as before"));
        let mut cpu = Cpu::new(Level::best(), 1);
        match load(&mut cpu, &checkpoint, None) {
            Err(LoadError::Unfit { tensor, .. }) => assert_eq!(tensor, name),
            other => panic!("{folder}: {other:?}"),
        }
    }
}
