//! A folder that is no checkpoint, or not a whole one, is refused in words that name the
//! file, the field or the tensor.

use backends::cpu::Cpu;
use checkpoint::{Checkpoint, Fault};
use engine::model::{Capacity, Config, Model, Scratch, Slabs, Source};
use engine::weights::{LoadError, Quantize};
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::model::golden::folder;
use pagewise_tests::model::load;
use proptest::prelude::*;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as Stored, TensorView};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Tensors by name: type, shape and bytes.
type Tensors = BTreeMap<String, (Stored, Vec<usize>, Vec<u8>)>;

/// A copy of the golden Qwen 3 in a folder of its own, to be spoilt.
struct Spoilt {
    folder: PathBuf,
    config: String,
    tensors: Tensors,
}

impl Spoilt {
    fn new(name: &str) -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("checkpoint").join(name);
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("there is room for a folder");
        let from = self::folder("qwen3");
        let config = fs::read_to_string(from.join("config.json")).expect("it is committed");
        let bytes = fs::read(from.join("model.safetensors")).expect("it is committed");
        let file = SafeTensors::deserialize(&bytes).expect("it is whole");
        let own = |(name, view): (&str, TensorView<'_>)| {
            (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec()))
        };
        let tensors = file.iter().map(own).collect();
        Self { folder, config, tensors }
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.folder.join(name), bytes).expect("there is room for a file");
    }

    /// Opens what it holds now.
    fn open(&self) -> Result<Checkpoint, checkpoint::Error> {
        self.write("config.json", &self.config);
        self.write("model.safetensors", serialized(&self.tensors));
        Checkpoint::open(&self.folder)
    }

    /// Loads it; why that fails.
    fn refused(&self) -> LoadError {
        let checkpoint = self.open().expect("its files are good");
        let mut cpu = Cpu::new(Level::best(), 1);
        let error = load(&mut cpu, &checkpoint, None).expect_err("a spoilt checkpoint is refused");
        assert_eq!(cpu.allocated_bytes(), 0, "what was loaded is given back");
        error
    }

    /// A configuration with one field changed; the field that is refused, and the words.
    fn field(&mut self, from: &str, to: &str) -> (String, String) {
        assert!(self.config.contains(from), "the configuration says {from}");
        self.config = self.config.replace(from, to);
        let error = self.open().expect_err("a spoilt configuration is refused");
        match &error.fault {
            Fault::Field { field, .. } => (field.clone(), error.to_string()),
            other => panic!("{other:?}"),
        }
    }
}

fn serialized(tensors: &Tensors) -> Vec<u8> {
    let view = |name: &String| {
        let (dtype, shape, bytes) = &tensors[name];
        TensorView::new(*dtype, shape.clone(), bytes).expect("a good tensor")
    };
    let views = tensors.keys().map(|name| (name.clone(), view(name)));
    safetensors::serialize(views, None).expect("good tensors")
}

const DOWN: &str = "model.layers.1.mlp.down_proj.weight";

#[test]
fn an_unspoilt_copy_loads() {
    let checkpoint = Spoilt::new("whole").open().expect("a good folder opens");
    let mut cpu = Cpu::new(Level::best(), 1);
    let model = load(&mut cpu, &checkpoint, None).expect("a good checkpoint loads");
    assert!(cpu.allocated_bytes() > 0);
    model.release(&mut cpu).expect("its buffers are its own");
    assert_eq!(cpu.allocated_bytes(), 0);
}

#[test]
fn a_missing_tensor_is_named() {
    let mut spoilt = Spoilt::new("missing");
    spoilt.tensors.remove(DOWN);
    assert_eq!(spoilt.refused(), LoadError::Missing { tensor: DOWN.into() });
}

#[test]
fn an_extra_tensor_is_named_unless_every_model_of_old_has_it() {
    let mut spoilt = Spoilt::new("extra");
    let floats = (Stored::F32, vec![2], vec![0; 8]);
    spoilt.tensors.insert("model.layers.0.self_attn.rotary_emb.inv_freq".into(), floats.clone());
    spoilt.tensors.insert("lm_head.weight".into(), floats.clone());
    let checkpoint = spoilt.open().expect("its files are good");
    load(&mut Cpu::new(Level::best(), 1), &checkpoint, None).expect("those are no model's");
    let name = "model.layers.2.input_layernorm.weight";
    spoilt.tensors.insert(name.into(), floats);
    assert_eq!(spoilt.refused(), LoadError::Extra { tensor: name.into() });
}

#[test]
fn a_tensor_of_another_shape_or_type_is_named() {
    let mut spoilt = Spoilt::new("shape");
    let good = spoilt.tensors[DOWN].clone();
    spoilt.tensors.insert(DOWN.into(), (Stored::F32, vec![96, 56], good.2.clone()));
    let (expected, got) = ("floats [56, 96]".into(), "f32 [96, 56]".into());
    assert_eq!(spoilt.refused(), LoadError::Unfit { tensor: DOWN.into(), expected, got });
    spoilt.tensors.insert(DOWN.into(), (Stored::I32, good.1, good.2));
    assert!(spoilt.refused().to_string().contains("not 32-bit words [56, 96]"));
}

#[test]
fn a_truncated_file_names_the_tensor_at_which_it_ends() {
    let spoilt = Spoilt::new("truncated");
    spoilt.open().expect("it is good so far");
    let whole = serialized(&spoilt.tensors);
    spoilt.write("model.safetensors", &whole[..whole.len() - 1]);
    let error = Checkpoint::open(&spoilt.folder).expect_err("it is too short").to_string();
    assert!(error.contains("is truncated") && error.contains(".weight"), "{error}");
    for bytes in [0, 7, 8, 60] {
        spoilt.write("model.safetensors", &whole[..bytes]);
        let error = Checkpoint::open(&spoilt.folder).expect_err("it is too short").to_string();
        assert!(error.contains("model.safetensors: "), "{error}");
    }
}

#[test]
fn shards_must_hold_what_the_index_says() {
    let spoilt = Spoilt::new("shards");
    spoilt.write("config.json", &spoilt.config);
    let names = spoilt.tensors.keys().map(|name| format!("\"{name}\": \"a.safetensors\""));
    let names = names.collect::<Vec<_>>().join(", ");
    let index = |more: &str| format!("{{\"weight_map\": {{{names}{more}}}}}");
    let written = "model.safetensors.index.json";
    let refused = || Checkpoint::open(&spoilt.folder).expect_err("it is no checkpoint").to_string();
    spoilt.write(written, index(""));
    assert!(refused().contains("a.safetensors: cannot be read"));
    spoilt.write("a.safetensors", serialized(&spoilt.tensors));
    Checkpoint::open(&spoilt.folder).expect("now it is whole");
    spoilt.write(written, index(", \"more\": \"a.safetensors\""));
    assert!(refused().contains("tensor more is missing from a.safetensors"));
    spoilt.write(written, index(", \"more\": \"../a.safetensors\""));
    assert!(refused().contains("which is no file name"));
    spoilt.write("b.safetensors", serialized(&spoilt.tensors));
    spoilt.write(written, index(", \"more\": \"b.safetensors\""));
    assert!(refused().contains("is in another file too"));
    spoilt.write(written, "{}");
    assert!(refused().contains("weight_map must be"));
}

#[test]
fn a_folder_without_files_is_refused_in_words() {
    let spoilt = Spoilt::new("empty");
    let error = Checkpoint::open(&spoilt.folder).expect_err("it is empty").to_string();
    assert!(error.contains("config.json: cannot be read"), "{error}");
    spoilt.write("config.json", &spoilt.config);
    let error = Checkpoint::open(&spoilt.folder).expect_err("it has no weights").to_string();
    assert!(error.contains("holds neither model.safetensors nor"), "{error}");
}

#[test]
fn fields_that_no_kernel_serves_are_refused_by_name() {
    let changes = [
        ("\"qwen3\"", "\"gpt2\"", "model_type"),
        ("\"silu\"", "\"gelu\"", "hidden_act"),
        ("\"head_dim\": 32", "\"head_dim\": 20", "head_dim"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 3", "num_attention_heads"),
        ("\"num_key_value_heads\": 2", "\"num_key_value_heads\": 0", "num_key_value_heads"),
        ("\"hidden_size\": 56", "\"hidden_size\": -56", "hidden_size"),
        ("\"hidden_size\": 56", "\"hidden_size\": 4294967297", "hidden_size"),
        ("\"vocab_size\": 149", "\"vocab_size\": \"149\"", "vocab_size"),
        ("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 4000000000", "num_hidden_layers"),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"longrope\"", "rope_parameters.rope_type"),
        ("\"rope_type\": \"default\"", "\"rope_type\": \"linear\"", "rope_parameters.factor"),
        ("\"rope_theta\": 1000000.0", "\"rope_theta\": 0.5", "rope"),
        ("\"rope_theta\": 1000000.0", "\"full_attention\": {}", "rope_parameters.full_attention"),
        ("\"eos_token_id\": null", "\"eos_token_id\": 149", "eos_token_id"),
        ("\"eos_token_id\": null", "\"eos_token_id\": [1, \"2\"]", "eos_token_id"),
        (
            "\"hidden_act\"",
            "\"quantization_config\": {\"quant_method\": \"fp8\"}, \"hidden_act\"",
            "quantization_config.quant_method",
        ),
        (
            "\"hidden_act\"",
            "\"quantization_config\": {\"quant_method\": \"gptq\", \"desc_act\": true}, \"hidden_act\"",
            "quantization_config.desc_act",
        ),
        (
            "\"hidden_act\"",
            "\"quantization_config\": {\"quant_method\": \"gptq\", \"bits\": 3}, \"hidden_act\"",
            "quantization_config.bits",
        ),
        (
            "\"hidden_act\"",
            "\"quantization_config\": {\"quant_method\": \"awq\", \"version\": \"gemv\"}, \"hidden_act\"",
            "quantization_config.version",
        ),
        (
            "\"hidden_act\"",
            "\"quantization\": {\"mode\": \"mxfp4\"}, \"hidden_act\"",
            "quantization.mode",
        ),
    ];
    for (at, (from, to, expected)) in changes.into_iter().enumerate() {
        let (field, words) = Spoilt::new(&format!("field{at}")).field(from, to);
        assert_eq!(field, expected, "{to}: {words}");
        assert!(words.contains("config.json: ") && words.contains(" must be "), "{words}");
    }
}

#[test]
fn progress_is_told_up_to_the_last_byte() {
    let checkpoint = Spoilt::new("progress").open().expect("a good folder opens");
    let bytes: usize = checkpoint.tensors.values().map(|tensor| tensor.bytes().len()).sum();
    let (config, tensors, workers) = (&checkpoint.config, &checkpoint.tensors, &Inline);
    let source = Source { config, tensors, quantize: None, workers };
    let mut told = Vec::new();
    let mut cpu = Cpu::new(Level::best(), 1);
    Model::load(&mut cpu, &source, &mut |done, all| told.push((done, all))).expect("it loads");
    let last = (bytes as u64, bytes as u64);
    assert!(told.is_sorted() && told.len() > 10, "{told:?}");
    assert_eq!((told[0].0, told[told.len() - 1], told[told.len() - 2]), (0, last, last));
}

#[test]
fn what_memory_a_model_takes_beside_its_weights_is_told_before() {
    let config = Spoilt::new("memory").open().expect("a good folder opens").config;
    for kv in [Dtype::F32, Dtype::F16, Dtype::I8, Dtype::E4m3, Dtype::I4] {
        let (rows_max, pages, page_len) = (96, 11, 16);
        let (seqs_max, logit_rows_max, max_len) = (4, 8, 512);
        let capacity =
            Capacity { rows_max, seqs_max, logit_rows_max, max_len, pages, page_len, kv };
        let mut cpu = Cpu::new(Level::best(), 1);
        let slabs = Slabs::alloc(&mut cpu, &config, &capacity).expect("there is memory");
        let page_bytes = Slabs::page_bytes(&config, &capacity).expect("a good layout");
        assert_eq!(cpu.allocated_bytes(), 11 * page_bytes, "{}", kv.name());
        slabs.release(&mut cpu).expect("its buffers are its own");
        let scratch = Scratch::alloc(&mut cpu, &config, &capacity).expect("there is memory");
        assert_eq!(cpu.allocated_bytes(), Scratch::bytes(&config, &capacity));
        // Rows between layers are as many for two layers as for one.
        let one = Config { layers: 1, windows: vec![None], ..config.clone() };
        assert_eq!(Scratch::bytes(&config, &capacity), Scratch::bytes(&one, &capacity));
        scratch.release(&mut cpu).expect("its buffers are its own");
        assert_eq!(cpu.allocated_bytes(), 0);
    }
}

#[test]
fn what_weights_take_is_told_without_loading_them() {
    let checkpoint = Spoilt::new("weights").open().expect("a good folder opens");
    let (config, tensors, workers) = (&checkpoint.config, &checkpoint.tensors, &Inline);
    for quantize in [None, Some(Quantize::Q8), Some(Quantize::Q4)] {
        let source = Source { config, tensors, quantize, workers };
        let told = Model::bytes(&source).expect("it would load");
        let mut cpu = Cpu::new(Level::best(), 1);
        Model::load(&mut cpu, &source, &mut |_, _| {}).expect("it loads");
        let borrowed = told - cpu.allocated_bytes();
        let table = tensors["model.embed_tokens.weight"].bytes().len() as u64;
        assert!(borrowed == 0 || borrowed == table, "{quantize:?}: {borrowed} of {told}");
    }
}

/// Some bytes of a file, changed.
fn changed(bytes: &[u8], at: &[(usize, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for &(place, byte) in at {
        let length = bytes.len();
        bytes[place % length] = byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_file_makes_a_panic(
        config in proptest::collection::vec((any::<usize>(), b' '..b'~'), 0..3),
        header in proptest::collection::vec((0..2000usize, any::<u8>()), 0..3),
        cut in 0..4000usize,
    ) {
        let spoilt = Spoilt::new("bytes");
        spoilt.write("config.json", changed(spoilt.config.as_bytes(), &config));
        let whole = changed(&serialized(&spoilt.tensors), &header);
        let length = if cut < 1000 { cut } else { whole.len() };
        spoilt.write("model.safetensors", &whole[..length]);
        if let Ok(checkpoint) = Checkpoint::open(&spoilt.folder) {
            let mut cpu = Cpu::new(Level::best(), 1);
            let _ = load(&mut cpu, &checkpoint, None);
        }
    }
}
