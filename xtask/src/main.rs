//! Every check and chore of the project: `cargo xtask check` is what CI runs.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool")]

mod bench;
mod bindings;
mod bundle;
mod check;
mod cuda;
mod install;
mod kernels;
mod parity;
mod tidy;

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
    /// Everything CI checks, with the time of each stage.
    Check {
        /// Only what takes seconds once built: format, lints, facts, tests, no_std.
        #[arg(long)]
        quick: bool,
        /// Only the stages of these names.
        #[arg(long = "stage")]
        stages: Vec<String>,
    },
    /// Facts about the sources alone, in a second or two.
    Tidy,
    /// Run the benches, keep their figures, make docs/performance.md and docs/status.md.
    BenchRecord(bench::Options),
    /// Build `libpagewise` and install it, with what pkg-config and CMake read.
    Install(install::Options),
    /// Keep today's C header and programs as those of this version, which later ones run.
    ReleaseAbi,
    /// Write kernels-core's view of the parameter header anew.
    Bindings {
        /// Write nothing; fail if what is committed is not what the header says.
        #[arg(long)]
        check: bool,
    },
    /// Write what the entries of CUDA's kernels take, cuda/resources.csv, anew.
    CudaResources,
    /// Make a folder for a machine with a card: its run.sh checks and times there what only a
    /// card can show.
    GpuBundle(bundle::Options),
    /// Write the grid of kernels and forms, docs/parity.md, anew.
    Parity {
        /// Write nothing; fail if what is committed is not what the sources say.
        #[arg(long)]
        check: bool,
    },
}

fn main() {
    let outcome = match Arguments::parse().chore {
        Chore::Check { quick, stages } => check::check(&root(), quick, &stages),
        Chore::Tidy => tidy::tidy(&root()),
        Chore::BenchRecord(options) => bench::run(&root(), &options),
        Chore::Install(options) => install::run(&root(), &options),
        Chore::ReleaseAbi => install::released::keep(&root()),
        Chore::Bindings { check: false } => bindings::write(&root()),
        Chore::Bindings { check: true } => bindings::check(&root()).map(drop),
        Chore::CudaResources => check::cuda::write_resources(&root()),
        Chore::GpuBundle(options) => bundle::run(&root(), &options),
        Chore::Parity { check: false } => parity::write(&root()),
        Chore::Parity { check: true } => parity::check(&root()),
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
