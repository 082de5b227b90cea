//! Every bench once, untimed: that it runs, and that its answer is right.

use super::shell::Shell;
use super::tally::Tally;

/// Runs them.
pub fn smoke(shell: &Shell) -> Result<Tally, String> {
    let words = ["bench", "--locked", "--package", "pagewise-benches", "--benches", "--", "--test"];
    let output = shell.run(&mut shell.cargo(&words))?;
    let passed = output.lines().filter(|line| *line == "Success").count() as u64;
    Ok(Tally { passed: passed.max(1), ..Tally::default() })
}
