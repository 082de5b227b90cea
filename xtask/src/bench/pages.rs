//! docs/performance.md with its plots, and docs/status.md with the bars: both made
//! from the newest figures of each machine.

use super::bars::{self, Bar, Measure};
use super::devices;
use super::plot;
use super::record::{self, Record, Row};
use std::fmt::Write as _;
use std::path::Path;

const PERFORMANCE: &str = "docs/performance.md";
const STATUS: &str = "docs/status.md";
const PLOTS: &str = "docs/performance";

const PERFORMANCE_HEAD: &str = "\
# Performance

Made by `cargo xtask bench-record` from `benches/record/`; do not edit. A share is
of what the machine itself can do, measured in the same process: bytes read (8
streams a thread, huge pages), bytes copied (those read and those written, counted
both), 8-bit integer and f32 operations. Weights and caches that a real step would
find in memory are walked through in sets of at least 512 MB. A red line in a plot
is a bar of [status.md](status.md); grey is a peer, which may have run at another
hour of the day. Of several runs the one with the middle share counts.

Rows of serving are measured from outside: `benches/peers/serving.py` loads a server
of ours, and peers; `benches/peers/constraints.py` measures what grammars and drafts
cost and buy, in pairs that take turns (`over`), masks over a large vocabulary
(`grammar`), and the gaps of others beside hostile grammars. Their heads say how.
";

const STATUS_HEAD: &str = "\
# Status

Made by `cargo xtask bench-record` from `benches/bars.csv` and `benches/record/`; do
not edit. Each bar is held against the worst of its shapes, at the machine's best
level; `performance.md` has all figures.
";

/// Writes both, and the plots.
pub fn write_all(root: &Path) -> Result<(), String> {
    let pages = pages(root)?;
    pages.iter().try_for_each(|(path, page)| super::write(&root.join(path), page))
}

/// Both, and the plots, by their paths from the root.
pub fn pages(root: &Path) -> Result<Vec<(String, String)>, String> {
    let mut pages = Vec::new();
    let bars = bars::read(root)?;
    let mut performance = PERFORMANCE_HEAD.to_owned();
    let mut status = STATUS_HEAD.to_owned();
    let records = record::newest(root)?;
    for (machine, date, record) in &records {
        let _ = write!(performance, "\n## {machine}, {date}\n\n{}", peaks(record));
        for kernel in record.kernels() {
            if kernel == "peaks" {
                continue;
            }
            let _ = write!(performance, "\n### {kernel}\n\n");
            let shown = plotted(record, kernel, &bars);
            if !shown.is_empty() {
                let file = format!("{machine}-{kernel}.svg");
                let title = format!("{kernel}: share of the machine's peak, all threads");
                pages.push((format!("{PLOTS}/{file}"), plot::shares(&title, &shown)));
                let _ = write!(performance, "![{title}](performance/{file})\n\n");
            }
            performance += &table(record, kernel);
        }
        let _ = write!(status, "\n## {machine}, {date}\n\n{}", against(record, &bars));
    }
    let nowhere = bars.iter().filter(|bar| !records.iter().any(|(.., record)| bar.is_of(record)));
    let nowhere: Vec<Bar> = nowhere.cloned().collect();
    if !nowhere.is_empty() {
        status += "\n## No machine yet\n\n";
        status +=
            "No record has them: nothing of this was measured.\n\n| work | bar |\n|---|---:|\n";
        for bar in &nowhere {
            let _ = writeln!(status, "| {} | {} |", bar.work, shown(bar, bar.bar));
        }
    }
    performance += &devices::section(root)?;
    pages.extend([(PERFORMANCE.to_owned(), performance), (STATUS.to_owned(), status)]);
    Ok(pages)
}

/// The machine's own figures, threads beside each other.
fn peaks(record: &Record) -> String {
    let mut text = String::from("| peak | unit | threads | figure |\n|---|---|---:|---:|\n");
    for row in record.of("peaks") {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {:.1} |",
            row.shape, row.unit, row.threads, row.figure
        );
    }
    text
}

/// The bars of a kernel's plot: with all threads at the best level, and peers.
fn plotted(record: &Record, kernel: &str, bars: &[Bar]) -> Vec<plot::Bar> {
    let (best, most) = (record.best_level(), record.threads_max());
    let mut shown = Vec::new();
    for row in record.of(kernel) {
        let peer = is_peer(row);
        let Some(share) = row.share.filter(|_| row.threads == most) else { continue };
        if row.level != best && !peer {
            continue;
        }
        let named = |bar: &&Bar| bar.measure == Measure::Share && bar.names(row);
        shown.push(plot::Bar {
            label: if peer { format!("{} ({})", row.shape, row.level) } else { row.shape.clone() },
            share,
            figure: rate(row),
            bar: bars.iter().find(named).filter(|_| !peer).map(|bar| bar.bar),
            peer,
        });
    }
    shown
}

/// Whether something else than this project's levels ran it.
fn is_peer(row: &Row) -> bool {
    let is_device = bars::DEVICES.iter().any(|device| row.level.starts_with(device));
    !is_device && !["scalar", "avx2", "avx512", "neon"].contains(&&*row.level)
}

/// Every figure of a kernel.
fn table(record: &Record, kernel: &str) -> String {
    let mut text = String::from(
        "| shape | level | threads | median | figure | share |\n|---|---|---:|---:|---:|---:|\n",
    );
    for row in record.of(kernel) {
        let share = row.share.map_or(String::new(), percent);
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {share} |",
            row.shape,
            row.level,
            row.threads,
            row.median_ns.map_or(String::new(), duration),
            rate(row)
        );
    }
    text
}

/// Every bar beside what was reached.
fn against(record: &Record, bars: &[Bar]) -> String {
    let mut text =
        String::from("| work | bar | reached | worst shape | |\n|---|---:|---:|---|---|\n");
    for bar in bars.iter().filter(|bar| bar.is_of(record)) {
        let value = |value: f64| shown(bar, value);
        let (reached, shape, verdict) = match bar.reached(record) {
            Some((reached, shape)) => {
                let verdict = match (bar.is_reached(reached), bar.is_most()) {
                    (true, _) => "reached",
                    (false, true) => "**above**",
                    (false, false) => "**below**",
                };
                (value(reached), shape, verdict)
            }
            None => (String::new(), "", "not measured"),
        };
        let _ = writeln!(
            text,
            "| {} | {} | {reached} | {shape} | {verdict} |",
            bar.work,
            value(bar.bar)
        );
    }
    text
}

/// A value of a bar's measure.
fn shown(bar: &Bar, value: f64) -> String {
    match bar.measure {
        Measure::Share => percent(value),
        Measure::Parts(_) => format!("{:.1} %", value * 100.0),
        Measure::Than(..)
        | Measure::Threads
        | Measure::Over(_)
        | Measure::Under(_)
        | Measure::Spread => format!("{value:.2}×"),
        Measure::Figure | Measure::Least => format!("{value:.3}"),
        Measure::Nanoseconds => format!("{:.1} µs", value / 1e3),
    }
}

fn percent(share: f64) -> String {
    format!("{:.0} %", share * 100.0)
}

fn rate(row: &Row) -> String {
    if row.unit == "parts" {
        return format!("{:.1} %", row.figure * 100.0);
    }
    // Items are single: thousands and millions of them read better with fewer digits.
    let items = row.peak.is_none() && row.unit.ends_with("/s");
    let (figure, prefix) = match row.figure {
        large if items && large >= 1e6 => (large / 1e6, " M"),
        large if items && large >= 1e4 => (large / 1e3, " k"),
        figure => (figure, " "),
    };
    format!("{figure:.1}{prefix}{}", row.unit)
}

fn duration(nanoseconds: f64) -> String {
    match nanoseconds {
        long if long >= 1e6 => format!("{:.2} ms", long / 1e6),
        middle if middle >= 1e3 => format!("{:.1} µs", middle / 1e3),
        short => format!("{short:.0} ns"),
    }
}
