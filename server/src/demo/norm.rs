//! Norm of many rows, written over a few: memory is mostly read.

use super::{Call, Failure};
use kernels_core::device::{Backend, Launch, Read, Slice, Write};
use kernels_core::norm::{self, Norm};
use kernels_core::params;

const COLUMNS: u64 = 4096;
/// Rows compared with the specification.
const CHECKED: u64 = 4;
/// Differences allowed, relative to the largest number: a few roundings.
const TOLERANCE: f64 = 1e-6;

/// Fills the memory, records the call, runs it once and checks it.
pub(super) fn prepare(backend: &mut dyn Backend, bytes: u64) -> Result<Call, Failure> {
    let rows = (bytes / 2 / (4 * COLUMNS)).clamp(CHECKED, 1 << 20);
    let mut slice = |bytes| -> Result<Slice, Failure> {
        Ok(Slice { buffer: backend.alloc(bytes)?, offset: 0, bytes })
    };
    let row_bytes = 4 * COLUMNS;
    let (x, weight) = (slice(rows * row_bytes)?, slice(row_bytes)?);
    let out = slice(rows * row_bytes)?;
    let values: Vec<f32> = (0..COLUMNS).map(|i| (i * 37 % 101) as f32 / 50.0 - 1.0).collect();
    for row in 0..rows {
        let to = Slice { offset: row * row_bytes, bytes: row_bytes, ..x };
        backend.write(to, bytes_of(&values))?;
    }
    backend.write(weight, bytes_of(&values))?;
    let params = params::Norm {
        x_row_stride: COLUMNS,
        out_row_stride: COLUMNS,
        rows_max: rows as u32,
        heads: 1,
        columns: COLUMNS as u32,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_F32,
        out_dtype: params::DTYPE_F32,
        epsilon: 1e-5,
        ..Default::default()
    };
    let norm = Norm {
        params,
        x: Read(x),
        weight: Read(weight),
        residual: None,
        out: Write(out),
        rows: None,
    };
    let program = backend.record(&[norm.into()])?;
    let first = Slice { bytes: CHECKED * row_bytes, ..out };
    let ticket = backend.submit(Launch { writes: &[], program, reads: &[first] })?;
    let mut got = vec![0u8; first.bytes as usize];
    backend.collect(ticket, &mut got)?;
    let exact: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    let truth = norm::spec(&exact, &exact, f64::from(params.epsilon), 0.0);
    let most = truth.iter().fold(0f64, |most, v| most.max(v.abs()));
    for (at, got) in got.chunks_exact(4).enumerate() {
        let got = f64::from(f32::from_le_bytes([got[0], got[1], got[2], got[3]]));
        let truth = truth[at % COLUMNS as usize];
        if (got - truth).abs() > TOLERANCE * most {
            return Err(Failure::Wrong(format!("norm gave {got} for {truth}")));
        }
    }
    Ok(Call {
        program,
        title: format!("norm of {rows} rows of {COLUMNS} f32, {} MB", (rows * row_bytes) >> 20),
        bytes: rows * row_bytes,
        checked: format!("{CHECKED} rows against the specification in f64"),
    })
}

fn bytes_of(values: &[f32]) -> &[u8] {
    bytemuck::cast_slice(values)
}
