//! An adapter as files hold it, in the host's memory: no file is needed after it was read.

use std::collections::BTreeMap;

/// What is added to matrices of a model: `scale · B A x`, and, with magnitudes (DoRA), rows
/// of fixed length.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Adapter {
    /// By the name that the checkpoint gives the matrix, without `.weight`:
    /// `model.layers.0.self_attn.q_proj`, `model.embed_tokens`, `lm_head`.
    pub terms: BTreeMap<String, Term>,
}

/// What is added to one matrix.
#[derive(Clone, Debug, PartialEq)]
pub struct Term {
    /// Rows of A.
    pub rank: u32,
    /// Columns of A; of an embedding, tokens.
    pub inputs: u32,
    /// Rows of B; of an embedding, elements of a hidden state.
    pub outputs: u32,
    /// `[rank, inputs]`.
    pub a: Vec<f32>,
    /// `[outputs, rank]`.
    pub b: Vec<f32>,
    /// What B A is scaled by.
    pub scale: f32,
    /// `[outputs]`: the length that each row of the sum of base and term is brought to.
    pub magnitude: Option<Vec<f32>>,
}

impl Adapter {
    /// The largest rank of its terms; 0 without any.
    pub fn rank(&self) -> u32 {
        self.terms.values().map(|term| term.rank).max().unwrap_or(0)
    }

    /// Bytes that its floats take in the host's memory.
    pub fn bytes(&self) -> u64 {
        let floats = |term: &Term| {
            let magnitude = term.magnitude.as_ref().map_or(0, Vec::len);
            (term.a.len() + term.b.len() + magnitude) as u64
        };
        self.terms.values().map(floats).sum::<u64>() * size_of::<f32>() as u64
    }
}
