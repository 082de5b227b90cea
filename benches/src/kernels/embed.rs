//! Benches of `embed`: tokens of a step from plain rows and from packed weights, other
//! ones each time, in a table that no cache holds.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work, assert_scalar_bits};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::embed::{self, Embed};
use pagewise_tests::cases::embed::{EmbedCase, Shape, Table};
use pagewise_tests::cases::matmul::Format;
use pagewise_tests::harness::{Bytes, Noise};

const VOCABULARY: u32 = 32_000;
const COLUMNS: u32 = 2048;
/// Steps of other tokens.
const STEPS: usize = 256;

/// Times f32 rows of each table.
pub fn bench(bench: &mut Bench) {
    for (name, table) in [
        ("bf16", Table::Plain(Dtype::Bf16)),
        ("packed bf16", Table::Packed(Format::Floats(Dtype::Bf16))),
        ("packed i8-g32", Table::Packed(Format::Groups(Dtype::I8, 32, false, Dtype::F16))),
        ("packed i4-g32", Table::Packed(Format::Groups(Dtype::I4, 32, true, Dtype::F16))),
    ] {
        for rows in [1, 512] {
            let shape = format!("{rows}x{COLUMNS} of {VOCABULARY} {name}");
            let work = match table {
                // Reads two bytes an element and writes four.
                Table::Plain(_) if rows > 1 => Work::Copied(u64::from(rows * COLUMNS) * 6),
                _ => Work::Items(u64::from(rows)),
            };
            let entry = Entry { kernel: "embed", shape, work };
            bench.time(entry, |bench| {
                let vocabulary = if bench.smoke() { 100 } else { VOCABULARY };
                let shape = Shape { table, vocabulary, ..Shape::plain(rows, COLUMNS) };
                let case = shape.case();
                let copies = bench.cycle(case.table.len());
                LookedUp::new(case, copies)
            });
        }
    }
}

struct LookedUp {
    case: EmbedCase,
    tokens: Bytes,
    table: Copies,
    out: Bytes,
}

impl LookedUp {
    fn new(case: EmbedCase, copies: usize) -> Self {
        let (rows, mut noise) = (case.params.rows_max as usize, Noise::new(2));
        let tokens = (0..STEPS * rows).map(|_| noise.below(case.params.weight.outputs));
        Self {
            tokens: Bytes::of(&tokens.collect::<Vec<_>>()),
            table: Copies::new(case.table.as_slice(), copies),
            out: Bytes::filled(case.out_bytes, 0),
            case,
        }
    }
}

impl Subject for LookedUp {
    fn check(&mut self, on: On<'_>) {
        assert_scalar_bits(&self.case, on);
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        let bytes = self.case.params.rows_max as usize * 4;
        let command = Embed::<Host> {
            params: self.case.params,
            table: self.table.turn(turn),
            tokens: &self.tokens.as_slice()[turn % STEPS * bytes..][..bytes],
            out: self.out.as_mut_slice(),
            rows: None,
        };
        embed::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
