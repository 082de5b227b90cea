//! Undefined behaviour, looked for by Miri where `unsafe` stands and in the scalar
//! forms, on inputs of at most 64 elements; and how long that took, for a stage that no
//! one waits for is a stage that no one runs.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the tests may take once they are built, on a machine of eight cores.
const BOUND: Duration = Duration::from_mins(3);
/// How much longer a slow or busy machine may take before the stage fails.
const SLOWER: u32 = 4;

/// What is run, by names of its own: each takes one core.
const RUNS: [(&str, &[&str]); 3] = [
    ("small", &["--package", "pagewise-tests", "--no-default-features", "--test", "small"]),
    ("kernels-core", &["--package", "pagewise-kernels-core", "--lib"]),
    ("backends", &["--package", "pagewise-backends", "--lib"]),
];

/// Runs them: the unit tests of kernels-core and backends, and `tests/tests/small.rs`.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    if let Err(by_hand) = nightly(shell) {
        return Ok(Tally::skipped(format!("nightly's miri is not here: {by_hand}")));
    }
    for (_, words) in RUNS {
        shell.run(miri(shell, words).arg("--no-run"))?;
    }
    let start = Instant::now();
    let names = RUNS.map(|(name, _)| name.to_owned());
    let tallies = shell.side_by_side(&names, |shell, name| {
        let of = RUNS.iter().find(|(other, _)| *other == name);
        let (_, words) = of.expect("it is one of them");
        count(shell, miri(shell, words).args(["--", "--show-output"]))
    });
    let mut all = Tally::sum(tallies)?;
    all.passed += of_bound(start.elapsed())?;
    Ok(all)
}

/// Says the time beside its bound; one that was kept counts, one far beyond fails.
fn of_bound(took: Duration) -> Result<u64, String> {
    let (seconds, most) = (took.as_secs_f64(), BOUND.as_secs());
    println!("{seconds:.0} s, of {most} s on eight cores");
    if took > BOUND * SLOWER {
        return Err(format!("the tests under Miri take more than {} s", most * u64::from(SLOWER)));
    }
    if took > BOUND {
        println!("more than the bound: is this machine so slow, or has a test grown?");
    }
    Ok(u64::from(took <= BOUND))
}

fn miri(shell: &Shell, words: &[&str]) -> Command {
    let mut command = shell.cargo(&["+nightly", "miri", "test", "--locked"]);
    command.arg("--target-dir").arg(shell.target.join("miri")).args(words);
    command
}

/// Sees to a nightly toolchain with Miri; or says what to do.
pub fn nightly(shell: &Shell) -> Result<(), String> {
    let by_hand = "rustup toolchain install nightly --profile minimal -c miri -c rust-src";
    let has = shell.attempt(&mut shell.cargo(&["+nightly", "miri", "--version"]));
    if has.is_ok_and(|(has, _)| has) {
        return Ok(());
    }
    let mut install = shell.tool("rustup");
    install.args(by_hand.split(' ').skip(1));
    match shell.attempt(&mut install) {
        Ok((true, _)) => Ok(()),
        _ => Err(by_hand.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUND, SLOWER, of_bound};

    #[test]
    fn a_time_beyond_the_bound_does_not_count_and_far_beyond_fails() {
        assert_eq!(of_bound(BOUND), Ok(1));
        assert_eq!(of_bound(BOUND * 2), Ok(0));
        assert!(of_bound(BOUND * SLOWER * 2).is_err());
    }
}
