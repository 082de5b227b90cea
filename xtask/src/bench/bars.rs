//! What the figures must reach: `benches/bars.csv`, one bar a line.
//!
//! `measure` says what is compared, always at the machine's best level:
//! - `share`: the share of the machine's peak, with all threads;
//! - `than X>Y`: how many times less time the shape takes than the one named with Y for X,
//!   each in units of the peak that was measured beside it;
//! - `threads`: the share with all threads over the share with one;
//! - `parts A+B`: how much of the shape's time goes to the parts, each a shape named with
//!   A or B for its last word;
//! - `over PEER`: the figure over the best of the peer's, a rate;
//! - `under PEER`: the same of a time;
//! - `figure`: the figure itself;
//! - `least`: the same where more is better;
//! - `ns`: the time of a call;
//! - `spread`: the same over the least of all shapes of the bar.
//!
//! `parts`, `under`, `figure`, `ns` and `spread` are at most the bar, the others at least.
//!
//! A kernel of `cuda attention` is one that cards are held to, and no other machine.
//!
//! Of all shapes that fit the pattern the worst counts.

use super::record::{Record, Row};
use std::path::Path;

const PATH: &str = "benches/bars.csv";
const HEADER: &str = "work,kernel,shape,measure,bar";
/// Levels of devices begin so.
pub(super) const DEVICES: [&str; 2] = ["cuda-", "metal-"];

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar {
    /// What is done, in words.
    pub work: String,
    /// The kernel's stem.
    pub kernel: String,
    /// The devices it holds for, by how their levels begin; none: CPUs.
    pub device: Option<String>,
    /// The shapes it holds for: a pattern in which `*` stands for anything.
    pub shape: String,
    /// What is compared.
    pub measure: Measure,
    /// The least it must be; the most, of parts.
    pub bar: f64,
}

/// What a bar compares.
#[derive(Clone, Debug, PartialEq)]
pub enum Measure {
    /// Figure over peak.
    Share,
    /// Time of another shape, whose name has the second for the first, over this one's.
    Than(String, String),
    /// Share with all threads over share with one.
    Threads,
    /// Time of other shapes, whose names end in these words, over this one's.
    Parts(Vec<String>),
    /// Rate over the best of a peer's, whose level begins so.
    Over(String),
    /// Time over the least of a peer's.
    Under(String),
    /// The figure itself.
    Figure,
    /// The same where more is better.
    Least,
    /// Time of a call.
    Nanoseconds,
    /// Time of a call over the least of all shapes.
    Spread,
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
        "figure" => Measure::Figure,
        "least" => Measure::Least,
        "ns" => Measure::Nanoseconds,
        "spread" => Measure::Spread,
        other => match other.split_once(' ')? {
            ("parts", parts) => Measure::Parts(parts.split('+').map(str::to_owned).collect()),
            ("over", peer) => Measure::Over(peer.into()),
            ("under", peer) => Measure::Under(peer.into()),
            ("than", shapes) => {
                let (from, to) = shapes.split_once('>')?;
                Measure::Than(from.into(), to.into())
            }
            _ => return None,
        },
    };
    let (device, kernel) = kernel
        .split_once(' ')
        .map_or((None, kernel), |(device, kernel)| (Some(device.to_owned()), kernel));
    Some(Bar {
        work: work.into(),
        kernel: kernel.into(),
        device,
        shape: shape.into(),
        measure,
        bar: bar.parse().ok()?,
    })
}

impl Bar {
    /// The worst figure of its shapes and that shape; none if none was measured.
    pub fn reached<'a>(&self, record: &'a Record) -> Option<(f64, &'a str)> {
        let (most, level) = (record.threads_max(), record.best_level());
        // A plain figure may be one of a single thread.
        let alone = |row: &Row| {
            let same = |other: &&Row| other.kernel == row.kernel && other.shape == row.shape;
            let all = record.rows.iter().filter(same).map(|other| other.threads).max();
            self.measure == Measure::Figure && all == Some(row.threads)
        };
        let ours = |row: &&Row| {
            self.names(row) && row.level == level && (row.threads == most || alone(row))
        };
        let rows = record.rows.iter().filter(ours);
        let values = rows.filter_map(|row| Some((self.value(row, record)?, row.shape.as_str())));
        let worse = |a: f64, b: f64| if self.is_most() { b.total_cmp(&a) } else { a.total_cmp(&b) };
        values.min_by(|a, b| worse(a.0, b.0))
    }

    /// Whether such a figure reaches it.
    pub fn is_reached(&self, value: f64) -> bool {
        if self.is_most() { value <= self.bar } else { value >= self.bar }
    }

    /// Whether less is better.
    pub fn is_most(&self) -> bool {
        use Measure::{Figure, Nanoseconds, Parts, Spread, Under};
        matches!(self.measure, Parts(_) | Under(_) | Figure | Nanoseconds | Spread)
    }

    /// Whether it holds for a machine of which something of its kernel was measured.
    pub fn is_of(&self, record: &Record) -> bool {
        let level = record.best_level();
        let here = match &self.device {
            Some(device) => {
                level.strip_prefix(device.as_str()).is_some_and(|it| it.starts_with('-'))
            }
            None => !DEVICES.iter().any(|device| level.starts_with(device)),
        };
        here && record.of(&self.kernel).next().is_some()
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
                Some(than.median_ns? * than.peak? / (row.median_ns? * row.peak?))
            }
            Measure::Parts(parts) => {
                let (step, _) = row.shape.rsplit_once(' ')?;
                let part = |part| other(&format!("{step} {part}"), row.threads)?.median_ns;
                let spent: Option<f64> = parts.iter().map(part).sum();
                Some(spent? / row.median_ns?)
            }
            Measure::Over(name) => {
                Some(row.figure / peer(row, record, name).max_by(f64::total_cmp)?)
            }
            Measure::Under(name) => {
                Some(row.figure / peer(row, record, name).min_by(f64::total_cmp)?)
            }
            Measure::Figure | Measure::Least => Some(row.figure),
            Measure::Nanoseconds => row.median_ns,
            Measure::Spread => {
                let beside = |other: &&Row| {
                    let same = (&other.level, other.threads) == (&row.level, row.threads);
                    same && self.names(other)
                };
                let rows = record.rows.iter().filter(beside);
                let all: Vec<f64> = rows.filter_map(|other| other.median_ns).collect();
                // One alone says nothing.
                let least = all.iter().copied().min_by(f64::total_cmp).filter(|_| all.len() > 1);
                Some(row.median_ns? / least?)
            }
        }
    }
}

/// The figures of a peer, in any of its settings, for the same work.
fn peer<'a>(row: &'a Row, record: &'a Record, name: &'a str) -> impl Iterator<Item = f64> + 'a {
    let same = move |other: &&Row| {
        let named = other.level == name || other.level.starts_with(&format!("{name} "));
        named && other.shape == row.shape && other.threads == row.threads
    };
    record.of(&row.kernel).filter(same).map(|other| other.figure)
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
            "a,d64 i8,avx2,2,100,1,GB/s read,32,32,0.8\n",
            "step,m1 layer,avx2,2,400,1,items/s,1,,\n",
            "step,m1 norm,avx2,2,4,1,items/s,1,,\n",
            "step,m1 act,avx2,2,6,1,items/s,1,,\n",
            "step,m2 layer,avx2,2,400,1,items/s,1,,\n",
            "step,m2 norm,avx2,2,2,1,items/s,1,,\n",
            "step,m2 act,avx2,2,6,1,items/s,1,,\n",
        ))
        .expect("a record");
        let reached = |line: &str| parse(line).expect("a bar").reached(&record).map(|best| best.0);
        assert_eq!(reached("both,a,d64 *,share,0.8"), Some(0.8));
        assert_eq!(reached("i8,a,* i8,than i8>f16,1.2"), Some(1.25));
        assert_eq!(reached("two,a,*,threads,0.9"), Some(0.9 / 0.95));
        assert_eq!(reached("none,b,*,share,0.9"), None);
        let parts = "parts,step,* layer,parts norm+act,0.02";
        assert_eq!(reached(parts), Some(0.025));
        let bar = parse(parts).expect("a bar");
        assert!(bar.is_reached(0.02) && !bar.is_reached(0.025));
        assert_eq!(reached("parts,step,* layer,parts norm+gone,0.02"), None);
    }

    #[test]
    fn a_peer_counts_with_its_best_setting() {
        let record = Record::parse(concat!(
            "kernel,shape,level,threads,median_ns,work,unit,figure,peak,share\n",
            "peaks,read,avx2,2,,,GB/s read,40,40,1\n",
            "serving,T decode,avx2,2,,,tok/s,30,,\n",
            "serving,T decode,peer 0,2,,,tok/s,10,,\n",
            "serving,T decode,peer 1,2,,,tok/s,15,,\n",
            "serving,T decode,peerless,2,,,tok/s,99,,\n",
            "serving,T wait,avx2,2,,,ms,30,,\n",
            "serving,T wait,avx2,1,,,ms,70,,\n",
            "abi,call,avx2,1,,,ns,500,,\n",
            "serving,T wait,peer 0,2,,,ms,60,,\n",
            "serving,T wait,peer 1,2,,,ms,120,,\n",
        ))
        .expect("a record");
        let of = |line: &str| parse(line).expect("a bar");
        let reached = |line: &str| of(line).reached(&record).map(|best| best.0);
        assert_eq!(reached("rate,serving,T decode,over peer,1.8"), Some(2.0));
        assert_eq!(reached("wait,serving,T wait,under peer,0.5"), Some(0.5));
        assert_eq!(reached("wait,serving,T wait,figure,50"), Some(30.0));
        assert_eq!(reached("call,abi,call,figure,1000"), Some(500.0));
        assert_eq!(reached("none,serving,T decode,over nobody,1"), None);
        assert!(of("wait,serving,T wait,under peer,0.5").is_reached(0.4));
        assert!(!of("rate,serving,T decode,over peer,1.8").is_reached(1.7));
    }

    #[test]
    fn a_bar_of_cards_is_held_against_cards_alone() {
        let record = |level: &str| {
            let record = format!(
                "kernel,shape,level,threads,median_ns,work,unit,figure,peak,share\n\
                 peaks,copy,{level},1,,,GB/s copied,10,10,1\n\
                 attention,decode page 16,{level},1,100,,GB/s read,9,10,0.9\n\
                 attention,decode page 1,{level},1,125,,GB/s read,8,10,0.8\n"
            );
            Record::parse(&record).expect("a record")
        };
        let (card, cpu) = (record("cuda-sm90-2"), record("avx2"));
        let of = |line: &str| parse(line).expect("a bar");
        let [time, of_cpu] = ["cuda attention", "attention"]
            .map(|kernel| of(&format!("decode,{kernel},* page 1,ns,110")));
        assert!(time.is_of(&card) && !time.is_of(&cpu));
        assert!(of_cpu.is_of(&cpu) && !of_cpu.is_of(&card));
        assert_eq!(time.reached(&card).map(|best| best.0), Some(125.0));
        assert!(!time.is_reached(125.0) && time.is_reached(110.0));
        // Whichever of them is the slow one.
        let pages = of("pages,cuda attention,* page *,spread,1.15");
        assert_eq!(pages.reached(&card), Some((1.25, "decode page 1")));
        assert!(!pages.is_reached(1.25) && pages.is_reached(1.1));
        assert_eq!(of("pages,cuda attention,* page 1,spread,1.15").reached(&card), None);
    }

    #[test]
    fn a_figure_is_bounded_from_either_side() {
        let record = Record::parse(concat!(
            "kernel,shape,level,threads,median_ns,work,unit,figure,peak,share\n",
            "peaks,read,avx2,2,,,GB/s read,40,40,1\n",
            "serving,a,avx2,2,,,parts,0.9,,\n",
            "serving,b,avx2,2,,,parts,1.2,,\n",
        ))
        .expect("a record");
        for (measure, worst) in [("least", 0.9), ("figure", 1.2)] {
            let bar = parse(&format!("x,serving,*,{measure},1")).expect("a bar");
            let (reached, _) = bar.reached(&record).expect("measured");
            assert_eq!(reached, worst);
            assert!(!bar.is_reached(reached) && bar.is_reached(2.1 - worst));
        }
    }
}
