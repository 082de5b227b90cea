//! Benches of `spec_verify`: chains of four drafts over a large vocabulary, by the
//! most likely token and by rejection sampling.

use crate::frame::{Bench, Entry, On, Subject, Work};
use kernels_core::command::Host;
use kernels_core::params::{VERIFY_GREEDY, VERIFY_REJECTION};
use kernels_core::simd::Level;
use kernels_core::spec_verify::{self, SpecVerify};
use kernels_core::workers::Inline;
use pagewise_tests::cases::spec_verify::{VerifyCase, chain, drafts};
use pagewise_tests::harness::{Bytes, Case, assert_same_bits};

const SEQUENCES: u64 = 8;
const VOCAB: u32 = 128_256;

/// Times sequences verified, their nodes' rows in no cache but the last.
pub fn bench(bench: &mut Bench) {
    for (mode, name) in [(VERIFY_GREEDY, "greedy"), (VERIFY_REJECTION, "rejection")] {
        let shape = format!("{name} {SEQUENCES} chains of 5 nodes vocab {VOCAB}");
        let entry = Entry { kernel: "spec_verify", shape, work: Work::Items(SEQUENCES) };
        bench.time(entry, |_| Verified::new(mode));
    }
}

struct Verified {
    case: VerifyCase,
    inputs: Inputs,
}

struct Inputs {
    node_start: Bytes,
    tokens: Bytes,
    target: Bytes,
    draft: Bytes,
    requests: Bytes,
    outs: [Bytes; 4],
    workspace: Bytes,
}

impl Verified {
    fn new(mode: u32) -> Self {
        let drafted = mode == VERIFY_REJECTION;
        let of = |seed| drafts(seed, mode, VOCAB, &chain(5), drafted);
        let sequences = (0..SEQUENCES).map(of).collect();
        let mut case = VerifyCase::new("bench", mode, VOCAB, sequences);
        case.given[0] = false;
        let inputs = Inputs::new(&case);
        Self { case, inputs }
    }
}

impl Inputs {
    fn new(case: &VerifyCase) -> Self {
        let nodes = case.params.nodes_max as usize;
        let tokens = case.sequences.iter().flat_map(|drafts| drafts.tokens.iter().copied());
        let mut tokens: Vec<u32> = tokens.collect();
        tokens.resize(nodes, 0);
        let mut starts: Vec<u32> = (0..=SEQUENCES as u32).map(|at| at * 5).collect();
        starts.resize(case.params.sequences_max as usize + 1, 0);
        let mut requests: Vec<_> = case.sequences.iter().map(|drafts| drafts.request).collect();
        requests.resize(case.params.sequences_max as usize, Default::default());
        Self {
            node_start: Bytes::of(&starts),
            tokens: Bytes::of(&tokens),
            target: case.rows(case.params.target_row_stride, |drafts| &drafts.target),
            draft: case.rows(case.params.draft_row_stride, |drafts| &drafts.draft),
            requests: Bytes::of(&requests),
            outs: std::array::from_fn(|_| Bytes::filled(nodes * 4, 0)),
            workspace: Bytes::filled(16 * VOCAB as usize * 4, 0),
        }
    }
}

impl Subject for Verified {
    fn check(&mut self, on: On<'_>) {
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        let expected = self.case.run(scalar, &Inline).expect("the call is a good one");
        let got = self.case.run(on.level, on.workers).expect("the call is a good one");
        assert_same_bits("the verdicts are the scalar level's", &expected, &got);
    }

    fn call(&mut self, on: On<'_>, _: usize) {
        let (p, inputs) = (self.case.params, &mut self.inputs);
        let rejection = p.mode == VERIFY_REJECTION;
        let [path, accepted, next, status] = &mut inputs.outs;
        let live = (SEQUENCES as u32).to_le_bytes();
        let live = Bytes::of(&live);
        let command = SpecVerify::<Host> {
            params: p,
            node_start: inputs.node_start.as_slice(),
            tokens: inputs.tokens.as_slice(),
            parents: None,
            target: Some(inputs.target.as_slice()),
            draft: rejection.then(|| inputs.draft.as_slice()),
            sampled: None,
            requests: rejection.then(|| inputs.requests.as_slice()),
            places: None,
            sequences: Some(live.as_slice()),
            path: path.as_mut_slice(),
            accepted: accepted.as_mut_slice(),
            next: next.as_mut_slice(),
            status: status.as_mut_slice(),
            entries: None,
            count: None,
        };
        spec_verify::run(on.level, on.workers, command, inputs.workspace.as_mut_slice())
            .expect("the call is a good one");
    }
}
