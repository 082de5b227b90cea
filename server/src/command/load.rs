//! From a model's name to an engine that runs it.

use super::drafter::{Drafter, told};
use super::needs::Needs;
use super::{Failure, sized};
use crate::adapters::Adapters;
use crate::backend::{Backends, Busy, Machine};
use crate::config::{self, KvDtype, Quantize, Running};
use crate::hub;
use crate::served::Served;
use crate::text::Text;
use crate::weights::{Base, Updates};
use checkpoint::Checkpoint;
use engine::engine::{Engine, Settings};
use engine::model::{Config, Model, Slabs, Source};
use engine::vocabulary::Vocabulary;
use engine::weights;
use indicatif::{ProgressBar, ProgressStyle};
use kernels_core::device::Backend;
use kernels_core::dtype::Dtype;
use kernels_core::workers::Inline;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a step waits for the masks of grammars: with the time to wake up, 1 ms.
const MASK_PATIENCE: Duration = Duration::from_micros(800);

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
    /// Its shape, and its tensors.
    pub checkpoint: Checkpoint,
    /// The model that guesses for it, if one does.
    pub drafter: Option<Drafter>,
    /// How it is run, as far as there is memory.
    pub settings: Settings,
    /// Memory that it takes.
    pub needs: Needs,
    /// Memory that can be had, if the system tells.
    pub available: Option<u64>,
    /// Why it does not fit, if it does not.
    pub unfit: Option<String>,
}

/// Finds a model, and fits the settings to it and to the memory that can be had.
pub fn plan(
    model: &config::Model,
    running: &Running,
    available: Option<u64>,
) -> Result<Plan, Failure> {
    let folder = hub::folder(model)?;
    let checkpoint = Checkpoint::open(&folder)?;
    let config = &checkpoint.config;
    let max_len = match running.max_model_len {
        Some(asked) if asked > config.reach() => {
            let (words, reach) = ("--max-model-len: the model was made for", config.reach());
            return Err(Failure::Setting(format!("{words} {reach} tokens, not {asked}")));
        }
        asked => asked.unwrap_or(config.max_len),
    };
    let rows = running.max_batch_size;
    let step_tokens = running.max_num_batched_tokens.max(rows);
    let mut settings = Settings {
        step_tokens,
        chunk: step_tokens,
        beside: running.prefill_beside_decode,
        rollout_share: running.rollout_share,
        page_len: running.block_size,
        max_len,
        kv: dtype(running.kv_cache_dtype),
        guessing: running.guessing.settings(),
        ..Settings::of(config, rows)
    };
    let quantize = quantize(running.quantize);
    let drafter = Drafter::open(model, running)?;
    let mut needs = Needs {
        weights: 0,
        workspace: 0,
        adapters: 0,
        page: 0,
        pages_useful: u64::from(rows) * u64::from(max_len.div_ceil(settings.page_len)),
    };
    let other = match &drafter {
        Some(Drafter::Model { checkpoint, .. }) => Some(&**checkpoint),
        Some(Drafter::Base { .. }) | None => None,
    };
    for Checkpoint { config, tensors, .. } in other.into_iter().chain([&checkpoint]) {
        let source = Source { config, tensors, quantize, workers: &Inline };
        let page = Slabs::page_bytes(config, &settings.capacity());
        needs.weights += Model::bytes(&source)?;
        needs.workspace += settings.workspace_bytes(config);
        needs.page += page.map_err(|error| Failure::Engine(error.into()))?;
    }
    if let Some(format) = drafter.as_ref().and_then(Drafter::repacked) {
        let Checkpoint { config, tensors, .. } = &checkpoint;
        let quantize = Some(format);
        needs.weights += Model::bytes(&Source { config, tensors, quantize, workers: &Inline })?;
    }
    if let Some(slots) = running.adapters.slots() {
        needs.adapters = u64::from(slots.slots) * slots.slot_bytes(&checkpoint.config);
    }
    let pages = needs.pages(available, running.kv_cache_memory);
    settings.pages = pages.as_ref().copied().unwrap_or(0);
    Ok(Plan { folder, checkpoint, drafter, settings, needs, available, unfit: pages.err() })
}

/// Loads a model and makes an engine of it.
pub fn load(
    model: &config::Model,
    name: Option<&str>,
    running: &Running,
    machine: &config::Machine,
) -> Result<Loaded, Failure> {
    load_on(Machine::open(machine)?, model, name, running, |own| own)
}

/// The same on a machine that is open, whose own backend may be put behind another one.
pub fn load_on(
    machine: Machine,
    model: &config::Model,
    name: Option<&str>,
    running: &Running,
    behind: impl FnOnce(Box<dyn Backend>) -> Box<dyn Backend>,
) -> Result<Loaded, Failure> {
    let Plan { folder, checkpoint, drafter, settings, needs, unfit, .. } =
        plan(model, running, machine.available_bytes())?;
    if let Some(words) = unfit {
        return Err(Failure::Setting(words));
    }
    let text = Text::open(&folder)?;
    let Checkpoint { config, .. } = &checkpoint;
    if let Some(drafter) = &drafter {
        drafter.check(config.vocab, &text)?;
    }
    let (described, numerics, workers, device) =
        (machine.describe(), machine.numerics(), machine.more_workers(), machine.device());
    let mask_threads = (machine.threads() / 2).max(1);
    let guessed = matches!(drafter, Some(Drafter::Model { .. }));
    let Backends { own, beside, busy } = machine.into_backends(guessed)?;
    let mut backend = behind(own);
    let load = |backend: &mut dyn Backend, checkpoint: &Checkpoint, quantize| {
        let Checkpoint { config, tensors, .. } = checkpoint;
        let source = Source { config, tensors, quantize, workers: &workers };
        with_progress(|progress| {
            let mut progress = |done, all| {
                checkpoint.let_go();
                progress(done, all);
            };
            Model::load(backend, &source, &mut progress)
        })
    };
    let quantize = quantize(running.quantize);
    let loaded = load(backend.as_mut(), &checkpoint, quantize)?;
    let repacked = match drafter.as_ref().and_then(Drafter::repacked) {
        Some(format) => Some(load(backend.as_mut(), &checkpoint, Some(format))?),
        None => None,
    };
    let vocabulary = Vocabulary::new(text.tokenizer.answer_bytes());
    let name = name.map_or_else(|| hub::name(model, &folder), str::to_owned);
    let cache = u64::from(settings.pages) * needs.page;
    let mut lines = vec![
        ("model", format!("{name}: {}, {}", shape(config), folder.display())),
        ("machine", described),
        ("weights", format!("{}, {}", packed(running.quantize), sized(needs.weights))),
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
    let slots = running.adapters.slots();
    if let Some(slots) = slots {
        let (count, rank) = (slots.slots, slots.rank_max);
        let each = sized(slots.slot_bytes(config));
        lines.push(("adapters", format!("{count} of rank {rank} at most, {each} each")));
    }
    let base =
        Base::new(checkpoint.clone(), quantize, drafter.as_ref().and_then(Drafter::repacked));
    let adapters = Adapters::new(base.clone(), name.clone(), slots);
    let tokens = text.tokenizer.grammar_tokens(&config.eos);
    let grammars = grammar::Compiler::new(&tokens, grammar::Settings::default());
    if settings.guessing.tokens > 0 {
        lines.push(("drafts", told(&settings.guessing, drafter.as_ref())));
    }
    let served = Served {
        name,
        folder,
        created: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        text,
        context: settings.len_max(),
        vocabulary: config.vocab,
        hidden: config.hidden,
        grammars,
        trust_request_chat_template: false,
        adapters: Arc::new(adapters),
        episodes: Arc::default(),
        updates: Arc::new(Updates::new(base)),
        dtype: dtype_of(&checkpoint),
        checkpoints: None,
        shelf: None,
        atropos: None,
        labels: Arc::default(),
        numerics,
        device,
        action_sets: BTreeMap::new(),
    };
    let masker = Box::new(grammar::Threads::new(mask_threads, MASK_PATIENCE));
    let mut engine = Engine::new(backend, loaded, vocabulary, masker, settings)?;
    if let Some(slots) = slots {
        engine = engine.with_adapters(slots)?;
    }
    engine = match &drafter {
        None => engine,
        Some(Drafter::Base { .. }) => engine.with_base_drafter(repacked)?,
        Some(Drafter::Model { checkpoint, .. }) => {
            let mut beside = beside.expect("it was asked for, for a model guesses");
            let loaded = load(beside.as_mut(), checkpoint, quantize)?;
            engine.with_drafter(beside, loaded)?
        }
    };
    Ok(Loaded { engine, busy, served, told: lines })
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
pub fn packed(quantize: Quantize) -> &'static str {
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

/// The format that weights are turned into, if they are.
pub fn quantize(asked: Quantize) -> Option<weights::Quantize> {
    match asked {
        Quantize::None => None,
        Quantize::Q8 => Some(weights::Quantize::Q8),
        Quantize::Q4 => Some(weights::Quantize::Q4),
    }
}

/// The type that a checkpoint's tensors mostly have, as torch calls it.
fn dtype_of(checkpoint: &Checkpoint) -> &'static str {
    let count = |dtype: Dtype| {
        let own = |tensor: &&weights::Tensor| tensor.element() == weights::Element::Float(dtype);
        checkpoint.tensors.values().filter(own).count()
    };
    let all = [(Dtype::Bf16, "bfloat16"), (Dtype::F16, "float16"), (Dtype::F32, "float32")];
    let most = all.into_iter().max_by_key(|(dtype, _)| count(*dtype));
    most.map_or("float32", |(_, name)| name)
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
