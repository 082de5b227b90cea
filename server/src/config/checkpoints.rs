//! Settings of the archive of versions.

use checkpoint::archive::Settings;
use clap::{Args, ValueEnum};
use std::path::PathBuf;

/// Versions that outlive the server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Checkpoints")]
pub struct Checkpoints {
    /// The folder that keeps versions of adapters, and of weights that came in requests; if
    /// not given, none are kept.
    #[arg(long, value_name = "DIR")]
    pub checkpoint_dir: Option<PathBuf>,
    /// Every so many versions of a name one is saved by itself; 0 saves none but on request.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    pub checkpoint_every: u64,
    /// So many of the newest of each name are kept, and the best beside them; 0 keeps all.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    checkpoint_keep: u32,
    /// Which metric is the better one.
    #[arg(long, value_enum, default_value_t = Better::Higher)]
    checkpoint_better: Better,
    /// Serve the latest of every name from the start.
    #[arg(long)]
    pub checkpoint_resume: bool,
}

/// Which of two metrics is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Better {
    /// As of rewards.
    Higher,
    /// As of losses.
    Lower,
}

impl Checkpoints {
    /// As the archive takes them.
    pub fn settings(&self) -> Settings {
        let better = match self.checkpoint_better {
            Better::Higher => checkpoint::archive::Better::Higher,
            Better::Lower => checkpoint::archive::Better::Lower,
        };
        Settings { keep: self.checkpoint_keep, better }
    }
}
