//! How long kernels take on a device, over the shapes that peers are timed on too.
//!
//! A program holds so many runs of the commands that one launch of its graph takes some
//! milliseconds; launches are submitted one after the other, and the last is waited for. What
//! that takes, by the host's clock, is divided by the runs: a run costs what it costs within a
//! graph, and the start of a launch is shared by all of its runs. The median of several such
//! samples counts. Runs find the cache as the run before has left it.

mod attention;
mod sampling;

use super::Device;
use super::record::Row;
use crate::harness::Laid;
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::device::{Backend, Command, Launch, Program, Slice};
use kernels_core::gather::Gather;
use kernels_core::params;
use std::fmt;
use std::time::Instant;

pub use attention::Attending;
pub use sampling::Sampling;

/// One launch takes about so long.
const LAUNCH_SECONDS: f64 = 2e-3;
/// A sample takes about so long.
const SAMPLE_SECONDS: f64 = 20e-3;
/// Runs in one program, and launches between two waits, at most.
const RUNS_MAX: f64 = 64.0;
const LAUNCHES_MAX: f64 = 16.0;
const SAMPLES: usize = 11;

/// What one run moves or computes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Work {
    /// Bytes read from memory.
    Read(u64),
    /// Operations: two for each product that is summed.
    Operations(u64),
}

impl Work {
    /// How many.
    pub const fn count(self) -> u64 {
        match self {
            Self::Read(count) | Self::Operations(count) => count,
        }
    }

    /// The unit of its rate, and how many make one of it.
    pub const fn unit(self) -> (&'static str, f64) {
        match self {
            Self::Read(_) => ("GB/s read", 1e9),
            Self::Operations(_) => ("TF/s bf16", 1e12),
        }
    }
}

/// Something that is timed.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Attention.
    Attending(Attending),
    /// A masked step of sampling.
    Sampling(Sampling),
}

impl Shape {
    /// Its kernel's stem.
    pub const fn kernel(&self) -> &'static str {
        match self {
            Self::Attending(_) => "attention",
            Self::Sampling(_) => "sample",
        }
    }

    /// Its name in a record: without commas.
    pub fn name(&self) -> String {
        match self {
            Self::Attending(shape) => shape.name(),
            Self::Sampling(shape) => shape.name(),
        }
    }

    /// What a run of it does.
    pub fn work(&self) -> Work {
        match self {
            Self::Attending(shape) => shape.work(),
            Self::Sampling(shape) => shape.work(),
        }
    }
}

/// Every shape; small ones that an emulator can run, too.
pub fn shapes(quick: bool) -> Vec<Shape> {
    let attending = attention::shapes(quick).into_iter().map(Shape::Attending);
    attending.chain(sampling::shapes(quick).into_iter().map(Shape::Sampling)).collect()
}

/// The first line of the page of shapes.
pub const SHAPES_HEADER: &str = "kernel,shape,what,seqs,rows,positions,q_heads,kv_heads,head_dim,\
    page_len,kv_dtype,vocab,top_k,top_p,work,unit";

/// A line of the page of shapes, from which peers make the same calls.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, work) = (self.name(), self.work());
        write!(f, "{},{name},", self.kernel())?;
        match self {
            Self::Attending(shape) => {
                let Attending { seqs, rows, positions, q_heads, kv_heads, .. } = shape;
                let Attending { head_dim, page_len, kv, .. } = shape;
                let (what, kv) = (shape.what(), kv.name());
                write!(f, "{what},{seqs},{rows},{positions},{q_heads},{kv_heads},{head_dim},")?;
                write!(f, "{page_len},{kv},,,")?;
            }
            Self::Sampling(Sampling { rows, vocab, top_k, top_p }) => {
                write!(f, "sample,,{rows},,,,,,,{vocab},{top_k},{top_p}")?;
            }
        }
        write!(f, ",{},{}", work.count(), work.unit().0)
    }
}

/// What is submitted, and what it writes.
struct Timed {
    commands: Vec<Command>,
    written: Vec<Slice>,
    slices: Vec<Slice>,
}

impl Timed {
    /// Lays commands out.
    fn on(device: &mut Device, lay: impl FnOnce(&mut Laid<'_>) -> Vec<Command>) -> Self {
        let mut laid = Laid::on(&mut device.plugin);
        let commands = lay(&mut laid);
        let written = laid.written.into_iter().map(|(slice, _)| slice).collect();
        Self { commands, written, slices: laid.slices }
    }

    /// What one run leaves in the buffers that it writes.
    fn answer(&self, device: &mut Device) -> Result<Vec<Vec<u8>>, Error> {
        let program = device.plugin.record(&self.commands)?;
        let bytes = self.written.iter().map(|slice| slice.bytes as usize);
        let mut all = vec![0; bytes.clone().sum()];
        let launch = Launch { writes: &[], program, reads: &self.written };
        let ticket = device.plugin.submit(launch)?;
        device.plugin.collect(ticket, &mut all)?;
        device.plugin.forget(program)?;
        let mut rest = &all[..];
        let parts = bytes.map(|bytes| {
            let (own, after) = rest.split_at(bytes);
            rest = after;
            own.to_vec()
        });
        Ok(parts.collect())
    }

    /// The seconds of one run.
    fn seconds(&self, device: &mut Device, quick: bool) -> Result<f64, Error> {
        let once = device.plugin.record(&self.commands)?;
        // The first launch of a graph takes longer.
        launches(device, once, 1)?;
        let alone = launches(device, once, 1)?;
        device.plugin.forget(once)?;
        let times = |of: f64, one: f64, most: f64| (of / one).clamp(1.0, most) as usize;
        let (runs, count, samples) = match quick {
            true => (2, 2, 3),
            false => {
                let runs = times(LAUNCH_SECONDS, alone, RUNS_MAX);
                let count = times(SAMPLE_SECONDS, alone * runs as f64, LAUNCHES_MAX);
                (runs, count, SAMPLES)
            }
        };
        let program = device.plugin.record(&self.commands.repeat(runs))?;
        // What is staged for so many launches is made by the first of them.
        launches(device, program, count)?;
        let mut seconds = Vec::new();
        for _ in 0..samples {
            seconds.push(launches(device, program, count)? / (count * runs) as f64);
        }
        device.plugin.forget(program)?;
        seconds.sort_by(f64::total_cmp);
        Ok(seconds[samples / 2])
    }

    /// Gives its memory back.
    fn release(self, device: &mut Device) -> Result<(), Error> {
        self.slices.iter().try_for_each(|slice| device.plugin.release(slice.buffer))
    }
}

/// The seconds of so many launches, all of them submitted before one is waited for.
fn launches(device: &mut Device, program: Program, count: usize) -> Result<f64, Error> {
    let start = Instant::now();
    let mut tickets = Vec::new();
    for _ in 0..count {
        let launch = Launch { writes: &[], program, reads: &[] };
        tickets.push(device.plugin.submit(launch)?);
    }
    tickets.into_iter().try_for_each(|ticket| device.plugin.collect(ticket, &mut []))?;
    Ok(start.elapsed().as_secs_f64())
}

/// Checks a run's answer, then times it.
///
/// # Panics
///
/// Where the answer is wrong, or the device fails.
pub fn time(device: &mut Device, shape: &Shape, quick: bool) -> Row {
    let seconds = match shape {
        Shape::Attending(shape) => attention::time(device, shape, quick),
        Shape::Sampling(shape) => sampling::time(device, shape, quick),
    };
    let seconds = seconds.unwrap_or_else(|error| panic!("{}: {error}", shape.name()));
    let work = shape.work();
    let (unit, many) = work.unit();
    Row {
        kernel: shape.kernel().to_owned(),
        shape: shape.name(),
        level: device.plugin.numerics().to_owned(),
        threads: 1,
        median_ns: Some((seconds * 1e9).round()),
        work: Some(work.count() as f64),
        unit: unit.to_owned(),
        figure: rounded(work.count() as f64 / seconds / many),
        peak: None,
        share: None,
    }
}

/// Opens a device and runs a small kernel on it: the milliseconds from the one to the other's
/// answer.
pub fn first_launch<E>(open: impl FnOnce() -> Result<Device, E>) -> Result<(Device, Row), E> {
    let start = Instant::now();
    let mut device = open()?;
    let copied = copy_of_one(&mut device);
    let took = start.elapsed().as_secs_f64() * 1e3;
    assert_eq!(copied, Ok(1.0), "the first kernel copies a number");
    let row = Row {
        kernel: "device".to_owned(),
        shape: "load to first launch".to_owned(),
        level: device.plugin.numerics().to_owned(),
        threads: 1,
        median_ns: None,
        work: None,
        unit: "ms".to_owned(),
        figure: rounded(took),
        peak: None,
        share: None,
    };
    Ok((device, row))
}

fn copy_of_one(device: &mut Device) -> Result<f32, Error> {
    let (one, index, mut out) = (1f32.to_ne_bytes(), 0u32.to_ne_bytes(), [0; 4]);
    let params = params::Gather {
        x_row_stride: 1,
        out_row_stride: 1,
        x_rows: 1,
        rows_max: 1,
        columns: 1,
        dtype: params::DTYPE_F32,
    };
    let mut gather =
        Gather::<Host<'_>> { params, x: &one, indices: &index, out: &mut out, rows: None };
    let timed = Timed::on(device, |laid| vec![gather.lay(laid).into()]);
    let answer = timed.answer(device)?;
    timed.release(device)?;
    let bits = answer[0][..].try_into().expect("four bytes are written");
    Ok(f32::from_ne_bytes(bits))
}

/// Rows that are not timed but follow from others: how much longer a mask of tree bits takes
/// than the causal one.
pub fn ratios(rows: &[Row]) -> Vec<Row> {
    let tree = |row: &&Row| row.shape.starts_with("tree ");
    let of = |tree: &Row| {
        let causal = tree.shape.replacen("tree ", "causal ", 1);
        let causal = rows.iter().find(|row| row.shape == causal)?;
        let parts = tree.median_ns? / causal.median_ns?;
        Some(Row {
            shape: tree.shape.replacen("tree ", "tree over causal ", 1),
            median_ns: None,
            work: None,
            unit: "parts".to_owned(),
            figure: rounded(parts),
            ..tree.clone()
        })
    };
    rows.iter().filter(tree).filter_map(of).collect()
}

/// Rounded to what a clock can say: four digits.
fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().expect("it is a number")
}
