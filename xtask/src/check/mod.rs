//! `cargo xtask check`: stages one after the other, and beside them those that build in
//! folders of their own, each timed; a table; and the line that CI reads. A skip that
//! `xtask/allowed-skips.txt` does not list fails.

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
use std::thread;
use std::time::{Duration, Instant};
use tally::Tally;

/// A stage: its name, when it runs, and what it does.
struct Stage {
    name: &'static str,
    runs: Runs,
    run: fn(&Shell) -> Result<Tally, String>,
}

/// When a stage runs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Runs {
    /// With `--quick` too, after the stage before it.
    Quick,
    /// After the stage before it.
    InTurn,
    /// Beside those, after the stage before it that does: it builds in folders of its own, and
    /// one stage alone leaves a core idle for a third of its time.
    Beside,
}

const STAGES: &[Stage] = &[
    Stage { name: "fmt", runs: Runs::Quick, run: rust::fmt },
    Stage { name: "tidy", runs: Runs::Quick, run: tidy },
    Stage { name: "bindings", runs: Runs::Quick, run: headers::bindings },
    Stage { name: "header", runs: Runs::Quick, run: headers::compile },
    Stage { name: "clippy", runs: Runs::Quick, run: rust::clippy },
    Stage { name: "tests", runs: Runs::Quick, run: rust::tests },
    Stage { name: "abi", runs: Runs::Quick, run: abi::check },
    Stage { name: "no_std", runs: Runs::Quick, run: bare::build },
    Stage { name: "docs", runs: Runs::InTurn, run: rust::docs },
    Stage { name: "symbols", runs: Runs::Beside, run: symbols::check },
    Stage { name: "metal", runs: Runs::InTurn, run: metal::check },
    Stage { name: "neon", runs: Runs::InTurn, run: neon::tests },
    Stage { name: "emulator", runs: Runs::InTurn, run: emulator::tests },
    Stage { name: "miri", runs: Runs::Beside, run: miri::tests },
    Stage { name: "mutations", runs: Runs::Beside, run: mutations::tests },
    Stage { name: "fuzz", runs: Runs::Beside, run: fuzz::smoke },
    Stage { name: "cuda", runs: Runs::Beside, run: cuda::check },
    Stage { name: "benches", runs: Runs::InTurn, run: benches::smoke },
    Stage { name: "clients", runs: Runs::InTurn, run: clients::tests },
    Stage { name: "torch", runs: Runs::InTurn, run: clients::torch },
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
    let start = Instant::now();
    let asked = |stage: &&Stage| match only {
        [] => stage.runs == Runs::Quick || !quick,
        only => only.iter().any(|name| name == stage.name),
    };
    let (beside, in_turn): (Vec<&Stage>, Vec<&Stage>) =
        STAGES.iter().filter(asked).partition(|stage| stage.runs == Runs::Beside);
    let run = |stages: Vec<&Stage>| -> Vec<Outcome> {
        stages.into_iter().map(|stage| outcome(root, stage, &allowed)).collect()
    };
    let outcomes = thread::scope(|scope| {
        let beside = scope.spawn(|| run(beside));
        let mut outcomes = run(in_turn);
        outcomes.extend(beside.join().expect("a stage that fails says so"));
        outcomes
    });
    print_table(&outcomes, start.elapsed());
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
    let took = start.elapsed();
    println!("== {}: {:.0} s, {} failed", stage.name, took.as_secs_f64(), tally.failed);
    Outcome { name: stage.name, took, tally }
}

fn print_table(outcomes: &[Outcome], whole: Duration) {
    println!("\n{:<10} {:>8} {:>8} {:>7} {:>8}", "stage", "seconds", "passed", "failed", "skipped");
    for Outcome { name, took, tally } in outcomes {
        let (seconds, skipped) = (took.as_secs_f64(), tally.skipped.len());
        println!("{name:<10} {seconds:>8.1} {:>8} {:>7} {skipped:>8}", tally.passed, tally.failed);
    }
    println!("{:<10} {:>8.1}\n", "all", whole.as_secs_f64());
}

fn tidy(shell: &Shell) -> Result<Tally, String> {
    let broken = crate::tidy::broken(&shell.root)?;
    for fault in &broken {
        println!("{fault}");
    }
    let failed = broken.len() as u64;
    Ok(Tally { passed: crate::tidy::rules() - failed, failed, ..Tally::default() })
}
