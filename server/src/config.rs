//! Every setting, and the one place that reads command line, file and environment.

mod atropos;
mod checkpoints;
mod commands;
mod file;
mod partners;
mod read;
mod trajectories;

pub use self::atropos::Atropos;
pub use self::checkpoints::Checkpoints;
pub use self::trajectories::Trajectories;
pub use commands::{Bench, Complete, Doctor, Drawing, Info, Remote, Replay, Talk, Trainer};

use clap::{Args, Parser, Subcommand, ValueEnum};
use engine::engine::Settings;
use engine::lora;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use std::path::{Path, PathBuf};

/// What to do, and with what.
#[derive(Debug)]
pub struct Config {
    /// What to do.
    pub task: Task,
    /// All its settings by name, as they are; what opens something is not shown.
    pub told: Vec<(String, String)>,
}

/// The part of the machine that is used.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Machine")]
pub struct Machine {
    /// Threads of the kernels; all that there are, if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    threads: Option<u32>,
    /// Instructions of the kernels: scalar, avx2, avx512 or neon; the best this
    /// machine has, if not given.
    #[arg(long, value_parser = level)]
    level: Option<Level>,
    /// Where they run.
    #[command(flatten)]
    place: Place,
}

/// Where kernels run, and by what.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Machine")]
pub struct Place {
    /// Where kernels run: cpu; cuda:0 and so on, or metal, by its plugin; or auto: the first
    /// device there is, the CPU where there is none.
    #[arg(long, value_parser = device, default_value = "cpu")]
    device: Option<Device>,
    /// The folder of device plugins; that of this program, if not given.
    #[arg(long, value_name = "FOLDER")]
    plugins: Option<PathBuf>,
}

/// Where kernels run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// On this machine's CPU.
    #[default]
    Cpu,
    /// On the device of that number behind a plugin: `"cuda"`.
    Plugin(&'static str, u32),
    /// On the first device there is.
    Auto,
}

impl Machine {
    /// There, by all that it has.
    pub fn at(place: Place) -> Self {
        Self { place, ..Self::default() }
    }

    /// Threads of the kernels.
    pub fn threads(&self) -> u32 {
        let all = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        self.threads.unwrap_or_else(all)
    }

    /// Instructions of the kernels.
    pub fn level(&self) -> Level {
        self.level.unwrap_or_else(Level::best)
    }

    /// Where kernels run.
    pub fn device(&self) -> Device {
        self.place.device.unwrap_or_default()
    }

    /// The folder of device plugins.
    pub fn plugins(&self) -> PathBuf {
        let beside = || std::env::current_exe().ok()?.parent().map(Path::to_owned);
        self.place.plugins.clone().or_else(beside).unwrap_or_default()
    }
}

/// Serves language models to OpenAI's clients, for rollouts.
///
/// Where no command stands before its settings it serves, and where no model is named
/// either, the model in the box.
#[derive(Parser)]
#[command(name = "pagewise", version, args_override_self = true)]
struct Arguments {
    /// A YAML, TOML or JSON file with settings, by the names they have here; the command line
    /// comes before it.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    task: Option<Task>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Task {
    /// Serve a model over HTTP, as OpenAI's API.
    #[command(args_override_self = true)]
    Serve(Box<Serve>),
    /// Go on from a prompt.
    #[command(args_override_self = true)]
    Complete(Complete),
    /// Talk with a model.
    #[command(args_override_self = true)]
    Chat(Talk),
    /// Tell a model's shapes, its memory and what fits.
    #[command(args_override_self = true)]
    Info(Info),
    /// Load a running server, and tell how fast it answers.
    #[command(args_override_self = true)]
    Bench(Bench),
    /// Force the tokens of stored trajectories through a running server, and compare bits.
    #[command(args_override_self = true)]
    Replay(Replay),
    /// Make a trainer's calls of a running server, and tell where its replies differ.
    #[command(args_override_self = true)]
    Doctor(Doctor),
    /// Check and time a kernel on this machine.
    #[command(args_override_self = true)]
    Demo(Machine),
}

impl Task {
    /// The model that it is about.
    fn model(&self) -> Option<&Model> {
        match self {
            Self::Serve(serve) => Some(&serve.model),
            Self::Complete(complete) => Some(&complete.model),
            Self::Chat(talk) => Some(&talk.model),
            Self::Info(info) => Some(&info.model),
            Self::Bench(_) | Self::Replay(_) | Self::Doctor(_) | Self::Demo(_) => None,
        }
    }
}

/// Which model, and where it comes from.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Model")]
pub struct Model {
    /// A folder with a checkpoint, or its name on the Hugging Face hub; the model in the
    /// box, if not given.
    #[arg(value_name = "MODEL", conflicts_with = "model_path", help_heading = None::<&'static str>)]
    model: Option<String>,
    /// The same, as an option.
    #[arg(long, value_name = "MODEL")]
    model_path: Option<String>,
    /// Where the hub's files are kept.
    #[arg(long, value_name = "DIR", env = "HF_HOME")]
    hf_home: Option<PathBuf>,
    /// Where the hub is.
    #[arg(long, value_name = "URL", env = "HF_ENDPOINT")]
    hf_endpoint: Option<String>,
    /// What opens private models of the hub.
    #[arg(long, value_name = "TOKEN", env = "HF_TOKEN", hide_env_values = true)]
    hf_token: Option<String>,
}

impl Model {
    /// As it was named, if it was.
    pub fn name(&self) -> Option<&str> {
        self.model.as_deref().or(self.model_path.as_deref())
    }

    /// Where the hub's files are kept.
    pub fn hub(&self) -> PathBuf {
        let home = self.hf_home.clone().or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            Some(cache.or_else(|| Some(std::env::home_dir()?.join(".cache")))?.join("huggingface"))
        });
        home.unwrap_or_default().join("hub")
    }

    /// Where the hub is, if it is not where it mostly is.
    pub fn endpoint(&self) -> Option<&str> {
        self.hf_endpoint.as_deref().filter(|endpoint| !endpoint.is_empty())
    }

    /// What opens private models.
    pub fn token(&self) -> Option<String> {
        self.hf_token.clone().filter(|token| !token.is_empty())
    }
}

/// How a model is run.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Running")]
pub struct Running {
    /// Answers that are generated together.
    #[arg(long, value_name = "COUNT", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub max_batch_size: u32,
    /// Tokens of a step, of all answers and prompts together.
    #[arg(long, value_name = "TOKENS", default_value_t = 512, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub max_num_batched_tokens: u32,
    /// Of these, the ones of prompts in a step in which answers go on, or as many as these
    /// are.
    #[arg(long, value_name = "TOKENS", default_value_t = Settings::BESIDE, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub prefill_beside_decode: u32,
    /// The part of the tokens that rollouts have while inference could use more, too, above 0
    /// and below 1; if it is not given, classes make no difference.
    #[arg(long, value_name = "PART", value_parser = part)]
    pub rollout_share: Option<f64>,
    /// Tokens of a prompt with its answer; what the model was made for, if not given.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// Memory for keys and values, such as 4GiB; 80% of what weights and a step leave, if
    /// not given.
    #[arg(long, value_name = "BYTES", value_parser = bytes)]
    pub kv_cache_memory: Option<u64>,
    /// Format of keys and values.
    #[arg(long, value_enum, default_value_t = KvDtype::Auto)]
    pub kv_cache_dtype: KvDtype,
    /// Tokens of a page of keys and values.
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub block_size: u32,
    /// Format that the weights are turned into when they are loaded.
    #[arg(long, value_enum, default_value_t = Quantize::None)]
    pub quantize: Quantize,
    /// What is guessed of answers.
    #[command(flatten)]
    pub guessing: Guessing,
    /// Adapters over the model.
    #[command(flatten)]
    pub adapters: Adapters,
}

/// Adapters (LoRA) over the model.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Adapters")]
pub struct Adapters {
    /// Versions of adapters on the device at once, old ones that answers still use among them;
    /// 0 takes no adapters.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(0..=4096))]
    max_loras: u32,
    /// Their largest rank.
    #[arg(long, value_name = "RANK", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    max_lora_rank: u32,
    /// The type of their numbers on the device; f32 holds those of every file exactly.
    #[arg(long, value_enum, default_value_t = LoraDtype::Auto)]
    lora_dtype: LoraDtype,
    /// An adapter that is served from the start, as NAME=FOLDER; several, each with its own
    /// option.
    #[arg(long, value_name = "NAME=FOLDER", value_parser = module)]
    pub lora_modules: Vec<(String, PathBuf)>,
}

impl Adapters {
    /// As the engine takes them; `None`: it takes none.
    pub fn slots(&self) -> Option<lora::Settings> {
        let dtype = match self.lora_dtype {
            LoraDtype::Auto | LoraDtype::F32 => Dtype::F32,
            LoraDtype::F16 => Dtype::F16,
            LoraDtype::Bf16 => Dtype::Bf16,
        };
        let settings = lora::Settings::new(self.max_loras, self.max_lora_rank, dtype);
        (self.max_loras > 0).then_some(settings)
    }
}

/// Type of the numbers of adapters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LoraDtype {
    /// f32.
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits, IEEE's.
    F16,
    /// 16 bits, the upper half of 32.
    Bf16,
}

/// A name, and the folder behind it.
fn module(text: &str) -> Result<(String, PathBuf), String> {
    named(text).ok_or_else(|| "a name and a folder, as NAME=FOLDER".into())
}

/// A name, and the file behind it.
fn named_file(text: &str) -> Result<(String, PathBuf), String> {
    named(text).ok_or_else(|| "a name and a file, as NAME=FILE".into())
}

fn named(text: &str) -> Option<(String, PathBuf)> {
    let (name, path) = text.split_once('=')?;
    (!name.is_empty() && !path.is_empty()).then(|| (name.to_owned(), path.into()))
}

/// Speculation: what is guessed of answers, so that several tokens come in one step.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Speculation")]
pub struct Guessing {
    /// A smaller model of the same tokens that guesses: a folder, or a name on the hub.
    #[arg(long, value_name = "MODEL")]
    pub draft_model: Option<String>,
    /// Guesses for adapters with what is served already: the base, over the keys and values
    /// of the adapter.
    #[arg(long, value_enum, conflicts_with = "draft_model")]
    draft: Option<Draft>,
    /// The format of the base's weights in which it guesses, held beside those that are
    /// served: then it guesses for itself, too.
    #[arg(long, value_enum, default_value_t = Quantize::None)]
    draft_quantize: Quantize,
    /// Tokens of a guess; 0 guesses nothing, and 4 is what a model guesses if this is not
    /// given. Without a model that guesses they are what came before after the same tokens.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(0..=64))]
    draft_tokens: Option<u32>,
    /// Guesses of one answer in a step, each with another first token.
    #[arg(long, value_name = "COUNT", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=16))]
    draft_paths: u32,
    /// Guessed tokens in a step, of all answers together.
    #[arg(long, value_name = "TOKENS", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=4096))]
    draft_batch: u32,
}

impl Guessing {
    /// Tokens of a model's guess where nothing else is said.
    const TOKENS: u32 = 4;

    /// The option that names a model that guesses.
    fn guesser(&self) -> Option<&'static str> {
        let model = self.draft_model.is_some().then_some("--draft-model");
        model.or(self.draft.map(|Draft::Base| "--draft"))
    }

    /// As the engine takes it.
    pub fn settings(&self) -> engine::engine::Guessing {
        let tokens = if self.guesser().is_some() { Self::TOKENS } else { 0 };
        let tokens = self.draft_tokens.unwrap_or(tokens);
        let rows = if tokens == 0 { 0 } else { self.draft_batch };
        engine::engine::Guessing { tokens, paths: self.draft_paths, rows }
    }

    /// What is said of guesses though nothing guesses.
    pub fn idle(&self) -> Option<&'static str> {
        match self.settings().tokens {
            0 if self.draft_paths > 1 => self.guesser().or(Some("--draft-paths")),
            0 => self.guesser(),
            _ => None,
        }
    }

    /// Who guesses, if a model does.
    pub fn model(&self, of: &Model) -> Option<Model> {
        let name = self.draft_model.clone()?;
        let guesses = self.settings().tokens > 0;
        guesses.then(|| Model { model: Some(name), model_path: None, ..of.clone() })
    }

    /// The format in which the base guesses, if it does.
    pub fn base(&self) -> Option<Quantize> {
        let guesses = self.settings().tokens > 0;
        self.draft.filter(|_| guesses).map(|Draft::Base| self.draft_quantize)
    }
}

/// A server's settings.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Which model.
    #[command(flatten)]
    pub model: Model,
    /// The name that clients ask for; the folder's, if not given.
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    pub served_model_name: Option<String>,
    /// Address to listen at, or a name of this machine.
    #[arg(long, default_value = "127.0.0.1", help_heading = "Address")]
    pub host: String,
    /// Port to listen at; 0 takes a free one.
    #[arg(long, default_value_t = 8000, help_heading = "Address")]
    pub port: u16,
    /// Port to listen at for gRPC; 0 takes a free one; none, if not given.
    #[arg(long, value_name = "PORT", help_heading = "Address")]
    pub grpc_port: Option<u16>,
    /// How it is run.
    #[command(flatten)]
    pub running: Running,
    /// Milliseconds that an idle engine waits for more requests after the first.
    #[arg(long, value_name = "MS", default_value_t = 0, help_heading = "Running", value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub batch_timeout: u64,
    /// How requests are brought together.
    #[arg(long, value_enum, default_value_t = Scheduler::Continuous, help_heading = "Running")]
    pub scheduler: Scheduler,
    /// Tokens that requests allow by name in an `action_mask`, as NAME=FILE: a list of them in
    /// JSON; several, each with its own option.
    #[arg(long, value_name = "NAME=FILE", help_heading = "Running", value_parser = named_file)]
    pub action_set: Vec<(String, PathBuf)>,
    /// Bounds on clients.
    #[command(flatten)]
    pub limits: Limits,
    /// Trajectories that outlive the server.
    #[command(flatten)]
    pub trajectories: Trajectories,
    /// Versions that outlive the server.
    #[command(flatten)]
    pub checkpoints: Checkpoints,
    /// A trainer that takes scored groups.
    #[command(flatten)]
    pub atropos: Atropos,
    /// Where it is run.
    #[command(flatten)]
    pub machine: Machine,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info", help_heading = "Log")]
    pub log_level: tracing::level_filters::LevelFilter,
    /// How it is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, help_heading = "Log")]
    pub log_format: LogFormat,
}

/// Bounds on clients.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Clients")]
pub struct Limits {
    /// Seconds after which a request ends with what it has; 0: none.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub request_timeout_seconds: u64,
    /// Seconds that an update of weights has from its start to its end, where its start says
    /// nothing else.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub weight_update_timeout_seconds: u64,
    /// Streams that are open together.
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    pub max_concurrent_streams: u32,
    /// Answers that wait, besides those that are generated; more are told to come again.
    #[arg(long, value_name = "COUNT", default_value_t = 2048)]
    pub max_queue: u32,
    /// Bytes of a request's body.
    #[arg(long, value_name = "BYTES", default_value = "32MiB", value_parser = body_bytes)]
    pub max_body_bytes: usize,
    /// A key that clients must send; several with commas.
    #[arg(
        long,
        value_name = "KEY",
        env = "PAGEWISE_API_KEY",
        hide_env_values = true,
        value_delimiter = ',',
        value_parser = clap::builder::NonEmptyStringValueParser::new()
    )]
    pub api_key: Vec<String>,
    /// Origins whose pages may read answers; several with commas; * for all.
    #[arg(long, value_name = "ORIGIN", value_delimiter = ',')]
    pub allowed_origins: Vec<String>,
    /// Take chat templates that requests bring.
    #[arg(long)]
    pub trust_request_chat_template: bool,
    /// Seconds that requests have to end when the server is told to stop.
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub drain_timeout_seconds: u64,
}

/// Format of keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvDtype {
    /// f16.
    Auto,
    /// 32 bits.
    F32,
    /// 16 bits, IEEE's.
    F16,
    /// 16 bits, the upper half of 32.
    Bf16,
    /// 8 bits with a scale for each token and head.
    Int8,
    /// 8 bits of floating point, e4m3.
    Fp8,
}

/// What of the served model guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Draft {
    /// The model without an adapter.
    Base,
}

/// Format that weights are turned into.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Quantize {
    /// As the checkpoint holds them.
    None,
    /// 8 bits in groups.
    Q8,
    /// 4 bits in groups.
    Q4,
}

/// How requests are brought together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Scheduler {
    /// They come and go at every step.
    Continuous,
}

/// How it is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

#[cfg(test)]
impl Serve {
    /// As the command line gives them.
    pub fn of(given: &[&str]) -> Self {
        let words = std::iter::once("pagewise").chain(given.iter().copied());
        match Config::read(words.map(Into::into).collect()).expect("a server's settings").task {
            Task::Serve(serve) => *serve,
            other => panic!("not a server: {other:?}"),
        }
    }
}

fn part(text: &str) -> Result<f64, String> {
    let part = text.parse().ok().filter(|part| *part > 0.0 && *part < 1.0);
    part.ok_or_else(|| "a number above 0 and below 1".to_owned())
}

fn level(name: &str) -> Result<Level, String> {
    Level::named(name).ok_or_else(|| {
        let known: Vec<&str> = Level::all().map(Level::name).collect();
        format!("this machine has {}", known.join(", "))
    })
}

fn device(name: &str) -> Result<Device, String> {
    let unknown = || "there are cpu, cuda:0 and so on, metal, auto".to_owned();
    match name {
        "cpu" => Ok(Device::Cpu),
        "auto" => Ok(Device::Auto),
        "metal" => Ok(Device::Plugin("metal", 0)),
        _ => {
            let number = name.strip_prefix("cuda:").ok_or_else(unknown)?;
            Ok(Device::Plugin("cuda", number.parse().map_err(|_| unknown())?))
        }
    }
}

/// Bytes, with or without a unit.
fn bytes(text: &str) -> Result<u64, String> {
    let at = text.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (number, unit) = (text[..at].trim(), text[at..].to_ascii_lowercase());
    let unit: f64 = match unit.as_str() {
        "" | "b" => 1.0,
        "kib" | "k" => 1024.0,
        "mib" | "m" => 1024.0 * 1024.0,
        "gib" | "g" => 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        _ => return Err("a number of bytes, or one with KiB, MiB, GiB, KB, MB or GB".into()),
    };
    let number: f64 = number.parse().map_err(|_| "a number of bytes, such as 4GiB".to_owned())?;
    let bytes = number * unit;
    if (1.0..1e18).contains(&bytes) { Ok(bytes as u64) } else { Err("at least one byte".into()) }
}

fn body_bytes(text: &str) -> Result<usize, String> {
    usize::try_from(bytes(text)?).map_err(|_| "fewer bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{bytes, read};

    #[test]
    fn the_command_line_is_consistent() {
        read::command().debug_assert();
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("1.5 kib"), Ok(1536));
        assert_eq!(bytes("2MB"), Ok(2_000_000));
        assert!(bytes("-1").is_err() && bytes("0").is_err() && bytes("3 pages").is_err());
    }
}
