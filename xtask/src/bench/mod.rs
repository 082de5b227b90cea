//! `cargo xtask bench-record`: runs the benches, keeps their figures by machine and
//! date, and makes the pages that show them.

mod bars;
mod devices;
mod machine;
pub mod pages;
mod plot;
mod record;

use clap::Args;
use record::Record;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to measure.
#[derive(Args)]
pub struct Options {
    /// Run only benches whose name holds this; the day's other figures stay.
    filter: Option<String>,
    /// How often all is measured, one run after the other: a figure is its median.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    runs: u32,
    /// Measure nothing: take the figures from files that each hold a run's output.
    #[arg(long, conflicts_with_all = ["filter", "runs"])]
    from: Vec<PathBuf>,
    /// Measure nothing: make the pages anew from the records.
    #[arg(long, conflicts_with_all = ["filter", "from"])]
    pages: bool,
}

/// Measures, keeps, shows.
pub fn run(root: &Path, options: &Options) -> Result<(), String> {
    if !options.pages {
        let mut runs = Vec::new();
        for path in &options.from {
            let lines: Vec<String> = text(path)?.lines().map(str::to_owned).collect();
            runs.push(record::figures(&lines)?);
        }
        if runs.is_empty() {
            for _ in 0..options.runs {
                runs.push(record::figures(&measure(root, options.filter.as_deref())?)?);
            }
        }
        let rows = record::medians(&runs);
        let folder = root.join(record::FOLDER).join(machine::name());
        let path = folder.join(format!("{}.csv", machine::date()));
        let mut record = if path.exists() { Record::parse(&text(&path)?)? } else { Record::new() };
        let count = rows.len();
        record.merge(rows);
        record.complete();
        write(&path, &record.csv())?;
        println!("{count} figures in {}", path.display());
    }
    pages::write_all(root)
}

/// Runs the benches and gives the lines of their output, shown as they come.
fn measure(root: &Path, filter: Option<&str>) -> Result<Vec<String>, String> {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(["bench", "--package", "pagewise-benches", "--"]).args(filter);
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("cargo bench does not start: {error}"))?;
    let stdout = child.stdout.take().expect("asked for above");
    let mut lines = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let line = line.map_err(|error| error.to_string())?;
        println!("{line}");
        lines.push(line);
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(lines) } else { Err("a bench failed: nothing is kept".into()) }
}

fn text(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
