//! Programs in which a command refuses what a step brings: it is told at collect as the CPU
//! tells it, commands after it do not run, and the next submission, with good data, does.
#![cfg(emulated)]

use backends::plugin::Plugin;
use emulator::seed;
use kernels_core::Error;
use kernels_core::command::{Host, Lay};
use kernels_core::device::{Backend, Command, Launch, Program, Slice};
use kernels_core::dtype::Dtype;
use kernels_core::gather::Gather;
use kernels_core::params;
use kernels_core::rope::Pairing;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::kv_pages::{Form, Pages};
use pagewise_tests::cases::{activation, append_kv, embed, gather, kv_copy, norm, pool, rope};
use pagewise_tests::harness::{Bytes, Case, Kernel, Machine, assert_same_bits};

/// What the witness copies to a buffer of zeros, unless it is stopped.
const WITNESS: [f32; 4] = [1.0, 2.0, 3.0, 4.0];

/// A command with a witness after it, recorded when it first runs and submitted each time.
struct Resubmitted {
    device: Plugin,
    recorded: Option<Recorded>,
    /// A program that touches nothing of the recorded one.
    idle: Program,
}

struct Recorded {
    program: Program,
    /// The command's buffers in the order in which they are laid out.
    slices: Vec<Slice>,
    /// What the witness writes.
    witnessed: Slice,
}

impl Resubmitted {
    fn new() -> Self {
        let mut device = Plugin::of_table(emulator::cuda(), 0).expect("the emulator is there");
        let (command, _) = witness(&mut device);
        let idle = device.record(&[command]).expect("a good command");
        Self { device, recorded: None, idle }
    }

    /// What the witness has written.
    fn witnessed(&mut self) -> [f32; 4] {
        let recorded = self.recorded.as_ref().expect("a command has run");
        let launch = Launch { writes: &[], program: self.idle, reads: &[recorded.witnessed] };
        let ticket = self.device.submit(launch).expect("a good launch");
        let mut got = [0f32; 4];
        self.device.collect(ticket, bytemuck::cast_slice_mut(&mut got)).expect("it runs");
        got
    }
}

impl Machine for Resubmitted {
    fn run<C: Kernel>(&mut self, mut command: C) -> Result<(), Error> {
        let known = self.recorded.as_ref().map_or(Vec::new(), |it| it.slices.clone());
        let mut laid =
            Laid { device: &mut self.device, known, laid: Vec::new(), written: Vec::new() };
        let made = command.lay(&mut laid);
        let Laid { laid, written, .. } = laid;
        if self.recorded.is_none() {
            let (witness, witnessed) = witness(&mut self.device);
            let program = self.device.record(&[made, witness])?;
            let slices = laid.iter().map(|(slice, _)| *slice).collect();
            self.recorded = Some(Recorded { program, slices, witnessed });
        }
        let recorded = self.recorded.as_ref().expect("it was recorded");
        assert_eq!(laid.len(), recorded.slices.len(), "the same buffers each time");
        let writes: Vec<(Slice, &[u8])> =
            laid.iter().map(|(slice, bytes)| (*slice, &bytes[..])).collect();
        let launch = Launch { writes: &writes, program: recorded.program, reads: &written };
        let ticket = self.device.submit(launch)?;
        let mut results = vec![0; written.iter().map(|slice| slice.bytes as usize).sum()];
        self.device.collect(ticket, &mut results)?;
        command.lay(&mut Back(&results, written[0]));
        Ok(())
    }
}

/// A command that copies [`WITNESS`], and the buffer that it copies to.
fn witness(device: &mut Plugin) -> (Command, Slice) {
    let (x, indices, mut out) = (Bytes::of(&WITNESS), Bytes::of(&[0u32]), Bytes::filled(16, 0));
    let params = params::Gather {
        x_row_stride: 4,
        out_row_stride: 4,
        x_rows: 1,
        rows_max: 1,
        columns: 4,
        dtype: params::DTYPE_F32,
    };
    let (x, indices, out) = (x.as_slice(), indices.as_slice(), out.as_mut_slice());
    let mut gather = Gather::<Host<'_>> { params, x, indices, out, rows: None };
    let mut laid = Laid { device, known: Vec::new(), laid: Vec::new(), written: Vec::new() };
    let command = Kernel::lay(&mut gather, &mut laid);
    (command, laid.written[0])
}

/// Lays buffers out on a device, or finds those that were laid out before.
struct Laid<'a> {
    device: &'a mut Plugin,
    known: Vec<Slice>,
    /// Every buffer, and what it is to hold.
    laid: Vec<(Slice, Vec<u8>)>,
    /// Those that are written.
    written: Vec<Slice>,
}

impl Lay for Laid<'_> {
    fn read(&mut self, bytes: &[u8]) -> Slice {
        let slice = self.known.get(self.laid.len()).copied().unwrap_or_else(|| {
            let buffer = self.device.alloc(bytes.len() as u64).expect("cases are small");
            Slice { buffer, offset: 0, bytes: bytes.len() as u64 }
        });
        self.device.write(slice, bytes).expect("the slice is its own");
        self.laid.push((slice, bytes.to_vec()));
        slice
    }

    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        let slice = self.read(bytes);
        self.written.push(slice);
        slice
    }
}

/// Takes results back, in the order in which buffers were laid out; of no use as a command.
struct Back<'a>(&'a [u8], Slice);

impl Lay for Back<'_> {
    fn read(&mut self, _bytes: &[u8]) -> Slice {
        self.1
    }

    fn write(&mut self, bytes: &mut [u8]) -> Slice {
        let (own, rest) = self.0.split_at(bytes.len());
        bytes.copy_from_slice(own);
        self.0 = rest;
        self.1
    }
}

/// The spoilt step is refused as on the CPU and stops what comes after it; the good one runs.
fn assert_refused<C: Case + Clone>(good: &C, spoil: impl Fn(&mut C)) {
    for schedule in 0..3 {
        seed(schedule);
        let mut bad = good.clone();
        spoil(&mut bad);
        let run = |case: &C| case.run(Level::best(), &Inline);
        let expected = run(&bad).expect_err("the CPU refuses it");
        let mut machine = Resubmitted::new();
        let told = bad.call(&mut machine).expect_err("the device refuses it");
        assert_eq!(told, expected, "{}", good.name());
        assert_eq!(machine.witnessed(), [0.0; 4], "{}: {told}", good.name());
        let answer = good.call(&mut machine);
        let answer = answer.unwrap_or_else(|error| panic!("{}: {error}", good.name()));
        assert_same_bits(&good.name(), &run(good).expect("a good call runs"), &answer);
        assert_eq!(machine.witnessed(), WITNESS, "{}", good.name());
    }
}

/// Few rows are checked by the blocks that use them, many by a launch before those.
const FEW_AND_MANY: [u32; 2] = [5, 700];

#[test]
fn norm_refuses_rows_beyond_its_capacity() {
    let shape = norm::Shape { rows: (4, Some(3)), ..norm::Shape::plain(4, 2, 24) };
    assert_refused(&shape.case(), |case| case.rows = Some(5));
}

#[test]
fn activation_refuses_rows_beyond_its_capacity() {
    let shape = activation::Shape { rows: (4, Some(3)), ..activation::Shape::plain(4, 24) };
    assert_refused(&shape.case(), |case| case.rows = Some(5));
}

#[test]
fn rope_refuses_positions_beyond_its_table() {
    for rows in FEW_AND_MANY {
        let shape = rope::Shape { rows: (rows, Some(rows)), ..rope::Shape::plain(rows, 2, 16, 16) };
        let good = shape.case();
        assert_refused(&good, |case| case.positions[3] = case.params.table_len);
        assert_refused(&good, |case| case.positions[1..].fill(u32::MAX));
        assert_refused(&good, |case| case.rows = Some(rows + 1));
    }
}

#[test]
fn gather_refuses_rows_that_are_not_there() {
    for rows in FEW_AND_MANY {
        let shape = gather::Shape { rows: (rows, Some(rows)), ..gather::Shape::plain(rows, 24) };
        let good = shape.case();
        assert_refused(&good, |case| case.indices[4] = case.params.x_rows);
        assert_refused(&good, |case| case.indices[2..].fill(u32::MAX));
        assert_refused(&good, |case| case.rows = Some(u32::MAX));
    }
}

#[test]
fn embed_refuses_tokens_beyond_its_table() {
    for rows in FEW_AND_MANY {
        let shape = embed::Shape { rows: (rows, Some(rows)), ..embed::Shape::plain(rows, 24) };
        let good = shape.case();
        assert_refused(&good, |case| case.tokens[0] = case.params.weight.outputs);
        assert_refused(&good, |case| case.tokens[1..].fill(u32::MAX));
        assert_refused(&good, |case| case.rows = Some(rows + 1));
    }
}

#[test]
fn pool_refuses_starts_that_fall_or_go_too_far() {
    for seqs in FEW_AND_MANY {
        let lens: Vec<u32> = (0..seqs).map(|seq| seq % 4).collect();
        let plain = pool::Shape::plain(&lens, 24, params::POOL_MEAN);
        let good = pool::Shape { seqs: Some(seqs), normalise: true, ..plain }.case();
        assert_refused(&good, |case| case.starts[3] = case.params.rows_max + 1);
        assert_refused(&good, |case| case.starts[2] = case.starts[4] + 1);
        assert_refused(&good, |case| case.starts[1..].fill(u32::MAX));
        assert_refused(&good, |case| case.seqs = Some(seqs + 1));
        let empty =
            pool::Shape { seqs: Some(0), ..pool::Shape::plain(&lens, 24, params::POOL_LAST) };
        assert_refused(&empty.case(), |case| case.starts[0] = u32::MAX);
    }
}

/// Pages of 16 tokens, enough for so many slots.
fn pages(slots: u32) -> Pages {
    Pages {
        form: Form::Native,
        pages: slots.div_ceil(16) + 1,
        page_len: 16,
        kv_heads: 1,
        head_dim: 16,
        dtype: Dtype::I4,
        token_scales: true,
    }
}

#[test]
fn append_kv_refuses_slots_that_are_not_there_or_named_twice() {
    // Slots are told apart in shared memory, and in the workspace where they are too many.
    for rows in [6, 600, 5000] {
        let plain = append_kv::Shape::plain(Dtype::I4, 16, 16);
        let rope = Some((Pairing::Neox, 16));
        let shape =
            append_kv::Shape { pages: pages(rows), rows: (rows, Some(rows)), rope, ..plain };
        let good = shape.case();
        let last = rows as usize - 1;
        assert_refused(&good, |case| case.slots[2][0] = case.params.kv.pages);
        assert_refused(&good, |case| case.slots[3][1] = 16);
        assert_refused(&good, |case| case.slots[1..].fill([u32::MAX; 2]));
        assert_refused(&good, |case| case.slots[last] = case.slots[1]);
        // The first that is named again is told, with the first that names it.
        assert_refused(&good, |case| {
            case.slots[last] = case.slots[0];
            case.slots[4] = case.slots[2];
            case.slots[5] = case.slots[2];
        });
        assert_refused(&good, |case| case.slots[3..].fill([0, 7]));
        assert_refused(&good, |case| case.rows = Some(rows + 1));
        assert_refused(&good, |case| {
            let table_len = case.params.table_len;
            case.turns.as_mut().expect("keys turn").1[last] = table_len;
        });
    }
}

#[test]
fn append_kv_refuses_starts_that_fall_or_go_too_far() {
    let plain = append_kv::Shape::plain(Dtype::F16, 16, 16);
    let shape = append_kv::Shape { several: true, rows: (12, Some(12)), ..plain };
    let good = shape.case();
    let starts = |case: &mut append_kv::AppendKvCase, change: &dyn Fn(&mut [u32], u32)| {
        let slots_max = case.params.slots_max;
        change(case.slot_starts.as_mut().expect("rows have several slots"), slots_max);
    };
    assert_refused(&good, |case| starts(case, &|starts, most| starts[5] = most + 1));
    assert_refused(&good, |case| starts(case, &|starts, most| starts[2] = most));
    assert_refused(&good, |case| starts(case, &|starts, _| starts[1..].fill(u32::MAX)));
    // Slots before the first start are of no row.
    assert_refused(&good, |case| {
        starts(case, &|starts, _| {
            let first = starts[3];
            starts[..3].fill(first);
        });
        let used = case.slot_starts.as_ref().expect("they are there")[0] as usize;
        case.slots[..used].fill([u32::MAX; 2]);
        let last = case.slots.len() - 1;
        case.slots[last] = case.slots[used];
    });
}

#[test]
fn kv_copy_refuses_entries_that_leave_the_pages() {
    let entries = vec![[0, 0, 1, 0, 16], [0, 3, 2, 5, 4], [2, 5, 2, 6, 8], [1, 2, 0, 1, 3]];
    let shape = kv_copy::Shape { pages: pages(64), entries, count: Some(4), seed: 7 };
    let good = shape.case();
    for word in 0..5 {
        assert_refused(&good, |case| case.entries[2][word] = 17);
        assert_refused(&good, |case| case.entries[1][word] = u32::MAX);
    }
    assert_refused(&good, |case| case.entries[3] = [0, 10, 0, 0, 7]);
    assert_refused(&good, |case| case.count = Some(5));
}
