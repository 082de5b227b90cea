//! The `pagewise` binary.

mod backend;
mod config;
mod demo;

use config::{Config, Task};
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    let Config { machine, task } = Config::from_args();
    let mut out = io::stdout().lock();
    let outcome = match task {
        Task::Demo => demo::run(&machine, &mut out),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads has seen enough.
        Err(demo::Failure::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            ExitCode::SUCCESS
        }
        Err(failure) => {
            // Nowhere is left to say that standard error is closed.
            let _ = writeln!(io::stderr(), "pagewise: {failure}");
            ExitCode::FAILURE
        }
    }
}
