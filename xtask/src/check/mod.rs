//! `cargo xtask check`: stages one after the other, each timed; a table; and the
//! line that CI reads. A skip that `xtask/allowed-skips.txt` does not list fails.

mod abi;
mod bare;
mod benches;
mod clients;
pub mod cuda;
mod emulator;
mod fuzz;
mod headers;
mod metal;
mod miri;
mod mutations;
mod neon;
pub mod plugin;
mod rust;
pub mod shell;
mod skips;
mod symbols;
mod tally;

use shell::Shell;
use skips::Allowed;
use std::path::Path;
use std::time::{Duration, Instant};
use tally::Tally;

/// A stage: its name, whether `--quick` runs it, and what it does.
struct Stage {
    name: &'static str,
    quick: bool,
    run: fn(&Shell) -> Result<Tally, String>,
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", quick: true, run: rust::fmt },
    Stage { name: "tidy", quick: true, run: tidy },
    Stage { name: "bindings", quick: true, run: headers::bindings },
    Stage { name: "header", quick: true, run: headers::compile },
    Stage { name: "clippy", quick: true, run: rust::clippy },
    Stage { name: "tests", quick: true, run: rust::tests },
    Stage { name: "abi", quick: true, run: abi::check },
    Stage { name: "no_std", quick: true, run: bare::build },
    Stage { name: "docs", quick: false, run: rust::docs },
    Stage { name: "symbols", quick: false, run: symbols::check },
    Stage { name: "cuda", quick: false, run: cuda::check },
    Stage { name: "metal", quick: false, run: metal::check },
    Stage { name: "neon", quick: false, run: neon::tests },
    Stage { name: "emulator", quick: false, run: emulator::tests },
    Stage { name: "miri", quick: false, run: miri::tests },
    Stage { name: "mutations", quick: false, run: mutations::tests },
    Stage { name: "fuzz", quick: false, run: fuzz::smoke },
    Stage { name: "benches", quick: false, run: benches::smoke },
    Stage { name: "clients", quick: false, run: clients::tests },
    Stage { name: "torch", quick: false, run: clients::torch },
];

/// What came of a stage.
struct Outcome {
    name: &'static str,
    took: Duration,
    tally: Tally,
}

/// Runs the stages asked for; an error if anything failed.
pub fn check(root: &Path, quick: bool, only: &[String]) -> Result<(), String> {
    if let Some(unknown) = only.iter().find(|name| !STAGES.iter().any(|s| s.name == **name)) {
        let names: Vec<&str> = STAGES.iter().map(|stage| stage.name).collect();
        return Err(format!("no stage is called {unknown}: there are {}", names.join(", ")));
    }
    let allowed = Allowed::read(root)?;
    let asked = |stage: &&Stage| match only {
        [] => stage.quick || !quick,
        only => only.iter().any(|name| name == stage.name),
    };
    let outcomes: Vec<Outcome> =
        STAGES.iter().filter(asked).map(|stage| outcome(root, stage, &allowed)).collect();
    print_table(&outcomes);
    let sum = |count: fn(&Tally) -> u64| outcomes.iter().map(|o| count(&o.tally)).sum::<u64>();
    let failed = sum(|tally| tally.failed);
    let skipped = sum(|tally| tally.skipped.len() as u64);
    println!("{} passed, {failed} failed, {skipped} skipped", sum(|tally| tally.passed));
    // The line above is the last: the exit status says the rest.
    if failed > 0 { std::process::exit(1) } else { Ok(()) }
}

fn outcome(root: &Path, stage: &Stage, allowed: &Allowed) -> Outcome {
    println!("== {}", stage.name);
    let start = Instant::now();
    let mut tally = match Shell::new(root, stage.name).and_then(|shell| (stage.run)(&shell)) {
        Ok(tally) => tally,
        Err(message) => {
            println!("{message}");
            Tally { failed: 1, ..Tally::default() }
        }
    };
    for skip in &mut tally.skipped {
        *skip = format!("{}: {skip}", stage.name);
        match allowed.reason(skip) {
            Some(reason) => println!("skipped: {skip} (allowed: {reason})"),
            None => {
                println!("skipped: {skip}: {} does not list it", skips::LIST);
                tally.failed += 1;
            }
        }
    }
    Outcome { name: stage.name, took: start.elapsed(), tally }
}

fn print_table(outcomes: &[Outcome]) {
    println!("\n{:<10} {:>8} {:>8} {:>7} {:>8}", "stage", "seconds", "passed", "failed", "skipped");
    for Outcome { name, took, tally } in outcomes {
        let (seconds, skipped) = (took.as_secs_f64(), tally.skipped.len());
        println!("{name:<10} {seconds:>8.1} {:>8} {:>7} {skipped:>8}", tally.passed, tally.failed);
    }
    let whole: f64 = outcomes.iter().map(|outcome| outcome.took.as_secs_f64()).sum();
    println!("{:<10} {whole:>8.1}\n", "all");
}

fn tidy(shell: &Shell) -> Result<Tally, String> {
    let broken = crate::tidy::broken(&shell.root)?;
    for fault in &broken {
        println!("{fault}");
    }
    let failed = broken.len() as u64;
    Ok(Tally { passed: crate::tidy::rules() - failed, failed, ..Tally::default() })
}
