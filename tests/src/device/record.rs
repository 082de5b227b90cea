//! Figures of a device and of its peers, as lines of comma-separated values: the columns of
//! `benches/record/`.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

/// The first line of a record.
pub const HEADER: &str = "kernel,shape,level,threads,median_ns,work,unit,figure,peak,share";
/// Of what the memory does at most: bytes read and written by a copy of its own.
const COPIED: &str = "GB/s copied";

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The kernel's stem; `peaks` for the device's own figures.
    pub kernel: String,
    /// The shape.
    pub shape: String,
    /// The id of the device's arithmetic, or the peer that ran it.
    pub level: String,
    /// Threads of the host that it took.
    pub threads: u32,
    /// Of one call.
    pub median_ns: Option<f64>,
    /// What one call moves or computes.
    pub work: Option<f64>,
    /// Of the figure and the peak.
    pub unit: String,
    /// The rate, or what else the unit says.
    pub figure: f64,
    /// The device's own rate of such work.
    pub peak: Option<f64>,
    /// Figure over peak.
    pub share: Option<f64>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kernel, shape, level, threads, unit, figure, .. } = self;
        let maybe = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let (median_ns, work) = (maybe(self.median_ns), maybe(self.work));
        let (peak, share) = (maybe(self.peak), maybe(self.share));
        write!(
            f,
            "{kernel},{shape},{level},{threads},{median_ns},{work},{unit},{figure},{peak},{share}"
        )
    }
}

impl Row {
    /// What a line says; nothing where it is no figure.
    pub fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let [kernel, shape, level, threads, median_ns, work, unit, figure, peak, share] =
            fields[..].try_into().ok()?;
        let number = |text: &str| text.parse::<f64>().ok();
        let maybe = |text: &str| if text.is_empty() { Some(None) } else { number(text).map(Some) };
        Some(Self {
            kernel: kernel.into(),
            shape: shape.into(),
            level: level.into(),
            threads: threads.parse().ok()?,
            median_ns: maybe(median_ns)?,
            work: maybe(work)?,
            unit: unit.into(),
            figure: number(figure)?,
            peak: maybe(peak)?,
            share: maybe(share)?,
        })
    }
}

/// The figures of a text. A stage that died leaves half a line: what is no figure is left out.
pub fn rows(text: &str) -> Vec<Row> {
    text.lines().filter_map(Row::parse).collect()
}

/// Gives rows that read memory the share of what a copy was measured to move.
pub fn complete(rows: &mut [Row]) {
    let copied = rows.iter().filter(|row| row.kernel == "peaks" && row.unit == COPIED);
    let Some(peak) = copied.map(|row| row.figure).reduce(f64::max) else { return };
    for row in rows.iter_mut().filter(|row| row.unit == "GB/s read") {
        row.peak = Some(peak);
        row.share = Some((row.figure / peak * 1000.0).round() / 1000.0);
    }
}

/// All of it, as a record.
pub fn csv(rows: &[Row]) -> String {
    let mut text = format!("{HEADER}\n");
    for row in rows {
        writeln!(text, "{row}").expect("a string takes text");
    }
    text
}

/// A line for each shape that was timed: what we take, what each peer takes, and how many times
/// as long as it we take.
pub fn beside_peers(rows: &[Row]) -> String {
    let is_ours = |row: &&Row| row.level.starts_with("cuda-") || row.level.starts_with("metal-");
    let is_timed = |row: &&Row| row.median_ns.is_some() && row.kernel != "peaks";
    let timed: Vec<&Row> = rows.iter().filter(is_timed).collect();
    let mut told = BTreeSet::new();
    let mut text = String::new();
    for row in &timed {
        if !told.insert((&row.kernel, &row.shape)) {
            continue;
        }
        let same = |other: &&&Row| other.kernel == row.kernel && other.shape == row.shape;
        let ours = timed.iter().filter(same).find(|row| is_ours(row));
        let us = |row: &Row| row.median_ns.unwrap_or_default() / 1e3;
        let own = ours.map_or("-".to_owned(), |ours| format!("{:.1}", us(ours)));
        write!(text, "{} {}: {own} us", row.kernel, row.shape).expect("a string takes text");
        if let Some(share) = ours.and_then(|ours| ours.share) {
            write!(text, ", {:.0} % of a copy", share * 100.0).expect("a string takes text");
        }
        for peer in timed.iter().filter(same).filter(|row| !is_ours(row)) {
            let over = ours.map_or(String::new(), |ours| {
                format!(" (ours / theirs {:.2})", us(ours) / us(peer))
            });
            write!(text, "; {} {:.1}{over}", peer.level, us(peer)).expect("a string takes text");
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{HEADER, beside_peers, complete, csv, rows};

    const OURS: &str = "attention,decode,cuda-sm90-2,1,200,1000,GB/s read,5,,";

    #[test]
    fn what_is_written_is_read_and_what_is_cut_off_is_left_out() {
        let text = format!("{HEADER}\n{OURS}\nattention,decode,torch");
        let parsed = rows(&text);
        assert_eq!(parsed.len(), 1);
        assert_eq!(csv(&parsed), format!("{HEADER}\n{OURS}\n"));
    }

    #[test]
    fn reads_are_held_against_a_copy() {
        let peak = "peaks,copy,driver,1,,,GB/s copied,8,8,1";
        let mut both = rows(&format!("{OURS}\n{peak}"));
        complete(&mut both);
        assert_eq!((both[0].peak, both[0].share), (Some(8.0), Some(0.625)));
        let mut alone = rows(OURS);
        complete(&mut alone);
        assert_eq!(alone[0].peak, None);
    }

    #[test]
    fn ours_stands_beside_each_peer() {
        let peer = |level: &str, ns: u32| format!("attention,decode,{level},1,{ns},,us,1,,");
        let text = [OURS.to_owned(), peer("torch", 400), peer("flashinfer", 100)].join("\n");
        let table = beside_peers(&rows(&text));
        assert_eq!(
            table,
            "attention decode: 0.2 us; torch 0.4 (ours / theirs 0.50); \
             flashinfer 0.1 (ours / theirs 2.00)\n"
        );
    }
}
