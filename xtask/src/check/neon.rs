//! The NEON level, run on an emulator of 64-bit Arm: every kernel's whole case list
//! must have the very bits that are committed, and the levels must agree.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;
use crate::kernels::{kernels, stems};
use crate::tidy::source::Tree;
use std::path::Path;

const TARGET: &str = "aarch64-unknown-linux-gnu";
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"];
/// What the compiler links with, which it only recommends.
const LIBC: &str = "/usr/aarch64-linux-gnu/lib/crt1.o";

/// The reduced list: the test that each kernel has by this name, and all of `math`.
/// Random shapes would take the emulator an hour.
const HASHES: &str = "the_bits_are_those_committed";
/// The test of whole models, which has one, too.
const MODELS: &str = "model_bits";

/// Runs them.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    if let Err(by_hand) = shell.add_target(TARGET) {
        return Ok(Tally::skipped(format!("the target is not here: {by_hand}")));
    }
    let tools = ["qemu-aarch64-static", "aarch64-linux-gnu-gcc"];
    let there = || tools.iter().all(|tool| shell.has(tool)) && Path::new(LIBC).exists();
    if !there()
        && let Err(by_hand) = shell.install(&PACKAGES)
    {
        return Ok(Tally::skipped(format!("no emulator: {by_hand}")));
    }
    let kernels = kernels(&Tree::read(&shell.root)?)?;
    // Those alone: the others take long to build, and have no such test.
    let stems = stems(&kernels);
    let tests = stems.iter().map(String::as_str).chain([MODELS]);
    let mut words: Vec<&str> = tests.flat_map(|test| ["--test", test]).collect();
    words.extend(["--", HASHES, "--show-output"]);
    let hashes = run(shell, &words)?;
    if hashes.failed == 0 && hashes.passed <= kernels.len() as u64 {
        let all = kernels.len();
        return Err(format!(
            "{} of {all} kernels, and models, have a test {HASHES}",
            hashes.passed
        ));
    }
    let math = run(shell, &["--test", "math", "--", "--show-output"])?;
    Ok(Tally {
        passed: hashes.passed + math.passed,
        failed: hashes.failed + math.failed,
        skipped: [hashes.skipped, math.skipped].concat(),
    })
}

fn run(shell: &Shell, words: &[&str]) -> Result<Tally, String> {
    let mut command = shell.cargo(&["test", "--locked", "--package", "pagewise-tests"]);
    command.args(["--target", TARGET, "--no-fail-fast"]).args(words);
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    let runner = "qemu-aarch64-static -L /usr/aarch64-linux-gnu";
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER", runner);
    count(shell, &mut command)
}
