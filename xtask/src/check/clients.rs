//! Real clients against the release binary with the model in the box: the openai SDK,
//! litellm, jsonschema and lm-eval, in an environment of Python that is kept from check to
//! check; those that trainers bring, in another; and a browser, at the page. Beside them
//! torch, in an environment of its own: the kernels as its operators.

use super::shell::{RELEASE, Shell, tail};
use super::tally::Tally;
use std::path::Path;

const REQUIREMENTS: &str = "tests/clients/requirements.txt";
const ROLLOUTS_REQUIREMENTS: &str = "tests/clients/rollouts-requirements.txt";
const TORCH_REQUIREMENTS: &str = "examples/python/requirements.txt";
/// Names that a headless browser has; the first is the package that is installed.
const BROWSERS: [&str; 3] = ["chromium-headless-shell", "chromium", "chromium-browser"];

/// Runs them.
pub fn tests(shell: &Shell) -> Result<Tally, String> {
    let [venv, rollouts] =
        ["clients", "rollouts"].map(|name| shell.target.join(format!("check/{name}-venv")));
    for (venv, requirements) in [(&venv, REQUIREMENTS), (&rollouts, ROLLOUTS_REQUIREMENTS)] {
        if let Err(why) = environment(shell, venv, requirements) {
            return Ok(Tally::skipped(why));
        }
    }
    let words = [&["build", "--release"], &RELEASE[..], &["--bins", "--benches"]].concat();
    shell.run(&mut shell.cargo(&words))?;
    let binary = shell.target.join("release/pagewise");
    let mut tally = Tally::default();
    let mut check = |venv: &Path, script: &str, more: &[&str]| {
        let mut command = shell.tool(&venv.join("bin/python").to_string_lossy());
        command.arg(script).arg(&binary).arg("models/abacus").args(more);
        let (succeeded, output) = shell.attempt(&mut command)?;
        tally.passed += output.lines().filter(|line| line.contains(": ok")).count() as u64;
        tally.failed += u64::from(!succeeded);
        if !succeeded {
            println!("{}", tail(&output));
        }
        Ok::<_, String>(())
    };
    check(&venv, "tests/clients/check.py", &[])?;
    check(&rollouts, "tests/clients/rollouts.py", &[])?;
    match browser(shell) {
        Ok(browser) => check(&venv, "tests/clients/page.py", &[browser])?,
        Err(why) => tally.skipped.push(why),
    }
    Ok(tally)
}

/// The library beside torch, through the example that makes operators of it.
pub fn torch(shell: &Shell) -> Result<Tally, String> {
    let venv = shell.target.join("check/torch-venv");
    if let Err(why) = environment(shell, &venv, TORCH_REQUIREMENTS) {
        return Ok(Tally::skipped(why));
    }
    let library = super::abi::installed(shell, &shell.target.join("check/torch"))?;
    let mut example = shell.tool(&venv.join("bin/python").to_string_lossy());
    example.arg("examples/python/torch_op.py");
    example.env("PAGEWISE_LIBRARY", library.shared());
    let output = shell.run(&mut example)?;
    let passed = output.lines().filter(|line| line.contains(": ok")).count() as u64;
    Ok(Tally { passed, ..Tally::default() })
}

/// A browser, installed where that is ours to do; or what is missing and what to do.
fn browser(shell: &Shell) -> Result<&'static str, String> {
    let found = || BROWSERS.into_iter().find(|name| shell.has(name));
    if let Some(name) = found() {
        return Ok(name);
    }
    let installed = shell.install(&BROWSERS[..1]);
    installed.map_err(|by_hand| format!("no browser: {by_hand}"))?;
    found().ok_or_else(|| format!("no browser: {} does not start", BROWSERS[0]))
}

/// Sees to an environment with packages at the versions that are asked for; or says what is
/// missing and what to do.
pub fn environment(shell: &Shell, venv: &Path, requirements: &str) -> Result<(), String> {
    let asked = std::fs::read(shell.root.join(requirements));
    let asked = asked.map_err(|error| format!("{requirements}: {error}"))?;
    // What was asked for when it was made, written when it was whole.
    let stamp = venv.join("requirements.txt");
    let python = venv.join("bin/python");
    if std::fs::read(&stamp).is_ok_and(|made| made == asked) && shell.has(&python.to_string_lossy())
    {
        return Ok(());
    }
    let make = || shell.attempt(shell.tool("python3").args(["-m", "venv", "--clear"]).arg(venv));
    let made = || make().is_ok_and(|(made, _)| made);
    if !made() {
        let installed = shell.install(&["python3", "python3-venv"]);
        installed.map_err(|by_hand| format!("no environment of Python: {by_hand}"))?;
        if !made() {
            let by_hand = format!("python3 -m venv {}", venv.display());
            return Err(format!("no environment of Python: {by_hand}"));
        }
    }
    let pip = ["-m", "pip", "install", "--disable-pip-version-check", "-r", requirements];
    let mut install = shell.tool(&python.to_string_lossy());
    // It says why itself: no network, or no room.
    if let Err(why) = shell.run(install.args(pip)) {
        return Err(format!("no packages: {} {}\n{why}", python.display(), pip.join(" ")));
    }
    std::fs::write(&stamp, asked).map_err(|error| format!("{}: {error}", stamp.display()))
}
