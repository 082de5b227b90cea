//! Every bench once, untimed: that it runs, and that its answer is right.

use super::shell::{RELEASE, Shell};
use super::tally::Tally;

/// What is a bench: libraries and binaries are none, though cargo would run them.
const BENCHES: [&str; 3] = ["kernels", "abi", "masks"];

/// Runs them.
pub fn smoke(shell: &Shell) -> Result<Tally, String> {
    let named = BENCHES.iter().flat_map(|name| ["--bench", name]);
    let words = ["bench"].into_iter().chain(RELEASE).chain(named).chain(["--", "--test"]);
    let words: Vec<&str> = words.collect();
    let output = shell.run(&mut shell.cargo(&words))?;
    match output.lines().filter(|line| *line == "Success").count() as u64 {
        0 => Err(format!("{}: no bench ran", words.join(" "))),
        passed => Ok(Tally { passed, ..Tally::default() }),
    }
}
