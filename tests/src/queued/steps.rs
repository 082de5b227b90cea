//! Steps of a small program: rows of a matrix are picked and added to a sum, which is normed.
//! Each has the CPU's answer.

use super::Watch;
use crate::harness::Noise;
use backends::cpu::Cpu;
use backends::plugin::Plugin;
use kernels_core::Error;
use kernels_core::device::{
    Backend, Buffer, Command, Launch, Program, Read, Slice, Ticket, Update, Write,
};
use kernels_core::gather::Gather;
use kernels_core::norm::Norm;
use kernels_core::params;
use kernels_core::simd::Level;
use std::sync::Arc;

/// Rows of a matrix.
pub const ROWS: u32 = 4;
/// Its columns.
pub const COLUMNS: u32 = 8;
/// Bytes of a matrix.
pub const MATRIX: usize = (ROWS * COLUMNS * 4) as usize;
/// Bytes of the numbers of its rows.
pub const INDICES: usize = (ROWS * 4) as usize;

/// The CPU.
pub fn cpu() -> Cpu {
    Cpu::new(Level::best(), 1)
}

/// A buffer of so many bytes.
pub fn all_of(buffer: Buffer, bytes: usize) -> Slice {
    Slice { buffer, offset: 0, bytes: bytes as u64 }
}

/// `out[r] = x[indices[r]]`.
pub fn gather(x: Buffer, indices: Buffer, out: Buffer) -> Command {
    let params = params::Gather {
        x_row_stride: COLUMNS.into(),
        out_row_stride: COLUMNS.into(),
        x_rows: ROWS,
        rows_max: ROWS,
        columns: COLUMNS,
        dtype: params::DTYPE_F32,
    };
    let (x, out) = (Read(all_of(x, MATRIX)), Write(all_of(out, MATRIX)));
    Gather { params, x, indices: Read(all_of(indices, INDICES)), out, rows: None }.into()
}

/// `sum += x`, and the norm of it: another order gives another sum.
pub fn add(x: Buffer, weight: Buffer, sum: Buffer, out: Buffer) -> Command {
    let stride = u64::from(COLUMNS);
    let params = params::Norm {
        x_row_stride: stride,
        residual_row_stride: stride,
        out_row_stride: stride,
        rows_max: ROWS,
        heads: 1,
        columns: COLUMNS,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_F32,
        out_dtype: params::DTYPE_F32,
        epsilon: 1e-6,
        ..Default::default()
    };
    Norm {
        params,
        x: Read(all_of(x, MATRIX)),
        weight: Read(all_of(weight, (COLUMNS * 4) as usize)),
        residual: Some(Update(all_of(sum, MATRIX))),
        out: Write(all_of(out, MATRIX)),
        rows: None,
    }
    .into()
}

/// So many numbers.
pub fn floats(noise: &mut Noise, count: u32) -> Vec<u8> {
    bytemuck::cast_slice(&noise.normals(count as usize, 1.0)).to_vec()
}

/// Inputs of a step, and what comes of them.
pub struct Step {
    /// The matrix.
    pub x: Vec<u8>,
    /// `[ROWS]` u32: the rows that are picked.
    pub indices: Vec<u8>,
    sum: Vec<u8>,
    /// The sum and its norm afterwards.
    pub answer: Vec<u8>,
}

/// Weights and steps with the CPU's answers.
pub fn steps(noise: &mut Noise, count: usize) -> (Vec<u8>, Vec<Step>) {
    let weight = floats(noise, COLUMNS);
    let step = |noise: &mut Noise| {
        let mut cpu = cpu();
        let (x, sum) = (floats(noise, ROWS * COLUMNS), floats(noise, ROWS * COLUMNS));
        let indices = bytemuck::cast_slice(&noise.permutation(ROWS)).to_vec();
        let mut step = Step { x, indices, sum, answer: vec![0; 2 * MATRIX] };
        let buffers = made(&mut cpu, &weight).expect("the CPU has them");
        let program = cpu.record(&commands(&buffers)).expect("the CPU has these");
        let ticket = submit(&mut cpu, &buffers, program, &step).expect("a good step");
        cpu.collect(ticket, &mut step.answer).expect("a good step");
        step
    };
    let steps = (0..count).map(|_| step(noise)).collect();
    (weight, steps)
}

/// The weight, x, its rows' numbers, the rows, the sum and the norm.
pub fn made(backend: &mut dyn Backend, weight: &[u8]) -> Result<Vec<Buffer>, Error> {
    let weight = backend.import(Arc::new(weight.to_vec()))?;
    let sizes = [MATRIX, INDICES, MATRIX, MATRIX, MATRIX];
    let others = sizes.into_iter().map(|bytes| backend.alloc(bytes as u64));
    std::iter::once(Ok(weight)).chain(others).collect()
}

/// The program, on what was made.
pub fn commands(buffers: &[Buffer]) -> [Command; 2] {
    let [weight, x, indices, rows, sum, out] = *buffers else { panic!("they are six") };
    [gather(x, indices, rows), add(rows, weight, sum, out)]
}

/// Submits the program with a step's inputs; both results are read.
pub fn submit(
    backend: &mut dyn Backend,
    buffers: &[Buffer],
    program: Program,
    step: &Step,
) -> Result<Ticket, Error> {
    let writes = [
        (all_of(buffers[1], MATRIX), &step.x[..]),
        (all_of(buffers[2], INDICES), &step.indices[..]),
        (all_of(buffers[4], MATRIX), &step.sum[..]),
    ];
    let reads = [all_of(buffers[4], MATRIX), all_of(buffers[5], MATRIX)];
    backend.submit(Launch { writes: &writes, program, reads: &reads })
}

/// A device with memory and a program on it, that has good steps.
pub struct Ready {
    /// The device.
    pub device: Plugin,
    /// What is seen of it.
    pub watch: Watch,
    /// As they are [`made`].
    pub buffers: Vec<Buffer>,
    /// On those.
    pub program: Program,
    /// Three of them.
    pub steps: Vec<Step>,
}

impl Ready {
    /// One that puts off by this seed.
    pub fn new(seed: u64) -> Self {
        let (weight, steps) = steps(&mut Noise::new(seed), 3);
        let (watch, mut device) = Watch::opened(seed);
        let buffers = made(&mut device, &weight).expect("nothing fails");
        let program = device.record(&commands(&buffers)).expect("good commands");
        Self { device, watch, buffers, program, steps }
    }

    /// Submits one of its steps.
    pub fn submit(&mut self, at: usize) -> Result<Ticket, Error> {
        let Self { device, buffers, program, steps, .. } = self;
        submit(device, buffers, *program, &steps[at])
    }

    /// The ticket is of that step, and has its answer.
    pub fn assert_collects(&mut self, ticket: Ticket, at: usize) {
        let mut got = vec![0; 2 * MATRIX];
        self.device.collect(ticket, &mut got).expect("a good step");
        assert!(got == self.steps[at].answer, "step {at}");
    }
}
