//! Rows between the layers of a forward pass: each kind once, used by one layer after
//! the other.

use super::Capacity;
use super::config::{Config, Family};
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Slice};
use kernels_core::error::{Checks, Fault};

const CHECKS: Checks = Checks("scratch");

/// Turns that are made at once on their way to a backend.
const TURNS_AT_ONCE: usize = 1 << 20;

/// Memory of one forward pass; all rows are f32.
#[derive(Clone, Debug)]
pub struct Scratch {
    /// `[rows_max, hidden]`: hidden states, to which layers add.
    pub(super) hidden: Slice,
    /// `[rows_max, hidden]`: their norm, which products take; in the end, the result.
    pub(super) normed: Slice,
    /// `[rows_max, hidden]`: what a layer adds.
    pub(super) branch: Slice,
    /// `[rows_max, widest]`: queries, keys and values, or gate and up.
    pub(super) wide: Slice,
    /// `[rows_max, widest]`: what attention, or the gate, gives.
    pub(super) narrow: Slice,
    /// `[rows_max, q_width + kv_width]`: queries and keys after norms of their own.
    pub(super) heads: Option<Slice>,
    /// `[logit_rows_max, hidden]`: the rows whose logits are asked for.
    pub(super) gathered: Slice,
    /// `[logit_rows_max, vocab]`.
    pub(super) logits: Slice,
    /// `[max_len, head_dim]`: cosines, then sines, of each position.
    pub(super) turns: Slice,
    buffers: Vec<Buffer>,
}

impl Scratch {
    /// Room for forward passes of a model within a capacity.
    pub fn alloc(
        backend: &mut dyn Backend,
        config: &Config,
        capacity: &Capacity,
    ) -> Result<Self, Error> {
        let mut buffers = Vec::new();
        match alloc(backend, config, capacity, &mut buffers) {
            Ok(scratch) => Ok(Self { buffers, ..scratch }),
            Err(error) => {
                buffers.into_iter().try_for_each(|buffer| backend.release(buffer))?;
                Err(error)
            }
        }
    }

    /// Bytes that it takes.
    pub fn bytes(config: &Config, capacity: &Capacity) -> u64 {
        Widths::of(config)
            .rows
            .iter()
            .map(|width| 4 * width * u64::from(capacity.rows_max))
            .sum::<u64>()
            + 4 * u64::from(capacity.logit_rows_max) * u64::from(config.hidden + config.vocab)
            + 4 * u64::from(capacity.max_len) * u64::from(config.head_dim)
    }

    /// Gives the memory back.
    pub fn release(self, backend: &mut dyn Backend) -> Result<(), Error> {
        self.buffers.into_iter().try_for_each(|buffer| backend.release(buffer))
    }
}

/// Elements of each kind of row: hidden, normed, branch, wide, narrow, heads.
struct Widths {
    rows: [u64; 6],
}

impl Widths {
    fn of(config: &Config) -> Self {
        let (hidden, between) = (u64::from(config.hidden), u64::from(config.intermediate));
        let (q, kv) = (u64::from(config.q_width()), u64::from(config.kv_width()));
        let heads = if config.family == Family::Qwen3 { q + kv } else { 0 };
        let (wide, narrow) = ((q + 2 * kv).max(2 * between), q.max(between));
        Self { rows: [hidden, hidden, hidden, wide, narrow, heads] }
    }
}

fn alloc(
    backend: &mut dyn Backend,
    config: &Config,
    capacity: &Capacity,
    buffers: &mut Vec<Buffer>,
) -> Result<Scratch, Error> {
    let mut room = |rows: u32, width: u64| {
        let bytes = width.checked_mul(4 * u64::from(rows));
        let refused = CHECKS.refuse("rows_max", Fault::OutOfMemory { bytes: u64::MAX });
        let bytes = bytes.ok_or(refused)?;
        let buffer = backend.alloc(bytes)?;
        buffers.push(buffer);
        Ok::<_, Error>(Slice { buffer, offset: 0, bytes })
    };
    let [hidden, normed, branch, wide, narrow, heads] = Widths::of(config).rows;
    let (rows, logit_rows) = (capacity.rows_max, capacity.logit_rows_max);
    let scratch = Scratch {
        hidden: room(rows, hidden)?,
        normed: room(rows, normed)?,
        branch: room(rows, branch)?,
        wide: room(rows, wide)?,
        narrow: room(rows, narrow)?,
        heads: if heads > 0 { Some(room(rows, heads)?) } else { None },
        gathered: room(logit_rows, config.hidden.into())?,
        logits: room(logit_rows, config.vocab.into())?,
        turns: room(capacity.max_len, config.head_dim.into())?,
        buffers: Vec::new(),
    };
    fill_turns(backend, config, capacity, scratch.turns)?;
    Ok(scratch)
}

/// Writes cosines and sines of every position.
fn fill_turns(
    backend: &mut dyn Backend,
    config: &Config,
    capacity: &Capacity,
    to: Slice,
) -> Result<(), Error> {
    let table = config.table(capacity.max_len);
    let width = config.head_dim as usize;
    let (positions, at_once) = (capacity.max_len as usize, TURNS_AT_ONCE / width);
    let mut turns = vec![0f32; at_once.min(positions) * width];
    for first in (0..positions).step_by(at_once) {
        let turns = &mut turns[..at_once.min(positions - first) * width];
        table.fill(first as u32, turns)?;
        let bytes: &[u8] = bytemuck::cast_slice(turns);
        let offset = to.offset + (first * width * 4) as u64;
        backend.write(Slice { offset, bytes: bytes.len() as u64, ..to }, bytes)?;
    }
    Ok(())
}
