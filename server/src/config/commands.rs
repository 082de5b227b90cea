//! Settings of the commands beside `serve`.

use super::{Machine, Model, Place, Running};
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// How one answer is drawn, on the command line.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Answer")]
pub struct Drawing {
    /// Tokens of an answer.
    #[arg(long, value_name = "TOKENS", default_value_t = 128)]
    pub max_tokens: u32,
    /// 0 takes the most likely token each time.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f32,
    /// Key of the noise.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// `pagewise complete`.
#[derive(Args, Clone, Debug)]
pub struct Complete {
    /// What to go on from.
    pub prompt: String,
    /// Send it as a message, by the model's chat template.
    #[arg(long)]
    pub chat: bool,
    /// Which model.
    #[command(flatten)]
    pub model: Model,
    /// How it is drawn.
    #[command(flatten)]
    pub drawing: Drawing,
    /// How it is run.
    #[command(flatten)]
    pub running: Running,
    /// Where it is run.
    #[command(flatten)]
    pub machine: Machine,
}

/// `pagewise chat`.
#[derive(Args, Clone, Debug)]
pub struct Talk {
    /// Which model.
    #[command(flatten)]
    pub model: Model,
    /// What the model is told before.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// How it is drawn.
    #[command(flatten)]
    pub drawing: Drawing,
    /// How it is run.
    #[command(flatten)]
    pub running: Running,
    /// Where it is run.
    #[command(flatten)]
    pub machine: Machine,
}

/// `pagewise info`.
#[derive(Args, Clone, Debug)]
pub struct Info {
    /// Which model.
    #[command(flatten)]
    pub model: Model,
    /// How it would be run.
    #[command(flatten)]
    pub running: Running,
    /// Where it would be run.
    #[command(flatten)]
    pub place: Place,
}

/// A server that runs already.
#[derive(Args, Clone, Debug)]
pub struct Remote {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:8000", help_heading = "Server")]
    pub base_url: String,
    /// What opens it.
    #[command(flatten)]
    pub key: Key,
}

/// What opens a server.
#[derive(Args, Clone, Debug)]
pub struct Key {
    /// A key that it asks for.
    #[arg(
        long,
        value_name = "KEY",
        env = "PAGEWISE_API_KEY",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub api_key: Option<String>,
}

/// `pagewise bench`.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// Whom it asks.
    #[command(flatten)]
    pub remote: Remote,
    /// Models, or adapters, that requests ask for in turn, with commas between; what the server
    /// lists first, if not given.
    #[arg(long, value_name = "NAME", value_delimiter = ',', help_heading = "Load")]
    pub models: Vec<String>,
    /// Requests in all.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub requests: u32,
    /// Requests at a time, each client sending its next when its last has ended.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096), help_heading = "Load")]
    pub concurrency: u32,
    /// Requests that arrive in a second on average, at random, whoever has ended:
    /// instead of clients that wait.
    #[arg(long, value_name = "PER_SECOND", help_heading = "Load")]
    pub rate: Option<f64>,
    /// Tokens of a prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub prompt_tokens: u32,
    /// Of these, the ones that all prompts begin with.
    #[arg(long, value_name = "TOKENS", default_value_t = 0, help_heading = "Load")]
    pub shared_tokens: u32,
    /// Prompts are made of tokens below this one, for a server that does not tell how
    /// a text becomes tokens as this one does.
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub token_ids_below: Option<u32>,
    /// Tokens of an answer.
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..), help_heading = "Load")]
    pub max_tokens: u32,
    /// Fields of every request besides: a grammar, processors.
    #[arg(long, value_name = "JSON", value_parser = object, help_heading = "Load")]
    pub extra_body: Option<serde_json::Map<String, serde_json::Value>>,
    /// Key of the prompts and of the arrivals.
    #[arg(long, default_value_t = 2026, help_heading = "Load")]
    pub seed: u64,
    /// First token within so many seconds, to count as served well.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, help_heading = "Report")]
    pub ttft_within: f64,
    /// And each later one within so many milliseconds of the last.
    #[arg(long, value_name = "MS", default_value_t = 150.0, help_heading = "Report")]
    pub gap_within: f64,
    /// One line of JSON instead of words.
    #[arg(long, help_heading = "Report")]
    pub json: bool,
}

/// An object of JSON.
fn object(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, String> {
    serde_json::from_str(text).map_err(|error| format!("an object of JSON: {error}"))
}

/// `pagewise replay`.
#[derive(Args, Clone, Debug)]
pub struct Replay {
    /// Trajectories as they are exported: one JSON object in a line.
    pub file: PathBuf,
    /// Whom it asks.
    #[command(flatten)]
    pub remote: Remote,
}

/// `pagewise doctor`.
#[derive(Args, Clone, Debug)]
pub struct Doctor {
    /// Where the server listens.
    pub url: String,
    /// Whose calls are made.
    #[arg(long = "as", value_name = "TRAINER", value_enum)]
    pub trainer: Trainer,
    /// What opens the server.
    #[command(flatten)]
    pub key: Key,
    /// An adapter (PEFT) to publish, where the server reads it; one that changes nothing is
    /// made, if not given, where the model's files are on this machine: this user's processes
    /// alone read that one.
    #[arg(long, value_name = "FOLDER", help_heading = "Step")]
    pub adapter: Option<PathBuf>,
    /// The checkpoint that is served, where the server reads it: it is published anew, by the
    /// trainers that publish whole weights from a folder.
    #[arg(long, value_name = "FOLDER", help_heading = "Step")]
    pub weights: Option<PathBuf>,
    /// Seconds that a reply may take.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=86_400), help_heading = "Step")]
    pub timeout_seconds: u64,
    /// Lines of JSON instead of words.
    #[arg(long, help_heading = "Report")]
    pub json: bool,
}

/// A trainer whose calls are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Trainer {
    /// TRL: its client of vLLM, and asynchronous GRPO.
    Trl,
    /// prime-rl, with renderers and verifiers.
    PrimeRl,
    /// SkyRL.
    #[value(name = "skyrl")]
    SkyRl,
    /// slime.
    Slime,
}
