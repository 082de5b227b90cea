//! CUDA where there is no card: every kernel is compiled for every architecture, and what was
//! made is held to what the file's head asks for and to what is on record.

use super::clients::environment;
use super::plugin;
use super::shell::Shell;
use super::tally::Tally;
use crate::cuda::{Compiled, Toolkit, page, sources};
use std::collections::BTreeSet;
use std::path::Path;

const REQUIREMENTS: &str = "cuda/requirements.txt";
/// What every entry takes: a change shows in review.
const RESOURCES: &str = "cuda/resources.csv";
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
    // It embeds what was compiled.
    if tally.failed == 0 {
        tally = Tally::sum([Ok(tally), plugin::check(shell)])?;
    }
    Ok(tally)
}

/// Compiles every kernel and every probe, for whoever embeds them; nothing is judged.
pub fn fatbins(shell: &Shell) -> Result<(), String> {
    let toolkit = toolkit(shell)??;
    compile(shell, &toolkit)?.into_iter().try_for_each(|compiled| compiled.map(drop))
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
