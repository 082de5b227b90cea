//! Programs of commands, most of them a little wrong: what one backend refuses so
//! does the other, by the same field; what both run gives the same memory, at the
//! scalar level on one thread and at the best level on two.

use super::Input;
use backends::cpu::Cpu;
use kernels_core::Error;
use kernels_core::device::{Backend, Buffer, Command, Launch, Read, Slice, Update, Write};
use kernels_core::norm::Norm;
use kernels_core::params;
use kernels_core::simd::Level;

/// Buffers that commands share, so that some overlap.
const BUFFERS: usize = 3;
const BUFFER_BYTES: u64 = 1024;
const COMMANDS_MAX: u32 = 5;

/// One input: the bytes of the buffers, then commands.
pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let fill = [input.byte(), input.byte(), input.byte()];
    let count = input.below(COMMANDS_MAX);
    let scalar = Level::named("scalar").expect("every machine has the scalar level");
    let outcomes = [(scalar, 1), (Level::best(), 2)].map(|(level, threads)| {
        let mut input = input;
        let mut cpu = Cpu::new(level, threads);
        let buffers = fill.map(|value| filled(&mut cpu, value));
        let commands: Vec<Command> = (0..count).map(|_| norm(&mut input, &buffers)).collect();
        memory_after(&mut cpu, &buffers, &commands)
    });
    let [plain, fast] = outcomes;
    match (plain, fast) {
        (Ok(plain), Ok(fast)) => assert_eq!(plain, fast, "both ran and differ"),
        (Err(plain), Err(fast)) => assert_eq!(plain, fast, "both refuse for another reason"),
        (plain, fast) => panic!("one refuses: {:?} and {:?}", plain.err(), fast.err()),
    }
}

/// A buffer of small numbers, none of them a NaN, whose bits would be free.
fn filled(cpu: &mut Cpu, value: u8) -> Buffer {
    let buffer = cpu.alloc(BUFFER_BYTES).expect("there is memory");
    let numbers = (0..BUFFER_BYTES as u32 / 4).map(|i| (i * 7 + u32::from(value)) % 256);
    let bytes: Vec<u8> = numbers.flat_map(|n| (n as f32 / 64.0 - 2.0).to_le_bytes()).collect();
    cpu.write(Slice { buffer, offset: 0, bytes: BUFFER_BYTES }, &bytes).expect("it fits");
    buffer
}

/// All buffers after the program ran twice, for a program serves many times.
fn memory_after(
    cpu: &mut Cpu,
    buffers: &[Buffer; BUFFERS],
    commands: &[Command],
) -> Result<Vec<u8>, Error> {
    let program = cpu.record(commands)?;
    let reads = buffers.map(|buffer| Slice { buffer, offset: 0, bytes: BUFFER_BYTES });
    let mut memory = vec![0; BUFFERS * BUFFER_BYTES as usize];
    for _ in 0..2 {
        let ticket = cpu.submit(Launch { writes: &[], program, reads: &reads })?;
        cpu.collect(ticket, &mut memory)?;
    }
    cpu.forget(program)?;
    assert!(cpu.submit(Launch { writes: &[], program, reads: &[] }).is_err(), "it is forgotten");
    Ok(memory)
}

fn norm(input: &mut Input<'_>, buffers: &[Buffer; BUFFERS]) -> Command {
    let columns = input.below(40);
    let rows = input.below(5);
    let stride = u64::from(columns + input.below(4));
    let residual = input.below(2) == 1;
    let params = params::Norm {
        x_row_stride: stride,
        residual_row_stride: if residual { stride } else { u64::from(input.below(8) / 7) },
        out_row_stride: stride,
        rows_max: rows,
        heads: 1 + input.below(16) / 15,
        columns,
        x_dtype: params::DTYPE_F32,
        weight_dtype: params::DTYPE_F32,
        out_dtype: input.one_of(&[params::DTYPE_F32, params::DTYPE_BF16, 0]),
        epsilon: input.one_of(&[1e-5, 1e-5, 1e-5, 0.0, -1.0, f32::NAN]),
        weight_offset: 0.0,
    };
    let mut slice = |elements: u64| {
        let buffer = input.one_of(buffers);
        let offset = u64::from(input.below(32)) * if input.below(16) == 15 { 2 } else { 16 };
        Slice { buffer, offset, bytes: elements * 4 }
    };
    let all = u64::from(rows) * stride;
    Command::Norm(Norm {
        params,
        x: Read(slice(all)),
        weight: Read(slice(u64::from(columns))),
        residual: residual.then(|| Update(slice(all))),
        out: Write(slice(all)),
        rows: None,
    })
}
