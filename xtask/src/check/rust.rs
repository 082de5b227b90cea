//! Format, lints, tests and documentation of the workspace.

use super::shell::{Shell, tail};
use super::tally::Tally;
use std::collections::BTreeMap;
use std::path::PathBuf;
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
        match failures(&output) {
            said if said.is_empty() => println!("{}", tail(&output)),
            said => println!("{said}"),
        }
        tally.failed = tally.failed.max(1);
    }
    Ok(tally)
}

/// The binaries of tests that `cargo test --no-run` tells of, from its folder, by their names:
/// `Executable tests/norm.rs (target/debug/deps/norm-0123456789abcdef)`.
pub fn binaries(output: &str) -> BTreeMap<String, PathBuf> {
    let lines = output.lines().filter_map(|line| line.trim().strip_prefix("Executable tests/"));
    let named = lines.filter_map(|line| line.trim_end_matches(')').split_once(".rs ("));
    named.map(|(name, path)| (name.to_owned(), path.into())).collect()
}

/// What the tests that failed had to say, without what the others did: each binary tells
/// it between a line of its own and its result.
fn failures(output: &str) -> String {
    let mut said = String::new();
    let mut failed = false;
    for line in output.lines() {
        failed = (failed || line == "failures:") && !line.starts_with("test result: ");
        if failed || line.starts_with("test result: FAILED") || line.starts_with("error: test") {
            said.push_str(line);
            said.push('\n');
        }
    }
    said
}

#[cfg(test)]
mod tests {
    use super::{binaries, failures};
    use std::path::Path;

    #[test]
    fn what_failed_is_told_without_what_passed() {
        let output = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nsuccesses:\n\n\
                      ---- a stdout ----\nfine\n\nfailures:\n\n---- b stdout ----\nbad\n\n\
                      failures:\n    b\n\ntest result: FAILED. 1 passed; 1 failed\n\
                      running 1 test\ntest c ... ok\ntest result: ok. 1 passed\n";
        let said = failures(output);
        assert!(said.contains("bad") && said.contains("FAILED. 1 passed"), "{said}");
        assert!(!said.contains("fine") && !said.contains("test c"), "{said}");
        assert_eq!(failures("test a ... ok\ntest result: ok. 1 passed\n"), "");
    }
    #[test]
    fn binaries_of_tests_are_told_by_name_and_those_of_crates_are_not() {
        let output = "   Compiling a v0.1.0\n  Executable unittests src/lib.rs (t/a-01)\n  \
                      Executable tests/norm.rs (t/deps/norm-23)\n";
        let found = binaries(output);
        assert_eq!(found.len(), 1);
        assert_eq!(found["norm"], Path::new("t/deps/norm-23"));
    }
}
