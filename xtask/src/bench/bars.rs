//! What the figures must reach: `benches/bars.csv`, one bar a line.
//!
//! `measure` says what is compared, always at the machine's best level:
//! - `share`: the share of the machine's peak, with all threads;
//! - `than X>Y`: how many times more the shape does than the one named with Y for X;
//! - `threads`: the share with all threads over the share with one.
//!
//! Of all shapes that fit the pattern the worst counts.

use super::record::{Record, Row};
use std::path::Path;

const PATH: &str = "benches/bars.csv";
const HEADER: &str = "work,kernel,shape,measure,bar";

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What is done, in words.
    pub work: String,
    /// The kernel's stem.
    pub kernel: String,
    /// The shapes it holds for: a pattern in which `*` stands for anything.
    pub shape: String,
    /// What is compared.
    pub measure: Measure,
    /// The least it must be.
    pub bar: f64,
}

/// What a bar compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Figure over peak.
    Share,
    /// Figure over that of another shape, whose name has the second for the first.
    Than(String, String),
    /// Share with all threads over share with one.
    Threads,
}

/// All bars.
pub fn read(root: &Path) -> Result<Vec<Bar>, String> {
    let text = super::text(&root.join(PATH))?;
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Err(format!("{PATH} begins with {HEADER}"));
    }
    lines.map(|line| parse(line).ok_or_else(|| format!("{PATH}: not a bar: {line}"))).collect()
}

fn parse(line: &str) -> Option<Bar> {
    let fields: Vec<&str> = line.split(',').collect();
    let [work, kernel, shape, measure, bar] = fields[..].try_into().ok()?;
    let measure = match measure {
        "share" => Measure::Share,
        "threads" => Measure::Threads,
        other => {
            let (from, to) = other.strip_prefix("than ")?.split_once('>')?;
            Measure::Than(from.into(), to.into())
        }
    };
    Some(Bar {
        work: work.into(),
        kernel: kernel.into(),
        shape: shape.into(),
        measure,
        bar: bar.parse().ok()?,
    })
}

impl Bar {
    /// The worst figure of its shapes and that shape; none if none was measured.
    pub fn reached<'a>(&self, record: &'a Record) -> Option<(f64, &'a str)> {
        let most = record.threads_max();
        let level = record.best_level();
        let ours = |row: &&Row| self.names(row) && row.level == level && row.threads == most;
        let rows = record.rows.iter().filter(ours);
        let values = rows.filter_map(|row| Some((self.value(row, record)?, row.shape.as_str())));
        values.min_by(|a, b| a.0.total_cmp(&b.0))
    }

    /// Whether it holds for the shape of a row.
    pub fn names(&self, row: &Row) -> bool {
        fits(&self.kernel, &row.kernel) && fits(&self.shape, &row.shape)
    }

    fn value(&self, row: &Row, record: &Record) -> Option<f64> {
        let other = |shape: &str, threads: u32| {
            let same = |other: &&Row| {
                other.shape == shape && other.level == row.level && other.threads == threads
            };
            record.of(&row.kernel).find(same)
        };
        match &self.measure {
            Measure::Share => row.share,
            Measure::Threads => Some(row.share? / other(&row.shape, 1)?.share?),
            Measure::Than(from, to) => {
                let than = other(&row.shape.replace(from, to), row.threads)?;
                Some(than.median_ns? / row.median_ns?)
            }
        }
    }
}

/// Whether a text is of a pattern in which `*` stands for anything.
fn fits(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|text| {
            let ends = text.char_indices().map(|(at, _)| at).chain([text.len()]);
            ends.into_iter().any(|at| fits(rest, &text[at..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::{fits, parse};
    use crate::bench::record::Record;

    #[test]
    fn a_star_stands_for_anything() {
        assert!(fits("m1 * i4-g32", "m1 2048x5632 i4-g32"));
        assert!(fits("*", ""));
        assert!(!fits("m1 *", "m12 2048x5632"));
        assert!(!fits("m1 * i4", "m1 2048x5632 i4-g32"));
    }

    #[test]
    fn the_worst_shape_counts() {
        let record = Record::parse(concat!(
            "kernel,shape,level,threads,median_ns,work,unit,figure,peak,share\n",
            "peaks,read,avx2,1,,,GB/s read,20,20,1\n",
            "peaks,read,avx2,2,,,GB/s read,40,40,1\n",
            "a,d64 f16,avx2,2,100,1,GB/s read,36,40,0.9\n",
            "a,d64 f16,avx2,1,200,1,GB/s read,19,20,0.95\n",
            "a,d64 i8,avx2,2,80,1,GB/s read,32,40,0.8\n",
        ))
        .expect("a record");
        let reached = |line: &str| parse(line).expect("a bar").reached(&record).map(|best| best.0);
        assert_eq!(reached("both,a,d64 *,share,0.8"), Some(0.8));
        assert_eq!(reached("i8,a,* i8,than i8>f16,1.2"), Some(1.25));
        assert_eq!(reached("two,a,*,threads,0.9"), Some(0.9 / 0.95));
        assert_eq!(reached("none,b,*,share,0.9"), None);
    }
}
