//! Cases of `varlen_mask`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params::{self, NO_PARENT};
use kernels_core::varlen_mask::{self, Seen, VarlenMask};

/// One sequence of a step.
#[derive(Clone, Debug, Default)]
pub struct Sequence {
    /// Its positions, the step's rows included.
    pub length: u32,
    /// Its rows.
    pub rows: u32,
    /// Leading positions that see each other both ways.
    pub prefix: u32,
    /// Where documents begin.
    pub documents: Vec<u32>,
    /// The parents of the nodes that its last rows are.
    pub parents: Vec<u32>,
}

/// A call of `varlen_mask` with its buffers.
#[derive(Clone, Debug)]
pub struct MaskCase {
    /// What it is about.
    pub name: &'static str,
    /// Its scalars.
    pub params: params::VarlenMask,
    /// The sequences, in order.
    pub sequences: Vec<Sequence>,
    /// Whether the optional buffers are given: prefixes, documents, trees.
    pub given: [bool; 3],
    /// Words cut off the end of each output.
    pub cut: usize,
}

impl MaskCase {
    /// A call with room to spare: rows and sequences beyond the live ones.
    pub fn new(name: &'static str, window: u32, sequences: Vec<Sequence>) -> Self {
        let rows: u32 = sequences.iter().map(|sequence| sequence.rows).sum();
        let documents: usize = sequences.iter().map(|sequence| sequence.documents.len()).sum();
        let params = params::VarlenMask {
            rows_max: rows + 3,
            sequences_max: sequences.len() as u32 + 2,
            documents_max: if documents == 0 { 0 } else { documents as u32 + 1 },
            window,
        };
        let given = [
            sequences.iter().any(|sequence| sequence.prefix > 0),
            documents > 0,
            sequences.iter().any(|sequence| !sequence.parents.is_empty()),
        ];
        Self { name, params, sequences, given, cut: 0 }
    }

    /// What the specification says of each row in use.
    pub fn seen(&self) -> Vec<Seen> {
        let of = |sequence: &Sequence| {
            varlen_mask::spec(varlen_mask::Sequence {
                length: sequence.length,
                rows: sequence.rows,
                window: self.params.window,
                prefix: sequence.prefix,
                documents: &sequence.documents,
                parents: &sequence.parents,
            })
        };
        self.sequences.iter().flat_map(of).collect()
    }

    /// A step buffer of one word a sequence; unused ones hold what no call allows.
    fn words(&self, word: impl Fn(&Sequence) -> u32) -> Bytes {
        let mut words: Vec<u32> = self.sequences.iter().map(word).collect();
        words.resize(self.params.sequences_max.min(1 << 16) as usize, 0xdead_beef);
        Bytes::of(&words)
    }

    /// A step buffer of offsets.
    fn offsets(&self, count: impl Fn(&Sequence) -> usize) -> Bytes {
        let mut offsets = vec![0u32];
        for sequence in &self.sequences {
            offsets.push(offsets[offsets.len() - 1] + count(sequence) as u32);
        }
        offsets.resize(self.params.sequences_max.min(1 << 16) as usize + 1, 0xdead_beef);
        Bytes::of(&offsets)
    }

    fn parents(&self) -> Bytes {
        let mut parents = Vec::new();
        for sequence in &self.sequences {
            let plain = (sequence.rows as usize).saturating_sub(sequence.parents.len());
            parents.extend(std::iter::repeat_n(0xdead_beef_u32, plain));
            parents.extend(&sequence.parents);
        }
        parents.resize(self.params.rows_max.min(1 << 20) as usize, 0xdead_beef);
        Bytes::of(&parents)
    }
}

/// A root with a chain below it.
pub fn chain(nodes: u32) -> Vec<u32> {
    (0..nodes).map(|node| node.checked_sub(1).unwrap_or(NO_PARENT)).collect()
}

/// The list.
pub fn cases() -> Vec<MaskCase> {
    let plain = |length, rows| Sequence { length, rows, ..Sequence::default() };
    let packed = |length, rows, documents: &[u32]| Sequence {
        documents: documents.to_vec(),
        ..plain(length, rows)
    };
    let tree = |length, rows, parents: &[u32]| Sequence {
        parents: parents.to_vec(),
        ..plain(length, rows)
    };
    const ROOT: u32 = NO_PARENT;
    // A root with two children, the second with two of its own, the last with one.
    let hand = [ROOT, 0, 0, 2, 2, 4];
    let mut cases = vec![
        MaskCase::new("no sequence", 0, vec![]),
        MaskCase::new(
            "an empty sequence between two",
            0,
            vec![plain(1, 1), plain(0, 0), plain(3, 2)],
        ),
        MaskCase::new("lengths without rows", 0, vec![plain(9, 0), plain(4, 4)]),
        MaskCase::new(
            "decode, append and prefill",
            0,
            vec![plain(40, 1), plain(9, 3), plain(20, 20)],
        ),
        MaskCase::new("a prefix", 0, vec![Sequence { prefix: 4, ..plain(7, 7) }, plain(3, 3)]),
        MaskCase::new("all both ways", 0, vec![Sequence { prefix: 7, ..plain(7, 7) }]),
        MaskCase::new("a prefix in a window", 2, vec![Sequence { prefix: 4, ..plain(7, 7) }]),
        MaskCase::new(
            "documents",
            0,
            vec![packed(9, 9, &[3, 4, 8]), packed(9, 2, &[0, 7]), plain(2, 1)],
        ),
        MaskCase::new(
            "documents in a window",
            3,
            vec![packed(20, 20, &[1, 10]), packed(8, 1, &[2])],
        ),
        MaskCase::new(
            "a prefix over a boundary",
            0,
            vec![Sequence { prefix: 6, ..packed(9, 9, &[4]) }],
        ),
        MaskCase::new("trees", 0, vec![tree(16, 6, &hand), plain(5, 2), tree(1, 1, &[ROOT])]),
        MaskCase::new("a forest", 0, vec![tree(9, 5, &[ROOT, ROOT, 1, 0, ROOT])]),
        MaskCase::new("rows before a tree", 0, vec![tree(12, 9, &hand), tree(70, 70, &hand)]),
        MaskCase::new(
            "a tree in a document",
            0,
            vec![Sequence { documents: vec![4, 8, 11], ..tree(14, 8, &hand) }],
        ),
        MaskCase::new(
            "a chain of 64",
            0,
            vec![tree(64, 64, &chain(64)), tree(100, 63, &chain(63))],
        ),
    ];
    // Windows shorter than a tree's path, as long, and longer than the sequence.
    for window in [1, 2, 3, 4, 5, 6, 64, 100] {
        cases.push(MaskCase::new("a window", window, vec![plain(6, 6), tree(12, 8, &hand)]));
    }
    for window in [63, 64, 65] {
        cases.push(MaskCase::new("a window over a chain", window, vec![tree(65, 64, &chain(64))]));
    }
    cases
}

/// A step with something of everything.
pub fn random(seed: u64) -> MaskCase {
    let mut noise = Noise::new(seed);
    let sequences = (0..noise.below(5)).map(|_| {
        let length = noise.below(150);
        let rows = noise.below(length + 1);
        let nodes = noise.below(rows.min(64) + 1) * noise.below(2);
        let parent = |node: u32| if node == 0 { NO_PARENT } else { noise.below(node + 1) };
        let mut parents: Vec<u32> = (0..nodes).map(parent).collect();
        for (node, parent) in parents.iter_mut().enumerate() {
            // One more than there are nodes before it stands for a root.
            *parent = if *parent == node as u32 { NO_PARENT } else { *parent };
        }
        let documents = (0..length).filter(|_| noise.below(12) == 0).collect();
        Sequence { length, rows, prefix: noise.below(length + 1), documents, parents }
    });
    let sequences = sequences.collect();
    MaskCase::new("random", noise.below(40) * noise.below(2), sequences)
}

impl Case for MaskCase {
    const KERNEL: &'static str = "varlen_mask";

    fn name(&self) -> String {
        let shape = |s: &Sequence| format!("{}/{}", s.rows, s.length);
        let shapes: Vec<String> = self.sequences.iter().map(shape).collect();
        format!("{} window {} of [{}]", self.name, self.params.window, shapes.join(" "))
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let rows = self.params.rows_max.min(1 << 20) as usize;
        let out = |words: usize| Bytes::poisoned((words * rows * 4).saturating_sub(self.cut));
        let (mut intervals, mut tree_bits, mut positions) = (out(2), out(2), out(1));
        let [prefixes, documents, trees] = self.given;
        let (row_start, lengths) = (self.offsets(|s| s.rows as usize), self.words(|s| s.length));
        let prefixes = prefixes.then(|| self.words(|s| s.prefix));
        let document_start = documents.then(|| self.offsets(|s| s.documents.len()));
        let mut begins: Vec<u32> =
            self.sequences.iter().flat_map(|s| s.documents.iter().copied()).collect();
        let capacity = begins.len().max(self.params.documents_max.min(1 << 16) as usize);
        begins.resize(capacity, 0xdead_beef);
        let begins = documents.then(|| Bytes::of(&begins));
        let tree_nodes = trees.then(|| self.words(|s| s.parents.len() as u32));
        let parents = trees.then(|| self.parents());
        let sequences = Bytes::of(&[self.sequences.len() as u32]);
        let command = VarlenMask::<Host<'_>> {
            params: self.params,
            row_start: row_start.as_slice(),
            lengths: lengths.as_slice(),
            prefixes: prefixes.as_ref().map(Bytes::as_slice),
            document_start: document_start.as_ref().map(Bytes::as_slice),
            documents: begins.as_ref().map(Bytes::as_slice),
            tree_nodes: tree_nodes.as_ref().map(Bytes::as_slice),
            parents: parents.as_ref().map(Bytes::as_slice),
            sequences: Some(sequences.as_slice()),
            intervals: intervals.as_mut_slice(),
            tree_bits: Some(tree_bits.as_mut_slice()),
            positions: Some(positions.as_mut_slice()),
        };
        machine.run(command)?;
        // Whole numbers are compared as bytes.
        let output = |name, bytes| Output { name, dtype: Dtype::I8, bytes };
        Ok(vec![
            output("intervals", intervals),
            output("tree_bits", tree_bits),
            output("positions", positions),
        ])
    }

    /// Every row in use sees what the specification says, and no other row is written.
    fn assert_answer(&self, outputs: &[Output]) {
        let name = self.name();
        let intervals = outputs[0].bytes.cast::<[u32; 2]>();
        let bits = outputs[1].bytes.cast::<u64>();
        let positions = outputs[2].bytes.cast::<u32>();
        let seen = self.seen();
        for (row, seen) in seen.iter().enumerate() {
            let [begin, end] = intervals[row];
            assert_eq!((begin..end).collect::<Vec<_>>(), seen.slots, "{name}: row {row}");
            let nodes: Vec<u32> = (0..64).filter(|node| bits[row] >> node & 1 == 1).collect();
            assert_eq!(nodes, seen.nodes, "{name}: row {row}");
            assert_eq!(positions[row], seen.position, "{name}: row {row}");
        }
        let untouched =
            |bytes: &Bytes, from: usize| bytes.as_slice()[from..].iter().all(|&b| b == 0xa5);
        for (output, bytes) in outputs.iter().zip([8, 8, 4]) {
            assert!(untouched(&output.bytes, seen.len() * bytes), "{name}: {}", output.name);
        }
    }

    /// Whole numbers are right or wrong: see `assert_answer`.
    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        vec![Vec::new(); 3]
    }
}
