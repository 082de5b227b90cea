//! Format, lints, tests and documentation of the workspace.

use super::shell::{Shell, tail};
use super::tally::Tally;
use std::process::Command;

/// Every file is formatted.
pub fn fmt(shell: &Shell) -> Result<Tally, String> {
    shell.run(&mut shell.cargo(&["fmt", "--all", "--check"]))?;
    Ok(Tally::passed())
}

/// No warning of the compiler or clippy, anywhere.
pub fn clippy(shell: &Shell) -> Result<Tally, String> {
    let words = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
    shell.run(&mut shell.cargo(&words))?;
    Ok(Tally::passed())
}

/// Every test of the workspace; documentation has its own stage.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    let words = ["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"];
    count(shell, shell.cargo(&words).args(["--", "--show-output"]))
}

/// Documentation builds without a warning, and its examples run.
pub fn docs(shell: &Shell) -> Result<Tally, String> {
    let words = ["doc", "--locked", "--workspace", "--no-deps", "--document-private-items"];
    shell.run(shell.cargo(&words).env("RUSTDOCFLAGS", "-D warnings"))?;
    let mut tally = count(shell, &mut shell.cargo(&["test", "--locked", "--workspace", "--doc"]))?;
    tally.passed += 1;
    Ok(tally)
}

/// Runs tests and counts them. A run that ends badly has failed even where no test did.
pub fn count(shell: &Shell, command: &mut Command) -> Result<Tally, String> {
    let (succeeded, output) = shell.attempt(command)?;
    let mut tally = Tally::of_tests(&output);
    if !succeeded {
        println!("{}", tail(&output));
        tally.failed = tally.failed.max(1);
    }
    Ok(tally)
}
