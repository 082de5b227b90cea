//! Figures of one machine on one day, as lines of comma-separated values.

use std::path::{Path, PathBuf};

/// Where records are kept: a folder for each machine, a file for each day.
pub const FOLDER: &str = "benches/record";

const HEADER: &str = "kernel,shape,level,threads,median_ns,work,unit,figure,peak,share";
/// The lines of a run's output that are figures begin so.
const MARK: &str = "figure ";

/// What one bench gave.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// The kernel's stem; `peaks` for the machine's own figures.
    pub kernel: String,
    /// The shape.
    pub shape: String,
    /// The level, or the peer that ran it.
    pub level: String,
    /// Threads in use.
    pub threads: u32,
    /// Of one call; none for the peaks.
    pub median_ns: Option<f64>,
    /// What one call moves or computes, in single units.
    pub work: Option<f64>,
    /// Of the figure and the peak.
    pub unit: String,
    /// The rate.
    pub figure: f64,
    /// The machine's own rate of such work, measured in the same process.
    pub peak: Option<f64>,
    /// Figure over peak.
    pub share: Option<f64>,
}

impl Row {
    fn parse(line: &str) -> Result<Self, String> {
        let bad = || format!("not a figure: {line}");
        let fields: Vec<&str> = line.split(',').collect();
        let [kernel, shape, level, threads, median_ns, work, unit, figure, peak, share] =
            fields[..].try_into().map_err(|_| bad())?;
        let number = |text: &str| text.parse::<f64>().map_err(|_| bad());
        let maybe = |text: &str| if text.is_empty() { Ok(None) } else { number(text).map(Some) };
        Ok(Self {
            kernel: kernel.into(),
            shape: shape.into(),
            level: level.into(),
            threads: threads.parse().map_err(|_| bad())?,
            median_ns: maybe(median_ns)?,
            work: maybe(work)?,
            unit: unit.into(),
            figure: number(figure)?,
            peak: maybe(peak)?,
            share: maybe(share)?,
        })
    }

    fn csv(&self) -> String {
        let Self { kernel, shape, level, threads, unit, figure, .. } = self;
        let maybe = |value: Option<f64>| value.map_or(String::new(), |value| value.to_string());
        let (median_ns, work) = (maybe(self.median_ns), maybe(self.work));
        let (peak, share) = (maybe(self.peak), maybe(self.share));
        format!(
            "{kernel},{shape},{level},{threads},{median_ns},{work},{unit},{figure},{peak},{share}"
        )
    }

    fn is_again(&self, other: &Self) -> bool {
        let key = |row: &Self| (row.kernel.clone(), row.shape.clone(), row.level.clone());
        key(self) == key(other) && self.threads == other.threads
    }
}

/// The figures among the lines of a run's output.
pub fn figures(lines: &[String]) -> Result<Vec<Row>, String> {
    lines.iter().filter_map(|line| line.strip_prefix(MARK)).map(Row::parse).collect()
}

/// Of several runs, the row of each figure whose share is the middle one (the figure
/// itself, where it has no peak; of two, the lower): a machine that others use too is
/// slow now and then, and fast now and then.
pub fn medians(runs: &[Vec<Row>]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for row in runs.iter().flatten() {
        if rows.iter().any(|other| other.is_again(row)) {
            continue;
        }
        let mut again: Vec<&Row> =
            runs.iter().flatten().filter(|other| other.is_again(row)).collect();
        let value = |row: &Row| row.share.unwrap_or(row.figure);
        // A peak's share is always 1.
        again.sort_by(|a, b| value(a).total_cmp(&value(b)).then(a.figure.total_cmp(&b.figure)));
        rows.push(again[(again.len() - 1) / 2].clone());
    }
    rows
}

/// One day's figures, kernels together.
#[derive(Debug)]
pub struct Record {
    /// In the order they were first measured, within a kernel.
    pub rows: Vec<Row>,
}

impl Record {
    /// None yet.
    pub fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// What [`csv`](Self::csv) wrote.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = text.lines();
        match lines.next() {
            Some(HEADER) => Ok(Self { rows: lines.map(Row::parse).collect::<Result<_, _>>()? }),
            _ => Err(format!("a record begins with {HEADER}")),
        }
    }

    /// Takes figures in; one that was there already is replaced.
    pub fn merge(&mut self, rows: Vec<Row>) {
        for row in rows {
            if let Some(old) = self.rows.iter_mut().find(|old| old.is_again(&row)) {
                *old = row;
                continue;
            }
            let after = self.rows.iter().rposition(|old| old.kernel == row.kernel);
            self.rows.insert(after.map_or(self.rows.len(), |at| at + 1), row);
        }
    }

    /// Gives rows that came without a peak (other programs' do) the machine's own.
    pub fn complete(&mut self) {
        let peaks: Vec<Row> = self.of("peaks").cloned().collect();
        for row in self.rows.iter_mut().filter(|row| row.peak.is_none()) {
            let same = |peak: &&Row| peak.unit == row.unit && peak.threads == row.threads;
            row.peak = peaks.iter().find(same).map(|peak| peak.figure);
            row.share = row.peak.map(|peak| (row.figure / peak * 1000.0).round() / 1000.0);
        }
    }

    /// As the file holds it.
    pub fn csv(&self) -> String {
        let mut text = format!("{HEADER}\n");
        for row in &self.rows {
            text += &row.csv();
            text.push('\n');
        }
        text
    }

    /// The kernels, in order.
    pub fn kernels(&self) -> Vec<&str> {
        let mut kernels: Vec<&str> = self.rows.iter().map(|row| row.kernel.as_str()).collect();
        kernels.dedup();
        kernels
    }

    /// The threads of the machine: the most that the peaks were measured with.
    pub fn threads_max(&self) -> u32 {
        let all = || self.rows.iter().map(|row| row.threads).max();
        self.of("peaks").map(|row| row.threads).max().or_else(all).unwrap_or(1)
    }

    /// The level that the peaks were measured at: the machine's best. Of a day on which none
    /// were, that of the first figure.
    pub fn best_level(&self) -> &str {
        let first = self.of("peaks").next().or(self.rows.first());
        first.map_or("", |row| &row.level)
    }

    /// The rows of a kernel.
    pub fn of<'a>(&'a self, kernel: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.kernel == kernel)
    }
}

/// The newest figures of every machine, its newest day first: its name, the day, what was
/// measured then and on no later day.
pub fn newest(root: &Path) -> Result<Vec<(String, String, Record)>, String> {
    let entries = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        paths.sort();
        paths
    };
    let name = |part: Option<&std::ffi::OsStr>| {
        part.map(|part| part.to_string_lossy().into_owned()).unwrap_or_default()
    };
    let mut found = Vec::new();
    for folder in entries(&root.join(FOLDER)) {
        let mut known = Vec::new();
        // Dates sort as text.
        for path in entries(&folder).into_iter().rev() {
            let mut record = Record::parse(&super::text(&path)?)?;
            record.rows.retain(|row| row.kernel == "peaks" || !known.contains(&row.kernel));
            let kernels = record.kernels().into_iter().filter(|kernel| *kernel != "peaks");
            let kernels: Vec<String> = kernels.map(str::to_owned).collect();
            if !kernels.is_empty() {
                known.extend(kernels);
                found.push((name(folder.file_name()), name(path.file_stem()), record));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{Record, figures, medians};

    #[test]
    fn of_several_runs_the_row_with_the_middle_share_counts() {
        let run = |figure: u32, share: f32| {
            let a = format!("figure norm,a,avx2,2,100,64,GB/s read,{figure},40,{share}");
            let peak = format!("figure peaks,read,avx2,2,,,GB/s read,{figure},{figure},1");
            figures(&[a, peak]).expect("two figures")
        };
        let rows = medians(&[run(7, 0.5), run(9, 0.25), run(8, 0.75)]);
        let kept: Vec<_> = rows.iter().map(|row| (&*row.shape, row.figure)).collect();
        assert_eq!(kept, [("a", 7.0), ("read", 8.0)]);
    }

    #[test]
    fn a_figure_measured_again_replaces_the_old_one_and_keeps_its_place() {
        let line = |shape: &str, figure: u32| {
            format!("figure norm,{shape},avx2,2,100,64,GB/s read,{figure},40,0.5")
        };
        let lines = [line("a", 1), "noise".into(), line("b", 2)];
        let mut record = Record::new();
        record.merge(figures(&lines).expect("two figures"));
        record.merge(figures(&[line("a", 3)]).expect("one figure"));
        let again = Record::parse(&record.csv()).expect("its own text");
        assert_eq!(again.rows, record.rows);
        let kept: Vec<_> = again.rows.iter().map(|row| (&*row.shape, row.figure)).collect();
        assert_eq!(kept, [("a", 3.0), ("b", 2.0)]);
    }
}
