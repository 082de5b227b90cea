//! Every bench once, untimed: that it runs, and that its answer is right.

use super::shell::{RELEASE, Shell};
use super::tally::Tally;

/// Runs them.
pub fn smoke(shell: &Shell) -> Result<Tally, String> {
    let words = [&["bench"], &RELEASE[..], &["--benches", "--", "--test"]].concat();
    let output = shell.run(&mut shell.cargo(&words))?;
    match output.lines().filter(|line| *line == "Success").count() as u64 {
        0 => Err(format!("{}: no bench ran", words.join(" "))),
        passed => Ok(Tally { passed, ..Tally::default() }),
    }
}
