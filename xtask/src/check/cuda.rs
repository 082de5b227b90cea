//! CUDA where there is no card: every kernel is compiled for every architecture, and what was
//! made is held to what the file's head asks for and to what is on record; the plugin is
//! linked to a stand-in for the driver.

use super::clients::environment;
use super::shell::Shell;
use super::tally::Tally;
use crate::cuda::{Compiled, Toolkit, page, sources, stub};
use std::collections::BTreeSet;
use std::path::Path;

const REQUIREMENTS: &str = "cuda/requirements.txt";
/// What every entry takes: a change shows in review.
const RESOURCES: &str = "cuda/resources.csv";
/// A workspace of its own: it needs a driver to link, and nothing else does.
const PLUGIN: &str = "cuda/plugin/Cargo.toml";
/// Rows of a stale page that are printed.
const ROWS_SHOWN: usize = 20;

/// Compiles and judges.
pub fn check(shell: &Shell) -> Result<Tally, String> {
    let toolkit = match toolkit(shell) {
        Ok(toolkit) => toolkit?,
        Err(why) => return Ok(Tally::skipped(why)),
    };
    let mut tally = Tally::default();
    let mut resources = Vec::new();
    for compiled in compile(shell, &toolkit)? {
        let faults = match compiled {
            Ok(compiled) => {
                resources.extend(compiled.resources);
                compiled.faults
            }
            Err(message) => vec![message],
        };
        match faults[..] {
            [] => tally.passed += 1,
            _ => tally.failed += 1,
        }
        for fault in faults {
            println!("{fault}");
        }
    }
    // Of what is not compiled there is nothing to compare.
    if tally.failed == 0 {
        recorded(&shell.root, &page(resources))?;
        tally.passed += 1;
    }
    if shell.root.join(PLUGIN).exists() {
        plugin(shell)?;
        tally.passed += 1;
    }
    Ok(tally)
}

/// Writes what every entry takes.
pub fn write_resources(root: &Path) -> Result<(), String> {
    let shell = Shell::new(root, "cuda-resources")?;
    let toolkit = toolkit(&shell)??;
    let compiled = compile(&shell, &toolkit)?.into_iter().collect::<Result<Vec<_>, _>>()?;
    let resources = compiled.into_iter().flat_map(|compiled| compiled.resources);
    let page = page(resources.collect());
    std::fs::write(root.join(RESOURCES), page).map_err(|error| format!("{RESOURCES}: {error}"))
}

/// The compiler; or why it cannot be had here.
fn toolkit(shell: &Shell) -> Result<Result<Toolkit, String>, String> {
    let venv = shell.target.join("check/cuda-venv");
    environment(shell, &venv, REQUIREMENTS).map(|()| Toolkit::of(&venv))
}

fn compile(shell: &Shell, toolkit: &Toolkit) -> Result<Vec<Result<Compiled, String>>, String> {
    let sources = sources(&shell.root)?;
    let stems: Vec<String> = sources.iter().map(|source| source.stem.clone()).collect();
    Ok(shell.side_by_side(&stems, |shell, stem| {
        let source = sources.iter().find(|source| source.stem == stem);
        toolkit.compile(shell, source.expect("each name is of a file"))
    }))
}

/// Fails if the page on record is another, with the rows that differ.
fn recorded(root: &Path, page: &str) -> Result<(), String> {
    let committed = std::fs::read_to_string(root.join(RESOURCES)).unwrap_or_default();
    if committed == page {
        return Ok(());
    }
    let [old, new] = [&committed, page].map(|page| page.lines().collect::<BTreeSet<_>>());
    let mut rows: Vec<String> = old.difference(&new).map(|row| format!("-{row}")).collect();
    rows.extend(new.difference(&old).map(|row| format!("+{row}")));
    rows.sort_by(|a, b| a[1..].cmp(&b[1..]));
    let all = rows.len();
    rows.truncate(ROWS_SHOWN);
    Err(format!(
        "{}\n{all} rows differ: {RESOURCES} is not what the compiler makes: \
         run `cargo xtask cuda-resources`",
        rows.join("\n")
    ))
}

/// The plugin builds and links. Loading it needs a driver.
fn plugin(shell: &Shell) -> Result<(), String> {
    let driver = stub::make(shell, &shell.root.join(PLUGIN))?;
    let mut build = shell.cargo(&["build", "--release", "--locked", "--manifest-path", PLUGIN]);
    build.arg("--target-dir").arg(shell.target.join("check/cuda/plugin"));
    shell.run(build.env("CUDA_LIBRARY_PATH", driver)).map(drop)
}
