//! An adapter's files mean what PEFT means by them, or are refused whole, in words that name
//! the file, the field or the tensor.

use checkpoint::{Error, Fault};
use engine::lora::{Adapter, Term};
use engine::model::Config;
use pagewise_tests::adapters::{Files, numbers};
use pagewise_tests::model::golden::folder;
use safetensors::tensor::Dtype;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};

/// Of 56 elements, 96 between the halves of a feed-forward layer, 149 tokens; tied.
fn qwen3() -> Config {
    checkpoint::config(&folder("qwen3")).expect("it is committed")
}

const Q: &str = "model.layers.0.self_attn.q_proj";
const K: &str = "model.layers.1.self_attn.k_proj";
const DOWN: &str = "model.layers.1.mlp.down_proj";
const Q_SHAPE: [u32; 2] = [56, 128];
const K_SHAPE: [u32; 2] = [56, 64];
const DOWN_SHAPE: [u32; 2] = [96, 56];

/// Terms of rank 4 in two layers.
fn small() -> Files {
    let mut files = Files::peft(4);
    files.term(Q, 4, Q_SHAPE).term(DOWN, 4, DOWN_SHAPE);
    files
}

fn expected(rank: u32, [inputs, outputs]: [u32; 2], scale: f32) -> Term {
    let (a, b) = (numbers((rank * inputs) as usize, 1), numbers((outputs * rank) as usize, 2));
    Term { rank, inputs, outputs, a, b, scale, magnitude: None }
}

/// A folder of its own, empty.
fn room(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("adapter-files").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("there is room for a folder");
    folder
}

#[test]
fn a_peft_adapter_has_its_numbers_and_its_scale() {
    let adapter = small().read(&qwen3()).expect("it is whole");
    let names: Vec<&String> = adapter.terms.keys().collect();
    assert_eq!(names, [Q, DOWN]);
    assert_eq!(adapter.terms[Q], expected(4, Q_SHAPE, 2.0));
    assert_eq!(adapter.terms[DOWN], expected(4, DOWN_SHAPE, 2.0));
    assert_eq!(adapter.rank(), 4);
    assert_eq!(adapter.bytes(), 4 * 4 * (56 + 128 + 96 + 56));
    assert_eq!((Adapter::default().rank(), Adapter::default().bytes()), (0, 0));
}

#[test]
fn every_type_of_element_is_widened_exactly() {
    let plain = small().read(&qwen3()).expect("it is whole");
    for dtype in [Dtype::F16, Dtype::BF16] {
        let mut files = Files::peft(4);
        for (name, (_, shape, bytes)) in small().tensors {
            let floats: Vec<f32> =
                bytes.chunks(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let shape: Vec<u32> = shape.iter().map(|&extent| extent as u32).collect();
            files.put_as(dtype, &name, &shape, &floats);
        }
        assert_eq!(files.read(&qwen3()).expect("it is whole"), plain, "{dtype}");
    }
}

#[test]
fn names_may_lack_the_prefix_and_have_the_adapters_name() {
    let plain = small().read(&qwen3()).expect("it is whole");
    let renames: [fn(&str) -> String; 3] = [
        |name| name.replace("base_model.model.", ""),
        |name| name.replace(".weight", ".default.weight"),
        |name| name.replace("base_model.model.", "").replace(".weight", ".my-own_1.weight"),
    ];
    for rename in renames {
        let mut files = small();
        files.tensors =
            files.tensors.into_iter().map(|(name, tensor)| (rename(&name), tensor)).collect();
        assert_eq!(files.read(&qwen3()).expect("it is whole"), plain);
    }
}

#[test]
fn an_embedding_and_the_output_have_terms_tied_or_not() {
    for family in ["qwen3", "mistral"] {
        let config = checkpoint::config(&folder(family)).expect("it is committed");
        let (vocab, hidden) = (config.vocab, config.hidden);
        let mut files = Files::peft(2);
        let embedding = "base_model.model.model.embed_tokens";
        let (a, b) = (numbers((2 * vocab) as usize, 1), numbers((hidden * 2) as usize, 2));
        files.put(&format!("{embedding}.lora_embedding_A"), &[2, vocab], &a);
        files.put(&format!("{embedding}.lora_embedding_B.default"), &[hidden, 2], &b);
        files.term("lm_head", 2, [hidden, vocab]);
        // PEFT saves the frozen weights of both beside their terms.
        let base = numbers((vocab * hidden) as usize, 3);
        files.put(&format!("{embedding}.base_layer.weight"), &[vocab, hidden], &base);
        files.put("base_model.model.lm_head.base_layer.weight", &[vocab, hidden], &base);
        let adapter = files.read(&config).expect("it is whole");
        assert_eq!(adapter.terms["model.embed_tokens"], expected(2, [vocab, hidden], 2.0));
        assert_eq!(adapter.terms["lm_head"], expected(2, [hidden, vocab], 2.0));
        assert_eq!(adapter.terms.len(), 2);
        // A vocabulary that grew is another base.
        let grown = numbers(((vocab + 1) * hidden) as usize, 3);
        files.put("base_model.model.lm_head.base_layer.weight", &[vocab + 1, hidden], &grown);
        let words = files.refused(&config);
        assert!(words.contains(&format!("must be [{vocab}, {hidden}], not [{}", vocab + 1)));
    }
}

#[test]
fn scales_and_ranks_follow_the_configuration() {
    let scale = |field: &[(&str, Value)]| {
        let mut files = small();
        for (name, value) in field {
            files.field(name, value.clone());
        }
        files.read(&qwen3()).expect("it is whole").terms[Q].scale
    };
    assert_eq!(scale(&[("lora_alpha", json!(3.5))]), 3.5 / 4.0);
    assert_eq!(scale(&[("lora_alpha", json!(-1))]), -0.25);
    assert_eq!(scale(&[("use_rslora", json!(true))]), 4.0);
    let patterns = [
        (json!({"q_proj": 12}), 3.0),
        (json!({"proj": 12}), 2.0),
        (json!({"self_attn.q_proj": 12}), 3.0),
        (json!({"model.layers.0.self_attn.q_proj": 12}), 3.0),
        (json!({"^model\\.layers\\.0\\..*": 12}), 3.0),
        (json!({"layers\\.[1-9]\\..*q_proj": 12}), 2.0),
        (json!({"layers.\\d+.self_attn.[qkv]_proj": 12}), 3.0),
        (json!({"q_proj|down_proj": 12}), 3.0),
        (json!({".*_proj": 12, "q_proj": 20}), 3.0),
        (json!({"q_proj": 20, ".*_proj": 12}), 5.0),
        (json!({"Q_PROJ": 12}), 2.0),
        (json!({}), 2.0),
        (json!(null), 2.0),
    ];
    for (pattern, expected) in patterns {
        assert_eq!(scale(&[("alpha_pattern", pattern.clone())]), expected, "{pattern}");
    }
    // A rank of its own divides an alpha of its own.
    let mut files = small();
    files.term(Q, 16, Q_SHAPE);
    files.field("rank_pattern", json!({"q_proj": 16}));
    files.field("alpha_pattern", json!({"layers.0.*": 4})).field("use_rslora", json!(true));
    let adapter = files.read(&qwen3()).expect("it is whole");
    assert_eq!((adapter.terms[Q].rank, adapter.terms[Q].scale), (16, 1.0));
    assert_eq!((adapter.terms[DOWN].rank, adapter.terms[DOWN].scale), (4, 4.0));
    assert_eq!(adapter.rank(), 16);
}

#[test]
fn fields_that_are_not_served_are_refused_by_name() {
    let fields = [
        ("peft_type", json!("LOHA")),
        ("peft_type", json!(7)),
        ("r", json!(0)),
        ("r", json!(257)),
        ("r", json!(-4)),
        ("r", json!("4")),
        ("r", json!(null)),
        ("lora_alpha", json!(null)),
        ("lora_alpha", json!("8")),
        ("lora_alpha", json!(1e300)),
        ("use_rslora", json!(1)),
        ("use_dora", json!("no")),
        ("bias", json!("all")),
        ("bias", json!("lora_only")),
        ("fan_in_fan_out", json!(true)),
        ("modules_to_save", json!(["lm_head"])),
        ("lora_bias", json!(true)),
        ("use_qalora", json!(true)),
        ("trainable_token_indices", json!([1])),
        ("trainable_token_indices", json!({"embed_tokens": [1]})),
        ("layer_replication", json!([[0, 1]])),
        ("alora_invocation_tokens", json!([1])),
        ("megatron_config", json!({"hidden": 1})),
        ("target_parameters", json!(["mlp.experts"])),
        ("arrow_config", json!({"top_k": 1})),
        ("a_field_of_the_future", json!(0)),
        ("ensure_weight_tying", json!("yes")),
        ("init_lora_weights", json!("pissa")),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("OLoRA")),
        ("init_lora_weights", json!("corda")),
        ("init_lora_weights", json!("loftq")),
        ("init_lora_weights", json!("lora_ga")),
        ("init_lora_weights", json!("a start of the future")),
        ("init_lora_weights", json!(1)),
        ("rank_pattern", json!(["q_proj"])),
        ("target_modules", json!([1])),
        ("target_modules", json!("(?!x).*")),
        ("target_modules", json!("(unclosed")),
        ("target_modules", json!("a)|(?:.*")),
        ("target_modules", json!("((a{500}){500}){500}")),
        ("exclude_modules", json!({"q_proj": 1})),
        ("layers_to_transform", json!([0, "1"])),
        ("layers_to_transform", json!(-1)),
        ("layers_pattern", json!("blocks")),
    ];
    for (name, value) in fields {
        let error = small().field(name, value.clone()).read(&qwen3());
        match error.expect_err("it is not served").fault {
            Fault::Field { field, .. } => assert_eq!(field, name, "{value}"),
            other => panic!("{name} {value}: {other:?}"),
        }
    }
    let patterns = [
        ("rank_pattern", json!({"q_proj": 0}), "rank_pattern.q_proj"),
        ("rank_pattern", json!({"q_proj": 300}), "rank_pattern.q_proj"),
        ("rank_pattern", json!({"(": 4}), "rank_pattern.("),
        ("alpha_pattern", json!({"(?<=x)q": 4}), "alpha_pattern.(?<=x)q"),
        ("alpha_pattern", json!({"q_proj": "4"}), "alpha_pattern.q_proj"),
        ("alpha_pattern", json!({"q_proj": 1e300}), "alpha_pattern must be"),
    ];
    for (name, value, expected) in patterns {
        let words = small().field(name, value).refused(&qwen3());
        assert!(words.contains(expected), "{words}");
    }
}

#[test]
fn fields_of_training_and_names_change_nothing() {
    let plain = small().read(&qwen3()).expect("it is whole");
    let fields = [
        ("lora_dropout", json!(0.5)),
        ("task_type", json!(null)),
        ("inference_mode", json!(true)),
        ("revision", json!("main")),
        ("peft_version", json!("0.99.0")),
        ("auto_mapping", json!({"base_model_class": "X", "parent_library": "y"})),
        ("megatron_core", json!("megatron.core")),
        ("loftq_config", json!({})),
        ("eva_config", json!({"rho": 2.0})),
        ("qalora_group_size", json!(16)),
        ("runtime_config", json!({"ephemeral_gpu_offload": false})),
        ("init_lora_weights", json!(true)),
        ("init_lora_weights", json!(false)),
        ("init_lora_weights", json!("gaussian")),
        ("init_lora_weights", json!("eva")),
        ("init_lora_weights", json!("orthogonal")),
        ("modules_to_save", json!([])),
        ("ensure_weight_tying", json!(true)),
        ("a_field_of_the_future", json!(null)),
        ("another", json!({})),
        ("target_modules", json!(["q_proj", "down_proj"])),
        ("target_modules", json!(["self_attn.q_proj", DOWN, "more"])),
        ("target_modules", json!("all-linear")),
        ("target_modules", json!(r"model\.layers\.\d+\..*\.(q|down)_proj")),
        ("target_modules", json!([])),
        ("exclude_modules", json!(["k_proj"])),
        ("layers_to_transform", json!([0, 1])),
        ("layers_pattern", json!("layers")),
        ("layers_pattern", json!(["layers"])),
    ];
    for (name, value) in fields {
        let read = small().field(name, value.clone()).read(&qwen3());
        assert_eq!(read.expect("it is whole"), plain, "{name} {value}");
    }
}

#[test]
fn a_tensor_that_the_configuration_leaves_out_is_refused() {
    let leave_out = [
        ("target_modules", json!(["q_proj"])),
        ("target_modules", json!(["proj", "q_proj"])),
        ("target_modules", json!(".*q_proj")),
        ("target_modules", json!(r"layers\.1\.mlp\.down_proj")),
        ("exclude_modules", json!(["down_proj"])),
        ("exclude_modules", json!(".*mlp.*")),
        ("layers_to_transform", json!(0)),
        ("layers_to_transform", json!([0])),
    ];
    for (name, value) in leave_out {
        let words = small().field(name, value.clone()).refused(&qwen3());
        assert!(words.contains("_proj.lora_A.weight is of a matrix that"), "{value}: {words}");
    }
    // A list of whole names does not ask for layers.
    let mut files = small();
    files.field("target_modules", json!([Q, DOWN])).field("layers_to_transform", json!([0]));
    files.read(&qwen3()).expect("it is whole");
    let mut output = Files::peft(2);
    output.term("lm_head", 2, [56, 149]).field("target_modules", json!("all-linear"));
    assert!(output.refused(&qwen3()).contains("lm_head.lora_A.weight is of a matrix that"));
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let a = format!("base_model.model.{DOWN}.lora_A.weight");
    let b = format!("base_model.model.{DOWN}.lora_B.weight");
    type Spoil = (&'static str, fn(&mut Files, &str, &str));
    let spoils: [Spoil; 13] = [
        ("lora_B.weight has no A beside it", |files, a, _| drop(files.tensors.remove(a))),
        ("lora_A.weight has no B beside it", |files, _, b| drop(files.tensors.remove(b))),
        ("lora_A.weight must be [4, 96], not [3, 96]", |files, a, _| {
            files.put(a, &[3, 96], &numbers(288, 1));
        }),
        ("lora_B.weight must be [56, 4], not [4, 56]", |files, _, b| {
            files.put(b, &[4, 56], &numbers(224, 1));
        }),
        ("lora_B.weight must be [56, 4], not [224]", |files, _, b| {
            files.put(b, &[224], &numbers(224, 1));
        }),
        ("lora_A.weight must be [4, 96], not [0, 96]", |files, a, _| {
            files.put(a, &[0, 96], &[]);
        }),
        ("must be f32, f16 or bf16, not I32", |files, a, _| {
            files.put_as(Dtype::I32, a, &[4, 96], &numbers(384, 1));
        }),
        ("is in the file a second time, as base_model", |files, a, _| {
            files.put(&a.replace(".weight", ".x.weight"), &[4, 96], &numbers(384, 1));
        }),
        ("lora_A.bias is no piece of a low-rank term", |files, a, _| {
            files.put(&a.replace(".weight", ".bias"), &[4], &numbers(4, 1));
        }),
        ("lora_E.weight is no piece", |files, a, _| {
            files.put(&a.replace("lora_A", "lora_E"), &[4], &numbers(4, 1));
        }),
        ("down_proj.weight is no piece", |files, a, _| {
            files.put(&a.replace("lora_A.weight", "weight"), &[56, 96], &numbers(5376, 1));
        }),
        ("base_layer.weight is a weight of the base", |files, a, _| {
            files.put(&a.replace("lora_A", "base_layer"), &[56, 96], &numbers(5376, 1));
        }),
        ("lora_embedding_A is no piece that a product has", |files, a, _| {
            files.put(&a.replace("lora_A.weight", "lora_embedding_A"), &[4, 96], &numbers(384, 1));
        }),
    ];
    for (expected, spoil) in spoils {
        let mut files = small();
        spoil(&mut files, &a, &b);
        let words = files.refused(&qwen3());
        assert!(words.contains(expected), "{expected}: {words}");
        assert!(words.starts_with("adapter_model.safetensors: tensor base_model"), "{words}");
    }
    for matrix in ["model.layers.2.mlp.down_proj", "model.norm", "layers.0.mlp.up_proj", ""] {
        let words = small().term(matrix, 4, DOWN_SHAPE).refused(&qwen3());
        assert!(words.contains(&format!("is of {matrix}, a matrix this model has not")), "{words}");
    }
}

#[test]
fn an_adapter_of_another_model_is_refused_by_tensor_and_both_shapes() {
    for family in ["qwen2", "llama", "mistral"] {
        let config = checkpoint::config(&folder(family)).expect("it is committed");
        let words = small().refused(&config);
        let hidden = config.hidden;
        assert!(words.contains(&format!("lora_A.weight must be [4, {hidden}], not [4, 56]")));
    }
}

#[test]
fn what_is_no_number_is_named_with_its_place() {
    let b = format!("base_model.model.{DOWN}.lora_B.weight");
    for (wrong, called) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")]
    {
        for dtype in [Dtype::F32, Dtype::F16, Dtype::BF16] {
            for (at, place) in [(0, "[0, 0]"), (223, "[55, 3]"), (5, "[1, 1]")] {
                let mut floats = numbers(224, 1);
                floats[at] = wrong;
                let mut files = small();
                let words = files.put_as(dtype, &b, &[56, 4], &floats).refused(&qwen3());
                let expected = format!("tensor {b} is {called} at {place}");
                assert!(words.contains(&expected), "{words}");
            }
        }
    }
}

/// Terms with magnitudes.
fn dora() -> Files {
    let mut files = small();
    files.field("use_dora", json!(true));
    for (matrix, outputs) in [(Q, 128), (DOWN, 56)] {
        let name = format!("base_model.model.{matrix}.lora_magnitude_vector");
        files.put(&name, &[outputs], &numbers(outputs as usize, 4));
    }
    files
}

#[test]
fn magnitudes_are_read_under_all_their_names() {
    for tail in ["", ".weight", ".default", ".default.weight"] {
        let mut files = dora();
        let rename = |(name, tensor): (String, _)| match name.ends_with("vector") {
            true => (format!("{name}{tail}"), tensor),
            false => (name, tensor),
        };
        files.tensors = files.tensors.into_iter().map(rename).collect();
        let adapter = files.read(&qwen3()).expect("it is whole");
        assert_eq!(adapter.terms[Q].magnitude, Some(numbers(128, 4)), "{tail}");
        assert_eq!(adapter.bytes(), 4 * (4 * (56 + 128 + 96 + 56) + 128 + 56));
    }
}

#[test]
fn magnitudes_that_cannot_be_served_are_refused() {
    let magnitude = format!("base_model.model.{Q}.lora_magnitude_vector");
    let mut files = dora();
    files.tensors.remove(&magnitude);
    assert!(files.refused(&qwen3()).contains("q_proj.lora_A.weight has no magnitudes beside it"));
    let mut files = dora();
    files.field("use_dora", json!(false));
    assert!(
        files.refused(&qwen3()).contains("vector is a magnitude, and the configuration has no")
    );
    let mut files = dora();
    files.put(&magnitude, &[128, 1], &numbers(128, 1));
    assert!(files.refused(&qwen3()).contains("must be [128], not [128, 1]"));
    let mut files = dora();
    files.put(&magnitude, &[128], &[f32::NAN; 128]);
    assert!(files.refused(&qwen3()).contains("lora_magnitude_vector is NaN at [0]"));
    let mut files = dora();
    files.put("model.layers.0.mlp.up_proj.lora_magnitude_vector", &[96], &numbers(96, 1));
    assert!(files.refused(&qwen3()).contains("has no A and B beside it"));
    // Of a product that adds a bias.
    let qwen2 = checkpoint::config(&folder("qwen2")).expect("it is committed");
    let of_qwen2 = |matrix: &str, shape: [u32; 2]| {
        let mut files = Files::peft(2);
        files.term(matrix, 2, shape).field("use_dora", json!(true));
        let name = format!("base_model.model.{matrix}.lora_magnitude_vector");
        files.put(&name, &[shape[1]], &numbers(shape[1] as usize, 1));
        files
    };
    let up = of_qwen2("model.layers.0.mlp.up_proj", [64, 100]);
    up.read(&qwen2).expect("no bias is added there");
    assert!(of_qwen2(Q, [64, 64]).refused(&qwen2).contains("of a matrix that adds a bias"));
    // Of an embedding.
    let mut files = Files::peft(2);
    let name = |piece: &str| format!("base_model.model.model.embed_tokens.{piece}");
    files.put(&name("lora_embedding_A"), &[2, 149], &numbers(298, 1));
    files.put(&name("lora_embedding_B"), &[56, 2], &numbers(112, 1));
    files.put(&name("lora_magnitude_vector"), &[56], &numbers(56, 1));
    files.field("use_dora", json!(true));
    assert!(files.refused(&qwen3()).contains("is the magnitude of an embedding"));
}

#[test]
fn a_tied_term_must_be_there_under_both_names() {
    let mut files = Files::peft(2);
    files.term("lm_head", 2, [56, 149]).field("ensure_weight_tying", json!(true));
    assert!(files.refused(&qwen3()).contains("ensure_weight_tying must be false where"));
    let name = |piece: &str| format!("base_model.model.model.embed_tokens.{piece}");
    files.put(&name("lora_embedding_A"), &[2, 149], &numbers(298, 1));
    files.put(&name("lora_embedding_B"), &[56, 2], &numbers(112, 1));
    files.read(&qwen3()).expect("both are there");
    // PEFT takes the output off the list of targets then.
    files.field("target_modules", json!(["embed_tokens", "model.embed_tokens"]));
    let adapter = files.read(&qwen3()).expect("both are there");
    assert_eq!(adapter.terms.len(), 2);
    files.field("ensure_weight_tying", json!(false));
    assert!(files.refused(&qwen3()).contains("lm_head.lora_A.weight is of a matrix that"));
}

#[test]
fn files_that_end_anywhere_are_refused_whole() {
    let mut mlx = Files::mlx(1, 1.0);
    mlx.mlx_term(K, 1, K_SHAPE);
    let mut peft = Files::peft(1);
    peft.term(K, 1, K_SHAPE);
    for files in [peft, mlx] {
        let (text, whole) = (files.text(), files.bytes());
        for end in 0..whole.len() {
            let read = checkpoint::adapter_of_bytes(text.as_bytes(), &whole[..end], &qwen3());
            let error = read.expect_err("it is truncated");
            assert!(error.path.extension().is_some_and(|it| it == "safetensors"), "{error}");
        }
        for end in 0..text.len() {
            let read = checkpoint::adapter_of_bytes(&text.as_bytes()[..end], &whole, &qwen3());
            let error = read.expect_err("it is truncated");
            assert_eq!(error.path, Path::new("adapter_config.json"), "{error}");
        }
        let longer = [whole.as_slice(), &[0]].concat();
        let read = checkpoint::adapter_of_bytes(text.as_bytes(), &longer, &qwen3());
        read.expect_err("there is more than its tensors");
    }
    let whole = small().bytes();
    let text = small().text();
    let cut = checkpoint::adapter_of_bytes(text.as_bytes(), &whole[..whole.len() - 9], &qwen3());
    let words = cut.expect_err("it is truncated").to_string();
    assert!(words.contains("is truncated: ") && words.contains("tensor base_model"), "{words}");
}

/// A safetensors file of that header and as many bytes after it.
fn file(header: &str, bytes: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.bytes());
    file.extend(vec![0; bytes]);
    file
}

#[test]
fn hostile_files_are_refused_or_answered_and_soon() {
    let text = small().text();
    let refused = |bytes: &[u8]| {
        let read = checkpoint::adapter_of_bytes(text.as_bytes(), bytes, &qwen3());
        read.expect_err("it is hostile").to_string()
    };
    assert!(refused(&file("{}", 0)).contains("holds no tensor"));
    let one = r#""a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}"#;
    let other = r#""a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}"#;
    refused(&file(&format!("{{{one}, {other}}}"), 8));
    refused(&file(&format!("{{{other}, {one}}}"), 8));
    let huge =
        r#"{"a": {"dtype": "F32", "shape": [4294967296, 4294967296], "data_offsets": [0, 0]}}"#;
    refused(&file(huge, 0));
    refused(&[0xff; 64]);
    refused(&u64::MAX.to_le_bytes());
    // A name as long as a file is cut where people read it.
    let name = "x".repeat(1 << 20);
    let long = format!(r#"{{"{name}": {{"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}}}"#);
    assert!(refused(&file(&long, 4)).len() < 2000);
    let words = small().field("peft_type", json!(name.clone())).refused(&qwen3());
    assert!(words.len() < 2000);
    // More patterns than matrices; a whole configuration that is too long.
    let many: serde_json::Map<String, Value> =
        (0..17).map(|at| (format!("x{at}"), json!(4))).collect();
    let words = small().field("rank_pattern", Value::Object(many)).refused(&qwen3());
    assert!(words.contains("rank_pattern must be at most 16 expressions"), "{words}");
    let words = small().field("task_type", json!(name)).refused(&qwen3());
    assert!(words.contains("bytes, and 1048576 are allowed"), "{words}");
    refused_text("[]");
    refused_text("{}");
    refused_text(&"[".repeat(100_000));
    // What takes backtracking engines ages.
    let ages = json!({"(.*)*(.*)*(.*)*x": 4, "(a|a)*(a|a)*$": 4, "([a-z_.0-9]*)*!": 4});
    small().field("rank_pattern", ages).read(&qwen3()).expect("none of them fits");
}

fn refused_text(text: &str) {
    let read = checkpoint::adapter_of_bytes(text.as_bytes(), &small().bytes(), &qwen3());
    let error: Error = read.expect_err("it is no configuration");
    assert_eq!(error.path, Path::new("adapter_config.json"));
}

#[test]
fn folders_are_read_or_refused_by_their_files() {
    let config = qwen3();
    let plain = small().read(&config).expect("it is whole");
    let folder = room("folders");
    let refused = |folder: &Path| {
        checkpoint::adapter(folder, &config).expect_err("it is not whole").to_string()
    };
    assert!(refused(&folder).contains("adapter_config.json: cannot be read"));
    assert!(refused(&folder.join("nowhere")).contains("adapter_config.json: cannot be read"));
    small().save(&folder);
    assert_eq!(checkpoint::adapter(&folder, &config).expect("it is whole"), plain);
    let (said, tensors) =
        (folder.join("adapter_config.json"), folder.join("adapter_model.safetensors"));
    // A pickle is not asked for while there are tensors, and never opened.
    let pickle = folder.join("adapter_model.bin");
    fs::write(&pickle, "no pickle").expect("there is room");
    assert_eq!(checkpoint::adapter(&folder, &config).expect("it is whole"), plain);
    fs::remove_file(&tensors).expect("it is there");
    assert!(refused(&folder).contains("adapter_model.bin: is a pickle"));
    fs::remove_file(&pickle).expect("it is there");
    assert!(refused(&folder).contains("adapter_model.safetensors: cannot be read"));
    // A folder, and more than is allowed, are not read.
    fs::create_dir(&tensors).expect("there is room");
    assert!(refused(&folder).contains("adapter_model.safetensors: is no file"));
    fs::remove_dir(&tensors).expect("it is there");
    let sparse = fs::File::create(&tensors).expect("there is room");
    // All its bytes are told of, so that it was not read to be counted.
    sparse.set_len(2 * checkpoint::ADAPTER_TENSOR_BYTES_MAX).expect("it takes no room");
    assert!(refused(&folder).contains("has 8589934592 bytes, and 4294967296 are allowed"));
    small().save(&folder);
    fs::remove_file(&said).expect("it is there");
    assert!(refused(&folder).contains("adapter_config.json: cannot be read"));
    // MLX's own.
    let mut mlx = Files::mlx(4, 1.0);
    mlx.mlx_term(Q, 4, Q_SHAPE).save(&folder);
    assert_eq!(checkpoint::adapter(&folder, &config), mlx.read(&config));
    fs::rename(folder.join("adapters.safetensors"), folder.join("adapters.npz")).expect("it is");
    assert!(refused(&folder).contains("adapters.npz: is no whole archive"));
}
