//! Benches of `matmul`: the shapes of a small Llama, by format and rows. Few rows
//! are held against the bytes of the weight, many against the operations.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::matmul::{self, Matmul};
use kernels_core::packing::TILE;
use kernels_core::simd::Level;
use kernels_core::workers::Inline;
use pagewise_tests::cases::matmul::{Format, MatmulCase, Shape};
use pagewise_tests::harness::Bytes;

const BF16: (&str, Format) = ("bf16", Format::Floats(Dtype::Bf16));
const I4: (&str, Format) = ("i4-g32", Format::Groups(Dtype::I4, 32, true, Dtype::F16));
const I4_SYMMETRIC: (&str, Format) =
    ("i4-g32 symmetric", Format::Groups(Dtype::I4, 32, false, Dtype::F16));
const I4_WIDE: (&str, Format) = ("i4-g64", Format::Groups(Dtype::I4, 64, true, Dtype::F16));
const I8: (&str, Format) = ("i8-g32", Format::Groups(Dtype::I8, 32, false, Dtype::F16));

/// Gate or up of a layer; its inputs and outputs.
const UP: (u32, u32) = (2048, 5632);
/// Rows up to which a call waits for memory.
const FEW: u32 = 8;

/// Times every format with few rows and with many.
pub fn bench(bench: &mut Bench) {
    for matrix in [UP, (5632, 2048), (2048, 2560)] {
        for format in [I4, I8, BF16] {
            time(bench, 1, matrix, format);
        }
    }
    for rows in [4, 8, 32] {
        for format in [I4, I8] {
            time(bench, rows, UP, format);
        }
    }
    for rows in [128, 512] {
        for format in [I4, I4_SYMMETRIC, I4_WIDE, I8, BF16] {
            time(bench, rows, UP, format);
        }
    }
}

fn time(bench: &mut Bench, rows: u32, matrix: (u32, u32), format: (&str, Format)) {
    let ((inputs, outputs), (name, format)) = (matrix, format);
    let shape = Shape::plain(rows, inputs, outputs, format);
    let operations = 2 * u64::from(rows) * u64::from(inputs) * u64::from(outputs);
    let weight = format.weight(outputs, inputs);
    let bytes = kernels_core::packing::packed_bytes(&weight).expect("a good weight");
    let work = match format {
        _ if rows <= FEW => Work::Read(bytes),
        Format::Floats(_) => Work::F32(operations),
        Format::Groups(..) => Work::Int8(operations),
    };
    let shape_name = format!("m{rows} {inputs}x{outputs} {name}");
    let entry = Entry { kernel: "matmul", shape: shape_name, work };
    bench.time(entry, |bench| Product::new(shape.case(), bench.cycle(bytes as usize)));
}

struct Product {
    case: MatmulCase,
    weights: Copies,
    out: Bytes,
    workspace: Bytes,
}

impl Product {
    fn new(case: MatmulCase, copies: usize) -> Self {
        Self {
            weights: Copies::new(case.weight.as_slice(), copies),
            out: Bytes::filled(case.out_bytes, 0),
            workspace: Bytes::filled(0, 0),
            case,
        }
    }

    /// Runs the call on that copy of the weights, or on its first tile of outputs.
    fn run(&mut self, on: On<'_>, turn: usize, part: bool) {
        let mut params = self.case.params;
        if part {
            params.weight.outputs = TILE as u32;
        }
        let command = Matmul::<Host> {
            params,
            x: self.case.x.as_slice(),
            weight: self.weights.turn(turn),
            bias: None,
            out: self.out.as_mut_slice(),
            rows: None,
        };
        let needs = command.needs(on.workers.count()).expect("the call is a good one");
        if self.workspace.len() < needs.workspace_bytes as usize {
            self.workspace = Bytes::filled(needs.workspace_bytes as usize, 0);
        }
        matmul::run(on.level, on.workers, command, self.workspace.as_mut_slice())
            .expect("the call is a good one");
    }
}

impl Subject for Product {
    fn check(&mut self, on: On<'_>) {
        self.run(on, 0, false);
        let got = self.out.as_slice().to_vec();
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        // Writes the first outputs of every row, and so of every panel, over the whole call's.
        self.run(On { level: scalar, workers: &Inline }, 0, true);
        assert_eq!(got, self.out.as_slice(), "the first outputs have the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        self.run(on, turn, false);
    }
}
