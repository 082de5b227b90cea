//! Files of adapters, made for the tests: as PEFT and as MLX save them, whole until a test
//! spoils them.

use checkpoint::Error;
use engine::lora::Adapter;
use engine::model::Config;
use half::{bf16, f16};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

/// The two files of an adapter.
#[derive(Clone, Debug)]
pub struct Files {
    /// Its configuration.
    pub config: Value,
    /// Its tensors: type, shape and bytes by name.
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

/// Numbers that every type of element has exactly.
pub fn numbers(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|at| ((at * 7 + seed * 5) % 31) as f32 / 8.0 - 2.0).collect()
}

impl Files {
    /// PEFT's, without a tensor yet.
    pub fn peft(rank: u32) -> Self {
        let config = json!({
            "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank,
            "target_modules": null, "bias": "none", "base_model_name_or_path": "a/model",
            "lora_dropout": 0.1, "fan_in_fan_out": false, "modules_to_save": null,
        });
        Self { config, tensors: BTreeMap::new() }
    }

    /// MLX's, without a tensor yet.
    pub fn mlx(rank: u32, scale: f64) -> Self {
        let parameters = json!({"rank": rank, "scale": scale, "dropout": 0.0});
        let config = json!({
            "fine_tune_type": "lora", "num_layers": -1, "lora_parameters": parameters,
            "model": "a/model", "iters": 100, "learning_rate": 1e-5, "optimizer": "adam",
        });
        Self { config, tensors: BTreeMap::new() }
    }

    /// Sets a field.
    pub fn field(&mut self, name: &str, value: Value) -> &mut Self {
        self.config[name] = value;
        self
    }

    /// Puts a tensor of f32.
    pub fn put(&mut self, name: &str, shape: &[u32], floats: &[f32]) -> &mut Self {
        self.put_as(Dtype::F32, name, shape, floats)
    }

    /// Puts a tensor of that type.
    pub fn put_as(&mut self, dtype: Dtype, name: &str, shape: &[u32], floats: &[f32]) -> &mut Self {
        let bytes = |float: &f32| match dtype {
            Dtype::F16 => f16::from_f32(*float).to_le_bytes().to_vec(),
            Dtype::BF16 => bf16::from_f32(*float).to_le_bytes().to_vec(),
            _ => float.to_le_bytes().to_vec(),
        };
        let shape = shape.iter().map(|&extent| extent as usize).collect();
        let bytes = floats.iter().flat_map(bytes).collect();
        self.tensors.insert(name.to_owned(), (dtype, shape, bytes));
        self
    }

    /// Puts both halves of a product's term, as PEFT names them.
    pub fn term(&mut self, matrix: &str, rank: u32, [inputs, outputs]: [u32; 2]) -> &mut Self {
        let name = |half: &str| format!("base_model.model.{matrix}.lora_{half}.weight");
        let (a, b) = (numbers((rank * inputs) as usize, 1), numbers((outputs * rank) as usize, 2));
        self.put(&name("A"), &[rank, inputs], &a).put(&name("B"), &[outputs, rank], &b)
    }

    /// Puts both halves of a term, as MLX names and turns them.
    pub fn mlx_term(&mut self, matrix: &str, rank: u32, [inputs, outputs]: [u32; 2]) -> &mut Self {
        let name = |half: &str| format!("{matrix}.lora_{half}");
        let (a, b) = (numbers((inputs * rank) as usize, 1), numbers((rank * outputs) as usize, 2));
        self.put(&name("a"), &[inputs, rank], &a).put(&name("b"), &[rank, outputs], &b)
    }

    /// The configuration's file.
    pub fn text(&self) -> String {
        self.config.to_string()
    }

    /// The tensors' file.
    pub fn bytes(&self) -> Vec<u8> {
        let mut views = Vec::new();
        for (name, (dtype, shape, bytes)) in &self.tensors {
            let view = TensorView::new(*dtype, shape.clone(), bytes).expect("a good tensor");
            views.push((name, view));
        }
        safetensors::serialize(views, None).expect("good tensors")
    }

    /// The tensors' file as an archive of arrays, stored or deflated.
    pub fn archive(&self, deflated: bool) -> Vec<u8> {
        let (mut file, mut directory) = (Vec::new(), Vec::new());
        for (name, (dtype, shape, bytes)) in &self.tensors {
            let kind = match dtype {
                Dtype::F16 => "<f2",
                Dtype::BF16 => "<V2",
                _ => "<f4",
            };
            let shape: String = shape.iter().map(|extent| format!("{extent}, ")).collect();
            let said =
                format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape}), }}\n");
            let mut array = b"\x93NUMPY\x01\x00".to_vec();
            array.extend((said.len() as u16).to_le_bytes());
            array.extend(said.as_bytes());
            array.extend(bytes);
            let packed = match deflated {
                true => miniz_oxide::deflate::compress_to_vec(&array, 6),
                false => array.clone(),
            };
            let name = format!("{name}.npy");
            let (begin, method) = (file.len() as u32, if deflated { 8u16 } else { 0 });
            // Version, flags, method, time, date; checksum and sizes; lengths of names.
            let mut common = Vec::new();
            common.extend([20u16, 0, method, 0, 0].map(u16::to_le_bytes).concat());
            let sizes = [crc32fast::hash(&array), packed.len() as u32, array.len() as u32];
            common.extend(sizes.map(u32::to_le_bytes).concat());
            common.extend([name.len() as u16, 0].map(u16::to_le_bytes).concat());
            file.extend([b"PK\x03\x04", &common[..], name.as_bytes(), &packed].concat());
            directory.extend([b"PK\x01\x02\x14\x00", &common[..], &[0; 10]].concat());
            directory.extend([&begin.to_le_bytes(), name.as_bytes()].concat());
        }
        let (begin, count) = (file.len() as u32, self.tensors.len() as u16);
        let counts = [0, 0, count, count].map(u16::to_le_bytes).concat();
        let places = [directory.len() as u32, begin].map(u32::to_le_bytes).concat();
        [&file[..], &directory, b"PK\x05\x06", &counts, &places, &[0, 0]].concat()
    }

    /// What they are together.
    pub fn read(&self, config: &Config) -> Result<Adapter, Error> {
        checkpoint::adapter_of_bytes(self.text().as_bytes(), &self.bytes(), config)
    }

    /// Why they are refused.
    pub fn refused(&self, config: &Config) -> String {
        self.read(config).expect_err("spoilt files are refused").to_string()
    }

    /// Writes both into a folder, which is made.
    pub fn save(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("there is room for a folder");
        let mlx = self.config.get("peft_type").is_none();
        let tensors = if mlx { "adapters.safetensors" } else { "adapter_model.safetensors" };
        for (name, bytes) in
            [("adapter_config.json", self.text().into_bytes()), (tensors, self.bytes())]
        {
            std::fs::write(folder.join(name), bytes).expect("there is room for a file");
        }
    }
}
