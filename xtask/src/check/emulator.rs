//! The kernels of CUDA and Metal on the emulator, once more under its detectors: bytes past
//! a buffer and undefined behaviour, and races in shared memory. As they are, the tests of
//! the workspace run them.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;

/// Builds of the emulator, by the feature that makes them.
const DETECTORS: [&str; 2] = ["sanitized", "races"];

/// Runs them.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    let mut all = Tally::default();
    for detector in DETECTORS {
        let words = ["test", "--locked", "--package", "pagewise-emulator", "--no-fail-fast"];
        let mut command = shell.cargo(&words);
        command.args(["--features", detector, "--tests", "--", "--show-output"]);
        let tally = count(shell, &mut command)?;
        if tally.failed == 0 && tally.passed == 0 {
            return Err(format!("nothing ran with {detector}"));
        }
        all.passed += tally.passed;
        all.failed += tally.failed;
        all.skipped.extend(tally.skipped);
    }
    Ok(all)
}

/// Kernels are compiled wherever the workspace is: its compiler comes first.
pub fn compiler(shell: &Shell) -> Result<(), String> {
    if shell.has("g++") {
        return Ok(());
    }
    shell.install(&["g++"]).map_err(|by_hand| format!("there is no g++: {by_hand}"))
}
