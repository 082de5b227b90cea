//! `pagewise demo`: a kernel on this machine, checked, timed, and held against the
//! machine's own memory.

mod attention;

use crate::backend::{self, Machine};
use crate::config;
use kernels_core::device::{Backend, Launch, Program};
use std::fmt;
use std::io::{self, Write};
use std::time::{Duration, Instant};

/// Memory that the kernel walks through: large enough to lie in no cache.
const BYTES: u64 = 1 << 30;
/// Of the free memory, at most this part is taken.
const FREE_PART: u64 = 4;
/// Times of one call are collected for so long.
const MEASURE: Duration = Duration::from_secs(2);
/// And at least so many.
const CALLS_LEAST: usize = 5;

/// Why a demo ended.
#[derive(Debug)]
pub enum Failure {
    /// Its output could not be written.
    Output(io::Error),
    /// The machine has no such memory.
    Memory(io::Error),
    /// The device is not there.
    Device(backend::Refused),
    /// A kernel refused its call.
    Kernel(kernels_core::Error),
    /// A kernel's answer was wrong.
    Wrong(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Output(error) => write!(f, "the output cannot be written: {error}"),
            Failure::Memory(error) => write!(f, "there is no memory: {error}"),
            Failure::Device(refused) => write!(f, "{refused}"),
            Failure::Kernel(error) => write!(f, "{error}"),
            Failure::Wrong(what) => write!(f, "wrong answer: {what}"),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Failure::Output(error)
    }
}

impl From<backend::Refused> for Failure {
    fn from(refused: backend::Refused) -> Self {
        Failure::Device(refused)
    }
}

impl From<kernels_core::Error> for Failure {
    fn from(error: kernels_core::Error) -> Self {
        Failure::Kernel(error)
    }
}

/// A recorded call that reads its buffers once.
struct Call {
    program: Program,
    /// What it is, in a line.
    title: String,
    /// Bytes that it reads from memory.
    bytes: u64,
    /// What was compared with what, in a line.
    checked: String,
}

/// Runs it, telling `out`.
pub fn run(settings: &config::Machine, out: &mut impl Write) -> Result<(), Failure> {
    let mut machine = Machine::open(settings)?;
    writeln!(out, "machine   {}", machine.describe())?;
    out.flush()?;
    let bytes = machine.available_bytes().map_or(BYTES, |free| free / FREE_PART).min(BYTES);
    let call = attention::prepare(machine.backend(), bytes)?;
    writeln!(out, "kernel    {}", call.title)?;
    writeln!(out, "checked   {}", call.checked)?;
    out.flush()?;
    let seconds = time(machine.backend(), call.program)?;
    let rate = call.bytes as f64 / seconds;
    writeln!(out, "timed     {:.2} ms a call, {:.1} GB/s read", seconds * 1e3, rate * 1e-9)?;
    out.flush()?;
    if let Some(peak) = machine.read_bandwidth(bytes as usize).map_err(Failure::Memory)? {
        let (share, peak) = (rate / peak * 100.0, peak * 1e-9);
        writeln!(out, "share     {share:.0} % of the {peak:.1} GB/s that this machine reads")?;
    }
    writeln!(out)?;
    writeln!(out, "next      pagewise demo --level scalar     the same bits, slowly")?;
    writeln!(out, "          pagewise demo --threads 1        on one thread")?;
    writeln!(out, "          cargo bench -p pagewise-benches  every kernel, with its share")?;
    Ok(())
}

/// The median time of a call.
fn time(backend: &mut dyn Backend, program: Program) -> Result<f64, Failure> {
    let start = Instant::now();
    let mut times = Vec::new();
    while times.len() < CALLS_LEAST || start.elapsed() < MEASURE {
        let call = Instant::now();
        let ticket = backend.submit(Launch { writes: &[], program, reads: &[] })?;
        backend.collect(ticket, &mut [])?;
        times.push(call.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}
