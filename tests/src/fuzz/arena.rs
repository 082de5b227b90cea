//! Buffers taken, written, read and given back in any order, with stale ids and
//! ranges beyond the end among them: the backend must answer as a plain list of
//! vectors would.

use super::Input;
use backends::cpu::Cpu;
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Launch, Program, Slice};
use kernels_core::simd::Level;
use std::sync::Arc;

/// Steps of one input at most.
const STEPS_MAX: usize = 64;

/// What a buffer should hold.
struct Held {
    buffer: Buffer,
    bytes: Vec<u8>,
    imported: bool,
}

struct State {
    cpu: Cpu,
    /// No commands: a launch of it only writes and reads.
    nothing: Program,
    held: Vec<Held>,
    released: Vec<Buffer>,
}

/// One input: a step for each byte that is not an argument of the step before.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut cpu = Cpu::new(Level::best(), 1);
    let nothing = cpu.record(&[]).expect("no commands are good commands");
    let mut state = State { cpu, nothing, held: Vec::new(), released: Vec::new() };
    for _ in 0..STEPS_MAX {
        let Some(step) = input.step() else { break };
        match step % 6 {
            0 => state.alloc(u64::from(input.below(300))),
            1 => state.import(input.below(300) as usize, input.byte()),
            2 => state.write(&mut input),
            3 => state.read(&mut input),
            4 => state.release(&mut input),
            _ => state.use_stale(&mut input),
        }
        let own = state.held.iter().filter(|held| !held.imported);
        let expected: u64 = own.map(|held| held.bytes.len() as u64).sum();
        assert_eq!(state.cpu.allocated_bytes(), expected, "bytes are counted");
    }
}

impl State {
    fn alloc(&mut self, bytes: u64) {
        let buffer = self.cpu.alloc(bytes).expect("there is memory");
        self.held.push(Held { buffer, bytes: vec![0; bytes as usize], imported: false });
    }

    fn import(&mut self, len: usize, value: u8) {
        let bytes = vec![value; len];
        let buffer = self.cpu.import(Arc::new(bytes.clone())).expect("imports are kept");
        self.held.push(Held { buffer, bytes, imported: true });
    }

    fn write(&mut self, input: &mut Input<'_>) {
        let Some((at, slice)) = self.any_slice(input) else { return };
        let given = input.below(40) as usize;
        let bytes = vec![input.byte(); given];
        let held = &mut self.held[at];
        let range = within(slice, &held.bytes);
        let good = !held.imported && given as u64 == slice.bytes;
        let outcome = self.cpu.write(slice, &bytes);
        match range.filter(|_| good) {
            Some(range) => {
                outcome.expect("a good write");
                held.bytes[range].copy_from_slice(&bytes);
            }
            None => drop(outcome.expect_err("a bad write is refused")),
        }
    }

    fn read(&mut self, input: &mut Input<'_>) {
        let Some((at, slice)) = self.any_slice(input) else { return };
        let expected = within(slice, &self.held[at].bytes);
        let expected = expected.map(|range| self.held[at].bytes[range].to_vec());
        assert_eq!(self.launch(slice).ok(), expected, "a read gives what was written");
    }

    fn release(&mut self, input: &mut Input<'_>) {
        if self.held.is_empty() {
            return;
        }
        let held = self.held.swap_remove(input.below(self.held.len() as u32) as usize);
        self.cpu.release(held.buffer).expect("a buffer is released once");
        self.released.push(held.buffer);
    }

    fn use_stale(&mut self, input: &mut Input<'_>) {
        if self.released.is_empty() {
            return;
        }
        let buffer = self.released[input.below(self.released.len() as u32) as usize];
        let slice = Slice { buffer, offset: 0, bytes: 0 };
        assert!(self.cpu.write(slice, &[]).is_err(), "a stale buffer is not written");
        assert!(self.launch(slice).is_err(), "a stale buffer is not read");
        assert!(self.cpu.release(buffer).is_err(), "a stale buffer is not released");
    }

    /// Reads a slice the way programs' results are read.
    fn launch(&mut self, slice: Slice) -> Result<Vec<u8>, Error> {
        let launch = Launch { writes: &[], program: self.nothing, reads: &[slice] };
        let ticket = self.cpu.submit(launch)?;
        let mut bytes = vec![0; slice.bytes as usize];
        self.cpu.collect(ticket, &mut bytes)?;
        assert!(self.cpu.collect(ticket, &mut bytes).is_err(), "a ticket is collected once");
        Ok(bytes)
    }

    /// A buffer in use and a slice of it that may reach beyond its end.
    fn any_slice(&self, input: &mut Input<'_>) -> Option<(usize, Slice)> {
        let count = self.held.len() as u32;
        let at = (count > 0).then(|| input.below(count) as usize)?;
        let offset = match input.byte() {
            255 => u64::MAX,
            offset => u64::from(offset),
        };
        let bytes = u64::from(input.below(40));
        Some((at, Slice { buffer: self.held[at].buffer, offset, bytes }))
    }
}

/// The slice as a range, if it lies within the bytes.
fn within(slice: Slice, bytes: &[u8]) -> Option<std::ops::Range<usize>> {
    let end = slice.offset.checked_add(slice.bytes)?;
    (end <= bytes.len() as u64).then_some(slice.offset as usize..end as usize)
}
