//! The `pagewise` binary.

mod adapters;
mod aside;
mod atropos;
mod backend;
mod checkpoints;
mod command;
mod config;
mod deadline;
mod demo;
mod episodes;
mod grpc;
mod http;
mod hub;
mod metrics;
mod openai;
mod page;
mod rollouts;
mod runtime;
mod served;
mod sglang;
mod text;
mod vllm;
mod weights;

use command::Failure;
use config::{Config, Task};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Config { task, told } = Config::from_args();
    let mut out = io::stdout().lock();
    let outcome = match &task {
        Task::Serve(settings) => command::serve::run(settings, &told, &mut out),
        Task::Complete(settings) => command::complete::run(settings, &settings.machine, &mut out),
        Task::Chat(settings) => command::chat::run(settings, &settings.machine, &mut out),
        Task::Info(settings) => command::info::run(settings, &mut out),
        Task::Bench(settings) => command::bench::run(settings, &mut out),
        Task::Replay(settings) => command::replay::run(settings, &mut out),
        Task::Doctor(settings) => command::doctor::run(settings, &mut out),
        Task::Demo(machine) => demo::run(machine, &mut out).map_err(Failure::from),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(Failure::Stream(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // Nowhere is left to say that standard error is closed.
            let _ = writeln!(io::stderr(), "pagewise: {failure}");
            failure.code()
        }
    }
}
