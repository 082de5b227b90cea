//! From a model's name to an engine that runs it.

use super::{Failure, sized};
use crate::backend::{self, Busy, Machine};
use crate::config::{self, KvDtype, Quantize, Running};
use crate::hub;
use crate::served::Served;
use crate::text::Text;
use checkpoint::Checkpoint;
use engine::engine::{Engine, Settings};
use engine::model::{Config, Model, Slabs, Source};
use engine::vocabulary::Vocabulary;
use engine::weights;
use indicatif::{ProgressBar, ProgressStyle};
use kernels_core::dtype::Dtype;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Of the free memory, what keys and values get if nothing is said.
const FREE_SHARE: f64 = 0.5;
/// Taken for free where the system does not tell.
const FREE_UNKNOWN: u64 = 4 << 30;

/// A model that is ready to run.
pub struct Loaded {
    /// The engine.
    pub engine: Engine,
    /// How long its kernels have run.
    pub busy: Busy,
    /// The model as the surfaces know it.
    pub served: Served,
    /// Lines that tell what was loaded, and how.
    pub told: Vec<(&'static str, String)>,
}

/// A model's files, and how it would be run.
pub struct Plan {
    /// Where it lies.
    pub folder: PathBuf,
    /// Its shape.
    pub config: Config,
    /// How it is run.
    pub settings: Settings,
    /// Bytes of a page in all layers.
    pub page_bytes: u64,
}

/// Finds a model, and fits the settings to it.
pub fn plan(model: &config::Model, running: &Running) -> Result<Plan, Failure> {
    let folder = hub::folder(model)?;
    let config = checkpoint::config(&folder)?;
    let max_len = match running.max_model_len {
        Some(asked) if asked > config.max_len => {
            let words = "--max-model-len: the model was made for";
            return Err(Failure::Setting(format!(
                "{words} {} tokens, not {asked}",
                config.max_len
            )));
        }
        asked => asked.unwrap_or(config.max_len),
    };
    let rows = running.max_batch_size;
    let step_tokens = running.max_num_batched_tokens.max(rows);
    let mut settings = Settings {
        step_tokens,
        chunk: step_tokens,
        beside: running.prefill_beside_decode,
        page_len: running.block_size,
        max_len,
        kv: dtype(running.kv_cache_dtype),
        ..Settings::of(&config, rows)
    };
    let page_bytes = Slabs::page_bytes(&config, &settings.capacity())
        .map_err(|error| Failure::Engine(error.into()))?;
    // More than all answers at their longest can hold is never used.
    let useful = u64::from(rows) * u64::from(max_len.div_ceil(settings.page_len));
    let free = backend::free_bytes().unwrap_or(FREE_UNKNOWN);
    let memory = running.kv_cache_memory.unwrap_or((free as f64 * FREE_SHARE) as u64);
    let pages = (memory / page_bytes.max(1)).min(useful).min(u64::from(u32::MAX));
    if pages == 0 {
        let words = format!("a page takes {}, more than {}", sized(page_bytes), sized(memory));
        return Err(Failure::Setting(format!("--kv-cache-memory: {words}")));
    }
    settings.pages = pages as u32;
    Ok(Plan { folder, config, settings, page_bytes })
}

/// Loads a model and makes an engine of it.
pub fn load(
    model: &config::Model,
    name: Option<&str>,
    running: &Running,
    machine: &config::Machine,
) -> Result<Loaded, Failure> {
    let Plan { folder, settings, page_bytes, .. } = plan(model, running)?;
    let text = Text::open(&folder)?;
    let Checkpoint { config, tensors } = Checkpoint::open(&folder)?;
    let machine = Machine::open(machine);
    let (described, numerics, workers) =
        (machine.describe(), machine.numerics(), machine.more_workers());
    let (mut backend, busy) = machine.into_backend();
    let source = Source {
        config: &config,
        tensors: &tensors,
        quantize: match running.quantize {
            Quantize::None => None,
            Quantize::Q8 => Some(weights::Quantize::Q8),
            Quantize::Q4 => Some(weights::Quantize::Q4),
        },
        workers: &workers,
    };
    let loaded = with_progress(|progress| Model::load(backend.as_mut(), &source, progress))?;
    let vocabulary = Vocabulary::new(text.tokenizer.answer_bytes());
    let name = name.map_or_else(|| hub::name(model, &folder), str::to_owned);
    let cache = u64::from(settings.pages) * page_bytes;
    let told = vec![
        ("model", format!("{name}: {}, {}", shape(&config), folder.display())),
        ("machine", described),
        ("weights", packed(running.quantize).to_owned()),
        ("context", format!("{} tokens", settings.len_max())),
        (
            "kv cache",
            format!(
                "{}: {} pages of {} tokens, {}",
                settings.kv.name(),
                settings.pages,
                settings.page_len,
                sized(cache)
            ),
        ),
        (
            "batch",
            format!(
                "{} answers, {} tokens a step, {} of prompts beside answers",
                settings.rows, settings.step_tokens, settings.beside
            ),
        ),
    ];
    let served = Served {
        name,
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        text,
        context: settings.len_max(),
        vocabulary: config.vocab,
        hidden: config.hidden,
        trust_request_chat_template: false,
        numerics,
    };
    let engine = Engine::new(backend, loaded, vocabulary, settings)?;
    Ok(Loaded { engine, busy, served, told })
}

/// A model's shape, in a line.
pub fn shape(config: &Config) -> String {
    format!(
        "{:?}, {} layers of {}, {} heads over {} of {}, {} tokens known",
        config.family,
        config.layers,
        config.hidden,
        config.heads,
        config.kv_heads,
        config.head_dim,
        config.vocab
    )
}

/// What is made of the weights, in words.
fn packed(quantize: Quantize) -> &'static str {
    match quantize {
        Quantize::None => "as the checkpoint holds them",
        Quantize::Q8 => "8 bits in groups of 32, made of the checkpoint's",
        Quantize::Q4 => "4 bits in groups of 32, made of the checkpoint's",
    }
}

/// Shows how far loading is, where somebody looks.
fn with_progress<T>(load: impl FnOnce(&mut dyn FnMut(u64, u64)) -> T) -> T {
    let style = ProgressStyle::with_template("loading {bar:32} {bytes} of {total_bytes}");
    let bar = ProgressBar::new(0).with_style(style.expect("a template"));
    let outcome = load(&mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    outcome
}

fn dtype(asked: KvDtype) -> Dtype {
    match asked {
        KvDtype::Auto | KvDtype::F16 => Dtype::F16,
        KvDtype::F32 => Dtype::F32,
        KvDtype::Bf16 => Dtype::Bf16,
        KvDtype::Int8 => Dtype::I8,
        KvDtype::Fp8 => Dtype::E4m3,
    }
}
