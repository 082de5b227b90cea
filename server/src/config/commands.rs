//! Settings of the commands beside `serve`.

use super::{Model, Running};
use clap::Args;

/// How one answer is drawn, on the command line.
#[derive(Args, Clone, Debug)]
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
}

/// `pagewise bench`.
#[derive(Args, Clone, Debug)]
pub struct Bench {
    /// Where the server listens.
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    pub base_url: String,
    /// A key that it asks for.
    #[arg(long, value_name = "KEY", env = "PAGEWISE_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Requests in all.
    #[arg(long, value_name = "COUNT", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..))]
    pub requests: u32,
    /// Requests at a time, each client sending its next when its last has ended.
    #[arg(long, value_name = "COUNT", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub concurrency: u32,
    /// Requests that arrive in a second on average, at random, whoever has ended:
    /// instead of clients that wait.
    #[arg(long, value_name = "PER_SECOND")]
    pub rate: Option<f64>,
    /// Tokens of a prompt.
    #[arg(long, value_name = "TOKENS", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub prompt_tokens: u32,
    /// Of these, the ones that all prompts begin with.
    #[arg(long, value_name = "TOKENS", default_value_t = 0)]
    pub shared_tokens: u32,
    /// Prompts are made of tokens below this one, for a server that does not tell how
    /// a text becomes tokens as this one does.
    #[arg(long, value_name = "TOKEN", value_parser = clap::value_parser!(u32).range(1..))]
    pub token_ids_below: Option<u32>,
    /// Tokens of an answer.
    #[arg(long, value_name = "TOKENS", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: u32,
    /// Key of the prompts and of the arrivals.
    #[arg(long, default_value_t = 2026)]
    pub seed: u64,
    /// First token within so many seconds, to count as served well.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0)]
    pub ttft_within: f64,
    /// And each later one within so many milliseconds of the last.
    #[arg(long, value_name = "MS", default_value_t = 150.0)]
    pub gap_within: f64,
    /// One line of JSON instead of words.
    #[arg(long)]
    pub json: bool,
}
