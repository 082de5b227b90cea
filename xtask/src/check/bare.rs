//! kernels-core needs no operating system: it builds for a bare microcontroller.

use super::shell::Shell;
use super::tally::Tally;

const TARGET: &str = "thumbv7em-none-eabihf";

/// Builds it there.
pub fn build(shell: &Shell) -> Result<Tally, String> {
    if let Err(by_hand) = shell.add_target(TARGET) {
        return Ok(Tally::skipped(format!("the target is not here: {by_hand}")));
    }
    let words = ["build", "--locked", "--package", "pagewise-kernels-core", "--target", TARGET];
    // Nothing runs it, so nothing waits for its optimisation.
    let plain = "profile.dev.package.pagewise-kernels-core.opt-level=0";
    shell.run(shell.cargo(&words).args(["--config", plain]))?;
    Ok(Tally::passed())
}
