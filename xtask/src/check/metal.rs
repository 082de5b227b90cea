//! Metal's plugin where there is no Mac: what of it is pure is tested, and all of it is type-checked
//! for one. Nothing is linked, and no kernel compiled: metal/check-on-a-mac.sh does the rest.

use super::rust::count;
use super::shell::Shell;
use super::tally::Tally;

const TARGET: &str = "aarch64-apple-darwin";
/// A workspace of its own: it needs a Mac to link, and nothing else does.
const MANIFEST: &str = "metal/plugin/Cargo.toml";

/// Tests and checks it.
pub fn check(shell: &Shell) -> Result<Tally, String> {
    let folder = shell.target.join("check/metal");
    // The kernels are embedded as bytes: nobody looks at them here.
    let stand_in = folder.join("stand-in.metallib");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&stand_in, []))
        .map_err(|error| format!("{}: {error}", stand_in.display()))?;
    let cargo = |words: &[&str]| {
        let mut cargo = shell.cargo(words);
        cargo.args(["--locked", "--manifest-path", MANIFEST]).arg("--target-dir").arg(&folder);
        cargo.env("PAGEWISE_METALLIB", &stand_in);
        cargo
    };
    shell.run(&mut shell.cargo(&["fmt", "--manifest-path", MANIFEST, "--check"]))?;
    let mut tally = count(shell, &mut cargo(&["test", "--lib"]))?;
    tally.passed += 1;
    if let Err(by_hand) = shell.add_target(TARGET) {
        tally.skipped.push(format!("the target is not here: {by_hand}"));
        return Ok(tally);
    }
    shell.run(&mut cargo(&["check", "--target", TARGET]))?;
    shell.run(cargo(&["clippy", "--target", TARGET]).args(["--", "-D", "warnings"]))?;
    tally.passed += 2;
    Ok(tally)
}
