//! Every setting, and the one place that reads command line, file and environment.

mod commands;
mod file;

pub use commands::{Bench, Complete, Drawing, Info, Talk};

use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use engine::engine::Settings;
use kernels_core::simd::Level;
use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;

/// What to do, and with what.
#[derive(Debug)]
pub struct Config {
    /// The machine's part in it.
    pub machine: Machine,
    /// What to do.
    pub task: Task,
}

/// The part of the machine that is used.
#[derive(Args, Clone, Debug, Default)]
pub struct Machine {
    /// Threads of the kernels; all that there are, if not given.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024), global = true)]
    threads: Option<u32>,
    /// Instructions of the kernels: scalar, avx2, avx512 or neon; the best this
    /// machine has, if not given.
    #[arg(long, value_parser = level, global = true)]
    level: Option<Level>,
}

impl Machine {
    /// Threads of the kernels.
    pub fn threads(&self) -> u32 {
        let all = || std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        self.threads.unwrap_or_else(all)
    }

    /// Instructions of the kernels.
    pub fn level(&self) -> Level {
        self.level.unwrap_or_else(Level::best)
    }
}

/// Serves language models to OpenAI's clients, for rollouts.
///
/// Where no command stands before its settings it serves, and where no model is named
/// either, the model in the box.
#[derive(Parser)]
#[command(name = "pagewise", version, args_override_self = true)]
struct Arguments {
    #[command(flatten)]
    machine: Machine,
    /// A YAML or TOML file with settings, by the names they have here; the command line
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
    /// Check and time a kernel on this machine.
    Demo,
}

/// Which model, and where it comes from.
#[derive(Args, Clone, Debug)]
pub struct Model {
    /// A folder with a checkpoint, or its name on the Hugging Face hub; the model in the
    /// box, if not given.
    #[arg(value_name = "MODEL", conflicts_with = "model_path")]
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
    /// Tokens of a prompt with its answer; what the model was made for, if not given.
    #[arg(long, value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_model_len: Option<u32>,
    /// Memory for keys and values, such as 4GiB; part of what is free, if not given.
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
}

/// A server's settings.
#[derive(Args, Clone, Debug)]
pub struct Serve {
    /// Which model.
    #[command(flatten)]
    pub model: Model,
    /// The name that clients ask for; the folder's, if not given.
    #[arg(long, value_name = "NAME")]
    pub served_model_name: Option<String>,
    /// Address to listen at.
    #[arg(long, default_value = "127.0.0.1")]
    pub host: IpAddr,
    /// Port to listen at; 0 takes a free one.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// How it is run.
    #[command(flatten)]
    pub running: Running,
    /// Milliseconds that an idle engine waits for more requests after the first.
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=60_000))]
    pub batch_timeout: u64,
    /// How requests are brought together.
    #[arg(long, value_enum, default_value_t = Scheduler::Continuous)]
    pub scheduler: Scheduler,
    /// Bounds on clients.
    #[command(flatten)]
    pub limits: Limits,
    /// What is logged: error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: tracing::level_filters::LevelFilter,
    /// How it is logged.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// Bounds on clients.
#[derive(Args, Clone, Debug)]
pub struct Limits {
    /// Seconds after which a request ends with what it has; 0: none.
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub request_timeout_seconds: u64,
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

impl Config {
    /// From command line, file and environment; prints help or what is wrong, and ends
    /// the process, if there is such.
    pub fn from_args() -> Self {
        match Self::read(std::env::args_os().collect()) {
            Ok(config) => config,
            Err(error) => error.exit(),
        }
    }

    fn read(mut given: Vec<OsString>) -> Result<Self, clap::Error> {
        let at = command_at(&given);
        if given.get(at).is_none_or(begins_settings) {
            given.insert(at, "serve".into());
        }
        let mut arguments = Arguments::try_parse_from(&given)?;
        if let Some(path) = &arguments.config {
            // Those given go before the file's, lists too.
            let said = |option: &OsString| {
                let name = option_name(option);
                given.iter().any(|word| option_name(word) == name)
            };
            let mut settings = file::arguments(path)?;
            settings.retain(|option| !said(option));
            given.splice(at + 1..at + 1, settings);
            arguments = Arguments::try_parse_from(&given)?;
        }
        let task = arguments.task.expect("there is a command");
        Ok(Self { machine: arguments.machine, task })
    }
}

/// Where the command stands, or would stand: after the options that all commands take.
fn command_at(given: &[OsString]) -> usize {
    let command = Arguments::command();
    let common = |name: &str| {
        let mut options = command.get_arguments().filter(|option| option.is_global_set());
        options.any(|option| option.get_long() == name.strip_prefix("--"))
    };
    let mut at = 1;
    while let Some(word) = given.get(at).and_then(|word| word.to_str()) {
        at += match word.split_once('=') {
            Some((name, _)) if common(name) => 1,
            None if common(word) => 2,
            _ => break,
        };
    }
    at.min(given.len())
}

/// A word without what follows its `=`.
fn option_name(word: &OsString) -> String {
    let word = word.to_string_lossy();
    word.split_once('=').map_or(&*word, |(name, _)| name).to_owned()
}

/// Whether a word where a command is expected is one of settings: neither a command, nor
/// what might have been meant for one, nor a question about all commands.
fn begins_settings(word: &OsString) -> bool {
    let word = word.to_string_lossy();
    word.starts_with('-') && !["-h", "--help", "-V", "--version"].contains(&&*word)
}

fn level(name: &str) -> Result<Level, String> {
    Level::named(name).ok_or_else(|| {
        let known: Vec<&str> = Level::all().map(Level::name).collect();
        format!("this machine has {}", known.join(", "))
    })
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
    use super::{Arguments, Config, Serve, Task, bytes};
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn read(given: &[&str]) -> Result<Config, clap::Error> {
        let words = std::iter::once("pagewise").chain(given.iter().copied());
        Config::read(words.map(Into::into).collect())
    }

    fn serve(given: &[&str]) -> Serve {
        match read(given).expect("a server's settings").task {
            Task::Serve(serve) => *serve,
            other => panic!("not a server: {other:?}"),
        }
    }

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_a_command_it_serves_and_the_settings_still_count() {
        let given = read(&["--threads", "3", "--level", "scalar"]).expect("settings");
        assert!(matches!(given.task, Task::Serve(_)));
        assert_eq!((given.machine.threads(), given.machine.level().name()), (3, "scalar"));
        assert!(read(&["--level", "abacus"]).is_err());
    }

    #[test]
    fn settings_without_a_command_are_those_of_serve() {
        let port = |given: &[&str]| serve(given).port;
        assert_eq!(port(&["--port", "9000"]), 9000);
        assert_eq!(port(&["--port=9000", "--threads", "3"]), 9000);
        assert_eq!(port(&["--threads=3", "--level", "scalar", "--port", "9000"]), 9000);
        // Neither is a command: a value of a setting.
        let named = serve(&["--served-model-name", "chat", "--model-path", "info"]);
        assert_eq!(named.served_model_name.as_deref(), Some("chat"));
        assert_eq!(named.model.name(), Some("info"));
        // What is wrong is said of the setting.
        let wrong = read(&["--port", "many"]).expect_err("no number");
        assert!(wrong.to_string().contains("'--port <PORT>'"), "{wrong}");
        let wrong = read(&["--prot", "9000"]).expect_err("a slip");
        assert!(wrong.to_string().contains("'--port'"), "{wrong}");
    }

    #[test]
    fn a_command_that_there_is_not_is_no_model() {
        let wrong = read(&["severe", "--port", "9000"]).expect_err("a slip");
        assert_eq!(wrong.kind(), ErrorKind::InvalidSubcommand);
        assert!(wrong.to_string().contains("'serve'"), "{wrong}");
        // Of other commands the settings are their own.
        let wrong = read(&["chat", "--port", "9000"]).expect_err("a server's");
        assert_eq!(wrong.kind(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn questions_about_all_commands_are_answered() {
        for (word, kind) in [
            ("--help", ErrorKind::DisplayHelp),
            ("-h", ErrorKind::DisplayHelp),
            ("--version", ErrorKind::DisplayVersion),
            ("-V", ErrorKind::DisplayVersion),
        ] {
            let told = read(&["--threads", "3", word]).expect_err("no task");
            assert_eq!(told.kind(), kind);
            assert!(!told.to_string().contains("--port"), "{told}");
        }
        let told = read(&["--port", "9000", "--help"]).expect_err("no task");
        assert!(told.to_string().contains("--port"), "of a server's settings: {told}");
    }

    #[test]
    fn a_model_is_named_by_place_or_option_but_not_both() {
        assert_eq!(serve(&["serve", "m"]).model.name(), Some("m"));
        assert_eq!(serve(&["serve", "--model-path", "m"]).model.name(), Some("m"));
        assert!(read(&["serve", "m", "--model-path", "n"]).is_err());
    }

    #[test]
    fn a_key_is_never_empty() {
        for keys in ["", "secret,", ",secret"] {
            assert!(read(&["serve", "--api-key", keys]).is_err(), "{keys}");
        }
    }

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("4GiB"), Ok(4 << 30));
        assert_eq!(bytes("1.5 kib"), Ok(1536));
        assert_eq!(bytes("2MB"), Ok(2_000_000));
        assert!(bytes("-1").is_err() && bytes("0").is_err() && bytes("3 pages").is_err());
    }

    #[test]
    fn a_file_has_the_same_names_and_the_command_line_comes_first() {
        let folder = std::env::temp_dir().join(format!("pagewise-config-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let yaml = folder.join("a.yaml");
        std::fs::write(&yaml, "port: 1234\nmax_batch_size: 5\napi-key: [a, b]\nhost: 0.0.0.0\n")
            .expect("a file");
        let toml = folder.join("a.toml");
        std::fs::write(
            &toml,
            "port = 1234\nmax-batch-size = 5\napi-key = [\"a\", \"b\"]\nhost = \"0.0.0.0\"\n",
        )
        .expect("a file");
        for path in [&yaml, &toml] {
            let path = path.to_str().expect("plain");
            let read = serve(&["serve", "--port", "99", "--config", path]);
            assert_eq!((read.port, read.running.max_batch_size), (99, 5), "{path}");
            assert_eq!(read.limits.api_key, ["a", "b"]);
            assert!(read.host.is_unspecified());
            let read = serve(&["serve", "--api-key", "c", "--config", path]);
            assert_eq!(read.limits.api_key, ["c"], "{path}: the file's keys open no longer");
        }
        std::fs::write(&toml, "prot = 1\n").expect("a file");
        let wrong = read(&["--config", toml.to_str().expect("plain")]).expect_err("a slip");
        assert!(wrong.to_string().contains("prot"));
        std::fs::remove_dir_all(&folder).expect("removed");
    }
}
