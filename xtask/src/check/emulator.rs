//! The kernels of CUDA and Metal on the emulator, once more under its detectors: bytes past
//! a buffer and undefined behaviour, and races in shared memory; with these the bytes that
//! launches move are counted. As they are, the tests of the workspace run them.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;

/// Builds of the emulator, by the feature that makes them, and the tests that each runs:
/// random shapes where bytes past a buffer are seen.
const DETECTORS: [(&str, &[&str]); 2] = [
    ("sanitized", &["faults", "kernels", "malformed", "pieces", "refusals"]),
    ("races", &["bytes", "faults", "kernels", "pieces", "refusals"]),
];
/// Their answers were compared before; a detector needs no second schedule.
const SKIPPED: &str = "has_the_same_bits_under_every_schedule";

/// Runs them.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    Tally::sum(DETECTORS.map(|(detector, tests)| {
        // Of the workspace, as its tests are: of one package, what it depends on would be built
        // anew, with fewer features.
        let mut command = shell.cargo(&["test", "--locked", "--workspace", "--no-fail-fast"]);
        command.arg("--features").arg(format!("pagewise-emulator/{detector}"));
        command.args(tests.iter().flat_map(|test| ["--test", test]));
        command.args(["--", "--show-output", "--skip", SKIPPED]);
        let tally = count(shell, &mut command)?;
        if tally.failed == 0 && tally.passed == 0 {
            return Err(format!("nothing ran with {detector}"));
        }
        Ok(tally)
    }))
}

/// Kernels are compiled wherever the workspace is: its compiler comes first.
pub fn compiler(shell: &Shell) -> Result<(), String> {
    if shell.has("g++") {
        return Ok(());
    }
    shell.install(&["g++"]).map_err(|by_hand| format!("there is no g++: {by_hand}"))
}
