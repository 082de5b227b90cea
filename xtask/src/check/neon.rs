//! The NEON level, run on an emulator of 64-bit Arm: every kernel's whole case list
//! must have the very bits that are committed, and the levels must agree.

use super::rust::{binaries, count};
use super::shell::Shell;
use super::tally::Tally;
use crate::kernels::{kernels, stems};
use crate::tidy::source::Tree;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const TARGET: &str = "aarch64-unknown-linux-gnu";
const PACKAGES: [&str; 3] = ["gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-user-static"];
/// What the compiler links with, which it only recommends.
const LIBC: &str = "/usr/aarch64-linux-gnu/lib/crt1.o";
/// Where the emulator finds what binaries load.
const LIBRARIES: &str = "/usr/aarch64-linux-gnu";

/// The reduced list: the test that each kernel has by this name, and all of `math`.
/// Random shapes would take the emulator an hour.
const HASHES: &str = "the_bits_are_those_committed";
/// The test of whole models, which has one, too.
const MODELS: &str = "model_bits";
/// The test that runs whole.
const MATH: &str = "math";

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
    let hashed = stems.iter().map(String::as_str).chain([MODELS]);
    let tests: Vec<String> = hashed.chain([MATH]).map(str::to_owned).collect();
    let binaries = build(shell, &tests)?;
    // A test of hashes keeps to one core.
    let tallies = shell.side_by_side(&tests, |shell, test| {
        let path = binaries.get(test).ok_or(format!("there is no test {test}"))?;
        let mut command = shell.seeded("qemu-aarch64-static");
        command.args(["-L", LIBRARIES]).arg(shell.root.join(path));
        command.args((test != MATH).then_some(HASHES)).arg("--show-output");
        count(shell, command.current_dir(shell.root.join("tests")))
    });
    let of_hashes = tallies.iter().zip(&tests).filter(|(_, test)| *test != MATH);
    let hashes = Tally::sum(of_hashes.map(|(tally, _)| tally.clone()))?;
    if hashes.failed == 0 && hashes.passed <= kernels.len() as u64 {
        let all = kernels.len();
        return Err(format!(
            "{} of {all} kernels, and models, have a test {HASHES}",
            hashes.passed
        ));
    }
    Tally::sum(tallies)
}

/// Builds tests; their binaries, from the root.
fn build(shell: &Shell, tests: &[String]) -> Result<BTreeMap<String, PathBuf>, String> {
    let mut command = shell.cargo(&["test", "--locked", "--package", "pagewise-tests"]);
    command.args(["--no-default-features", "--target", TARGET, "--no-run"]);
    command.args(tests.iter().flat_map(|test| ["--test", test]));
    command.env("CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER", "aarch64-linux-gnu-gcc");
    shell.run(&mut command).map(|output| binaries(&output))
}
