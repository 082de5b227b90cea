//! Every setting, and the one place that reads them.

use clap::{Args, Parser, Subcommand};
use kernels_core::simd::Level;

/// What to do, and with what.
pub struct Config {
    /// The machine's part in it.
    pub machine: Machine,
    /// What to do.
    pub task: Task,
}

/// What to do.
#[derive(Clone, Copy, Debug)]
pub enum Task {
    /// Show the kernels at work.
    Demo,
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

/// Serves language models for rollouts; until it does, shows its kernels at work.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    #[command(flatten)]
    machine: Machine,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Check and time the kernels on this machine; the default.
    Demo,
}

impl Config {
    /// From the command line; prints help and ends the process if it asks for that.
    pub fn from_args() -> Self {
        let Arguments { machine, command } = Arguments::parse();
        let task = match command {
            None | Some(Command::Demo) => Task::Demo,
        };
        Self { machine, task }
    }
}

fn level(name: &str) -> Result<Level, String> {
    Level::named(name).ok_or_else(|| {
        let known: Vec<&str> = Level::all().map(Level::name).collect();
        format!("this machine has {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use super::Arguments;
    use clap::{CommandFactory, Parser};

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn without_a_command_the_settings_still_count() {
        let given = Arguments::parse_from(["pagewise", "--threads", "3", "--level", "scalar"]);
        assert!(given.command.is_none());
        assert_eq!(given.machine.threads(), 3);
        assert_eq!(given.machine.level().name(), "scalar");
        assert!(Arguments::try_parse_from(["pagewise", "--level", "abacus"]).is_err());
    }
}
