//! Cases of `spec_verify`.

use crate::harness::{Bytes, Case, Machine, Noise, Output, Row};
use kernels_core::Error;
use kernels_core::command::Host;
use kernels_core::dtype::Dtype;
use kernels_core::math::Real;
use kernels_core::params::{
    self, NONE, VERIFY_GREEDY, VERIFY_REJECTION, VERIFY_TOKENS, VerifyRequest,
};
use kernels_core::spec_verify::{self, SpecVerify, Target, Tree, Verdict};
use kernels_core::vocabulary::noise::Source;

/// One sequence's drafts.
#[derive(Clone, Debug, Default)]
pub struct Drafts {
    /// The token of each node.
    pub tokens: Vec<u32>,
    /// The parent of each node.
    pub parents: Vec<u32>,
    /// The token sampled after each node.
    pub sampled: Vec<u32>,
    /// Logits or probabilities after each node.
    pub target: Vec<Vec<f32>>,
    /// The draft's probabilities after each node.
    pub draft: Vec<Vec<f32>>,
    /// Its noise.
    pub request: VerifyRequest,
}

/// A call of `spec_verify` with its buffers.
#[derive(Clone, Debug)]
pub struct VerifyCase {
    /// What it is about.
    pub name: String,
    /// Its scalars.
    pub params: params::SpecVerify,
    /// The sequences, in order.
    pub sequences: Vec<Drafts>,
    /// Whether parents and draft rows are given.
    pub given: [bool; 2],
    /// Bytes cut off outputs, rows and workspace.
    pub cut: usize,
}

impl VerifyCase {
    /// A call with room to spare.
    pub fn new(name: &str, mode: u32, vocab: u32, sequences: Vec<Drafts>) -> Self {
        let nodes: usize = sequences.iter().map(|drafts| drafts.tokens.len()).sum();
        let drafted = sequences.iter().any(|drafts| !drafts.draft.is_empty());
        let stride = u64::from(vocab) + 1;
        let params = params::SpecVerify {
            target_row_stride: if mode == VERIFY_TOKENS { 0 } else { stride },
            draft_row_stride: if drafted { stride } else { 0 },
            sequences_max: sequences.len() as u32 + 1,
            nodes_max: nodes as u32 + 2,
            vocab,
            mode,
        };
        Self { name: name.into(), params, sequences, given: [true, drafted], cut: 0 }
    }

    /// What the specification says of each sequence.
    pub fn verdicts<R: Real>(&self) -> Vec<Verdict> {
        self.sequences.iter().map(|drafts| self.verdict::<R>(drafts)).collect()
    }

    fn verdict<R: Real>(&self, drafts: &Drafts) -> Verdict {
        let tree = Tree { tokens: &drafts.tokens, parents: &drafts.parents };
        let real = |rows: &[Vec<f32>]| -> Vec<Vec<R>> {
            let row = |row: &Vec<f32>| row.iter().map(|&v| R::of(f64::from(v))).collect();
            rows.iter().map(row).collect()
        };
        match self.params.mode {
            VERIFY_TOKENS => spec_verify::spec::<R>(tree, Target::Tokens(&drafts.sampled)),
            VERIFY_GREEDY => {
                let likely = |row: &Vec<f32>| {
                    let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    row.iter().position(|&v| v == most).map_or(NONE, |at| at as u32)
                };
                let tokens: Vec<u32> = drafts.target.iter().map(likely).collect();
                spec_verify::spec::<R>(tree, Target::Tokens(&tokens))
            }
            _ => {
                let (target, draft) = (real(&drafts.target), real(&drafts.draft));
                let VerifyRequest { seed, position, fork } = drafts.request;
                let source = Source { seed, position, fork, purpose: 0 };
                let draft = (!draft.is_empty()).then_some(&draft[..]);
                let target = Target::Rejection { target: &target, draft, source };
                spec_verify::spec::<R>(tree, target)
            }
        }
    }

    fn words(&self, words: impl Fn(&Drafts) -> &[u32]) -> Bytes {
        let mut all: Vec<u32> = self.sequences.iter().flat_map(|d| words(d).to_vec()).collect();
        all.resize(self.params.nodes_max.min(1 << 12) as usize, 0xdead_beef);
        Bytes::of(&all)
    }

    /// The rows of a matrix, NaN between and beyond them.
    pub fn rows(&self, stride: u64, rows: impl Fn(&Drafts) -> &[Vec<f32>]) -> Bytes {
        // A malformed call's shape is not worth its memory.
        let stride = stride.min(1 << 18) as usize;
        let mut all = Vec::new();
        for row in self.sequences.iter().flat_map(|drafts| rows(drafts).iter()) {
            let start = all.len();
            all.extend_from_slice(row);
            all.resize(start + stride, f32::NAN);
        }
        all.resize((stride * self.params.nodes_max.min(256) as usize).max(all.len()), f32::NAN);
        let bytes = Bytes::of(&all);
        Bytes::of(&bytes.as_slice()[..bytes.len().saturating_sub(self.cut)])
    }
}

/// Probabilities of any shape.
fn distribution(noise: &mut Noise, vocab: u32) -> Vec<f32> {
    let weights: Vec<f32> = (0..vocab).map(|_| noise.uniform().powi(4)).collect();
    let sum: f32 = weights.iter().sum();
    weights.iter().map(|w| w / sum).collect()
}

/// Random drafts: `shape` gives the parents of each tree.
pub fn drafts(seed: u64, mode: u32, vocab: u32, parents: &[u32], drafted: bool) -> Drafts {
    let mut noise = Noise::new(seed);
    let nodes = parents.len();
    let mut tokens: Vec<u32> = (0..nodes).map(|_| noise.below(vocab)).collect();
    let sampled: Vec<u32> = (0..nodes).map(|_| noise.below(vocab)).collect();
    let target = (0..nodes).map(|_| match mode {
        VERIFY_GREEDY => noise.normals(vocab as usize, 2.0),
        _ => distribution(&mut noise, vocab),
    });
    let target: Vec<Vec<f32>> = target.collect();
    let draft: Vec<Vec<f32>> = match drafted {
        true => (0..nodes).map(|_| distribution(&mut noise, vocab)).collect(),
        false => Vec::new(),
    };
    // Most drafts are what the target would take, so that walks go deep.
    for node in 1..nodes {
        let row = &target[parents[node] as usize];
        let most = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let likely = row.iter().position(|&v| v == most).expect("a row has a largest");
        if noise.below(4) > 0 {
            tokens[node] = match mode {
                VERIFY_TOKENS => sampled[parents[node] as usize],
                _ => likely as u32,
            };
        }
    }
    let request = VerifyRequest { seed, position: noise.below(1 << 20), fork: noise.below(4) };
    Drafts { tokens, parents: parents.to_vec(), sampled, target, draft, request }
}

/// A chain of so many nodes.
pub fn chain(nodes: u32) -> Vec<u32> {
    (0..nodes).map(|node| node.saturating_sub(1)).collect()
}

/// The list.
pub fn cases() -> Vec<VerifyCase> {
    let mut cases = Vec::new();
    let bushy = [0, 0, 0, 0, 1, 1, 2, 4, 4, 7];
    for (mode, drafted) in [
        (VERIFY_GREEDY, false),
        (VERIFY_TOKENS, false),
        (VERIFY_REJECTION, false),
        (VERIFY_REJECTION, true),
    ] {
        let shape = |seed, vocab, parents: &[u32]| drafts(seed, mode, vocab, parents, drafted);
        let with = if drafted { " with draft" } else { "" };
        let mut push = |name: &str, vocab, sequences| {
            let name = format!("mode {mode}{with} {name}");
            cases.push(VerifyCase::new(&name, mode, vocab, sequences));
        };
        push("no sequence", 5, vec![]);
        push("a root alone", 1, vec![shape(1, 1, &[0])]);
        push("chains", 33, (0..6).map(|s| shape(s, 33, &chain(s as u32 + 1))).collect());
        push("trees", 100, (0..8).map(|s| shape(s, 100, &bushy)).collect());
        push("64 nodes", 20, vec![shape(3, 20, &chain(64)), shape(4, 20, &[0; 64])]);
        // Around vectors, units of noise and blocks of sums.
        for vocab in [15, 16, 17, 63, 64, 65, 4095, 4096, 4097, 8193] {
            let trees = (0..3).map(|s| shape(s + 9, vocab, &[0, 0, 0, 1])).collect();
            push(&format!("vocab {vocab}"), vocab, trees);
        }
        let mut plain = VerifyCase::new(
            &format!("mode {mode}{with} chains without parents"),
            mode,
            40,
            (20..24).map(|s| shape(s, 40, &chain(5))).collect(),
        );
        plain.given[0] = false;
        cases.push(plain);
    }
    for drafted in [false, true] {
        let with = if drafted { " with draft" } else { "" };
        let name = format!("mass in later blocks{with}");
        let far = (0..6).map(|seed| far(seed, drafted)).collect();
        cases.push(VerifyCase::new(&name, VERIFY_REJECTION, 8193, far));
    }
    let near = NEAR.into_iter().map(near).collect();
    cases.push(VerifyCase::new("near acceptance", VERIFY_REJECTION, 8193, near));
    cases
}

/// Drafts whose target has next to nothing in the first of its three blocks of sums, and much in
/// the last, which is one token.
fn far(seed: u64, drafted: bool) -> Drafts {
    let mut drafts = drafts(seed + 40, VERIFY_REJECTION, 8193, &[0, 0, 0, 0, 2], drafted);
    drafts.tokens[1..4].copy_from_slice(&[4500 + seed as u32, 8192, 3]);
    for row in &mut drafts.target {
        row[..4096].iter_mut().for_each(|weight| *weight *= 1e-5);
        row[8192] = row[4096..8192].iter().sum::<f32>() / 2.0;
        let sum: f32 = row.iter().sum();
        row.iter_mut().for_each(|weight| *weight /= sum);
    }
    drafts
}

/// Seeds by which the roundings of [`near`] fall as the specification has it.
const NEAR: [u64; 12] = [0, 1, 2, 4, 5, 9, 10, 12, 13, 14, 22, 27];

/// A draft whose probability is that which its noise asks for, as near as f32 has it: one
/// rounding more in the sum of the target decides otherwise.
fn near(seed: u64) -> Drafts {
    let mut drafts = drafts(seed, VERIFY_REJECTION, 8193, &[0, 0], false);
    let token = 4096 + 37 * (seed as u32 % 64);
    drafts.tokens[1] = token;
    let VerifyRequest { seed, position, fork } = drafts.request;
    let source = Source { seed, position: position + 1, fork, purpose: params::NOISE_ACCEPT };
    let asked = (f64::from(source.word(token) >> 1) + 0.5) / 2_147_483_648.0;
    let others = drafts.target[0].iter().enumerate().filter(|(at, _)| *at as u32 != token);
    let others: f64 = others.map(|(_, &weight)| f64::from(weight)).sum();
    drafts.target[0][token as usize] = (others * asked / (1.0 - asked)) as f32;
    drafts
}

impl Case for VerifyCase {
    const KERNEL: &'static str = "spec_verify";

    fn name(&self) -> String {
        format!("{} x{}", self.name, self.sequences.len())
    }

    fn call(&self, machine: &mut impl Machine) -> Result<Vec<Output>, Error> {
        let p = self.params;
        let (nodes, sequences) =
            (p.nodes_max.min(1 << 12) as usize, p.sequences_max.min(1 << 12) as usize);
        let mut node_start = vec![0u32];
        for drafts in &self.sequences {
            node_start.push(node_start[node_start.len() - 1] + drafts.tokens.len() as u32);
        }
        node_start.resize(sequences + 1, 0xdead_beef);
        let mut requests: Vec<VerifyRequest> = self.sequences.iter().map(|d| d.request).collect();
        let unused = VerifyRequest { seed: 0, position: u32::MAX, fork: 0 };
        requests.resize(sequences, unused);
        let places: Vec<[u32; 2]> = (0..nodes as u32).map(|at| [1000 + at / 16, at % 16]).collect();
        let (node_start, requests) = (Bytes::of(&node_start), Bytes::of(&requests));
        let places = Bytes::of(&places);
        let (tokens, parents) = (self.words(|d| &d.tokens), self.words(|d| &d.parents));
        let sampled = self.words(|d| &d.sampled);
        let target = self.rows(p.target_row_stride, |d| &d.target);
        let draft = self.rows(p.draft_row_stride, |d| &d.draft);
        let live = Bytes::of(&[self.sequences.len() as u32]);
        let rejection = p.mode == VERIFY_REJECTION;
        let out = |words: usize| Bytes::poisoned((words * 4).saturating_sub(self.cut));
        let mut outs = [nodes, sequences, sequences, sequences, nodes * 5, 1].map(out);
        let [path, accepted, next, status, entries, count] = &mut outs;
        let command = SpecVerify::<Host<'_>> {
            params: p,
            node_start: node_start.as_slice(),
            tokens: tokens.as_slice(),
            parents: self.given[0].then(|| parents.as_slice()),
            target: (p.mode != VERIFY_TOKENS).then(|| target.as_slice()),
            draft: self.given[1].then(|| draft.as_slice()),
            sampled: (p.mode == VERIFY_TOKENS).then(|| sampled.as_slice()),
            requests: rejection.then(|| requests.as_slice()),
            places: Some(places.as_slice()),
            sequences: Some(live.as_slice()),
            path: path.as_mut_slice(),
            accepted: accepted.as_mut_slice(),
            next: next.as_mut_slice(),
            status: status.as_mut_slice(),
            entries: Some(entries.as_mut_slice()),
            count: Some(count.as_mut_slice()),
        };
        machine.run(command)?;
        let names = ["path", "accepted", "next", "status", "entries", "count"];
        // Whole numbers are compared as bytes.
        let output = |(name, bytes)| Output { name, dtype: Dtype::I8, bytes };
        Ok(names.into_iter().zip(outs).map(output).collect())
    }

    fn spec<R: Real>(&self) -> Vec<Vec<Row<R>>> {
        vec![Vec::new(); 6]
    }
}
