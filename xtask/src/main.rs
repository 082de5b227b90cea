//! Every check and chore of the project: `cargo xtask check` is what CI runs.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bindings;
mod mutations;

use clap::{Parser, Subcommand};
use std::path::PathBuf;

/// The checks and chores of the project.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Break constants of the contracts on purpose; each must turn a test red.
    Mutations,
    /// Write kernels-core's view of the parameter header anew.
    Bindings {
        /// Write nothing; fail if what is committed is not what the header says.
        #[arg(long)]
        check: bool,
    },
}

fn main() {
    let outcome = match Arguments::parse().chore {
        Chore::Bindings { check: false } => bindings::write(&root()),
        Chore::Mutations => mutations::run(&root()).map(drop),
        Chore::Bindings { check: true } => bindings::check(&root()),
    };
    if let Err(message) = outcome {
        eprintln!("{message}");
        std::process::exit(1);
    }
}

/// The root of the checkout: where cargo found this package's manifest.
fn root() -> PathBuf {
    let manifest = std::env::var_os("CARGO_MANIFEST_DIR");
    let manifest = manifest.map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    manifest.parent().expect("xtask lies in the root").to_owned()
}
