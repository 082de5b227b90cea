//! Each fuzz target for ten seconds, from its committed corpus. What it finds is a
//! file under `fuzz/artifacts/`; the committed corpora also replay in the tests.

use super::shell::Shell;
use super::tally::Tally;

const SECONDS: u32 = 10;
/// The kernels are most of the build: one unit of them would leave all cores but one idle.
const UNITS: [&str; 2] = ["--codegen-units", "2"];
/// A run goes the way of the last one, so that a change is told by what it breaks.
const SEED: u32 = 2026;

/// Runs them.
pub fn smoke(shell: &Shell) -> Result<Tally, String> {
    if let Err(by_hand) = super::miri::nightly(shell) {
        return Ok(Tally::skipped(format!("nightly is not here: {by_hand}")));
    }
    let has = shell.attempt(&mut shell.cargo(&["+nightly", "fuzz", "--version"]));
    if !has.is_ok_and(|(has, _)| has) {
        let install = ["install", "cargo-fuzz", "--locked"];
        if !matches!(shell.attempt(&mut shell.cargo(&install)), Ok((true, _))) {
            return Ok(Tally::skipped(format!("no fuzzer: cargo {}", install.join(" "))));
        }
    }
    shell.run(shell.cargo(&["+nightly", "fuzz", "build"]).args(UNITS))?;
    let mut tally = Tally::default();
    for outcome in shell.side_by_side(&targets(shell)?, fuzz) {
        match outcome {
            Ok(()) => tally.passed += 1,
            Err(message) => {
                tally.failed += 1;
                println!("{message}");
            }
        }
    }
    Ok(tally)
}

/// Fuzzes one target.
fn fuzz(shell: &Shell, target: &str) -> Result<(), String> {
    // What the fuzzer finds on the way stays out of the committed corpus.
    let found = shell.target.join("check/fuzz").join(target);
    std::fs::create_dir_all(&found).map_err(|error| format!("{target}: {error}"))?;
    let mut command = shell.cargo(&["+nightly", "fuzz", "run"]);
    command.args(UNITS).arg(target).arg(found).arg(format!("fuzz/corpus/{target}")).arg("--");
    command.arg(format!("-max_total_time={SECONDS}")).arg(format!("-seed={SEED}"));
    command.arg("-max_len=4096");
    shell.run(&mut command).map(drop)
}

/// The names of the targets.
fn targets(shell: &Shell) -> Result<Vec<String>, String> {
    let folder = shell.root.join("fuzz/fuzz_targets");
    let files = std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let names = files.flatten().filter_map(|file| {
        let name = file.file_name().to_string_lossy().into_owned();
        name.strip_suffix(".rs").map(str::to_owned)
    });
    let mut names: Vec<String> = names.collect();
    names.sort();
    Ok(names)
}
