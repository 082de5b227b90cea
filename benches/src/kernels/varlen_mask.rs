//! Benches of `varlen_mask`: a step of chunks within windows, and one of draft trees.

use crate::frame::{Bench, Entry, On, Subject, Work};
use kernels_core::command::Host;
use kernels_core::params::{self, NO_PARENT};
use kernels_core::simd::Level;
use kernels_core::varlen_mask::{self, VarlenMask};
use kernels_core::workers::Inline;
use pagewise_tests::cases::varlen_mask::{MaskCase, Sequence};
use pagewise_tests::harness::{Bytes, Case, Noise};

/// Sequences of a call, rows and positions of each.
const SEQUENCES: u32 = 64;
const ROWS: u32 = 64;
const LENGTH: u32 = 2048;

/// Times intervals, and intervals with the bits of trees.
pub fn bench(bench: &mut Bench) {
    for (name, trees) in [("window", false), ("trees", true)] {
        let shape = format!("{SEQUENCES}x{ROWS} rows {name}");
        let work = Work::Items(u64::from(SEQUENCES * ROWS));
        bench.time(Entry { kernel: "varlen_mask", shape, work }, |_| Masked::new(trees));
    }
}

struct Masked {
    case: MaskCase,
    params: params::VarlenMask,
    row_start: Bytes,
    lengths: Bytes,
    /// The nodes of each tree, and the parent of each row.
    trees: Option<(Bytes, Bytes)>,
    intervals: Bytes,
    tree_bits: Bytes,
    positions: Bytes,
}

impl Masked {
    fn new(trees: bool) -> Self {
        let mut noise = Noise::new(1);
        let parent = |node: u32, noise: &mut Noise| match node {
            0 => NO_PARENT,
            _ => noise.below(node),
        };
        let parents: Vec<u32> = (0..ROWS).map(|node| parent(node, &mut noise)).collect();
        let of_one = if trees { parents.clone() } else { Vec::new() };
        let sequence =
            Sequence { length: LENGTH, rows: ROWS, parents: of_one, ..Sequence::default() };
        let window = if trees { 0 } else { 1024 };
        let case = MaskCase::new("bench", window, vec![sequence; SEQUENCES as usize]);
        let rows = (SEQUENCES * ROWS) as usize;
        Self {
            params: params::VarlenMask {
                rows_max: rows as u32,
                sequences_max: SEQUENCES,
                documents_max: 0,
                window,
            },
            row_start: Bytes::of(&(0..=SEQUENCES).map(|at| at * ROWS).collect::<Vec<_>>()),
            lengths: Bytes::of(&[LENGTH; SEQUENCES as usize]),
            trees: trees.then(|| {
                let parents = parents.repeat(SEQUENCES as usize);
                (Bytes::of(&[ROWS; SEQUENCES as usize]), Bytes::of(&parents))
            }),
            intervals: Bytes::filled(rows * 8, 0),
            tree_bits: Bytes::filled(rows * 8, 0),
            positions: Bytes::filled(rows * 4, 0),
            case,
        }
    }
}

impl Subject for Masked {
    fn check(&mut self, on: On<'_>) {
        let scalar = Level::named("scalar").expect("every machine has the scalar level");
        let expected = self.case.run(scalar, &Inline).expect("the call is a good one");
        self.call(on, 0);
        let got = [&self.intervals, &self.tree_bits, &self.positions];
        for (expected, got) in expected.iter().zip(got) {
            let expected = &expected.bytes.as_slice()[..got.len()];
            assert!(expected == got.as_slice(), "{} are the scalar level's", got.len());
        }
    }

    fn call(&mut self, on: On<'_>, _turn: usize) {
        let command = VarlenMask::<Host> {
            params: self.params,
            row_start: self.row_start.as_slice(),
            lengths: self.lengths.as_slice(),
            prefixes: None,
            document_start: None,
            documents: None,
            tree_nodes: self.trees.as_ref().map(|(nodes, _)| nodes.as_slice()),
            parents: self.trees.as_ref().map(|(_, parents)| parents.as_slice()),
            sequences: None,
            intervals: self.intervals.as_mut_slice(),
            tree_bits: Some(self.tree_bits.as_mut_slice()),
            positions: Some(self.positions.as_mut_slice()),
        };
        varlen_mask::run(on.level, on.workers, command).expect("the call is a good one");
    }
}
