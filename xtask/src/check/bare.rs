//! kernels-core needs no operating system: it compiles for a bare microcontroller.

use super::shell::Shell;
use super::tally::Tally;

const TARGET: &str = "thumbv7em-none-eabihf";

/// Compiles it for that, but for its code: nothing runs it.
pub fn build(shell: &Shell) -> Result<Tally, String> {
    if let Err(by_hand) = shell.add_target(TARGET) {
        return Ok(Tally::skipped(format!("the target is not here: {by_hand}")));
    }
    let words = ["check", "--locked", "--package", "pagewise-kernels-core", "--target", TARGET];
    shell.run(&mut shell.cargo(&words))?;
    Ok(Tally::passed())
}
