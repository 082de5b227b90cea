//! Benches of `token_logprob`: a small Llama's output weights. One row is held against
//! the bytes of the weight, many against the operations.

use crate::frame::{Bench, Copies, Entry, On, Subject, Work};
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::simd::Level;
use kernels_core::token_logprob::{self, TokenLogprob};
use kernels_core::workers::Inline;
use pagewise_tests::cases::matmul::{Format, Shape};
use pagewise_tests::cases::token_logprob::{TokenLogprobCase, case};
use pagewise_tests::harness::Bytes;

const INPUTS: u32 = 2048;
const VOCABULARY: u32 = 32_000;
/// Rows that the scalar level answers too.
const ROWS_CHECKED: u32 = 2;

/// Times 4-bit and bf16 weights, with few rows and with many.
pub fn bench(bench: &mut Bench) {
    let i4 = ("i4-g32", Format::Groups(Dtype::I4, 32, true, Dtype::F16));
    let bf16 = ("bf16", Format::Floats(Dtype::Bf16));
    for (rows, (name, format)) in [(1, i4), (1, bf16), (32, i4), (512, i4), (512, bf16)] {
        let weight = format.weight(VOCABULARY, INPUTS);
        let bytes = kernels_core::packing::packed_bytes(&weight).expect("a good weight");
        let operations = 2 * u64::from(rows) * u64::from(INPUTS) * u64::from(VOCABULARY);
        let work = match format {
            _ if rows == 1 => Work::Read(bytes),
            Format::Floats(_) => Work::F32(operations),
            Format::Groups(..) => Work::Int8(operations),
        };
        let shape = format!("m{rows} {INPUTS}x{VOCABULARY} {name}");
        bench.time(Entry { kernel: "token_logprob", shape, work }, |bench| {
            let vocabulary = if bench.smoke() { 4100 } else { VOCABULARY };
            let case = case(Shape::plain(rows, INPUTS, vocabulary, format));
            let copies = bench.cycle(case.product.weight.len());
            Scored::new(case, copies)
        });
    }
}

struct Scored {
    case: TokenLogprobCase,
    weights: Copies,
    token: Bytes,
    logprob: Bytes,
    status: Bytes,
    workspace: Bytes,
}

impl Scored {
    fn new(case: TokenLogprobCase, copies: usize) -> Self {
        let bytes = case.token.len() * 4;
        Self {
            weights: Copies::new(case.product.weight.as_slice(), copies),
            token: Bytes::of(&case.token),
            logprob: Bytes::filled(bytes, 0),
            status: Bytes::filled(bytes, 0),
            workspace: Bytes::filled(0, 0),
            case,
        }
    }

    /// The call on the first rows.
    fn run(&mut self, on: On<'_>, turn: usize, rows: u32) {
        let command = TokenLogprob::<Host> {
            params: kernels_core::params::TokenLogprob { rows_max: rows, ..self.case.params },
            x: self.case.product.x.as_slice(),
            weight: self.weights.turn(turn),
            bias: None,
            token: self.token.as_slice(),
            logprob: self.logprob.as_mut_slice(),
            status: self.status.as_mut_slice(),
            rows: None,
        };
        let needs = command.needs(on.workers.count()).expect("the call is a good one");
        if self.workspace.len() < needs.workspace_bytes as usize {
            self.workspace = Bytes::filled(needs.workspace_bytes as usize, 0);
        }
        token_logprob::run(on.level, on.workers, command, self.workspace.as_mut_slice())
            .expect("the call is a good one");
    }
}

impl Subject for Scored {
    fn check(&mut self, on: On<'_>) {
        let rows = self.case.params.rows_max;
        self.run(on, 0, rows);
        let got = self.logprob.as_slice().to_vec();
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        // Writes its first rows over the whole call's.
        self.run(On { level: scalar, workers: &Inline }, 0, rows.min(ROWS_CHECKED));
        assert_eq!(got, self.logprob.as_slice(), "the first rows have the scalar level's bits");
    }

    fn call(&mut self, on: On<'_>, turn: usize) {
        self.run(on, turn, self.case.params.rows_max);
    }
}
