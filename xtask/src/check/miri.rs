//! Undefined behaviour, looked for by Miri where `unsafe` stands and in the scalar
//! forms, on inputs of at most 64 elements.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;

/// Runs them: the unit tests of kernels-core and backends, then `tests/tests/small.rs`.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    if let Err(by_hand) = nightly(shell) {
        return Ok(Tally::skipped(format!("nightly's miri is not here: {by_hand}")));
    }
    let units = ["--package", "pagewise-kernels-core", "--package", "pagewise-backends", "--lib"];
    let units = run(shell, &units)?;
    let small = run(shell, &["--package", "pagewise-tests", "--test", "small"])?;
    Ok(Tally {
        passed: units.passed + small.passed,
        failed: units.failed + small.failed,
        skipped: [units.skipped, small.skipped].concat(),
    })
}

fn run(shell: &Shell, words: &[&str]) -> Result<Tally, String> {
    let mut command = shell.cargo(&["+nightly", "miri", "test", "--locked"]);
    command.arg("--target-dir").arg(shell.target.join("miri"));
    count(shell, command.args(words).args(["--", "--show-output"]))
}

/// Sees to a nightly toolchain with Miri; or says what to do.
pub fn nightly(shell: &Shell) -> Result<(), String> {
    let by_hand = "rustup toolchain install nightly --profile minimal -c miri -c rust-src";
    let has = shell.attempt(&mut shell.cargo(&["+nightly", "miri", "--version"]));
    if has.is_ok_and(|(has, _)| has) {
        return Ok(());
    }
    let mut install = shell.tool("rustup");
    install.args(by_hand.split(' ').skip(1));
    match shell.attempt(&mut install) {
        Ok((true, _)) => Ok(()),
        _ => Err(by_hand.to_owned()),
    }
}
